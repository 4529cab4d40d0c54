//! The connection that a handler talks to.
//!
//! A stream socket, or one datagram that is read to its end and answered with what was written,
//! as in socketserver's `DatagramRequestHandler`. All bytes are counted on their way.

mod bytes;
mod duplex;
mod hand_over;
mod introduce;
mod linger;
mod options;
mod stream;
mod wait;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

pub(crate) use bytes::MORE;
pub(crate) use duplex::Awaited;
pub(crate) use hand_over::Watch;
pub(crate) use linger::{LEFTOVER, LINGER};
pub(crate) use options::local_addr;
use stream::Cloned;
pub use stream::Stream;
#[cfg(feature = "coroutine")]
pub(crate) use wait::{Attempt, Blocking, block};
pub(crate) use wait::{Ready, Wait};

use super::early::Early;
use super::inherited::local_end;
use super::{Endpoint, Offence, Peer, ServerInfo, TimedOut, Traffic};
use crate::sys;

/// A connection, or a datagram, together with its peer.
///
/// Reading returns `Ok(0)` at the end of the client's data. With an idle time-out
/// ([`Server::idle_timeout`](crate::Server::idle_timeout), [`set_read_timeout`](Self::set_read_timeout)), a read or write
/// that waits longer fails with [`WouldBlock`](io::ErrorKind::WouldBlock). With a longest lifetime
/// ([`Server::max_lifetime`](crate::Server::max_lifetime)), each read and write fails with
/// [`TimedOut`](io::ErrorKind::TimedOut) once that is over.
///
/// It is the handler's, and ends with it; other threads and coroutines have [clones](Self::try_clone).
///
/// ```
/// use std::io::{Read, Write};
/// use forkd_server::{Connection, Handler};
///
/// struct Shout;
/// impl Handler for Shout {
///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         let mut chunk = [0; 512];
///         loop {
///             let n = connection.read(&mut chunk)?;
///             if n == 0 {
///                 return Ok(());
///             }
///             connection.write_all(&chunk[..n].to_ascii_uppercase())?;
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Connection<'a> {
    medium: Medium<'a>,
    peer: Peer,
    traffic: &'static Traffic,
    server: &'a ServerInfo,
    /// How long a read and a write may wait.
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
    /// When it ends, whatever its client does.
    deadline: Option<Instant>,
    /// A wait has a limit, or had one, so that the kernel is to be told of it: else that is one branch for each call.
    is_limited: Cell<bool>,
    /// How long a read and a write of the socket wait, as far as the kernel was told.
    read_limit: Cell<Option<Duration>>,
    write_limit: Cell<Option<Duration>>,
    /// Other processes may have the socket, too, so that its flags are not ours to change.
    is_shared: bool,
    input: Cell<Input>,
    /// Counts it until its first exchange is complete.
    early: Early,
    /// What its client has done wrong.
    offence: Option<Offence>,
    /// Ends what was cloned of it.
    cloned: Cloned,
}

/// What has come of a stream's input so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Nothing.
    Silent,
    /// Some bytes, maybe more to come.
    Begun,
    /// The end, or the program that the connection was handed over to has all further input.
    Ended,
}

impl Input {
    /// After a read of this number of bytes.
    const fn after(read: usize) -> Self {
        if read == 0 { Self::Ended } else { Self::Begun }
    }
}

#[derive(Debug)]
enum Medium<'a> {
    /// The socket blocks, unless a `Wait` waits for it.
    Stream(OwnedFd, Option<&'a dyn Wait>),
    Datagram {
        unread: Cell<&'a [u8]>,
        /// `None` until something is written, be it nothing.
        answer: RefCell<Option<Vec<u8>>>,
    },
}

impl<'a> Connection<'a> {
    /// A stream, which is counted until its first exchange is complete.
    pub(crate) fn stream(
        socket: OwnedFd,
        peer: Peer,
        early: Early,
        traffic: &'static Traffic,
        server: &'a ServerInfo,
    ) -> Self {
        Traffic::add(&traffic.connections, 1);
        Self::new(Medium::Stream(socket, None), peer, early, traffic, server)
    }

