//! What is written of outcomes for programs: JSON.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::during::During;
use super::latencies::Latencies;
use super::outcome::Outcome;
use super::plan::{Phase, Plan};
use forkd_net::Endpoint;

/// The version of the JSON; it changes when a field goes or comes to mean something else.
pub(super) const VERSION: u32 = 1;

/// A run against one server, as `forkd load --json` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format: 1.
    pub version: u32,
    /// The server that was loaded.
    pub endpoint: Endpoint,
    /// How.
    pub settings: Settings,
    /// How many generators' figures these are: 1, or those of a [merged](Self::merged) report.
    #[serde(default = "one")]
    pub generators: usize,
    /// What came of it, phase by phase.
    pub phases: Vec<Figures>,
    /// The command that ran meanwhile, and what it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub during: Option<During>,
    /// Whether it was stopped before its end; then a phase may be short, and others missing.
    pub interrupted: bool,
}

fn one() -> usize {
    1
}

/// The [`Plan`], with times in seconds; in a [merged](Report::merged) report of all generators together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Clients at the same time.
    pub clients: usize,
    /// Seconds that each phase was to be measured.
    pub duration_s: f64,
    /// How many operations were to begin, in place of a duration.
    #[serde(default)]
    pub operations: Option<u64>,
    /// Seconds before that which count for nothing.
    pub warm_up_s: f64,
    /// Operations per second that were asked for, in an open loop.
    pub rate: Option<f64>,
    /// Bytes in a message.
    pub size: usize,
    /// Bytes in a piece of the bulk phase.
    pub piece: usize,
    /// What messages were made of.
    pub seed: u64,
    /// Seconds that an operation might take.
    pub timeout_s: f64,
    /// Threads of the client.
    pub threads: usize,
}

/// The figures of one [`Outcome`]. Times are in microseconds, and `null` where nothing was timed; a percentile is `null`
/// too where fewer than ten operations took longer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The phase.
    pub phase: Phase,
    /// Clients at the same time.
    pub clients: usize,
    /// Clients that had an echo.
    pub served: usize,
    /// Of hold: clients that had another one at the end.
    pub still_served: Option<usize>,
    /// When that began, in seconds since 1970, by the clock of the machine that measured.
    #[serde(default)]
    pub began_unix_s: Option<f64>,
    /// Seconds that were measured; of hold: until all that were served were; of several generators the most.
    pub seconds: f64,
    /// Of several generators: when all of them measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<Together>,
    /// Operations that succeeded.
    pub done: u64,
    /// The same per second; of several generators the sum of what each had in its own time.
    pub per_s: f64,
    /// Megabytes (1,000,000 bytes) that came back per second.
    pub mb_per_s: f64,
    /// Mean latency.
    pub mean_us: Option<f64>,
    /// Median latency.
    pub p50_us: Option<f64>,
    /// 90th percentile.
    pub p90_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// The longest.
    pub max_us: Option<f64>,
    /// What failed, by kind: see [`Fault::key`](super::Fault::key).
    pub errors: BTreeMap<String, u64>,
    /// Datagrams without an answer.
    pub lost: u64,
    /// Answers that came too late, or twice.
    pub late: u64,
    /// Operations that were due and never sent.
    pub unsent: u64,
    /// Seconds of processor time that the clients took.
    pub client_cpu_s: f64,
    /// The share of a processor that the busiest client thread took, from 0 to 1.
    pub client_busy: f64,
    /// What must be known to read the figures right.
    pub warnings: Vec<String>,
    /// All latencies as [`Latencies::encode`](super::Latencies::encode) writes them, for other programs and to be
    /// [merged](Report::merged); `None` where nothing was timed.
    #[serde(default)]
    pub latencies_hdr: Option<String>,
}

/// A time in which several generators measured at once, by their clocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// When it began, in seconds since 1970.
    pub began_unix_s: f64,
    /// How long it was; 0 if they never did.
    pub seconds: f64,
}

