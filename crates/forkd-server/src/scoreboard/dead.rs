//! How children end: what they announce, the sweep, and the count of the dead.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::histogram::LIFETIMES;
use super::ledger::Occupancy;
use super::{Cause, Child, Scoreboard, Slot, State, Sums, Totals};

/// How often to look whether the reaping of a child is over, which takes less than a microsecond.
const REAPING_CHECKS: u32 = 1000;

/// How long a child lives before the master raises its `oom_score_adj`, in milliseconds: most are gone by then.
const RAISED_AFTER_MS: u64 = 1000;

/// How far the time of a turn, in milliseconds, may be behind that of a count, in microseconds.
const CLOCKS_APART_US: u64 = 1_000_000;

/// A child that is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) slot: u32,
    pub(crate) listener: usize,
    pub(crate) cause: Cause,
}

impl Scoreboard {
    /// Counts the death of a child that is known to be dead, and frees its slot.
    pub(crate) fn reap(&self, index: u32, cause: Cause, now: Instant) {
        if self.record(index).is_watched() {
            self.sources.abandon(index);
        }
        match self.ledger.record(index).occupancy() {
            Occupancy::Held => self.count(index, cause, now, || self.put_back(index)),
            // its death has been counted
            Occupancy::Overdue => {
                self.subtract_alive(index);
                self.put_back(index);
            }
            // the queue of those has it
            Occupancy::Released | Occupancy::Vacant => {}
        }
    }

    /// Adds the counters of a child that ends to the totals.
    fn count(&self, index: u32, cause: Cause, now: Instant, free: impl FnOnce()) {
        let (child, now_ms) = (self.child(index), self.millis(now));
        self.leave(child.slot, child.listener());
        let totals = self.totals(child.listener());
        self.measure_life(&child, totals, now_ms);
        self.subtract_alive(index);
        self.ledger.stock().reaping.change(|| {
            let panicked = Sums { failed: u64::from(cause == Cause::Panicked), ..Sums::default() };
            totals.add(child.carried(now_ms).and(panicked));
            totals.deaths[cause.index()].fetch_add(1, Ordering::Relaxed);
            // what it still carries is more of that
            child.slot.traffic.reset();
            free();
        });
    }

