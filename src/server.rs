//! The face of the library: bind, choose a model, serve.

use std::time::Duration;

use crate::Error;
use crate::config::values::WorkerRange;
use crate::config::{Config, Listen};
use crate::daemon::master::Master;
use crate::daemon::sockets::{Bound, bind_options};
use crate::model::{Model, Threads};
use crate::service::Service;
use crate::transport::bind::bind_all;
use crate::transport::{Endpoint, Inherited, Listener};

/// A server for one endpoint: what Python's socketserver calls a server, with the concurrency
/// model as a setting.
///
/// # Fork safety
///
/// [`serve_forever`](Self::serve_forever) makes the calling process a master that forks. It must
/// have one thread; with more, the first fork is refused with an error. It ignores SIGCHLD, blocks
/// signals while it works, and takes over SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2,
/// SIGTTIN, SIGTTOU, SIGALRM and those of crashes. Handlers run in children: what they change in
/// memory, nobody else sees.
///
/// # Examples
///
/// ```no_run
/// use forkd::{Echo, Server};
/// use forkd::model::Model;
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).workers(4);
/// println!("listening on {}", server.endpoints().next().unwrap());
/// server.serve_forever(Echo)?;
/// # Ok::<(), forkd::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    listen: Listen,
    /// As the caller has said, whatever the model.
    workers: Option<WorkerRange>,
}

impl Server {
    /// Binds an endpoint such as `tcp://127.0.0.1:0`, `udp://[::]:7007` or `unix:///run/echo.sock`.
    ///
    /// A host name may stand for several addresses; all are bound.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no endpoint; [`Error::Unavailable`] if the address is taken;
    /// [`Error::Permission`] for a port that needs a privilege.
    pub fn bind(endpoint: &str) -> Result<Self, Error> {
        let endpoint: Endpoint = endpoint.parse().map_err(|e| Error::Usage(format!("{e}")))?;
        let listen = Listen { endpoints: vec![endpoint.clone()], ..Listen::default() };
        let listeners = bind_all(&endpoint, bind_options(&listen), &[], &Inherited::default())?;
        Ok(Self { listeners, config: Config::default(), listen, workers: None })
    }

    /// The endpoints that are bound, with the ports that the kernel chose.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners.iter().map(Listener::endpoint)
    }

    /// Chooses who runs the handler; the default is [`Model::Fork`].
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.listen.model = model;
        self.listen.workers = self.workers.unwrap_or_else(|| WorkerRange::of(model));
        self
    }

    /// The number of workers of a model that has a pool of them; the default is the model's own
    /// ([`Model::default_workers`]), and 0 counts as 1.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        let workers = workers.max(1);
        self.listen.workers = WorkerRange { min: workers, max: workers };
        self.workers = Some(self.listen.workers);
        self
    }

    /// The threads of each worker of [`Model::Thread`]; the default is one for each connection, at most 1024 at
    /// once. Less than 1 counts as 1.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        let in_range = |count: u32| count.clamp(1, Threads::MOST);
        self.listen.threads = match threads {
            Threads::Each(most) => Threads::Each(in_range(most)),
            Threads::Fixed(count) => Threads::Fixed(in_range(count)),
        };
        self
    }

    /// The most children of [`Model::Fork`] alive at once; the default is 1024, and 0 counts as 1.
    #[must_use]
    pub fn max_children(mut self, max_children: u32) -> Self {
        self.listen.max_children = max_children.clamp(1, crate::config::values::MAX_CHILDREN);
        self
    }

    /// The most connections that each worker of [`Model::Event`] or [`Model::Coroutine`] serves at once; others
    /// wait. The default is as many as it has descriptors for, and 0 counts as 1.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.listen.max_connections = Some(connections.max(1));
        self
    }

    /// After how many connections a worker is replaced, to be on the safe side of leaks; 0, the
    /// default, means never.
    #[must_use]
    pub fn max_connections_per_child(mut self, connections: u64) -> Self {
        self.listen.max_connections_per_child = connections;
        self
    }

    /// How long a connection may be silent; the default is for ever.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.listen.idle_timeout = Some(limit.max(Duration::from_millis(1)));
        self
    }

    /// How long connections may go on at a stop; the default is 10 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.daemon.grace = grace;
        self
    }

    /// Serves until SIGTERM or SIGINT, or until too many workers fail to start.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the model can't run the service: a [`Handler`](crate::Handler) under
    /// [`Model::Event`]. [`Error::Internal`] if workers die before they have served anybody; [`Error::Os`] if the
    /// process has several threads or the system refuses what a server can't do without; what
    /// [`Exec::check`](crate::service::Exec::check) says, and [`Error::Config`] if that service can't be had
    /// like this.
    pub fn serve_forever(self, service: impl Into<Service>) -> Result<(), Error> {
        let service = service.into();
        self.listen.model.require(&service).map_err(|why| Error::Usage(format!("the service {why}")))?;
        let bound = |listener: Listener| {
            Bound::new(listener.endpoint().clone(), self.listen.clone(), service.clone(), listener)
        };
        let bound = self.listeners.into_iter().map(bound).collect();
        run(&self.config, bound)
    }
}

fn run(config: &Config, bound: Vec<Bound>) -> Result<(), Error> {
    let mut master = Master::new(config, bound)?;
    let result = master.run(|_| Ok(()));
    if result.is_err() {
        master.abandon();
    }
    result
}
