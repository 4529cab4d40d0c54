//! When the next operation is due: the open loop.
//!
//! The invariant: what is due depends on the time and on how many were sent, never on how long the
//! server took. A server that stalls finds everything that came due meanwhile waiting for it, and the
//! wait counts: that is what "no coordinated omission" means. The idea is that of vegeta's pacer.

use std::time::Duration;

use super::clock::{Nanos, nanos};
use super::target::TICK;

/// A constant rate, of which one thread has an even share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacer {
    interval: f64,
    first: u64,
    step: u64,
}

impl Pacer {
    /// Has operations come due `per_second` times a second, of which this thread (of `threads`, counted
    /// from 0) has each `threads`th.
    pub(super) fn new(per_second: f64, thread: usize, threads: usize) -> Self {
        Self { interval: 1e9 / per_second, first: thread as u64, step: threads as u64 }
    }

    /// When the operation that comes after `sent` others is due.
    pub(super) fn due(&self, sent: u64) -> Nanos {
        ((sent * self.step + self.first) as f64 * self.interval) as Nanos
    }

    /// How long to wait for the next operation, `elapsed` after the start and with `sent` behind it;
    /// nothing if it is due.
    pub(super) fn wait(&self, elapsed: Nanos, sent: u64) -> Duration {
        Duration::from_nanos(self.due(sent).saturating_sub(elapsed))
    }
}

/// A pacer's operations, one after the other, until the time is up.
#[derive(Debug)]
pub(super) struct Schedule {
    pacer: Pacer,
    sent: u64,
    /// When the warm-up is over.
    from: Nanos,
    end: Nanos,
    /// For how long what has come due before the end may start after it.
    late: Nanos,
}

impl Schedule {
    pub(super) fn new(pacer: Pacer, from: Nanos, end: Nanos) -> Self {
        // the thread can't be everywhere at once
        Self { pacer, sent: 0, from, end, late: nanos(TICK) }
    }

    /// When the next operation was due, if it is. What the warm-up has left undone is forgotten. After the
    /// end only what has not come due too long ago may start.
    pub(super) fn due(&mut self, now: Nanos) -> Option<Nanos> {
        while now >= self.from && self.pacer.due(self.sent) < self.from {
            self.sent += 1;
        }
        let due = self.pacer.due(self.sent);
        let may_start = due < self.end && (now < self.end || now < due + self.late);
        (may_start && self.pacer.wait(now, self.sent).is_zero()).then_some(due)
    }

    /// Has no more come due from this moment on; for so long, what has may start.
    pub(super) fn end_at(&mut self, end: Nanos, late: Nanos) {
        (self.end, self.late) = (end, late);
    }

    /// How long to wait until the next one is due.
    pub(super) fn wait(&self, now: Nanos) -> Duration {
        self.pacer.wait(now, self.sent)
    }

    /// The next one has been started.
    pub(super) fn advance(&mut self) {
        self.sent += 1;
    }

