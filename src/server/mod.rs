//! The face of the library: bind, choose a model, serve.
//!
//! A [`Server`] is a bound socket with settings. [`Server::serve_forever`] gives it a service and serves;
//! [`Server::ready`] is for programs with a loop of their own, which call [`Serving::handle_request`].
//!
//! Where handlers run depends on the model, as in socketserver:
//!
//! | model | who serves |
//! |---|---|
//! | [`Fork`](Model::Fork) | a child of this process for each client; this process is its *master* |
//! | [`Prefork`](Model::Prefork), and any other with [`workers`](Server::workers) | a pool of children; this process is their master |
//! | any other, without [`workers`](Server::workers) | **this process and thread**: nothing is forked, signals are left alone, other threads are welcome, and handlers see this program's memory |

mod builder;
mod here;
mod serving;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::Builder;
use here::Here;
pub use serving::Serving;

use crate::Error;
use crate::config::values::{MAX_CHILDREN, WorkerRange};
use crate::config::{Config, Listen};
use crate::daemon::master::Master;
use crate::daemon::sockets::Bound;
use crate::model::hooks::{Hooks, Turns};
use crate::model::offer::Offer;
use crate::model::{HandlerError, Model};
use crate::service::Service;
use crate::transport::{Endpoint, Handle, Listener, Peer};

/// A server for one endpoint: what Python's socketserver calls a server, with the concurrency
/// model as a setting.
///
/// It has bound its socket, and serves when it is told to. Dropping it closes the socket, and removes a
/// Unix socket's file.
///
/// # Fork safety
///
/// [`Model::Fork`], [`Model::Prefork`] and every model with [`workers`](Self::workers) make the calling
/// process a master that forks. It must have one thread, or it gets an error at once: a forked
/// child could wait for ever for a lock that another thread held. A program with threads serves by one
/// of the other models, which fork nothing, or starts its threads in a child.
///
/// A master ignores SIGCHLD, blocks signals while it works, and takes over SIGTERM, SIGINT, SIGQUIT, SIGHUP,
/// SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGALRM and those of crashes, for good. Handlers run in children: what
/// they change in memory, nobody else sees.
///
/// # Examples
///
/// ```no_run
/// use forkd::{Echo, Server};
/// use forkd::model::Model;
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).workers(4);
/// println!("listening on {}", server.server_address());
/// server.serve_forever(Echo)?;
/// # Ok::<(), forkd::Error>(())
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    listen: Listen,
    /// As the caller has said, whatever the model.
    workers: Option<WorkerRange>,
    hooks: Hooks,
    handle: Handle,
    turns: Turns,
    timeout: Option<Duration>,
    on_timeout: Option<Box<dyn FnMut() + Send>>,
}

impl Server {
    /// Binds an endpoint such as `tcp://127.0.0.1:0`, `udp://[::]:7007`, `unix:///run/echo.sock` or
    /// `unixgram:///run/echo.sock`.
    ///
    /// A host name may stand for several addresses; all are bound.
    ///
    /// ```
    /// let server = forkd::Server::bind("tcp://127.0.0.1:0")?;
    /// assert!(!server.server_address().to_string().ends_with(":0"), "the kernel has chosen a port");
    /// # Ok::<(), forkd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no endpoint; [`Error::Unavailable`] if the address is taken;
    /// [`Error::Permission`] for a port that needs a privilege; [`Error::CannotCreate`] for a socket file that
    /// can't be made.
    pub fn bind(endpoint: &str) -> Result<Self, Error> {
        Self::builder().bind(endpoint)
    }

    /// What is to be said before the socket is bound: the length of its queue, who may share its port.
    ///
    /// ```
    /// let server = forkd::Server::builder().request_queue_size(5).bind("tcp://127.0.0.1:0")?;
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn new(listeners: Vec<Listener>, handle: Handle) -> Self {
        Self {
            listeners,
            config: Config::default(),
            listen: Listen::default(),
            workers: None,
            hooks: Hooks { handle: Some(handle.clone()), ..Hooks::default() },
            handle,
            turns: Turns { every: Duration::from_millis(500), ..Turns::default() },
            timeout: None,
            on_timeout: None,
        }
    }

