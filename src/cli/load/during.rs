//! `forkd load --during`: runs a command while a phase lasts, and ends the phase a while after it.

use std::io::stderr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Failure};
use forkd_load::{During, Live, Outcome};

/// How often to look whether the command has ended.
const LOOK: Duration = Duration::from_millis(2);

/// A command that is to run in the middle of a phase.
pub(super) struct Meanwhile<'a> {
    pub(super) command: &'a str,
    /// How long the phase lasts before and after it.
    pub(super) around: Duration,
    /// How long to wait for the first echo.
    pub(super) patience: Duration,
}

/// A command that has ended.
pub(super) struct Ran {
    began: Instant,
    took: Duration,
    /// `None` if a signal ended it.
    exit_code: Option<i32>,
}

impl Meanwhile<'_> {
    /// Runs it, beside the phase, which has its end after that. Nothing is done to a server that serves no client, nor when the
    /// phase is stopped before: then the answer is `None`.
    pub(super) fn run(&self, live: &Live, is_over: &AtomicBool) -> Result<Option<Ran>, Error> {
        let give_up = Instant::now() + self.patience;
        while live.done() == 0 {
            if live.is_stopped() || is_over.load(Ordering::Relaxed) || Instant::now() >= give_up {
                live.finish();
                return Ok(None);
            }
            sleep(LOOK);
        }
        live.wait(self.around);
        let ran = if live.is_stopped() { Ok(None) } else { self.run_now(live).map(Some) };
        if ran.is_ok() {
            live.wait(self.around);
        }
        live.finish();
        ran
    }

    fn run_now(&self, live: &Live) -> Result<Ran, Error> {
        let cannot = |cause| Error::Os(Failure::new(format!("cannot run {:?}", self.command), cause));
        // standard output has the figures
        let output = stderr().as_fd().try_clone_to_owned().map_err(cannot)?;
        let began = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", self.command])
            .stdin(Stdio::null())
            .stdout(output)
            .spawn()
            .map_err(cannot)?;
        let mut is_told = false;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(cannot)? {
                break status;
            }
            if live.is_stopped() && !is_told {
                // not reaped yet, so the number is still its own
                let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
                is_told = true;
            }
            sleep(LOOK);
        };
        Ok(Ran { began, took: began.elapsed(), exit_code: status.code() })
    }

    /// What it has cost.
    pub(super) fn cost(&self, ran: &Ran, outcome: &Outcome) -> During {
        During::new(self.command, (ran.began, ran.took), ran.exit_code, outcome)
    }
}
