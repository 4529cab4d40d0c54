//! What a server leaves behind: a process whose parent ends becomes init's child, and its origin is lost.
//! Where no control group has it, it becomes ours instead (`PR_SET_CHILD_SUBREAPER` of prctl(2)), so it is found.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::process::{Process, all_processes};

/// How long they may take to go, once all have been killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

/// Makes orphans ours, as long as it lives.
#[derive(Debug)]
pub(super) struct Adoption {
    /// Whose they were before.
    #[cfg(target_os = "linux")]
    before: Option<rustix::process::Pid>,
}

impl Adoption {
    /// `None` where the system can't do that.
    #[cfg(target_os = "linux")]
    pub(super) fn begin() -> Option<Self> {
        let before = rustix::process::child_subreaper().ok()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).ok()?;
        Some(Self { before })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn begin() -> Option<Self> {
        None
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(self.before);
    }
}

/// The orphans of one server. They are killed when this is dropped, which must be after the server's end.
#[derive(Debug)]
pub(super) struct Orphans {
    server: Process,
    us: Pid,
    our_group: Pid,
    _adoption: Adoption,
}

impl Orphans {
    pub(super) fn of(server: Process, adoption: Adoption) -> Self {
        Self { server, us: Pid::this(), our_group: nix::unistd::getpgrp(), _adoption: adoption }
    }

    /// Tells whether a process is one: a child of ours that is younger than the server, and not in our process
    /// group, as one that we had started ourselves would be.
    pub(super) fn has(&self, process: &Process) -> bool {
        process.parent == self.us.as_raw().cast_unsigned()
            && process.group != self.our_group.as_raw().cast_unsigned()
            && process.id != self.server.id
            && process.started >= self.server.started
    }

    /// Waits for a dead one; until then its number stays taken.
    pub(super) fn reap(process: &Process) {
        let pid = Pid::from_raw(process.id.cast_signed());
        let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        let until = Instant::now() + KILL_TIMEOUT;
        loop {
            // the children of one that is killed are the next ones
            let left: Vec<Process> =
                all_processes().into_iter().filter(|process| self.has(process)).collect();
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for process in &left {
                if process.is_dead { Self::reap(process) } else { super::kill(process.id) }
            }
            std::thread::sleep(LOOK);
        }
    }
}
