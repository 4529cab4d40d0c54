//! Sockets for datagrams.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Socket, socket};
use crate::transport::Ready;

/// A UDP socket that lets others go on while it waits; where no coroutines run, it blocks.
///
/// # Examples
///
/// UDP may lose a datagram, so a client asks again:
///
/// ```
/// use std::io::ErrorKind;
/// use std::time::Duration;
/// use forkd_server::coroutine::{self, UdpSocket};
///
/// coroutine::run(|| {
///     let server = UdpSocket::bind("127.0.0.1:0".parse().unwrap())?;
///     let client = UdpSocket::bind("127.0.0.1:0".parse().unwrap())?;
///     client.connect(server.local_addr()?)?;
///     coroutine::spawn(move || {
///         let mut buffer = [0; 2048];
///         loop {
///             let (n, from) = server.recv_from(&mut buffer)?;
///             server.send_to(&buffer[..n].to_ascii_uppercase(), from)?;
///         }
///         # #[allow(unreachable_code)]
///         Ok::<(), std::io::Error>(())
///     });
///     client.set_read_timeout(Some(Duration::from_secs(1)))?;
///     let mut answer = [0; 2048];
///     let n = loop {
///         client.send(b"hello")?;
///         match client.recv(&mut answer) {
///             Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
///             outcome => break outcome?,
///         }
///     };
///     assert_eq!(&answer[..n], b"HELLO");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket(Socket<net::UdpSocket>);

impl UdpSocket {
    /// A socket at an address of this machine; port 0 lets the system choose one.
    ///
    /// # Errors
    ///
    /// As bind(2).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::from_std(net::UdpSocket::bind(address)?)
    }

    /// Takes over a socket. From now on it does not block, in other processes that share it either.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    ///
    /// # Examples
    ///
    /// ```
    /// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_broadcast(true)?;
    /// let socket = forkd_server::coroutine::UdpSocket::from_std(socket)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(socket: net::UdpSocket) -> io::Result<Self> {
        Socket::new(socket).map(Self)
    }

    /// Has [`send`](Self::send) send to this address, and the socket receive from it alone. Nothing is sent.
    ///
    /// # Errors
    ///
    /// As connect(2).
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        self.0.inner.connect(address)
    }

    /// Sends a datagram to an address; returns its length.
    ///
    /// # Errors
    ///
    /// As send(2).
    pub fn send_to(&self, payload: &[u8], address: SocketAddr) -> io::Result<usize> {
        self.0.attempt(Ready::Write, |socket| socket.send_to(payload, address))
    }

    /// Waits for the next datagram; returns its length and its sender. What the buffer has no room for is lost;
    /// none has more than 65,535 bytes.
    ///
    /// # Errors
    ///
    /// As recv(2), and [`WouldBlock`](io::ErrorKind::WouldBlock) after a [time-out](Self::set_read_timeout).
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.attempt(Ready::Read, |socket| socket.recv_from(buffer))
    }

    /// Sends a datagram to the address that the socket is [connected](Self::connect) to; returns its length.
    ///
    /// # Errors
    ///
    /// As send(2); [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) may mean an earlier one.
    pub fn send(&self, payload: &[u8]) -> io::Result<usize> {
        self.0.attempt(Ready::Write, |socket| socket.send(payload))
    }

    /// As [`recv_from`](Self::recv_from), on a socket that is [connected](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from); [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) where no server
    /// listens.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.attempt(Ready::Read, |socket| socket.recv(buffer))
    }

    /// The address of the socket.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.local_addr()
    }

    /// Has a wait for a datagram that takes longer fail with [`WouldBlock`](io::ErrorKind::WouldBlock), as
    /// [`std::net::UdpSocket::set_read_timeout`] does.
    ///
    /// # Errors
    ///
    /// A time-out of zero is refused.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_limit(Ready::Read, limit)
    }
}

socket!(UdpSocket);
