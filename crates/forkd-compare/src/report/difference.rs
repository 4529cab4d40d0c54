//! What has changed since an earlier record, and whether that can be chance.

use serde_json::Value as Json;

use super::figures::{self, Figure, View};
use super::table::fit;
use crate::record::Record;
use crate::stats::{LEVEL, Verdict, verdict};
use forkd_load::text::{thousands, wrapped};

/// What has changed since an earlier record.
#[derive(Debug)]
pub struct Difference {
    /// What makes it doubtful that one can be compared with the other.
    pub doubts: Vec<String>,
    /// What is compared, figure by figure.
    pub rows: Vec<Row>,
}

/// One figure of one server, before and now.
#[derive(Debug)]
pub struct Row {
    /// The server.
    pub model: String,
    /// The figure.
    pub figure: &'static Figure,
    /// Its median before.
    pub before: f64,
    /// Its median now.
    pub now: f64,
    /// Whether it was memory so little that a ratio says nothing.
    pub is_too_little: bool,
    /// What the rounds say.
    pub verdict: Verdict,
}

impl Row {
    /// By how much it has changed, as in "×1.25"; "-" if it came from nothing, or next to it.
    #[must_use]
    pub fn ratio(&self) -> String {
        match self.now / self.before {
            ratio if ratio.is_finite() && ratio >= 0.0 && !self.is_too_little => format!("×{ratio:.2}"),
            _ => "-".into(),
        }
    }

    /// What may be said of it.
    #[must_use]
    pub fn words(&self) -> String {
        let change = if self.now > self.before { "more" } else { "less" };
        match self.verdict {
            _ if self.now == self.before => "the same".into(),
            Verdict::TooFew { needed } => format!("too few rounds to tell: --rounds {needed} could"),
            Verdict::Chance { p } => format!("can be chance (p = {p:.2})"),
            Verdict::Real { p } => format!("{change}, hardly by chance (p = {p:.3})"),
        }
    }
}

impl Difference {
    /// Compares what both records have.
    #[must_use]
    pub fn between(before: &Record, now: &Record) -> Self {
        let mut doubts = changed(&before.settings, &now.settings, "the settings differ");
        doubts.extend(changed(&before.machine, &now.machine, "the machine or the program differs"));
        let mut figures = figures::main(now);
        if !now.settings.slo.is_empty() {
            figures.clear();
            doubts
                .push("what --slo finds is an interval, and no set of rounds: compare the tables".to_owned());
        }
        let mut rows = Vec::new();
        for entry in &now.models {
            let Some(old) = before.models.iter().find(|old| old.title() == entry.title()) else {
                doubts.push(format!("{} was not measured then", entry.title()));
                continue;
            };
            let (then, now) = (View::from(old), View::from(entry));
            for figure in &figures {
                let (Some(was), Some(is)) = (figure.of(&then), figure.of(&now)) else { continue };
                rows.push(Row {
                    model: entry.title(),
                    figure,
                    before: was.median,
                    now: is.median,
                    is_too_little: figure.is_too_little(&was, &then),
                    verdict: verdict(&was.rounds, &is.rounds),
                });
            }
        }
        Self { doubts, rows }
    }

    /// The heads of the table.
    pub(super) const HEADS: [&str; 6] = ["model", "figure", "before", "now", "ratio", "what that says"];

    /// The cells of a row.
    pub(super) fn cells(row: &Row) -> [String; 6] {
        let [before, now] = [row.before, row.now].map(|value| row.figure.text(value));
        [row.model.clone(), row.figure.head.into(), before, now, row.ratio(), row.words()]
    }

    /// A sentence on how much of it is to be believed.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |is: fn(&Verdict) -> bool| self.rows.iter().filter(|row| is(&row.verdict)).count();
        let tested = self.rows.len() - count(|verdict| matches!(verdict, Verdict::TooFew { .. }));
        let real = count(|verdict| matches!(verdict, Verdict::Real { .. }));
        if self.rows.is_empty() {
            return "Nothing was measured both times.".into();
        }
        if tested == 0 {
            return "No change can be told from chance with so few rounds.".into();
        }
        let expected = tested as f64 * LEVEL;
        format!(
            "{real} of {tested} figures have changed by more than their rounds vary (p < {LEVEL}, Mann and Whitney); \
             by chance alone about {} would seem to.",
            thousands(expected.ceil())
        )
    }

    /// A table with a line for each figure, and what to think of it.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            let mut rows = vec![Self::HEADS.map(ToOwned::to_owned).to_vec()];
            let words = self.rows.iter().map(|row| row.words().chars().count()).max().unwrap_or(0);
            rows[0][5] = format!("{:<words$}", rows[0][5]);
            let mut last = "";
            for row in &self.rows {
                let mut cells = Self::cells(row);
                if row.model == last {
                    cells[0].clear();
                }
                // words begin where their column does
                cells[5] = format!("{:<words$}", cells[5]);
                last = &row.model;
                rows.push(cells.to_vec());
            }
            text = fit(&rows, width.unwrap_or(usize::MAX), 2) + "\n";
        }
        text.push_str(&wrapped(&self.summary(), width));
        self.doubts.iter().for_each(|doubt| text.push_str(&wrapped(&format!("warning: {doubt}"), width)));
        text
    }
}

