// tests count what they skip by atexit(3)
#![cfg_attr(not(test), forbid(unsafe_code))]
//! Servers side by side under the same load: how many processes and threads each has, what that costs, and
//! what the clients feel.
//!
//! [`compare`] carries out a [`Plan`]: each [`Contestant`] is started anew in each round, found ready,
//! measured phase by phase with [`forkd_load`], and stopped such that nothing of it is left. What it comes
//! to is a [`record::Record`].

mod calibrate;
mod cgroup;
mod contestant;
mod copy;
mod figures;
mod machine;
mod messages;
mod metrics;
mod null;
mod objective;
mod orphans;
mod plan;
mod process;
pub mod record;
pub mod report;
mod run;
mod scratch;
mod search;
mod server;
#[cfg(test)]
#[allow(unsafe_code, dead_code, unreachable_pub, missing_docs, clippy::panic)]
#[path = "../../../tests/common/skips.rs"]
mod skips;
mod slo;
pub mod stats;
mod system;
mod tally;
mod tree;
mod turn;
mod usage;
mod warnings;
mod watch;
mod words;

pub use calibrate::NULL_SERVER;
pub use contestant::{Contestant, MODELS};
pub use null::serve as serve_nothing;
pub use objective::Objective;
pub use plan::Plan;
pub use run::{Observer, Step, compare};
pub use scratch::Scratch;
pub use server::not_inherited;
pub use watch::lock;

/// What a forkd has counted, over all its listening sockets: children that lived for a moment are in it, too.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counters {
    /// Children that it has.
    pub alive: u32,
    /// Children that it has forked.
    pub forked: u64,
    /// Connections that it has had, and datagrams.
    pub connections: u64,
    /// Clients that it has turned away.
    pub refused: u64,
    /// The most children at once.
    pub peak: u32,
    /// How evenly its connections are spread over workers that serve many each: Jain's index.
    pub spread: Option<f64>,
}

/// Asks the forkd behind a control socket; `None` if it does not answer.
pub type Ask = fn(&std::path::Path) -> Option<Counters>;

/// Kills a process of a server of ours; that it has gone is as good.
fn kill(process: u32) {
    // neither ours nor init's
    if let Some(pid) = rustix::process::Pid::from_raw(process.cast_signed()).filter(|pid| !pid.is_init()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
