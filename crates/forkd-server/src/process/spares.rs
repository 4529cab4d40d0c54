//! Children that are forked before their client comes (`--spare`), the master's side: how many wait, and how many are missing.
//!
//! Each accepts one client by itself, serves it and ends, as every child of the fork model. The master hears that too few
//! are left, and forks others meanwhile: no client waits for a fork until all have clients.

use nix::sys::signal::Signal;

use crate::scoreboard::{Scoreboard, State};
use crate::sys::pidfd::signal_child;

/// The spare children of one listener.
#[derive(Debug)]
pub(super) struct Spares {
    wanted: u32,
    /// Those that waited for their client when this was last looked at, in the order of their birth.
    waiting: Vec<Spare>,
    /// There were few, and are not as many as wanted yet.
    is_filling: bool,
}

/// A child that has been forked to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) slot: u32,
    pub(super) pid: u32,
}

impl Spare {
    /// Whether it has no client yet. It is its own slot that says so: one that goes wild harms itself.
    fn waits(self, board: &Scoreboard) -> bool {
        let child = board.child(self.slot);
        child.counts()
            && child.pid() == self.pid
            && matches!(child.slot.state(), State::Starting | State::Idle)
    }
}

impl Spares {
    pub(super) fn new(wanted: u32) -> Self {
        Self { wanted, waiting: Vec::with_capacity(wanted as usize), is_filling: false }
    }

    /// With so few left others are forked: with half of them, several forks follow one wake-up, and the others serve
    /// meanwhile.
    fn few(&self) -> usize {
        self.wanted as usize / 2
    }

    /// Whether any waits for its client.
    pub(super) fn any_wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Looks which of them wait, and returns how many are to be forked. If none is, one that takes a client when few are
    /// left will wake the master.
    pub(super) fn missing(&mut self, board: &Scoreboard) -> u32 {
        // not written for nothing: after a fork that is a page fault
        loop {
            if !self.waiting.iter().all(|spare| spare.waits(board)) {
                self.waiting.retain(|spare| spare.waits(board));
            }
            let missing = (self.wanted as usize).saturating_sub(self.waiting.len());
            let is_filling = missing > 0 && (self.is_filling || self.waiting.len() <= self.few());
            if self.is_filling != is_filling {
                self.is_filling = is_filling;
            }
            if is_filling {
                return missing as u32;
            }
            // the kernel wakes those that wait in the order in which they came
            let last = self.waiting.len() - self.few() - 1;
            if self.waiting[..=last].iter().rev().any(|spare| board.slot(spare.slot).will_wake()) {
                return 0;
            }
        }
    }

    /// These have been forked.
    pub(super) fn add(&mut self, spares: &[Spare]) {
        self.waiting.extend_from_slice(spares);
    }

    /// Has those end that have no client.
    pub(super) fn call_off(self) {
        self.waiting.into_iter().for_each(|spare| _ = signal_child(spare.pid, Signal::SIGALRM));
    }
}
