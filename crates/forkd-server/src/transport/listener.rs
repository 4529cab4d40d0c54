//! Bound sockets, our own and inherited ones.
//!
//! Invariant: a [`Listener`] is ready to be polled, accepted from or received from; `bind` has set
//! all that its connections need (TCP_NODELAY), which they inherit, and what datagrams need (packet information).
//! Options and flags of an inherited socket are its owner's: there each connection is given what it needs.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::net::if_::if_indextoname;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{SocketAddrAny, SocketType};

use super::socket_file::SocketFile;
use super::{Endpoint, Peer};
use crate::Error;
use crate::admission::Failure;
use crate::sys::accept::{accept, accept_now, check_timer};
use crate::sys::fd::set_nonblocking;
use crate::sys::queue::Queue;
use crate::sys::socket::Mode;

/// A connection, with the address of its other end.
type Accepted = (OwnedFd, Option<SocketAddrAny>);

/// What comes out of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connections.
    Stream,
    /// Datagrams.
    Datagram,
}

impl Kind {
    pub(super) fn socket_type(self) -> SocketType {
        match self {
            Self::Stream => SocketType::STREAM,
            Self::Datagram => SocketType::DGRAM,
        }
    }
}

/// A bound socket, and how to name it.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) kind: Kind,
    pub(super) endpoint: Endpoint,
    pub(super) file: Mutex<Option<SocketFile>>,
    /// Others have this socket, too, or will.
    pub(super) is_inherited: bool,
    /// Other programs have it, too, which may change its flags.
    pub(super) is_shared: AtomicBool,
    /// What accepted connections are given that they don't inherit, see [`keep_alive`](Self::keep_alive); in
    /// milliseconds, 0 for nothing.
    pub(super) keep_alive: AtomicU64,
    /// Connections that are held for workers at a stop, see [`hold_queued`](Self::hold_queued).
    queue: OnceLock<Option<Queue>>,
}

impl Listener {
    /// A socket that was bound here.
    pub(super) fn ours(socket: OwnedFd, kind: Kind, endpoint: Endpoint, file: Option<SocketFile>) -> Self {
        Self {
            socket,
            kind,
            endpoint,
            file: file.into(),
            is_inherited: false,
            is_shared: AtomicBool::new(false),
            keep_alive: 0.into(),
            queue: OnceLock::new(),
        }
    }

    /// A socket that another process has bound, and still owns.
    pub(super) fn inherited(socket: OwnedFd, kind: Kind, endpoint: Endpoint) -> Self {
        let mut listener = Self::ours(socket, kind, endpoint, None);
        listener.is_inherited = true;
        listener.lend();
        listener
    }

    /// The same, as that of another process, too, or with the file that is this process's to remove.
    pub(super) fn owned(mut self, is_inherited: bool, file: Option<SocketFile>) -> Self {
        self.is_inherited = is_inherited;
        self.is_shared = AtomicBool::new(is_inherited);
        *self.file() = file;
        self
    }

