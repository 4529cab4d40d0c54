//! Children that are forked before their client comes (`--spare`), the master's side: how many wait, and how many are missing.
//!
//! Each accepts one client by itself, serves it and ends, as every child of the fork model. The master hears that few are
//! left, and forks others meanwhile: a client waits for a fork only when all have clients.
//!
//! Which of them wait they say themselves, in memory that each child could write. So the master asks the kernel, too, now
//! and then: where clients stay queued it counts none of those that were to take them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::scoreboard::{Scoreboard, State};
use crate::sys::pidfd::signal_child;

/// How often the master looks at them without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The spare children of one listener.
#[derive(Debug)]
pub(super) struct Spares {
    wanted: u32,
    /// Those that waited for their client when this was last looked at, in the order of their birth.
    waiting: Vec<Spare>,
    /// There were few, and are not as many as wanted yet.
    is_filling: bool,
    /// When this was last looked at without a reason.
    looked_at: Option<Instant>,
    /// A client was queued then.
    was_queued: bool,
}

/// A child that has been forked to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) slot: u32,
    pub(super) pid: u32,
}

impl Spare {
    /// Whether it has no client yet.
    fn waits(self, board: &Scoreboard) -> bool {
        let child = board.child(self.slot);
        child.counts()
            && child.pid() == self.pid
            && matches!(child.slot.state(), State::Starting | State::Idle)
    }
}

impl Spares {
    pub(super) fn new(wanted: u32) -> Self {
        let waiting = Vec::with_capacity(wanted as usize);
        Self { wanted, waiting, is_filling: true, looked_at: None, was_queued: false }
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

    /// Whether something may have changed.
    pub(super) fn look_is_due(&self, is_woken: bool, now: Instant) -> bool {
        is_woken || self.is_filling || self.is_unseen(now)
    }

    fn is_unseen(&self, now: Instant) -> bool {
        self.looked_at.is_none_or(|then| now >= then + LOOK_EVERY)
    }

    /// Looks which of them wait, and returns how many are to be forked. If none is, one that takes a client when few are
    /// left will wake the master. `is_queued` tells whether a client is queued.
    pub(super) fn missing(
        &mut self,
        board: &Scoreboard,
        now: Instant,
        is_queued: impl FnOnce() -> bool,
    ) -> u32 {
        if self.is_unseen(now) {
            self.looked_at = Some(now);
            let is_queued = is_queued();
            if is_queued && self.was_queued {
                self.waiting.clear();
            }
            self.was_queued = is_queued;
        }
        loop {
            // not written for nothing: after a fork that is a page fault
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
            if self.will_wake(board) {
                return 0;
            }
        }
    }

    /// Has one of them wake the master when few are left, and the last one, should that be stopped or killed. The kernel
    /// wakes those that wait in the order in which they came.
    fn will_wake(&self, board: &Scoreboard) -> bool {
        let will_wake = |spare: &Spare| board.slot(spare.slot).will_wake();
        let before_few = self.waiting.len().saturating_sub(self.few());
        self.waiting.last().is_some_and(will_wake) && self.waiting[..before_few].iter().rev().any(will_wake)
    }

    /// These have been forked.
    pub(super) fn add(&mut self, spares: &[Spare]) {
        self.waiting.extend_from_slice(spares);
    }
}

/// Has the listener's children end that have no client. Others go on: each knows for itself whether it has one.
pub(super) fn call_off(board: &Scoreboard, listener: usize) {
    for child in board.children().filter(|child| child.listener() == listener && !child.is_watched()) {
        if !child.is_superseded() {
            signal_child(child.pid(), Signal::SIGALRM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that waits.
    fn spare(board: &Scoreboard, pid: u32) -> Spare {
        let slot = board.take(0, false, Instant::now()).unwrap();
        board.record(slot).pid.store(pid, std::sync::atomic::Ordering::Relaxed);
        board.born(slot);
        board.slot(slot).set_state(State::Idle);
        Spare { slot, pid }
    }

    fn filled(wanted: u32) -> (Scoreboard, Spares, Vec<Spare>, Instant) {
        let board = Scoreboard::new().unwrap();
        board.totals(0).set_limit(99);
        let (mut spares, now) = (Spares::new(wanted), Instant::now());
        assert_eq!(spares.missing(&board, now, || false), wanted);
        let born: Vec<Spare> = (1..=wanted).map(|pid| spare(&board, pid)).collect();
        spares.add(&born);
        assert_eq!(spares.missing(&board, now, || false), 0);
        (board, spares, born, now)
    }

    #[test]
    fn others_are_forked_when_half_have_clients_and_one_of_them_has_woken_the_master() {
        for wanted in [1, 2, 3, 4, 16] {
            let (board, mut spares, born, now) = filled(wanted);
            let mut taken = 0;
            while !board.slot(born[taken].slot).begin_to_serve() {
                taken += 1;
                assert_eq!(spares.missing(&board, now, || false), 0);
            }
            taken += 1;
            assert_eq!(spares.missing(&board, now, || false), taken as u32);
            assert_eq!(wanted as usize - taken, spares.few());
        }
    }

    #[test]
    fn the_last_one_wakes_the_master_if_the_other_does_not() {
        let (board, _, born, _) = filled(4);
        let wake: Vec<bool> = born.iter().map(|spare| board.slot(spare.slot).begin_to_serve()).collect();
        assert_eq!(wake, [false, true, false, true]);
    }

    #[test]
    fn those_that_take_no_client_are_not_counted() {
        let (board, mut spares, _, start) = filled(2);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!spares.look_is_due(false, start) && spares.look_is_due(false, at(1)));
        // one that was queued may just have come
        assert_eq!(spares.missing(&board, at(1), || true), 0);
        assert_eq!(spares.missing(&board, at(1), || true), 0);
        assert_eq!(spares.missing(&board, at(2), || true), 2);
    }
}
