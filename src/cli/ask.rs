//! The asking side of the control socket.
//!
//! The invariant: an operator of the packaged service need not know where its control socket is.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::default_controls;
use crate::daemon::Question;
use crate::failed::Failed;
use crate::{Error, Failure};

/// Where the packaged service has it.
const OF_THE_SERVICE: &str = "/run/forkd/control.sock";

/// A daemon that can be asked.
#[derive(Debug)]
pub(super) struct Daemon {
    path: PathBuf,
    question: Question,
}

impl Daemon {
    /// Connects to the one behind this control socket, or else to the first that listens behind a usual one. Its
    /// answer has to come within `patience`.
    pub(super) fn at(path: Option<PathBuf>, patience: Duration) -> Result<Self, Error> {
        match path {
            Some(path) => Self::behind(vec![path], patience, ""),
            None => Self::behind(
                usual(|name| std::env::var_os(name)),
                patience,
                " (is it running? Its line \"ready\" says if it has no control socket; one with another needs --control PATH)",
            ),
        }
    }

    fn behind(paths: Vec<PathBuf>, patience: Duration, hint: &str) -> Result<Self, Error> {
        let mut why = None;
        for path in &paths {
            match Question::at(path, patience) {
                Ok(question) => return Ok(Self { path: path.clone(), question }),
                // a daemon may be there
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(not_allowed(path, error));
                }
                // what is in the way says more than what isn't there
                Err(error) if why.is_none() || error.kind() != ErrorKind::NotFound => why = Some(error),
                Err(_) => {}
            }
        }
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let what = format!("no daemon answers at {}{hint}", paths.join(" or "));
        Err(unavailable(what, why.unwrap_or_else(|| ErrorKind::NotFound.into())))
    }

    /// Sends a request, with a descriptor if one is given, waits for the whole answer, and has it read.
    pub(super) fn ask<T>(
        self,
        request: &str,
        descriptor: Option<BorrowedFd<'_>>,
        read: impl Fn(&str) -> serde_json::Result<T>,
    ) -> Result<T, Failed> {
        let path = self.path.display();
        let answer = self
            .question
            .ask(request, descriptor)
            .map_err(|cause| unavailable(format!("the daemon does not answer at {path}"), cause))?;
        if answer.is_empty() {
            let why = format!("what answers at {path} is no forkd, or has ended: it has said nothing");
            return Err(Failed::data(why));
        }
        read(&answer).map_err(|error| Failed::data(format!("what answers at {path} is no forkd: {error}")))
    }
}

/// Where to look for a daemon by default: where the environment has a daemon make its socket; in a service
/// only its own, which another one must not stand in for at a reload; elsewhere the user's, and then the packaged
/// service's.
fn usual(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(path) = env("FORKD_CONTROL").filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let own = default_controls(|name| env(name).filter(|_| name == "RUNTIME_DIRECTORY"));
    match own.is_empty() {
        false => own,
        true => default_controls(env).into_iter().chain([OF_THE_SERVICE.into()]).collect(),
    }
}

fn unavailable(what: String, cause: std::io::Error) -> Error {
    Error::Unavailable(Failure::new(what, cause))
}

/// connect(2) takes the right to write to the socket, and to search the directories on the way.
fn not_allowed(path: &Path, cause: std::io::Error) -> Error {
    let what = format!(
        "cannot ask the daemon at {}: only root and the daemon's user may use its control socket; run this as root, for \
         example with sudo",
        path.display()
    );
    Error::Permission(Failure::new(what, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

    fn paths(env: &[(&str, &str)]) -> Vec<String> {
        let value = |name: &str| env.iter().find(|pair| pair.0 == name).map(|pair| pair.1.into());
        usual(value).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_packaged_service_is_asked_where_no_other_is_meant() {
        assert_eq!(paths(&[]), [OF_THE_SERVICE]);
        let user = ("XDG_RUNTIME_DIR", "/run/user/0");
        assert_eq!(paths(&[user]), ["/run/user/0/forkd.sock", OF_THE_SERVICE]);
        let lab = ("RUNTIME_DIRECTORY", "/run/lab");
        assert_eq!(paths(&[user, lab]), ["/run/lab/control.sock"]);
        let both = ("RUNTIME_DIRECTORY", "/run/lab:/run/other");
        assert_eq!(paths(&[user, both]), ["/run/lab/control.sock", "/run/other/control.sock"]);
        assert_eq!(paths(&[user, both, ("FORKD_CONTROL", "/run/c")]), ["/run/c"]);
        assert_eq!(paths(&[user, ("FORKD_CONTROL", "")]), ["/run/user/0/forkd.sock", OF_THE_SERVICE]);
    }

    #[test]
    fn the_first_that_answers_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let [absent, stale, alive] = ["absent", "stale", "alive"].map(|name| dir.path().join(name));
        drop(UnixListener::bind(&stale).unwrap());
        let sentence =
            |paths: Vec<PathBuf>| Daemon::behind(paths, ANSWER_TIMEOUT, "!").unwrap_err().sentence();
        let why = sentence(vec![absent.clone(), stale.clone(), absent.clone()]);
        assert!(why.contains("/absent or ") && why.contains("/stale or "), "{why}");
        assert!(why.contains("!: Connection refused"), "{why}");
        assert!(sentence(vec![absent.clone()]).contains("/absent!: No such file"));
        let _listener = UnixListener::bind(&alive).unwrap();
        assert_eq!(
            Daemon::behind(vec![absent, stale, alive.clone()], ANSWER_TIMEOUT, "").unwrap().path,
            alive
        );
    }
}
