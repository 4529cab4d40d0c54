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
mod histogram;
mod slot;
mod totals;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

pub(crate) use cause::Cause;
pub(crate) use dead::Death;
pub(crate) use histogram::{BOUNDS_US, Lengths};
pub(crate) use slot::{Slot, State};
pub(crate) use totals::{Sums, Totals};

use crate::sys;
use crate::sys::shared::{Arena, bytes_for};
use crate::sys::wake::Wake;
use crate::transport::Refusal;

/// How many pids are told apart: no fewer than Linux has by default.
const PIDS: usize = 32_768;

/// How many children and listening sockets there can be: pages that are not used take no memory, and
/// a reload may ask for more than there were at the start.
const SLOTS: usize = 131_072;
const LISTENERS: usize = 1024;

/// What concerns all children.
#[repr(C, align(64))]
struct Head {
    /// The stack of the dead: an index plus one, so that zeroed memory is an empty stack.
    dead: AtomicU32,
    /// The master wants to be woken by the next child that ends.
    waiting: AtomicU32,
    /// How long things take is measured.
    measures: AtomicU32,
}

/// Which slots are free. Only the master looks at it, and it is shared all the same: a write to its own
/// memory after a fork would copy a page.
#[repr(C, align(64))]
struct Stock {
    /// Top of the list of slots that were used and are free again: an index plus one, or 0.
    free: AtomicU32,
    /// Slots from here on have never been used.
    fresh: AtomicU32,
    /// How many of those taken have no watch.
    unwatched: AtomicU32,
    /// Odd while the counters of a child are moved to the totals.
    burials: AtomicU32,
}

sys::shared::plain!(Head, Stock, Totals, Slot);

/// All that is known of the children of one daemon. A clone is the same one.
#[derive(Debug, Clone)]
pub(crate) struct Scoreboard {
    head: &'static Head,
    stock: &'static Stock,
    totals: &'static [Totals],
    slots: &'static [Slot],
    /// Of each slot: the listener, and whether the child has no watch (the lowest bit).
    owners: &'static [AtomicU32],
    /// The list of free slots: of each, the next one, as an index plus one. Not in the slots, where a
    /// child could write.
    links: &'static [AtomicU32],
    /// Which slot last had a pid: an index plus one, at the pid's place modulo the length.
    by_pid: &'static [AtomicU32],
    wake: Arc<Wake>,
    epoch: Instant,
}

impl Scoreboard {
    /// Maps the memory; no listener has a place for a child yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2), or what eventfd(2) says.
    pub(crate) fn new() -> io::Result<Self> {
        Self::with_places(SLOTS, LISTENERS, PIDS)
    }