    /// The endpoints that are bound, with the ports that the kernel chose.
    ///
    /// ```
    /// let server = forkd::Server::bind("udp://127.0.0.1:0")?;
    /// assert_eq!(server.endpoints().count(), 1);
    /// # Ok::<(), forkd::Error>(())
    /// ```
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners.iter().map(Listener::endpoint)
    }

    /// The first of the [`endpoints`](Self::endpoints), which is the only one unless a name stands for several.
    ///
    /// ```
    /// let server = forkd::Server::bind("tcp://127.0.0.1:0")?;
    /// println!("try: nc {}", server.server_address());
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn server_address(&self) -> &Endpoint {
        // `bind_all` gives at least one, or an error
        self.listeners[0].endpoint()
    }

    /// Chooses who runs the handler; the default is [`Model::Fork`].
    ///
    /// ```
    /// use forkd::{Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.listen.model = model;
        self.listen.workers = self.workers.unwrap_or_else(|| WorkerRange::of(model));
        self
    }

    /// Serves by a pool of so many forked workers, whichever the model but [`Model::Fork`]; 0 counts as 1.
    ///
    /// Without this, [`Model::Prefork`] has [as many as it has by default](Model::default_workers), and the
    /// others fork nobody.
    ///
    /// ```
    /// use forkd::{Server, model::Model};
    /// // four processes, each with a thread for each of its connections
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).workers(4);
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        let workers = workers.max(1);
        self.listen.workers = WorkerRange { min: workers, max: workers };
        self.workers = Some(self.listen.workers);
        self
    }

    /// The most children of [`Model::Fork`] alive at once; the default is 1024, and 0 counts as 1. More
    /// clients wait, and the server goes on meanwhile.
    ///
    /// ```
    /// let server = forkd::Server::bind("tcp://127.0.0.1:0")?.max_children(40);
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn max_children(mut self, max_children: u32) -> Self {
        self.listen.max_children = max_children.clamp(1, MAX_CHILDREN);
        self
    }

    /// After how many connections a worker of a pool is replaced, to be on the safe side of leaks; 0, the
    /// default, means never.
    ///
    /// ```
    /// use forkd::{Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).max_connections_per_child(10_000);
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn max_connections_per_child(mut self, connections: u64) -> Self {
        self.listen.max_connections_per_child = connections;
        self
    }

    /// How long a connection may be silent; the default is for ever.
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd::Server::bind("tcp://127.0.0.1:0")?.idle_timeout(Duration::from_secs(60));
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.listen.idle_timeout = Some(limit.max(Duration::from_millis(1)));
        self
    }

    /// How long connections of children may go on at a stop; the default is 10 s. In this process they are
    /// finished however long that takes: see [`idle_timeout`](Self::idle_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd::Server::bind("tcp://127.0.0.1:0")?.grace(Duration::from_secs(2));
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.daemon.grace = grace;
        self
    }

    /// Has this decide whether a client is served, by its address. One that is refused is closed at once, a
    /// datagram gets no answer; either is counted. It is asked once for each, before a child or a thread
    /// is there for it, by whoever accepts: this process, or a worker. One that panics refuses.
    ///
    /// ```
    /// use forkd::{Peer, Server};
    /// let server = Server::bind("tcp://0.0.0.0:0")?
    ///     .verify_request(|peer| matches!(peer, Peer::Ip(address) if address.ip().is_loopback()));
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn verify_request(mut self, verify: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.verify = Some(Arc::new(verify));
        self
    }

    /// Calls this when a handler has returned an error that is no client's doing, or has panicked. Either
    /// has been logged, and costs nobody else anything. It is called where it happened: with a model
    /// that forks, in the child.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use forkd::{Connection, Handler, Server, Service, model::Model};
    ///
    /// struct Clumsy;
    /// impl Handler for Clumsy {
    ///     fn handle(&mut self, _: &mut Connection<'_>) -> std::io::Result<()> {
    ///         Err(std::io::Error::other("dropped it"))
    ///     }
    /// }
    /// let seen = Arc::new(Mutex::new(String::new()));
    /// let report = Arc::clone(&seen);
    /// let server = Server::bind("tcp://127.0.0.1:0")?
    ///     .model(Model::Iterative)
    ///     .handle_error(move |_, error| *report.lock().unwrap() = error.to_string());
    /// # let address = server.server_address().to_string();
    /// # let _client = std::net::TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// // when one client has come:
    /// server.ready(Service::handler("clumsy", || Clumsy))?.handle_request()?;
    /// assert_eq!(*seen.lock().unwrap(), "dropped it");
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn handle_error(mut self, report: impl Fn(Peer, &HandlerError<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.failed = Some(Arc::new(report));
        self
    }

    /// Calls this in [`serve_forever`](Self::serve_forever) between two waits for clients, and at least every
    /// [`poll_interval`](Self::poll_interval), in this process: where it serves itself, after each request
    /// or whenever it looks for clients; where it is a master, in the master's loop.
    ///
    /// ```
    /// use forkd::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// let handle = server.handle();
    /// let mut ticks = 0;
    /// let server = server.poll_interval(std::time::Duration::from_millis(1)).service_actions(move || {
    ///     ticks += 1;
    ///     if ticks == 3 {
    ///         handle.shutdown();
    ///     }
    /// });
    /// server.serve_forever(Echo)?;
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn service_actions(mut self, actions: impl FnMut() + Send + 'static) -> Self {
        self.turns.actions = Some(Box::new(actions));
        self
    }

    /// The longest time between two calls of [`service_actions`](Self::service_actions) while nobody comes;
    /// the default is half a second. A [`shutdown`](Handle::shutdown) does not wait for it.
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd::Server::bind("tcp://127.0.0.1:0")?.poll_interval(Duration::from_secs(5));
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.turns.every = interval.max(Duration::from_millis(1));
        self
    }

    /// How long [`Serving::handle_request`] waits for a client; the default is for ever.
    /// [`serve_forever`](Self::serve_forever) takes no notice of it, as in socketserver.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd::{Echo, Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).timeout(Duration::ZERO);
    /// assert!(!server.ready(Echo)?.handle_request()?, "nobody is there");
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Calls this when [`Serving::handle_request`] has waited in vain for [`timeout`](Self::timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd::{Echo, Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?
    ///     .model(Model::Iterative)
    ///     .timeout(Duration::from_millis(1))
    ///     .handle_timeout(|| println!("still nobody"));
    /// server.ready(Echo)?.handle_request()?;
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn handle_timeout(mut self, on_timeout: impl FnMut() + Send + 'static) -> Self {
        self.on_timeout = Some(Box::new(on_timeout));
        self
    }

    /// What ends this server from anywhere else: another thread, a handler, a forked child.
    ///
    /// ```
    /// use forkd::{Echo, Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// let handle = server.handle();
    /// std::thread::spawn(move || handle.shutdown());
    /// server.serve_forever(Echo)?;
    /// # Ok::<(), forkd::Error>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until it is asked to end: by its [`handle`](Self::handle), by a handler
    /// ([`Site::shutdown`](crate::Site::shutdown)), and a master also by SIGTERM or SIGINT. When it returns, the
    /// socket is closed.
    ///
    /// An end by the handle is prompt, and in order: no client is accepted any more, those that
    /// are being served are finished, children within [`grace`](Self::grace).
    ///
    /// In this process, a panic of a handler costs its client the connection, and nobody else anything. Where a
    /// name stands for several addresses, all but the first are served by a thread each.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::{Shutdown, TcpStream};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// use forkd::{Connection, Handler, Server, Service, model::Model};
    ///
    /// /// Counts its clients, in memory that all handlers share.
    /// struct Turnstile(Arc<AtomicUsize>);
    /// impl Handler for Turnstile {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         write!(connection, "you are number {}", self.0.fetch_add(1, Ordering::SeqCst) + 1)
    ///     }
    /// }
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// let address = server.server_address().to_string();
    /// let (handle, count) = (server.handle(), Arc::new(AtomicUsize::new(0)));
    /// let shared = Arc::clone(&count);
    /// let service = Service::handler("turnstile", move || Turnstile(Arc::clone(&shared)));
    /// let serving = std::thread::spawn(move || server.serve_forever(service));
    ///
    /// for number in 1..=3 {
    ///     let mut client = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    ///     let mut heard = String::new();
    ///     client.read_to_string(&mut heard).unwrap();
    ///     assert_eq!(heard, format!("you are number {number}"));
    /// }
    /// handle.shutdown();
    /// serving.join().unwrap()?;
    /// assert_eq!(count.load(Ordering::SeqCst), 3);
    /// # Ok::<(), forkd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if this process is to fork and has several threads, or the system refuses what a server
    /// can't do without; [`Error::Internal`] if workers die before they have served anybody.
    pub fn serve_forever(self, service: impl Into<Service>) -> Result<(), Error> {
        self.ready(service)?.serve_forever()
    }

    /// Gives the server its service and makes all ready, for a program that has a loop of its own.
    ///
    /// ```
    /// use forkd::{Echo, Server, model::Model};
    /// use std::time::Duration;
    ///
    /// let server = Server::bind("udp://127.0.0.1:0")?.model(Model::Iterative).timeout(Duration::from_millis(20));
    /// let mut serving = server.ready(Echo)?;
    /// while serving.handle_request()? {
    ///     // between two requests
    /// }
    /// # Ok::<(), forkd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`serve_forever`](Self::serve_forever).
    pub fn ready(self, service: impl Into<Service>) -> Result<Serving, Error> {
        let service = service.into();
        let Self { listeners, config, listen, workers, hooks, handle, turns, timeout, on_timeout } = self;
        let model = listen.model;
        let (kind, turns) = if serves_here(model, workers) {
            let offer = |listener: &Listener| {
                let offer = Offer::new(listener.endpoint(), service.clone(), model, hooks.clone());
                Offer { idle_timeout: listen.idle_timeout, ..offer }
            };
            (serving::Kind::Here(Here::new(listeners, model, &handle, offer)?), Some(turns))
        } else {
            let bound = |listener: Listener| {
                let asked = listener.endpoint().clone();
                Bound::new(asked, listen.clone(), service.clone(), listener).with(hooks.clone())
            };
            let mut master = Master::new(&config, listeners.into_iter().map(bound).collect())?;
            master.serve_for(handle.clone(), turns);
            (serving::Kind::Master(Box::new(master)), None)
        };
        Ok(Serving { kind, model, handle, turns, timeout, on_timeout, is_over: false })
    }
}

/// Whether handlers run in this process.
fn serves_here(model: Model, workers: Option<WorkerRange>) -> bool {
    workers.is_none() && !matches!(model, Model::Fork | Model::Prefork)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, listen, workers, hooks, handle, turns, timeout, .. } = self;
        let mut server = f.debug_struct("Server");
        server.field("listeners", listeners).field("model", &listen.model).field("workers", workers);
        server.field("hooks", hooks).field("handle", handle).field("turns", turns).field("timeout", timeout);
        server.finish_non_exhaustive()
    }
}