    fn new(
        medium: Medium<'a>,
        peer: Peer,
        early: Early,
        traffic: &'static Traffic,
        server: &'a ServerInfo,
    ) -> Self {
        Self {
            medium,
            peer,
            traffic,
            server,
            read_timeout: Cell::new(None),
            write_timeout: Cell::new(None),
            deadline: None,
            is_limited: Cell::new(false),
            read_limit: Cell::new(None),
            write_limit: Cell::new(None),
            is_shared: false,
            input: Cell::new(Input::Silent),
            early,
            offence: None,
            cloned: Cloned::default(),
        }
    }

    /// The same with a socket that others may have, too: it may block or not, whatever they like.
    #[cfg(feature = "coroutine")]
    pub(crate) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// The same with a socket that does not block, which `wait` waits for.
    #[cfg(feature = "coroutine")]
    pub(crate) fn waiting(self, wait: &'a dyn Wait) -> Self {
        match self.medium {
            Medium::Stream(socket, _) => Self { medium: Medium::Stream(socket, Some(wait)), ..self },
            Medium::Datagram { .. } => self,
        }
    }

    /// A datagram was counted when it came, so reading it does not count again.
    pub(crate) fn datagram(
        payload: &'a [u8],
        peer: Peer,
        traffic: &'static Traffic,
        server: &'a ServerInfo,
    ) -> Self {
        let medium = Medium::Datagram { unread: Cell::new(payload), answer: RefCell::default() };
        Self::new(medium, peer, Early::default(), traffic, server)
    }

    /// Whether the end of the client's data was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.input.get() == Input::Ended
    }

    /// Something was read, which is all of an exchange with a service that never answers.
    pub(crate) fn took_some(&self) {
        self.early.took();
    }

    /// The client: `client_address` of socketserver.
    ///
    /// ```
    /// use std::io::Write;
    /// use forkd_server::{Connection, Handler};
    ///
    /// struct Greeting;
    /// impl Handler for Greeting {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         writeln!(&*connection, "Hello, {}!", connection.peer())
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Our end of the connection: the address that the client has connected to, which on a wildcard
    /// address says more than the server's endpoint, or the path. `None` for a datagram, whose socket is
    /// not the handler's, and where there is neither.
    ///
    /// ```
    /// use std::io::Write;
    /// use forkd_server::{Connection, Handler};
    ///
    /// struct WhereAmI;
    /// impl Handler for WhereAmI {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         match connection.local_endpoint() {
    ///             Some(endpoint) => writeln!(connection, "{endpoint}"),
    ///             None => writeln!(connection, "nowhere"),
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn local_endpoint(&self) -> Option<Endpoint> {
        match &self.medium {
            Medium::Stream(socket, _) => local_end(socket),
            Medium::Datagram { .. } => None,
        }
    }

    /// The server that the connection came to; [`ServerInfo`] has an example.
    #[must_use]
    pub fn server(&self) -> &'a ServerInfo {
        self.server
    }

    /// Counts it as one whose handler has failed.
    pub(crate) fn has_failed(&self) {
        Traffic::add(&self.traffic.failed, 1);
    }

    /// Notes what its client has done wrong, as the service says.
    pub(crate) fn note(&mut self, offence: Option<Offence>) {
        self.offence = offence;
    }

    /// What its client has done wrong, as far as the service has noted that.
    pub(crate) fn offence(&self) -> Option<Offence> {
        self.offence
    }

    /// What was written in answer to a datagram, if only nothing; `None` for a stream.
    pub(crate) fn into_answer(self) -> Option<Vec<u8>> {
        match self.medium {
            Medium::Datagram { answer, .. } => answer.into_inner(),
            Medium::Stream(..) => None,
        }
    }

    /// Closes the connection. Before the client can see that, it does not count any more.
    pub(crate) fn close(self) {
        drop(self.early);
        if let Medium::Stream(socket, _) = self.medium {
            sys::fd::close(socket);
        }
    }

    /// Has reads and writes fail that wait for longer than `idle`, or when it has lasted for `lifetime` from now on.
    #[inline(always)]
    pub(crate) fn limit_time(&mut self, idle: Option<Duration>, lifetime: Option<Duration>) {
        if idle.is_some() || lifetime.is_some() {
            self.is_limited.set(true);
            self.read_timeout.set(idle);
            self.write_timeout.set(idle);
            self.deadline = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        }
    }

    /// How long it may still last, if there is a limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// How long the next wait to read or to write may last, if there is a limit; fails when the connection has lasted too
    /// long.
    #[inline(always)]
    pub(crate) fn may_wait(&self, ready: Ready) -> io::Result<Option<Duration>> {
        match self.deadline {
            None => Ok(self.timeout(ready).get()),
            Some(deadline) => may_wait_until(deadline, self.timeout(ready).get()),
        }
    }

    /// How long a client may be silent, or read nothing.
    #[inline(always)]
    fn timeout(&self, ready: Ready) -> &Cell<Option<Duration>> {
        if ready == Ready::Read { &self.read_timeout } else { &self.write_timeout }
    }

    /// A wait is over that was to last for so long, and nothing has come of it.
    #[cold]
    fn waited(&self, limit: Option<Duration>, ready: Ready) -> io::Result<()> {
        waited(limit, self.timeout(ready).get(), ready)
    }
}

