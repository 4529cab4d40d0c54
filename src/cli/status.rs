//! `forkd status`: asks a running daemon what it is doing.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use super::args::StatusArgs;
use super::ask::Daemon;
use crate::Error;
use crate::daemon::status::Status;

/// How long to wait for the daemon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the status as a table, or as JSON.
///
/// # Errors
///
/// [`Error::Unavailable`] if no daemon answers at the control socket, [`Error::Data`] if what
/// answers is no forkd.
pub fn run(args: StatusArgs) -> Result<(), Error> {
    let mut daemon = Daemon::at(args.control)?;
    let text = daemon.ask("status", PATIENCE)?;
    let status: Status = serde_json::from_str(&text).map_err(|error| daemon.no_forkd(&error))?;
    let output = if args.json { format!("{text}\n") } else { status.to_string() };
    match std::io::stdout().write_all(output.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::os("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}
