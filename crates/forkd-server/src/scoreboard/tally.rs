//! The counters of one listening socket that its children write.
//!
//! They are shown, or tell when to look: nothing that the master does for sure depends on them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::counts::{add_one, subtract_one, take_one};
use super::histogram::Histogram;
use crate::limit::SharedLimit;
use crate::transport::{Refusal, TimedOut};

forkd_sys::plain! {
    /// The counters of one listening socket that its children write; many do.
    #[repr(align(64))]
    pub(crate) struct Tally {
        /// Workers that wait for a connection; the master corrects it now and then.
        pub(crate) idle: AtomicU32,
        /// How many more clients are served while it drains: those that were queued when that began.
        queued: AtomicU32,
        /// Workers that take no more clients, and serve those that they have; the master corrects it now and then.
        pub(crate) leaving: AtomicU32,
        /// Connections of workers that serve many at once and take more; the master corrects it now and then.
        pub(crate) open: AtomicU32,
        /// Connections that have not completed their first exchange, where that is limited.
        pub(crate) early: AtomicU32,
        /// How often such a worker has found the queue empty.
        emptied: AtomicU32,
        /// Not 0 once it takes no more clients. The master writes it, for handlers: children of the fork model see nothing
        /// of the ledger.
        pub(crate) stopping: AtomicU32,
        /// How often no thread could be started.
        failed_threads: AtomicU64,
        /// The master refuses, too.
        refused: [AtomicU64; Refusal::ALL.len()],
        /// Connections that a limit of time has ended.
        timed_out: [AtomicU64; TimedOut::ALL.len()],
        /// On the lines about handlers that fail, which are a matter of what clients send.
        pub(crate) failures: SharedLimit,
        /// On the lines about sources that are refused.
        pub(crate) refusals: SharedLimit,
        /// On the lines about sources that begin to be penalised.
        pub(crate) penalties: SharedLimit,
        /// When the clients so far are paid for, if there is a rate.
        pub(crate) paid_at: AtomicU64,
        /// How long connections of workers lasted.
        pub(crate) durations: Histogram,
        /// How long clients waited in the queue until they were accepted.
        pub(crate) accept_latencies: Histogram,
    }
}

impl Tally {
    /// Begins to count for another socket.
    pub(super) fn reset(&self) {
        let Self {
            idle,
            queued,
            leaving,
            open,
            early,
            emptied,
            stopping,
            failed_threads,
            refused,
            timed_out,
            failures,
            refusals,
            penalties,
            paid_at,
            durations,
            ..
        } = self;
        let small = [idle, queued, leaving, open, early, emptied, stopping];
        small.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        refused
            .iter()
            .chain(timed_out)
            .chain([failed_threads, paid_at])
            .for_each(|counter| counter.store(0, Ordering::Relaxed));
        [durations, &self.accept_latencies].into_iter().for_each(Histogram::reset);
        [failures, refusals, penalties].into_iter().for_each(SharedLimit::reset);
    }

    /// How often no thread could be started.
    pub(crate) fn failed_threads(&self) -> u64 {
        self.failed_threads.load(Ordering::Relaxed)
    }

    /// No thread could be started.
    pub(crate) fn thread_failed(&self) {
        self.failed_threads.fetch_add(1, Ordering::Relaxed);
    }

    /// How many more of those that are queued are to be served.
    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::SeqCst)
    }

    pub(super) fn set_queued(&self, queued: u32) {
        self.queued.store(queued, Ordering::SeqCst);
    }

    /// Whether one more of those that are queued is served.
    pub(crate) fn take_queued(&self) -> bool {
        take_one(&self.queued)
    }

    /// The one that was taken last is still queued.
    pub(crate) fn put_back_queued(&self) {
        self.queued.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether one more worker may leave while it still serves, beside fewer than `most` others.
    pub(crate) fn may_leave(&self, most: u32) -> bool {
        add_one(&self.leaving, most)
    }

    pub(crate) fn one_more_idle(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many were idle before.
    pub(crate) fn one_fewer_idle(&self) -> u32 {
        subtract_one(&self.idle)
    }

    /// A worker begins to serve one more of several connections.
    pub(crate) fn one_more_open(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// It has served one of them.
    pub(crate) fn one_fewer_open(&self) {
        subtract_one(&self.open);
    }

    /// How often a worker that serves many at once has found the queue empty.
    pub(crate) fn emptied(&self) -> u32 {
        self.emptied.load(Ordering::Relaxed)
    }

    /// It has done so.
    pub(crate) fn found_empty(&self) {
        self.emptied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Refusals by cause, those that happened.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        happened(&Refusal::ALL, &self.refused)
    }

    /// A limit of time has ended a connection.
    pub(crate) fn count_timed_out(&self, limit: TimedOut) {
        self.timed_out[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that a limit of time has ended, by that limit, those that there were.
    pub(crate) fn timed_out(&self) -> impl Iterator<Item = (TimedOut, u64)> {
        happened(&TimedOut::ALL, &self.timed_out)
    }
}

/// What was counted of each, but for those that have not happened.
fn happened<T: Copy>(all: &[T], counts: &[AtomicU64]) -> impl Iterator<Item = (T, u64)> {
    all.iter().copied().zip(counts.iter().map(|n| n.load(Ordering::Relaxed))).filter(|x| x.1 > 0)
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("idle", &self.idle).finish_non_exhaustive()
    }
}
