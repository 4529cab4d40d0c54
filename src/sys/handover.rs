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

/// Takes the descriptors, each with its name, that were handed over as sd_listen_fds(3) says; they
/// close at exec from now on. None, if they are meant for another process.
///
/// # Errors
///
/// `InvalidInput` where the variables contradict themselves, `EBADF` where a descriptor is not open;
/// `Unsupported` if the process has several threads.
pub(crate) fn take_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    require_single_thread()?;
    let handed_over = sd_notify::listen_fds_with_names().map(Iterator::collect::<Vec<_>>);
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        take_variable(name)?;
    }
    // SAFETY: LISTEN_PID said that these open descriptors are for this process to own, and nobody else
    // here does: the variables are gone, so no second call claims them.
    Ok(handed_over?.into_iter().map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name)).collect())
}
