//! How the latencies of each server are distributed.

use super::lines::{Lines, Series, draw, span};
use super::scale::Scale;
use super::{Chart, label, numbered, span_tick};
use crate::record::{Entry, Measured, Record};
use crate::report::figures::View;
use forkd_load::{Phase, can_tell};

/// The percentiles that are marked, and at most shown.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// The distribution of latencies in a phase; `None` if there is none.
pub(in crate::report) fn latencies(record: &Record, phase: Phase, name: &str) -> Option<Chart> {
    let one = |(number, entry): (usize, &Entry)| {
        let points = points(entry, phase, record.settings.duration_s);
        let fewer = View::from(entry).fewer(phase);
        let label = label(entry, fewer);
        Series { number: Some(number), label, points, hollow: Vec::new() }
    };
    let all: Vec<Series> = numbered(record).map(one).filter(|line| !line.points.is_empty()).collect();
    let last = all.iter().flat_map(|line| line.points.last()).map(|point| point.0).fold(90.0, f64::max);
    // how many nines a percentile has
    let nines = |percent: f64| -(1.0 - percent / 100.0).log10();
    let x = Scale::even(0.0, nines(last), span(&all));
    let shown = PERCENTILES.iter().filter(|percent| **percent <= last);
    let marks: Vec<(f64, String)> =
        shown.map(|percent| (x.at(nines(*percent)), format!("{percent} %"))).collect();
    let (title, what) = match phase {
        Phase::Churn => ("Latency of connections", "connections"),
        Phase::PingPong => ("Latency of requests", "requests"),
        _ => ("Latency of datagrams", "datagrams"),
    };
    let mut notes = vec!["all rounds together; a line ends where fewer than ten took longer".to_owned()];
    if all.iter().any(|line| line.label.ends_with(')')) {
        notes.push(
            "in brackets: the share of clients that were served; the others waited, and are not in the line"
                .into(),
        );
    }
    let about = Lines {
        name,
        title: title.to_owned(),
        below: format!("the percentage of the {what} that took no longer; logarithmic axes"),
        notes,
        tick: span_tick,
        unit: "",
    };
    draw(&all, about, &marks, |percent| x.at(nines(percent)))
}

/// The percentiles of a server that its operations are enough for.
fn points(entry: &Entry, phase: Phase, seconds: f64) -> Vec<(f64, f64)> {
    fn all<T>(
        measured: Option<&Measured<T>>,
        rate: fn(&T) -> Option<f64>,
        seconds: f64,
    ) -> (f64, &[(f64, f64)]) {
        measured.map_or((0.0, &[]), |it| {
            (it.rounds.iter().filter_map(rate).sum::<f64>() * seconds, &it.latency_us)
        })
    }
    let (operations, points) = match phase {
        Phase::Churn => all(entry.churn.as_ref(), |it| it.conn_per_s, seconds),
        Phase::PingPong => all(entry.pingpong.as_ref(), |it| it.req_per_s, seconds),
        Phase::Datagrams => all(entry.datagrams.as_ref(), |it| it.datagrams_per_s, seconds),
        Phase::Hold | Phase::Bulk => (0.0, &[][..]),
    };
    let last = PERCENTILES[PERCENTILES.len() - 1];
    let mut points: Vec<_> = points
        .iter()
        .copied()
        .filter(|(percent, micros)| {
            *percent <= last && can_tell(*percent, operations) && *micros > 0.0 && micros.is_finite()
        })
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_line_ends_where_there_are_too_few() {
        // three rounds of 0.3 s: 10,980 connections, of which 10 took longer than 99.9 %
        let mut record = sample::record();
        let ends = |record: &Record| points(&record.models[0], Phase::Churn, 0.3).last().map(|point| point.0);
        assert_eq!(ends(&record), Some(99.9));
        for round in &mut record.models[0].churn.as_mut().unwrap().rounds {
            round.conn_per_s = Some(11_000.0);
        }
        assert_eq!(ends(&record), Some(99.0));
        let drawn = latencies(&record, Phase::Churn, "it").unwrap().svg(None);
        assert!(drawn.contains("all rounds together"), "{drawn}");
    }

    #[test]
    fn who_served_some_says_so() {
        let mut record = sample::record();
        let pingpong = record.models[2].pingpong.as_mut().unwrap();
        pingpong.median.served = Some(8.0);
        let drawn = latencies(&record, Phase::PingPong, "it").unwrap().svg(None);
        assert_eq!(drawn.matches(">prefork ×8 (8 of 100)<").count(), 1, "{drawn}");
        assert!(drawn.contains(">fork<"), "{drawn}");
    }
}
