//! What runs the handler: a [`Model`].
//!
//! A model is the child's side of the work: what a forked process does from its first instruction
//! until it leaves. The master's side, when to fork and what to do about a death, is the daemon's;
//! its rule for pools is in `pool`, which is pure.

pub(crate) mod accept_loop;
#[cfg(feature = "coroutine")]
pub(crate) mod coroutine;
pub(crate) mod demand;
pub(crate) mod event;
pub(crate) mod hooks;
pub(crate) mod listener_context;
pub(crate) mod pool;
pub(crate) mod prefork;
pub(crate) mod recycle;
pub(crate) mod serve;
pub(crate) mod service_config;
mod shared;
pub(crate) mod spread;
pub(crate) mod starts;
pub(crate) mod thread;
pub(crate) mod worker;
mod workers;
pub(crate) mod yielding;

pub use hooks::HandlerError;
pub use workers::{InvalidWorkers, MAX_CHILDREN, MAX_SPARE, Overflow, WorkerRange, Workers};

use crate::Error;
use crate::sys::calls::{Purpose, first_forbidden};

/// A concurrency model: what runs the handler of a connection.
///
/// In the library, all but the first two serve in the calling process, unless
/// [`workers`](crate::Server::workers) are asked for; see [`Server`](crate::server). In the daemon, they serve in
/// one worker or more.
///
/// # Examples
///
/// ```
/// use forkd_server::{Server, model::Model};
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).workers(2);
/// assert_eq!(Model::Thread.to_string(), "thread");
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Model {
    /// The master accepts and forks a child for each connection (or datagram).
    #[default]
    Fork,
    /// A pool of forked workers; each accepts for itself and serves one connection at a time.
    Prefork,
    /// One connection at a time: the others wait. With more workers it is [`Prefork`](Self::Prefork).
    Iterative,
    /// A thread for each connection, or a fixed pool of threads ([`Threads`]).
    ///
    /// Handlers of one process share its memory, and each has a stack of 256 KiB. One that panics costs its
    /// connection; one that crashes costs all of its process's.
    Thread,
    /// One thread, which serves all its connections as they become ready.
    Event,
    /// One thread, and a coroutine for each connection: a read that would block lets the others go on.
    Coroutine,
}

/// The threads of a worker of [`Model::Thread`].
///
/// ```
/// use forkd_server::model::{Model, Threads};
/// use forkd_server::Server;
///
/// // 4 threads that take turns at the clients, or up to 4,000 threads, one for each
/// let fixed = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).threads(Threads::Fixed(4));
/// let each = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).threads(Threads::Each(4_000));
/// assert!(4_000 <= Threads::MOST);
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One for each connection (for each datagram, if a [`Handler`](crate::Handler) answers it), at most so
    /// many at once: beyond, clients wait.
    Each(u32),
    /// So many from the start, each of which serves one connection at a time.
    Fixed(u32),
}

impl Threads {
    /// The most that may be asked for: Linux lets a process have 65,530 mappings
    /// (`vm.max_map_count`), and a stack with its guard page is two.
    pub const MOST: u32 = 32_000;
}

impl Default for Threads {
    /// As many at once as [`Model::Fork`] has children.
    fn default() -> Self {
        Self::Each(1024)
    }
}

impl Model {
    /// All that there are.
    pub const ALL: [Self; 6] =
        [Self::Fork, Self::Prefork, Self::Iterative, Self::Thread, Self::Event, Self::Coroutine];

    /// How many workers the daemon has where nothing is said; `None` where there is no pool of them.
    ///
    /// ```
    /// use forkd_server::model::Model;
    /// assert_eq!([Model::Prefork, Model::Event, Model::Fork].map(Model::default_workers), [Some(8), Some(1), None]);
    /// ```
    #[must_use]
    pub fn default_workers(self) -> Option<u32> {
        match self {
            Self::Iterative | Self::Thread | Self::Event | Self::Coroutine => Some(1),
            Self::Fork => None,
            Self::Prefork => Some(8),
        }
    }

    /// Whether each of its workers serves one connection at a time, so that a pool can grow with its clients.
    ///
    /// ```
    /// use forkd_server::model::Model;
    /// assert!(Model::Prefork.serves_one_at_a_time() && !Model::Coroutine.serves_one_at_a_time());
    /// ```
    #[must_use]
    pub fn serves_one_at_a_time(self) -> bool {
        matches!(self, Self::Iterative | Self::Prefork)
    }

    /// Whether its workers wait for many things at once, so that the listener must not block.
    pub fn polls(self) -> bool {
        matches!(self, Self::Event | Self::Coroutine)
    }

    /// Whether one process serves many at once.
    pub(crate) fn serves_many(self) -> bool {
        self == Self::Thread || self.polls()
    }

