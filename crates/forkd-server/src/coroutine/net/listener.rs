//! Sockets that clients connect to.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net as unix;
use std::path::Path;

use super::{Socket, TcpStream, UnixStream, socket};
use crate::transport::Ready;

/// A TCP socket that clients connect to; [`accept`](Self::accept) lets others go on while it waits.
///
/// # Examples
///
/// gevent's `StreamServer`:
///
/// ```no_run
/// use std::io::{Read, Write};
/// use forkd_server::coroutine::{self, TcpListener};
///
/// coroutine::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:7007".parse().unwrap())?;
///     loop {
///         let (mut client, _) = listener.accept()?;
///         coroutine::spawn(move || std::io::copy(&mut &client, &mut &client));
///     }
///     # #[allow(unreachable_code)]
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener(Socket<net::TcpListener>);

/// A Unix socket that clients connect to, as [`TcpListener`].
///
/// ```
/// use std::io::{Read, Write};
/// use forkd_server::coroutine::{self, UnixListener, UnixStream};
///
/// let path = std::env::temp_dir().join(format!("listener-{}", std::process::id()));
/// coroutine::run(|| {
///     let listener = UnixListener::bind(&path)?;
///     coroutine::spawn(move || listener.accept()?.write_all(b"hello"));
///     let mut text = String::new();
///     UnixStream::connect(&path)?.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     std::fs::remove_file(&path)
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixListener(Socket<unix::UnixListener>);

impl TcpListener {
    /// Listens at an address; port 0 lets the system choose one.
    ///
    /// # Errors
    ///
    /// As bind(2) and listen(2).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::from_std(net::TcpListener::bind(address)?)
    }

    /// Takes over a socket that listens. From now on it does not block, in other processes that share it either.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    ///
    /// # Examples
    ///
    /// ```
    /// let inherited = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let address = inherited.local_addr()?;
    /// let listener = forkd_server::coroutine::TcpListener::from_std(inherited)?;
    /// assert_eq!(listener.local_addr()?, address);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(listener: net::TcpListener) -> io::Result<Self> {
        Socket::new(listener).map(Self)
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (client, address) = self.0.attempt(Ready::Read, net::TcpListener::accept)?;
        Ok((TcpStream::from_std(client)?, address))
    }

    /// The address that it listens at.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.local_addr()
    }
}

impl UnixListener {
    /// Listens at a path, where no file may be.
    ///
    /// # Errors
    ///
    /// As bind(2).
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_std(unix::UnixListener::bind(path)?)
    }

    /// Takes over a socket that listens. From now on it does not block, in other processes that share it either.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    ///
    /// # Examples
    ///
    /// ```
    /// let path = std::env::temp_dir().join(format!("inherited-{}", std::process::id()));
    /// let listener = std::os::unix::net::UnixListener::bind(&path)?;
    /// let client = std::os::unix::net::UnixStream::connect(&path)?;
    /// assert!(forkd_server::coroutine::UnixListener::from_std(listener)?.accept().is_ok());
    /// std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(listener: unix::UnixListener) -> io::Result<Self> {
        Socket::new(listener).map(Self)
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (client, _) = self.0.attempt(Ready::Read, unix::UnixListener::accept)?;
        UnixStream::from_std(client)
    }
}

socket!(TcpListener UnixListener);
