//! What a comparison has found: the figures that all reports are made of, and the JSON that keeps them.
//!
//! Invariant: a figure is never alone. Beside the median there are the rounds that it is the median of, and
//! `null` (`None`) is what could not be measured, never 0.

mod figures;
mod slo;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::objective::Objective;
pub use crate::search::End;
pub use figures::{Bulk, Churn, Datagrams, Figures, Hold, Idle, Measured, PingPong};
use forkd_load::Phase;
pub use slo::{Check, Sought, Trial};

/// The version of the JSON; it changes when a field goes or comes to mean something else.
pub const VERSION: u32 = 1;

/// A comparison, as `forkd compare --json` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format: 1.
    pub version: u32,
    /// When it began, as in RFC 3339.
    pub made_at: String,
    /// On what.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// What the clients can do where the server does as little as possible.
    pub calibration: Option<Calibration>,
    /// What came of it, in the order in which they were named.
    pub models: Vec<Entry>,
    /// What must be known to read the figures right, and what to do about it.
    pub warnings: Vec<String>,
    /// The share of a processor that other programs had while it was measured, or other machines on the same hardware: at
    /// worst, as the mean of a turn; `None` if that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed: Option<f64>,
    /// Whether it was stopped before its end; then rounds, or models, may be missing.
    pub interrupted: bool,
}

/// From which share of a processor on others disturb.
pub(crate) const DISTURBED: f64 = 0.2;

impl Record {
    /// Whether others are known to have left the machine alone.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.disturbed.is_some_and(|share| share <= DISTURBED)
    }
}

/// The machine that client and server share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many processors may be used.
    pub processors: usize,
    /// Mebibytes of memory.
    pub memory_mib: u64,
    /// The system, and its version, as in "Linux 6.12.8".
    pub kernel: String,
    /// The version of forkd.
    pub forkd: String,
    /// How the server's processor time was counted, as in "control group (cpuacct)".
    pub cpu_by: String,
    /// The load average of the last minute before it began.
    pub load_before: Option<f64>,
    /// The most open files that this process may have.
    pub open_files: u64,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What the clients did.
    pub phases: Vec<Phase>,
    /// How many clients there were at the same time; the last one is what tables and bars show.
    pub clients: Vec<usize>,
    /// Seconds that each phase was measured, in each round.
    pub duration_s: f64,
    /// How often each model had its turn.
    pub rounds: usize,
    /// The workers of each pool that were asked for; without, each entry has its own number.
    pub workers: Option<u32>,
    /// The service.
    pub service: String,
    /// Bytes in a message.
    pub size: usize,
    /// tcp or unix; datagrams go over udp or unixgram.
    pub transport: String,
    /// Operations per second that came due, in an open loop.
    pub rate: Option<f64>,
    /// What messages were made of.
    pub seed: u64,
    /// What latencies were to keep to, where the highest rate was looked for that does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slo: Vec<Objective>,
    /// Seconds that each client of the churn stayed connected after its echo, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay_s: Option<f64>,
}

/// What the same clients measure of a server that does nothing but echo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Connections per second.
    pub conn_per_s: Option<f64>,
    /// Requests per second.
    pub req_per_s: Option<f64>,
    /// Megabytes (1,000,000 bytes) per second.
    pub mb_per_s: Option<f64>,
    /// Datagrams per second.
    pub datagrams_per_s: Option<f64>,
}

/// One server under load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is called, as in "prefork" or the name given with `--against`.
    pub name: String,
    /// How many workers its pool has, if it is a model of forkd with a pool.
    pub workers: Option<u32>,
    /// How it was started; `None` for one that ran already.
    pub command: Option<String>,
    /// Before the first client.
    pub idle: Option<Measured<Idle>>,
    /// With the most clients that were asked for, as the next ones.
    pub hold: Option<Measured<Hold>>,
    /// Connections that come and go.
    pub churn: Option<Measured<Churn>>,
    /// Standing connections.
    pub pingpong: Option<Measured<PingPong>>,
    /// One stream.
    pub bulk: Option<Measured<Bulk>>,
    /// UDP.
    pub datagrams: Option<Measured<Datagrams>>,
    /// The highest rate that keeps an objective, if that was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Sought>,
    /// With each number of clients, if there were several.
    pub growth: Vec<Growth>,
    /// Processes and threads over time, in the first round.
    pub timeline: Vec<Moment>,
    /// What failed, by kind, in all phases: see [`Fault::key`](forkd_load::Fault::key).
    pub faults: BTreeMap<String, u64>,
    /// Why it could not be measured, if it could not.
    pub failure: Option<String>,
}

impl Entry {
    /// Whether there is anything to tell of it: figures under load, or why there are none.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.failure.is_some()
            || self.hold.is_some()
            || self.churn.is_some()
            || self.pingpong.is_some()
            || self.bulk.is_some()
            || self.datagrams.is_some()
            || self.slo.as_ref().is_some_and(|sought| !sought.trials.is_empty())
    }

    /// How many of the clients it served at once, if they were held.
    pub(crate) fn served_at_once(&self) -> Option<f64> {
        self.hold.as_ref()?.median.served
    }

    /// Whether it served all clients at once, as far as that is known.
    pub(crate) fn serves_all(&self) -> bool {
        let clients = self.hold.as_ref().and_then(|hold| hold.median.clients);
        self.served_at_once().zip(clients).is_none_or(|(served, clients)| served >= clients)
    }

    /// Its name, and its workers where that says more.
    #[must_use]
    pub fn title(&self) -> String {
        match self.workers {
            Some(workers) if workers > 1 => format!("{} ×{workers}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// What was measured with one number of clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// How many.
    pub clients: usize,
    /// As in [`Entry`].
    pub hold: Option<Measured<Hold>>,
    /// As in [`Entry`].
    pub churn: Option<Measured<Churn>>,
    /// As in [`Entry`].
    pub pingpong: Option<Measured<PingPong>>,
}

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the server was ready.
    pub t_s: f64,
    /// What the clients did; `None` between two phases.
    pub phase: Option<Phase>,
    /// Processes of the server.
    pub processes: u32,
    /// Threads of all of them.
    pub threads: u32,
    /// Connections and requests that the clients had done in this phase.
    pub done: u64,
}
