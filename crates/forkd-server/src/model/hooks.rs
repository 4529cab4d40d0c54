//! What an application wants to be asked and told while its server serves.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::events;
use crate::transport::{Handle, OpenConnections, Peer};

type Verify = dyn Fn(&Peer) -> bool + Send + Sync;
type Report = dyn Fn(Peer, &HandlerError<'_>) + Send + Sync;

/// What an application wants to be asked and told about clients.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// Whether a client is served.
    pub(crate) verify: Option<Arc<Verify>>,
    /// A handler has failed.
    pub(crate) failed: Option<Arc<Report>>,
    /// By which handlers end the server.
    pub(crate) handle: Option<Handle>,
    /// Those that are cut at the end of a stop, where handlers wait for clients in this process.
    pub(crate) open: Option<Arc<OpenConnections>>,
}

/// How a handler failed. See [`Server::handle_error`](crate::Server::handle_error).
///
/// ```
/// use forkd_server::{HandlerError, Server};
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.handle_error(|peer, error| match error {
///     HandlerError::Panic(message) => eprintln!("a bug, found by {peer}: {message}"),
///     other => eprintln!("{peer}: {other}"),
/// });
/// assert_eq!(HandlerError::Panic("oh").to_string(), "panicked: oh");
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError<'a> {
    /// It returned this error.
    Error(&'a io::Error),
    /// It panicked with this message.
    Panic(&'a str),
}

impl fmt::Display for HandlerError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(message) => write!(f, "panicked: {message}"),
        }
    }
}

impl Hooks {
    /// Whether this client is served. A check that panics refuses its client, and costs no other anything.
    pub(crate) fn admit(&self, peer: Peer) -> bool {
        self.verify.as_deref().is_none_or(|verify| self.admit_by(verify, peer))
    }

    fn admit_by(&self, verify: &Verify, peer: Peer) -> bool {
        catch_unwind(AssertUnwindSafe(|| verify(&peer))).unwrap_or_else(|payload| {
            self.panicked(peer, &*payload);
            false
        })
    }

    /// A handler has returned an error that is no client's doing.
    pub(crate) fn failed(&self, peer: Peer, error: &io::Error) {
        self.tell(peer, &HandlerError::Error(error));
    }

    /// A handler has panicked.
    pub(crate) fn panicked(&self, peer: Peer, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        self.tell(peer, &HandlerError::Panic(text.unwrap_or("no message")));
    }

    fn tell(&self, peer: Peer, error: &HandlerError<'_>) {
        if let Some(failed) = &self.failed
            && catch_unwind(AssertUnwindSafe(|| failed(peer, error))).is_err()
        {
            events::error_hook_panicked(peer);
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verify, failed, handle, .. } = self;
        let mut hooks = f.debug_struct("Hooks");
        hooks.field("verify", &verify.is_some()).field("failed", &failed.is_some()).field("handle", handle);
        hooks.finish_non_exhaustive()
    }
}

/// What is done between two waits of the process that accepts, and how long each may last.
#[derive(Default)]
pub(crate) struct Ticker {
    /// The application's own work.
    pub(crate) actions: Option<Box<dyn FnMut() + Send>>,
    /// That is done at least so often.
    pub(crate) every: Duration,
    /// Until when clients are waited for.
    pub(crate) until: Option<Instant>,
}

impl Ticker {
    /// Does what there is to do; returns how long the next wait may last, and `None` when there shall be
    /// none.
    pub(crate) fn tick(&mut self) -> Option<Duration> {
        if let Some(actions) = &mut self.actions {
            actions();
        }
        let every = self.longest().unwrap_or(Duration::MAX);
        match self.until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => None,
            left => Some(left.unwrap_or(every).min(every)),
        }
    }

    /// How long a wait may last, as far as the application's work is concerned.
    pub(crate) fn longest(&self) -> Option<Duration> {
        self.actions.is_some().then_some(self.every)
    }

    /// The same for one that several threads share.
    pub(crate) fn tick_shared(shared: &Mutex<Self>) -> Option<Duration> {
        shared.lock().unwrap_or_else(PoisonError::into_inner).tick()
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actions, every, until } = self;
        let mut ticker = f.debug_struct("Ticker");
        ticker.field("actions", &actions.is_some()).field("every", every).field("until", until).finish()
    }
}
