//! How children end: the stack of the dead, the sweep, and burial.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::{Cause, Scoreboard, Slot, State, Sums, Totals};

/// How often to look whether a burial is over, which takes less than a microsecond.
const BURIAL_CHECKS: u32 = 1000;

/// A child that is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) slot: u32,
    pub(crate) listener: usize,
    pub(crate) cause: Cause,
}

impl Scoreboard {
    /// Adds a dead child's counters to the totals and frees its slot.
    pub(crate) fn bury(&self, index: u32, cause: Cause) -> Death {
        let slot = self.slot(index);
        let listener = self.listener_of(index);
        let totals = &self.totals[listener];
        let add = |sum: &AtomicU64, term: &AtomicU64| {
            // a child that went wild may have written anything
            let sum_now = sum.load(Ordering::Relaxed).wrapping_add(term.load(Ordering::Relaxed));
            sum.store(sum_now, Ordering::Relaxed);
        };
        let burials = self.stock.burials.load(Ordering::Relaxed);
        self.stock.burials.store(burials.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        add(&totals.connections, &slot.traffic.connections);
        add(&totals.bytes_in, &slot.traffic.bytes_in);
        add(&totals.bytes_out, &slot.traffic.bytes_out);
        add(&totals.failed, &slot.traffic.failed);
        totals.failed.fetch_add(u64::from(cause == Cause::Panicked), Ordering::Relaxed);
        self.measure_life(slot, totals);
        totals.alive.store(totals.alive.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        totals.deaths[cause.index()].fetch_add(1, Ordering::Relaxed);
        self.put_back(index);
        self.stock.burials.store(burials.wrapping_add(2), Ordering::Release);
        Death { slot: index, listener, cause }
    }

    /// Counts how long the client of a child of its own waited for that, and was served. One that died
    /// without a word has served until now, as far as anybody knows.
    fn measure_life(&self, slot: &Slot, totals: &Totals) {
        let [accepted, began, ended] = slot.times_us.each_ref().map(|time| time.load(Ordering::Relaxed));
        if began == 0 {
            return;
        }
        let ended = if ended == 0 { self.clock_us().unwrap_or(began) } else { ended };
        // a child that went wild may have written anything
        totals.fork_latencies.observe(began.saturating_sub(accepted));
        totals.durations.observe(ended.saturating_sub(began));
    }

    /// The sums over those of a listener's children that are buried, for another process than the master.
    ///
    /// No burial goes on at that moment: a child whose slot is seen to be taken later is not in the sums,
    /// so nothing is ever counted twice. A child that is buried in between is in neither.
    pub(crate) fn sums(&self, listener: usize) -> Sums {
        let totals = &self.totals[listener];
        let read = || Sums {
            connections: totals.connections.load(Ordering::Relaxed),
            bytes_in: totals.bytes_in.load(Ordering::Relaxed),
            bytes_out: totals.bytes_out.load(Ordering::Relaxed),
            failed: totals.failed.load(Ordering::Relaxed),
        };
        for _ in 0..BURIAL_CHECKS {
            let before = self.stock.burials.load(Ordering::Acquire);
            let sums = read();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.stock.burials.load(Ordering::Relaxed) {
                return sums;
            }
            std::thread::yield_now();
        }
        // the master stands still in the middle of a burial: it has been stopped
        read()
    }

    /// A child without a watch says, as its last act, that it ends and why.
    ///
    /// Async-signal-safe and without a system call, unless the master waits for it.
    pub(crate) fn announce(&self, index: u32, cause: Cause) {
        let slot = self.slot(index);
        slot.record(cause);
        if let Some(now) = self.clock_us() {
            slot.set_ended(now);
        }
        slot.set_state(State::Ended);
        let mut top = self.head.dead.load(Ordering::Relaxed);
        loop {
            slot.next.store(top, Ordering::Relaxed);
            // Release: whoever takes the stack sees the record above.
            match self.head.dead.compare_exchange_weak(top, index + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        // What is out of the ordinary is logged at once; the rest, when the master has time.
        if self.head.waiting.load(Ordering::SeqCst) != 0 || !cause.is_normal() {
            self.wake.notify();
        }
    }

    /// Buries all children that have announced their end, and calls `on` before each.
    pub(crate) fn collect(&self, mut on: impl FnMut(&Slot, Death)) {
        // The whole stack at once: no other process ever pops, so there is no ABA problem.
        if !self.has_dead() {
            return;
        }
        let mut top = self.head.dead.swap(0, Ordering::SeqCst);
        // A child that went wild may have written anything here; what is lost, the sweep finds.
        for _ in 0..self.slots.len() {
            let Some(index) = top.checked_sub(1) else { return };
            let Some(slot) = self.slots.get(index as usize) else { return };
            if slot.state() != State::Ended || !self.is_unwatched(index) {
                return;
            }
            top = slot.next.load(Ordering::Relaxed);
            self.bury_unwatched(index, slot, &mut on);
        }
    }

    fn bury_unwatched(&self, index: u32, slot: &Slot, on: &mut impl FnMut(&Slot, Death)) {
        // Without a record it had no time for one; SIGKILL is the only signal that gives none.
        let cause = slot.recorded().unwrap_or(Cause::Signal(libc::SIGKILL as u8));
        on(slot, Death { slot: index, listener: self.listener_of(index), cause });
        self.bury(index, cause);
    }

    /// Looks at up to `count` slots, from `from` on, for children without a watch that died without
    /// a word, and buries them. Returns where to go on; 0 once all have been looked at.
    ///
    /// `is_child` tells whether a pid is a living child of ours.
    pub(crate) fn sweep(
        &self,
        from: usize,
        count: usize,
        is_child: impl Fn(u32) -> bool,
        mut on: impl FnMut(&Slot, Death),
    ) -> usize {
        self.collect(&mut on);
        let is_dead = |slot: &Slot| {
            slot.state() != State::Free
                && !slot.is_watched()
                && (slot.is_superseded() || !is_child(slot.pid()))
        };
        let here = (0..self.used() as u32).skip(from).take(count);
        let suspects: Vec<u32> = here.filter(|&index| is_dead(self.slot(index))).collect();
        if !suspects.is_empty() {
            // The dead can't announce themselves any more: what is not on the stack now never will be.
            self.collect(&mut on);
        }
        for index in suspects {
            let slot = self.slot(index);
            if slot.state() != State::Free {
                self.bury_unwatched(index, slot, &mut on);
            }
        }
        if from.saturating_add(count) < self.used() { from + count } else { 0 }
    }

    /// In a dying process that can't say so itself: notes the cause in its own slot, if it has one.
    ///
    /// Async-signal-safe.
    pub(crate) fn record_end(&self, pid: u32, cause: Cause) {
        let mine = |slot: &Slot| slot.pid() == pid && !matches!(slot.state(), State::Free | State::Ended);
        let Some((index, slot)) = self.taken().find(|(_, slot)| mine(slot)) else { return };
        if slot.is_watched() {
            slot.record(cause);
        } else {
            self.announce(index, cause);
        }
    }
}
