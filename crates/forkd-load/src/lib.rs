#![forbid(unsafe_code)]
//! A load generator for echo servers: what the clients of a server feel, and how many it can serve.
//!
//! [`Load`] runs one [`Phase`] at a time, as its [`Plan`] says, against a [`Target`], and returns an
//! [`Outcome`]. What it promises:
//!
//! - **Closed loop for rates**: each client waits for its echo before it goes on. **Open loop** with
//!   [`Plan::rate`]: operations come due at a constant rate whatever the server does, and each counts from
//!   when it was due, so a server that stalls can't hide it (no coordinated omission).
//! - **Every byte is verified.** Messages follow from [`Plan::seed`] and differ by client and number.
//! - **Errors are counted by kind** ([`Fault`]), and a client that failed tries again 10 ms later.
//! - **What is the client's is told apart**: its processor time, and a [`Warning`] if it was the bottleneck.
//!
//! # Examples
//!
//! ```no_run
//! use std::sync::Arc;
//! use forkd_load::{Live, Load, Phase, Plan, Reach, Target};
//!
//! let target = Target::new(&"tcp://127.0.0.1:7007".parse()?, Reach::Loopback)?;
//! let load = Load::new(target, Plan { clients: 32, ..Plan::default() })?;
//! let outcome = load.run(Phase::Churn, &Arc::new(Live::default()))?;
//! println!("{:.0} conn/s, p99 {:?}", outcome.rate(), outcome.latencies.percentile(99.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Fork safety
//!
//! A phase starts threads, if [`Plan::threads`] is above 1, and ends them before it returns; a process
//! that is to fork must not be inside one. Descriptors are close-on-exec.

mod bulk;
mod client;
mod clock;
mod datagrams;
mod during;
mod encoding;
mod engine;
mod fault;
mod hold;
mod in_flight;
mod latencies;
mod live;
mod loss;
mod measure;
mod merge;
mod message;
mod meter;
mod outcome;
mod pacer;
mod plan;
mod probe;
mod proxy;
mod report;
mod table;
mod target;
mod task;
pub mod text;

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Barrier};

pub use during::{During, Part as DuringPart, TimedLoss};
pub use fault::{Fault, Faults};
pub use hold::Held;
pub use latencies::{Latencies, can_tell};
pub use live::Live;
pub use loss::{Loss, Losses, Lost};
pub use outcome::{Outcome, Warning};
pub use plan::allow_descriptors;
pub use plan::{Phase, Plan};
pub use probe::{Absent, Sign, probe};
pub use proxy::ProxyVersion;
pub use report::{Figures, Report, Settings, Together};
pub use table::table;
pub use target::{Reach, Target};

use forkd_net::Error;
use measure::measure;
use message::Messages;
use meter::Part;
use task::{Share, Task, on_threads};

/// A plan for a target, ready to be carried out phase by phase.
#[derive(Debug)]
pub struct Load {
    target: Target,
    plan: Plan,
}

impl Load {
    /// Checks the plan, and raises the limit of open files as far as its clients need it.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a plan that can't be carried out, [`Error::Os`] if there may not be enough
    /// descriptors.
    pub fn new(target: Target, plan: Plan) -> Result<Self, Error> {
        plan.check().map_err(Error::Usage)?;
        allow_descriptors(plan.clients)?;
        Ok(Self { target, plan })
    }

    /// Returns the server that is loaded.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns what was planned.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Tells whether the plan's phase can be had over the target's transport.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] says why not.
    pub fn check(&self, phase: Phase) -> Result<(), Error> {
        phase.check(&self.plan, &self.target).map_err(Error::Usage)
    }

    /// Carries out one phase, and returns when it is over or [`Live::stop`] has been called. A
    /// [`Phase::Hold`] holds its clients for [`Plan::duration`]; see [`Load::hold`].
    ///
    /// That a server does not answer is no error: the outcome says so.
    ///
    /// # Errors
    ///
    /// Those of [`Load::check`]; [`Error::Os`] if the system refuses
    /// something that ought to work.
    pub fn run(&self, phase: Phase, live: &Arc<Live>) -> Result<Outcome, Error> {
        if phase == Phase::Hold {
            let held = self.hold(live)?;
            live.wait(self.plan.duration);
            return held.release();
        }
        let task = self.task(phase, live)?;
        let (served, parts) = match phase {
            Phase::Bulk => bulk::run(&task).map(|part| (usize::from(part.done > 0), vec![part])),
            Phase::Datagrams => split(datagrams::run, &task),
            Phase::Hold | Phase::Churn | Phase::PingPong => split(measure, &task),
        }
        .map_err(|cause| self.failed(cause))?;
        Ok(Outcome { is_cut: live.is_stopped(), ..Outcome::of(phase, &self.plan, served, parts) })
    }

    /// Connects all clients, echoes once with each, and keeps them: those that are served, and those that
    /// wait in vain.
    ///
    /// # Errors
    ///
    /// As [`Load::run`].
    pub fn hold(&self, live: &Arc<Live>) -> Result<Held, Error> {
        let task = self.task(Phase::Hold, live)?;
        hold::hold(&task).map_err(|cause| self.failed(cause))
    }

    fn task(&self, phase: Phase, live: &Arc<Live>) -> Result<Arc<Task>, Error> {
        self.check(phase)?;
        live.begin();
        let size = if phase == Phase::Bulk { self.plan.piece } else { self.plan.size };
        let messages = Messages::new(self.plan.seed, size);
        let (target, plan, live) = (self.target.clone(), self.plan.clone(), Arc::clone(live));
        let (settled, begun) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Arc::new(Task { target, plan, phase, messages, live, settled, begun }))
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        Error::os(format!("cannot load {}", self.target.endpoint()), cause)
    }
}

/// Puts together how many clients of all threads were served, and what each thread has measured.
fn split(
    work: impl Fn(&Arc<Task>, Share, &Barrier) -> std::io::Result<(usize, Part)> + Sync,
    task: &Arc<Task>,
) -> std::io::Result<(usize, Vec<Part>)> {
    let (served, parts): (Vec<usize>, Vec<Part>) = on_threads(task, work)?.into_iter().unzip();
    Ok((served.into_iter().sum(), parts))
}
