//! What is shown of outcomes to a person: a table.

use std::fmt::Write;
use std::time::Duration;

use super::outcome::Outcome;
use super::plan::Phase;
use crate::text::{columns, span as short, thousands};

/// The heads of the table's columns.
const HEADS: [&str; 9] = ["phase", "result", "p50", "p90", "p99", "p99.9", "max", "errors", "client CPU"];

/// Makes a table of outcomes, with a line for each kind of error and each warning below it.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![HEADS.map(ToOwned::to_owned).to_vec()];
    rows.extend(outcomes.iter().map(|outcome| row(outcome).to_vec()));
    let mut text = columns(&rows, 2);
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
    let span = |span: Option<Duration>| span.map_or_else(|| "-".into(), short);
    let [p50, p90, p99, p999] = [50.0, 90.0, 99.0, 99.9].map(|percent| span(latencies.told(percent)));
    let max = (latencies.count() > 0).then(|| latencies.max());
    let cpu = if outcome.elapsed.is_zero() {
        "-".into()
    } else {
        format!("{:.0} %", 100.0 * outcome.cpu.as_secs_f64() / outcome.elapsed.as_secs_f64())
    };
    let name = outcome.phase.name().to_owned();
    let errors = thousands(outcome.faults.total() as f64);
    [name, result(outcome), p50, p90, p99, p999, span(max), errors, cpu]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_table_says_what_was_measured_and_what_is_to_know() {
        let text = table(&[outcome(Phase::Churn), outcome(Phase::Datagrams)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("phase      result"), "{text}");
        assert!(lines[1].starts_with("churn      15,000 conn/s"), "{text}");
        assert!(lines[1].contains("500 µs") && lines[1].ends_with("1        25 %"), "{text}");
        // of a thousand, one is beyond the last percentile
        assert!(lines[1].contains("990 µs      -  1.00 ms"), "{text}");
        assert!(lines[2].contains("15,000 datagrams/s, 0.00 % lost"), "{text}");
        assert_eq!(lines[3], "errors in churn: 1 timed out");
        assert!(lines[4].starts_with("warning about churn: only 7 of 8 clients were served"), "{text}");
    }

    #[test]
    fn a_hold_says_how_many_were_served() {
        let held = Outcome { still_served: Some(6), ..outcome(Phase::Hold) };
        assert_eq!(result(&held), "7 of 8 served in 2.00 s, 6 at the end");
    }
}