    fn subtract_alive(&self, index: u32) {
        let alive = &self.totals(self.listener_of(index)).alive;
        alive.store(alive.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Counts how long a child lived, and how long the client of a child of its own waited for that, and was served.
    /// One that died without a word has served until now, as far as is known.
    fn measure_life(&self, child: &Child<'_>, totals: &Totals, now_ms: u64) {
        let [began, ended] = child.slot.times_us.each_ref().map(|time| time.load(Ordering::Relaxed));
        let accepted = child.record.accepted_us();
        let Some(now) = self.clock_us() else { return };
        let lived_us = now_ms.saturating_sub(child.started_ms()).saturating_mul(1000);
        // the master has not accepted for a worker, nor for a spare child; how long one has lived is known by another clock
        let since = if accepted > 0 { accepted } else { now.saturating_sub(lived_us + CLOCKS_APART_US) };
        // a child that went wild may have written anything, and one that has not begun to serve nothing
        let is_known = |time: &u64| (since..=now).contains(time);
        let ended = Some(ended).filter(is_known).unwrap_or(now);
        let lifetime = if accepted > 0 { ended.saturating_sub(accepted) } else { lived_us };
        totals.lifetimes.observe_in(&LIFETIMES, lifetime);
        if child.is_watched() || !is_known(&began) || ended < began {
            return;
        }
        if accepted > 0 {
            totals.fork_latencies.observe(began - accepted);
        }
        totals.durations.observe(ended - began);
    }

    /// The sums over those of a listener's children that are reaped, for another process than the master.
    ///
    /// No dead child is counted at that moment: a child whose slot is seen to be taken later is not in the sums,
    /// so nothing is ever counted twice. A child that is reaped in between is in neither.
    pub(crate) fn sums(&self, listener: usize) -> Sums {
        let totals = self.totals(listener);
        for _ in 0..REAPING_CHECKS {
            if let Some(sums) = self.ledger.stock().reaping.read(|| totals.sums()) {
                return sums;
            }
            std::thread::yield_now();
        }
        // the master stands still in the middle of a count: it has been stopped
        totals.sums()
    }

    /// A child without a watch says, as its last act, that it ends and why.
    ///
    /// Async-signal-safe and without a system call, unless the master waits for it.
    // a function of its own would be one more window of text for each child to fault in
    #[inline(always)]
    pub(crate) fn announce(&self, index: u32, cause: Cause) {
        let slot = self.slot(index);
        slot.record(cause);
        if let Some(now) = self.clock_us() {
            slot.set_ended(now);
        }
        slot.set_state(State::Ended);
        let awaited = self.head.dead.push(index, &slot.next);
        // What is out of the ordinary is logged at once; the rest, when the master has time.
        if awaited || !cause.is_normal() {
            self.wake.notify();
        }
    }

    /// Counts the deaths of all children that have announced their end, and calls `on` before each.
    pub(crate) fn collect(&self, now: Instant, mut on: impl FnMut(&Child<'_>, Death)) {
        let mut top = self.head.dead.take();
        // A child that went wild may have written anything here: a circle, living children, numbers that lead nowhere.
        // What is lost by that, the sweep finds.
        for _ in 0..self.ledger.used() {
            let Some(index) = top.checked_sub(1) else { return };
            let Some(record) = self.ledger.find(index) else { return };
            let slot = self.slot(index);
            if slot.state() != State::Ended || record.is_watched() {
                return;
            }
            top = slot.next.load(Ordering::Relaxed);
            match record.occupancy() {
                Occupancy::Held => {
                    // one that writes nonsense for a record has probably not been killed
                    let cause = slot.recorded().unwrap_or(Cause::Exit);
                    let release = || self.ledger.release(index, self.millis(now));
                    self.count_unwatched(index, cause, now, release, &mut on);
                }
                // the second time it is believed when it is dead
                Occupancy::Overdue => {}
                Occupancy::Released | Occupancy::Vacant => return,
            }
        }
    }

    fn count_unwatched(
        &self,
        index: u32,
        cause: Cause,
        now: Instant,
        free: impl FnOnce(),
        on: &mut impl FnMut(&Child<'_>, Death),
    ) {
        let child = self.child(index);
        on(&child, Death { slot: index, listener: child.listener(), cause });
        self.count(index, cause, now, free);
    }

    /// Looks at up to `count` slots, from `from` on, for children without a watch that died without
    /// a word, and reaps them. Returns where to go on; 0 once all have been looked at.
    ///
    /// `is_child` tells whether a pid is a living child of ours, and `killed` why one died that has left no record:
    /// it had no time for one, and SIGKILL is the only signal that gives none.
    pub(crate) fn sweep(
        &self,
        from: usize,
        count: usize,
        now: Instant,
        is_child: impl Fn(u32) -> bool,
        killed: impl Fn() -> Cause,
        mut on: impl FnMut(&Child<'_>, Death),
    ) -> usize {
        self.collect(now, &mut on);
        self.ledger.look_at_released(count, self.millis(now), &is_child);
        let is_dead = |&index: &u32| {
            let record = self.ledger.record(index);
            record.counts() && !record.is_watched() && record.is_dead(&is_child)
        };
        let used = self.ledger.used() as usize;
        let suspects: Vec<u32> = (0..used as u32).skip(from).take(count).filter(is_dead).collect();
        if !suspects.is_empty() {
            // The dead can't announce themselves any more: what is not on the stack now never will be.
            self.collect(now, &mut on);
        }
        for index in suspects {
            match self.ledger.record(index).occupancy() {
                Occupancy::Held => {
                    let cause = self.slot(index).recorded().unwrap_or_else(&killed);
                    self.count_unwatched(index, cause, now, || self.put_back(index), &mut on);
                }
                _ => self.reap(index, Cause::Done, now),
            }
        }
        if from.saturating_add(count) < used { from + count } else { 0 }
    }

    /// The pids of those children in up to `count` slots, from `from` on, that have lived for a second and have left it
    /// to the master to raise their `oom_score_adj`; each is named once.
    pub(crate) fn take_those_to_raise(
        &self,
        from: usize,
        count: usize,
        now: Instant,
    ) -> impl Iterator<Item = u32> + use<'_> {
        let then_ms = self.millis(now).checked_sub(RAISED_AFTER_MS);
        let slots = (0..self.ledger.used()).skip(from).take(count);
        slots
            .filter(move |&index| then_ms.is_some_and(|then_ms| self.ledger.take_to_raise(index, then_ms)))
            .map(|index| self.ledger.record(index).pid())
    }

    /// In a dying process that can't say so itself: notes the cause in its own slot, if it has one.
    ///
    /// Async-signal-safe. It doesn't look into the master's memory, which a child may not have.
    pub(crate) fn record_end(&self, pid: u32, cause: Cause) {
        let Some((index, slot)) = self.find(pid) else { return };
        if slot.is_worker() {
            slot.record(cause);
        } else {
            self.announce(index, cause);
        }
    }
    /// The slot of a living child, by its pid. Thousands that a stop ends at once don't look through all slots, each of
    /// which is in memory that they would have to fault in.
    fn find(&self, pid: u32) -> Option<(u32, &'static Slot)> {
        let is_its_own =
            |slot: &Slot| slot.pid.load(Ordering::Relaxed) == pid && slot.state() != State::Ended;
        let hint = self.finder_of(pid).load(Ordering::Relaxed).checked_sub(1);
        let hinted = hint.and_then(|index| Some((index, self.slots.get(index as usize)?)));
        let used = self.head.used.load(Ordering::Relaxed) as usize;
        // one that dies before the master has noted its birth, or whose pid has the same place as another's
        let all = (0..).zip(self.slots.iter().take(used));
        hinted.into_iter().chain(all).find(|(_, slot)| is_its_own(slot))
    }
}