impl From<&Plan> for Settings {
    fn from(plan: &Plan) -> Self {
        Self {
            clients: plan.clients,
            duration_s: plan.duration.as_secs_f64(),
            operations: plan.operations,
            warm_up_s: plan.warm_up.as_secs_f64(),
            rate: plan.rate,
            size: plan.size,
            piece: plan.piece,
            seed: plan.seed,
            timeout_s: plan.timeout.as_secs_f64(),
            threads: plan.threads,
        }
    }
}

impl From<&Outcome> for Figures {
    fn from(outcome: &Outcome) -> Self {
        let since_1970 = |began: SystemTime| began.duration_since(SystemTime::UNIX_EPOCH).ok();
        let figures = Self {
            phase: outcome.phase,
            clients: outcome.clients,
            served: outcome.served,
            still_served: outcome.still_served,
            began_unix_s: outcome.began.and_then(since_1970).map(|time| time.as_secs_f64()),
            seconds: outcome.elapsed.as_secs_f64(),
            together: None,
            done: outcome.done,
            per_s: outcome.rate(),
            mb_per_s: outcome.megabytes_per_second(),
            mean_us: None,
            p50_us: None,
            p90_us: None,
            p99_us: None,
            p999_us: None,
            max_us: None,
            errors: outcome.faults.iter().map(|(fault, count)| (fault.key(), count)).collect(),
            lost: outcome.lost,
            late: outcome.late,
            unsent: outcome.unsent,
            client_cpu_s: outcome.cpu.as_secs_f64(),
            client_busy: outcome.busy,
            warnings: outcome.warnings().iter().map(ToString::to_string).collect(),
            latencies_hdr: None,
        };
        figures.timed(&outcome.latencies)
    }
}

impl Figures {
    /// The same figures with these latencies.
    pub(super) fn timed(self, latencies: &Latencies) -> Self {
        let any = latencies.count() > 0;
        let timed = |span: Duration| any.then(|| span.as_nanos() as f64 / 1000.0);
        let percentile = |percent| latencies.told(percent).and_then(timed);
        Self {
            mean_us: timed(latencies.mean()),
            p50_us: percentile(50.0),
            p90_us: percentile(90.0),
            p99_us: percentile(99.0),
            p999_us: percentile(99.9),
            max_us: timed(latencies.max()),
            latencies_hdr: any.then(|| latencies.encode()),
            ..self
        }
    }
}

impl Report {
    /// Puts together what has been measured.
    #[must_use]
    pub fn new(endpoint: &Endpoint, plan: &Plan, outcomes: &[Outcome], interrupted: bool) -> Self {
        Self {
            version: VERSION,
            endpoint: endpoint.clone(),
            settings: plan.into(),
            generators: 1,
            phases: outcomes.iter().map(Figures::from).collect(),
            during: None,
            interrupted,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::meter::Part;
    use crate::{Fault, Plan};

    pub(crate) fn outcome(phase: Phase) -> Outcome {
        let mut part = Part { done: 30_000, bytes: 1_920_000, ..Part::default() };
        (part.span, part.cpu) = (Duration::from_secs(2), Duration::from_millis(500));
        (1..=1000).for_each(|us| part.latencies.record(Duration::from_micros(us)));
        part.faults.count(Fault::TimedOut);
        Outcome::of(phase, &Plan::default(), 7, vec![part])
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let endpoint = "tcp://127.0.0.1:7".parse().unwrap();
        let mut empty = outcome(Phase::Bulk);
        empty.latencies = Default::default();
        let report = Report::new(&endpoint, &Plan::default(), &[outcome(Phase::PingPong), empty], false);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1);
        let phases = &value["phases"];
        assert_eq!(phases[0]["phase"], "pingpong");
        assert_eq!(phases[0]["errors"], serde_json::json!({"timed-out": 1}));
        assert!((phases[0]["p50_us"].as_f64().unwrap() - 500.0).abs() < 1.0, "{phases}");
        assert!(phases[1]["p50_us"].is_null(), "{phases}");
    }
}
