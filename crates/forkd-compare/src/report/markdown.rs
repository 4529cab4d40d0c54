//! A record for a page in Markdown, such as an issue or a README: a table, what it says, and how to measure the same again.

use super::figures;
use super::findings::{findings, warnings};
use super::repeat;
use super::table::{growth, medians, notes};
use crate::record::Record;
use forkd_load::text::thousands;

/// Makes the page; tables are those of GitHub.
#[must_use]
pub fn markdown(record: &Record) -> String {
    let machine = &record.machine;
    let clients = thousands(record.settings.clients.last().copied().unwrap_or(0) as f64);
    let rounds = match record.settings.slo.is_empty() {
        true => format!("medians of {} rounds of", record.settings.rounds),
        false => "runs of".to_owned(),
    };
    let about = format!(
        "{}: forkd {}, {clients} clients, {rounds} {} s, {} × {}, {}",
        record.made_at,
        machine.forkd,
        record.settings.duration_s,
        machine.processors,
        machine.processor,
        machine.kernel,
    );
    let mut parts = vec![plain(&about) + "\n", table(&medians(record))];
    parts.push(list(notes(record).into_iter()));
    parts.push(list(findings(record).into_iter()));
    parts.push(list(warnings(record).into_iter().map(|warning| format!("warning: {warning}"))));
    for (figure, _) in figures::growth(record) {
        let rows = growth(record, figure);
        if rows.len() > 1 && rows[0].len() > 2 {
            parts.push(format!("{} by number of clients:\n\n{}", figure.name, table(&rows)));
        }
    }
    parts
        .push(format!("The same again:\n\n    {}\n", repeat::command(record).replace(char::is_control, " ")));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// Rows, the first of which are the heads; names are at the left, and figures at the right.
fn table(rows: &[Vec<String>]) -> String {
    let Some((heads, body)) = rows.split_first() else { return String::new() };
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let marks = "--:|".repeat(heads.len().saturating_sub(1));
    let body: String = body.iter().map(|row| line(row)).collect();
    format!("{}|---|{marks}\n{body}", line(heads))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.map(|item| format!("- {}\n", plain(&item))).collect()
}

/// Text that stays text: what has a meaning in Markdown loses it, and lines stay one.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' => plain.extend(['\\', c]),
            _ if c.is_control() => plain.push(' '),
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_page_has_a_table_and_what_it_says() {
        let mut record = sample::record();
        record.models[0].name = "a|b\n*c*".into();
        let page = markdown(&record);
        let lines: Vec<&str> = page.lines().collect();
        assert!(
            lines[0].starts_with("2026-01-02T03:04:05Z: forkd , 100 clients, medians of 3 rounds"),
            "{page}"
        );
        assert!(lines[2].starts_with("| model | processes | threads | conn/s | relative | p50 |"), "{page}");
        let columns = lines[2].matches(" | ").count();
        assert_eq!(lines[3], format!("|---|{}", "--:|".repeat(columns)));
        assert!(lines[4].starts_with(r"| a\|b \*c\* | 2 | 2 | 12,200 | 0.61 × | "), "{page}");
        assert_eq!(lines[4].replace("\\|", "").matches(" | ").count(), columns, "{page}");
        assert!(page.contains("\n- relative: connections per second as a share of the best\n"), "{page}");
        assert!(page.contains("\n- A connection cost fork 3.7 times"), "{page}");
        assert!(page.contains("\n    forkd compare --models "), "{page}");
        assert!(markdown(&sample::empty()).contains("The same again"));
    }
}
