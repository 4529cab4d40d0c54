//! A record as tables, as wide as there is room for.

use super::figures::{self, Figure, MARK, RELATIVE, View};
use super::slo;
use crate::record::{Entry, Record};
use forkd_load::text::{columns, listed, thousands, wrapped};

/// All tables, one after the other; lines have at most `width` columns, where that is possible.
#[must_use]
pub fn tables(record: &Record, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let mut text = fit(&medians(record), width, 1);
    text.extend(notes(record).iter().map(|note| wrapped(note, Some(width))));
    let mut add = |title: &str, rows: &[Vec<String>]| {
        // a head alone tells nothing
        if rows.len() > 1 && rows[0].len() > 1 {
            text.push_str(&format!("\n{}{}", wrapped(title, Some(width)), fit(rows, width, 1)));
        }
    };
    add("From the lowest to the highest round:", &ranges(record));
    for (figure, _) in figures::growth(record) {
        add(&format!("{} by number of clients:", figure.name), &growth(record, figure));
    }
    text
}

/// The medians so far, in as many columns as there is room for, with a mark at the server that has its turn.
#[must_use]
pub fn live(record: &Record, at_turn: Option<&str>, width: Option<usize>) -> String {
    let mut rows = medians(record);
    let names = record.models.iter().map(|entry| Some(&*entry.name));
    for (row, name) in rows.iter_mut().skip(1).zip(names) {
        row[0].insert_str(0, if name == at_turn { "> " } else { "  " });
    }
    rows[0][0].insert_str(0, "  ");
    loop {
        let text = columns(&rows, 1);
        let fits = |line: &str| width.is_none_or(|width| line.chars().count() <= width);
        if text.lines().all(fits) || rows[0].len() == 1 {
            return text;
        }
        rows.iter_mut().for_each(|row| row.truncate(row.len() - 1));
    }
}

/// Models by names that only `forkd compare` has, and what N workers are there.
const EXPLAINED: [(&str, &str); 2] = [
    ("spare", "fork with N children that wait for their client (forkd serve --spare N)"),
    ("prethread", "one worker with N threads made in advance (forkd serve --model thread --threads N)"),
];

/// What stands below the table: what a [`MARK`] and a column say, and names that `forkd serve` has other words for.
#[must_use]
pub fn notes(record: &Record) -> Vec<String> {
    let mut notes: Vec<String> = marked(record).into_iter().chain(slo::notes(record)).collect();
    if let Some((rate, _)) = figures::relative(record) {
        notes.push(format!("{RELATIVE}: {} as a share of the best", uncapital(rate.name)));
    }
    if let Some(spread) = spread(record) {
        notes.push(spread);
    }
    let ours = || record.models.iter().filter(|entry| entry.command.is_some());
    let is_explained = |entry: &Entry| EXPLAINED.iter().any(|(name, _)| *name == entry.name);
    if ours().any(|entry| entry.title() != entry.name && !is_explained(entry)) {
        notes.push("×N: a pool of N workers (forkd serve --workers N)".into());
    }
    for (name, meaning) in EXPLAINED {
        let Some(entry) = ours().find(|entry| entry.name == name) else { continue };
        let workers = entry.workers.unwrap_or(1).to_string();
        notes.push(format!("{}: {}", entry.title(), meaning.replace('N', &workers)));
    }
    notes
}

/// How evenly each server's workers have the held clients, where they have many each. Few servers have such workers, so
/// it is no column.
fn spread(record: &Record) -> Option<String> {
    let of = |entry: &Entry| {
        let index = figures::SPREAD.of(&entry.into())?.median;
        Some(format!("{} for {}", figures::SPREAD.text(index), entry.title()))
    };
    let servers: Vec<String> = record.models.iter().filter_map(of).collect();
    let about = "Jain's index of held clients over workers, 1 if each has as many, 1/N if one of N has all";
    (!servers.is_empty()).then(|| format!("{about}: {}", listed(&servers)))
}

