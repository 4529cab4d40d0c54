//! A bar for each server, with the range of its rounds.

use super::scale::Scale;
use super::{Anchor, COLOURS, Chart, Drawing, WIDTH, label, numbered, seen, tick, width_of};
use crate::record::{Entry, Record};
use crate::report::figures::{Figure, Unit, Value, View};

const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const TOP: f64 = 54.0;
/// The least length of the longest bar.
const LEAST: f64 = 110.0;

const PARTIAL: &str = "faint: only a part of its clients was served while the others waited; not comparable with a server that served all";

/// A chart of a figure; `None` if no server has it.
pub(in crate::report) fn bars(record: &Record, figure: &Figure, name: &str) -> Option<Chart> {
    if !figure.is_in(record) {
        return None;
    }
    let rows: Vec<_> = record.models.iter().map(|entry| (entry, figure.of(&View::from(entry)))).collect();
    let fewer = |value: &Option<Value>| value.as_ref().and_then(|value| value.fewer);
    let labels: Vec<String> = rows.iter().map(|(entry, value)| label(entry, fewer(value))).collect();
    let widest = |texts: &[String]| texts.iter().map(|text| width_of(text)).fold(0.0, f64::max);
    let left = 20.0 + widest(&labels);
    let room = |texts: &[String]| WIDTH - 20.0 - widest(texts) - left;
    // beside long names there are the whiskers, which say the same
    let texts = [true, false].map(|has_span| texts(&rows, figure, has_span));
    let texts = if room(&texts[0]) < LEAST { &texts[1] } else { &texts[0] };
    let right = left + room(texts).max(LEAST / 2.0);
    let values =
        rows.iter().filter_map(|(_, value)| value.as_ref()).flat_map(|value| [value.median, value.range().1]);
    let scale = Scale::linear(values, (left, right));
    let bottom = TOP + rows.len() as f64 * ROW + 4.0;
    let mut to = Drawing::default();
    let several = rows.iter().flat_map(|(_, value)| value).any(|value| value.rounds.len() > 1);
    let below = if !record.settings.slo.is_empty() {
        "the highest rate that two runs of three kept"
    } else if several {
        "median, and from the lowest to the highest round"
    } else {
        "one round"
    };
    to.heading(figure.name, below);
    axis(&mut to, &scale, figure, bottom);
    let mut told = Vec::new();
    let numbers = numbered(record).map(|(number, _)| number);
    let labelled = rows.iter().zip(labels.iter().zip(texts));
    for (k, (((_, value), (label, text)), number)) in labelled.zip(numbers).enumerate() {
        let middle = TOP + (k as f64 + 0.5) * ROW;
        to.text("label", (left - 8.0, middle + 4.0), Anchor::End, label);
        let mut end = left;
        if let Some(value) = value {
            end = scale.at(value.median);
            let partial = if value.fewer.is_some() { " partial" } else { "" };
            to.rect(
                &format!("bar s{}{partial}", number % COLOURS),
                (left, middle - BAR / 2.0),
                (seen(value.median, end - left), BAR),
            );
            let (low, high) = value.range();
            if high > low {
                let (low, high) = (scale.at(low), scale.at(high));
                // with an outline, as it may have the colour of its bar
                for class in ["outline", "whisker"] {
                    to.line(class, (low, middle), (high, middle));
                    for x in [low, high] {
                        to.line(class, (x, middle - 4.0), (x, middle + 4.0));
                    }
                }
                end = high;
            }
        }
        to.text("value", (end + 7.0, middle + 4.0), Anchor::Start, text);
        told.push(format!("{label}: {text}"));
    }
    let description = format!("Bars: {}.", told.join("; "));
    let mut notes = Vec::new();
    if rows.iter().any(|(_, value)| fewer(value).is_some()) {
        notes.push(PARTIAL.to_owned());
    }
    let height = to.notes(&notes, bottom + 26.0, WIDTH);
    Some(Chart {
        name: name.into(),
        title: figure.name.into(),
        description,
        width: WIDTH,
        height,
        body: to.0,
    })
}

/// What stands behind each bar, with the range of its rounds or without.
fn texts(rows: &[(&Entry, Option<Value>)], figure: &Figure, has_span: bool) -> Vec<String> {
    let text = |(entry, value): &(&Entry, Option<Value>)| match value {
        Some(value) => {
            let span = figure.span(value).filter(|_| has_span);
            figure.text(value.median) + &span.map(|span| format!(" ({span})")).unwrap_or_default()
        }
        None if entry.failure.is_some() => "failed".into(),
        None => "not measured".into(),
    };
    rows.iter().map(text).collect()
}

fn axis(to: &mut Drawing, scale: &Scale, figure: &Figure, bottom: f64) {
    // with little room, numbers would meet
    let every = match scale.ticks.as_slice() {
        [first, second, ..] if scale.at(*second) - scale.at(*first) < 42.0 => 2,
        _ => 1,
    };
    // there is no fifth of a process
    let is_count = matches!(figure.unit, Unit::Count | Unit::Clients);
    let ticks = scale.ticks.iter().filter(|value| !is_count || value.fract() == 0.0);
    for (k, value) in ticks.enumerate() {
        let x = scale.at(*value);
        to.line("grid", (x, TOP), (x, bottom));
        if k % every == 0 {
            to.text("tick", (x, bottom + 16.0), Anchor::Middle, &tick(*value));
        }
    }
    let unit = match figure.unit {
        Unit::Kib => "KiB",
        Unit::Micros | Unit::Span => "µs",
        Unit::Percent => "%",
        Unit::Count | Unit::Plain | Unit::Clients | Unit::Index => "",
    };
    to.text("tick", (WIDTH - 12.0, bottom + 16.0), Anchor::End, unit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{figures, sample};

    #[test]
    fn who_served_some_has_a_faint_bar() {
        let mut record = sample::record();
        record.models[2].pingpong.as_mut().unwrap().median.served = Some(8.0);
        let drawn = |figure| bars(&record, figure, "it").unwrap().svg(None);
        let requests = drawn(&figures::REQ_PER_S);
        assert!(requests.matches(" partial\"").count() == 1 && requests.contains(">prefork ×8 (8 of 100)<"));
        assert!(!drawn(&figures::CONN_PER_S).contains("partial"));
    }

    #[test]
    fn beside_long_names_there_are_no_ranges() {
        let mut record = sample::record();
        assert!(bars(&record, &figures::CONN_PER_S, "it").unwrap().svg(None).contains("5,000 (4,750–5,250)"));
        record.models[2].pingpong.as_mut().unwrap().median.served = Some(8.0);
        record.models[2].name = "a rather long name of a server".into();
        let drawn = bars(&record, &figures::REQ_PER_S, "it").unwrap().svg(None);
        assert!(drawn.contains(">25,000<") && drawn.contains("whisker"), "{drawn}");
    }
}