    /// When those were due, before `until`, that have not been started.
    pub(super) fn unsent(&self, until: Nanos) -> impl Iterator<Item = Nanos> {
        let pacer = self.pacer;
        (self.sent..).map(move |sent| pacer.due(sent)).take_while(move |due| *due < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends what is due whenever it looks, and looks after each of these pauses.
    fn follow(pacer: Pacer, pauses: &[u64]) -> (Nanos, u64) {
        pauses.iter().fold((0, 0), |(elapsed, mut sent), pause| {
            while pacer.wait(elapsed, sent).is_zero() {
                sent += 1;
            }
            (elapsed + pause, sent)
        })
    }

    #[test]
    fn keeps_to_a_grid() {
        let pacer = Pacer::new(1000.0, 0, 1);
        assert_eq!(pacer.wait(0, 0), Duration::ZERO);
        assert_eq!(pacer.wait(0, 1), Duration::from_millis(1));
        assert_eq!(pacer.wait(400_000, 1), Duration::from_micros(600));
        // after a second's stall a thousand are due at once, and each is told when it ought to have been
        assert_eq!(pacer.wait(1_000_000_000, 999), Duration::ZERO);
        assert_eq!(pacer.due(999), 999_000_000);
    }

    #[test]
    fn a_schedule_ends_and_knows_what_was_left_out() {
        let mut schedule = Schedule::new(Pacer::new(10.0, 0, 1), 0, 1_000_000_000);
        assert_eq!(schedule.due(0), Some(0));
        schedule.advance();
        assert_eq!((schedule.due(99_999_999), schedule.due(100_000_000)), (None, Some(100_000_000)));
        assert_eq!(schedule.wait(0), Duration::from_millis(100));
        (1..9).for_each(|_| schedule.advance());
        assert_eq!(schedule.unsent(1_000_000_000).collect::<Vec<_>>(), [900_000_000]);
        assert_eq!(schedule.due(1_000_000_000), None);
        schedule.advance();
        assert_eq!((schedule.due(1_000_000_000), schedule.unsent(1_000_000_000).count()), (None, 0));
    }

    #[test]
    fn a_moment_too_late_is_not_too_late() {
        let mut schedule = Schedule::new(Pacer::new(1000.0, 0, 1), 0, 100_000_000);
        (0..99).for_each(|_| schedule.advance());
        assert_eq!((schedule.due(110_000_000), schedule.due(200_000_000)), (Some(99_000_000), None));
    }

    #[test]
    fn what_has_come_due_when_it_is_ended_may_start_later() {
        let mut schedule = Schedule::new(Pacer::new(1000.0, 0, 1), 0, Nanos::MAX);
        schedule.end_at(100_000_000, 500_000_000);
        (0..99).for_each(|_| schedule.advance());
        assert_eq!((schedule.due(598_999_999), schedule.due(599_000_000)), (Some(99_000_000), None));
        schedule.advance();
        assert_eq!(schedule.due(100_000_000), None);
    }

    #[test]
    fn what_the_warm_up_leaves_undone_is_forgotten() {
        let mut schedule = Schedule::new(Pacer::new(1000.0, 0, 1), 50_000_000, 100_000_000);
        assert_eq!(schedule.due(49_999_999), Some(0));
        assert_eq!(schedule.due(50_000_000), Some(50_000_000));
        assert_eq!(schedule.unsent(100_000_000).count(), 50);
    }

    proptest! {
        #[test]
        fn a_prompt_client_waits_from_one_to_the_next(rate in 0.1..1e7_f64, sent in 0..1_000_000_u64) {
            let pacer = Pacer::new(rate, 0, 1);
            let wait = pacer.wait(pacer.due(sent), sent + 1).as_nanos() as f64;
            prop_assert!((wait - 1e9 / rate).abs() <= 1.0 + 1e9 / rate * 1e-6, "{wait}");
            prop_assert_eq!(pacer.wait(pacer.due(sent), sent), Duration::ZERO);
        }

        #[test]
        fn no_lateness_changes_how_many_are_due(
            rate in 1.0..1e6_f64,
            pauses in prop::collection::vec(0..2_000_000_u64, 1..100),
        ) {
            let (elapsed, sent) = follow(Pacer::new(rate, 0, 1), &pauses);
            let last = elapsed - pauses[pauses.len() - 1];
            // the first is due at once
            let expected = last as f64 / 1e9 * rate + 1.0;
            prop_assert!((sent as f64 - expected).abs() <= 1.0, "{sent} instead of {expected}");
        }

        #[test]
        fn a_wait_is_never_longer_than_needed(rate in 1.0..1e6_f64, elapsed in 0..10_000_000_000_u64, sent in 0..1_000_000_u64) {
            let pacer = Pacer::new(rate, 0, 1);
            let wait = pacer.wait(elapsed, sent);
            prop_assert_eq!(pacer.wait(elapsed + wait.as_nanos() as u64, sent), Duration::ZERO);
            prop_assert!(pacer.wait(elapsed, sent + 1) >= wait);
        }

        #[test]
        fn threads_share_one_grid(rate in 1.0..1e6_f64, threads in 1..9_usize, sent in 0..1000_u64) {
            let alone = Pacer::new(rate, 0, 1);
            for thread in 0..threads {
                let due = Pacer::new(rate, thread, threads).due(sent);
                prop_assert_eq!(due, alone.due(sent * threads as u64 + thread as u64));
            }
        }
    }
}
