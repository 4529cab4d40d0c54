//! One group of endpoints that are served in the same way; the rules that its options obey are in `rules`.
//!
//! Invariant: a [`Listen`] made from options has every value in range and no option that its model would
//! ignore; a refusal names the option at fault, so that the caller can point at where it was given.

use std::path::Path;
use std::time::Duration;

use super::RouteText;
use super::layers::Conflict;
use super::options::ListenOptions;
use super::service::{Builtin, Settings};
use super::values::{KeepAlive, Mode, Span};
use crate::Error;
use forkd_server::Endpoint;
use forkd_server::model::{Model, Threads};
use forkd_server::model::{Overflow, WorkerRange};
use forkd_server::service::Service;
use forkd_server::supervise::{BindOptions, KEEP_ALIVE};
use forkd_server::supervise::{ListenerSpec, ModelSpec, Suits};

/// Endpoints that are served in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What is bound; never empty.
    pub endpoints: Vec<Endpoint>,
    /// What is done with the bytes.
    pub service: Builtin,
    /// What the service is told.
    pub settings: Settings,
    /// Who runs the handler.
    pub model: Model,
    /// The size of the pool.
    pub workers: WorkerRange,
    /// The fewest idle workers of an elastic pool, from 1 to the most workers.
    pub min_spare: u32,
    /// The most idle workers of an elastic pool, above `min_spare`.
    pub max_spare: u32,
    /// The threads of a worker (thread), from 1 to [`Threads::MOST`].
    pub threads: Threads,
    /// The most children alive at once (fork), from 1 to [`MAX_CHILDREN`](forkd_server::model::MAX_CHILDREN).
    pub max_children: u32,
    /// The most connections that a worker serves at once (event, coroutine), at least 1; `None` means as many
    /// as it has descriptors for.
    pub max_connections: Option<u32>,
    /// After how many connections a worker is replaced; 0 means never.
    pub max_connections_per_child: u64,
    /// What happens to a connection at `max_children` (fork).
    pub overflow: Overflow,
    /// The length of the listen queue, at least 1; the kernel caps it.
    pub backlog: u32,
    /// How long a connection may be silent, at least a millisecond; `None` means for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a TCP client may leave the kernel without an answer; `None` means for ever.
    pub keep_alive: Option<Duration>,
    /// Whether an IPv6 socket refuses IPv4.
    pub v6only: bool,
    /// The permission bits of a Unix socket's file; `None` leaves them to the umask.
    pub socket_mode: Option<u32>,
}

impl Default for Listen {
    fn default() -> Self {
        let (host, port) = ("127.0.0.1".to_owned(), 7007);
        Self {
            endpoints: vec![Endpoint::Tcp { host: host.clone(), port }, Endpoint::Udp { host, port }],
            service: Builtin::default(),
            settings: Settings::default(),
            model: Model::default(),
            workers: WorkerRange::default(),
            min_spare: 2,
            max_spare: 8,
            threads: Threads::default(),
            max_children: 1024,
            max_connections: None,
            max_connections_per_child: 0,
            overflow: Overflow::default(),
            backlog: 4096,
            idle_timeout: None,
            keep_alive: Some(KEEP_ALIVE),
            v6only: false,
            socket_mode: None,
        }
    }
}

impl Listen {
    /// Fills in the defaults and checks the result.
    pub(super) fn new(options: &ListenOptions) -> Result<Self, Conflict> {
        let listen = Self::unchecked(options);
        listen.obey_the_rules(options)?;
        Ok(listen)
    }

    /// What of these options has no effect beside the others.
    pub(super) fn without_effect(options: &ListenOptions) -> Vec<Conflict> {
        Self::unchecked(options).idle(options)
    }

