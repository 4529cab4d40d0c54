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
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fork => "fork",
            Self::Prefork => "prefork",
        })
    }
}
