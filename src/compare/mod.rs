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
mod counters;
mod figures;
mod machine;
mod messages;
mod null;
mod orphans;
mod plan;
mod process;
pub mod record;
pub mod report;
mod run;
mod scratch;
mod server;
pub mod stats;
mod system;
mod tally;
mod tree;
mod turn;
mod usage;
mod warnings;
mod watch;
mod words;

pub(crate) use calibrate::NULL_SERVER;
pub use contestant::{Contestant, MODELS};
pub(crate) use null::serve as serve_nothing;
pub use plan::Plan;
pub use run::{Observer, Step, compare};
pub(crate) use watch::lock;

/// Kills a process of a server of ours; that it has gone is as good.
fn kill(process: u32) {
    // neither ours nor init's
    if let Some(pid) = rustix::process::Pid::from_raw(process.cast_signed()).filter(|pid| !pid.is_init()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
