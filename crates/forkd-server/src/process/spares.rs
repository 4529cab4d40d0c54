//! Children that are forked before their client comes (`--spare`), the master's side: how many wait, and how many are missing.
//!
//! Each accepts one client by itself, serves it and ends, as every child of the fork model. The master hears that few are
//! left, and forks others meanwhile: a client waits for a fork only when all have clients.
//!
//! Which of them wait they say themselves, in memory that each child could write. So the master asks the kernel, too, now
//! and then: where clients stay queued it counts none of those that were to take them.
//!
//! Those that end at once and without a client could keep the master forking: it pauses, as with workers that fail to start,
//! and forks one to find out, until one lives on or has a client.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::admission::Shortage;
use crate::model::starts::EARLY;
use crate::scoreboard::{Scoreboard, State};
use crate::sys::pidfd::signal_child;
use crate::transport::Peer;

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
    /// They end before they have a client.
    failing: Shortage,
    /// When one did so last.
    failed_at: Instant,
}

/// A child that has been forked to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) slot: u32,
    pub(super) pid: u32,
}

/// What has become of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    /// It has its client, or has had it.
    Served,
    /// It ended soon after its birth, and had no client.
    Failed,
    /// It is no more, or is another's slot by now.
    Gone,
}

impl Spare {
    fn fate(self, board: &Scoreboard, now: Instant) -> Fate {
        let child = board.child(self.slot);
        if child.pid() != self.pid {
            Fate::Gone
        } else if child.counts() && matches!(child.slot.state(), State::Starting | State::Idle) {
            Fate::Waits
        } else if child.slot.state() == State::Serving || child.slot.peer() != Peer::None {
            Fate::Served
        } else if self.is_settled(board, now) {
            Fate::Gone
        } else {
            Fate::Failed
        }
    }

    /// Whether it began long ago: it hasn't failed to start.
    fn is_settled(self, board: &Scoreboard, now: Instant) -> bool {
        let age_ms = board.millis(now).saturating_sub(board.child(self.slot).started_ms());
        Duration::from_millis(age_ms) >= EARLY
    }

    fn is_born_after(self, board: &Scoreboard, then: Instant) -> bool {
        board.child(self.slot).started_ms() > board.millis(then)
    }
}

/// What a look at them has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// So many are to be forked.
    pub(super) missing: u32,
    pub(super) news: Option<News>,
}

/// What the log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// They end before they have a client.
    Failing,
    /// One lives on, or has a client; how long that took.
    WorkAgain(Duration),
}

impl Spares {
    pub(super) fn new(wanted: u32, now: Instant) -> Self {
        Self {
            wanted,
            waiting: Vec::with_capacity(wanted as usize),
            is_filling: true,
            looked_at: None,
            was_queued: false,
            failing: Shortage::default(),
            failed_at: now,
        }
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

    /// Whether something may have changed, where so many children of the listener are alive. One that was killed wakes
    /// nothing, and when the last one has been counted as dead the master has no reason to look again by itself.
    pub(super) fn look_is_due(&self, is_woken: bool, alive: u32, now: Instant) -> bool {
        is_woken || self.is_filling || (alive as usize) < self.waiting.len() || self.is_unseen(now)
    }

    fn is_unseen(&self, now: Instant) -> bool {
        self.looked_at.is_none_or(|then| now >= then + LOOK_EVERY)
    }

    /// Looks which of them wait, and how many are to be forked. If none is, one that takes a client when few are left will
    /// wake the master. `is_queued` tells whether a client is queued.
    pub(super) fn look(
        &mut self,
        board: &Scoreboard,
        now: Instant,
        is_queued: impl FnOnce() -> bool,
    ) -> Look {
        if self.is_unseen(now) {
            self.looked_at = Some(now);
            let is_queued = is_queued();
            if is_queued && self.was_queued {
                self.waiting.clear();
            }
            self.was_queued = is_queued;
        }
        let mut news = None;
        loop {
            news = self.let_go(board, now).or(news);
            let missing = (self.wanted as usize).saturating_sub(self.waiting.len());
            let is_filling = missing > 0 && (self.is_filling || self.waiting.len() <= self.few());
            if self.is_filling != is_filling {
                self.is_filling = is_filling;
            }
            if is_filling {
                let newest = self.waiting.last().filter(|spare| spare.is_born_after(board, self.failed_at));
                let missing = match (self.retry_at(), newest) {
                    (None, _) => missing as u32,
                    // one is enough to find out
                    (Some(then), None) => u32::from(then <= now),
                    (Some(_), Some(spare)) if board.slot(spare.slot).will_wake() => 0,
                    // meanwhile it has its client
                    (Some(_), Some(_)) => continue,
                };
                return Look { missing, news };
            }
            if self.will_wake(board) {
                return Look { missing: 0, news };
            }
        }
    }

    /// When to fork again, if they fail.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failing.retry_at()
    }

