//! Who runs the handler.
//!
//! A model is the child's side of the work: what a forked process does from its first instruction
//! until it leaves. The master's side, when to fork and what to do about a death, is the daemon's;
//! its rule for pools is in `pool`, which is pure.

pub(crate) mod fork;
pub(crate) mod pool;
pub(crate) mod prefork;
pub(crate) mod serve;
pub(crate) mod starts;

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
}

impl Model {
    /// How many workers there are where nothing is said; `None` where there is no pool of them.
    #[must_use]
    pub fn default_workers(self) -> Option<u32> {
        match self {
            Self::Iterative => Some(1),
            Self::Fork => None,
            Self::Prefork => Some(8),
        }
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
            Self::Fork => "fork",
            Self::Prefork => "prefork",
        })
    }
}
