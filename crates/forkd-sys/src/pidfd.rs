//! How a watched child died, asked of the kernel.
//!
//! With SIGCHLD ignored no process can wait(2) for a child; on Linux 6.15 and later the wait status
//! is kept with the pidfd and answered by `PIDFD_GET_INFO` (pidfs(5), `linux/pidfd.h`).

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

/// How a process ended, as wait(2) would have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It left with this status.
    Exit(u8),
    /// It was killed by this signal number.
    Signal(u8),
    /// The kernel does not say (before Linux 6.15, and on the portable path).
    Unknown,
}

/// Says how the child behind `watch` ended; it must be readable, that is, the child dead.
#[cfg(target_os = "linux")]
pub fn how_it_ended(watch: &OwnedFd) -> Ended {
    if super::portable() {
        return Ended::Unknown;
    }
    let Some(mut info) = linux::info(watch) else { return Ended::Unknown };
    if info.mask & linux::PIDFD_INFO_EXIT == 0 {
        // Readable at exit, but reaped a moment later: POLLHUP, which needs no asking, tells of that.
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::from(50_u8));
        match linux::info(watch) {
            Some(later) if later.mask & linux::PIDFD_INFO_EXIT != 0 => info = later,
            _ => return Ended::Unknown,
        }
    }
    let status = info.exit_code;
    if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status) as u8)
    } else {
        Ended::Exit(libc::WEXITSTATUS(status) as u8)
    }
}

/// Elsewhere only the child's own record in the scoreboard tells.
#[cfg(not(target_os = "linux"))]
pub fn how_it_ended(_watch: &OwnedFd) -> Ended {
    Ended::Unknown
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsRawFd, OwnedFd};

    pub(super) const PIDFD_INFO_EXIT: u64 = 1 << 3;

    /// `struct pidfd_info` of linux/pidfd.h, first published size (64 bytes).
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct PidfdInfo {
        pub(super) mask: u64,
        cgroupid: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ruid: u32,
        rgid: u32,
        euid: u32,
        egid: u32,
        suid: u32,
        sgid: u32,
        fsuid: u32,
        fsgid: u32,
        pub(super) exit_code: i32,
    }

    /// `None` before Linux 6.13.
    pub(super) fn info(watch: &OwnedFd) -> Option<PidfdInfo> {
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
        // SAFETY: the ioctl number carries the size of `info`, which is what the kernel reads and writes.
        let answer = unsafe { pidfd_get_info(watch.as_raw_fd(), &raw mut info) };
        answer.is_ok().then_some(info)
    }

    nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);
}

/// Whether `pid` is a living child of this process.
///
/// Exact even if the number was given to another process since: a process that is not our child
/// is `ECHILD`. Nothing is reaped, as SIGCHLD is ignored and no child ever waits for it.
pub fn is_our_child(pid: u32) -> bool {
    child_pid(pid).is_some_and(is_alive)
}

/// Whether a child of this process is left, or is still about to end.
pub fn has_children() -> bool {
    !matches!(waitpid(None, WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD))
}

/// To waitpid(2) and kill(2), 0 and what is negative mean groups, or all processes; and 1 is init. What a
/// slot says is what a child may have written there.
fn child_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|&pid| pid > 1).map(Pid::from_raw)
}

/// Asked for each child that dies, so through rustix, which has no `errno`: to write that costs the master a page fault
/// after each fork.
fn is_alive(pid: Pid) -> bool {
    matches!(waitpid(rustix::process::Pid::from_raw(pid.as_raw()), WaitOptions::NOHANG), Ok(None))
}

/// Sends a signal to `pid` if that is a living child of ours; tells whether it was.
pub fn signal_child(pid: u32, signal: Signal) -> bool {
    child_pid(pid).is_some_and(|pid| is_alive(pid) && kill(pid, signal).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_means_many_is_no_child() {
        // a child that "all processes" would include
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        assert!(is_our_child(child.id()));
        for pid in [0, 1, u32::MAX, -2_i32 as u32, i32::MIN as u32] {
            assert!(!is_our_child(pid), "{pid}");
            assert!(!signal_child(pid, Signal::SIGURG), "{pid}");
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}
