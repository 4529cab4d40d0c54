//! A line for each server: how it grows with its clients, and how its latencies are distributed.

use super::scale::{Scale, apart};
use super::{Anchor, COLOURS, Chart, Drawing, LETTER, line_class, shortened, span_tick, tick, width_of};
use crate::compare::record::{Entry, Record};
use crate::compare::report::figures::{Figure, Unit, View};
use crate::load::Phase;

const WIDTH: f64 = 520.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 300.0;
const LEFT: f64 = 70.0;

/// The percentiles that are marked, and at most shown.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// Points of a server, as its values.
struct Series {
    /// Its number among all servers, which gives it its colour.
    number: usize,
    label: String,
    points: Vec<(f64, f64)>,
}

/// What both axes show.
struct Axes<'a> {
    name: &'a str,
    title: String,
    below: String,
    tick: fn(f64) -> String,
}

/// How a figure grows with the clients; `None` if there was one number of clients only.
pub(in crate::compare::report) fn growth(record: &Record, figure: &Figure, name: &str) -> Option<Chart> {
    let point = |growth: &crate::compare::record::Growth| {
        Some((growth.clients as f64, figure.of(&View::from(growth))?.median))
    };
    let all = series(record, |entry| entry.growth.iter().filter_map(point).collect());
    let clients: Vec<f64> = all.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    if clients.iter().all(|count| *count == clients[0]) {
        return None;
    }
    let mut ticks = clients.clone();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let right = right(&all);
    let x = Scale::log(clients.into_iter(), (LEFT, right)).marked(&ticks);
    let marks: Vec<(f64, String)> = x.ticks.iter().map(|clients| (x.at(*clients), tick(*clients))).collect();
    let axes = Axes {
        name,
        title: figure.name.to_owned(),
        below: "over the number of clients; both axes are logarithmic".to_owned(),
        tick: match figure.unit {
            Unit::Span | Unit::Micros => span_tick,
            Unit::Kib => |kib| format!("{} KiB", tick(kib)),
            _ => tick,
        },
    };
    draw(&all, &axes, &marks, right, |clients| x.at(clients), "clients")
}

/// The distribution of latencies in a phase; `None` if there is none.
pub(in crate::compare::report) fn latencies(record: &Record, phase: Phase, name: &str) -> Option<Chart> {
    let last = PERCENTILES[PERCENTILES.len() - 1];
    let all = series(record, |entry| {
        let points = match phase {
            Phase::Churn => entry.churn.as_ref().map(|it| &it.latency_us),
            Phase::PingPong => entry.pingpong.as_ref().map(|it| &it.latency_us),
            Phase::Datagrams => entry.datagrams.as_ref().map(|it| &it.latency_us),
            Phase::Hold | Phase::Bulk => None,
        };
        // beyond that there are but a few, and the longest has no place
        points.into_iter().flatten().filter(|point| point.0 <= last).copied().collect()
    });
    // how many nines a percentile has
    let nines = |percent: f64| -(1.0 - percent / 100.0).log10();
    let right = right(&all);
    let x = Scale::even(0.0, nines(last), (LEFT, right));
    let marks: Vec<(f64, String)> =
        PERCENTILES.iter().map(|percent| (x.at(nines(*percent)), format!("{percent} %"))).collect();
    let (title, what) = match phase {
        Phase::Churn => ("Latency of connections", "connections"),
        Phase::PingPong => ("Latency of requests", "requests"),
        _ => ("Latency of datagrams", "datagrams"),
    };
    let below = format!("so many percent of the {what} took no longer; both axes are logarithmic");
    draw(
        &all,
        &Axes { name, title: title.to_owned(), below, tick: span_tick },
        &marks,
        right,
        |p| x.at(nines(p)),
        "",
    )
}

/// The servers that have points to show.
fn series(record: &Record, points: impl Fn(&Entry) -> Vec<(f64, f64)>) -> Vec<Series> {
    let one = |(number, entry): (usize, &Entry)| {
        let mut points = points(entry);
        points.retain(|(x, y)| x.is_finite() && *y > 0.0 && y.is_finite());
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Series { number, label: shortened(&entry.title()), points }
    };
    record.models.iter().enumerate().map(one).filter(|line| !line.points.is_empty()).collect()
}

/// Where lines end, so that there is room for their names.
fn right(all: &[Series]) -> f64 {
    WIDTH - 32.0 - all.iter().map(|line| width_of(&line.label)).fold(0.0, f64::max)
}

fn draw(
    all: &[Series],
    axes: &Axes,
    marks: &[(f64, String)],
    right: f64,
    x: impl Fn(f64) -> f64,
    unit: &str,
) -> Option<Chart> {
    let values = || all.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    values().next()?;
    // as many servers as there are names, one below the other
    let bottom = BOTTOM.max(TOP + all.len() as f64 * (LETTER + 3.0));
    let y = Scale::log(values(), (bottom, TOP + 6.0));
    let mut to = Drawing::default();
    to.heading(&axes.title, &axes.below);
    for value in &y.ticks {
        to.line("grid", (LEFT, y.at(*value)), (right, y.at(*value)));
        to.text("tick", (LEFT - 6.0, y.at(*value) + 4.0), Anchor::End, &(axes.tick)(*value));
    }
    for (place, label) in marks {
        to.line("grid", (*place, TOP), (*place, bottom));
        to.text("tick", (*place, bottom + 17.0), Anchor::Middle, label);
    }
    if !unit.is_empty() {
        to.text("tick", (right + 24.0, bottom + 17.0), Anchor::Start, unit);
    }
    let ends: Vec<f64> =
        all.iter().map(|line| y.at(line.points.last().map_or(0.0, |point| point.1))).collect();
    let labels = apart(&ends, LETTER + 2.0, (TOP, bottom));
    let mut told = Vec::new();
    for (line, label) in all.iter().zip(labels) {
        let points: Vec<_> = line.points.iter().map(|(px, py)| (x(*px), y.at(*py))).collect();
        to.path(&line_class(line.number), &points);
        let is_marked = |point: &(f64, f64)| marks.iter().any(|(place, _)| (place - point.0).abs() < 0.5);
        points.iter().filter(|point| is_marked(point)).for_each(|point| to.mark(line.number, *point));
        let Some(last) = points.last() else { continue };
        to.line(&format!("leader s{}", line.number % COLOURS), *last, (right + 18.0, label));
        to.mark(line.number, (right + 18.0, label));
        to.text("label", (right + 27.0, label + 4.0), Anchor::Start, &line.label);
        let ends = [line.points.first(), line.points.last()].map(|point| point.copied().unwrap_or_default());
        let [(from, first), (until, last)] = ends;
        told.push(format!(
            "{} from {} at {from} to {} at {until}",
            line.label,
            (axes.tick)(first),
            (axes.tick)(last)
        ));
    }
    let description = format!("Lines: {}.", told.join("; "));
    let height = bottom + 30.0;
    Some(Chart {
        name: axes.name.into(),
        title: axes.title.clone(),
        description,
        width: WIDTH,
        height,
        body: to.0,
    })
}
