//! Goes into the background the way of SysV, and lets the invoking process tell how that went.
//!
//! The `daemonize` crate forks twice and starts a session (daemon(7)). Only its `execute` is used,
//! and none of its options for pidfiles and users; its `start` would report success before anything
//! has been tried.
//!
//! The invariant: the invoking process ends only after the daemon has said that it serves, has said
//! why it can't, or has died; and its exit code tells which. Until then the daemon writes to the
//! standard output and error of its invoker; its standard input is `/dev/null` from the start.
//!
//! Signals that ask the invoking process for the end meanwhile are passed on to the daemon.
//!
//! On the pipe between them, each message of the daemon ends with NUL: first `PID` and the number of its process,
//! then `READY`, or a byte with the exit code and a sentence.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use daemonize::{Daemonize, Outcome, Stdio};
use nix::sys::signal::kill;
use nix::unistd::{Pid, dup2_stderr, dup2_stdout};

use crate::Error;
use crate::failed::Failed;
use crate::sys::fd::wait_readable;
use crate::sys::signal::StopsHeld;

/// The umask of a daemon that was not told another.
pub const DEFAULT_UMASK: u32 = 0o022;

const READY: &[u8] = b"READY";
const PID: &[u8] = b"PID";

/// How often the invoking process looks whether a signal asks it for the end.
const LOOK: Duration = Duration::from_millis(50);

/// Which of the two processes returned from [`detach`].
#[derive(Debug)]
#[must_use]
pub enum Launch {
    /// The one that was invoked, and the daemon serves: end with success.
    Invoker,
    /// The daemon. It must call [`Notifier::ready`] or [`Notifier::failed`].
    Daemon(Notifier),
}

/// Continues in a new process with its own session, `/` as its working directory, and the given
/// umask. The invoking process waits until the daemon is ready.
///
/// Take inherited sockets, make paths absolute and read the configuration first: the process id and
/// the working directory change.
///
/// # Errors
///
/// In the invoking process: what the daemon gave as its reason, with the same exit code;
/// [`Error::Internal`] if it died without a word; [`Error::Os`] if there is no daemon.
///
/// # Fork safety
///
/// Forks: the process must have one thread, and SIGCHLD should not be ignored yet. The daemon is
/// not a child of the invoking process. Where SIGTERM, SIGINT and SIGQUIT have been blocked before, none is lost
/// between the two.
pub fn detach(umask: u32) -> Result<Launch, Failed> {
    let cannot = |cause: io::Error| Error::os("cannot go into the background", cause);
    let (reader, writer) = io::pipe().map_err(cannot)?;
    // opened here, because a chroot(2) may hide it before it is needed
    let null = OpenOptions::new().write(true).open("/dev/null").map_err(cannot)?;
    // otherwise the process in the middle, which ends by exit(3), would write the same bytes again
    io::stdout().flush().map_err(cannot)?;
    let daemonize = Daemonize::new().umask(umask).stdout(Stdio::keep()).stderr(Stdio::keep());
    match daemonize.execute() {
        Outcome::Parent(outcome) => {
            drop(writer);
            // the pipe knows best: waiting fails, and harms nothing, where SIGCHLD is ignored
            if is_ready(reader)? { Ok(Launch::Invoker) } else { Err(died(outcome.err()).into()) }
        }
        Outcome::Child(Ok(_)) => {
            let mut notifier = Notifier { writer, null };
            // the invoking process may have gone away, and then passes on no signal
            let _ = notifier.send(&[PID, std::process::id().to_string().as_bytes()].concat());
            Ok(Launch::Daemon(notifier))
        }
        Outcome::Child(Err(error)) => {
            // the intermediate process, which has no waiting parent: the invoker reports it
            let error = Error::os("cannot go into the background", io::Error::other(error));
            let exit_code = error.exit_code();
            Notifier { writer, null }.failed(&error.into());
            std::process::exit(exit_code.into())
        }
    }
}

/// The daemon's way to tell the invoking process how its start went.
///
/// # Fork safety
///
/// A child that holds the pipe open hides the daemon's death from the invoking process: close it in
/// children that are forked before [`Notifier::ready`]; [`Notifier::descriptors`] has it.
#[derive(Debug)]
pub struct Notifier {
    writer: PipeWriter,
    null: File,
}

