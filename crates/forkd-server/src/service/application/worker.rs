//! A worker that runs a function of the program.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use smallvec::SmallVec;

use super::{OpenConnection, Shutdown};
use crate::Error;
use crate::scoreboard::{Place, Slot};
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
    /// Which of several sockets is asked first for a client.
    turn: AtomicUsize,
}

type Few<T> = SmallVec<[T; 4]>;

/// What the master sees of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Board {
    pub(crate) slot: &'static Slot,
}

impl Worker {
    pub(crate) fn new(
        listeners: Vec<Arc<Listener>>,
        shutdown: &Arc<ShutdownFd>,
        board: Board,
        place: Place,
    ) -> Self {
        let (shutdown, turn) = (Shutdown::new(shutdown), AtomicUsize::new(0));
        Self(Arc::new(Inner { listeners, shutdown, board, place, turn }))
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
    ///
    /// It is for servers with several of a kind: a socket that no worker accepts from keeps its clients waiting.
    ///
    /// ```
    /// use std::net::TcpListener;
    ///
    /// # fn serve(worker: forkd_server::Worker) -> std::io::Result<()> {
    /// for (endpoint, socket) in worker.sockets() {
    ///     let listener = TcpListener::from(socket.try_clone_to_owned()?);
    ///     println!("{endpoint} is {:?}", listener.local_addr()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sockets(&self) -> impl Iterator<Item = (&Endpoint, BorrowedFd<'_>)> {
        self.0.listeners.iter().map(|listener| (listener.endpoint(), listener.as_fd()))
    }

    /// The TCP socket that it listens on, by a descriptor of its own.
    ///
    /// Whether it blocks is a property of the socket, which all workers share: an event loop that sets it non-blocking does
    /// so for all of them.
    ///
    /// ```no_run
    /// use forkd_server::{Server, Worker};
    ///
    /// async fn serve(worker: Worker) -> std::io::Result<()> {
    ///     let listener = worker.tcp_listener()?;
    ///     listener.set_nonblocking(true)?;
    ///     let listener = tokio::net::TcpListener::from_std(listener)?;
    ///     worker.ready();
    ///     let (client, peer) = listener.accept().await?;
    /// #   drop((client, peer));
    ///     Ok(())
    /// }
    ///
    /// Server::bind("tcp://127.0.0.1:7007")?.workers(2).run(|worker| {
    ///     tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(worker))
    /// })?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the server has none, or several, which [`sockets`](Self::sockets) has: a host name may stand for
    /// more than one address. [`Error::Os`] if no descriptor is left.
    pub fn tcp_listener(&self) -> Result<TcpListener, Error> {
        Ok(self.socket("TCP", Kind::Stream, false)?.into())
    }

