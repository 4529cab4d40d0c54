//! What a master is asked to serve: sockets, the service of their clients, and the model with its limits.
//!
//! A program makes it of its configuration; the master knows nothing else of that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::access::AccessSpec;
use crate::model::serve::Terms;
use crate::model::{Model, Overflow, Threads, WorkerRange, Workers};
use crate::processors::Processors;
use crate::sandbox::Sandbox;
use crate::scoreboard::Place;
use crate::service::Service;
use crate::transport::Endpoint;
use crate::transport::bind::BindOptions;
use crate::transport::listener::Kind;

/// How many workers of a small pool may serve their last clients at once.
const LEAVERS: u32 = 16;

/// The longest lifetime of a connection that can be asked for: the clock of the reactor begins again after 49 days.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Sockets that are served in the same way.
#[derive(Debug, Clone)]
pub struct ListenerSpec {
    /// What to bind; never empty.
    pub endpoints: Vec<Endpoint>,
    /// How to bind it.
    pub bind: BindOptions,
    /// What is done with the bytes.
    pub service: Service,
    /// Which sockets that are handed over the service can have.
    pub suits: Suits,
    /// Which clients are served, by where they come from.
    pub access: AccessSpec,
    /// Which processes run the service, and how many.
    pub model: ModelSpec,
    /// What those processes may do besides.
    pub sandbox: Sandbox,
}

impl ListenerSpec {
    /// Refuses a model that this system does not let serve.
    pub(crate) fn check_system(&self) -> Result<(), Error> {
        // the kind of a socket that is handed over is known only later
        let has = |datagrams| {
            let is_such =
                |endpoint: &Endpoint| endpoint.is_datagram() == datagrams && !endpoint.is_inherited();
            self.endpoints.iter().any(is_such)
        };
        self.model.model.check_system(has(false), has(true), true)
    }
}

/// The model, and its limits.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Which processes and threads run the service.
    pub model: Model,
    /// The size of the pool; `None`: as is best for the model and the socket.
    pub workers: Option<Workers>,
    /// The fewest idle workers of an elastic pool.
    pub min_spare: u32,
    /// The most idle workers of an elastic pool.
    pub max_spare: u32,
    /// The threads of a worker (thread).
    pub threads: Threads,
    /// The most children alive at once (fork).
    pub max_children: u32,
    /// How many children wait for their client, so that it doesn't wait for a fork (fork, connections).
    pub spare: u32,
    /// The most connections that a worker serves at once (event, coroutine); `None`: as many as it has descriptors for.
    pub max_connections: Option<u32>,
    /// After how many connections a worker is replaced; 0: never.
    pub max_connections_per_child: u64,
    /// What happens to a connection at `max_children` (fork).
    pub overflow: Overflow,
    /// How long a connection may be silent, where the service doesn't say it.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last, whatever its client does.
    pub max_lifetime: Option<Duration>,
    /// How workers are kept that accept by themselves.
    pub upkeep: Upkeep,
}

/// How workers are kept that accept by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// After what time a worker counts as ready that doesn't say so; `None`: it has to.
    pub ready_after: Option<Duration>,
    /// How long a worker may start until it is killed.
    pub start_timeout: Duration,
    /// How many workers of a new generation start at once, before as many of the old one are told to leave.
    pub rolling: u32,
    /// How old a worker may become until another replaces it.
    pub max_age: Option<Duration>,
    /// How much memory, in bytes, a worker may have in use until another replaces it.
    pub max_memory: Option<u64>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            ready_after: Some(Duration::from_secs(1)),
            start_timeout: Duration::from_secs(60),
            rolling: 1,
            max_age: None,
            max_memory: None,
        }
    }
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            model: Model::default(),
            workers: None,
            min_spare: 2,
            max_spare: 8,
            threads: Threads::default(),
            max_children: 1024,
            spare: 0,
            max_connections: None,
            max_connections_per_child: 0,
            overflow: Overflow::default(),
            idle_timeout: None,
            max_lifetime: None,
            upkeep: Upkeep::default(),
        }
    }
}

impl ModelSpec {
    /// The size of the pool for a socket of this kind.
    pub(crate) fn workers_for(&self, kind: Kind, service: &Service) -> WorkerRange {
        let usual = match self.workers {
            Some(Workers::Range(range)) => return range,
            Some(Workers::Auto) => WorkerRange::fixed(Processors::here().count),
            None if service.as_application().is_some() => WorkerRange::fixed(Processors::here().count),
            None => WorkerRange::of(self.model),
        };
        match kind {
            Kind::Datagram if !service.is_handler() && service.as_application().is_none() => {
                usual.at_most(Processors::here().for_datagrams())
            }
            _ => usual,
        }
    }

    /// How many connections a process of it serves at once; `u32::MAX`: no limit is known.
    pub(crate) fn connections_each(&self) -> u32 {
        match (self.model, self.threads) {
            (Model::Fork | Model::Prefork | Model::Iterative, _) => 1,
            (Model::Thread, Threads::Each(threads) | Threads::Fixed(threads)) => threads,
            (Model::Event | Model::Coroutine, _) => self.max_connections.unwrap_or(u32::MAX),
        }
    }

    /// The most connections that are served at once at a socket; `None`: no limit is known before the pool is there.
    #[must_use]
    pub fn places(&self) -> Option<u64> {
        let processes = match (self.model, self.workers) {
            (Model::Fork, _) => self.max_children,
            (_, Some(Workers::Range(range))) => range.max,
            (_, None) => WorkerRange::of(self.model).max,
            (_, Some(Workers::Auto)) => return None,
        };
        let each = Some(self.connections_each()).filter(|each| *each < u32::MAX)?;
        Some(u64::from(processes) * u64::from(each))
    }

    /// What a worker of such a pool is told, with this time to finish at a stop.
    pub(crate) fn terms(&self, workers: WorkerRange, grace: Duration) -> Terms {
        Terms {
            model: self.model,
            limit: self.max_connections_per_child,
            leavers: workers.max.max(LEAVERS),
            max_connections: self.max_connections.unwrap_or(u32::MAX),
            elastic: workers.is_elastic(),
            threads: self.threads,
            grace,
            // a master that does not wait ends the worker
            waits: true,
            place: Place::default(),
        }
    }
}

/// Refuses a socket that was handed over if the service can't have it: what it is, is known only then.
#[derive(Clone)]
pub struct Suits(Arc<Check>);

type Check = dyn Fn(&Endpoint) -> Result<(), Error> + Send + Sync;

impl Suits {
    /// By this check, whose error says what to do.
    pub fn new(check: impl Fn(&Endpoint) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    pub(crate) fn check(&self, endpoint: &Endpoint) -> Result<(), Error> {
        (self.0)(endpoint)
    }
}

/// Any socket will do.
impl Default for Suits {
    fn default() -> Self {
        Self::new(|_| Ok(()))
    }
}

impl fmt::Debug for Suits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Suits")
    }
}
