//! /proc, also after chroot(2) has put it out of reach: proc(5).
//!
//! `/proc/self` is the process that looks it up, also by a descriptor that its parent opened.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// What all paths that are given here begin with.
const ROOT: &[u8] = b"/proc/";

/// /proc, if it was opened before a change of the root directory.
static KEPT: OnceLock<OwnedFd> = OnceLock::new();

/// Opens /proc for as long as this process lives; `None` where there is none.
///
/// A child that closes the descriptor must not use this module any more.
pub fn keep() -> Option<RawFd> {
    if KEPT.get().is_none() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let _ = KEPT.set(openat(CWD, c"/proc", flags, Mode::empty()).ok()?);
    }
    kept()
}

/// The descriptor of /proc, if it is [kept](keep).
pub fn kept() -> Option<RawFd> {
    KEPT.get().map(AsRawFd::as_raw_fd)
}

/// Opens what has this path.
pub fn open(path: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let (directory, path) = locate(path);
    Ok(openat(directory, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Reads the text of the file that has this path. A name that a process has given itself may be no text; what is none of it
/// is replaced.
pub fn read(path: &CStr) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::from(open(path, OFlags::RDONLY)?).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How many threads this process has.
#[cfg(target_os = "linux")]
pub fn threads() -> io::Result<u64> {
    let (directory, path) = locate(c"/proc/self/task");
    let task = rustix::fs::statat(directory, path, rustix::fs::AtFlags::empty())?;
    // each is one link of the directory, beside "." and ".."
    Ok((task.st_nlink as u64).saturating_sub(2))
}

/// The address that the main stack began at when this program was executed: the arguments lie above it.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub(crate) fn start_of_stack() -> Option<usize> {
    let stat = read(c"/proc/self/stat").ok()?;
    // the 28th field; the second one is a name in brackets, which may contain anything
    stat.rsplit_once(')')?.1.split_whitespace().nth(25)?.parse().ok()
}

fn locate(path: &CStr) -> (BorrowedFd<'static>, &CStr) {
    let below = path.to_bytes_with_nul().strip_prefix(ROOT);
    let below = below.and_then(|below| CStr::from_bytes_with_nul(below).ok());
    match KEPT.get().zip(below) {
        Some((directory, below)) => (directory.as_fd(), below),
        None => (CWD, path),
    }
}
