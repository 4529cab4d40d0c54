//! The counters of one listening socket.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Cause;
use super::histogram::Histogram;
use crate::log::SharedLimit;
use crate::transport::{Refusal, Traffic};

/// The counters of one listening socket.
#[repr(C, align(64))]
pub(crate) struct Totals {
    pub(crate) alive: AtomicU32,
    pub(crate) peak: AtomicU32,
    pub(crate) forked: AtomicU64,
    /// Sums over children that have ended; the living ones' are in their slots.
    pub(crate) connections: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Workers that wait for a connection. Written by many; the master corrects it now and then.
    pub(crate) idle: AtomicU32,
    /// A worker that finds fewer idle than this wakes the master.
    wanted_idle: AtomicU32,
    /// How many more clients are served while it drains: those that were queued when that began.
    queued: AtomicU32,
    /// How many children it may have at once, and how many slots it has. Workers are not limited by this:
    /// the pool's policy says how many there are.
    pub(super) limit: AtomicU32,
    pub(super) taken: AtomicU32,
    /// It takes no more clients, but serves those that are queued.
    draining: AtomicU32,
    /// Workers that take no more clients, and serve those that they have. Written by many, as `idle` is.
    pub(crate) leaving: AtomicU32,
    /// Written by many: both the master and workers refuse.
    pub(super) refused: [AtomicU64; Refusal::ALL.len()],
    pub(super) deaths: [AtomicU64; Cause::COUNT],
    /// On the lines about handlers that fail, which are a matter of what clients send.
    pub(crate) failures: SharedLimit,
    /// How long connections lasted.
    pub(crate) durations: Histogram,
    /// How long clients waited in the queue until they were accepted.
    pub(crate) accept_latencies: Histogram,
    /// How long those who were accepted waited for a child of their own.
    pub(crate) fork_latencies: Histogram,
}

/// Sums over the children of a listening socket that have ended, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    pub(crate) connections: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) failed: u64,
}

impl Sums {
    /// Adds what one child has carried, who may have written anything if it went wild.
    pub(crate) fn and(self, traffic: &Traffic) -> Self {
        let and = |sum: u64, more: &AtomicU64| sum.wrapping_add(more.load(Ordering::Relaxed));
        Self {
            connections: and(self.connections, &traffic.connections),
            bytes_in: and(self.bytes_in, &traffic.bytes_in),
            bytes_out: and(self.bytes_out, &traffic.bytes_out),
            failed: and(self.failed, &traffic.failed),
        }
    }

    /// The larger of each.
    pub(crate) fn at_least(self, other: &Self) -> Self {
        Self {
            connections: self.connections.max(other.connections),
            bytes_in: self.bytes_in.max(other.bytes_in),
            bytes_out: self.bytes_out.max(other.bytes_out),
            failed: self.failed.max(other.failed),
        }
    }
}

impl Totals {
    /// Takes no more clients, but serves so many that are queued.
    pub(crate) fn drain(&self, queued: u32) {
        self.queued.store(queued, Ordering::SeqCst);
        self.draining.store(1, Ordering::SeqCst);
    }

    /// Whether a worker that is told to leave serves those that are queued first.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst) != 0
    }

    /// Whether one more of those that are queued is served.
    pub(crate) fn take_queued(&self) -> bool {
        self.queued.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    /// Begins to count for another socket.
    pub(super) fn reset(&self) {
        let Self { alive, peak, forked, connections, bytes_in, bytes_out, failed, .. } = self;
        let Self { idle, wanted_idle, queued, limit, taken, draining, leaving, refused, deaths, .. } = self;
        [&self.durations, &self.accept_latencies, &self.fork_latencies]
            .into_iter()
            .for_each(Histogram::reset);
        let small = [alive, peak, idle, wanted_idle, queued, limit, taken, draining, leaving];
        small.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        let large = [forked, connections, bytes_in, bytes_out, failed];
        large
            .into_iter()
            .chain(refused)
            .chain(deaths)
            .for_each(|counter| counter.store(0, Ordering::Relaxed));
        self.failures.reset();
    }

    /// How many children it may have at once.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether it may have another child.
    pub(crate) fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }

    /// A worker that finds fewer idle than this wakes the master.
    pub(crate) fn set_wanted_idle(&self, count: u32) {
        self.wanted_idle.store(count, Ordering::Relaxed);
    }

    /// Whether one more worker may leave while it still serves, beside fewer than `most` others.
    pub(crate) fn may_leave(&self, most: u32) -> bool {
        let more = |n: u32| (n < most).then_some(n + 1);
        self.leaving.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn one_more_idle(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells whether there are too few now, so that the master should be woken.
    pub(crate) fn one_fewer_idle(&self) -> bool {
        // A worker that was killed may have left the count wrong until the master corrects it.
        let before =
            self.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
        before.unwrap_or(0) <= self.wanted_idle.load(Ordering::Relaxed)
    }

    /// Refusals by cause, those that happened.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL
            .iter()
            .copied()
            .zip(self.refused.iter().map(|n| n.load(Ordering::Relaxed)))
            .filter(|x| x.1 > 0)
    }

    /// Deaths by cause, those that happened.
    pub(crate) fn deaths(&self) -> impl Iterator<Item = (Cause, u64)> {
        (0..)
            .map(Cause::from_index)
            .zip(self.deaths.iter().map(|n| n.load(Ordering::Relaxed)))
            .filter(|x| x.1 > 0)
    }
}

impl std::fmt::Debug for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Totals")
            .field("alive", &self.alive)
            .field("forked", &self.forked)
            .finish_non_exhaustive()
    }
}
