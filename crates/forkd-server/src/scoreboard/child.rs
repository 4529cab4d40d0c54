//! A child, as the master knows it: its record, and what its slot says.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::Record;
use super::{Slot, Sums};

/// More than any child carries in a millisecond, of whatever is counted.
const MOST_PER_MS: u64 = 1 << 27;

/// Which worker of its pool it is, and of which generation that is, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

/// A child that a listening socket has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child<'a> {
    pub(crate) index: u32,
    /// What it says itself: to be shown, and no more.
    pub(crate) slot: &'static Slot,
    pub(super) record: &'a Record,
}

impl Child<'_> {
    /// Whether it counts as one of its listener's: it lives, or its death is not known yet.
    pub(crate) fn counts(&self) -> bool {
        self.record.counts()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.record.pid()
    }

    /// The number of the listening socket that it serves.
    pub(crate) fn listener(&self) -> usize {
        self.record.listener()
    }

    /// Whether it is a worker, of whose death a descriptor tells.
    pub(crate) fn is_watched(&self) -> bool {
        self.record.is_watched()
    }

    /// Where it is in its pool, if it is a worker that accepts by itself.
    pub(crate) fn place(&self) -> Option<Place> {
        self.record.place()
    }

    /// Whether another child has its pid by now.
    pub(crate) fn is_superseded(&self) -> bool {
        self.record.is_superseded()
    }

    /// When it was forked, in milliseconds since the daemon began.
    pub(crate) fn started_ms(&self) -> u64 {
        self.record.started_ms()
    }

    /// How many connections it serves.
    pub(crate) fn serving(&self) -> u32 {
        let count = self.slot.serving();
        // a child of the fork model has one client
        if self.is_watched() { count } else { count.min(1) }
    }

    /// How many clients it holds for which no thread can be started.
    pub(crate) fn held(&self) -> u32 {
        // the thread that accepts holds one at most; whatever else is written there, a child went wild
        if self.is_watched() { self.slot.held.load(Ordering::Relaxed).min(1) } else { 0 }
    }

    /// What it has carried until now. A child that went wild may have written anything: what it can't have carried
    /// in its life counts as nothing.
    pub(crate) fn carried(&self, now_ms: u64) -> Sums {
        let age = now_ms.saturating_sub(self.started_ms());
        let most = age.saturating_add(1).saturating_mul(MOST_PER_MS);
        let clients = if self.is_watched() { most } else { 1 };
        let at_most = |most: u64, counter: &AtomicU64| {
            let count = counter.load(Ordering::Relaxed);
            if count <= most { count } else { 0 }
        };
        let traffic = &self.slot.traffic;
        Sums {
            connections: at_most(clients, &traffic.connections),
            bytes_in: at_most(most, &traffic.bytes_in),
            bytes_out: at_most(most, &traffic.bytes_out),
            failed: at_most(clients, &traffic.failed),
        }
    }
}
