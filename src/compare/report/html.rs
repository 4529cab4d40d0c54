//! The report for a browser: one file that needs no network and no script.

use std::fmt::Write;

use super::difference::Difference;
use super::figures::{self, Figure, View};
use super::findings::{findings, warnings};
use super::plot::{Chart, escaped};
use super::table::note;
use super::{repeat, svg};
use crate::compare::record::Record;
use crate::text::thousands;

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");

/// Makes the report.
#[must_use]
pub fn html(record: &Record, difference: Option<&Difference>) -> String {
    fill(&|place| match place {
        "title" => escaped(&title(record)),
        "about" => escaped(&format!(
            "{} · {} · forkd {}",
            record.made_at, record.machine.processor, record.machine.forkd
        )),
        "style" => style(),
        "summary" => summary(record),
        "overview" => svg::overview(record).map(|chart| figure("wide", &chart)).unwrap_or_default(),
        "table" => {
            figures_table(record, &figures::main(record), "Medians, and from the lowest round to the highest")
        }
        "note" => note(record).map(|note| format!("<p>{}</p>", escaped(&note))).unwrap_or_default(),
        "more" => figures_table(record, &figures::more(record), "More figures"),
        "difference" => difference.map(difference_table).unwrap_or_default(),
        "charts" => svg::charts(record).iter().map(|chart| figure("chart", chart)).collect(),
        "growth" => growth(record),
        "faults" => faults(record),
        "loop" => paced(record),
        "method" => method(record),
        "settings" => settings(record),
        "command" => escaped(&repeat::command(record)),
        other => unreachable!("the template has no place {other}"),
    })
}

/// Puts what belongs there into the places of the template; what is put there is not looked at again.
fn fill(content: &dyn Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (place, behind) = after.split_once("}}").unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&content(place));
        rest = behind;
    }
    text + rest
}

fn title(record: &Record) -> String {
    let servers: Vec<String> = record.models.iter().map(|entry| entry.title()).collect();
    match servers.len() {
        0 => "No server was compared".into(),
        1..=3 => format!("{} under load", crate::text::listed(&servers)),
        count => format!("{count} servers under the same load"),
    }
}

/// Colours as variables, in light and dark; paper is white.
fn style() -> String {
    let light: String = svg::PALETTE.map(|(name, light, _)| format!("--{name}: {light}; ")).concat();
    let dark: String = svg::PALETTE.map(|(name, _, dark)| format!("--{name}: {dark}; ")).concat();
    let charts = svg::style(|name, _| format!("var(--{name})"));
    format!(
        ":root {{ color-scheme: light dark; {light}}}\n\
         @media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n{STYLE}{charts}"
    )
}

fn summary(record: &Record) -> String {
    let list = |class: &str, items: Vec<String>| match items.is_empty() {
        true => String::new(),
        false => {
            let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
            format!("<ul class=\"{class}\">\n{items}</ul>\n")
        }
    };
    list("findings", findings(record)) + &list("warnings", warnings(record))
}

fn figure(class: &str, chart: &Chart) -> String {
    format!("<figure class=\"{class}\">{}</figure>\n", chart.svg(None))
}