    fn unchecked(options: &ListenOptions) -> Self {
        let default = Self::default();
        let implied = if options.exec.is_empty() { Builtin::default() } else { Builtin::Exec };
        let service = options.service.unwrap_or(implied);
        let mut listen = Self {
            endpoints: options.endpoints.clone(),
            service,
            settings: settings(options),
            model: options.model.unwrap_or_default(),
            workers: options.workers.unwrap_or_else(|| WorkerRange::of(options.model.unwrap_or_default())),
            min_spare: options.min_spare.unwrap_or(default.min_spare),
            max_spare: options.max_spare.unwrap_or(default.max_spare),
            threads: threads(options),
            max_children: options.max_children.unwrap_or(default.max_children),
            max_connections: options.max_connections,
            max_connections_per_child: options.max_connections_per_child.unwrap_or_default(),
            overflow: options.overflow.unwrap_or_default(),
            backlog: options.backlog.unwrap_or(default.backlog),
            idle_timeout: options.idle_timeout.map(|span| span.0),
            keep_alive: options.keepalive.map_or(default.keep_alive, |keep_alive| keep_alive.0),
            v6only: options.v6only,
            socket_mode: options.socket_mode.map(|mode| mode.0),
        };
        if listen.endpoints.is_empty() {
            listen.endpoints = default.endpoints;
            // where nothing is named, what fits is meant
            let fits = |endpoint: &Endpoint| listen.suits(endpoint).is_ok();
            listen.endpoints = listen.endpoints.iter().filter(|endpoint| fits(endpoint)).cloned().collect();
        }
        listen
    }

    /// Makes the service.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it needs something that can't be opened.
    pub(crate) fn service(&self) -> Result<Service, Error> {
        self.service.service(&self.settings)
    }

    /// What the master is told, with this service.
    pub(crate) fn spec(&self, service: Service) -> ListenerSpec {
        let asked = self.clone();
        ListenerSpec {
            endpoints: self.endpoints.clone(),
            bind: self.bind_options(),
            service,
            suits: Suits::new(move |endpoint| asked.check_inherited(endpoint)),
            model: ModelSpec {
                model: self.model,
                workers: self.workers,
                min_spare: self.min_spare,
                max_spare: self.max_spare,
                threads: self.threads,
                max_children: self.max_children,
                max_connections: self.max_connections,
                max_connections_per_child: self.max_connections_per_child,
                overflow: self.overflow,
                idle_timeout: self.idle_timeout,
            },
        }
    }

    /// What it says about binding.
    pub(crate) fn bind_options(&self) -> BindOptions {
        BindOptions {
            backlog: self.backlog,
            v6only: self.v6only,
            socket_mode: self.socket_mode,
            keep_alive: self.keep_alive,
            ..BindOptions::default()
        }
    }

    /// Refuses a socket of systemd's that the service can't have: the configuration could not know what it is.
    pub(crate) fn check_inherited(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.suits(endpoint).map_err(|why| {
            let text = endpoint.to_string();
            let address = text.split_once("://").map_or(&*text, |(_, address)| address);
            // as systemd.socket(5) has every address
            let address = address.strip_prefix("[::]:").unwrap_or(address);
            Error::Config(format!(
                "the service {why}. To leave it out of its .socket unit, write there: ListenStream=, then \
                 ListenDatagram=, then ListenStream={address}, as tcp-only.conf does"
            ))
        })
    }

    /// Has a program with a relative path looked for from `here`; one without any path is looked for in PATH.
    pub(super) fn anchor(&mut self, here: &Path) {
        if let Some(program) = self.settings.exec.first_mut().filter(|program| program.contains('/'))
            && let Some(path) = here.join(&*program).to_str()
        {
            *program = path.to_owned();
        }
    }

