//! Who runs the handler.
//!
//! A model is the child's side of the work: what a forked process does from its first instruction
//! until it leaves. The master's side, when to fork and what to do about a death, is the daemon's;
//! its rule for pools is in `pool`, which is pure.

pub(crate) mod coroutine;
pub(crate) mod entrance;
pub(crate) mod event;
pub(crate) mod fork;
pub(crate) mod pool;
pub(crate) mod prefork;
pub(crate) mod serve;
pub(crate) mod starts;
pub(crate) mod thread;
pub(crate) mod worker;

use serde::{Deserialize, Serialize};

/// A concurrency model: who runs the handler of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, Default)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Model {
    /// The master accepts and forks a child for each connection (or datagram).
    #[default]
    Fork,
    /// A pool of forked workers; each accepts for itself and serves one connection at a time.
    Prefork,
    /// One worker that serves one connection at a time: the others wait. With more workers it is
    /// [`Prefork`](Self::Prefork).
    Iterative,
    /// A worker that starts a thread for each connection.
    Thread,
    /// A worker with one thread, which serves all its connections as they become ready.
    Event,
    /// A worker with one thread, and a coroutine for each connection: a read that would block lets the
    /// others go on.
    Coroutine,
}

impl Model {
    /// How many workers there are where nothing is said; `None` where there is no pool of them.
    #[must_use]
    pub fn default_workers(self) -> Option<u32> {
        match self {
            Self::Iterative | Self::Thread | Self::Event | Self::Coroutine => Some(1),
            Self::Fork => None,
            Self::Prefork => Some(8),
        }
    }

    /// Whether each of its workers serves one connection at a time, so that a pool can grow with its clients.
    #[must_use]
    pub fn serves_one_at_a_time(self) -> bool {
        matches!(self, Self::Iterative | Self::Prefork)
    }

    /// Whether its workers wait for many things at once, so that the listener must not block.
    pub(crate) fn polls(self) -> bool {
        matches!(self, Self::Event | Self::Coroutine)
    }

    /// Whether it is a pool of workers that accepts, and not the master.
    #[must_use]
    pub fn has_pool(self) -> bool {
        self.default_workers().is_some()
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Iterative => "iterative",
            Self::Thread => "thread",
            Self::Event => "event",
            Self::Coroutine => "coroutine",
            Self::Fork => "fork",
            Self::Prefork => "prefork",
        })
    }
}
