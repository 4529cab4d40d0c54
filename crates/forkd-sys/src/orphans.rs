//! Processes whose parent has ended, in a process that runs one program at most and ends after it.
//!
//! Invariant: what descends from the program descends from this process, into whichever process group or session it has
//! gone, and what has ended of it does not stay a zombie.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Whether this process adopts orphans.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// Makes this process the parent of each of its descendants whose own one ends, where the system can do that (Linux).
/// No other code in this process may wait for children of its own.
pub fn adopt() {
    #[cfg(target_os = "linux")]
    if !super::portable() && rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok() {
        ADOPTS.store(true, Ordering::Relaxed);
    }
}

/// Whether a descendant of this process, whose program has been waited for, is left; `None` where it adopts none.
pub(super) fn are_left() -> Option<bool> {
    if !ADOPTS.load(Ordering::Relaxed) {
        return None;
    }
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Some(true),
            Ok(_) | Err(Errno::EINTR) => {}
            // ECHILD
            Err(_) => return Some(false),
        }
    }
}

/// Tells of orphans that end.
#[derive(Debug)]
pub struct Orphans(OwnedFd);

impl Orphans {
    /// `None` where this process adopts none. SIGCHLD must be blocked.
    pub(super) fn new() -> Option<Self> {
        #[cfg(target_os = "linux")]
        if ADOPTS.load(Ordering::Relaxed) {
            use nix::sys::signal::{SigSet, Signal};
            use nix::sys::signalfd::{SfdFlags, SignalFd};
            let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
            // without it, they are waited for at the end
            let told = SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), flags);
            return told.ok().map(|told| Self(told.into()));
        }
        None
    }

    /// Waits for those that have ended, but not for the program.
    #[cfg(target_os = "linux")]
    pub(super) fn reap(&self, program: u32) {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let mut told = [0; 128];
        while rustix::io::read(&self.0, &mut told).is_ok() {}
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        while let Ok(Some(pid)) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT).map(|status| status.pid())
            && pid.as_raw().cast_unsigned() != program
        {
            let _ = waitid(Id::Pid(pid), ended);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn reap(&self, _program: u32) {}
}

impl AsFd for Orphans {
    /// Is readable when one has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
