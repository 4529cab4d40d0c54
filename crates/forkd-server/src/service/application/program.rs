//! A program that workers become.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Application;
use crate::Error;
use crate::service::{Exec, Service};
use crate::sys::program::Privileges;

/// Any program as a worker: each worker of the pool becomes it, and accepts by itself from the sockets of the server, which
/// it inherits.
///
/// # What the program finds
///
/// | | |
/// |---|---|
/// | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | the sockets, as descriptors from 3 on: sd_listen_fds(3). So do systemd's socket units, and so can `listenfd`, `uvicorn --fd 3`, Node's `listen({fd: 3})` and Go's `net.FileListener` |
/// | `SERVER_STARTER_PORT` | the same as Server::Starter has them: `HOST:PORT=FD`, or `PATH=FD`, with `;` between |
/// | `EINHORN_FD_COUNT`, `EINHORN_FD_0`, … | the same as einhorn has them |
/// | `NOTIFY_SOCKET` | where it says how it is: sd_notify(3), `READY=1`, `STATUS=`, `STOPPING=1`, `WATCHDOG=1`; a socket file, or an abstract name (`@…`) where none can be had, as after `chroot` |
/// | `WATCHDOG_USEC`, `WATCHDOG_PID` | how often it has to say `WATCHDOG=1`, if a [watchdog](Self::watchdog) was asked for |
/// | `FORKD_WORKER`, `FORKD_GENERATION` | its number in the pool, from 0 on, and the number of its generation |
///
/// Its environment, directory, umask, limits and signals are otherwise those that this program was started with. It is in a
/// process group of its own, has nothing to read, and no other descriptors. What is left of its group when it has ended
/// is killed; and it is killed if the master is.
///
/// # Examples
///
/// ```no_run
/// use forkd_server::{Server, model::Model, service::WorkerProgram};
///
/// Server::bind("tcp://127.0.0.1:7007")?
///     .model(Model::Prefork)
///     .workers(2)
///     .serve_forever(WorkerProgram::new(["uvicorn", "app:app", "--fd", "3"]))?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    words: Arc<[OsString]>,
    stop_signal: i32,
    watchdog: Option<Duration>,
    privileges: Privileges,
    logs_output: bool,
}

impl WorkerProgram {
    /// The first of these words with the others as its arguments.
    #[must_use]
    pub fn new(words: impl IntoIterator<Item: Into<OsString>>) -> Self {
        Self {
            words: words.into_iter().map(Into::into).collect(),
            stop_signal: libc::SIGTERM,
            watchdog: None,
            privileges: Privileges::Drop,
            logs_output: true,
        }
    }

    /// Tells it to leave by this signal; the default is SIGTERM.
    ///
    /// ```
    /// use forkd_server::service::WorkerProgram;
    /// // what gunicorn's workers expect
    /// assert!(WorkerProgram::new(["sh"]).stop_signal(libc::SIGQUIT).check().is_ok());
    /// assert!(WorkerProgram::new(["sh"]).stop_signal(999).check().is_err(), "there is no such signal");
    /// ```
    #[must_use]
    pub fn stop_signal(self, number: i32) -> Self {
        Self { stop_signal: number, ..self }
    }

    /// Kills it by SIGABRT when it has not said `WATCHDOG=1` for so long; another takes its place.
    #[must_use]
    pub fn watchdog(self, limit: Duration) -> Self {
        Self { watchdog: Some(limit), ..self }
    }

    /// Lets it gain privileges by the set-user-ID bit or capabilities of files, as sudo(8) does.
    #[must_use]
    pub fn keep_privileges(self) -> Self {
        Self { privileges: Privileges::Keep, ..self }
    }

    /// Leaves its standard output and error as they are: those of this process. The default has each line logged.
    #[must_use]
    pub fn leave_output(self) -> Self {
        Self { logs_output: false, ..self }
    }

    /// Looks whether the program is there, as [`Exec::check`] does, and the signal.
    ///
    /// # Errors
    ///
    /// As there; [`Error::Usage`] if there is no such signal.
    pub fn check(&self) -> Result<(), Error> {
        if Signal::try_from(self.stop_signal).is_err() {
            return Err(Error::Usage(format!("there is no signal {}", self.stop_signal)));
        }
        Exec::new(self.words.iter()).check()
    }

    pub(crate) fn program(&self) -> &OsStr {
        self.words.first().map(OsString::as_os_str).unwrap_or_default()
    }

    pub(crate) fn arguments(&self) -> &[OsString] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The kernel does not say what is missing or forbidden.
    pub(crate) fn why_not_started(&self, error: &io::Error) -> String {
        Exec::new(self.words.iter()).why_not_started(error)
    }

    pub(crate) fn signal(&self) -> Signal {
        // `check` has refused another number
        Signal::try_from(self.stop_signal).unwrap_or(Signal::SIGTERM)
    }

    pub(crate) fn patience(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(crate) fn privileges(&self) -> Privileges {
        self.privileges
    }

    pub(crate) fn logs_output(&self) -> bool {
        self.logs_output
    }
}

impl From<WorkerProgram> for Service {
    fn from(program: WorkerProgram) -> Self {
        let checked = program.clone();
        let keeps = program.privileges == Privileges::Keep;
        Self::application("program", Application::Program(Arc::new(program)))
            .handing_over(move || checked.check())
            .keeping_privileges(keeps)
    }
}
