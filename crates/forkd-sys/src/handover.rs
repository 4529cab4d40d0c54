//! What a program gets from its parent, or from the program that its process ran before: variables of the environment,
//! and open descriptors.
//!
//! Invariant: each is taken once, by a process with one thread, and is gone from the environment
//! then, so that no program started later takes it for its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::fork::require_single_thread;

/// Takes a variable out of the environment.
///
/// # Errors
///
/// `Unsupported` if the process has several threads, one of which may be reading the environment.
pub fn take_variable(name: &str) -> io::Result<Option<OsString>> {
    require_single_thread()?;
    let value = std::env::var_os(name);
    // SAFETY: there is no other thread that could read or write the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Ok(value)
}

/// Sets a variable of the environment, or takes it out.
///
/// # Errors
///
/// As [`take_variable`].
pub fn put_variable(name: &str, value: Option<&str>) -> io::Result<()> {
    let Some(value) = value else { return take_variable(name).map(|_| ()) };
    require_single_thread()?;
    // SAFETY: there is no other thread that could read or write the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

/// Takes the descriptors, each with its name, that were handed over as sd_listen_fds(3) says; they
/// close at exec from now on. None, if they are meant for another process: then the other variables mean
/// nothing, whatever they say.
///
/// # Errors
///
/// `InvalidInput` where the variables are for this process and contradict themselves, `EBADF` where a
/// descriptor is not open; `Unsupported` if the process has several threads.
pub fn take_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    require_single_thread()?;
    let variable = |name: &str| std::env::var_os(name);
    let handed_over = if are_for_this_process(variable) {
        for name in ["LISTEN_PID", "LISTEN_FDS"] {
            // the crate knows digits alone
            if let Some(number) = number(variable(name)) {
                put_variable(name, Some(&number.to_string()))?;
            }
        }
        sd_notify::listen_fds_with_names().map(Iterator::collect::<Vec<_>>)
    } else {
        Ok(Vec::new())
    };
    for name in ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        take_variable(name)?;
    }
    // SAFETY: LISTEN_PID said that these open descriptors are for this process to own, and no other code
    // here does: the variables are gone, so no second call claims them.
    Ok(handed_over?.into_iter().map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name)).collect())
}

/// Descriptors that the program before this one has left open, each to be taken once.
#[derive(Debug, Default)]
pub struct LeftOpen(BTreeMap<RawFd, OwnedFd>);

impl LeftOpen {
    /// Takes those with these numbers; they close at exec from now on.
    ///
    /// # Errors
    ///
    /// `EBADF` where one is not open; `InvalidInput` where one was not left by another program, is named twice, or is a
    /// standard stream, which nothing owns; `Unsupported` if the process has several threads.
    pub fn take(numbers: impl IntoIterator<Item = RawFd>) -> io::Result<Self> {
        require_single_thread()?;
        let mut left = BTreeMap::new();
        for number in numbers {
            left.insert(number, take_left_open(number)?);
        }
        Ok(Self(left))
    }

    /// The descriptor with this number.
    ///
    /// # Errors
    ///
    /// `NotFound` if it was not left open, or has been removed.
    pub fn remove(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        self.0.remove(&number).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("descriptor {number} was not left open"))
        })
    }
}

