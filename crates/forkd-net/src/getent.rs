//! Asks the name service (users, groups, hosts) through the program getent(1).
//!
//! The name service of glibc (nsswitch.conf(5)) loads plug-ins into the process that asks. In a
//! static program that is not possible, and getpwnam(3) or getaddrinfo(3) may crash it. getent asks
//! for us, with the machine's full configuration, and is a child that ends.
//!
//! The invariant: nothing in forkd calls the name service from within a static glibc program.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use forkd_sys::program::spawn_helper;
use forkd_sys::signal::{StopsHeld, pending_stop};

/// How long an answer may take: a master that asks for a new name serves no client meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to look meanwhile whether a signal asks this process to end.
const LOOK: Duration = Duration::from_millis(50);

/// What the name service knows about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Lines in the form of the database's file.
    Known(String),
    /// There is no such name.
    Unknown,
    /// There is no getent, or it doesn't know this database: read the file instead.
    NoService,
}

/// Looks up a name in a database such as `passwd`, `group`, `initgroups` or `ahosts`.
///
/// # Errors
///
/// What starting the program, or waiting for it, failed with; `TimedOut` if there is no answer, `Interrupted` if a
/// signal asks this process to end meanwhile.
///
/// # Fork safety
///
/// Starts a child and waits for it. In a master, which ignores SIGCHLD, the kernel keeps no exit code
/// (`ECHILD`; wait(2)): there an answer of nothing means that the name is unknown.
pub fn ask(database: &str, name: &str) -> io::Result<Answer> {
    // a name like this is in no database, and could pass for an option or a line of its own
    if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_control() || c == ':') {
        return Ok(Answer::Unknown);
    }
    let mut command = Command::new("getent");
    command.args([database, name]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // kept back until the end, when the caller's mask says what becomes of it
    let _held = StopsHeld::hold();
    let mut getent = match spawn_helper(&mut command) {
        // a hardened service may start no other program
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(Answer::NoService);
        }
        result => result?,
    };
    let answer = getent.stdout.take().map_or(Ok(Vec::new()), |output| read_until_end(output, ANSWER_TIMEOUT));
    if answer.is_err() {
        let _ = getent.kill();
    }
    let status = getent.wait();
    let lines =
        answer.map_err(|error| io::Error::new(error.kind(), format!("getent {database} {name}: {error}")))?;
    let known = || Answer::Known(String::from_utf8_lossy(&lines).into_owned());
    let status = match status {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
            return Ok(if lines.is_empty() { Answer::Unknown } else { known() });
        }
        status => status?,
    };
    // getent(1): 1 is an unknown database, 2 an unknown name
    match status.code() {
        Some(0) => Ok(known()),
        Some(2) => Ok(Answer::Unknown),
        Some(1) => Ok(Answer::NoService),
        _ => Err(io::Error::other(format!("getent {database} {name}: {status}"))),
    }
}

/// Reads all that comes.
fn read_until_end(mut output: ChildStdout, patience: Duration) -> io::Result<Vec<u8>> {
    let until = Instant::now() + patience;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.min(LOOK)).unwrap_or(PollTimeout::ZERO);
        let polled = poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], timeout);
        if let Some(signal) = pending_stop() {
            return Err(io::Error::new(ErrorKind::Interrupted, format!("{signal} asks for the end")));
        }
        match polled {
            Ok(0) if left.is_zero() => {
                let why = format!("no answer from the name service within {patience:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            Ok(0) => {}
            Ok(_) => match output.read(&mut chunk)? {
                0 => return Ok(bytes),
                n => bytes.extend_from_slice(&chunk[..n]),
            },
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_not_waited_for_for_ever() {
        let say = |script| {
            let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let heard = read_until_end(shell.stdout.take().unwrap(), Duration::from_millis(500));
            shell.kill().unwrap();
            shell.wait().unwrap();
            heard
        };
        let error = say("echo x; exec sleep 60").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no answer from the name service within 500ms");
        assert_eq!(say("echo x; echo y").unwrap(), b"x\ny\n");
    }

    #[test]
    fn a_name_that_is_none_is_not_asked_for() {
        for name in ["", "-h", "--help", "a:b", "a\nb", "a\0b"] {
            assert_eq!(ask("passwd", name).unwrap(), Answer::Unknown, "{name:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn root_is_known_and_a_stranger_is_not() {
        let root = ask("passwd", "root").unwrap();
        assert!(matches!(&root, Answer::Known(line) if line.starts_with("root:")), "{root:?}");
        assert_eq!(ask("passwd", "no-such-user-here").unwrap(), Answer::Unknown);
    }
}
