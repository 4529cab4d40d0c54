//! How a watched child died, asked of the kernel.
//!
//! With SIGCHLD ignored no process can wait(2) for a child; on Linux 6.15 and later the wait status
//! is kept with the pidfd and answered by `PIDFD_GET_INFO` (pidfs(5), `linux/pidfd.h`).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
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

    use nix::sys::signal::Signal;

    use crate::raw::syscall4;

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

    /// `PIDFD_SIGNAL_PROCESS_GROUP` of linux/pidfd.h.
    const PROCESS_GROUP: usize = 1 << 2;

    /// Whether there was a process in the group; `None` before Linux 6.9, and of a descriptor that is no pidfd.
    pub(super) fn signal_group(watch: &OwnedFd, signal: Signal) -> Option<bool> {
        let (watch, signal) = (watch.as_raw_fd() as usize, signal as usize);
        // SAFETY: pidfd_send_signal(2) takes a descriptor and numbers here, and no information that it would read.
        let sent = unsafe { syscall4(libc::SYS_pidfd_send_signal, watch, signal, 0, PROCESS_GROUP) };
        match sent {
            Ok(_) => Some(true),
            Err(error) => (error.raw_os_error() == Some(libc::ESRCH)).then_some(false),
        }
    }
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

/// Signals the process group that the child with this number led, also when that has died; tells whether there was a process
/// to signal. It is `false`, too, of a child that does not lead a group yet.
///
/// By a pidfd (Linux 6.9) this is exact, however long ago the child has died. On older kernels, and on the portable path, it
/// goes by the number. That is exact as long as the child lives. After that it must be asked soon: no process gets the
/// number of a group that has members, so a process that has it now is a stranger, and nothing is signalled. What
/// can't be told from the group that is meant is one of a stranger that got the number since, and is dead already: for that,
/// all numbers must have been given out once in the meantime.
pub fn signal_group(watch: &OwnedFd, pid: u32, signal: Signal) -> bool {
    let Some(leader) = child_pid(pid) else { return false };
    #[cfg(target_os = "linux")]
    if !super::portable()
        && let Some(outcome) = linux::signal_group(watch, signal)
    {
        return outcome;
    }
    let _ = watch;
    (is_alive(leader) || is_free(leader)) && killpg(leader, signal).is_ok()
}

/// Whether no process has this number. One that is just dying has it for a moment longer than its parent sees it as a child.
fn is_free(pid: Pid) -> bool {
    const LOOKS: u32 = 10;
    let is_free = || kill(pid, None) == Err(nix::errno::Errno::ESRCH);
    (0..LOOKS).any(|look| {
        if look > 0 {
            super::fd::pause(Duration::from_millis(1));
        }
        is_free()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

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

    /// What a child is watched by: a pidfd, or on older kernels a descriptor that says nothing of groups.
    fn watches(pid: u32) -> Vec<OwnedFd> {
        let pipe = crate::fd::pipe().expect("pipe").0;
        #[cfg(target_os = "linux")]
        if !crate::portable() {
            use rustix::process::{Pid, PidfdFlags, pidfd_open};
            let pid = Pid::from_raw(pid.cast_signed()).expect("a number");
            return vec![pidfd_open(pid, PidfdFlags::empty()).expect("pidfd"), pipe];
        }
        let _ = pid;
        vec![pipe]
    }

    fn leader(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        command.spawn().expect("spawn")
    }

    #[test]
    fn a_group_is_signalled_also_when_its_leader_has_died() {
        for way in 0..watches(std::process::id()).len() {
            // the leader leaves a process behind, which has the pipe
            let mut leader = leader("sleep 1000 & read end");
            let watch = watches(leader.id()).remove(way);
            // a signal that changes nothing
            assert!(signal_group(&watch, leader.id(), Signal::SIGURG), "while it lives, {way}");
            drop(leader.stdin.take());
            leader.wait().expect("wait");
            assert!(signal_group(&watch, leader.id(), Signal::SIGKILL), "{way}");
            let mut said = String::new();
            leader.stdout.take().expect("stdout").read_to_string(&mut said).expect("its end");
        }
    }

    #[test]
    fn a_group_that_is_empty_is_not_signalled() {
        for way in 0..watches(std::process::id()).len() {
            let mut leader = leader("exit");
            let watch = watches(leader.id()).remove(way);
            leader.wait().expect("wait");
            assert!(!signal_group(&watch, leader.id(), Signal::SIGURG), "{way}");
        }
    }

    #[test]
    fn a_stranger_s_group_is_not_signalled_by_its_number() {
        let pipe = crate::fd::pipe().expect("pipe").0;
        for pid in [0, 1, std::process::id(), u32::MAX, -2_i32 as u32, i32::MIN as u32] {
            assert!(!signal_group(&pipe, pid, Signal::SIGURG), "{pid}");
        }
        // timeout(1) leads a group of its own soon, and is a child of a child
        let mut parent = leader("timeout 1000 sleep 1000 & echo $!; read end");
        let mut line = String::new();
        let stdout = parent.stdout.take().expect("stdout");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a number");
        let stranger = Pid::from_raw(line.trim().parse().expect("a number"));
        let until = std::time::Instant::now() + Duration::from_secs(15);
        while nix::unistd::getpgid(Some(stranger)) != Ok(stranger) {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
        assert!(!signal_group(&pipe, stranger.as_raw().cast_unsigned(), Signal::SIGKILL));
        kill(stranger, Signal::SIGTERM).expect("it lives");
        drop(parent.stdin.take());
        parent.wait().expect("wait");
    }
}
