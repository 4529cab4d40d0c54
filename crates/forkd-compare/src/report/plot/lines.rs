//! A line for each server, with its name at the end.

use super::scale::{Scale, apart};
use super::{Anchor, COLOURS, Chart, Drawing, LETTER, WIDTH, line_class, width_of};

const TOP: f64 = 54.0;
const BOTTOM: f64 = 300.0;
const LEFT: f64 = 70.0;

/// Points of a server, as its values.
#[derive(Debug)]
pub(super) struct Series {
    /// Its number among all servers, which gives it its colour; `None` if it stands for several.
    pub(super) number: Option<usize>,
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Where on the horizontal axis a point isn't of all clients.
    pub(super) hollow: Vec<f64>,
}

/// What is drawn besides the lines.
pub(super) struct Lines<'a> {
    pub(super) name: &'a str,
    pub(super) title: String,
    pub(super) below: String,
    pub(super) notes: Vec<String>,
    /// How the vertical axis writes its values.
    pub(super) tick: fn(f64) -> String,
    /// What the horizontal axis counts.
    pub(super) unit: &'a str,
}

/// Where lines begin, and where they end, so that there is room for their names.
pub(super) fn span(all: &[Series]) -> (f64, f64) {
    (LEFT, WIDTH - 32.0 - all.iter().map(|line| width_of(&line.label)).fold(0.0, f64::max))
}

/// Draws lines over an axis with these marks, on which `x` gives the place of a value; `None` if there are none.
pub(super) fn draw(
    all: &[Series],
    about: Lines,
    marks: &[(f64, String)],
    x: impl Fn(f64) -> f64,
) -> Option<Chart> {
    let values = || all.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    values().next()?;
    let (_, right) = span(all);
    // as many servers as there are names, one below the other
    let bottom = BOTTOM.max(TOP + all.len() as f64 * (LETTER + 3.0));
    let y = Scale::log(values(), (bottom, TOP + 6.0));
    let mut to = Drawing::default();
    to.heading(&about.title, &about.below);
    for value in &y.ticks {
        to.line("grid", (LEFT, y.at(*value)), (right, y.at(*value)));
        to.text("tick", (LEFT - 6.0, y.at(*value) + 4.0), Anchor::End, &(about.tick)(*value));
    }
    for (place, label) in marks {
        to.line("grid", (*place, TOP), (*place, bottom));
        to.text("tick", (*place, bottom + 17.0), Anchor::Middle, label);
    }
    if !about.unit.is_empty() {
        to.text("tick", (right + 24.0, bottom + 17.0), Anchor::Start, about.unit);
    }
    let ends: Vec<f64> =
        all.iter().map(|line| y.at(line.points.last().map_or(0.0, |point| point.1))).collect();
    let labels = apart(&ends, LETTER + 2.0, (TOP, bottom));
    let mut told = Vec::new();
    for (line, label) in all.iter().zip(labels) {
        let places: Vec<_> = line.points.iter().map(|(px, py)| (x(*px), y.at(*py))).collect();
        trace(&mut to, line, &places, marks);
        let (Some(last), Some(end)) = (line.points.last(), places.last()) else { continue };
        let colour = line.number.map(|number| format!(" s{}", number % COLOURS)).unwrap_or_default();
        to.line(&format!("leader{colour}"), *end, (right + 18.0, label));
        if let Some(number) = line.number {
            to.mark(number, line.hollow.contains(&last.0), (right + 18.0, label));
        }
        to.text("label", (right + 27.0, label + 4.0), Anchor::Start, &line.label);
        let (from, first) = line.points.first().copied().unwrap_or_default();
        let (until, last) = *last;
        let values = [first, last].map(about.tick);
        told.push(format!("{} from {} at {from} to {} at {until}", line.label, values[0], values[1]));
    }
    let description = format!("Lines: {}.", told.join("; "));
    let height = to.notes(&about.notes, bottom + 28.0, WIDTH);
    Some(Chart { name: about.name.into(), title: about.title, description, width: WIDTH, height, body: to.0 })
}

/// Draws a line, and its points where the axis has marks.
fn trace(to: &mut Drawing, line: &Series, places: &[(f64, f64)], marks: &[(f64, String)]) {
    let Some(number) = line.number else {
        to.path("line flat", places);
        return;
    };
    to.path(&line_class(number), places);
    for (place, (value, _)) in places.iter().zip(&line.points) {
        if marks.iter().any(|(mark, _)| (mark - place.0).abs() < 0.5) {
            to.mark(number, line.hollow.contains(value), *place);
        }
    }
}
