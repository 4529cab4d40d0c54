//! A line on standard error that tells how it goes.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

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
        let is_terminal =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self { is_terminal }
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

    pub(super) fn show(&mut self, line: &str) {
        // one write, and nobody to tell if it fails
        let _ = match self.is_terminal {
            true => io::stderr().write_all(format!("\r{line}\x1b[K").as_bytes()),
            false => io::stderr().write_all(format!("{line}\n").as_bytes()),
        };
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
