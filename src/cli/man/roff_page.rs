//! A manual page, as a sequence of the few things that one is made of: see man(7).

use roff::{Inline, Roff, bold, roman};

/// A page that is being written, from top to bottom.
pub(super) struct Page {
    roff: Roff,
    /// Whether a heading came last, which starts a paragraph itself.
    after_heading: bool,
}

impl Page {
    /// Starts a page: its name, its section of the manual, and what `whatis` says of it.
    pub(super) fn new(name: &str, section: &str, about: &str) -> Self {
        let mut roff = Roff::new();
        // a blank for the date: the same source gives the same page
        let version = concat!("forkd ", env!("CARGO_PKG_VERSION"));
        roff.control("TH", [&name.to_uppercase(), section, " ", version, "forkd manual"]);
        let mut page = Self { roff, after_heading: true };
        page.section("NAME");
        page.text([roman(format!("{name} - {about}"))]);
        page
    }

    /// Starts a section.
    pub(super) fn section(&mut self, title: &str) {
        self.roff.control("SH", [title]);
        self.after_heading = true;
    }

    /// Starts a section within a section.
    pub(super) fn subsection(&mut self, title: &str) {
        self.roff.control("SS", [title]);
        self.after_heading = true;
    }

    /// Writes a paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.start_paragraph();
        self.text([roman(text)]);
    }

    /// Writes an entry of a list: a term, of which the odd pieces are bold, and what it means.
    pub(super) fn entry(&mut self, term: &[&str], text: &str) {
        self.roff.control("TP", []);
        self.text(
            term.iter().enumerate().map(|(i, piece)| if i % 2 == 0 { bold(*piece) } else { roman(*piece) }),
        );
        self.text([roman(text)]);
    }

    /// Writes a list of terms and what they mean.
    pub(super) fn entries(&mut self, entries: &[(&str, &str)]) {
        for (term, text) in entries {
            self.entry(&[term], text);
        }
    }

    /// Writes lines as they are.
    pub(super) fn lines(&mut self, lines: &str) {
        self.start_paragraph();
        self.roff.control("nf", []);
        self.roff.control("RS", ["4"]);
        for line in lines.lines() {
            if line.is_empty() { _ = self.roff.control("sp", []) } else { self.text([roman(line)]) }
        }
        self.roff.control("RE", []);
        self.roff.control("fi", []);
    }

    /// Writes lines of a synopsis, each in bold.
    pub(super) fn synopsis<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        for (index, line) in lines.into_iter().enumerate() {
            if index > 0 {
                self.roff.control("br", []);
            }
            self.text([bold(line)]);
        }
    }

    fn start_paragraph(&mut self) {
        if !self.after_heading {
            self.roff.control("PP", []);
        }
    }

    fn text(&mut self, inlines: impl IntoIterator<Item = Inline>) {
        self.roff.text(inlines.into_iter().collect::<Vec<_>>());
        self.after_heading = false;
    }

    /// Returns the source of the page.
    pub(super) fn render(&self) -> String {
        self.roff.to_roff()
    }
}