    /// Whether the socket goes on without this process: the clients in its queue at a stop are left to
    /// its next server.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Whether it gives connections or datagrams.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the socket is really bound to, with the port that the kernel chose.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether datagrams are of Unix sockets, where a slow reader makes the sender wait.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.endpoint, Endpoint::Unix(_) | Endpoint::Unixgram(_))
    }

    /// The UDP port, if it is a UDP socket.
    pub(crate) fn udp_port(&self) -> Option<u16> {
        if let Endpoint::Udp { port, .. } = self.endpoint { Some(port) } else { None }
    }

    /// Sets whether accepting waits for a client. The flag of an inherited socket belongs to all processes that share it,
    /// which may change it at any moment: it stays as it is, and says nothing.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        if self.is_inherited { Ok(()) } else { set_nonblocking(self, on) }
    }

    /// Programs get it, too: from now on this process does not rely on its flags.
    pub(crate) fn lend(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// Has the kernel end TCP connections that are accepted from now on when their peer does not answer for
    /// `limit` (`sys::tcp`).
    ///
    /// They inherit that from the listener, without a system call. The options of an inherited listener are its
    /// owner's, so there each connection is given it; without a limit, they are as the owner has them.
    pub(crate) fn keep_alive(&self, limit: Option<Duration>) {
        if !matches!(self.endpoint, Endpoint::Tcp { .. }) {
            return;
        }
        if self.is_inherited {
            let limit = limit.unwrap_or_default().as_millis();
            self.keep_alive.store(u64::try_from(limit).unwrap_or(u64::MAX), Ordering::Relaxed);
        } else {
            crate::sys::tcp::keep_alive(self, limit);
        }
    }

    /// Has the kernel give TCP connections as they come, or, where its service lets `clients_begin`, when there is
    /// something to read: a worker need not wait for the client a second time, and a child isn't forked for one that says
    /// nothing. One that says nothing for a second is given all the same. The options of an inherited listener are its
    /// owner's.
    pub(crate) fn defer_accept(&self, clients_begin: bool) {
        if !self.is_inherited && matches!(self.endpoint, Endpoint::Tcp { .. }) {
            crate::sys::tcp::defer_accept(self, clients_begin);
        }
    }

    /// Accepts one connection, with its peer. It waits for one, unless the socket does not block:
    /// it may or may not.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub(crate) fn accept(&self, socket: impl AsFd) -> rustix::io::Result<(OwnedFd, Peer)> {
        self.blocking(accept(socket, Mode::Blocking))
    }

    /// Refuses to have [`accept_now`](Self::accept_now) called on an inherited socket by processes that can't have the
    /// timer for it.
    ///
    /// # Errors
    ///
    /// [`Error::Os`].
    pub fn check_accept_now(&self) -> Result<(), Error> {
        if !self.is_inherited || self.kind == Kind::Datagram {
            return Ok(());
        }
        self.require_timer("other processes may share this inherited socket")
    }

    /// The same for [`accept_among_waiting`](Self::accept_among_waiting).
    pub(crate) fn check_accept_among_waiting(&self) -> Result<(), Error> {
        match self.kind {
            Kind::Stream => self.require_timer("spare children wait for clients at this socket"),
            Kind::Datagram => Ok(()),
        }
    }

    fn require_timer(&self, why: &str) -> Result<(), Error> {
        check_timer().map_err(|cause| {
            let what = format!(
                "cannot accept from {} without waiting, as {why}: timer_create(2) fails; allow it in the container's \
                 seccomp profile or the unit's SystemCallFilter=, or raise this user's limit on pending signals \
                 (LimitSIGPENDING=, ulimit -i)",
                self.endpoint
            );
            Error::os(what, cause)
        })
    }

    /// Accepts a connection, and does not wait for one: `AGAIN` if there is none. A socket of our own has been
    /// [set](Self::set_nonblocking) not to block.
    pub fn accept_now(&self, socket: impl AsFd) -> rustix::io::Result<(OwnedFd, Peer)> {
        self.blocking(self.take(socket, Mode::Blocking))
    }

    /// As [`accept_now`](Self::accept_now), on a socket that blocks, as other processes wait in accept(2) there.
    pub(crate) fn accept_among_waiting(&self) -> rustix::io::Result<(OwnedFd, Peer)> {
        self.blocking(accept_now(self, Mode::Blocking))
    }

    /// As [`accept_now`](Self::accept_now), and the connection does not block either.
    pub(crate) fn accept_nonblocking(&self, socket: impl AsFd) -> rustix::io::Result<(OwnedFd, Peer)> {
        self.with_peer(self.take(socket, Mode::NonBlocking))
    }

    #[inline]
    fn take(&self, socket: impl AsFd, mode: Mode) -> rustix::io::Result<Accepted> {
        if self.is_shared.load(Ordering::Relaxed) { accept_now(socket, mode) } else { accept(socket, mode) }
    }

    #[inline]
    fn blocking(&self, accepted: rustix::io::Result<Accepted>) -> rustix::io::Result<(OwnedFd, Peer)> {
        // the BSDs hand O_NONBLOCK down from the listener
        #[cfg(not(target_os = "linux"))]
        let _ = accepted.as_ref().map(|(connection, _)| set_nonblocking(connection, false));
        self.with_peer(accepted)
    }

    /// The address stays where accept(2) has put it: it is 138 bytes, and of most all but a few mean nothing.
    #[inline]
    fn with_peer(&self, accepted: rustix::io::Result<Accepted>) -> rustix::io::Result<(OwnedFd, Peer)> {
        match accepted {
            Ok((connection, ref address)) => {
                let peer = self.met(&connection, address.as_ref());
                Ok((connection, peer))
            }
            Err(errno) => Err(errno),
        }
    }

    fn met(&self, connection: &OwnedFd, address: Option<&SocketAddrAny>) -> Peer {
        if self.is_inherited && matches!(self.endpoint, Endpoint::Tcp { .. }) {
            // it fails for a connection that has ended already, which the first read tells better
            let _ = set_tcp_nodelay(connection, true);
        }
        let keep_alive = self.keep_alive.load(Ordering::Relaxed);
        if keep_alive > 0 {
            crate::sys::tcp::keep_alive(connection, Some(Duration::from_millis(keep_alive)));
        }
        Peer::of(connection, address, self.is_unix())
    }

    /// Makes the queue that a stop needs, if this socket can have one: its connections are ours. Workers must be forked
    /// after that.
    pub(crate) fn queue(&self) -> Option<&Queue> {
        let may_have_one = self.kind == Kind::Stream && !self.is_inherited;
        self.queue.get_or_init(|| may_have_one.then(Queue::new)?.ok()).as_ref()
    }

    /// The descriptors of the socket, and of the queue, if that was made.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let queue = self.queue.get().and_then(Option::as_ref);
        let queue = queue.into_iter().flat_map(Queue::descriptors);
        [self.as_raw_fd()].into_iter().chain(queue).collect()
    }

    /// Moves the connections that the kernel has queued to a queue of our own, where they wait until a worker
    /// [takes](Self::accept_queued) them. Returns how many were moved, and whether these are all; the others are more
    /// than fit in, or there is no queue, and wait where they are. Later clients are not connected any more.
    pub(crate) fn hold_queued(&self) -> (u32, bool) {
        let Some(queue) = self.queue() else { return (0, false) };
        // it fails only for what is no open file
        let _ = self.set_nonblocking(true);
        // first, as a client that is connected after the last accept(2) would be reset
        self.keep_out();
        let mut held = 0;
        while u64::from(held) < Queue::capacity() {
            match accept(self, Mode::Blocking) {
                // where there is no room after all, its client sees a reset
                Ok((connection, _)) if queue.put(&connection).is_err() => break,
                Ok(_) => held += 1,
                Err(Errno::AGAIN) => return (held, true),
                Err(error) if Failure::of(error) == Failure::Passing => {}
                Err(_) => break,
            }
        }
        (held, false)
    }

    /// Accepts one of the connections that were queued when a stop began; it blocks, if it `blocks`.
    ///
    /// # Errors
    ///
    /// As accept(2); `AGAIN` if there is none.
    pub(crate) fn accept_queued(&self, blocks: bool) -> rustix::io::Result<(OwnedFd, Peer)> {
        // One thread at a time: a connection that is taken out and finds no descriptor is lost, and an accept(2) of another thread
        // has one for a moment, also where it finds nothing.
        static TAKING: Mutex<()> = Mutex::new(());
        let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = self.queue.get().and_then(Option::as_ref);
        if let Some(connection) = queue.map_or(Ok(None), Queue::take)? {
            let address = rustix::net::getpeername(&connection).ok().flatten();
            if !blocks {
                rustix::io::ioctl_fionbio(&connection, true)?;
            }
            return self.with_peer(Ok((connection, address)));
        }
        match if blocks { self.accept_now(self) } else { self.accept_nonblocking(self) } {
            // it refuses, as all have been moved
            Err(Errno::INVAL) => Err(Errno::AGAIN),
            accepted => accepted,
        }
    }

    /// Connects no more clients; those that are queued stay there.
    fn keep_out(&self) {
        if let Endpoint::Tcp { .. } = self.endpoint {
            crate::sys::tcp::drop_new_connections(self);
        }
        self.remove_file();
    }

    /// Takes no more clients, in no process: further ones are refused at once. An inherited socket is not
    /// ours to shut.
    pub(crate) fn refuse(&self) {
        if self.kind == Kind::Stream && !self.is_inherited {
            // it fails only where the socket listens no more
            let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
        }
        self.remove_file();
    }

    pub(super) fn file(&self) -> MutexGuard<'_, Option<SocketFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the socket file, if it still is the one that was bound here.
    fn remove_file(&self) {
        let Some(file) = self.file().take() else { return };
        let path = file.path.clone();
        // After a change of user or root it may be out of reach; the next start replaces it.
        if let Err(error) = file.remove() {
            log::debug!(path:% = path.display(), error:%; "cannot remove the socket file");
        }
    }
}

