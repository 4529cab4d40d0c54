//! Charts as SVG, written by hand: what is drawn has classes and no colours, so that a page can show the same
//! chart in light and in dark.
//!
//! Servers are told apart by their marks, dashes and labels, and by colour besides.

mod bars;
mod growth;
mod latencies;
mod lines;
mod overview;
mod picture;
mod scale;
mod timeline;

use std::fmt::Write;

use super::figures::Fewer;
use crate::MODELS;
use crate::record::{Entry, Record};
use forkd_load::text::wrapped;

pub(super) use bars::bars;
pub(super) use growth::growth;
pub(super) use latencies::latencies;
pub(super) use overview::overview;
pub(super) use picture::picture;
pub(super) use timeline::timeline;

/// How many servers have a colour of their own; after that the same come again, with other marks and dashes.
pub(super) const COLOURS: usize = 8;

/// The size of letters, and about how wide one is.
const LETTER: f64 = 12.0;
const LETTER_WIDTH: f64 = 6.8;

/// The longest name that is shown.
const LONGEST_NAME: usize = 22;

/// How wide a chart is that has a place beside another one.
const WIDTH: f64 = 480.0;

/// The height of a line of notes.
const NOTE: f64 = 15.0;

/// A chart that is drawn.
#[derive(Debug)]
pub(super) struct Chart {
    /// The name of its file.
    pub(super) name: String,
    /// What it shows.
    pub(super) title: String,
    /// The same as its figures tell it, for people who can't see it.
    pub(super) description: String,
    width: f64,
    height: f64,
    body: String,
}

impl Chart {
    /// Whether it needs the width of a page.
    pub(super) fn is_wide(&self) -> bool {
        self.width > WIDTH
    }

    /// The element `svg`; with a style, it is a document of its own.
    pub(super) fn svg(&self, style: Option<&str>) -> String {
        let Self { name, title, description, width, height, body } = self;
        let (title, description) = (escaped(title), escaped(description));
        let style = style.map(|style| format!("<style>{style}</style>")).unwrap_or_default();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-labelledby=\"{name}-title {name}-desc\"><title id=\"{name}-title\">{title}</title>\
             <desc id=\"{name}-desc\">{description}</desc>{style}\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>{body}</svg>\n"
        )
    }
}

/// The servers, each with the number that gives it its colour, its mark and its dashes. A model has its own, whatever it is
/// compared with; another server the first that no model here has.
fn numbered(record: &Record) -> impl Iterator<Item = (usize, &Entry)> {
    let of_model = |entry: &Entry| MODELS.iter().position(|model| *model == entry.name);
    let taken: Vec<usize> = record.models.iter().filter_map(of_model).collect();
    let mut free = (0..).filter(move |number| !taken.contains(number));
    record
        .models
        .iter()
        .map(move |entry| (of_model(entry).or_else(|| free.next()).unwrap_or_default(), entry))
}

/// Text that is safe in HTML, XML and their attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML 1.0, 2.2, has no place for them
            _ if (c.is_control() && !"\n\t".contains(c)) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                safe.push('\u{fffd}');
            }
            _ => safe.push(c),
        }
    }
    safe
}

/// A name that leaves room for what it names: names that are alike often differ at their ends.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= LONGEST_NAME {
        return name.to_owned();
    }
    let end = LONGEST_NAME / 2 - 1;
    let (first, last) = (name.chars().take(LONGEST_NAME - 1 - end), name.chars().skip(count - end));
    first.chain(['…']).chain(last).collect()
}

/// The name of a server, with how many clients it served if the others waited.
fn label(entry: &Entry, fewer: Option<Fewer>) -> String {
    shortened(&entry.title()) + &fewer.map(|fewer| format!(" ({fewer})")).unwrap_or_default()
}

/// The length of a bar, which is seen unless it is of nothing.
fn seen(value: f64, length: f64) -> f64 {
    if value > 0.0 { length.max(1.5) } else { length }
}

/// About how wide a text is.
fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER_WIDTH
}

/// Where a text begins, or ends, or has its middle.
#[derive(Debug, Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// What is drawn.
#[derive(Debug, Default)]
struct Drawing(String);