    /// Whether the process that accepts has other things to do, too: the master, or a worker that polls.
    pub(crate) fn never_waits_to_accept(self) -> bool {
        self == Self::Fork || self.polls()
    }

    /// Whether this system lets it serve connections, datagrams, or both; by a pool, where `forks`, or else by
    /// the calling process.
    ///
    /// # Errors
    ///
    /// [`Error::Os`], which names a system call that is forbidden and can't be done without.
    pub(crate) fn check_system(self, connections: bool, datagrams: bool, forks: bool) -> Result<(), Error> {
        let threads = self == Self::Thread;
        let wanted = [
            (Purpose::Serve, true),
            (Purpose::Accept, connections),
            (Purpose::Receive, datagrams),
            (Purpose::Fork, forks),
            (Purpose::Work, self.has_pool()),
            (Purpose::StartThreads, threads),
            (Purpose::Poll, self.polls()),
            (Purpose::Switch, self == Self::Coroutine),
        ];
        let purposes: Vec<Purpose> =
            wanted.iter().filter(|(_, is)| *is).map(|(purpose, _)| *purpose).collect();
        let Some((call, cause)) = first_forbidden(&purposes) else { return Ok(()) };
        let cannot = format!("cannot serve under the model {self}");
        Err(Error::forbidden(cannot, call, ", or choose another model", cause))
    }

    /// Whether it can run the service, which `waits` for its client or not; where it can't, says why.
    pub fn require(self, service: &str, waits: bool) -> Result<(), String> {
        if self == Self::Coroutine && !cfg!(feature = "coroutine") {
            return Err(format!(
                "runs under the model {self} only with the feature coroutine of forkd-server"
            ));
        }
        if self == Self::Event && waits {
            return Err(format!(
                "is {service}, which waits for its client, and would block all others under the model {self}; choose \
                 another model, such as thread or coroutine"
            ));
        }
        Ok(())
    }

    /// Its name on the command line and in the configuration.
    ///
    /// ```
    /// assert_eq!(forkd_server::model::Model::Fork.name(), "fork");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Iterative => "iterative",
            Self::Thread => "thread",
            Self::Event => "event",
            Self::Coroutine => "coroutine",
            Self::Fork => "fork",
            Self::Prefork => "prefork",
        }
    }

    /// What it is, in a line without a full stop.
    ///
    /// ```
    /// assert_eq!(forkd_server::model::Model::Iterative.summary(), "One connection at a time: the others wait");
    /// ```
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::Fork => "The master accepts and forks a child for each connection (or datagram)",
            Self::Prefork => {
                "A pool of forked workers; each accepts for itself and serves one connection at a time"
            }
            Self::Iterative => "One connection at a time: the others wait",
            Self::Thread => "A thread for each connection, or a fixed pool of threads",
            Self::Event => "One thread, which serves all its connections as they become ready",
            Self::Coroutine => {
                "One thread, and a coroutine for each connection: a read that would block lets the others go on"
            }
        }
    }

    /// Whether the daemon has a pool of workers for it, which accept, and not the master.
    ///
    /// ```
    /// use forkd_server::model::Model;
    /// assert!(Model::Event.has_pool() && !Model::Fork.has_pool());
    /// ```
    #[must_use]
    pub fn has_pool(self) -> bool {
        self.default_workers().is_some()
    }
}

/// By its [name](Model::name), as a program's arguments have it.
///
/// ```
/// use forkd_server::{Error, Server};
///
/// fn serve(model: &str) -> Result<Server, Error> {
///     Ok(Server::bind("tcp://127.0.0.1:0")?.model(model.parse()?))
/// }
/// assert!(serve("thread").is_ok());
/// let refusal = serve("threads").unwrap_err();
/// assert!(refusal.to_string().starts_with("no model \"threads\": there are fork, prefork, "));
/// ```
impl std::str::FromStr for Model {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        Self::ALL.into_iter().find(|model| model.name() == name).ok_or_else(|| UnknownModel(name.into()))
    }
}

/// A name that no [`Model`] has.
///
/// ```
/// let error = "forks".parse::<forkd_server::model::Model>().unwrap_err();
/// assert_eq!(error.to_string(), "no model \"forks\": there are fork, prefork, iterative, thread, event, coroutine");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownModel(String);

impl std::fmt::Display for UnknownModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = Model::ALL.map(Model::name).join(", ");
        write!(f, "no model {:?}: there are {names}", self.0)
    }
}

impl std::error::Error for UnknownModel {}

/// What a `main` returns that has it from its arguments.
impl From<UnknownModel> for Error {
    fn from(error: UnknownModel) -> Self {
        Self::Usage(error.to_string())
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
