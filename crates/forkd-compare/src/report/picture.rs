//! Bars with names, for what is measured and is no record: as characters, and as a picture.

use serde::Serialize;

use super::chart::{LEAST, WIDEST, bar};
use super::plot;
use super::svg::style;
use forkd_load::text::wrapped;

/// What a picture's background is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Dark letters on a light page.
    Light,
    /// Light letters on a dark page.
    Dark,
}

/// Bars of one scale, in groups.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// What is measured.
    pub title: String,
    /// How, and in which unit.
    pub note: String,
    /// The bars, from top to bottom.
    pub groups: Vec<Group>,
}

/// Bars that belong together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// What they have in common; may be empty.
    pub heading: String,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// The same for people.
    pub text: String,
}

impl Bar {
    /// Makes one.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, text: impl Into<String>) -> Self {
        Self { name: name.into(), value, text: text.into() }
    }
}

impl Picture {
    /// A picture of one group.
    #[must_use]
    pub fn of(title: &str, note: &str, bars: Vec<Bar>) -> Self {
        Self { title: title.into(), note: note.into(), groups: vec![Group { heading: String::new(), bars }] }
    }

    /// The most that a bar of it shows.
    pub(super) fn most(&self) -> f64 {
        self.bars().map(|bar| bar.value).filter(|value| value.is_finite()).fold(0.0, f64::max)
    }

    pub(super) fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    /// Lines of characters, of at most `width` where names and texts leave room.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let width = width.unwrap_or(WIDEST).min(WIDEST);
        let longest =
            |of: fn(&Bar) -> &str| self.bars().map(|bar| of(bar).chars().count()).max().unwrap_or(0);
        let (names, texts) = (longest(|bar| &bar.name), longest(|bar| &bar.text));
        let room = width.saturating_sub(names + texts + 6).max(LEAST);
        let mut text = format!("{}\n", self.title);
        if !self.note.is_empty() {
            text.extend(
                wrapped(&self.note, Some(width.saturating_sub(2))).lines().map(|line| format!("  {line}\n")),
            );
        }
        for group in &self.groups {
            if !group.heading.is_empty() {
                text.push_str(&format!("  {}\n", group.heading));
            }
            for of in &group.bars {
                let share = if self.most() > 0.0 { of.value / self.most() } else { 0.0 };
                let line = format!("  {:<names$}  {:>texts$}  {}", of.name, of.text, bar(share, room));
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// A document of its own, for a page with such a background.
    #[must_use]
    pub fn svg(&self, face: Face) -> String {
        let style = style(|(_, light, dark)| if face == Face::Light { light } else { dark }.to_owned());
        plot::picture(self).svg(Some(&style))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Picture {
        let group = |heading: &str, values: &[f64]| Group {
            heading: heading.into(),
            bars: values
                .iter()
                .map(|value| Bar::new(format!("<{value}>"), *value, format!("{value} ms")))
                .collect(),
        };
        Picture {
            title: "Time & more".into(),
            note: "of each".into(),
            groups: vec![group("", &[0.0, 5.0]), group("others", &[10.0])],
        }
    }

    #[test]
    fn bars_are_of_one_scale() {
        let expected = "Time & more\n  of each\n  <0>    0 ms\n  <5>    5 ms  ████▌\n  others\n  <10>  10 ms  █████████\n";
        assert_eq!(sample().text(Some(24)), expected);
        assert!(sample().text(Some(1)).contains("  <10>  10 ms  ████\n"));
    }

    #[test]
    fn a_picture_is_xml_and_has_every_figure() {
        for face in [Face::Light, Face::Dark] {
            let svg = sample().svg(face);
            let document = roxmltree::Document::parse(&svg).unwrap();
            let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
            assert!(
                ["Time & more", "of each", "others", "<10>", "10 ms", "0 ms"]
                    .iter()
                    .all(|text| texts.contains(text)),
                "{texts:?}"
            );
        }
        assert_ne!(sample().svg(Face::Light), sample().svg(Face::Dark));
        let nothing = Picture::of("it", "", vec![Bar::new("a", f64::NAN, "?")]);
        assert!(roxmltree::Document::parse(&nothing.svg(Face::Light)).is_ok());
    }
}