/// A table; cells are HTML, the first of a row is its head, and those of the columns `words` are no numbers.
fn table(caption: &str, heads: &[String], rows: &[Vec<String>], words: &[usize]) -> String {
    let class = |k: usize| if words.contains(&k) { " class=\"words\"" } else { "" };
    let mut text =
        format!("<div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>", escaped(caption));
    for (k, head) in heads.iter().enumerate() {
        let _ = write!(text, "<th scope=\"col\"{}>{}</th>", class(k), escaped(head));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (k, cell) in row.iter().enumerate() {
            let _ = match k {
                0 => write!(text, "<th scope=\"row\">{cell}</th>"),
                _ => write!(text, "<td{}>{cell}</td>", class(k)),
            };
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>\n"
}

fn figures_table(record: &Record, all: &[&'static Figure], caption: &str) -> String {
    let shown: Vec<_> = all.iter().filter(|figure| figure.is_in(record)).collect();
    if shown.is_empty() {
        return String::new();
    }
    let cell = |view: &View, figure: &Figure| {
        let range = figure.of(view).and_then(|value| figure.span(&value));
        let range = range.map(|range| format!("<span class=\"range\">{}</span>", escaped(&range)));
        escaped(&figure.cell(view)) + &range.unwrap_or_default()
    };
    let mut heads = vec!["model".to_owned()];
    heads.extend(shown.iter().map(|figure| figure.head.to_owned()));
    let rows: Vec<Vec<String>> = record
        .models
        .iter()
        .map(|entry| {
            let view = View::from(entry);
            let name = escaped(&entry.title());
            std::iter::once(name).chain(shown.iter().map(|figure| cell(&view, figure))).collect()
        })
        .collect();
    table(caption, &heads, &rows, &[])
}

fn growth(record: &Record) -> String {
    let mut text = String::new();
    for (figure, _) in figures::growth(record) {
        let clients = &record.settings.clients;
        let mut heads = vec!["model".to_owned()];
        heads.extend(clients.iter().map(|count| thousands(*count as f64)));
        let mut rows = Vec::new();
        for entry in record.models.iter().filter(|entry| !entry.growth.is_empty()) {
            let at = |clients: &usize| entry.growth.iter().find(|growth| growth.clients == *clients);
            let cells = clients
                .iter()
                .map(|count| at(count).map_or("-".into(), |it| figure.cell_with_unit(&it.into())));
            rows.push(std::iter::once(escaped(&entry.title())).chain(cells).collect());
        }
        if rows.iter().any(|row: &Vec<String>| row[1..].iter().any(|cell| cell != "-")) {
            text.push_str(&table(&format!("{} with so many clients", figure.name), &heads, &rows, &[]));
        }
    }
    if text.is_empty() { text } else { format!("<section>\n<h2>Growth</h2>\n{text}</section>\n") }
}

fn difference_table(difference: &Difference) -> String {
    let rows: Vec<Vec<String>> = difference
        .rows
        .iter()
        .map(|row| Difference::cells(row).map(|cell| escaped(&cell)).to_vec())
        .collect();
    let heads = Difference::HEADS.map(ToOwned::to_owned);
    let doubts: String =
        difference.doubts.iter().map(|doubt| format!("<li>{}</li>\n", escaped(doubt))).collect();
    let doubts = if doubts.is_empty() { doubts } else { format!("<ul class=\"warnings\">\n{doubts}</ul>\n") };
    let table = table("Medians, before and now", &heads, &rows, &[1, heads.len() - 1]);
    let summary = escaped(&difference.summary());
    format!("<section>\n<h2>What has changed</h2>\n<p>{summary}</p>\n{doubts}{table}</section>\n")
}

fn faults(record: &Record) -> String {
    let mut rows = Vec::new();
    for entry in &record.models {
        for (fault, count) in &entry.faults {
            rows.push(vec![escaped(&entry.title()), escaped(fault), thousands(*count as f64)]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heads = ["model", "error", "times"].map(ToOwned::to_owned);
    let table = table("In all phases and rounds", &heads, &rows, &[1]);
    format!("<section>\n<h2>What failed</h2>\n{table}</section>\n")
}

fn paced(record: &Record) -> String {
    match record.settings.rate {
        Some(rate) => format!(
            "Operations came due {} times a second whatever the server did, and each latency counts from when it was due.",
            thousands(rate)
        ),
        None => "Each client waited for its echo before it went on (closed loop), so a slow server was asked less; \
                 --rate asks at a constant rate instead."
            .into(),
    }
}

fn definitions<'a>(items: impl Iterator<Item = (&'a str, String)>) -> String {
    items.map(|(term, text)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(term), escaped(&text))).collect()
}

fn method(record: &Record) -> String {
    let shown = figures::ALL.iter().filter(|figure| figure.is_in(record));
    definitions(shown.map(|figure| (figure.head, figure.how.to_owned())))
}

fn settings(record: &Record) -> String {
    let (machine, settings) = (&record.machine, &record.settings);
    let listed =
        |numbers: &[usize]| numbers.iter().map(|n| thousands(*n as f64)).collect::<Vec<_>>().join(", ");
    let phases: Vec<&str> = settings.phases.iter().map(|phase| phase.name()).collect();
    let mut items = vec![
        (
            "machine",
            format!(
                "{} × {}, {} MiB",
                machine.processors,
                machine.processor,
                thousands(machine.memory_mib as f64)
            ),
        ),
        ("system", machine.kernel.clone()),
        ("processor time by", machine.cpu_by.clone()),
        ("open files, at most", thousands(machine.open_files as f64)),
        ("clients", listed(&settings.clients)),
        (
            "phases",
            format!("{}; {} s each, {} rounds", phases.join(", "), settings.duration_s, settings.rounds),
        ),
        (
            "messages",
            format!(
                "{} bytes, seed {}, service {}, over {}",
                settings.size, settings.seed, settings.service, settings.transport
            ),
        ),
    ];
    items.extend(machine.load_before.map(|load| ("load average before", format!("{load:.2}"))));
    if let Some(calibration) = &record.calibration {
        let rates = [
            (calibration.conn_per_s, "connections/s"),
            (calibration.req_per_s, "requests/s"),
            (calibration.mb_per_s, "MB/s"),
            (calibration.datagrams_per_s, "datagrams/s"),
        ];
        let rates: Vec<String> =
            rates.iter().filter_map(|(rate, unit)| Some(format!("{} {unit}", thousands((*rate)?)))).collect();
        items.push(("the same clients against a server that does as little as possible", rates.join(", ")));
    }
    let commands = record.models.iter().filter_map(|entry| Some((entry, entry.command.as_ref()?)));
    let commands: Vec<_> = commands.map(|(entry, command)| (entry.title(), command.clone())).collect();
    definitions(items.into_iter())
        + &definitions(commands.iter().map(|(title, command)| (&**title, command.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::sample;

    #[test]
    fn what_stands_in_a_record_stays_text() {
        let mut record = sample::record();
        record.models[0].name = "{{command}}<script>alert(1)</script>".into();
        record.models[0].failure = Some("\"<b>\"".into());
        record.warnings.push("</style><script>".into());
        let difference = Difference::between(&record, &record);
        let page = html(&record, Some(&difference));
        assert!(
            !page.contains("<script") && !page.contains("<b>") && page.contains("&lt;script&gt;"),
            "{page}"
        );
        assert!(page.contains("{{command}}&lt;"), "a name is no place of the template");
        roxmltree_of(&page);
    }

    fn roxmltree_of(page: &str) {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        if let Err(error) = roxmltree::Document::parse_with_options(page, options) {
            panic!("{error}: {page}");
        }
    }

    #[test]
    fn of_nothing_there_is_a_page_too() {
        let page = html(&sample::empty(), None);
        roxmltree_of(&page);
        assert!(!page.contains("NaN") && !page.contains("{{"), "{page}");
    }
}
