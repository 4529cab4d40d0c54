//! A forked process that is looked at; it is killed when it is dropped, and when this one dies.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use forkd_net::Error;
use forkd_sys::fork::{PidCells, Watch, fork};
use forkd_sys::shared::Shared;
use forkd_sys::signal::Blocked;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::lab::{cannot, missing};

/// How often is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(1);

/// A child of this process.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) pid: i32,
}

impl Subject {
    /// Forks it; all signals are blocked in it. What it fails by is what it ends with.
    pub(crate) fn fork(life: impl FnOnce() -> io::Result<()>) -> Result<Self, Error> {
        let parent = rustix::process::getpid();
        let child = || {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            // it may have died before that
            let lived = if rustix::process::getppid() == Some(parent) { life() } else { Ok(()) };
            lived.map_or_else(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32) as u8, |()| 0)
        };
        Ok(Self { pid: fork_child(child).map_err(cannot("fork"))? })
    }

    /// An error if it has failed, or was killed.
    pub(crate) fn is_well(&self) -> Result<(), Error> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(Pid::from_raw(self.pid)), flags) {
            Ok(WaitStatus::Exited(_, errno)) if errno != 0 => {
                Err(cannot("go on in a process of the experiment")(Errno::from_raw(errno)))
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => Err(missing(format!(
                "a process of the experiment was killed by {signal}, as happens where there is not enough memory"
            ))),
            _ => Ok(()),
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid);
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}

/// Forks a child that its parent waits for, or not.
pub(crate) fn fork_child(life: impl FnOnce() -> u8) -> io::Result<i32> {
    let pid = AtomicU32::new(0);
    let cells = PidCells { parent: &pid, child: None };
    Ok(fork(&Blocked::all(), cells, Watch::Nothing, life)?.pid)
}

/// Numbers that processes tell each other.
#[derive(Debug, Default)]
pub(crate) struct Board<const N: usize>(Shared<[AtomicU64; N]>);

impl<const N: usize> Board<N> {
    pub(crate) fn get(&self, which: usize) -> u64 {
        self.0[which].load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, which: usize, number: u64) {
        self.0[which].store(number, Ordering::SeqCst);
    }

    pub(crate) fn add(&self, which: usize, number: u64) {
        self.0[which].fetch_add(number, Ordering::SeqCst);
    }

    /// Waits until a number is at least so high.
    pub(crate) fn wait(&self, which: usize, least: u64) {
        while self.get(which) < least {
            std::thread::sleep(LOOK);
        }
    }
}
