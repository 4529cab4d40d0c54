//! A forked process that is looked at; it is killed when it is dropped, and when this one dies.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forkd_net::Error;
use forkd_sys::fork::{PidCells, Watch, fork};
use forkd_sys::shared::Shared;
use forkd_sys::signal::Blocked;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::lab::cannot;

/// How long something may take that ought to happen at once.
const LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// A child of this process.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) pid: i32,
}

impl Subject {
    /// Forks it; all signals are blocked in it.
    pub(crate) fn fork(life: impl FnOnce() -> u8) -> Result<Self, Error> {
        let parent = rustix::process::getpid();
        let child = || {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            // it may have died before that
            if rustix::process::getppid() == Some(parent) { life() } else { 0 }
        };
        Ok(Self { pid: fork_child(child).map_err(cannot("fork"))? })
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
pub(crate) fn fork_child(life: impl FnOnce() -> u8) -> std::io::Result<i32> {
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

/// Waits until something has happened; tells whether it has, in time.
pub(crate) fn eventually(mut has_happened: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + LIMIT;
    while !has_happened() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
