//! One thread, many connections: the event loop, for servers and for programs of your own.
//!
//! A [`Reactor`] waits for whatever it has been given: sockets to listen on, connections to make, times to
//! come. Each connection has a [`Protocol`], which is called back with bytes and never waits, so no
//! connection holds up another. What a client does not take is kept, and nothing more is read from it
//! until that has gone: a connection never occupies more memory than its protocol's replies.
//!
//! The model [`event`](crate::model::Model::Event) is a reactor in a worker; here it is for programs that
//! have more to do than to serve.
//!
//! # Coming from Twisted
//!
//! | Twisted | here |
//! |---|---|
//! | `reactor` | a [`Reactor`], made by [`Reactor::new`] and handed to each callback |
//! | `Protocol`: `connectionMade`, `dataReceived` | [`Protocol`]: `connected`, `received` |
//! | `self.transport.write(data)` in answer | [`Reply::Send`](crate::Reply::Send) |
//! | `self.transport.write(data)` at any time, `loseConnection()` | [`Writer`]: [`write`](Writer::write), [`finish`](Writer::finish); [`Reactor::connect`] returns one, and a protocol gets it when it is [opened](Protocol::opened) |
//! | `IPullProducer`, `IPushProducer` | [`Reply::More`](crate::Reply::More), and `resume` is called for more; [`Reply::WaitFor`](crate::Reply::WaitFor) |
//! | `connectionLost(reason)` | [`Protocol::closed`] |
//! | `clientConnectionFailed`, a `Deferred` of the result | the callback of [`Reactor::connect`], which gets the protocol back, also if there was no connection |
//! | `reactor.callFromThread(f)` | only to write: a [`Writer`] works from any thread. Callbacks run in the reactor's own |
//! | `Factory.buildProtocol` | the closure of [`Reactor::listen`], which gets the reactor |
//! | `reactor.listenTCP`, `listenUNIX`, `listenUDP` | [`Reactor::listen`] with `tcp://`, `unix://`, `udp://` |
//! | `reactor.connectTCP`, `connectUNIX` | [`Reactor::connect`] |
//! | `port.stopListening()` | [`Reactor::unlisten`] |
//! | `reactor.callLater`, `timer.cancel()` | [`Reactor::call_later`], [`Reactor::cancel`] |
//! | `reactor.run()`, `reactor.stop()` | [`Reactor::run`], which also ends when nothing is left; [`Reactor::stop`] |
//!
//! # Examples
//!
//! A server, and three conversations with it at once:
//!
//! ```
//! use std::cell::RefCell;
//! use std::time::Duration;
//!
//! use forkd_server::reactor::Reactor;
//! use forkd_server::{Echo, Peer, Protocol, Reply};
//!
//! /// Says something, and collects the echo.
//! struct Call {
//!     says: String,
//!     heard: Vec<u8>,
//! }
//!
//! impl Protocol for Call {
//!     fn connected(&mut self, _: Peer) -> Reply<'_> {
//!         Reply::Send(self.says.as_bytes())
//!     }
//!
//!     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
//!         self.heard.extend_from_slice(input);
//!         if self.heard.len() < self.says.len() { Reply::Wait } else { Reply::Finish(b"") }
//!     }
//! }
//!
//! let results = RefCell::new(Vec::new());
//! let mut reactor = Reactor::new()?;
//! let server = reactor.listen("tcp://127.0.0.1:0", |_| Echo)?;
//! let address = server.endpoints().next().unwrap().to_string();
//! for says in ["one", "two", "three"] {
//!     let call = Call { says: says.into(), heard: Vec::new() };
//!     reactor.connect(&address, call, |reactor, call, outcome| {
//!         outcome.unwrap();
//!         results.borrow_mut().push(String::from_utf8(call.heard).unwrap());
//!         if results.borrow().len() == 3 {
//!             reactor.stop();
//!         }
//!     })?;
//! }
//! reactor.call_later(Duration::from_secs(10), |_| panic!("no answer"));
//! reactor.run()?;
//! drop(reactor);
//! let mut results = results.into_inner();
//! results.sort();
//! assert_eq!(results, ["one", "three", "two"]);
//! # Ok::<(), forkd_server::Error>(())
//! ```

