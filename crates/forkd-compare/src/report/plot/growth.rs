//! How a figure grows with the clients.

use super::lines::{Lines, Series, draw, span};
use super::scale::Scale;
use super::{Chart, label, numbered, shortened, span_tick, tick};
use crate::record::{Entry, Growth, Record};
use crate::report::figures::{self, Figure, Unit, View};
use forkd_load::text::{listed, thousands};

/// How a figure grows with the clients; `None` if there was one number of clients only.
pub(in crate::report) fn growth(record: &Record, figure: &Figure, name: &str) -> Option<Chart> {
    let is_relative = [&figures::P99, &figures::REQ_P99].into_iter().any(|other| std::ptr::eq(figure, other));
    let mut notes = Vec::new();
    let mut all: Vec<Series> = numbered(record)
        .map(|(number, entry)| line(record, figure, is_relative, (number, entry), &mut notes))
        .filter(|line| !line.points.is_empty())
        .collect();
    let clients: Vec<f64> = all.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    if clients.iter().all(|count| *count == clients[0]) {
        return None;
    }
    if all.iter().any(|line| !line.hollow.is_empty()) {
        notes.push("hollow: not all of these clients were served, and the others waited".into());
    }
    if !is_relative {
        notes.extend(fold(&mut all));
    }
    let mut ticks = clients.clone();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let x = Scale::log(clients.into_iter(), span(&all)).marked(&ticks);
    let marks: Vec<(f64, String)> = x.ticks.iter().map(|clients| (x.at(*clients), tick(*clients))).collect();
    let (title, below) = match is_relative {
        true => (
            "99th percentile over clients, relative to the best".into(),
            "1×: the shortest of all with that number of clients; 2×: twice as long",
        ),
        false => (format!("{} over clients", figure.name), "both axes are logarithmic"),
    };
    let about = Lines {
        name,
        title,
        below: below.into(),
        notes,
        tick: match figure.unit {
            _ if is_relative => |times| format!("{}×", tick(times)),
            Unit::Span | Unit::Micros => span_tick,
            Unit::Kib => |kib| format!("{} KiB", tick(kib)),
            _ => tick,
        },
        unit: "clients",
    };
    draw(&all, about, &marks, |clients| x.at(clients))
}

/// The line of a server, and a note on what has no place on a logarithmic axis.
fn line(
    record: &Record,
    figure: &Figure,
    is_relative: bool,
    (number, entry): (usize, &Entry),
    notes: &mut Vec<String>,
) -> Series {
    let (mut points, mut hollow, mut nowhere) = (Vec::new(), Vec::new(), Vec::new());
    let mut sorted: Vec<&Growth> = entry.growth.iter().collect();
    sorted.sort_by_key(|growth| growth.clients);
    for growth in sorted {
        let clients = growth.clients as f64;
        let Some(found) = figure.of(&View::from(growth)) else { continue };
        let value = found.median;
        let value = if is_relative { value / best(record, figure, growth.clients) } else { value };
        if clients <= 0.0 || !value.is_finite() {
            continue;
        }
        if value <= 0.0 {
            nowhere.push(thousands(clients));
            continue;
        }
        if found.fewer.is_some() {
            hollow.push(clients);
        }
        points.push((clients, value));
    }
    let label = label(entry, figure.of(&entry.into()).and_then(|value| value.fewer));
    if !nowhere.is_empty() {
        let (text, name) = (figure.text(0.0), shortened(&entry.title()));
        notes.push(format!("not shown, as it is {text}: {name} with {} clients", listed(&nowhere)));
    }
    Series { number: Some(number), label, points, hollow }
}

/// The least that any server has of a figure with one number of clients.
fn best(record: &Record, figure: &Figure, clients: usize) -> f64 {
    let all = record.models.iter().flat_map(|entry| &entry.growth);
    let values = all
        .filter(|growth| growth.clients == clients)
        .filter_map(|growth| figure.of(&growth.into()))
        // a server that lets the others wait is no measure for them
        .filter(|value| value.fewer.is_none())
        .map(|value| value.median);
    values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min)
}

/// Makes one line of those that stay the same, as they would lie on each other; says which these are.
fn fold(all: &mut Vec<Series>) -> Vec<String> {
    let constant = |line: &Series| {
        let [first, .., _] = line.points.as_slice() else { return None };
        line.points.iter().all(|point| point.1 == first.1).then_some(first.1)
    };
    let mut values: Vec<f64> = all.iter().filter_map(constant).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let mut notes = Vec::new();
    for value in values {
        let (same, others): (Vec<_>, Vec<_>) =
            std::mem::take(all).into_iter().partition(|line| constant(line) == Some(value));
        let names: Vec<String> = same.iter().map(|line| line.label.clone()).collect();
        let label = format!("always {}", tick(value));
        notes.push(format!("{label}: {}", listed(&names)));
        let points = same.into_iter().map(|line| line.points).max_by_key(Vec::len).unwrap_or_default();
        *all = others;
        all.push(Series { number: None, label, points, hollow: Vec::new() });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Hold, Measured, PingPong};
    use crate::report::sample;

    fn grown(make: impl Fn(f64) -> Growth) -> Vec<Growth> {
        [1.0, 10.0, 100.0].map(make).into()
    }

    fn held(clients: f64, processes: f64, pss: f64) -> Growth {
        let hold = Hold {
            clients: Some(clients),
            processes: Some(processes),
            pss_kib_per_conn: Some(pss),
            ..Hold::default()
        };
        Growth { clients: clients as usize, hold: Measured::of(vec![hold], vec![]), ..Growth::default() }
    }

    #[test]
    fn what_stays_the_same_is_one_line() {
        let mut record = sample::record();
        for (k, entry) in record.models.iter_mut().enumerate() {
            entry.growth = grown(|clients| held(clients, if k == 1 { clients + 1.0 } else { 2.0 }, 4.0));
        }
        let drawn = growth(&record, &figures::PROCESSES, "it").unwrap().svg(None);
        assert!(drawn.contains(">always 2: iterative, prefork ×8 and event<"), "{drawn}");
        assert!(drawn.matches("<path").count() == 2 && drawn.contains(">fork<"), "{drawn}");
    }

    #[test]
    fn what_is_left_out_is_told() {
        let mut record = sample::record();
        record.models[0].growth = grown(|clients| held(clients, 2.0, clients - 10.0));
        let drawn = growth(&record, &figures::PSS, "it");
        assert!(drawn.is_none(), "one point is no growth");
        record.models[1].growth = grown(|clients| held(clients, 2.0, clients));
        let drawn = growth(&record, &figures::PSS, "it").unwrap().svg(None);
        assert!(drawn.contains("iterative with 1 and 10 clients"), "{drawn}");
    }

    #[test]
    fn requests_of_some_clients_are_hollow() {
        let mut record = sample::record();
        let asked = |clients: f64| {
            let (rate, served) = (Some(1_000.0 * clients), Some(clients.min(8.0)));
            let pingpong =
                PingPong { clients: Some(clients), served, req_per_s: rate, ..PingPong::default() };
            let pingpong = Measured::of(vec![pingpong], vec![]);
            Growth { clients: clients as usize, pingpong, ..Growth::default() }
        };
        record.models[2].growth = grown(asked);
        record.models[2].pingpong = asked(100.0).pingpong;
        let drawn = growth(&record, &figures::REQ_PER_S, "it").unwrap().svg(None);
        // two points, and the one beside the name
        assert!(drawn.matches("hollow\"").count() == 3 && drawn.contains("(8 of 100)"), "{drawn}");
    }
}
