//! What a search for the highest rate has found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::search::End;
use crate::stats::median;

/// The highest rate at which a server keeps the objectives, and how it was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sought {
    /// Connections per second that came due, at the highest rate that was kept; `None` if not even the lowest was.
    pub rate: Option<f64>,
    /// The lowest rate that was not kept; `None` if each was.
    pub broken: Option<f64>,
    /// Why the search was over; `None` while it isn't.
    pub end: Option<End>,
    /// Each run, in the order in which they were made.
    pub trials: Vec<Trial>,
    /// Microseconds that a connection kept a child or worker at the highest rate, on average, as the server counts them;
    /// `None` where it doesn't.
    pub service_us: Option<f64>,
    /// How many connections were served at once, on average: by Little's law the rate times that time.
    pub at_once: Option<f64>,
    /// How many workers these ask for, of a pool whose workers serve one client each.
    pub workers_asked: Option<u32>,
    /// With which numbers of workers it was checked.
    pub checks: Vec<Check>,
}

impl Sought {
    /// A figure of each run that has kept the objectives at the highest rate, or else of those that have not at the lowest.
    pub fn each(&self, figure: impl Fn(&Trial) -> Option<f64>) -> Vec<f64> {
        let rate = self.rate.or(self.broken);
        let is_meant = |trial: &&Trial| Some(trial.rate) == rate && trial.kept == self.rate.is_some();
        self.trials.iter().filter(is_meant).filter_map(figure).collect()
    }

    /// The median of that.
    pub fn median(&self, figure: impl Fn(&Trial) -> Option<f64>) -> Option<f64> {
        median(self.each(figure))
    }
}

/// One run at one rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Connections per second that came due.
    pub rate: f64,
    /// Those that were served, per second.
    pub served_per_s: f64,
    /// Of each objective, what its latency was: microseconds from when a connection was due to its echo.
    pub latency_us: BTreeMap<String, f64>,
    /// The mean of all.
    pub mean_us: f64,
    /// What failed.
    pub errors: u64,
    /// Connections that were due and never begun.
    pub unsent: u64,
    /// Microseconds that a connection kept a child or worker, on average.
    pub service_us: Option<f64>,
    /// Processor microseconds of the server for a connection.
    pub cpu_us_per_conn: Option<f64>,
    /// The share of a processor that the busiest client thread had, from 0 to 1.
    pub client_busy: f64,
    /// Whether it has kept all objectives.
    pub kept: bool,
}

/// What was seen with another number of workers at the same rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// How many.
    pub workers: u32,
    /// Whether two of its runs have kept the objectives.
    pub kept: bool,
    /// Each run.
    pub trials: Vec<Trial>,
}
