//! What fits into a line. A number that is cut looks like another number: so what doesn't fit is left out as a
//! whole, the least important first, and a name that is cut says so.

use ratatui::text::{Line, Span};

/// How many columns there are between two cells.
const SPACING: usize = 1;

/// What a column of a table needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// It is of no use if it is narrower.
    least: usize,
    /// Everything in it is readable then.
    most: usize,
}

impl Need {
    /// Of a column that is of no use in parts.
    pub(super) fn whole(width: usize) -> Self {
        Self { least: width, most: width }
    }

    /// Of a column of names, which can be told from one another by so much of them.
    pub(super) fn name(least: usize, longest: usize) -> Self {
        Self { least: least.min(longest), most: longest }
    }
}

/// The widths of a table's columns; 0 where there is no room for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Widths(Vec<usize>);

impl Widths {
    /// Shares out the room; `order` has the columns from the most important one on.
    pub(super) fn new(needs: &[Need], order: &[usize], room: usize) -> Self {
        let mut widths = vec![0; needs.len()];
        // there is no space before the first one
        let mut left = room + SPACING;
        for (nth, &column) in order.iter().enumerate() {
            // the first one is there at any rate: it says whose line it is
            let width = needs[column].least.min(if nth == 0 { room } else { usize::MAX });
            let Some(rest) = left.checked_sub(width + SPACING) else { break };
            widths[column] = width;
            left = rest;
        }
        for (width, need) in widths.iter_mut().zip(needs).filter(|(width, _)| **width > 0) {
            let more = left.min(need.most - *width);
            *width += more;
            left -= more;
        }
        Self(widths)
    }

    /// The cells of a line that have room, padded.
    pub(super) fn cells(&self, cells: impl IntoIterator<Item = String>) -> Vec<(usize, String)> {
        let shown = self.0.iter().zip(cells).enumerate().filter(|(_, (width, _))| **width > 0);
        shown.map(|(at, (&width, cell))| (at, format!("{:width$}", cut(&cell, width)))).collect()
    }

    pub(super) fn line(&self, cells: impl IntoIterator<Item = String>) -> String {
        let cells: Vec<String> = self.cells(cells).into_iter().map(|(_, cell)| cell).collect();
        cells.join(" ")
    }
}

/// A text, or as much of it as fits, with a mark.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some('…')).collect()
}

/// As many of these pieces of a line as fit, from the first one on. Space at the end needs no room.
pub(super) fn pieces<'a>(pieces: impl IntoIterator<Item = Span<'a>>, room: usize) -> Line<'a> {
    let mut taken = 0;
    let fits = |piece: &Span<'_>| {
        let fits = taken + piece.content.trim_end().chars().count() <= room;
        taken += piece.content.chars().count();
        fits
    };
    pieces.into_iter().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_room_or_are_left_out() {
        let needs = [Need::whole(5), Need::name(4, 20), Need::whole(3)];
        let widths = |order: &[usize], room: usize| Widths::new(&needs, order, room).0;
        assert_eq!(widths(&[0, 1, 2], 100), [5, 20, 3]);
        // what is left goes to names
        assert_eq!(widths(&[0, 1, 2], 16), [5, 6, 3]);
        assert_eq!(widths(&[0, 1, 2], 14), [5, 4, 3]);
        // nothing less important is shown instead
        assert_eq!(widths(&[2, 0, 1], 10), [5, 0, 3]);
        assert_eq!(widths(&[0, 1, 2], 13), [5, 7, 0]);
        assert_eq!(widths(&[0, 1, 2], 4), [4, 0, 0]);
        let line = Widths(vec![3, 0, 4]).line(["1", "2", "10.0.0.1"].map(str::to_owned));
        assert_eq!(line, "1   10.…");
    }

    #[test]
    fn a_text_that_is_cut_says_so() {
        let all = [0, 1, 3, 4].map(|width| cut("äbcd", width));
        assert_eq!(all, ["", "…", "äb…", "äbcd"]);
    }

    #[test]
    fn pieces_are_shown_whole_or_not_at_all() {
        let text = |room| pieces(["a 1  ", "b 2  ", "c 3"].map(Span::from), room).to_string();
        assert_eq!([13, 12, 8, 7, 2].map(text), ["a 1  b 2  c 3", "a 1  b 2  ", "a 1  b 2  ", "a 1  ", ""]);
    }
}
