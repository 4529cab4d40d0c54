//! `forkd pardon`: has a running daemon forget what a source has done.

use super::args::PardonArgs;
use super::ask::Daemon;
use super::status::ANSWER_TIMEOUT;
use super::terminal::write;
use crate::config::PardonedSource;
use crate::daemon::status::Pardoned;
use crate::failed::Failed;
use crate::foreign;

/// Asks for it, and prints what it has changed.
///
/// # Errors
///
/// [`Error::Unavailable`](crate::Error::Unavailable) if no daemon answers at the control socket.
pub fn run(args: PardonArgs) -> Result<(), Failed> {
    let PardonedSource(rule) = args.source;
    let daemon = Daemon::at(args.control, ANSWER_TIMEOUT)?;
    let answer = daemon.ask(&format!("pardon {rule}"), None, |text| foreign::from_json(text.as_bytes()))?;
    Ok(write(&Pardoned { rule, answer: &answer }.to_string()).map(|_| ())?)
}
