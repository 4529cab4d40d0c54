//! What a configuration asks of the system.

use crate::config::Config;
use crate::config::options::ListenOptions;
use forkd_server::Endpoint;
use forkd_server::Model;
use forkd_server::model::{WorkerRange, Workers};
use forkd_server::sandbox::Level;
use forkd_server::supervise::Processors;

/// What is to be had.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// Somebody has asked for it, and it isn't all by default: what falls short of it is a failure.
    pub is_asked: bool,
    /// So many connections at once.
    pub connections: Option<u64>,
    /// So many new ones per second.
    pub arrivals: Option<u64>,
    /// Groups of endpoints that are served in one way.
    pub groups: Vec<Demand>,
    /// The longest queue that a listener is to have.
    pub backlog: Option<u64>,
    /// The largest receive buffer that a UDP socket is to have.
    pub receive_buffer: Option<u64>,
    /// How processes are to be confined.
    pub sandbox: Level,
}

/// How the clients of some endpoints are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// What serves them.
    pub model: Model,
    /// How many sockets there are, at least.
    pub sockets: u64,
    /// How many of these have connections.
    pub queues: u64,
    /// Children or workers for each socket, at most.
    pub processes: u64,
    /// Connections that one process serves at once; `None`: as many as it can.
    pub each: Option<u64>,
}

impl Need {
    /// What this configuration asks for, with so many connections at once and so many per second.
    pub fn of(config: &Config, is_asked: bool, connections: Option<u64>, arrivals: Option<u64>) -> Self {
        let listen = &config.listen;
        let queues = listen.iter().filter(|group| group.endpoints.iter().any(has_own_queue));
        Self {
            is_asked: is_asked || connections.is_some() || arrivals.is_some(),
            connections,
            arrivals,
            groups: listen.iter().map(Demand::of).collect(),
            backlog: queues.map(|group| group.backlog().into()).max(),
            receive_buffer: listen.iter().filter_map(|group| group.receive_buffer).max().map(Into::into),
            sandbox: config.daemon.sandbox(),
        }
    }

    /// Processes and threads in all, the master among them.
    pub fn tasks(&self) -> u64 {
        1 + self.groups.iter().map(|group| self.tasks_of(group)).sum::<u64>()
    }

    /// Connections at once that it has places for; `None`: as many as there are descriptors.
    pub fn places(&self) -> Option<u64> {
        let queues = self.groups.iter().filter(|group| group.queues > 0);
        queues.map(|group| Some(group.queues * group.processes * group.each?)).sum()
    }

    /// Connections at once that one process of this group is to serve.
    pub fn share(&self, group: &Demand) -> Option<u64> {
        let asked = self.connections.filter(|_| group.queues > 0);
        match (asked.map(|asked| asked.div_ceil(group.processes)), group.each) {
            (Some(asked), Some(each)) => Some(asked.min(each)),
            (asked, each) => asked.or(each),
        }
    }

    fn tasks_of(&self, group: &Demand) -> u64 {
        match group.model {
            // as many as there are clients, whichever of these groups they come to; else what is the most
            Model::Fork => match self.connections {
                Some(asked) => {
                    let groups = self.groups.iter().filter(|group| group.queues > 0).count() as u64;
                    if group.queues > 0 { asked.div_ceil(groups) } else { 0 }
                }
                None => group.processes * group.sockets,
            },
            Model::Thread => {
                group.processes * group.sockets * (1 + self.share(group).or(group.each).unwrap_or(0))
            }
            _ => group.processes * group.sockets,
        }
    }
}

impl Demand {
    fn of(group: &ListenOptions) -> Self {
        let model = group.model();
        let processes = match (model, group.workers) {
            (Model::Fork, _) => group.max_children(),
            (_, Some(Workers::Range(range))) => range.max,
            (_, Some(Workers::Auto)) => Processors::here().count,
            (_, None) if group.service().accepts_by_itself() => Processors::here().count,
            (_, None) => WorkerRange::of(model).max,
        };
        let each = match model {
            _ if group.service().accepts_by_itself() => None,
            Model::Thread => Some(group.threads.unwrap_or_else(|| group.max_threads()).into()),
            Model::Event | Model::Coroutine => group.max_connections.map(Into::into),
            _ => Some(1),
        };
        let streams = group.endpoints.iter().filter(|endpoint| !endpoint.is_datagram());
        Self {
            model,
            sockets: group.endpoints.len() as u64,
            queues: streams.count() as u64,
            processes: processes.into(),
            each,
        }
    }
}

/// A queue of connections whose length forkd asks for.
fn has_own_queue(endpoint: &Endpoint) -> bool {
    !endpoint.is_datagram() && !endpoint.is_inherited()
}
