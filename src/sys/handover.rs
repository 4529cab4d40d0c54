//! What whoever starts a program hands it: variables of the environment, and open descriptors.
//!
//! Invariant: each is taken once, by a process with one thread, and is gone from the environment
//! then, so that no program started later takes it for its own.

use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::fork::require_single_thread;

/// Takes a variable out of the environment.
///
/// # Errors
///
/// `Unsupported` if the process has several threads, one of which may be reading the environment.
pub(crate) fn take_variable(name: &str) -> io::Result<Option<OsString>> {
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
pub(crate) fn put_variable(name: &str, value: Option<&str>) -> io::Result<()> {
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
pub(crate) fn take_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    require_single_thread()?;
    let handed_over = match are_for_this_process(|name| std::env::var_os(name)) {
        true => sd_notify::listen_fds_with_names().map(Iterator::collect::<Vec<_>>),
        false => Ok(Vec::new()),
    };
    for name in ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        take_variable(name)?;
    }
    // SAFETY: LISTEN_PID said that these open descriptors are for this process to own, and nobody else
    // here does: the variables are gone, so no second call claims them.
    Ok(handed_over?.into_iter().map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name)).collect())
}

/// Whether the variables are for this process, and there are descriptors. A process hands its environment
/// down, so they may be those of a parent; and its pid may have been another process's by then, which
/// the number in LISTEN_PIDFDID tells apart.
fn are_for_this_process(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    let is_recycled = match (number("LISTEN_PIDFDID"), pidfd_id()) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    };
    let is_ours = number("LISTEN_PID") == Some(std::process::id().into()) && !is_recycled;
    is_ours && variable("LISTEN_FDS").is_some_and(|count| count != "0")
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
        for pid in ["1", "", "x", "-1", "99999999999999999999"] {
            assert!(!are(&[("LISTEN_PID", pid), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a")]), "{pid:?}");
        }
        assert!(!are(&[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")]));
        assert!(!are(&[("LISTEN_PID", &ours), ("LISTEN_FDNAMES", "a")]));
        assert!(!are(&[("LISTEN_PID", &ours), ("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")]));
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
