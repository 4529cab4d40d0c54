//! Small bar charts of characters.

use super::figures::{self, Figure, View};
use super::slo;
use crate::record::Record;

/// Eighths of a character, from one to seven.
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// How wide a line gets at most, wherever it is shown.
pub(super) const WIDEST: usize = 100;

/// How long a bar may be at least.
pub(super) const LEAST: usize = 4;

/// Bars for processes, connections per second and memory, where they were measured.
#[must_use]
pub fn charts(record: &Record, width: Option<usize>) -> String {
    let width = width.unwrap_or(WIDEST).min(WIDEST);
    let shown = [&slo::FIGURES[0], &figures::PROCESSES, &figures::CONN_PER_S, figures::memory(record)];
    let charts = shown.iter().filter_map(|figure| chart(record, figure, width));
    charts.collect::<Vec<_>>().join("\n")
}

fn chart(record: &Record, figure: &Figure, width: usize) -> Option<String> {
    let values: Vec<_> = record.models.iter().map(|entry| figure.of(&View::from(entry))).collect();
    let most = values.iter().flatten().map(|value| value.median).reduce(f64::max)?;
    let cell = |value: &Option<figures::Value>| {
        value.as_ref().map_or_else(|| "-".into(), |value| figure.text(value.median))
    };
    let longest =
        |texts: &mut dyn Iterator<Item = String>| texts.map(|t| t.chars().count()).max().unwrap_or(0);
    let label = longest(&mut record.models.iter().map(|entry| entry.title()));
    let number = longest(&mut values.iter().map(cell));
    let mut notes: Vec<String> = values.iter().map(|value| note(value.as_ref())).collect();
    let mut room = width.saturating_sub(label + number + 6).max(LEAST);
    match longest(&mut notes.iter().cloned()) {
        // the table has them, too
        note if room < note + LEAST => notes.iter_mut().for_each(String::clear),
        note => room -= note,
    }
    let mut text = format!("{}\n", figure.name);
    for ((entry, value), note) in record.models.iter().zip(&values).zip(&notes) {
        let share = value.as_ref().map_or(0.0, |value| if most > 0.0 { value.median / most } else { 0.0 });
        let bar = bar(share, room);
        let line = format!("  {:<label$}  {:>number$}  {bar}{note}", entry.title(), cell(value));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Some(text)
}

/// Says behind a bar that it is of fewer clients than the others.
fn note(value: Option<&figures::Value>) -> String {
    value.and_then(|value| value.fewer).map(|fewer| format!(" ({fewer})")).unwrap_or_default()
}

/// A bar of this share, from 0 to 1, of `room` characters; one that isn't zero is seen.
pub(super) fn bar(share: f64, room: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * room as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut text = "█".repeat(eighths / 8);
    text.extend((eighths % 8).checked_sub(1).map(|k| PARTS[k]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn bars_are_as_long_as_their_share() {
        let of = |share| bar(share, 4);
        assert_eq!(
            [0.0, 0.001, 0.5, 0.53, 1.0, 7.0, -1.0].map(of),
            ["", "▏", "██", "██▏", "████", "████", ""]
        );
        assert_eq!(of(f64::NAN), "");
    }

    #[test]
    fn charts_keep_to_their_width() {
        let record = sample::record();
        for width in [40, 80] {
            let text = charts(&record, Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.starts_with("Processes\n") && text.contains("\nConnections per second\n"), "{text}");
        }
        let text = charts(&record, Some(1));
        assert!(text.contains("fork        101  ████"), "{text}");
        assert_eq!(charts(&sample::empty(), None), "");
    }
}