    /// Counts those no more that don't wait, and takes note of how that went.
    fn let_go(&mut self, board: &Scoreboard, now: Instant) -> Option<News> {
        let (failed_at, is_failing) = (self.failed_at, self.retry_at().is_some());
        let fate = |spare: &Spare| spare.fate(board, now);
        // older ones don't show that it works again
        let is_trial = |spare: &Spare| is_failing && spare.is_born_after(board, failed_at);
        let has_settled =
            |spare: &Spare| is_trial(spare) && fate(spare) == Fate::Waits && spare.is_settled(board, now);
        let mut works = self.waiting.iter().any(has_settled);
        let mut fails = false;
        // not written for nothing: after a fork that is a page fault
        if !self.waiting.iter().all(|spare| fate(spare) == Fate::Waits) {
            self.waiting.retain(|spare| {
                let fate = fate(spare);
                works |= fate == Fate::Served && is_trial(spare);
                fails |= fate == Fate::Failed;
                fate == Fate::Waits
            });
        }
        if works {
            return self.failing.worked(now).map(News::WorkAgain);
        }
        // those that end within a pause are one failure
        if !fails || self.retry_at().is_some_and(|then| now < then) {
            return None;
        }
        self.failed_at = now;
        self.failing.failed(now).then_some(News::Failing)
    }

    /// Has one of them wake the master when few are left, and the last one, should that be stopped or killed. The kernel
    /// wakes those that wait in the order in which they came.
    fn will_wake(&self, board: &Scoreboard) -> bool {
        let will_wake = |spare: &Spare| board.slot(spare.slot).will_wake();
        let before_few = self.waiting.len().saturating_sub(self.few());
        self.waiting.last().is_some_and(will_wake) && self.waiting[..before_few].iter().rev().any(will_wake)
    }

