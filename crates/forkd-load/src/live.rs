//! What a phase shows while it runs, and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A view of a running phase from outside; may be used for one phase after the other.
#[derive(Debug, Default)]
pub struct Live {
    done: AtomicU64,
    faults: AtomicU64,
    stopped: Arc<AtomicBool>,
    finished: AtomicBool,
}

impl Live {
    /// Returns how many operations of this phase have succeeded, warm-up included.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Returns how many have failed.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Ends this phase soon, within a tenth of a second, and each later one at once.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Returns what [`stop`](Self::stop) sets, for a handler of signals.
    #[must_use]
    pub fn switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    /// Tells whether [`stop`](Self::stop) has been called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Says that this phase's time is up: what is under way in an open loop still counts.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Starts the counts anew, as each phase does.
    pub fn begin(&self) {
        self.finished.store(false, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.faults.store(0, Ordering::Relaxed);
    }

    pub(super) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for this time, or until it is stopped.
    pub fn wait(&self, span: Duration) {
        let until = Instant::now() + span;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(super::target::TICK));
        }
    }
}