    /// For a server that forks nobody: a worker for each of so many listeners. Its memory, a page or two,
    /// is not given back.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn for_one_process(listeners: usize) -> io::Result<Self> {
        Self::with_places(listeners, listeners, 1)
    }

    fn with_places(slots: usize, listeners: usize, pids: usize) -> io::Result<Self> {
        let bytes = bytes_for::<AtomicU32>(pids)
            + 2 * bytes_for::<AtomicU32>(slots)
            + bytes_for::<Totals>(listeners)
            + bytes_for::<Stock>(1)
            + bytes_for::<Head>(1)
            + bytes_for::<Slot>(slots);
        let mut arena = Arena::new(bytes)?;
        Ok(Self {
            // A child writes to the head and to its slot: side by side, they are one page mostly, and first
            // of all, they are near the program's own data (see `Arena::new`).
            head: &arena.take(1)?[0],
            slots: arena.take(slots)?,
            totals: arena.take(listeners)?,
            stock: &arena.take(1)?[0],
            by_pid: arena.take(pids)?,
            owners: arena.take(slots)?,
            links: arena.take(slots)?,
            wake: Arc::new(Wake::new()?),
            epoch: Instant::now(),
        })
    }

    /// The first number of a listener that is not `in_use`, with all counters at 0; `None` if there are
    /// too many.
    pub(crate) fn open(&self, in_use: impl Fn(usize) -> bool) -> Option<usize> {
        let number = (0..self.totals.len()).find(|&number| !in_use(number))?;
        self.totals[number].reset();
        Some(number)
    }

    /// Whether there are children whose death no descriptor tells of.
    pub(crate) fn has_unwatched(&self) -> bool {
        self.stock.unwatched.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn slot(&self, index: u32) -> &'static Slot {
        &self.slots[index as usize]
    }

    /// Which listening socket the child in a slot serves. It does not stand in the slot, so that a child
    /// that went wild there can't lead the master astray.
    pub(crate) fn listener_of(&self, index: u32) -> usize {
        (self.owners[index as usize].load(Ordering::Relaxed) / 2) as usize
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

    /// How many slots have ever been used; the others' pages are not touched.
    pub(crate) fn used(&self) -> usize {
        self.stock.fresh.load(Ordering::Relaxed) as usize
    }

    /// Slots that hold a child, dead or alive, with their indices.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (u32, &'static Slot)> + use<'_> {
        (0..self.used() as u32)
            .map(|index| (index, self.slot(index)))
            .filter(|(_, slot)| slot.state() != State::Free)
    }

    /// The master takes a free slot for `listener`, or `None` at its limit.
    pub(crate) fn take(&self, listener: usize, watched: bool, now: Instant) -> Option<u32> {
        let (totals, stock) = (&self.totals[listener], self.stock);
        if !watched && !totals.has_room() {
            return None;
        }
        let index = match stock.free.load(Ordering::Relaxed) {
            0 => {
                // Those used before come first: few pages are ever touched.
                let fresh = stock.fresh.load(Ordering::Relaxed);
                if fresh as usize == self.slots.len() {
                    return None;
                }
                stock.fresh.store(fresh + 1, Ordering::Relaxed);
                fresh
            }
            top => {
                stock.free.store(self.links[top as usize - 1].load(Ordering::Relaxed), Ordering::Relaxed);
                top - 1
            }
        };
        totals.taken.store(totals.taken.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let unwatched = stock.unwatched.load(Ordering::Relaxed) + u32::from(!watched);
        stock.unwatched.store(unwatched, Ordering::Relaxed);
        let owner = listener as u32 * 2 + u32::from(!watched);
        self.owners[index as usize].store(owner, Ordering::Relaxed);
        self.slot(index).begin(watched, self.millis(now));
        Some(index)
    }

    /// Whether no descriptor tells of the death of the child in a slot.
    fn is_unwatched(&self, index: u32) -> bool {
        self.owners[index as usize].load(Ordering::Relaxed) % 2 == 1
    }

    /// Counts the child in a slot as born.
    pub(crate) fn born(&self, index: u32) {
        let slot = self.slot(index);
        let totals = &self.totals[self.listener_of(index)];
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
        let (slot, free) = (self.slot(index), &self.stock.free);
        let taken = &self.totals[self.listener_of(index)].taken;
        taken.store(taken.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        let unwatched = &self.stock.unwatched;
        let rest = unwatched.load(Ordering::Relaxed).saturating_sub(u32::from(self.is_unwatched(index)));
        unwatched.store(rest, Ordering::Relaxed);
        slot.set_state(State::Free);
        self.links[index as usize].store(free.load(Ordering::Relaxed), Ordering::Relaxed);
        free.store(index + 1, Ordering::Relaxed);
    }

    /// From here on it is measured how long things take: two looks at the clock for each client, and one at its
    /// socket.
    pub(crate) fn measure(&self) {
        self.head.measures.store(1, Ordering::Relaxed);
    }

    /// Whether it is measured how long things take. A child has the flag at hand: it is beside its slot.
    #[inline(always)]
    pub(crate) fn measures(&self) -> bool {
        self.head.measures.load(Ordering::Relaxed) != 0
    }

    /// The clock, in microseconds, if it is measured how long things take.
    #[inline(always)]
    pub(crate) fn clock_us(&self) -> Option<u64> {
        self.measures().then(sys::clock::monotonic_us)
    }

    /// Whether to be woken by each child that ends from now on.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.head.waiting.store(waiting.into(), Ordering::SeqCst);
    }

    /// Whether children have announced their end that are not buried yet.
    pub(crate) fn has_dead(&self) -> bool {
        self.head.dead.load(Ordering::SeqCst) != 0
    }

    /// Counts a client or datagram that was turned away.
    pub(crate) fn refuse(&self, listener: usize, why: Refusal) {
        self.totals[listener].refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Head")
    }
}

impl std::fmt::Debug for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stock")
    }
}

#[cfg(test)]
mod tests;
