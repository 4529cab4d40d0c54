//! `forkd status`: asks a running daemon what it is doing, once or again and again.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use signal_hook::consts::SIGINT;

use super::args::StatusArgs;
use super::ask::Daemon;
use super::terminal::{obeys, write};
use crate::daemon::rates::Rates;
use crate::daemon::status::{SourcesStatus, Status, Watched};
use crate::failed::Failed;
use crate::sys::usage::{is_child_of, pss};
use crate::{Error, foreign};

/// How long to wait for the daemon.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Of how many workers the memory is read that is theirs alone, with their part of what they share: it takes milliseconds for
/// some hundred MB.
const MOST_PSS: usize = 256;

/// Makes a terminal empty, from its first line on (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints the status as a table, or as JSON.
///
/// # Errors
///
/// [`Error::Unavailable`] if no daemon answers at the control socket, exit code 65 if what
/// answers is no forkd. With `--watch` only if that is so from the beginning.
pub fn run(args: StatusArgs) -> Result<(), Failed> {
    if args.sources {
        return show_sources(args.control, args.json);
    }
    let first = ask(args.control.clone())?;
    match args.watch {
        None => {
            let first = first.with_pss();
            Ok(write(&first.show(args.json, &first.status)).map(|_| ())?)
        }
        Some(interval) => watch(args.control, args.json, interval.0, first),
    }
}

/// Prints what is known of sources.
fn show_sources(control: Option<PathBuf>, json: bool) -> Result<(), Failed> {
    let text = Daemon::at(control, ANSWER_TIMEOUT)?.ask("sources", None, |text| {
        let sources: SourcesStatus = foreign::from_json(text.as_bytes())?;
        Ok(if json { format!("{}\n", foreign::json(text)) } else { sources.to_string() })
    })?;
    Ok(write(&text).map(|_| ())?)
}

/// What a daemon has answered: the text, and what it says.
pub(super) struct Answer {
    text: String,
    pub(super) status: Status,
}

impl Answer {
    /// With the memory of workers that accept by themselves, which the daemon leaves to others: the kernel looks at each page
    /// for that, and the daemon has clients.
    fn with_pss(mut self) -> Self {
        let (daemon, children) = (self.status.pid, self.status.children.iter_mut().enumerate());
        let workers = children.filter_map(|(at, child)| Some((at, child.pid, child.worker.as_mut()?)));
        let mut found = Vec::new();
        for (at, pid, worker) in workers.take(MOST_PSS).filter(|(_, pid, _)| is_child_of(*pid, daemon)) {
            worker.pss_bytes = pss(pid);
            found.extend(worker.pss_bytes.map(|pss| (at, pss)));
        }
        if found.is_empty() {
            return self;
        }
        let mut json: Value = serde_json::from_str(&self.text).unwrap_or_default();
        for (at, pss) in found {
            let place = json.pointer_mut(&format!("/children/{at}/worker/pss_bytes"));
            place.into_iter().for_each(|place| *place = pss.into());
        }
        Self { text: foreign::json(&json.to_string()).into_owned(), ..self }
    }

    fn show(&self, json: bool, table: impl Display) -> String {
        if json { format!("{}\n", self.text) } else { table.to_string() }
    }
}

/// Asks for the status.
pub(super) fn ask(control: Option<PathBuf>) -> Result<Answer, Failed> {
    Daemon::at(control, ANSWER_TIMEOUT)?.ask("status", None, |text| {
        Ok(Answer { text: foreign::json(text).into_owned(), status: foreign::from_json(text.as_bytes())? })
    })
}

/// Prints until Ctrl-C, or until the reader has gone.
fn watch(control: Option<PathBuf>, json: bool, interval: Duration, first: Answer) -> Result<(), Failed> {
    // there is nothing to tidy up, so it ends in the handler, whatever it waits for
    signal_hook::flag::register_conditional_shutdown(SIGINT, 0, Arc::new(AtomicBool::new(true)))
        .map_err(|cause| Error::os("cannot install the handler of SIGINT", cause))?;
    let is_terminal = obeys(&std::io::stdout()) && !json;
    let size = || size_of_screen().filter(|_| is_terminal);
    let mut before: Option<Status> = None;
    let mut answer: Result<Answer, Failed> = Ok(first);
    loop {
        let text = match &answer {
            Ok(now) => {
                let rates = before.as_ref().and_then(|before| Rates::between(before, &now.status));
                let width = size().map(|(_, columns)| columns);
                now.show(json, Watched { status: &now.status, rates: rates.as_ref(), width })
            }
            // it may be about to start again
            Err(error) if json => {
                foreign::json(&serde_json::json!({ "error": error.why }).to_string()).into_owned() + "\n"
            }
            Err(error) => foreign::line(&error.why).into_owned() + "\n",
        };
        let text = size().map_or_else(|| text.clone(), |size| on_screen(&text, size));
        let (before_it, after_it) = if is_terminal {
            (CLEAR, "")
        } else if json {
            ("", "")
        } else {
            ("", "\n")
        };
        if !write(&format!("{before_it}{text}{after_it}"))? {
            return Ok(());
        }
        before = answer.ok().map(|answer| answer.status);
        if !is_read_for(interval) {
            return Ok(());
        }
        answer = ask(control.clone());
    }
}

/// Waits, and tells whether there is still a reader then; at once when it goes.
fn is_read_for(interval: Duration) -> bool {
    let (began, out) = (Instant::now(), std::io::stdout());
    loop {
        let left = interval.saturating_sub(began.elapsed());
        if left.is_zero() {
            return true;
        }
        // rounded up, or the last millisecond would be spent in turning round
        let limit = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)));
        // asked for nothing, it tells that the reader of a pipe, or a terminal, has gone
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::empty())];
        if poll(&mut fds, limit.unwrap_or(PollTimeout::MAX)).is_ok_and(|ready| ready > 0) {
            return false;
        }
    }
}

/// The lines and columns of the terminal that is standard output; `None` if it is another thing.
fn size_of_screen() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // a serial line may not know it
    (size.ws_row > 1 && size.ws_col > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
}

/// As much of a text as there is room for: what wraps or scrolls would take its beginning away. What is cut
/// has a mark, as in less(1), and the last line says how many there are no lines for.
fn on_screen(text: &str, (lines, columns): (usize, usize)) -> String {
    let cut = |line: &str| {
        if line.chars().count() <= columns {
            return line.to_owned();
        }
        line.chars().take(columns - 1).chain(['>']).collect()
    };
    let all = text.lines().count();
    // the cursor stands on the last one
    let shown = if all < lines { all } else { lines.saturating_sub(2) };
    let mut kept: Vec<String> = text.lines().take(shown).map(cut).collect();
    if shown < all {
        kept.push(cut(&format!("and {} more lines", all - shown)));
    }
    kept.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_has_the_beginning_of_all_lines_that_fit() {
        let text = "one\ntwo and more\nthree\n";
        assert_eq!(on_screen(text, (4, 12)), text);
        assert_eq!(on_screen(text, (4, 7)), "one\ntwo an>\nthree\n");
        assert_eq!(on_screen(text, (3, 20)), "one\nand 2 more lines\n");
        assert_eq!(on_screen(text, (2, 5)), "and >\n");
    }
}
