//! The report for a browser: one file that needs no network and no script.

use std::fmt::Write;

use super::difference::Difference;
use super::figures::{self, Figure, RELATIVE, View};
use super::findings::{findings, warnings};
use super::plot::{Chart, escaped};
use super::table::notes;
use super::{about, repeat, svg};
use crate::record::Record;
use forkd_load::text::thousands;

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
        "overview" => svg::overview(record).iter().map(figure).collect(),
        "table" => {
            let caption = "Medians, and from the lowest round to the highest";
            figures_table(record, &figures::main(record), figures::relative(record), caption)
        }
        "notes" => {
            notes(record).iter().map(|note| format!("<p class=\"note\">{}</p>\n", escaped(note))).collect()
        }
        "more" => figures_table(record, &figures::more(record), None, "More figures"),
        "difference" => difference.map(difference_table).unwrap_or_default(),
        "charts" => charts(record),
        "growth" => growth(record),
        "faults" => faults(record),
        "loop" => about::paced(record),
        "method" => about::method(record),
        "settings" => about::settings(record),
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
        1..=3 => format!("{} under load", forkd_load::text::listed(&servers)),
        count => format!("{count} servers under the same load"),
    }
}

/// Colours as variables, in light and dark; paper is white.
fn style() -> String {
    let light: String = svg::PALETTE.map(|(name, light, _)| format!("--{name}: {light}; ")).concat();
    let dark: String = svg::PALETTE.map(|(name, _, dark)| format!("--{name}: {dark}; ")).concat();
    let charts = svg::style(|(name, ..)| format!("var(--{name})"));
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

fn figure(chart: &Chart) -> String {
    let svg = chart.svg(None);
    match chart.is_wide() {
        true => format!("{ASIDE}<figure class=\"wide\">{svg}</figure></div>\n"),
        false => format!("<figure>{svg}</figure>\n"),
    }
}

/// What is wider than a phone begins with a word on that.
const ASIDE: &str = "<div class=\"aside\"><p class=\"hint\">wider than this screen: move it sideways</p>";

/// So many columns are as wide as a phone.
const NARROW: usize = 5;

/// Those as wide as the page come first, or they would leave a gap before them.
fn charts(record: &Record) -> String {
    let mut charts = svg::charts(record);
    charts.sort_by_key(|chart| !chart.is_wide());
    charts.iter().map(figure).collect()
}

/// A table; cells are HTML, the first of a row is its head, and those of the columns `words` are no numbers.
fn table(caption: &str, heads: &[String], rows: &[Vec<String>], words: &[usize]) -> String {
    let class = |k: usize| if words.contains(&k) { " class=\"words\"" } else { "" };
    let aside = if heads.len() > NARROW { ASIDE } else { "<div>" };
    let caption = escaped(caption);
    let mut text = format!("{aside}<div class=\"scroll\"><table>\n<caption>{caption}</caption>\n<thead><tr>");
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
    text + "</tbody></table></div></div>\n"
}

/// A table of figures, with the share of the best behind the rate that it is of.
fn figures_table(
    record: &Record,
    all: &[&'static Figure],
    relative: Option<(&'static Figure, Vec<String>)>,
    caption: &str,
) -> String {
    if all.is_empty() {
        return String::new();
    }
    let cell = |view: &View, figure: &Figure| {
        let range = figure.of(view).and_then(|value| figure.span(&value));
        let range = range.map(|range| format!("<span class=\"range\">{}</span>", escaped(&range)));
        escaped(&figure.cell(view)) + &range.unwrap_or_default()
    };
    let mut heads = vec!["model".to_owned()];
    heads.extend(all.iter().map(|figure| figure.head.to_owned()));
    let mut rows: Vec<Vec<String>> = record
        .models
        .iter()
        .map(|entry| {
            let view = View::from(entry);
            let name = escaped(&entry.title());
            std::iter::once(name).chain(all.iter().map(|figure| cell(&view, figure))).collect()
        })
        .collect();
    if let Some((rate, cells)) = relative
        && let Some(at) = all.iter().position(|figure| std::ptr::eq(*figure, rate))
    {
        heads.insert(at + 2, RELATIVE.to_owned());
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.insert(at + 2, cell));
    }
    table(caption, &heads, &rows, &[])
}

fn growth(record: &Record) -> String {
    let charts: String = svg::growth(record).iter().map(figure).collect();
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
            text.push_str(&table(&format!("{} by number of clients", figure.name), &heads, &rows, &[]));
        }
    }
    if !charts.is_empty() {
        text = format!("<div class=\"charts\">\n{charts}</div>\n{text}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

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
