//! The asking side of the control socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::default_control;
use crate::{Error, Failure};

/// A daemon that can be asked.
pub(super) struct Daemon {
    path: PathBuf,
}

impl Daemon {
    /// The one behind this control socket, or behind the usual one.
    pub(super) fn at(path: Option<PathBuf>) -> Result<Self, Error> {
        let path = path.or_else(|| default_control(|name| std::env::var_os(name))).ok_or_else(|| {
            Error::Usage("no control socket is known: give --control PATH, as the daemon was given".into())
        })?;
        Ok(Self { path })
    }

    /// Sends a request and waits for the whole answer, as long as `patience` lets it.
    pub(super) fn ask(&self, request: &str, patience: Duration) -> Result<String, Error> {
        let failed = |what: &str| {
            let what = format!("{what} at {}", self.path.display());
            move |cause: std::io::Error| match cause.kind() {
                ErrorKind::PermissionDenied => Error::Permission(Failure::new(what, cause)),
                _ => Error::Unavailable(Failure::new(what, cause)),
            }
        };
        let mut stream = UnixStream::connect(&self.path).map_err(failed("no daemon answers"))?;
        let mut exchange = || {
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        exchange().map_err(failed("the daemon does not answer"))
    }

    /// What answers talks, but not as forkd does.
    pub(super) fn no_forkd(&self, error: &serde_json::Error) -> Error {
        Error::Data(format!("what answers at {} is no forkd: {error}", self.path.display()))
    }
}
