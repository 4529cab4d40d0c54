//! A worker that runs a function of the program.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;

use rustix::io::Errno;

use super::{OpenConnection, Shutdown};
use crate::Error;
use crate::scoreboard::Slot;
use crate::sys::fd::first_readable;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::transport::listener::Kind;
use crate::transport::{Endpoint, Listener, Peer};

/// A worker process, as the function sees it that it runs: what it accepts from, and when it is to leave.
///
/// It is made after the fork, by [`Server::run`](crate::Server::run). Cloning is cheap, and clones may go into threads and
/// tasks.
///
/// # Examples
///
/// A worker that serves one client at a time, and tells the master of each:
///
/// ```no_run
/// use std::io::Write;
/// use forkd_server::{Server, Worker};
///
/// fn serve(worker: Worker) -> std::io::Result<()> {
///     while let Some((mut client, _)) = worker.accept_tcp()? {
///         let _counted = worker.connection();
///         writeln!(client, "worker {} of generation {}", worker.number(), worker.generation())?;
///     }
///     Ok(())
/// }
///
/// Server::bind("tcp://127.0.0.1:7007")?.workers(4).run(serve)?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

struct Inner {
    listeners: Vec<Arc<Listener>>,
    shutdown: Shutdown,
    board: Board,
    place: Place,
}

/// What the master sees of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Board {
    pub(crate) slot: &'static Slot,
}

/// Which worker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

impl Worker {
    pub(crate) fn new(
        listeners: Vec<Arc<Listener>>,
        shutdown: &Arc<ShutdownFd>,
        board: Board,
        place: Place,
    ) -> Self {
        Self(Arc::new(Inner { listeners, shutdown: Shutdown::new(shutdown), board, place }))
    }

    /// Its number in the pool, from 0 on: the lowest that no other worker of its generation has.
    ///
    /// A worker that replaces another gets its number, so there is never a higher one than there are workers at most.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.0.place.number
    }

    /// The generation of its pool: 1 at the start, and one more with each reload, as by SIGHUP.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.0.place.generation
    }

    /// Says that it serves. A worker that doesn't say so counts as ready when it has lived for a second.
    ///
    /// A reload tells the workers of the last generation to leave as these are ready.
    pub fn ready(&self) {
        self.0.board.slot.come_up();
    }

    /// What tells it to leave.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Counts a connection, or a request if that is what the pool is to be measured by, as being served until the value is
    /// dropped: the master then knows the worker as busy, and shows how many connections it has and has had.
    ///
    /// ```no_run
    /// # fn serve(worker: forkd_server::Worker, client: std::net::TcpStream) {
    /// let counted = worker.connection();
    /// std::thread::spawn(move || {
    ///     let _counted = counted; // until the thread ends
    ///     drop(client);
    /// });
    /// # }
    /// ```
    pub fn connection(&self) -> OpenConnection {
        OpenConnection::open(self.0.board)
    }

    /// The sockets that it accepts or receives from, each with what it is bound to, in the order in which they were bound.
    /// All workers share them.
    pub fn sockets(&self) -> impl Iterator<Item = (&Endpoint, BorrowedFd<'_>)> {
        self.0.listeners.iter().map(|listener| (listener.endpoint(), listener.as_fd()))
    }

    /// The first TCP socket that it listens on, by a descriptor of its own.
    ///
    /// Whether it blocks is a property of the socket, which all workers share: an event loop that sets it non-blocking does
    /// so for all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the server has none; [`Error::Os`] if no descriptor is left.
    pub fn tcp_listener(&self) -> Result<TcpListener, Error> {
        Ok(self.socket("TCP", Kind::Stream, false)?.into())
    }

    /// As [`tcp_listener`](Self::tcp_listener), the first Unix socket that it listens on.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unix_listener(&self) -> Result<UnixListener, Error> {
        Ok(self.socket("Unix", Kind::Stream, true)?.into())
    }

    /// As [`tcp_listener`](Self::tcp_listener), the first UDP socket. Each datagram comes to one of the workers.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn udp_socket(&self) -> Result<UdpSocket, Error> {
        Ok(self.socket("UDP", Kind::Datagram, false)?.into())
    }

    /// As [`udp_socket`](Self::udp_socket), the first Unix datagram socket.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unix_datagram(&self) -> Result<UnixDatagram, Error> {
        Ok(self.socket("Unix datagram", Kind::Datagram, true)?.into())
    }

    /// Waits for a client of the first TCP socket; `None`: the worker is to leave. It blocks this thread, and the kernel wakes
    /// one of the workers that wait so.
    ///
    /// # Errors
    ///
    /// As accept(2); as [`tcp_listener`](Self::tcp_listener), if there is no such socket.
    pub fn accept_tcp(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let listener = self.listener("TCP", Kind::Stream, false)?;
        let is_first = self.0.listeners.first().is_some_and(|first| Arc::ptr_eq(first, listener));
        let shutdown = &self.0.shutdown;
        while !shutdown.is_requested() {
            let accepted = match is_first {
                true => listener.accept(shutdown.interrupted()),
                false => listener.accept_nonblocking(listener),
            };
            match accepted {
                Ok((socket, Peer::Ip(address))) => return Ok(Some((socket.into(), address))),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED | Errno::NOTSOCK) => {}
                Err(Errno::AGAIN) => _ = first_readable(&[shutdown.as_fd(), listener.as_fd()], None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn socket(&self, what: &str, kind: Kind, is_unix: bool) -> Result<OwnedFd, Error> {
        let cannot = |cause| Error::os(format!("cannot duplicate the {what} socket"), cause);
        self.listener(what, kind, is_unix)?.as_fd().try_clone_to_owned().map_err(cannot)
    }

    fn listener(&self, what: &str, kind: Kind, is_unix: bool) -> Result<&Arc<Listener>, Error> {
        let suits = |listener: &&Arc<Listener>| listener.kind() == kind && listener.is_unix() == is_unix;
        self.0.listeners.iter().find(suits).ok_or_else(|| {
            let have: Vec<String> =
                self.0.listeners.iter().map(|listener| listener.endpoint().to_string()).collect();
            Error::Usage(format!("the server has no {what} socket: it is bound to {}", have.join(", ")))
        })
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("place", &self.0.place)
            .field("listeners", &self.0.listeners)
            .finish_non_exhaustive()
    }
}
