//! `forkd reload`: has a running daemon read its configuration again, and waits until it is in force.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Failed;
use super::args::ReloadArgs;
use super::ask::Daemon;
use crate::daemon::control::Answer;
use crate::log;
use forkd_net::unit;

/// How long to wait: new workers are started meanwhile, and given up after several tries.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks for a reload and waits for its end.
///
/// # Errors
///
/// Why the daemon keeps its old configuration, with the exit code that a start would have ended with;
/// [`Error::Unavailable`](crate::Error::Unavailable) if no daemon answers at the control socket.
pub fn run(args: ReloadArgs) -> Result<(), Failed> {
    // its reason has several lines
    let (stderr, own) = (io::stderr(), unit::invocation());
    // ExecReload= has a log file that systemd has just opened, also if logrotate(8) has moved the daemon's away
    let file = stderr.as_fd();
    let (request, file) = match &own {
        Some(invocation) if log::is_file(file) => (format!("reload {invocation}"), Some(file)),
        _ => ("reload".to_owned(), None),
    };
    match Daemon::at(args.control, RELOAD_TIMEOUT)?.ask(&request, file, |text| serde_json::from_str(text))? {
        Answer::Reloaded => Ok(()),
        Answer::Upgraded { .. } => Err(Failed::data("the daemon answers that it is another program".into())),
        Answer::Refused { exit_code, why, invocation } => {
            let why = format!("reload failed, the old configuration stays in force: {why}");
            // as ExecReload= of the daemon's own unit: its log, which has the reason, is that of this process
            let is_told = invocation.is_some() && invocation == own;
            Err(Failed { is_told, ..Failed::new(exit_code, why) })
        }
    }
}