impl Drawing {
    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ = write!(
            self.0,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.0,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let _ = write!(
            self.0,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.is_empty() {
            return;
        }
        let mut path = String::new();
        for (k, (x, y)) in points.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if k == 0 { "M" } else { "L" });
        }
        let _ = write!(self.0, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    /// The sign of a server; a hollow one is of what isn't all.
    fn mark(&mut self, series: usize, is_hollow: bool, (x, y): (f64, f64)) {
        let class = format!("mark s{}{}", series % COLOURS, if is_hollow { " hollow" } else { "" });
        let polygon = |points: &[(f64, f64)]| {
            points.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect::<Vec<_>>().join(" ")
        };
        let points = match series % 6 {
            0 => {
                let _ = write!(self.0, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>");
                return;
            }
            1 => polygon(&[(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)]),
            2 => polygon(&[(0.0, -4.4), (4.2, 3.2), (-4.2, 3.2)]),
            3 => polygon(&[(0.0, -4.8), (4.8, 0.0), (0.0, 4.8), (-4.8, 0.0)]),
            4 => polygon(&[(0.0, 4.4), (4.2, -3.2), (-4.2, -3.2)]),
            _ => polygon(&[(-4.4, -1.6), (4.4, -1.6), (4.4, 1.6), (-4.4, 1.6)]),
        };
        let _ = write!(self.0, "<polygon class=\"{class}\" points=\"{points}\"/>");
    }

    /// The title of a chart, and what its axes have.
    fn heading(&mut self, title: &str, below: &str) {
        self.text("title", (12.0, 22.0), Anchor::Start, title);
        self.text("note", (12.0, 39.0), Anchor::Start, below);
    }

    /// Writes what else must be known below a chart; returns where that ends.
    fn notes(&mut self, notes: &[String], bottom: f64, width: f64) -> f64 {
        let letters = ((width - 24.0) / 5.8) as usize;
        let mut y = bottom;
        for note in notes {
            for line in wrapped(note, Some(letters)).lines() {
                y += NOTE;
                self.text("note", (12.0, y), Anchor::Start, line);
            }
        }
        if notes.is_empty() { bottom } else { y + 8.0 }
    }
}

/// The classes of the line of a server.
fn line_class(series: usize) -> String {
    format!("line s{} d{}", series % COLOURS, (series + series / COLOURS) % 4)
}

/// A number on an axis, with as few letters as it needs.
fn tick(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size < 1e4 => (value, ""),
        size if size < 1e6 => (value / 1e3, "k"),
        size if size < 1e9 => (value / 1e6, "M"),
        _ => return format!("{value:.0e}"),
    };
    let text = format!("{value:.2}");
    format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A time on an axis.
fn span_tick(micros: f64) -> String {
    match micros {
        _ if micros < 1e3 => format!("{} µs", tick(micros)),
        _ if micros < 1e6 => format!("{} ms", tick(micros / 1e3)),
        _ => format!("{} s", tick(micros / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_a_text() {
        assert_eq!(escaped("<script>&\"'\u{1}"), "&lt;script&gt;&amp;&quot;&#39;\u{fffd}");
        assert_eq!(shortened("a name that is much too long"), "a name that…h too long");
        assert_eq!(shortened("a name that isn't long"), "a name that isn't long");
    }

    #[test]
    fn a_model_keeps_its_colour() {
        let mut record = crate::report::sample::record();
        let numbers = |record: &Record| {
            numbered(record).map(|(number, entry)| (entry.name.clone(), number)).collect::<Vec<_>>()
        };
        let all = numbers(&record);
        record.models.remove(0);
        assert_eq!(numbers(&record), all[1..]);
        record.models[0].name = "socat".into();
        let others = numbers(&record);
        assert_eq!((others[0].clone(), &others[1..]), (("socat".into(), 0), &all[2..]));
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [0.0, 0.2, 50.0, 2500.0, 20_000.0, 5e6].map(tick),
            ["0", "0.2", "50", "2500", "20k", "5M"]
        );
        assert_eq!([20.0, 1e4, 2e6].map(span_tick), ["20 µs", "10 ms", "2 s"]);
    }
}
