//! `forkd status`: asks a running daemon what it is doing, once or again and again.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::SIGINT;

use super::args::StatusArgs;
use super::ask::Daemon;
use crate::Error;
use crate::daemon::rates::Rates;
use crate::daemon::status::{Status, Watched};

/// How long to wait for the daemon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes a terminal empty, from its first line on (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints the status as a table, or as JSON.
///
/// # Errors
///
/// [`Error::Unavailable`] if no daemon answers at the control socket, [`Error::Data`] if what
/// answers is no forkd. With `--watch` only if that is so from the beginning.
pub fn run(args: StatusArgs) -> Result<(), Error> {
    let first = ask(args.control.clone())?;
    match args.watch {
        None => print(&first.show(args.json, &first.status)).map(|_| ()),
        Some(interval) => watch(args.control, args.json, interval.0, first),
    }
}

/// What a daemon has answered: the text, and what it says.
pub(super) struct Answer {
    text: String,
    pub(super) status: Status,
}

impl Answer {
    fn show(&self, json: bool, table: impl Display) -> String {
        if json { format!("{}\n", self.text) } else { table.to_string() }
    }
}

/// Asks for the status.
pub(super) fn ask(control: Option<PathBuf>) -> Result<Answer, Error> {
    let mut daemon = Daemon::at(control)?;
    let text = daemon.ask("status", PATIENCE)?;
    let status = serde_json::from_str(&text).map_err(|error| daemon.no_forkd(&error))?;
    Ok(Answer { text, status })
}

/// Prints until Ctrl-C, or until nobody reads any more.
fn watch(control: Option<PathBuf>, json: bool, interval: Duration, first: Answer) -> Result<(), Error> {
    // there is nothing to tidy up, so it ends in the handler, whatever it waits for
    signal_hook::flag::register_conditional_shutdown(SIGINT, 0, Arc::new(AtomicBool::new(true)))
        .map_err(|cause| Error::os("cannot install the handler of SIGINT", cause))?;
    let is_terminal = std::io::stdout().is_terminal() && !json;
    let mut before: Option<Status> = None;
    let mut answer: Result<Answer, Error> = Ok(first);
    loop {
        let text = match &answer {
            Ok(now) => {
                let rates = before.as_ref().and_then(|before| Rates::between(before, &now.status));
                now.show(json, Watched { status: &now.status, rates: rates.as_ref() })
            }
            // it may be about to start again
            Err(error) if json => format!("{}\n", serde_json::json!({ "error": error.sentence() })),
            Err(error) => format!("{}\n", error.sentence()),
        };
        let (before_it, after_it) = if is_terminal {
            (CLEAR, "")
        } else if json {
            ("", "")
        } else {
            ("", "\n")
        };
        if !print(&format!("{before_it}{text}{after_it}"))? {
            return Ok(());
        }
        before = answer.ok().map(|answer| answer.status);
        std::thread::sleep(interval);
        answer = ask(control.clone());
    }
}

/// Tells whether somebody still reads.
fn print(text: &str) -> Result<bool, Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::os("cannot write to standard output", error)),
    }
}