/// Says which fields of two settings or machines differ.
pub(super) fn changed(
    before: &impl serde::Serialize,
    now: &impl serde::Serialize,
    what: &str,
) -> Vec<String> {
    let [before, now] =
        [serde_json::to_value(before), serde_json::to_value(now)].map(Result::unwrap_or_default);
    let (Json::Object(before), Json::Object(now)) = (before, now) else { return Vec::new() };
    let differing = now.iter().filter(|(key, value)| {
        // how busy the machine was is in the warnings
        *key != "load_before" && before.get(*key) != Some(value)
    });
    let list: Vec<String> = differing
        .map(|(key, value)| {
            let was = before.get(key).map(ToString::to_string).unwrap_or_else(|| "unknown".into());
            format!("{key} {was}, now {value}")
        })
        .collect();
    if list.is_empty() { Vec::new() } else { vec![format!("{what}: {}", list.join("; "))] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Measured;
    use crate::report::sample;

    fn with_rounds(rounds: &[f64]) -> Record {
        let mut record = sample::record();
        record.models.truncate(1);
        let mut entry = sample::entry("fork", 101.0, 100.0, 1.0, 1.0, 1.0);
        let churn = entry.churn.take().map(|churn| churn.median).unwrap_or_default();
        let churn =
            rounds.iter().map(|rate| crate::record::Churn { conn_per_s: Some(*rate), ..churn.clone() });
        entry.churn = Measured::of(churn.collect(), Vec::new());
        record.models = vec![entry];
        record
    }

    fn words(before: &[f64], now: &[f64]) -> String {
        let difference = Difference::between(&with_rounds(before), &with_rounds(now));
        let row = difference.rows.iter().find(|row| row.figure.key == "conn_per_s").unwrap();
        format!("{} {}", row.ratio(), row.words())
    }

    #[test]
    fn a_change_is_told_from_chance() {
        let before = [100.0, 101.0, 102.0, 103.0, 104.0];
        assert_eq!(
            words(&before, &[204.0, 203.0, 204.0, 205.0, 206.0]),
            "×2.00 more, hardly by chance (p = 0.008)"
        );
        assert_eq!(
            words(&before, &[90.0, 91.0, 92.0, 93.0, 94.0]),
            "×0.90 less, hardly by chance (p = 0.008)"
        );
        assert_eq!(words(&before, &[99.0, 100.5, 102.5, 103.5, 110.0]), "×1.00 can be chance (p = 1.00)");
        assert_eq!(words(&before, &before), "×1.00 the same");
        assert_eq!(
            words(&[1.0, 2.0, 3.0], &[7.0, 8.0, 9.0]),
            "×4.00 too few rounds to tell: --rounds 5 could"
        );
        assert_eq!(words(&[0.0; 4], &[1.0; 4]), "- more, hardly by chance (p = 0.029)");
    }

    #[test]
    fn what_can_hardly_be_compared_is_said() {
        let (before, mut now) = (sample::record(), sample::record());
        now.settings.clients = vec![1, 10];
        now.machine.processors = 8;
        now.models[0].name = "another".into();
        let text = Difference::between(&before, &now).text(Some(100));
        assert!(text.contains("warning: the settings differ: clients [100], now [1,10]\n"), "{text}");
        assert!(text.contains("differs: processors 0, now 8\n"), "{text}");
        assert!(text.contains("warning: another was not measured then"), "{text}");
        assert!(text.contains("No change can be told from chance with so few rounds."), "{text}");
        let nothing = Difference::between(&sample::empty(), &sample::empty());
        assert_eq!(nothing.text(None), "Nothing was measured both times.\n");
    }
}
