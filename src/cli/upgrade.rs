//! `forkd upgrade`: has a running daemon replace its program by this one, and waits until that serves.
//!
//! The program is handed over open, so it does not matter what the daemon sees of the file system: a service with
//! `ExecPaths=` sees the file that was there when it started.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::Failed;
use super::args::UpgradeArgs;
use super::ask::Daemon;
use crate::Error;
use crate::daemon::control::Answer;

/// How long to wait: a trial may ask name servers, and new workers are started.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(90);

/// Asks for an upgrade and waits for its end.
///
/// # Errors
///
/// Why the program that was asked goes on, with the exit code that a start of the other one would have ended with;
/// [`Error::Unavailable`] if no daemon answers at the control socket, or there is no such program.
pub fn run(args: UpgradeArgs) -> Result<(), Failed> {
    let path = args.program.as_deref().unwrap_or(Path::new("/proc/self/exe"));
    let program = File::open(path)
        .map_err(|cause| Error::from_io(format!("cannot open the program {}", path.display()), cause))?;
    let request = match args.finish_within {
        Some(within) => format!("upgrade {}", within.0.as_millis()),
        None => "upgrade".to_owned(),
    };
    let daemon = Daemon::at(args.control, UPGRADE_TIMEOUT)?;
    match daemon.ask(&request, Some(program.as_fd()), |text| serde_json::from_str(text))? {
        Answer::Upgraded { .. } => Ok(()),
        Answer::Refused { exit_code, why, .. } => {
            Err(Failed::new(exit_code, format!("the program is not replaced: {why}")))
        }
        Answer::Reloaded => Err(Failed::data("the daemon answers that it has reloaded".into())),
    }
}
