//! Connections.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net as unix;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use super::{Socket, socket};
use crate::coroutine::{Waiter, sleep};
use crate::sys::socket::{Mode, socket};
use crate::transport::Ready;

/// A TCP connection that lets others go on while it waits; where no coroutines run, it blocks.
///
/// Reading and writing is by [`Read`] and [`Write`], also of `&TcpStream`, so that one coroutine can read while
/// another writes.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use forkd_server::coroutine::{self, TcpListener, TcpStream};
///
/// coroutine::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap())?;
///     let address = listener.local_addr()?;
///     coroutine::spawn(move || {
///         let (mut client, _) = listener.accept()?;
///         let mut text = String::new();
///         client.read_to_string(&mut text)?;
///         client.write_all(text.to_uppercase().as_bytes())
///     });
///     let mut stream = TcpStream::connect(address)?;
///     stream.write_all(b"hello")?;
///     stream.shutdown(std::net::Shutdown::Write)?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer)?;
///     assert_eq!(answer, "HELLO");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream(Socket<net::TcpStream>);

/// A Unix stream connection, as [`TcpStream`].
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
/// use forkd_server::coroutine::{self, UnixStream};
///
/// coroutine::run(|| {
///     let (mut here, mut there) = UnixStream::pair()?;
///     let answering = coroutine::spawn(move || {
///         let mut text = String::new();
///         there.read_to_string(&mut text)?;
///         there.write_all(text.to_uppercase().as_bytes())
///     });
///     here.write_all(b"hello")?;
///     here.shutdown(Shutdown::Write)?;
///     let mut answer = String::new();
///     here.read_to_string(&mut answer)?;
///     assert_eq!(answer, "HELLO");
///     answering.join().unwrap()
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixStream(Socket<unix::UnixStream>);

impl TcpStream {
    /// Connects to an address. The addresses of a name are found by [`resolve`](crate::transport::resolve),
    /// which blocks all coroutines meanwhile.
    ///
    /// # Errors
    ///
    /// As connect(2).
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_within(address, None)
    }

    /// Connects to an address, and waits for it at most for `limit`.
    ///
    /// # Errors
    ///
    /// As connect(2), and [`TimedOut`](io::ErrorKind::TimedOut).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::coroutine::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap())?;
    /// let stream = TcpStream::connect_timeout(listener.local_addr()?, Duration::from_secs(3))?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_timeout(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::connect_within(address, Some(limit))
    }

    fn connect_within(address: SocketAddr, limit: Option<Duration>) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket(family, SocketType::STREAM, Mode::NonBlocking)?;
        let begun = rustix::net::connect(&fd, &address);
        let socket = Socket::waited_for(net::TcpStream::from(fd), Waiter::of_connection());
        match begun {
            Ok(()) => Ok(Self(socket)),
            Err(Errno::INPROGRESS | Errno::INTR) => socket.connected(limit).map(Self),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over a connection.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    ///
    /// # Examples
    ///
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let stream = forkd_server::coroutine::TcpStream::from_std(stream)?;
    /// stream.set_nodelay(true)?;
    /// let (_, client) = listener.accept()?;
    /// assert_eq!(stream.local_addr()?, client);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(stream: net::TcpStream) -> io::Result<Self> {
        Socket::connection(stream).map(Self)
    }

    /// As [`std::net::TcpStream::set_nodelay`].
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.inner.set_nodelay(on)
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// As getpeername(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.peer_addr()
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.local_addr()
    }
}

impl UnixStream {
    /// Connects to the socket at a path. While its queue is full, tries again every few milliseconds.
    ///
    /// # Errors
    ///
    /// As connect(2).
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let address = rustix::net::SocketAddrUnix::new(path.as_ref())?;
        let fd = socket(AddressFamily::UNIX, SocketType::STREAM, Mode::NonBlocking)?;
        loop {
            match rustix::net::connect(&fd, &address) {
                Ok(()) => return Ok(Self(Socket::waited_for(fd.into(), Waiter::of_connection()))),
                Err(Errno::INTR) => {}
                // a Unix socket has no connection that is under way (connect(2), EAGAIN)
                Err(Errno::AGAIN) => sleep(Duration::from_millis(5)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Two that are connected to each other.
    ///
    /// # Errors
    ///
    /// As socketpair(2).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = unix::UnixStream::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    /// Takes over a connection.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// let (one, mut other) = std::os::unix::net::UnixStream::pair()?;
    /// let mut one = forkd_server::coroutine::UnixStream::from_std(one)?;
    /// other.write_all(b"hello")?;
    /// let mut text = [0; 5];
    /// one.read_exact(&mut text)?;
    /// assert_eq!(&text, b"hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(stream: unix::UnixStream) -> io::Result<Self> {
        Socket::connection(stream).map(Self)
    }
}

/// What streams of both kinds have.
macro_rules! stream {
    ($stream:ty) => {
        impl $stream {
            /// Has reads that wait for longer fail with [`WouldBlock`](io::ErrorKind::WouldBlock), as
            /// [`std::net::TcpStream::set_read_timeout`] does.
            ///
            /// # Errors
            ///
            /// A time-out of zero is refused.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::io::{ErrorKind, Read};
            /// use std::time::Duration;
            /// use forkd_server::coroutine::{self, UnixStream};
            ///
            /// coroutine::run(|| {
            ///     let (mut one, _other) = UnixStream::pair()?;
            ///     one.set_read_timeout(Some(Duration::from_millis(1)))?;
            ///     assert_eq!(one.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
            ///     Ok::<(), std::io::Error>(())
            /// })??;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
                self.0.set_limit(Ready::Read, limit)
            }

            /// The same for writes.
            ///
            /// # Errors
            ///
            /// A time-out of zero is refused.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::io::{ErrorKind, Write};
            /// use std::time::Duration;
            /// use forkd_server::coroutine::{self, UnixStream};
            ///
            /// coroutine::run(|| {
            ///     let (mut one, _who_does_not_read) = UnixStream::pair()?;
            ///     one.set_write_timeout(Some(Duration::from_millis(1)))?;
            ///     let error = one.write_all(&vec![0; 16 << 20]).unwrap_err();
            ///     assert_eq!(error.kind(), ErrorKind::WouldBlock);
            ///     Ok::<(), std::io::Error>(())
            /// })??;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
                self.0.set_limit(Ready::Write, limit)
            }

            /// Ends one direction of the connection, or both.
            ///
            /// # Errors
            ///
            /// As shutdown(2).
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.0.inner.shutdown(how)
            }
        }

        bytes!(&$stream);
        bytes!($stream);
    };
}

/// Reads and writes, for a stream and for a reference to one.
macro_rules! bytes {
    ($stream:ty) => {
        impl Read for $stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }
        }

        impl Write for $stream {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes)
            }

            /// Does nothing: nothing is buffered.
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

stream!(TcpStream);
stream!(UnixStream);

socket!(TcpStream UnixStream);