    /// As [`tcp_listener`](Self::tcp_listener), the Unix socket that it listens on.
    ///
    /// ```
    /// # fn serve(worker: forkd_server::Worker) -> std::io::Result<()> {
    /// let listener = worker.unix_listener()?;
    /// let (client, _) = listener.accept()?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unix_listener(&self) -> Result<UnixListener, Error> {
        Ok(self.socket("Unix", Kind::Stream, true)?.into())
    }

    /// As [`tcp_listener`](Self::tcp_listener), the UDP socket. Each datagram comes to one of the workers.
    ///
    /// A call that waits for a datagram is not ended by the shutdown: wait with a time-out, for both at once, or in a thread.
    ///
    /// ```
    /// # fn serve(worker: forkd_server::Worker) -> std::io::Result<()> {
    /// let (socket, mut datagram) = (worker.udp_socket()?, [0; 2048]);
    /// socket.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
    /// while !worker.shutdown().is_requested() {
    ///     if let Ok((length, peer)) = socket.recv_from(&mut datagram) {
    ///         socket.send_to(&datagram[..length], peer)?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As there.
    pub fn udp_socket(&self) -> Result<UdpSocket, Error> {
        Ok(self.socket("UDP", Kind::Datagram, false)?.into())
    }

    /// As [`udp_socket`](Self::udp_socket), the Unix datagram socket.
    ///
    /// ```
    /// # fn serve(worker: forkd_server::Worker) -> std::io::Result<()> {
    /// let (socket, mut datagram) = (worker.unix_datagram()?, [0; 2048]);
    /// let (length, sender) = socket.recv_from(&mut datagram)?;
    /// if let Some(path) = sender.as_pathname() {
    ///     socket.send_to(&datagram[..length], path)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unix_datagram(&self) -> Result<UnixDatagram, Error> {
        Ok(self.socket("Unix datagram", Kind::Datagram, true)?.into())
    }

    /// Waits for a client of any of its TCP sockets; `None`: the worker is to leave. It blocks this thread, and the kernel wakes
    /// one of the workers that wait so.
    ///
    /// A worker that serves each client in a thread, and leaves when the last one has gone:
    ///
    /// ```no_run
    /// use std::io::{Read, Write};
    /// use forkd_server::{Server, Worker};
    ///
    /// fn serve(worker: Worker) -> std::io::Result<()> {
    ///     worker.ready();
    ///     std::thread::scope(|threads| {
    ///         while let Some((mut client, _)) = worker.accept_tcp()? {
    ///             let counted = worker.connection();
    ///             threads.spawn(move || {
    ///                 let _counted = counted;
    ///                 std::io::copy(&mut client.try_clone()?, &mut client)
    ///             });
    ///         }
    ///         Ok(())
    ///     })
    /// }
    ///
    /// Server::bind("tcp://127.0.0.1:7007")?.workers(4).run(serve)?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As accept(2); [`Error::Usage`] inside, if there is no such socket.
    pub fn accept_tcp(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        while let Some((socket, peer)) = self.accept("TCP", false)? {
            // another peer is one that has gone meanwhile
            if let Peer::Ip(address) = peer {
                return Ok(Some((socket.into(), address)));
            }
        }
        Ok(None)
    }

    /// As [`accept_tcp`](Self::accept_tcp), a client of any of its Unix sockets.
    ///
    /// ```no_run
    /// use std::io::Write;
    /// use forkd_server::{Server, Worker};
    ///
    /// Server::bind("unix:///tmp/hello.sock")?.workers(2).run(|worker: Worker| {
    ///     while let Some(mut client) = worker.accept_unix()? {
    ///         writeln!(client, "hello")?;
    ///     }
    ///     Ok::<(), std::io::Error>(())
    /// })?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As there.
    pub fn accept_unix(&self) -> io::Result<Option<UnixStream>> {
        Ok(self.accept("Unix", true)?.map(|(socket, _)| socket.into()))
    }

    fn accept(&self, what: &str, is_unix: bool) -> io::Result<Option<(OwnedFd, Peer)>> {
        let listeners = self.listeners(what, Kind::Stream, is_unix)?;
        let shutdown = &self.0.shutdown;
        // the shutdown interrupts a wait at the first socket of all
        let waits = listeners.len() == 1 && Arc::ptr_eq(listeners[0], &self.0.listeners[0]);
        while !shutdown.is_requested() {
            let accepted = match waits {
                true => listeners[0].accept(shutdown.interrupted()),
                false => self.accept_one_of(&listeners),
            };
            match accepted {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // by the shutdown, or with it: at a stop the socket itself is put out of use
                Err(Errno::NOTSOCK | Errno::INVAL) if shutdown.is_requested() => {}
                Err(Errno::AGAIN) => {
                    let sockets = listeners.iter().map(|listener| listener.as_fd());
                    let either: Few<BorrowedFd<'_>> = sockets.chain([shutdown.as_fd()]).collect();
                    first_readable(&either, None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Each socket comes first in its turn.
    fn accept_one_of(&self, listeners: &[&Arc<Listener>]) -> rustix::io::Result<(OwnedFd, Peer)> {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let mut accepted = Err(Errno::AGAIN);
        for at in 0..listeners.len() {
            accepted = listeners[turn.wrapping_add(at) % listeners.len()].accept_among_waiting();
            if !matches!(accepted, Err(Errno::AGAIN)) {
                break;
            }
        }
        accepted
    }

    fn socket(&self, what: &str, kind: Kind, is_unix: bool) -> Result<OwnedFd, Error> {
        let listeners = self.listeners(what, kind, is_unix)?;
        if listeners.len() > 1 {
            let bound = names(listeners.iter().copied());
            let why = format!("the server has several {what} sockets: {bound}; Worker::sockets has them all");
            return Err(Error::Usage(why));
        }
        let cannot = |cause| Error::os(format!("cannot duplicate the {what} socket"), cause);
        listeners[0].as_fd().try_clone_to_owned().map_err(cannot)
    }

    /// Those of this kind; at least one.
    fn listeners(&self, what: &str, kind: Kind, is_unix: bool) -> Result<Few<&Arc<Listener>>, Error> {
        let suits = |listener: &&Arc<Listener>| listener.kind() == kind && listener.is_unix() == is_unix;
        let found: Few<_> = self.0.listeners.iter().filter(suits).collect();
        if found.is_empty() {
            let bound = names(&self.0.listeners);
            return Err(Error::Usage(format!("the server has no {what} socket: it is bound to {bound}")));
        }
        Ok(found)
    }
}

/// What these are bound to, for a person.
fn names<'a>(listeners: impl IntoIterator<Item = &'a Arc<Listener>>) -> String {
    let names: Vec<String> = listeners.into_iter().map(|listener| listener.endpoint().to_string()).collect();
    names.join(", ")
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("place", &self.0.place)
            .field("listeners", &self.0.listeners)
            .finish_non_exhaustive()
    }
}
