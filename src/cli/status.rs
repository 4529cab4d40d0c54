//! `forkd status`: asks a running daemon what it is doing.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::args::StatusArgs;
use crate::config::default_control;
use crate::daemon::status::Status;
use crate::{Error, Failure};

/// How long to wait for the daemon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the status as a table, or as JSON.
///
/// # Errors
///
/// [`Error::Unavailable`] if no daemon answers at the control socket, [`Error::Data`] if what
/// answers is no forkd, [`Error::Usage`] if there is no control socket to ask.
pub fn run(args: StatusArgs) -> Result<(), Error> {
    let path = args.control.or_else(|| default_control(|name| std::env::var_os(name))).ok_or_else(|| {
        Error::Usage("no control socket is known: give --control PATH, as the daemon was given".into())
    })?;
    let text = ask(&path)?;
    let status: Status = serde_json::from_str(&text)
        .map_err(|error| Error::Data(format!("what answers at {} is no forkd: {error}", path.display())))?;
    let output = if args.json { format!("{text}\n") } else { status.to_string() };
    match std::io::stdout().write_all(output.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::os("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}

fn ask(path: &PathBuf) -> Result<String, Error> {
    let failed = |what: &str| {
        let what = format!("{what} at {}", path.display());
        move |cause: std::io::Error| match cause.kind() {
            ErrorKind::PermissionDenied => Error::Permission(Failure::new(what, cause)),
            _ => Error::Unavailable(Failure::new(what, cause)),
        }
    };
    let mut stream = UnixStream::connect(path).map_err(failed("no daemon answers"))?;
    let mut exchange = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"status\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    exchange().map_err(failed("the daemon does not answer"))
}
