//! What is shown of a report to a person: a table, made of the figures alone.

use std::fmt::Write;

use super::fault::Faults;
use super::plan::Phase;
use super::report::Figures;
use crate::text::{columns, micros, thousands};

/// The heads of the table's columns.
const HEADS: [&str; 9] = ["phase", "result", "p50", "p90", "p99", "p99.9", "max", "errors", "client CPU"];

/// Makes a table of the figures of phases, with lines for errors, warnings, and how the rate of several generators comes about
/// below it.
#[must_use]
pub fn table(phases: &[Figures]) -> String {
    let mut rows = vec![HEADS.map(ToOwned::to_owned).to_vec()];
    rows.extend(phases.iter().map(|figures| row(figures).to_vec()));
    let mut text = columns(&rows, 2);
    for figures in phases {
        let phase = figures.phase.name();
        let faults = Faults::of_keys(&figures.errors);
        if faults.total() > 0 {
            let _ = writeln!(text, "errors in {phase}: {faults}");
        }
        if let Some(together) = &figures.together {
            let [together, most] = [together.seconds, figures.seconds].map(seconds);
            let _ = writeln!(
                text,
                "rates in {phase} are sums over generators, each in its own time; all ran at once for {together} of {most}"
            );
        }
        for warning in &figures.warnings {
            let _ = writeln!(text, "warning about {phase}: {warning}");
        }
    }
    text
}

fn seconds(seconds: f64) -> String {
    micros(seconds * 1e6)
}

fn row(figures: &Figures) -> [String; HEADS.len()] {
    let Figures { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *figures;
    let [p50, p90, p99, p999, max] =
        [p50_us, p90_us, p99_us, p999_us, max_us].map(|span| span.map_or_else(|| "-".into(), micros));
    let cpu = if figures.seconds == 0.0 {
        "-".into()
    } else {
        format!("{:.0} %", 100.0 * figures.client_cpu_s / figures.seconds)
    };
    let name = figures.phase.name().to_owned();
    let errors = thousands(Faults::of_keys(&figures.errors).total() as f64);
    [name, result(figures), p50, p90, p99, p999, max, errors, cpu]
}

fn result(figures: &Figures) -> String {
    let rate = || format!("{} {}/s", thousands(figures.per_s), figures.phase.unit());
    match figures.phase {
        Phase::Bulk => format!("{:.1} MB/s", figures.mb_per_s),
        Phase::Datagrams => {
            let lost = figures.lost as f64;
            let share = if lost == 0.0 { 0.0 } else { lost / (figures.done as f64 + lost) };
            format!("{}, {:.2} % lost", rate(), share * 100.0)
        }
        Phase::Churn | Phase::PingPong => rate(),
        Phase::Hold => {
            let still = match figures.still_served {
                Some(still) if still < figures.served => format!(", {still} at the end"),
                _ => String::new(),
            };
            let (served, clients) = (figures.served, figures.clients);
            format!("{served} of {clients} served in {}{still}", seconds(figures.seconds))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use crate::report::tests::outcome;

    #[test]
    fn the_table_says_what_was_measured_and_what_is_to_know() {
        let text = table(&[&outcome(Phase::Churn), &outcome(Phase::Datagrams)].map(Figures::from));
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
        assert_eq!(result(&Figures::from(&held)), "7 of 8 served in 2.00 s, 6 at the end");
    }
}
