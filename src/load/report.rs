//! What is shown of outcomes: a table for a person, JSON for a program.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::plan::{Phase, Plan};
use crate::transport::Endpoint;

/// The version of the JSON; it changes when a field goes or comes to mean something else.
const VERSION: u32 = 1;

/// A run against one server, as `forkd load --json` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format: 1.
    pub version: u32,
    /// Who was loaded.
    pub endpoint: Endpoint,
    /// How.
    pub settings: Settings,
    /// What came of it, phase by phase.
    pub phases: Vec<Figures>,
    /// Whether it was stopped before its end; then a phase may be short, and others missing.
    pub interrupted: bool,
}

/// The [`Plan`], with times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Clients at the same time.
    pub clients: usize,
    /// Seconds that each phase was to be measured.
    pub duration_s: f64,
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

/// The figures of one [`Outcome`]. Times are in microseconds, and `null` where nothing was timed.
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
    /// Seconds that were measured; of hold: until all that were served were.
    pub seconds: f64,
    /// Operations that succeeded.
    pub done: u64,
    /// The same per second.
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
}

impl From<&Plan> for Settings {
    fn from(plan: &Plan) -> Self {
        Self {
            clients: plan.clients,
            duration_s: plan.duration.as_secs_f64(),
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
        let latencies = &outcome.latencies;
        let timed = |span: Duration| (latencies.count() > 0).then(|| span.as_nanos() as f64 / 1000.0);
        let percentile = |percent| timed(latencies.percentile(percent));
        Self {
            phase: outcome.phase,
            clients: outcome.clients,
            served: outcome.served,
            still_served: outcome.still_served,
            seconds: outcome.elapsed.as_secs_f64(),
            done: outcome.done,
            per_s: outcome.rate(),
            mb_per_s: outcome.megabytes_per_second(),
            mean_us: timed(latencies.mean()),
            p50_us: percentile(50.0),
            p90_us: percentile(90.0),
            p99_us: percentile(99.0),
            p999_us: percentile(99.9),
            max_us: timed(latencies.max()),
            errors: outcome.faults.iter().map(|(fault, count)| (fault.key(), count)).collect(),
            lost: outcome.lost,
            late: outcome.late,
            unsent: outcome.unsent,
            client_cpu_s: outcome.cpu.as_secs_f64(),
            client_busy: outcome.busy,
            warnings: outcome.warnings().iter().map(ToString::to_string).collect(),
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
            phases: outcomes.iter().map(Figures::from).collect(),
            interrupted,
        }
    }
}

/// The heads of the table's columns.
const HEADS: [&str; 9] = ["phase", "result", "p50", "p90", "p99", "p99.9", "max", "errors", "client CPU"];

/// Makes a table of outcomes, with a line for each kind of error and each warning below it.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![HEADS.map(ToOwned::to_owned)];
    rows.extend(outcomes.iter().map(row));
    let widths: Vec<usize> =
        (0..HEADS.len()).map(|k| rows.iter().map(|row| row[k].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<w0$}  {:<w1$}", row[0], row[1], w0 = widths[0], w1 = widths[1]);
        for (cell, width) in row[2..].iter().zip(&widths[2..]) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for outcome in outcomes {
        let phase = outcome.phase.name();
        if outcome.faults.total() > 0 {
            let _ = writeln!(text, "errors in {phase}: {}", outcome.faults);
        }
        for warning in outcome.warnings() {
            let _ = writeln!(text, "warning about {phase}: {warning}");
        }
    }
    text
}

fn row(outcome: &Outcome) -> [String; HEADS.len()] {
    let latencies = &outcome.latencies;
    let span = |span: Duration| if latencies.count() > 0 { short(span) } else { "-".into() };
    let [p50, p90, p99, p999] = [50.0, 90.0, 99.0, 99.9].map(|percent| span(latencies.percentile(percent)));
    let cpu = if outcome.elapsed.is_zero() {
        "-".into()
    } else {
        format!("{:.0} %", 100.0 * outcome.cpu.as_secs_f64() / outcome.elapsed.as_secs_f64())
    };
    let name = outcome.phase.name().to_owned();
    let errors = thousands(outcome.faults.total() as f64);
    [name, result(outcome), p50, p90, p99, p999, span(latencies.max()), errors, cpu]
}

fn result(outcome: &Outcome) -> String {
    let rate = || format!("{} {}/s", thousands(outcome.rate()), outcome.phase.unit());
    match outcome.phase {
        Phase::Bulk => format!("{:.1} MB/s", outcome.megabytes_per_second()),
        Phase::Datagrams => format!("{}, {:.2} % lost", rate(), outcome.loss() * 100.0),
        Phase::Churn | Phase::PingPong => rate(),
        Phase::Hold => {
            let still = match outcome.still_served {
                Some(still) if still < outcome.served => format!(", {still} at the end"),
                _ => String::new(),
            };
            let (served, clients) = (outcome.served, outcome.clients);
            format!("{served} of {clients} served in {}{still}", short(outcome.elapsed))
        }
    }
}

/// A span with three digits, as in "1.23 ms".
fn short(span: Duration) -> String {
    let nanos = span.as_nanos() as f64;
    let (value, unit) = match nanos {
        _ if nanos < 1e6 => (nanos / 1e3, "µs"),
        _ if nanos < 1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// A rounded number in groups of three digits.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::meter::Part;
    use crate::load::{Fault, Plan};

    fn outcome(phase: Phase) -> Outcome {
        let mut part = Part { done: 30_000, bytes: 1_920_000, ..Part::default() };
        (part.span, part.cpu) = (Duration::from_secs(2), Duration::from_millis(500));
        (1..=1000).for_each(|us| part.latencies.record(Duration::from_micros(us)));
        part.faults.count(Fault::TimedOut);
        Outcome::of(phase, &Plan::default(), 7, vec![part])
    }

    #[test]
    fn a_span_has_three_digits() {
        let of = |nanos| short(Duration::from_nanos(nanos));
        assert_eq!(of(0), "0.00 µs");
        assert_eq!(of(1_234), "1.23 µs");
        assert_eq!(of(9_999), "10.0 µs");
        assert_eq!(of(123_456), "123 µs");
        assert_eq!(of(12_345_678), "12.3 ms");
        assert_eq!(of(2_000_000_000), "2.00 s");
    }

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0.4, 12.0, 999.0, 1000.0, 1_234_567.8].map(thousands);
        assert_eq!(numbers, ["0", "12", "999", "1,000", "1,234,568"]);
    }

    #[test]
    fn the_table_says_what_was_measured_and_what_is_to_know() {
        let text = table(&[outcome(Phase::Churn), outcome(Phase::Datagrams)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("phase      result"), "{text}");
        assert!(lines[1].starts_with("churn      15,000 conn/s"), "{text}");
        assert!(lines[1].contains("500 µs") && lines[1].ends_with("1        25 %"), "{text}");
        assert!(lines[2].contains("15,000 datagrams/s, 0.00 % lost"), "{text}");
        assert_eq!(lines[3], "errors in churn: 1 timed out");
        assert!(lines[4].starts_with("warning about churn: only 7 of 8 clients were served"), "{text}");
    }

    #[test]
    fn a_hold_says_how_many_were_served() {
        let held = Outcome { still_served: Some(6), ..outcome(Phase::Hold) };
        assert_eq!(result(&held), "7 of 8 served in 2.00 s, 6 at the end");
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
