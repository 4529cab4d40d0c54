//! All servers and their chief figures in one picture.

use super::scale::Scale;
use super::{Anchor, COLOURS, Chart, Drawing, LETTER_WIDTH, numbered, shortened, width_of};
use crate::record::Record;
use crate::report::figures::{self, Figure, View};
use crate::report::slo;
use forkd_load::text::thousands;

/// As wide as the text of a page on GitHub, so that letters keep their size there.
const WIDTH: f64 = 840.0;
const TOP: f64 = 86.0;
const ROW: f64 = 30.0;
const GAP: f64 = 16.0;
/// How much wider a letter of a name is than another.
const NAME: f64 = 1.32;

/// The figures, each with the two lines above its column.
fn shown(record: &Record) -> Vec<(&'static Figure, &'static str, &'static str)> {
    if !record.settings.slo.is_empty() {
        return slo::OVERVIEW.iter().map(|(at, upper, lower)| (&slo::FIGURES[*at], *upper, *lower)).collect();
    }
    vec![
        (&figures::PROCESSES, "processes", "with all clients"),
        (&figures::THREADS, "threads", "in all of them"),
        (&figures::SERVED, "served", "clients at once"),
        (&figures::CONN_PER_S, "connections", "per second"),
        (&figures::CPU, "CPU time", "per connection"),
        (figures::memory(record), "memory", "per held client"),
    ]
}

/// A row for each server, a column for each figure; `None` if there are none.
pub(in crate::report) fn overview(record: &Record, name: &str) -> Option<Chart> {
    let shown: Vec<_> = shown(record).into_iter().filter(|(figure, ..)| figure.is_in(record)).collect();
    if shown.is_empty() {
        return None;
    }
    let titles: Vec<String> = record.models.iter().map(|entry| shortened(&entry.title())).collect();
    let left = 28.0 + titles.iter().map(|title| width_of(title)).fold(0.0, f64::max) * NAME;
    let column = (WIDTH - left - 8.0) / shown.len() as f64;
    let mut to = Drawing::default();
    let clients = record.settings.clients.last().copied().unwrap_or(0);
    let title = slo::title(record)
        .unwrap_or_else(|| format!("What each server costs with {} clients", thousands(clients as f64)));
    to.text("title", (16.0, 28.0), Anchor::Start, &title);
    for (k, label) in titles.iter().enumerate() {
        let y = TOP + k as f64 * ROW;
        if k % 2 == 0 {
            to.rect("stripe", (8.0, y), (WIDTH - 16.0, ROW));
        }
        to.text("name", (16.0, y + 20.0), Anchor::Start, label);
    }
    let mut told = Vec::new();
    for (k, (figure, upper, lower)) in shown.iter().enumerate() {
        let x = left + k as f64 * column;
        to.text("head", (x, TOP - 24.0), Anchor::Start, upper);
        to.text("note", (x, TOP - 9.0), Anchor::Start, lower);
        told.push(format!("{upper} {lower}: {}", bars(&mut to, record, figure, (x, column - GAP))));
    }
    let about = about(record);
    let bottom = TOP + titles.len() as f64 * ROW;
    to.text("note", (16.0, bottom + 22.0), Anchor::Start, &about);
    let description = format!("{}.", told.join("; "));
    Some(Chart { name: name.into(), title, description, width: WIDTH, height: bottom + 34.0, body: to.0 })
}

/// Draws a column of bars with their numbers; returns these.
fn bars(to: &mut Drawing, record: &Record, figure: &Figure, (x, room): (f64, f64)) -> String {
    let values: Vec<_> =
        record.models.iter().map(|entry| figure.of(&View::from(entry)).map(|value| value.median)).collect();
    let texts: Vec<String> =
        values.iter().map(|value| value.map_or_else(|| "–".into(), |value| figure.text(value))).collect();
    let widest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0) as f64 * LETTER_WIDTH;
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let scale = Scale::even(0.0, most, (0.0, (room - widest - 6.0).max(10.0)));
    let numbers = numbered(record).map(|(number, _)| number);
    for (k, ((value, text), number)) in values.iter().zip(&texts).zip(numbers).enumerate() {
        let y = TOP + k as f64 * ROW;
        let length = value.map_or(0.0, |value| super::seen(value, scale.at(value)));
        to.rect(&format!("bar s{}", number % COLOURS), (x, y + 7.0), (length, ROW - 14.0));
        to.text("value", (x + length + 5.0, y + 19.5), Anchor::Start, text);
    }
    let told = record.models.iter().zip(&texts).map(|(entry, text)| format!("{} {text}", entry.title()));
    told.collect::<Vec<_>>().join(", ")
}

fn about(record: &Record) -> String {
    let machine = &record.machine;
    let rounds = match record.settings.rounds {
        _ if !record.settings.slo.is_empty() => format!("runs of {} s", record.settings.duration_s),
        1 => "one round".into(),
        rounds => format!("medians of {rounds} rounds"),
    };
    let parts = [
        format!("forkd compare {}", machine.forkd),
        rounds,
        format!("{} × {}", machine.processors, machine.processor),
        machine.kernel.clone(),
    ];
    parts.join(" · ")
}