impl Notifier {
    /// Makes standard output and error `/dev/null`, and lets the invoking process end with success.
    ///
    /// The streams go first: when the invoking process has ended, nothing more is written to its
    /// terminal, and a process that waits for the end of its output is not kept waiting by a daemon.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the streams can't be replaced. An invoking process that has gone away is no
    /// error.
    pub fn ready(mut self) -> Result<(), Error> {
        dup2_stdout(&self.null)
            .and_then(|()| dup2_stderr(&self.null))
            .map_err(|cause| Error::os("cannot leave the standard streams", cause))?;
        // before the pipe is closed, so that no one takes success for death
        let _ = self.send(READY);
        Ok(())
    }

    /// What is open until [`Notifier::ready`], and of no use to a child.
    #[must_use]
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.writer.as_raw_fd(), self.null.as_raw_fd()]
    }

    /// What the standard streams become, also for workers that are forked before [`Notifier::ready`].
    ///
    /// # Errors
    ///
    /// As dup(2).
    pub fn null(&self) -> Result<File, Error> {
        self.null.try_clone().map_err(|cause| Error::os("cannot duplicate a descriptor", cause))
    }

    /// Lets the invoking process say why there is no daemon, and end with the exit code of that
    /// error. The daemon itself then ends without a message of its own.
    pub fn failed(mut self, failed: &Failed) {
        let mut message = vec![failed.exit_code];
        message.extend(failed.why.bytes().filter(|byte| *byte != 0));
        // there is no other place to report it
        let _ = self.send(&message);
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.writer.write_all(&[message, b"\0"].concat())
    }
}

/// Reads the daemon's messages; false if it died before the last one.
fn is_ready(mut reader: PipeReader) -> Result<bool, Failed> {
    let cannot = |cause| Error::os("cannot hear from the daemon", cause);
    let (mut heard, mut chunk, mut daemon) = (Vec::new(), [0; 512], None);
    let stops = StopsHeld::hold();
    // not to the end of the file: a worker may hold the pipe open
    loop {
        while let Some(end) = heard.iter().position(|byte| *byte == 0) {
            let message: Vec<u8> = heard.drain(..=end).take(end).collect();
            match message.as_slice() {
                READY => return Ok(true),
                [b'P', b'I', b'D', pid @ ..] => daemon = String::from_utf8_lossy(pid).parse().ok(),
                [code, text @ ..] => {
                    return Err(Failed::new(*code, String::from_utf8_lossy(text).into_owned()));
                }
                [] => return Ok(false),
            }
        }
        if let Some(signal) = daemon.and_then(|_| stops.take()) {
            // it says what came of that, or has gone already
            let _ = daemon.map(|pid| kill(Pid::from_raw(pid), signal));
        }
        if wait_readable(&reader, LOOK) {
            match reader.read(&mut chunk).map_err(cannot)? {
                0 => return Ok(false),
                n => heard.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

fn died(outcome: Option<daemonize::Error>) -> Error {
    match outcome {
        Some(error) => Error::os("cannot go into the background", io::Error::other(error)),
        None => Error::Internal("the daemon died before it was ready".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    fn pair() -> (PipeReader, Notifier) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Notifier { writer, null: File::open("/dev/null").unwrap() })
    }

    #[test]
    fn readiness_is_heard_while_a_worker_holds_the_pipe() {
        let (reader, mut notifier) = pair();
        notifier.send(READY).unwrap();
        assert!(is_ready(reader).unwrap());
    }

    #[test]
    fn a_failure_keeps_its_code_and_its_causes() {
        let cause = io::Error::other("line 1\nline 2\0");
        let errors = [
            Failed::from(Error::Unavailable(Failure::new("a", cause))),
            Failed::data("a".into()),
            Failed::by_signal(15, "a".into()),
        ];
        for error in errors {
            let (reader, notifier) = pair();
            notifier.failed(&error);
            let heard = is_ready(reader).unwrap_err();
            assert_eq!((heard.exit_code, heard.why), (error.exit_code, error.why.replace('\0', "")));
        }
    }

    #[test]
    fn silence_is_death() {
        for last_words in ["", "REA", "READY", "PID1", "PID1\0", "PID\0", "\0", "\x45half a sen"] {
            let (reader, mut notifier) = pair();
            notifier.writer.write_all(last_words.as_bytes()).unwrap();
            drop(notifier);
            assert!(!is_ready(reader).unwrap(), "{last_words:?}");
        }
    }
}