fn uncapital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// What a [`MARK`] says, and of which server in the table; `None` if there is none.
fn marked(record: &Record) -> Option<String> {
    let figures = figures::main(record);
    let counts = |view: &View| {
        let mut counts: Vec<String> = Vec::new();
        for fewer in figures.iter().filter_map(|figure| figure.marked(view)) {
            counts.push(fewer.to_string());
        }
        counts.dedup();
        counts
    };
    let servers = record.models.iter().filter_map(|entry| {
        let counts = counts(&entry.into());
        (!counts.is_empty()).then(|| format!("{}: {}", entry.title(), listed(&counts)))
    });
    let servers = servers.collect::<Vec<_>>().join(", ");
    let mut growth = record.models.iter().flat_map(|entry| &entry.growth);
    match servers.is_empty() {
        false => Some(format!("{MARK} only of the clients that were served ({servers})")),
        true if growth.any(|growth| !counts(&growth.into()).is_empty()) => {
            Some(format!("{MARK} only of the clients that were served"))
        }
        true => None,
    }
}

fn row<'a>(first: &str, cells: impl Iterator<Item = String> + 'a) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(cells).collect()
}

/// The heads, and a row for each server: what it is called, its medians, and its share of the best.
pub(crate) fn medians(record: &Record) -> Vec<Vec<String>> {
    let (shown, relative) = (figures::main(record), figures::relative(record));
    let mut rows = vec![row("model", shown.iter().map(|figure| figure.head.to_owned()))];
    for entry in &record.models {
        let view = View::from(entry);
        rows.push(row(&entry.title(), shown.iter().map(|figure| figure.cell(&view))));
    }
    if let Some((rate, cells)) = relative
        && let Some(at) = shown.iter().position(|figure| std::ptr::eq(*figure, rate))
    {
        let cells = std::iter::once(RELATIVE.to_owned()).chain(cells);
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.insert(at + 2, cell));
    }
    rows
}

/// Those figures that differ from round to round, of the servers that have some.
fn ranges(record: &Record) -> Vec<Vec<String>> {
    let span = |figure: &Figure, entry: &Entry| figure.span(&figure.of(&entry.into())?);
    let varies = |figure: &&Figure| record.models.iter().any(|entry| span(figure, entry).is_some());
    let shown: Vec<_> = figures::main(record).into_iter().filter(varies).collect();
    let mut rows = vec![row("model", shown.iter().map(|figure| figure.head.to_owned()))];
    for entry in &record.models {
        let cells: Vec<_> = shown.iter().map(|figure| span(figure, entry)).collect();
        if cells.iter().any(Option::is_some) {
            rows.push(row(&entry.title(), cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into()))));
        }
    }
    rows
}

/// A figure with each number of clients, with a row for each server that has it.
pub(crate) fn growth(record: &Record, figure: &Figure) -> Vec<Vec<String>> {
    let at = |entry: &Entry, clients: usize| {
        entry
            .growth
            .iter()
            .find(|growth| growth.clients == clients)
            .map(|growth| figure.cell_with_unit(&growth.into()))
    };
    let clients: Vec<usize> = record.settings.clients.clone();
    let mut rows = vec![row("model", clients.iter().map(|count| thousands(*count as f64)))];
    for entry in &record.models {
        let cells: Vec<_> = clients.iter().map(|count| at(entry, *count)).collect();
        if cells.iter().flatten().any(|cell| cell != "-") {
            rows.push(row(&entry.title(), cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into()))));
        }
    }
    rows
}