fn take_left_open(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is used for fcntl(2) alone, which finds out whether there is such a descriptor.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    // what this program opens closes at exec, and so does what has been taken
    if fcntl_getfd(descriptor)?.contains(FdFlags::CLOEXEC) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    keep_at_exec(descriptor, false)?;
    // SAFETY: it is open, and was left open across exec(2) by the program that owned it; no code of this one does: all that
    // this one opens has the flag that this one had not.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Descriptors that stay open when this process executes another program, as long as this is there.
#[derive(Debug)]
pub struct StayOpen(Vec<RawFd>);

impl StayOpen {
    /// Has those with these numbers stay open.
    ///
    /// # Errors
    ///
    /// As fcntl(2): `EBADF` where one is not open.
    pub fn new(numbers: impl IntoIterator<Item = RawFd>) -> io::Result<Self> {
        let mut stay = Self(Vec::new());
        for number in numbers {
            if number < 0 {
                return Err(rustix::io::Errno::BADF.into());
            }
            // SAFETY: the number is used for fcntl(2) alone, which changes a flag of the descriptor if there is one.
            keep_at_exec(unsafe { BorrowedFd::borrow_raw(number) }, true)?;
            stay.0.push(number);
        }
        Ok(stay)
    }
}

impl Drop for StayOpen {
    fn drop(&mut self) {
        for &number in &self.0 {
            // SAFETY: as above. It was open then; if it is not any more, there is nothing to do.
            let _ = keep_at_exec(unsafe { BorrowedFd::borrow_raw(number) }, false);
        }
    }
}

/// Writes a text to a file without a name, to be read from its beginning by another program.
///
/// # Errors
///
/// As write(2) and [`without_name`](super::fd::without_name).
pub fn write_letter(text: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::from(super::fd::without_name()?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
}

/// Has a descriptor stay open, or not, when this process executes another program.
fn keep_at_exec(descriptor: impl AsFd, keep: bool) -> io::Result<()> {
    let flags = fcntl_getfd(&descriptor)?;
    fcntl_setfd(&descriptor, if keep { flags - FdFlags::CLOEXEC } else { flags | FdFlags::CLOEXEC })?;
    Ok(())
}

/// Whether the variables are for this process, and there are descriptors. A process hands its environment
/// down, so they may be those of a parent; and its pid may have been another process's by then, which
/// the number in LISTEN_PIDFDID tells apart.
fn are_for_this_process(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_recycled = match (number(variable("LISTEN_PIDFDID")), pidfd_id()) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    };
    let is_ours = number(variable("LISTEN_PID")) == Some(std::process::id().into()) && !is_recycled;
    let count = variable("LISTEN_FDS");
    is_ours && count.is_some() && number(count) != Some(0)
}

/// Reads a number as sd_listen_fds(3) does, by way of strtoul(3): after blanks and a sign, decimal, or after `0x` and
/// `0` hexadecimal and octal; nothing may follow.
fn number(value: Option<OsString>) -> Option<u64> {
    let value = value?;
    let text = value.to_str()?.trim_start_matches([' ', '\t', '\n', '\r']);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix('0') {
        Some(rest) if rest.starts_with(['x', 'X']) => (&rest[1..], 16),
        Some(rest) if !rest.is_empty() => (rest, 8),
        _ => (text, 10),
    };
    // the parser of integers would take a second sign
    digits.chars().all(|digit| digit.is_digit(radix)).then(|| u64::from_str_radix(digits, radix).ok())?
}

/// The number that no other process gets before the next boot, where the system has one (Linux 6.9: pidfs).
#[cfg(target_os = "linux")]
fn pidfd_id() -> Option<u64> {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    const PIDFS_MAGIC: u64 = 0x5049_4446;
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let is_pidfs = rustix::fs::fstatfs(&pidfd).ok()?.f_type as u64 == PIDFS_MAGIC;
    is_pidfs.then(|| rustix::fs::fstat(&pidfd).ok()).flatten().map(|stat| stat.st_ino)
}

#[cfg(not(target_os = "linux"))]
fn pidfd_id() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_this_process_is_for_it() {
        let ours = std::process::id().to_string();
        let are = |variables: &[(&str, &str)]| {
            let value = |name: &str| variables.iter().find(|variable| variable.0 == name);
            are_for_this_process(|name| value(name).map(|variable| variable.1.into()))
        };
        assert!(are(&[("LISTEN_PID", &ours), ("LISTEN_FDS", "1")]));
        // what contradicts itself is said, as it is for us
        assert!(are(&[("LISTEN_PID", &ours), ("LISTEN_FDS", "x"), ("LISTEN_FDNAMES", "a:b")]));
        // as sd_listen_fds(3) reads it
        for pid in [format!(" {ours}"), format!("\t\n +{ours}"), format!("{:#x}", std::process::id())] {
            assert!(are(&[("LISTEN_PID", &pid), ("LISTEN_FDS", " 1")]), "{pid:?}");
        }
        let with_blank = format!("{ours} ");
        for pid in ["1", "", "x", "-1", "99999999999999999999", &with_blank, "0x"] {
            assert!(!are(&[("LISTEN_PID", pid), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a")]), "{pid:?}");
        }
        assert!(!are(&[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")]));
        assert!(!are(&[("LISTEN_PID", &ours), ("LISTEN_FDNAMES", "a")]));
        for none in ["0", " 0", "00"] {
            assert!(!are(&[("LISTEN_PID", &ours), ("LISTEN_FDS", none), ("LISTEN_FDNAMES", "")]), "{none:?}");
        }
    }

    #[test]
    fn a_number_is_read_as_strtoul_does() {
        for (text, expected) in [
            ("7", Some(7)),
            (" \t\r\n7", Some(7)),
            ("+7", Some(7)),
            ("010", Some(8)),
            ("0X1f", Some(31)),
            ("0", Some(0)),
            ("", None),
            (" ", None),
            ("7 ", None),
            ("-7", None),
            ("++7", None),
            ("0x+7", None),
            ("0x", None),
            ("08", None),
            ("7x", None),
        ] {
            assert_eq!(number(Some(text.into())), expected, "{text:?}");
        }
        assert_eq!(number(None), None);
    }

    #[test]
    fn a_pid_that_was_another_s_is_told_apart() {
        let Some(id) = pidfd_id() else { return };
        let ours = std::process::id().to_string();
        let are = |id: u64| {
            are_for_this_process(|name| match name {
                "LISTEN_PID" => Some(ours.clone().into()),
                "LISTEN_PIDFDID" => Some(id.to_string().into()),
                "LISTEN_FDS" => Some("1".into()),
                _ => None,
            })
        };
        assert!(are(id) && !are(id + 1));
    }
}
