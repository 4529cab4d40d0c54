//! What is known of a listening socket beside its counters.

use std::sync::Arc;

use crate::model::Model;
use crate::process::listeners::Listeners;
use crate::process::station::{Acceptor, Station};
use crate::service::application::Application;
use crate::transport::listener::Kind;
use crate::transport::{Arrivals, Listener};

/// A listening socket, by name.
#[derive(Debug, Clone)]
pub struct Socket {
    /// Its number on the scoreboard.
    pub number: usize,
    /// What it is bound to.
    pub endpoint: String,
    /// What is served.
    pub service: String,
    /// Which processes serve it.
    pub model: Model,
    /// What accepts its clients.
    pub accepted_by: AcceptedBy,
    /// How many connections a process serves at once, which tells how many more it could; `None` where it takes none, but
    /// datagrams, where it accepts by itself, or is closed.
    pub connections_each: Option<u32>,
    /// The socket, if the kernel tells how many clients wait there.
    pub listener: Option<Arc<Listener>>,
    /// What the kernel has told.
    pub arrivals: Arrivals,
}

/// What accepts the clients of a listening socket, and so how much is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AcceptedBy {
    /// The processes of its model.
    #[default]
    Model,
    /// Workers that run a function, which tell of their clients or don't.
    Function,
    /// Workers that are programs, which tell of no client.
    Program,
    /// The workers of the socket that is bound to this, which tell of no client here.
    WorkersOf(String),
}

impl AcceptedBy {
    /// Whether workers accept by themselves.
    pub fn is_application(&self) -> bool {
        *self != Self::Model
    }

    /// Whether anything can be known of its clients.
    pub fn may_tell(&self) -> bool {
        matches!(self, Self::Model | Self::Function)
    }
}

impl Socket {
    /// Each listening socket once.
    pub(in crate::process) fn all(listeners: &Listeners) -> impl Iterator<Item = Self> {
        listeners.current().map(|station| Self::of(station, listeners))
    }

    fn of(station: &Station, listeners: &Listeners) -> Self {
        let listener = station.context().map(|context| &context.listener);
        let accepted_by = AcceptedBy::at(station, listeners);
        Self {
            number: station.number(),
            endpoint: station.endpoint().to_string(),
            service: station.spec.service.name().to_owned(),
            model: station.model(),
            connections_each: listener
                .filter(|listener| listener.kind() == Kind::Stream && !accepted_by.is_application())
                .map(|_| station.spec.model.connections_each()),
            accepted_by,
            listener: listener.filter(|listener| listener.tells_of_arrivals()).map(Arc::clone),
            arrivals: station.arrivals(),
        }
    }
}

impl AcceptedBy {
    fn at(station: &Station, listeners: &Listeners) -> Self {
        match (&station.acceptor, station.spec.service.as_application()) {
            (Acceptor::Beside(_), _) => {
                let is_first = |other: &&Station| {
                    matches!(other.acceptor, Acceptor::Pooling(_)) && Arc::ptr_eq(&other.spec, &station.spec)
                };
                let first = listeners.iter().find(is_first).unwrap_or(station);
                Self::WorkersOf(first.endpoint().to_string())
            }
            (_, Some(Application::Function(_))) => Self::Function,
            (_, Some(Application::Program(_))) => Self::Program,
            // what the program before this one has left
            (Acceptor::Pooling(pooling), None) if pooling.has_programs() => Self::Program,
            (_, None) => Self::Model,
        }
    }
}