pub(super) fn ip_endpoint(address: SocketAddr, kind: Kind) -> Endpoint {
    let (host, port) = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => (format!("{}%{}", v6.ip(), scope_of(v6)), v6.port()),
        other => (other.ip().to_string(), other.port()),
    };
    match kind {
        Kind::Stream => Endpoint::Tcp { host, port },
        Kind::Datagram => Endpoint::Udp { host, port },
    }
}

/// The name of the interface, as a person writes it, or its number.
fn scope_of(address: SocketAddrV6) -> String {
    let name = if_indextoname(address.scope_id()).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| address.scope_id().to_string())
}

/// With each datagram: its hop limit (see `udp_filter`), and on a wildcard address the local address
/// that it was sent to, from which the answer must leave (ip(7), ipv6(7)).
pub(super) fn ask_for_packet_information(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        #[cfg(not(target_os = "illumos"))]
        if address.ip().is_unspecified() {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true)?;
        // for v4-mapped datagrams; a socket for IPv6 alone may refuse it
        #[cfg(target_os = "linux")]
        let _ = setsockopt(socket, sockopt::Ipv4RecvTtl, &true);
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        if address.ip().is_unspecified() {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        setsockopt(socket, sockopt::Ipv4RecvTtl, &true)?;
    }
    Ok(())
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}
