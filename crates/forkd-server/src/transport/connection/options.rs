//! What a handler can say about its connection's socket.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, sockopt};

use super::{Connection, Medium, Ready};

impl Connection<'_> {
    /// The socket, for options that have no method here; `None` for a datagram, which came by the server's own.
    ///
    /// With the crate `socket2` it is `SockRef::from(&socket).set_tos_v4(…)`, with `rustix` a function of `net::sockopt`. Bytes
    /// that are read and written past the connection are not counted.
    ///
    /// ```
    /// use std::os::fd::AsRawFd;
    /// use forkd_server::Connection;
    ///
    /// fn handle(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     if let Some(socket) = connection.socket() {
    ///         println!("served by descriptor {}", socket.as_raw_fd());
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    #[doc(alias = "as_fd")]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.medium {
            Medium::Stream(socket, _) => Some(socket.as_fd()),
            Medium::Datagram { .. } => None,
        }
    }

    /// Our end of a connection by TCP, as std has it; see [`local_endpoint`](Self::local_endpoint) for other transports.
    ///
    /// ```
    /// use std::io::Write;
    /// use forkd_server::Connection;
    ///
    /// fn where_am_i(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     let address = connection.local_addr()?;
    ///     writeln!(connection, "port {} of {}", address.port(), address.ip())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) for a datagram or a Unix socket; else as getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(self.socket())
    }

    /// Whether small writes are sent at once (tcp(7), `TCP_NODELAY`). They are, unless this says otherwise: then the kernel
    /// may keep a small one until its client has acknowledged what was sent before. It has no effect where there is no TCP.
    ///
    /// ```
    /// use forkd_server::Connection;
    ///
    /// fn handle(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     connection.set_nodelay(false)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self.socket().map(|socket| sockopt::set_tcp_nodelay(socket, on)) {
            None | Some(Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// How long a read may wait from here on, `None` for ever: in place of the server's
    /// [`idle_timeout`](crate::Server::idle_timeout). One that waits longer fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), and may be tried again; a handler that returns that error has ended the
    /// connection of a client that was silent for too long. Datagrams are there at once.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    /// use std::time::Duration;
    /// use forkd_server::{Connection, Service};
    ///
    /// /// Serves until the client ends or the server is to stop.
    /// fn patient(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     connection.set_read_timeout(Some(Duration::from_millis(10)))?;
    ///     let mut chunk = [0; 512];
    ///     while !connection.server().is_stopping() {
    ///         match connection.read(&mut chunk) {
    ///             Ok(0) => break,
    ///             Ok(n) => connection.write_all(&chunk[..n])?,
    ///             Err(error) if error.kind() == ErrorKind::WouldBlock => {}
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    ///     connection.write_all(b"bye\n")
    /// }
    /// # use std::net::TcpStream;
    /// # use forkd_server::{Server, model::Model};
    /// # let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread);
    /// # let (handle, endpoint) = (server.handle(), server.server_address().to_string());
    /// # let serving = std::thread::spawn(move || server.serve_forever(Service::handler("patient", || patient)));
    /// # let mut client = TcpStream::connect(&endpoint["tcp://".len()..]).unwrap();
    /// # client.write_all(b"hello\n").unwrap();
    /// # client.read_exact(&mut [0; 6]).unwrap();
    /// # handle.shutdown();
    /// # let mut heard = String::new();
    /// # client.read_to_string(&mut heard).unwrap();
    /// # assert_eq!(heard, "bye\n");
    /// # serving.join().unwrap()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A time-out of zero is refused.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_timeout(Ready::Read, limit)
    }

    /// The same for a write to a client that reads nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::Connection;
    ///
    /// fn handle(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     connection.set_write_timeout(Some(Duration::from_secs(5)))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A time-out of zero is refused.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_timeout(Ready::Write, limit)
    }

    fn set_timeout(&self, ready: Ready, limit: Option<Duration>) -> io::Result<()> {
        self.timeout(ready).set(checked(limit)?);
        self.is_limited.set(true);
        Ok(())
    }

    /// Ends one direction of the connection, or both: after [`Shutdown::Write`] the client reads the end, and can go on to
    /// write. It has no effect on a datagram.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::Shutdown;
    /// use forkd_server::Connection;
    ///
    /// fn answers_first(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     connection.write_all(b"that was all; now you\n")?;
    ///     connection.shutdown(Shutdown::Write)?;
    ///     connection.read_to_string(&mut String::new()).map(drop)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| shutdown(socket, how))
    }
}

/// The Internet address of a socket, if there is one.
pub(crate) fn local_addr(socket: Option<BorrowedFd<'_>>) -> io::Result<SocketAddr> {
    let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "this end has no Internet address");
    let address = net::getsockname(socket.ok_or_else(unsupported)?)?;
    let address = SocketAddr::try_from(address).map_err(|_| unsupported())?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

pub(super) fn shutdown(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => net::Shutdown::Read,
        Shutdown::Write => net::Shutdown::Write,
        Shutdown::Both => net::Shutdown::Both,
    };
    Ok(net::shutdown(socket, how)?)
}

/// A time-out that a wait can have.
pub(super) fn checked(limit: Option<Duration>) -> io::Result<Option<Duration>> {
    match limit {
        Some(Duration::ZERO) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a time-out of zero is none: say None"))
        }
        limit => Ok(limit),
    }
}