mod channel;
mod connections;
mod dial;
mod line;
mod link;
mod listening;
mod pollers;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use channel::Channel;
pub(crate) use channel::Session;
use connections::guarded;
use dial::Dial;
pub use listening::Listening;
use pollers::Pollers;
use watch::Watch;

use crate::Error;
use crate::slab::{Key, Slab};
use crate::sys::poller::{Event, Interest};
use crate::timers::{At, Timers};
use crate::transport::{Rouser, Traffic, Wakeups};
#[cfg(doc)]
use crate::{Protocol, transport::Writer};

/// The token of what wakes the loop; no key has it, nor is it that of the bulk poller.
const WAKEUPS: usize = usize::MAX - 1;

/// What is read at once, into memory that all connections share.
const BUFFER: usize = 64 * 1024;

/// How long a connection may take to come about, if nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The event loop: waits for sockets and times, and calls back.
///
/// Callbacks get the reactor, and may do with it whatever a program may do that has made it. They may borrow
/// what lives longer than the reactor. They run one at a time, in the thread that called [`run`](Self::run),
/// and while one runs nothing else does: a callback that blocks blocks all.
///
/// A protocol that panics costs its connection, and is logged; a callback that panics ends
/// [`run`](Self::run) in that panic.
///
/// # Fork safety
///
/// A reactor is for the process that made it: after a fork its poller (epoll, kqueue) is shared, and the child
/// must neither use it nor drop it. Make it after the fork, or start programs by
/// [`Command`](std::process::Command), to which nothing of it is handed down.
///
/// # Examples
///
/// A ticker, which ends after three ticks:
///
/// ```
/// use std::time::Duration;
/// use forkd_server::reactor::Reactor;
///
/// fn tick<'a>(reactor: &mut Reactor<'a>, ticks: &'a std::cell::Cell<u32>) {
///     ticks.set(ticks.get() + 1);
///     match ticks.get() {
///         3 => reactor.stop(),
///         _ => _ = reactor.call_later(Duration::from_millis(1), |reactor| tick(reactor, ticks)),
///     }
/// }
///
/// let ticks = std::cell::Cell::new(0);
/// let mut reactor = Reactor::new()?;
/// tick(&mut reactor, &ticks);
/// reactor.run()?;
/// assert_eq!(ticks.get(), 3);
/// # Ok::<(), forkd_server::Error>(())
/// ```
pub struct Reactor<'a> {
    pollers: Pollers,
    sources: Slab<Source<'a>>,
    timers: Timers<Alarm<'a>>,
    shared: Shared<'a>,
    /// The poller looks after the wakeups.
    watches_wakeups: bool,
    connect_timeout: Duration,
    after_round: Option<Box<AfterRound<'a>>>,
    is_stopped: bool,
}

/// What is called after each round of the loop, with the number of its events.
type AfterRound<'a> = dyn FnMut(usize) + 'a;

/// What connections share.
struct Shared<'a> {
    buffer: Box<[u8]>,
    started: Instant,
    /// The time of this turn.
    now: Instant,
    idle_timeout: Option<Duration>,
    /// How long a connection may last.
    max_lifetime: Option<Duration>,
    traffic: Option<&'a Traffic>,
    /// What wakes the loop for a connection that is written to; there is none before that can happen.
    wakeups: Option<Arc<Wakeups>>,
}

impl Shared<'_> {
    /// What wakes the loop for a connection.
    fn rouser(&mut self, key: Key) -> io::Result<Rouser> {
        let wakeups = match &self.wakeups {
            Some(wakeups) => wakeups,
            None => self.wakeups.insert(Arc::new(Wakeups::new()?)),
        };
        Ok(Rouser { wakeups: Arc::clone(wakeups), key })
    }

    /// The time of this turn in milliseconds, which begins again after 49 days.
    fn millis(&self) -> u32 {
        self.now.duration_since(self.started).as_millis() as u32
    }
}

