//! What every process of the daemon knows of every child, in shared memory.
//!
//! One [`Slot`] per child and one [`Totals`] per listening socket; atomics only, no pointers.
//! Each field has one writer at a time (the slot's own child, or the master while the slot has no
//! child), but for the few counters that say otherwise. The master's own hot counters live here
//! too: a write to private memory after a fork would cost it a copied page, a write here does not.
//!
//! A child that ends by itself records why, and pushes its slot on the stack of the dead: two
//! atomic operations, no system call, no descriptor. The master takes the whole stack when it
//! needs to know. A child that is killed in between is found by [`Scoreboard::sweep`].

mod cause;
mod dead;
mod slot;

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

pub(crate) use cause::Cause;
pub(crate) use dead::Death;
pub(crate) use slot::{Slot, State};

use crate::sys;
use crate::sys::shared::{Arena, bytes_for};
use crate::sys::wake::Wake;
use crate::transport::Refusal;

/// How many pids are told apart: no fewer than Linux has by default.
const PIDS: usize = 32_768;

/// What concerns all children.
#[repr(C, align(64))]
struct Head {
    /// The stack of the dead: an index plus one, so that zeroed memory is an empty stack.
    dead: AtomicU32,
    /// The master wants to be woken by the next child that ends.
    waiting: AtomicU32,
    /// The daemon stops: a worker that is told to leave empties the backlog first.
    draining: AtomicU32,
}

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
    /// Workers that wait for a connection. Written by many; the master corrects it now and then.
    pub(crate) idle: AtomicU32,
    /// A worker that finds fewer idle than this wakes the master.
    pub(crate) wanted_idle: AtomicU32,
    /// At a stop: how many more clients are served, those that were queued when it began.
    queued: AtomicU32,
    /// Top of the list of slots that were used and are free again: an index plus one, or 0.
    free: AtomicU32,
    /// Its slots: `first` to `end`, of which those from `fresh` on have never been used.
    first: AtomicU32,
    fresh: AtomicU32,
    end: AtomicU32,
    /// Written by many: both the master and workers refuse.
    refused: [AtomicU64; Refusal::ALL.len()],
    deaths: [AtomicU64; Cause::COUNT],
}

sys::shared::plain!(Head, Totals, Slot);

/// All that is known of the children of one daemon.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    head: &'static Head,
    totals: &'static [Totals],
    slots: &'static [Slot],
    /// Which slot last had a pid: an index plus one, at the pid's place modulo the length.
    by_pid: &'static [AtomicU32],
    wake: Wake,
    epoch: Instant,
}

impl Scoreboard {
    /// Maps slots for `capacities[i]` children of listener `i`, for each.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2), or what eventfd(2) says.
    pub(crate) fn new(capacities: &[u32]) -> io::Result<Self> {
        let count: u32 = capacities.iter().sum();
        let (slots, listeners) = (count as usize, capacities.len());
        let bytes = bytes_for::<Head>(1)
            + bytes_for::<Slot>(slots)
            + bytes_for::<Totals>(listeners)
            + bytes_for::<AtomicU32>(PIDS);
        let mut arena = Arena::new(bytes)?;
        // A child writes to the head and to its slot: side by side, they are one page mostly.
        let board = Self {
            head: &arena.take::<Head>(1)?[0],
            slots: arena.take(slots)?,
            totals: arena.take(listeners)?,
            by_pid: arena.take(PIDS)?,
            wake: Wake::new()?,
            epoch: Instant::now(),
        };
        let mut next = 0;
        for (listener, &capacity) in capacities.iter().enumerate() {
            let totals = &board.totals[listener];
            totals.first.store(next, Ordering::Relaxed);
            totals.fresh.store(next, Ordering::Relaxed);
            next += capacity;
            totals.end.store(next, Ordering::Relaxed);
        }
        Ok(board)
    }

