//! The face of the library: bind, choose a model, serve.
//!
//! A [`Server`] is a bound socket with settings. [`Server::serve_forever`] gives it a service and serves;
//! [`Server::ready`] is for programs with a loop of their own, which call [`Serving::handle_request`].
//!
//! Where handlers run depends on the model, as in socketserver:
//!
//! | model | what serves |
//! |---|---|
//! | [`Fork`](Model::Fork) | a child of this process for each client; this process is its *master* |
//! | [`Prefork`](Model::Prefork), and any other with [`workers`](Server::workers) | a pool of children; this process is their master |
//! | any other, without [`workers`](Server::workers) | **this process and thread**: nothing is forked, signals are left alone, other threads are welcome, and handlers see this program's memory |

mod access;
mod builder;
mod hooks;
mod in_process;
mod run;
mod serving;
mod settings;
mod vain;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

pub use builder::Builder;
use in_process::InProcess;
use run::Again;
pub use serving::Serving;

use crate::Error;
use crate::access::AccessSpec;
use crate::model::Model;
use crate::model::hooks::{Hooks, Ticker};
use crate::model::serve::Terms;
use crate::model::service_config::ServiceConfig;
use crate::model::{WorkerRange, Workers};
use crate::process::lifecycle::StopTimes;
use crate::process::master::Master;
use crate::process::sockets::Bound;
use crate::sandbox::Sandbox;
use crate::service::IntoService;
use crate::spec::{ListenerSpec, ModelSpec, Suits};
use crate::transport::bind::BindOptions;
use crate::transport::listener::Kind;
use crate::transport::{Endpoint, Handle, Inherited, Listener, local_addr};

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
/// they change in memory, no other process sees.
///
/// # Examples
///
/// ```no_run
/// use forkd_server::{Echo, Server};
/// use forkd_server::model::Model;
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).workers(4);
/// println!("listening on {}", server.server_address());
/// server.serve_forever(Echo)?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    grace: Duration,
    model: ModelSpec,
    access: AccessSpec,
    sandbox: Sandbox,
    /// Whether a stop waits for connections.
    block_on_close: bool,
    hooks: Hooks,
    handle: Handle,
    ticker: Ticker,
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
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?;
    /// assert!(!server.server_address().to_string().ends_with(":0"), "the kernel has chosen a port");
    /// # Ok::<(), forkd_server::Error>(())
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

    /// What is to be said before the socket is bound: the length of its queue, which processes may share its port.
    ///
    /// ```
    /// let server = forkd_server::Server::builder().request_queue_size(5).bind("tcp://127.0.0.1:0")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Serves at another endpoint, too, in the same way.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.and("udp://127.0.0.1:0")?;
    /// assert_eq!(server.endpoints().count(), 2);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn and(mut self, endpoint: &str) -> Result<Self, Error> {
        self.listeners.append(&mut Self::bind(endpoint)?.listeners);
        Ok(self)
    }

    fn new(listeners: Vec<Listener>, handle: Handle) -> Self {
        Self {
            listeners,
            grace: Duration::from_secs(10),
            model: ModelSpec::default(),
            access: AccessSpec::default(),
            sandbox: Sandbox::default(),
            block_on_close: true,
            hooks: Hooks { handle: Some(handle.clone()), ..Hooks::default() },
            handle,
            ticker: Ticker { every: Duration::from_millis(500), ..Ticker::default() },
            timeout: None,
            on_timeout: None,
        }
    }

    /// The endpoints that are bound, with the ports that the kernel chose.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("udp://127.0.0.1:0")?;
    /// assert_eq!(server.endpoints().count(), 1);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners.iter().map(Listener::endpoint)
    }

    /// The first of the [`endpoints`](Self::endpoints).
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?;
    /// println!("try: nc {}", server.server_address());
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn server_address(&self) -> &Endpoint {
        // `bind_all` gives at least one, or an error
        self.listeners[0].endpoint()
    }

    /// The same as std has it, for a client in this program: with the port that the kernel chose.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?;
    /// let client = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) for a Unix socket; else as getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(Some(self.listeners[0].as_fd()))
    }

    /// What ends this server from anywhere else: another thread, a handler, a forked child.
    ///
    /// ```
    /// use forkd_server::{Echo, Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// let handle = server.handle();
    /// std::thread::spawn(move || handle.shutdown());
    /// server.serve_forever(Echo)?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until it is asked to end: by its [`handle`](Self::handle), by a handler
    /// ([`ServerInfo::shutdown`](crate::ServerInfo::shutdown)), and a master also by SIGTERM or SIGINT. When it returns, the
    /// socket is closed.
    ///
    /// An end by the handle is prompt, and in order: no client is accepted any more, those that
    /// are being served are finished within [`grace`](Self::grace), unless [`block_on_close`](Self::block_on_close) says
    /// otherwise.
    ///
    /// In this process, a panic of a handler costs its client the connection, and no other client anything. Where a
    /// name stands for several addresses, all but the first are served by a thread each.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::{Shutdown, TcpStream};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// use forkd_server::{Connection, Handler, Server, Service, model::Model};
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
    /// let address = server.local_addr().unwrap();
    /// let (handle, count) = (server.handle(), Arc::new(AtomicUsize::new(0)));
    /// let shared = Arc::clone(&count);
    /// let service = Service::handler("turnstile", move || Turnstile(Arc::clone(&shared)));
    /// let serving = std::thread::spawn(move || server.serve_forever(service));
    ///
    /// for number in 1..=3 {
    ///     let mut client = TcpStream::connect(address).unwrap();
    ///     let mut heard = String::new();
    ///     client.read_to_string(&mut heard).unwrap();
    ///     assert_eq!(heard, format!("you are number {number}"));
    /// }
    /// handle.shutdown();
    /// serving.join().unwrap()?;
    /// assert_eq!(count.load(Ordering::SeqCst), 3);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the model can't run the service: a [`Handler`](crate::Handler) under [`Model::Event`];
    /// if its pool can't be [elastic](Self::elastic_workers); or if an option was given that has no effect with it, as
    /// [`threads`](Self::threads) with any model but [`Model::Thread`].
    /// [`Error::Os`] if this process is to fork and has several threads, or the system refuses what a server
    /// can't do without, or what a worker needs; [`Error::Internal`] if workers die before they have served a client; what
    /// [`Exec::check`](crate::service::Exec::check) says, and [`Error::Config`] if that service can't be had
    /// like this.
    pub fn serve_forever(self, service: impl IntoService) -> Result<(), Error> {
        self.ready(service)?.serve_forever()
    }

    /// Gives the server its service and makes all ready, for a program that has a loop of its own.
    ///
    /// ```
    /// use forkd_server::{Echo, Server, model::Model};
    /// use std::time::Duration;
    ///
    /// let server = Server::bind("udp://127.0.0.1:0")?.model(Model::Iterative).timeout(Duration::from_millis(20));
    /// let mut serving = server.ready(Echo)?;
    /// while serving.handle_request()? {
    ///     // between two requests
    /// }
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`serve_forever`](Self::serve_forever).
    pub fn ready(self, service: impl IntoService) -> Result<Serving, Error> {
        let service = service.into_service();
        let Self {
            listeners,
            mut grace,
            model: mut spec,
            access,
            sandbox,
            mut hooks,
            handle,
            ticker,
            timeout,
            on_timeout,
            ..
        } = self;
        if service.as_application().is_some() {
            vain::refuse_for_clients(&spec, &access, &sandbox, &hooks)?;
            spec.model = Model::Prefork;
        }
        let model = spec.model;
        let fit = model.require(service.name(), service.is_handler());
        fit.map_err(|why| Error::Usage(format!("the service {why}")))?;
        if spec.workers.is_some_and(Workers::is_elastic) && !model.serves_one_at_a_time() {
            let why = "has no elastic pool, which needs workers that serve one client at a time; \
                       choose the model prefork, or a fixed number of workers";
            return Err(Error::Usage(format!("the model {model} {why}")));
        }
        let in_process = is_in_process(model, spec.workers);
        let is = |kind| listeners.iter().any(|listener| listener.kind() == kind);
        vain::refuse(&spec, &service, in_process, is(Kind::Stream))?;
        model.check_system(is(Kind::Stream), is(Kind::Datagram), !in_process)?;
        if in_process && sandbox.is_on() {
            let why = "serves in this process, which a sandbox would confine for good; have workers, or choose a model that \
                       forks";
            return Err(Error::Usage(format!("the model {model} {why}")));
        }
        let (kind, ticker) = if in_process {
            if model.never_waits_to_accept() {
                listeners.iter().try_for_each(Listener::check_accept_now)?;
            }
            // the others cut theirs themselves, or leave them to their threads
            if model == Model::Iterative || (model == Model::Thread && self.block_on_close) {
                hooks.open = Some(Arc::default());
            }
            let service_config = |listener: &Listener, failures| {
                ServiceConfig::new(listener.endpoint(), service.clone(), model, hooks.clone(), failures)
                    .with_limits(spec.idle_timeout, spec.max_lifetime)
            };
            let open = hooks.open.clone();
            let terms = Terms { waits: self.block_on_close, ..spec.terms(WorkerRange::of(model), grace) };
            let server = InProcess::new(listeners, terms, &handle, &access, open, service_config)?;
            (serving::Kind::InProcess(Box::new(server)), Some(ticker))
        } else {
            if !self.block_on_close {
                grace = Duration::ZERO;
            }
            let listener_spec = Arc::new(ListenerSpec {
                endpoints: listeners.iter().map(|listener| listener.endpoint().clone()).collect(),
                bind: BindOptions::default(),
                service: service.clone(),
                suits: Suits::default(),
                access,
                model: spec,
                sandbox: sandbox.clone(),
            });
            let bound = |listener: Listener| {
                let asked = listener.endpoint().clone();
                Bound::new(asked, Arc::clone(&listener_spec), listener).with(hooks.clone())
            };
            let stop_times = StopTimes::without_delay(grace);
            let mut master = Master::new(stop_times)?;
            master.listen(listeners.into_iter().map(bound).collect())?;
            if service.as_application().is_some() {
                let again = Again::new(stop_times, &listener_spec);
                master.reload_from(Box::new(again), Inherited::default(), 0);
            }
            master.confine(sandbox.level(), std::slice::from_ref(&service))?;
            master.serve_for(handle.clone(), ticker);
            (serving::Kind::Master(Box::new(master)), None)
        };
        Ok(Serving { kind, model, handle, ticker, timeout, on_timeout, is_over: false })
    }
}

/// Whether handlers run in this process.
fn is_in_process(model: Model, workers: Option<Workers>) -> bool {
    workers.is_none() && !matches!(model, Model::Fork | Model::Prefork)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, model, hooks, handle, ticker, timeout, .. } = self;
        let mut server = f.debug_struct("Server");
        server.field("listeners", listeners).field("model", &model.model).field("workers", &model.workers);
        server
            .field("hooks", hooks)
            .field("handle", handle)
            .field("ticker", ticker)
            .field("timeout", timeout);
        server.finish_non_exhaustive()
    }
}
