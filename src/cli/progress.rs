//! A line on standard error that tells how it goes.

use std::io::{self, Write};
use std::time::Duration;

use super::terminal::obeys;
use crate::foreign;

/// How often a line is due, where it replaces the one before ...
const ON_TERMINAL: Duration = Duration::from_millis(200);
/// ... and where each is kept.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// One line, replaced in place on a terminal, and gone when this is dropped; elsewhere one after the other.
#[derive(Debug)]
pub(super) struct Line {
    is_terminal: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self { is_terminal: obeys(&io::stderr()) }
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

    /// Replaces the line before.
    pub(super) fn show(&mut self, line: &str) {
        // one write; if it fails, there is no place to report it
        let _ = match self.is_terminal {
            true => {
                let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
                let width = size.map(|size| size.ws_col.into()).filter(|width| *width > 0);
                io::stderr().write_all(format!("\r{}\x1b[K", cut(line, width)).as_bytes())
            }
            false => io::stderr().write_all(format!("{}\n", cut(line, None)).as_bytes()),
        };
    }

    /// Says what is to stay, also on a terminal.
    pub(super) fn tell(&mut self, line: &str) {
        let begin = if self.is_terminal { "\r\x1b[K" } else { "" };
        let _ = io::stderr().write_all(format!("{begin}{}\n", cut(line, None)).as_bytes());
    }
}

/// What fits: a line that is broken could not be replaced. The last column stays free, as some terminals break
/// there.
fn cut(line: &str, width: Option<usize>) -> String {
    foreign::line(line).chars().take(width.map_or(usize::MAX, |width| width - 1)).collect()
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = io::stderr().write_all(b"\r\x1b[K");
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
}