    /// Whether the service can be had at an endpoint, and is no weapon there; if not, says why. What a socket
    /// that is handed over stands for is known only then.
    pub(crate) fn suits(&self, endpoint: &Endpoint) -> Result<(), String> {
        let name = self.service;
        // one that can't be made is found out when it is
        let amplifies = || self.service().is_ok_and(|service| service.amplifies());
        if !endpoint.is_datagram() {
            return Ok(());
        }
        if !self.service.takes_datagrams() {
            return Err(format!(
                "is {name}, which needs a connection, and {endpoint} has none; leave that out"
            ));
        }
        if matches!(endpoint, Endpoint::Udp { .. }) && !self.settings.amplify && amplifies() {
            return Err(format!(
                "is {name}, which answers a datagram to {endpoint} with more bytes than it has: whoever forges a \
                 sender's address could have it flood others; leave the endpoint out, or give `allow-amplification`"
            ));
        }
        Ok(())
    }

    pub(super) fn is_elastic(&self) -> bool {
        self.model.serves_one_at_a_time() && self.workers.is_elastic()
    }

    /// Whether all sockets come ready made.
    pub(super) fn is_inherited(&self) -> bool {
        self.endpoints.iter().all(Endpoint::is_inherited)
    }

    /// Whether there is a listen queue that we make.
    pub(super) fn has_queue(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.is_inherited() && !endpoint.is_datagram())
    }

    /// Whether there may be TCP connections: what is handed over is known only then.
    pub(super) fn may_be_tcp(&self) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| matches!(endpoint, Endpoint::Tcp { .. }) || endpoint.is_inherited())
    }
}

fn threads(options: &ListenOptions) -> Threads {
    match (options.threads, options.max_threads) {
        (Some(count), _) => Threads::Fixed(count),
        (None, Some(most)) => Threads::Each(most),
        (None, None) => Threads::default(),
    }
}

fn settings(options: &ListenOptions) -> Settings {
    let mut settings = Settings::default();
    if let Some(reply) = &options.reply {
        settings.reply.clone_from(reply);
    }
    settings.amplify = options.allow_amplification;
    settings.framing = options.framing.unwrap_or_default();
    settings.root.clone_from(&options.root);
    settings.routes = options.route.iter().map(|route| (route.path.clone(), route.text.clone())).collect();
    settings.exec.clone_from(&options.exec);
    settings
}

impl From<&Listen> for ListenOptions {
    /// Names every option that has a meaning for the endpoints and the model, defaults too.
    fn from(listen: &Listen) -> Self {
        let pooled = listen.model.has_pool();
        let forks = listen.model == Model::Fork;
        let (count, most) = match listen.threads {
            _ if listen.model != Model::Thread => (None, None),
            Threads::Fixed(count) => (Some(count), None),
            Threads::Each(most) => (None, Some(most)),
        };
        let acks = listen.service == Builtin::Ack;
        let Settings { reply, amplify, framing, root, chroot: _, routes, exec } = &listen.settings;
        let route = |(path, text): (&String, &String)| RouteText { path: path.clone(), text: text.clone() };
        Self {
            endpoints: listen.endpoints.clone(),
            service: Some(listen.service),
            reply: acks.then(|| reply.clone()),
            framing: acks.then_some(*framing),
            root: root.clone(),
            route: routes.iter().map(route).collect(),
            exec: exec.clone(),
            allow_amplification: *amplify,
            backlog: listen.has_queue().then_some(listen.backlog),
            v6only: listen.v6only,
            socket_mode: listen.socket_mode.map(Mode),
            model: Some(listen.model),
            workers: pooled.then_some(listen.workers),
            min_spare: listen.is_elastic().then_some(listen.min_spare),
            max_spare: listen.is_elastic().then_some(listen.max_spare),
            max_connections_per_child: pooled.then_some(listen.max_connections_per_child),
            threads: count,
            max_threads: most,
            max_children: forks.then_some(listen.max_children),
            max_connections: listen.max_connections,
            overflow: forks.then_some(listen.overflow),
            idle_timeout: listen.idle_timeout.map(Span),
            keepalive: listen.may_be_tcp().then_some(KeepAlive(listen.keep_alive)),
        }
    }
}