    pub(crate) fn slot(&self, index: u32) -> &'static Slot {
        &self.slots[index as usize]
    }

    pub(crate) fn totals(&self, listener: usize) -> &'static Totals {
        &self.totals[listener]
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Milliseconds since the daemon began.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        now.duration_since(self.epoch).as_millis() as u64
    }

    /// Slots that have ever been used; the others' pages are not touched.
    fn used(&self) -> impl Iterator<Item = u32> + use<'_> {
        let used =
            |totals: &Totals| totals.first.load(Ordering::Relaxed)..totals.fresh.load(Ordering::Relaxed);
        self.totals.iter().flat_map(used)
    }

    /// Slots that hold a child, dead or alive, with their indices.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (u32, &'static Slot)> + use<'_> {
        self.used().map(|index| (index, self.slot(index))).filter(|(_, slot)| slot.state() != State::Free)
    }

    /// The master takes a free slot of `listener`, or `None` at its limit.
    pub(crate) fn take(&self, listener: usize, watched: bool, now: Instant) -> Option<u32> {
        let totals = &self.totals[listener];
        let index = match totals.free.load(Ordering::Relaxed) {
            0 => {
                // Those used before come first: few pages are ever touched.
                let fresh = totals.fresh.load(Ordering::Relaxed);
                if fresh == totals.end.load(Ordering::Relaxed) {
                    return None;
                }
                totals.fresh.store(fresh + 1, Ordering::Relaxed);
                fresh
            }
            top => {
                totals.free.store(self.slot(top - 1).next.load(Ordering::Relaxed), Ordering::Relaxed);
                top - 1
            }
        };
        self.slot(index).begin(listener, watched, self.millis(now));
        Some(index)
    }

    /// Counts the child in a slot as born.
    pub(crate) fn born(&self, index: u32) {
        let slot = self.slot(index);
        let totals = &self.totals[slot.listener()];
        let alive = totals.alive.load(Ordering::Relaxed) + 1;
        totals.alive.store(alive, Ordering::Relaxed);
        totals.forked.store(totals.forked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if alive > totals.peak.load(Ordering::Relaxed) {
            totals.peak.store(alive, Ordering::Relaxed);
        }
        self.supersede(index, slot.pid());
    }

    /// A pid that stands in another slot was recycled: the child there is dead, however alive the
    /// number looks. The next sweep buries it.
    fn supersede(&self, index: u32, pid: u32) {
        let last = self.by_pid[pid as usize % self.by_pid.len()].swap(index + 1, Ordering::Relaxed);
        let older = last.checked_sub(1).filter(|&older| older != index).map(|older| self.slot(older));
        if let Some(older) = older.filter(|older| older.pid() == pid && older.state() != State::Free) {
            older.set_superseded();
        }
    }

    /// Gives back a slot whose child was never born.
    pub(crate) fn put_back(&self, index: u32) {
        let slot = self.slot(index);
        let free = &self.totals[slot.listener.load(Ordering::Relaxed) as usize].free;
        slot.set_state(State::Free);
        slot.next.store(free.load(Ordering::Relaxed), Ordering::Relaxed);
        free.store(index + 1, Ordering::Relaxed);
    }

    /// Whether to be woken by each child that ends from now on.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.head.waiting.store(waiting.into(), Ordering::SeqCst);
    }

    /// Whether children have announced their end that are not buried yet.
    pub(crate) fn has_dead(&self) -> bool {
        self.head.dead.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn set_draining(&self) {
        self.head.draining.store(1, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.head.draining.load(Ordering::SeqCst) != 0
    }

    /// Counts a client or datagram that was turned away.
    pub(crate) fn refuse(&self, listener: usize, why: Refusal) {
        self.totals[listener].refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Totals {
    /// At a stop: so many clients are still served; `None` means as many as there are.
    pub(crate) fn set_queued(&self, queued: Option<u32>) {
        self.queued.store(queued.unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    /// Whether one more of those is served.
    pub(crate) fn take_queued(&self) -> bool {
        let take = |n: u32| if n == u32::MAX { Some(n) } else { n.checked_sub(1) };
        self.queued.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Whether a slot is free.
    pub(crate) fn has_room(&self) -> bool {
        self.free.load(Ordering::Relaxed) != 0
            || self.fresh.load(Ordering::Relaxed) < self.end.load(Ordering::Relaxed)
    }

    /// Whether workers should count themselves.
    pub(crate) fn is_elastic(&self) -> bool {
        self.wanted_idle.load(Ordering::Relaxed) > 0
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

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Head")
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

#[cfg(test)]
mod tests;
