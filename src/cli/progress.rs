//! Lines on standard error that tell how it goes.

use std::io::{self, Write};
use std::time::Duration;

use super::terminal::obeys;
use crate::foreign;

/// How often a line is due, where it replaces the one before ...
const ON_TERMINAL: Duration = Duration::from_millis(200);
/// ... and where each is kept.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// A line, or several, replaced in place on a terminal, and gone when this is dropped; elsewhere one after the other.
#[derive(Debug)]
pub(super) struct Line {
    is_terminal: bool,
    /// How many lines of what is shown are above the cursor's.
    above: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { is_terminal: obeys(&io::stderr()), above: 0 }
    }
}

impl Line {
    /// Tells whether each line replaces the one before.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_terminal
    }

    /// How long to wait from one to the next.
    pub(super) fn interval(&self) -> Duration {
        if self.is_terminal { ON_TERMINAL } else { ELSEWHERE }
    }

    /// How many columns there are, where that is known.
    pub(super) fn width(&self) -> Option<usize> {
        room().0
    }

    /// Replaces what was shown before. Of several lines the last is the one that matters: where there is no room for
    /// all, it stands alone.
    pub(super) fn show(&mut self, text: &str) {
        let (width, height) = if self.is_terminal { room() } else { (None, None) };
        let mut lines: Vec<String> = text.lines().map(|line| cut(line, width)).collect();
        if height.is_some_and(|height| lines.len() >= height) {
            lines.drain(..lines.len() - 1);
        }
        let Some(above) = lines.len().checked_sub(1) else { return };
        // one write; if it fails, there is no place to report it
        let _ = match self.is_terminal {
            true => {
                let begin = self.begin();
                io::stderr().write_all(format!("{begin}{}\x1b[J", lines.join("\x1b[K\n")).as_bytes())
            }
            false => io::stderr().write_all(format!("{}\n", lines.join("\n")).as_bytes()),
        };
        self.above = above;
    }

    /// Says what is to stay, also on a terminal.
    pub(super) fn tell(&mut self, line: &str) {
        let begin = if self.is_terminal { self.begin() + "\x1b[J" } else { String::new() };
        let _ = io::stderr().write_all(format!("{begin}{}\n", cut(line, None)).as_bytes());
        self.above = 0;
    }

    /// What moves the cursor to where that begins which is shown.
    fn begin(&self) -> String {
        match self.above {
            0 => "\r".into(),
            above => format!("\r\x1b[{above}A"),
        }
    }
}

/// The columns and lines of the terminal.
fn room() -> (Option<usize>, Option<usize>) {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let some = |count: u16| Some(usize::from(count)).filter(|count| *count > 0);
    (size.and_then(|size| some(size.ws_col)), size.and_then(|size| some(size.ws_row)))
}

/// What fits: a line that is broken could not be replaced. The last column stays free, as some terminals break
/// there.
fn cut(line: &str, width: Option<usize>) -> String {
    foreign::line(line).chars().take(width.map_or(usize::MAX, |width| width - 1)).collect()
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = io::stderr().write_all((self.begin() + "\x1b[J").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits() {
        assert_eq!(cut("ä: 0.2 s", Some(5)), "ä: 0");
        assert_eq!(cut("a\x1b[2Jb\n", None), r"a\u{1b}[2Jb\n");
        assert_eq!(cut("abc", Some(1)), "");
    }

    #[test]
    fn several_lines_are_replaced_from_the_first() {
        let line = |above| std::mem::ManuallyDrop::new(Line { is_terminal: true, above });
        assert_eq!((line(0).begin(), line(3).begin()), ("\r".into(), "\r\x1b[3A".into()));
    }
}