/// What it looks after.
enum Source<'a> {
    Channel(Box<Channel<'a>>),
    Dial(Box<Dial<'a>>),
    Watch(Watch<'a>),
}

/// What is due at some time.
enum Alarm<'a> {
    Call(Box<dyn FnOnce(&mut Reactor<'a>) + 'a>),
    Source(Key),
}

/// A call that was arranged by [`Reactor::call_later`].
///
/// ```
/// use std::time::Duration;
/// use forkd_server::reactor::{Reactor, Timer};
///
/// let mut reactor = Reactor::new()?;
/// let alarm: Timer = reactor.call_later(Duration::from_secs(60), |_| panic!("too late"));
/// reactor.call_later(Duration::from_millis(1), move |reactor| {
///     // in time
///     assert!(reactor.cancel(alarm));
/// });
/// reactor.run()?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer(At);

impl<'a> Reactor<'a> {
    /// Makes a reactor that has nothing to do.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if there is no descriptor left for its poller.
    pub fn new() -> Result<Self, Error> {
        let pollers = Pollers::new().map_err(|cause| Error::os("cannot make a poller", cause))?;
        let buffer = vec![0; BUFFER].into();
        let started = Instant::now();
        Ok(Self {
            pollers,
            sources: Slab::default(),
            timers: Timers::default(),
            shared: Shared {
                buffer,
                started,
                now: started,
                idle_timeout: None,
                max_lifetime: None,
                traffic: None,
                wakeups: None,
            },
            watches_wakeups: false,
            connect_timeout: CONNECT_TIMEOUT,
            after_round: None,
            is_stopped: false,
        })
    }

    /// How long a connection may be silent, in both directions; the default is for ever. After that it ends
    /// with [`TimedOut`](std::io::ErrorKind::TimedOut).
    ///
    /// ```
    /// use std::{io::ErrorKind, time::Duration};
    /// use forkd_server::{reactor::Reactor, service::Discard};
    ///
    /// let mut reactor = Reactor::new()?.idle_timeout(Duration::from_millis(10));
    /// let server = reactor.listen("tcp://127.0.0.1:0", |_| Discard)?;
    /// let address = server.endpoints().next().unwrap().to_string();
    /// // neither end says anything; whichever gives up first, the other one hears of it
    /// reactor.connect(&address, Discard, |reactor, _, outcome| {
    ///     let kind = outcome.map_err(|error| error.kind());
    ///     assert!(matches!(kind, Ok(()) | Err(ErrorKind::TimedOut | ErrorKind::ConnectionReset)));
    ///     reactor.stop();
    /// })?;
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.shared.idle_timeout = Some(limit);
        self
    }

    /// How long a connection may take to come about; the default is 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// let reactor = forkd_server::reactor::Reactor::new()?.connect_timeout(Duration::from_secs(3));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a connection may be silent, and how long it may last, whatever it does. After that it ends with
    /// [`TimedOut`](std::io::ErrorKind::TimedOut).
    pub(crate) fn limit_time(&mut self, idle: Option<Duration>, lifetime: Option<Duration>) {
        self.shared.idle_timeout = idle;
        self.shared.max_lifetime = lifetime;
    }

    /// Counts what connections carry.
    pub(crate) fn count_in(&mut self, traffic: &'a Traffic) {
        self.shared.traffic = Some(traffic);
    }

    /// Calls `call` after each round of the loop, with the number of its events.
    pub(crate) fn after_rounds(&mut self, call: impl FnMut(usize) + 'a) {
        self.after_round = Some(Box::new(call));
    }

    /// Calls back after `delay`, once, unless that is [cancelled](Self::cancel) before. With a delay of zero,
    /// that is in the next turn of the loop.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let mut reactor = forkd_server::reactor::Reactor::new()?;
    /// reactor.call_later(Duration::from_millis(2), |reactor| {
    ///     reactor.call_later(Duration::from_millis(1), |_| println!("and again"));
    /// });
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn call_later(&mut self, delay: Duration, call: impl FnOnce(&mut Self) + 'a) -> Timer {
        // not the time of this turn, which a callback may have made a long one
        Timer(self.timers.set(later(delay), Alarm::Call(Box::new(call))))
    }

    /// Cancels a call; tells whether it was still to come.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let mut reactor = forkd_server::reactor::Reactor::new()?;
    /// let timer = reactor.call_later(Duration::from_secs(3600), |_| unreachable!());
    /// assert!(reactor.cancel(timer));
    /// assert!(!reactor.cancel(timer));
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn cancel(&mut self, Timer(at): Timer) -> bool {
        self.timers.cancel(at).is_some()
    }

    /// Has [`run`](Self::run) return when this turn of the loop is over. What the reactor looks after stays,
    /// and goes on if it is run again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::{Echo, reactor::Reactor};
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.listen("tcp://127.0.0.1:0", |_| Echo)?;
    /// reactor.call_later(Duration::from_millis(1), |reactor| reactor.stop());
    /// // it would listen for ever
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Serves until [`stop`](Self::stop) is called, or until there is nothing left to wait for: no socket to
    /// listen on, no connection and no call.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system's poller fails, for which there is no known reason.
    pub fn run(&mut self) -> Result<(), Error> {
        let mut ready = Vec::new();
        self.is_stopped = false;
        while !self.is_stopped && (self.sources.len() > 0 || !self.timers.is_empty()) {
            let limit = self.timers.next().map(|then| then.saturating_duration_since(Instant::now()));
            let has_writers = self.shared.wakeups.is_some();
            let limit = if has_writers && self.is_called()? { Some(Duration::ZERO) } else { limit };
            self.pollers.wait(&mut ready, limit).map_err(cannot_wait)?;
            self.shared.now = Instant::now();
            let events = ready.len();
            for event in ready.drain(..) {
                self.dispatch(event);
            }
            // before the alarms: one that is written to is not silent
            if self.shared.wakeups.is_some() {
                self.answer_calls();
            }
            while let Some(alarm) = self.timers.due(self.shared.now) {
                match alarm {
                    Alarm::Call(call) => call(self),
                    Alarm::Source(key) => self.expired(key),
                }
            }
            if let Some(call) = &mut self.after_round {
                call(events);
            }
        }
        Ok(())
    }

    /// Before a wait: whether something was written that is to be sent first. If not, that ends the wait.
    fn is_called(&mut self) -> Result<bool, Error> {
        let Some(wakeups) = &self.shared.wakeups else { return Ok(false) };
        if !self.watches_wakeups {
            self.pollers.add(&**wakeups, WAKEUPS, Interest::READ).map_err(cannot_wait)?;
            self.watches_wakeups = true;
        }
        Ok(!wakeups.may_wait())
    }

    /// Sends what was written since this was called before.
    fn answer_calls(&mut self) {
        let Some(wakeups) = &self.shared.wakeups else { return };
        for key in wakeups.take() {
            match self.sources.get_mut(key) {
                Some(Source::Channel(channel)) => {
                    let flow = guarded(channel, |channel| channel.called(&mut self.shared));
                    self.follow(key, flow);
                }
                Some(Source::Dial(_)) => self.dial_called(key),
                Some(Source::Watch(_)) | None => {}
            }
        }
    }

    fn dispatch(&mut self, event: Event) {
        // it may have gone earlier in this turn
        let Some(key) = self.sources.key(event.token) else { return };
        match self.sources.get_mut(key) {
            Some(Source::Channel(channel)) => {
                let flow = guarded(channel, |channel| channel.turn(event, &mut self.shared));
                self.follow(key, flow);
            }
            Some(Source::Dial(_)) => self.dialled(key),
            Some(Source::Watch(_)) => self.call_watch(key),
            None => {}
        }
    }

    fn expired(&mut self, key: Key) {
        match self.sources.get_mut(key) {
            Some(Source::Channel(channel)) => {
                channel.alarm = None;
                let flow = guarded(channel, |channel| channel.expired(&mut self.shared));
                self.follow(key, flow);
            }
            Some(Source::Dial(_)) => self.dial_expired(key),
            Some(Source::Watch(_)) | None => {}
        }
    }
}

fn cannot_wait(cause: io::Error) -> Error {
    Error::os("cannot wait for events", cause)
}

/// The time after `delay`, or one that never comes.
fn later(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or(now + Duration::from_secs(u32::MAX.into()))
}

/// Protocols whose connections are left are told that they are over.
impl Drop for Reactor<'_> {
    fn drop(&mut self) {
        for (_, source) in self.sources.iter_mut() {
            if let Source::Channel(channel) = source {
                channel.stop();
            }
        }
    }
}

impl std::fmt::Debug for Reactor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}
