//! The counters of one listening socket that the master writes, and its children can't.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Cause;
use super::histogram::Histogram;

forkd_sys::plain! {
    /// The counters of one listening socket that the master writes.
    #[repr(align(64))]
    pub(crate) struct Totals {
        pub(crate) alive: AtomicU32,
        pub(crate) peak: AtomicU32,
        pub(crate) forked: AtomicU64,
        /// Sums over children that have ended; the living ones' are in their slots.
        pub(super) connections: AtomicU64,
        pub(super) bytes_in: AtomicU64,
        pub(super) bytes_out: AtomicU64,
        pub(super) failed: AtomicU64,
        /// A worker that finds fewer idle than this wakes the master.
        wanted_idle: AtomicU32,
        /// Workers that take clients.
        takers: AtomicU32,
        /// How many children it may have at once, and how many count. Workers are not limited by this:
        /// the pool's policy says how many there are.
        pub(super) limit: AtomicU32,
        pub(super) taken: AtomicU32,
        /// It takes no more clients, but serves those that are queued.
        draining: AtomicU32,
        /// Clients that the master holds, since fork(2) fails.
        held: AtomicU32,
        /// How often fork(2) has failed.
        pub(super) failed_forks: AtomicU64,
        /// Workers that have ended though nothing has told them to.
        pub(super) restarts: AtomicU64,
        pub(super) deaths: [AtomicU64; Cause::COUNT],
        /// How long connections lasted that had a child of their own.
        pub(crate) durations: Histogram,
        /// How long accepted clients waited for a child of their own.
        pub(crate) fork_latencies: Histogram,
        /// How long children lived.
        pub(crate) lifetimes: Histogram,
    }
}

/// Sums over the children of a listening socket that have ended, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Connections and datagrams.
    pub connections: u64,
    /// Bytes received from clients.
    pub bytes_in: u64,
    /// Bytes sent to clients.
    pub bytes_out: u64,
    /// Connections whose handler failed or panicked.
    pub failed: u64,
}

impl Sums {
    /// The sum of both.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(more.connections),
            bytes_in: self.bytes_in.saturating_add(more.bytes_in),
            bytes_out: self.bytes_out.saturating_add(more.bytes_out),
            failed: self.failed.saturating_add(more.failed),
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
    pub(super) fn drain(&self) {
        self.draining.store(1, Ordering::SeqCst);
    }

    /// Whether a worker that is told to leave serves those that are queued first.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst) != 0
    }

    /// Begins to count for another socket.
    pub(super) fn reset(&self) {
        let Self {
            alive,
            peak,
            forked,
            connections,
            bytes_in,
            bytes_out,
            failed,
            failed_forks,
            restarts,
            ..
        } = self;
        let Self {
            wanted_idle,
            takers,
            limit,
            taken,
            draining,
            held,
            deaths,
            durations,
            fork_latencies,
            lifetimes,
            ..
        } = self;
        [durations, fork_latencies, lifetimes].into_iter().for_each(Histogram::reset);
        let small = [alive, peak, wanted_idle, takers, limit, taken, draining, held];
        small.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        let large = [forked, connections, bytes_in, bytes_out, failed, failed_forks, restarts];
        large.into_iter().chain(deaths).for_each(|counter| counter.store(0, Ordering::Relaxed));
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

    pub(super) fn subtract_taken(&self) {
        self.taken.store(self.taken.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// Clients that the master holds, since fork(2) fails.
    pub(crate) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// The master begins to hold a client.
    pub(crate) fn hold(&self) {
        self.held.store(self.held() + 1, Ordering::Relaxed);
    }

    /// The master holds one client fewer.
    pub(crate) fn let_go(&self) {
        self.held.store(self.held().saturating_sub(1), Ordering::Relaxed);
    }

    /// How often fork(2) has failed.
    pub(crate) fn failed_forks(&self) -> u64 {
        self.failed_forks.load(Ordering::Relaxed)
    }

    /// fork(2) has failed.
    pub(crate) fn fork_failed(&self) {
        self.failed_forks.store(self.failed_forks() + 1, Ordering::Relaxed);
    }

    /// Workers that have ended though nothing has told them to.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// A worker has done so.
    pub(crate) fn restarted(&self) {
        self.restarts.store(self.restarts() + 1, Ordering::Relaxed);
    }

    pub(super) fn add_alive(&self) {
        let alive = self.alive.load(Ordering::Relaxed) + 1;
        self.alive.store(alive, Ordering::Relaxed);
        if alive > self.peak.load(Ordering::Relaxed) {
            self.peak.store(alive, Ordering::Relaxed);
        }
    }

    /// A worker that finds fewer idle than this wakes the master.
    pub(crate) fn set_wanted_idle(&self, count: u32) {
        self.wanted_idle.store(count, Ordering::Relaxed);
    }

    pub(super) fn wanted_idle(&self) -> u32 {
        self.wanted_idle.load(Ordering::Relaxed)
    }

    /// How many workers take clients.
    pub(crate) fn takers(&self) -> u32 {
        self.takers.load(Ordering::Relaxed)
    }

    pub(crate) fn set_takers(&self, count: u32) {
        self.takers.store(count, Ordering::Relaxed);
    }

    /// Adds what a child has carried to the sums.
    pub(super) fn add(&self, carried: Sums) {
        let sums = self.sums().and(carried);
        self.connections.store(sums.connections, Ordering::Relaxed);
        self.bytes_in.store(sums.bytes_in, Ordering::Relaxed);
        self.bytes_out.store(sums.bytes_out, Ordering::Relaxed);
        self.failed.store(sums.failed, Ordering::Relaxed);
    }

    /// The sums over children that have ended, for the process that writes them.
    pub(crate) fn sums(&self) -> Sums {
        Sums {
            connections: self.connections.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
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
