//! What a comparison has found: the figures that all reports are made of, and the JSON that keeps them.
//!
//! Invariant: a figure is never alone. Beside the median there are the rounds that it is the median of, and
//! `null` (`None`) is what could not be measured, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stats::median;
use crate::load::Phase;

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
    /// Whether it was stopped before its end; then rounds, or models, may be missing.
    pub interrupted: bool,
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
    /// The workers of each pool.
    pub workers: u32,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// With each number of clients, if there were several.
    pub growth: Vec<Growth>,
    /// Processes and threads over time, in the first round.
    pub timeline: Vec<Moment>,
    /// What failed, by kind, in all phases: see [`Fault::key`](crate::load::Fault::key).
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

/// What was measured with so many clients.
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

/// The median of some figures, what they were in each round, and all latencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured<T> {
    /// The median of each figure.
    #[serde(flatten)]
    pub median: T,
    /// Each round's.
    pub rounds: Vec<T>,
    /// Of all rounds together: which percentile, and its latency in microseconds; from small to large.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency_us: Vec<(f64, f64)>,
}

impl<T: Figures> Measured<T> {
    /// Puts rounds together; `None` if there are none.
    #[must_use]
    pub fn of(rounds: Vec<T>, latency_us: Vec<(f64, f64)>) -> Option<Self> {
        let median = T::median(&rounds)?;
        Some(Self { median, rounds, latency_us })
    }

    /// A figure of each round in which it could be measured.
    pub fn each(&self, figure: impl Fn(&T) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(figure).collect()
    }

    /// The least and the most that a figure was.
    pub fn range(&self, figure: impl Fn(&T) -> Option<f64>) -> Option<(f64, f64)> {
        let values = self.each(figure);
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.iter().copied().fold(least, f64::max)))
    }
}

/// Figures that have medians.
pub trait Figures: Sized {
    /// The median of each figure over those rounds that have it; `None` if there are no rounds.
    fn median(rounds: &[Self]) -> Option<Self>;

    /// Each figure with its name in the JSON.
    fn named(&self) -> Vec<(&'static str, Option<f64>)>;
}

/// A set of figures, each of which may be missing.
macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(default, serialize_with = "plain")] pub $field: Option<f64>,)*
        }

        impl Figures for $name {
            fn median(rounds: &[Self]) -> Option<Self> {
                if rounds.is_empty() {
                    return None;
                }
                Some(Self { $($field: median(rounds.iter().filter_map(|round| round.$field)),)* })
            }

            fn named(&self) -> Vec<(&'static str, Option<f64>)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    )*};
}

/// Writes 3 and not 3.0, and no more digits than a figure has.
fn plain<S: serde::Serializer>(figure: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    let Some(value) = *figure else { return to.serialize_none() };
    let value = if value.abs() < 1e12 { (value * 1000.0).round() / 1000.0 } else { value };
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => to.serialize_i64(value as i64),
        false => to.serialize_f64(value),
    }
}

figures! {
    /// A server that nobody talks to.
    Idle {
        /// Processes.
        processes,
        /// Threads of all of them.
        threads,
        /// Memory in KiB, where what is shared counts by its share.
        pss_kib,
        /// Memory in KiB that is nobody else's.
        uss_kib,
        /// KiB of page tables, which each process has for itself and no share counts.
        page_tables_kib,
    }

    /// Clients that connect, have one echo, and stay.
    Hold {
        /// Clients.
        clients,
        /// Those that were served while all others stayed.
        served,
        /// Those that were served once more at the end.
        still_served,
        /// Seconds until all that were served were.
        seconds,
        /// Processes, while all were held.
        processes,
        /// Threads.
        threads,
        /// KiB for each client that was served, above what the idle server had; shared memory by its share.
        pss_kib_per_conn,
        /// The same of memory that is nobody else's.
        uss_kib_per_conn,
        /// The same of page tables.
        page_tables_kib_per_conn,
        /// What failed.
        errors,
    }

    /// Clients that connect, have one echo, close, and do it again.
    Churn {
        /// Clients.
        clients,
        /// Those that were served at all.
        served,
        /// Connections that a forkd has turned away.
        refused,
        /// Connections per second.
        conn_per_s,
        /// Median of the time from connect(2) to the end of the connection, in microseconds.
        p50_us,
        /// 90th percentile.
        p90_us,
        /// 99th percentile.
        p99_us,
        /// 99.9th percentile.
        p999_us,
        /// The longest.
        max_us,
        /// What failed.
        errors,
        /// Processor time of the server for a connection.
        cpu_us_per_conn,
        /// Processor time of the client for a connection.
        client_cpu_us_per_conn,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
        /// Processes and threads that the server has started, for a connection: as forkd has counted them, else, and
        /// where threads are started, those of the machine, without what it does at rest.
        forks_per_conn,
        /// Context switches of the server for a connection; of one whose threads come and go those of the machine,
        /// without the client's and without what it does at rest.
        switches_per_conn,
        /// The most processes at once: as forkd or the control group has counted them, if there were more than in
        /// all phases before, else as they were seen.
        peak_processes,
    }

    /// Standing connections, each with a request when it has the last one's answer.
    PingPong {
        /// Clients.
        clients,
        /// Those that were served at all.
        served,
        /// Processes, while all who were served stood.
        processes,
        /// Threads.
        threads,
        /// Requests per second.
        req_per_s,
        /// Median of the time from request to answer, in microseconds.
        p50_us,
        /// 90th percentile.
        p90_us,
        /// 99th percentile.
        p99_us,
        /// 99.9th percentile.
        p999_us,
        /// The longest.
        max_us,
        /// What failed.
        errors,
        /// Processor time of the server for a request.
        cpu_us_per_req,
        /// Processor time of the client for a request.
        client_cpu_us_per_req,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
        /// Context switches of the server for a request, as in [`Churn`].
        switches_per_req,
    }

    /// One connection, with as much as it can.
    Bulk {
        /// Megabytes (1,000,000 bytes) that came back per second.
        mb_per_s,
        /// Processor time of the server for a megabyte, in microseconds.
        cpu_us_per_mb,
        /// What failed.
        errors,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
    }

    /// Clients that send a datagram when they have the last one's answer, or have given it up.
    Datagrams {
        /// Clients.
        clients,
        /// Answers per second.
        datagrams_per_s,
        /// Those without an answer, in percent.
        lost_percent,
        /// Median of the time from datagram to answer, in microseconds.
        p50_us,
        /// 99th percentile.
        p99_us,
        /// 99.9th percentile.
        p999_us,
        /// What failed.
        errors,
        /// Processor time of the server for a datagram.
        cpu_us_per_datagram,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
    }
}