    /// These have been forked.
    /// Those that waited have been called off: others are to be forked.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.is_filling = true;
    }

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
    fn spare(board: &Scoreboard, pid: u32, now: Instant) -> Spare {
        let slot = board.take(0, false, now).unwrap();
        board.record(slot).pid.store(pid, std::sync::atomic::Ordering::Relaxed);
        board.born(slot);
        board.slot(slot).set_state(State::Idle);
        Spare { slot, pid }
    }

    fn filled(wanted: u32) -> (Scoreboard, Spares, Vec<Spare>, Instant) {
        let board = Scoreboard::new().unwrap();
        board.totals(0).set_limit(99);
        let now = Instant::now();
        let mut spares = Spares::new(wanted, now);
        assert_eq!(spares.look(&board, now, || false).missing, wanted);
        let born: Vec<Spare> = (1..=wanted).map(|pid| spare(&board, pid, now)).collect();
        spares.add(&born);
        assert_eq!(spares.look(&board, now, || false), Look::default());
        (board, spares, born, now)
    }

    #[test]
    fn others_are_forked_when_half_have_clients_and_one_of_them_has_woken_the_master() {
        for wanted in [1, 2, 3, 4, 16] {
            let (board, mut spares, born, now) = filled(wanted);
            let mut taken = 0;
            while !board.slot(born[taken].slot).begin_to_serve() {
                taken += 1;
                assert_eq!(spares.look(&board, now, || false), Look::default());
            }
            taken += 1;
            assert_eq!(spares.look(&board, now, || false).missing, taken as u32);
            assert_eq!(wanted as usize - taken, spares.few());
        }
    }

    #[test]
    fn the_last_one_wakes_the_master_if_the_other_does_not() {
        let (board, _, born, _) = filled(4);
        let wake: Vec<bool> = born.iter().map(|spare| board.slot(spare.slot).begin_to_serve()).collect();
        assert_eq!(wake, [false, true, false, true]);
    }

    /// One ends, after it had this client.
    fn end(board: &Scoreboard, spare: Spare, client: Peer) {
        board.slot(spare.slot).set_peer(client);
        board.reap(spare.slot, crate::scoreboard::Cause::Exit, Instant::now());
    }

    const CLIENT: Peer = Peer::Unix { pid: 1, uid: 0, gid: 0 };

    #[test]
    fn while_they_end_at_once_one_is_forked_after_longer_and_longer_pauses() {
        let (board, mut spares, born, mut now) = filled(4);
        let look = |spares: &mut Spares, now| spares.look(&board, now, || false);
        // all of them at once are one failure
        born.into_iter().for_each(|spare| end(&board, spare, Peer::None));
        assert_eq!(look(&mut spares, now), Look { missing: 0, news: Some(News::Failing) });
        let mut pauses = Vec::new();
        for pid in 10..20 {
            let then = spares.retry_at().unwrap();
            pauses.push((then - now).as_millis());
            assert_eq!(look(&mut spares, then - Duration::from_millis(1)).missing, 0);
            now = then;
            assert_eq!(look(&mut spares, now), Look { missing: 1, news: None });
            let one = spare(&board, pid, now);
            spares.add(&[one]);
            // it may live on: no other is forked
            assert_eq!(look(&mut spares, now), Look::default());
            end(&board, one, Peer::None);
            assert_eq!(look(&mut spares, now), Look::default());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }

    #[test]
    fn one_that_has_a_client_or_lives_on_ends_the_pauses() {
        for has_client in [true, false] {
            let (board, mut spares, born, start) = filled(4);
            born.into_iter().for_each(|spare| end(&board, spare, Peer::None));
            assert_eq!(spares.look(&board, start, || false).news, Some(News::Failing));
            let now = spares.retry_at().unwrap();
            let one = spare(&board, 10, now);
            spares.add(&[one]);
            assert_eq!(spares.look(&board, now, || false), Look::default());
            let (later, missing) = if has_client {
                board.slot(one.slot).set_peer(CLIENT);
                assert!(board.slot(one.slot).begin_to_serve(), "the master is told");
                (now, 4)
            } else {
                (now + EARLY, 3)
            };
            let look = spares.look(&board, later, || false);
            assert_eq!(look, Look { missing, news: Some(News::WorkAgain(later - start)) });
            assert_eq!(spares.retry_at(), None);
        }
    }

    #[test]
    fn those_that_were_there_before_don_t_show_that_others_live_on() {
        let (board, mut spares, born, start) = filled(4);
        end(&board, born[0], CLIENT);
        end(&board, born[1], CLIENT);
        let now = start + EARLY;
        assert_eq!(spares.look(&board, now, || false), Look { missing: 2, news: None });
        let young = [10, 11].map(|pid| spare(&board, pid, now));
        spares.add(&young);
        young.into_iter().for_each(|spare| end(&board, spare, Peer::None));
        assert_eq!(spares.look(&board, now, || false), Look { missing: 0, news: Some(News::Failing) });
        end(&board, born[2], CLIENT);
        let then = spares.retry_at().unwrap();
        assert_eq!(spares.look(&board, then, || false), Look { missing: 1, news: None });
        let trial = spare(&board, 12, then);
        spares.add(&[trial]);
        assert_eq!(spares.look(&board, then, || false), Look::default());
        end(&board, trial, CLIENT);
        let look = spares.look(&board, then, || false);
        assert_eq!(look, Look { missing: 3, news: Some(News::WorkAgain(then - now)) });
    }

    #[test]
    fn to_end_with_a_client_or_after_a_while_is_no_failure() {
        let (board, mut spares, born, now) = filled(4);
        end(&board, born[0], CLIENT);
        end(&board, born[1], CLIENT);
        assert_eq!(spares.look(&board, now, || false), Look { missing: 2, news: None });
        end(&board, born[2], Peer::None);
        assert_eq!(spares.look(&board, now + EARLY, || false), Look { missing: 3, news: None });
    }

    #[test]
    fn those_that_take_no_client_are_not_counted() {
        let (board, mut spares, _, start) = filled(2);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!spares.look_is_due(false, 2, start) && spares.look_is_due(false, 2, at(1)));
        assert!(spares.look_is_due(false, 1, start), "one has been killed");
        // one that was queued may just have come
        assert_eq!(spares.look(&board, at(1), || true).missing, 0);
        assert_eq!(spares.look(&board, at(1), || true).missing, 0);
        assert_eq!(spares.look(&board, at(2), || true).missing, 2);
    }
}
