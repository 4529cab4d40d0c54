//! Children that are forked before their client comes (`--spare`), the master's side: how many wait, and how many are missing.
//!
//! Each accepts one client by itself, serves it and ends, as every child of the fork model. The master hears that too few
//! are left, and forks others meanwhile: no client waits for a fork until all have clients.

use nix::sys::signal::Signal;

use super::context::Context;
use crate::scoreboard::{Scoreboard, State};
use crate::sys::pidfd::signal_child;

/// The spare children of one listener.
#[derive(Debug)]
pub(super) struct Spares {
    /// Its number on the scoreboard.
    listener: usize,
    wanted: u32,
    /// Those that waited for their client when this was last looked at.
    waiting: Vec<Spare>,
    /// There were few, and are not as many as wanted yet.
    is_filling: bool,
}

#[derive(Debug, Clone, Copy)]
struct Spare {
    slot: u32,
    pid: u32,
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

/// With how few of so many spare children the master forks others: with half of them, several forks follow one wake-up, and
/// the others serve meanwhile.
pub(super) fn few_of(wanted: u32) -> u32 {
    wanted / 2
}

impl Spares {
    pub(super) fn new(listener: usize, wanted: u32) -> Self {
        Self { listener, wanted, waiting: Vec::with_capacity(wanted as usize), is_filling: false }
    }

    /// How many wait for their client.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }

    /// Looks which of them wait, and returns how many are to be forked. From here on one that takes a client, so that few
    /// are left, wakes the master.
    pub(super) fn missing(&mut self, cx: &Context) -> u32 {
        let waits = |spare: &Spare| spare.waits(cx.board);
        loop {
            // not written for nothing: after a fork that is a page fault
            if !self.waiting.iter().all(waits) {
                self.waiting.retain(waits);
            }
            cx.board.set_spares(self.listener, self.waiting());
            // one that has taken its client between the look and the count may have been counted twice
            if self.waiting.iter().all(waits) {
                break;
            }
        }
        let missing = self.wanted.saturating_sub(self.waiting());
        let is_filling = missing > 0 && (self.is_filling || self.waiting() <= few_of(self.wanted));
        if self.is_filling != is_filling {
            self.is_filling = is_filling;
        }
        if is_filling { missing } else { 0 }
    }

    /// One more has been forked.
    pub(super) fn add(&mut self, slot: u32, pid: u32) {
        self.waiting.push(Spare { slot, pid });
    }

    /// Has those end that have no client.
    pub(super) fn call_off(self) {
        self.waiting.into_iter().for_each(|spare| _ = signal_child(spare.pid, Signal::SIGALRM));
    }
}
