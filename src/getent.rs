//! Asks the name service (users, groups, hosts) through the program getent(1).
//!
//! The name service of glibc (nsswitch.conf(5)) loads plug-ins into the process that asks. In a
//! static program that is not possible, and getpwnam(3) or getaddrinfo(3) may crash it. getent asks
//! for us, with the machine's full configuration, and is a child that ends.
//!
//! The invariant: nothing in forkd calls the name service from within a static glibc program.

use std::io::{self, ErrorKind, Read};
use std::process::{Command, Stdio};

/// What the name service knows about a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
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
/// What starting the program, or waiting for it, failed with.
///
/// # Fork safety
///
/// Starts a child and waits for it. In a master, which ignores SIGCHLD, the kernel keeps no exit code
/// (`ECHILD`; wait(2)): there an answer of nothing means that the name is unknown.
pub(crate) fn ask(database: &str, name: &str) -> io::Result<Answer> {
    // a name like this is in no database, and could pass for an option or a line of its own
    if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_control() || c == ':') {
        return Ok(Answer::Unknown);
    }
    let mut command = Command::new("getent");
    command.args([database, name]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut getent = match command.spawn() {
        // a hardened service may start no other program
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(Answer::NoService);
        }
        result => result?,
    };
    let mut lines = Vec::new();
    if let Some(mut output) = getent.stdout.take() {
        output.read_to_end(&mut lines)?;
    }
    let known = || Answer::Known(String::from_utf8_lossy(&lines).into_owned());
    let status = match getent.wait() {
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

#[cfg(test)]
mod tests {
    use super::*;

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