/// Lines up rows, the first of which are the heads: in one piece, with heads of two lines, or in several
/// pieces one below the other, each of which has the first `left` columns: names.
pub(crate) fn fit(rows: &[Vec<String>], width: usize, left: usize) -> String {
    let Some((heads, body)) = rows.split_first() else { return String::new() };
    let fits = |text: &str| text.lines().all(|line| line.chars().count() <= width);
    let whole = columns(rows, left);
    if fits(&whole) {
        return whole;
    }
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for head in heads {
        let at = head.rfind(' ').map_or(0, |at| at + 1);
        upper.push(head[..at].trim_end().to_owned());
        lower.push(head[at..].to_owned());
    }
    let split = columns(&[&[upper, lower], body].concat(), left);
    if fits(&split) {
        return split;
    }
    let (mut pieces, mut begin) = (Vec::new(), left);
    while begin < heads.len() {
        let piece = |end: usize| -> String {
            let cut = |row: &Vec<String>| [&row[..left], &row[begin..end]].concat();
            columns(&rows.iter().map(cut).collect::<Vec<_>>(), left)
        };
        // one column there must be, even if it is too wide
        let end = (begin + 1..=heads.len()).rev().find(|end| fits(&piece(*end))).unwrap_or(begin + 1);
        pieces.push(piece(end));
        begin = end;
    }
    pieces.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Growth;
    use crate::report::sample;

    #[test]
    fn a_table_that_is_too_wide_becomes_several() {
        let rows: Vec<Vec<String>> = [["model", "served at once", "conn/s"], ["fork", "100 of 100", "9,000"]]
            .map(|row| row.map(ToOwned::to_owned).to_vec())
            .to_vec();
        assert_eq!(fit(&rows, 80, 1), "model  served at once  conn/s\nfork       100 of 100   9,000\n");
        assert_eq!(
            fit(&rows, 27, 1),
            "        served at\nmodel        once  conn/s\nfork   100 of 100   9,000\n"
        );
        assert_eq!(
            fit(&rows, 22, 1),
            "model  served at once\nfork       100 of 100\n\nmodel  conn/s\nfork    9,000\n"
        );
        assert_eq!(fit(&rows, 1, 1), fit(&rows, 22, 1));
        assert_eq!(fit(&[], 1, 1), "");
    }

    #[test]
    fn figures_of_fewer_clients_are_marked() {
        let mut record = sample::record();
        assert_eq!(marked(&record), None);
        let pingpong = record.models[2].pingpong.as_mut().unwrap();
        pingpong.median.served = Some(8.0);
        let text = tables(&record, Some(200));
        assert!(text.contains("  60,000* ") && text.contains(" 25,000 "), "{text}");
        assert!(text.contains("\n* only of the clients that were served (prefork ×8: 8 of 100)\n"), "{text}");
        assert!(!text.contains("KiB*"), "{text}");
    }

    #[test]
    fn how_clients_are_spread_stands_below() {
        let mut record = sample::record();
        let about = "Jain's index";
        assert!(!tables(&record, None).contains(about));
        record.models.extend([sample::pool("thread", 0.5), sample::pool("event", 1.0)]);
        let text = tables(&record, None);
        let line = "\nJain's index of held clients over workers, 1 if each has as many, 1/N if one of N has all: 0.50 for \
                    thread ×2 and 1.00 for event ×2\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_live_table_has_the_columns_that_fit_and_marks_whose_turn_it_is() {
        let record = sample::record();
        let text = live(&record, Some("fork"), Some(34));
        assert_eq!(
            text.lines().take(3).collect::<Vec<_>>(),
            [
                "  model       processes  threads",
                "  iterative           2        2",
                "> fork              101      101",
            ]
        );
        assert!(live(&record, None, None).lines().next().is_some_and(|head| head.ends_with("MB/s")));
        assert_eq!(live(&record, None, Some(1)).lines().count(), 5);
    }

    #[test]
    fn growth_has_units_and_all_that_grows() {
        let mut record = sample::record();
        record.settings.clients = vec![10, 100];
        let fork = &mut record.models[1];
        fork.growth = vec![Growth {
            clients: 10,
            hold: fork.hold.clone(),
            churn: fork.churn.clone(),
            pingpong: fork.pingpong.clone(),
        }];
        let text = tables(&record, None);
        for (figure, cell) in [
            ("Processor time for a connection", " 110 µs    -"),
            ("Processes", "    101    -"),
            ("Memory for a held connection", " 172 KiB    -"),
        ] {
            let (_, table) = text.split_once(&format!("\n{figure} by number of clients:\n")).unwrap();
            assert!(table.lines().nth(1).unwrap().ends_with(cell.trim_start()), "{table}");
        }
    }

    #[test]
    fn only_what_was_measured_has_a_column() {
        let mut record = sample::record();
        record.models.iter_mut().for_each(|entry| entry.bulk = None);
        let text = tables(&record, None);
        assert!(text.lines().next().is_some_and(|head| head.starts_with("model       processes")), "{text}");
        assert!(text.contains("\nprefork ×8          9        9  12,000"), "{text}");
        assert!(text.contains("8 of 100") && !text.contains("MB/s"), "{text}");
        assert!(text.contains("11,400–12,600"), "{text}");
        for entry in &mut record.models {
            entry.hold = None;
        }
        assert!(!tables(&record, None).contains("served"));
    }
}
