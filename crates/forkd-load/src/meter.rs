//! What one thread counts while a phase lasts, and which moments count.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Live;
use super::clock::{Nanos, thread_cpu};
use super::fault::{Fault, Faults};
use super::latencies::Latencies;
use super::loss::{Losses, Lost};

/// After this number of failures in a row, without any success before, a phase ends: there is no server.
const HOPELESS: u32 = 100;

/// What one thread has measured.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) latencies: Latencies,
    pub(super) faults: Faults,
    pub(super) losses: Losses,
    pub(super) done: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) unsent: u64,
    /// For how long it measured.
    pub(super) span: Duration,
    pub(super) cpu: Duration,
    /// When that began, by the clock on the wall.
    pub(super) began: Option<SystemTime>,
}

/// Counts what falls into its window. Faults always count: one in the warm-up is no better.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) part: Part,
    live: Arc<Live>,
    from: Nanos,
    /// The thread's processor time when the window began.
    cpu: Option<Duration>,
    in_vain: u32,
    has_served: bool,
}

impl Meter {
    pub(super) fn new(live: Arc<Live>) -> Self {
        let part = Part { began: Some(SystemTime::now()), ..Part::default() };
        Self { part, live, from: 0, cpu: None, in_vain: 0, has_served: false }
    }

    /// Lets count what happens from `from` on.
    pub(super) fn open(&mut self, from: Nanos) {
        (self.from, self.cpu) = (from, None);
        self.part.began = SystemTime::now().checked_add(Duration::from_nanos(from));
    }

    /// Tells the time, which must be done at least once per turn of a loop.
    pub(super) fn at(&mut self, now: Nanos) {
        if self.cpu.is_none() && now >= self.from {
            self.cpu = Some(thread_cpu());
        }
    }

    /// Whether `moment` counts.
    pub(super) fn counts(&self, moment: Nanos) -> bool {
        moment >= self.from
    }

    /// An operation of `bytes` bytes was done after `latency`; it counts by `moment`: of a closed loop the
    /// end, of an open loop the intended start.
    pub(super) fn done(&mut self, moment: Nanos, latency: Nanos, bytes: usize) {
        self.has_served = true;
        self.live.count_done();
        if self.counts(moment) {
            self.part.done += 1;
            self.part.bytes += bytes as u64;
            self.part.latencies.record_nanos(latency);
        }
    }

    /// A client has had an echo that is no operation of the phase's: it is on its way to that.
    pub(super) fn settled(&mut self) {
        self.has_served = true;
    }

    /// A piece of a bulk came back, at a moment that may count.
    pub(super) fn piece(&mut self, moment: Option<Nanos>) {
        self.has_served = true;
        self.live.count_done();
        self.part.done += u64::from(moment.is_some_and(|moment| self.counts(moment)));
    }

    /// An operation that was due, at this moment, has not been started when the time was up; it had waited for `waited`.
    pub(super) fn unsent(&mut self, (due, at): (Nanos, Instant), waited: Nanos) {
        if self.counts(due) {
            self.part.unsent += 1;
            self.part.losses.count(at, Lost::Unsent);
            self.part.latencies.record_nanos(waited);
        }
    }

    /// A datagram that was due, at this moment, has had no answer in time.
    pub(super) fn unanswered(&mut self, (due, at): (Nanos, Instant)) {
        if self.counts(due) {
            self.part.lost += 1;
            self.part.losses.count(at, Lost::Unanswered);
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.in_vain += 1;
        self.live.count_fault();
        self.part.faults.count(fault);
        self.part.losses.count(Instant::now(), Lost::Failed(fault));
    }

    /// Whether to go on makes no sense.
    pub(super) fn is_over(&self) -> bool {
        self.live.is_stopped() || (!self.has_served && self.in_vain >= HOPELESS)
    }

    /// Ends the window, and returns what was measured.
    pub(super) fn close(mut self, end: Nanos) -> Part {
        self.part.span = Duration::from_nanos(end.saturating_sub(self.from));
        self.part.cpu = self.cpu.map_or(Duration::ZERO, |before| thread_cpu().saturating_sub(before));
        self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_counts_for_nothing_but_faults() {
        let live = Arc::new(Live::default());
        let mut meter = Meter::new(Arc::clone(&live));
        meter.open(1000);
        meter.done(999, 50, 64);
        meter.unsent((999, Instant::now()), 1);
        meter.fault(Fault::Reset);
        meter.at(1000);
        meter.done(1000, 60, 64);
        let part = meter.close(3000);
        assert_eq!((part.done, part.bytes, part.unsent, part.faults.total()), (1, 64, 0, 1));
        assert_eq!((part.latencies.max(), part.span), (Duration::from_nanos(60), Duration::from_nanos(2000)));
        // the view from outside shows all
        assert_eq!((live.done(), live.faults()), (2, 1));
    }

    #[test]
    fn gives_up_without_an_answer() {
        let fail = |meter: &mut Meter| (0..HOPELESS).for_each(|_| meter.fault(Fault::Refused));
        let mut meter = Meter::new(Arc::default());
        fail(&mut meter);
        assert!(meter.is_over());
        for serve in [|meter: &mut Meter| meter.done(0, 1, 1), Meter::settled] {
            let mut meter = Meter::new(Arc::default());
            serve(&mut meter);
            fail(&mut meter);
            assert!(!meter.is_over());
        }
    }
}
