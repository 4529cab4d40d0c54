//! Bars with names, in groups.

use super::{Anchor, Chart, Drawing, seen, width_of};
use crate::report::picture::Picture;

const ROW: f64 = 24.0;
const BAR: f64 = 15.0;
const TOP: f64 = 52.0;
const WIDTH: f64 = 640.0;
/// The least length of the longest bar.
const LEAST: f64 = 90.0;

/// Draws it.
pub(in crate::report) fn picture(picture: &Picture) -> Chart {
    let longest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
    let names = longest(&mut picture.bars().map(|bar| width_of(&bar.name))) + 24.0;
    let texts = longest(&mut picture.bars().map(|bar| width_of(&bar.text))) + 20.0;
    let room = (WIDTH - names - texts).max(LEAST);
    let width = names + room + texts;
    let (mut drawing, mut y, mut told) = (Drawing::default(), TOP, Vec::new());
    drawing.heading(&picture.title, &picture.note);
    for (number, group) in picture.groups.iter().enumerate() {
        if !group.heading.is_empty() {
            drawing.text("head", (12.0, y + 14.0), Anchor::Start, &group.heading);
            y += ROW;
            told.push(group.heading.clone());
        }
        for bar in &group.bars {
            let share = if picture.most() > 0.0 { (bar.value / picture.most()).clamp(0.0, 1.0) } else { 0.0 };
            // what is no number has no length
            let length = if share.is_nan() { 0.0 } else { seen(bar.value, share * room) };
            let middle = y + ROW / 2.0;
            drawing.text("", (names - 8.0, middle + 4.0), Anchor::End, &bar.name);
            drawing.rect(&format!("bar s{}", number % 6), (names, middle - BAR / 2.0), (length, BAR));
            drawing.text("", (names + length + 6.0, middle + 4.0), Anchor::Start, &bar.text);
            y += ROW;
            told.push(format!("{}: {}", bar.name, bar.text));
        }
    }
    Chart {
        name: "picture".into(),
        title: picture.title.clone(),
        description: told.join("; "),
        width,
        height: y + 10.0,
        body: drawing.0,
    }
}
