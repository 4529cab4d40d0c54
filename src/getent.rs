//! Asks the name service (users, groups, hosts) through the program getent(1).
//!
//! The name service of glibc (nsswitch.conf(5)) loads plug-ins into the process that asks. In a
//! static program that is not possible, and getpwnam(3) or getaddrinfo(3) may crash it. getent asks
//! for us, with the machine's full configuration, and is a child that ends.
//!
//! The invariant: nothing in forkd calls the name service from within a static glibc program.

use std::io;
use std::process::Command;

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
/// Waits for a child of its own: not once SIGCHLD is ignored, because then the kernel reaps the
/// child and its exit code is lost (`ECHILD`; wait(2)).
pub(crate) fn ask(database: &str, name: &str) -> io::Result<Answer> {
    // a name like this is in no database, and could pass for an option or a line of its own
    if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_control() || c == ':') {
        return Ok(Answer::Unknown);
    }
    let output = match Command::new("getent").args([database, name]).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::NoService),
        result => result?,
    };
    // getent(1): 1 is an unknown database, 2 an unknown name
    match output.status.code() {
        Some(0) => Ok(Answer::Known(String::from_utf8_lossy(&output.stdout).into_owned())),
        Some(2) => Ok(Answer::Unknown),
        Some(1) => Ok(Answer::NoService),
        _ => Err(io::Error::other(format!("getent {database} {name}: {}", output.status))),
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