/// How long the next wait may last of a connection that ends at a time; fails if it has.
#[inline(never)]
fn may_wait_until(deadline: Instant, timeout: Option<Duration>) -> io::Result<Option<Duration>> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(TimedOut::Lifetime.error(io::ErrorKind::TimedOut)),
        left => Ok(Some(wait_of(left, timeout))),
    }
}

/// A wait is over that was to last for `limit`, and nothing has come of it: fails, unless it was for a part of the lifetime,
/// which may not be over yet, as [`may_wait_until`] knows.
fn waited(limit: Option<Duration>, timeout: Option<Duration>, ready: Ready) -> io::Result<()> {
    let why = if ready == Ready::Read { TimedOut::Idle } else { TimedOut::Unread };
    if limit == timeout { Err(why.error(io::ErrorKind::WouldBlock)) } else { Ok(()) }
}

/// How long a wait may last, if so much is left of a lifetime: as long as a client may be silent, or only for a part of the
/// lifetime, if that is over before.
fn wait_of(left: Duration, idle_timeout: Option<Duration>) -> Duration {
    idle_timeout.filter(|idle| *idle <= left).unwrap_or_else(|| part_of(left))
}

/// For how long the end of a lifetime is waited for at once: 1, 2, 4, 8, … milliseconds, and more than half of what is
/// left. So the kernel is told of another limit now and then, and not before each call.
fn part_of(left: Duration) -> Duration {
    let millis = left.as_millis().max(1);
    Duration::from_millis(1 << millis.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_waited_for_in_few_parts_of_which_none_is_too_long() {
        let (mut left, mut parts) = (Duration::from_secs(30 * 24 * 60 * 60), 0);
        while left > Duration::from_millis(1) {
            assert!(part_of(left) <= left && part_of(left) * 2 > left, "{left:?}");
            left -= part_of(left);
            parts += 1;
        }
        assert!(parts <= 32, "{parts}");
        assert_eq!(part_of(Duration::from_nanos(1)), Duration::from_millis(1));
    }

    #[test]
    fn a_silent_client_is_not_waited_for_longer_as_its_lifetime_ends_soon() {
        let ms = Duration::from_millis;
        for (left, idle, wait) in [(500, 300, 300), (300, 300, 300), (299, 300, 256), (3500, 3000, 3000)] {
            assert_eq!(wait_of(ms(left), Some(ms(idle))), ms(wait), "{left} {idle}");
        }
        assert_eq!(wait_of(ms(500), None), ms(256));
    }
}
