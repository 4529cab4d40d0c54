//! What every process of the daemon knows of every child.
//!
//! There are two memories. Children write the shared one: a [`Slot`] for each child, a [`Tally`] for each listening
//! socket, and the stack of the dead; atomics only, no pointers. The master writes the other one, its [`ledger`]:
//! which slots are free, what it knows of each child, and the [`Totals`] of each listening socket. A child of the
//! fork model doesn't have it at all, a worker reads it. So what decides anything can't be written by a child, and
//! what a child writes is shown, or is a hint that is checked. Both are outside the master's private memory, a
//! write to which would cost it a copied page after each fork.
//!
//! A child that ends by itself records why, and pushes its slot on the stack of the dead: two
//! atomic operations, no system call, no descriptor. The master takes the whole stack when it
//! needs to know. A child that is killed in between is found by [`Scoreboard::sweep`].

mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering, fence};
}

use forkd_sys::plain;

mod cause;
mod child;
mod counts;
mod dead;
mod histogram;
mod ledger;
mod saved;
mod sequence;
mod slot;
mod stack;
mod stage;
mod tally;
mod totals;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use cause::Cause;
pub(crate) use child::{Child, Place};
pub(crate) use dead::Death;
pub use histogram::{Bounds, CONNECTIONS, LIFETIMES, Lengths};
pub(crate) use ledger::Record;
pub(crate) use saved::SavedBoard;
pub(crate) use slot::Slot;
pub use slot::State;
pub use stage::Stage;
pub(crate) use tally::Tally;
pub use totals::Sums;
pub(crate) use totals::Totals;

use crate::access::sources::{Key, Sources};
use crate::sys;
use crate::sys::shared::{Arena, ArenaFile, Lent, Plain, bytes_for, layout};
use crate::sys::wake::Wake;
use crate::transport::Refusal;
use crate::transport::early::Early;

/// How many pids are told apart: no fewer than Linux has by default.
const PIDS: usize = 32_768;

/// How many children and listening sockets there can be: pages that are not used take no memory, and
/// a reload may ask for more than there were at the start.
const SLOTS: usize = 131_072;
const LISTENERS: usize = 1024;

plain! {
    /// What concerns all children.
    #[repr(align(64))]
    struct Head {
        dead: stack::Stack,
        /// How many slots have ever been used: where a child that dies by a signal looks for its own, if it must.
        used: AtomicU32,
    }
}

/// How the memory that children write is laid out, and what they write there: to be counted up where the meaning of a number
/// changes, such as that of a [`State`] or of a [`Ticket`](crate::access::sources::Ticket).
const LAYOUT: u64 = {
    // tests upgrade to a build with another layout, and back
    const MEANING: u64 = if cfg!(forkd_next) { u64::MAX } else { 1 };
    let counts = (SLOTS + LISTENERS + PIDS) as u64;
    layout("board", layout("head", Head::LAYOUT) ^ layout("slots", Slot::LAYOUT))
        ^ layout("tallies", Tally::LAYOUT ^ counts)
        ^ layout("meaning", Sources::LAYOUT ^ MEANING)
};

/// How much there is of what.
#[derive(Debug, Clone, Copy)]
struct Places {
    slots: usize,
    listeners: usize,
    pids: usize,
    counts_sources: bool,
}

impl Places {
    const OF_A_MASTER: Self = Self { slots: SLOTS, listeners: LISTENERS, pids: PIDS, counts_sources: true };

    fn bytes(self) -> usize {
        bytes_for::<Tally>(self.listeners)
            + bytes_for::<Head>(1)
            + bytes_for::<Slot>(self.slots)
            + bytes_for::<AtomicU32>(self.pids)
            + if self.counts_sources { Sources::BYTES } else { 0 }
    }
}

/// All that is known of the children of one daemon. A clone is the same one.
#[derive(Debug, Clone)]
pub struct Scoreboard {
    head: &'static Head,
    tallies: &'static [Tally],
    slots: &'static [Slot],
    /// Where a child that dies by a signal finds its slot: an index plus one, at the place of its pid modulo the length.
    /// Only a hint, which the slot confirms.
    finder: &'static [AtomicU32],
    ledger: ledger::Ledger,
    /// How many clients each source has.
    sources: &'static Sources,
    wake: Arc<Wake>,
    /// How long things take is measured. It doesn't change once there are children.
    measures: Arc<AtomicBool>,
    epoch: Instant,
    /// Of the memory that children write, if a successor is to have it.
    file: Option<Arc<ArenaFile>>,
}

impl Scoreboard {
    /// Maps the memory; no listener has a place for a child yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2), or what eventfd(2) says.
    pub(crate) fn new() -> io::Result<Self> {
        let places = Places::OF_A_MASTER;
        Self::in_memory(places, Arena::new(places.bytes())?, Wake::new()?, Key::random())
    }

    /// The same, in memory that a program can map which this process executes, where the system has such memory.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn for_successors() -> io::Result<Self> {
        let places = Places::OF_A_MASTER;
        match ArenaFile::new(places.bytes()) {
            Ok(file) if !sys::portable() => {
                let board = Self::in_memory(places, Arena::of(&file)?, Wake::new()?, Key::random())?;
                Ok(Self { file: Some(Arc::new(file)), ..board })
            }
            _ => Self::new(),
        }
    }

    /// For a server that does not fork: a worker for each of its listeners. Its memory, a page or two, and that of the
    /// sources, if they are counted, is not given back.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn for_one_process(listeners: usize, counts_sources: bool) -> io::Result<Self> {
        let places = Places { slots: listeners, listeners, pids: 1, counts_sources };
        Self::in_memory(places, Arena::new(places.bytes())?, Wake::new()?, Key::random())
    }

    fn in_memory(places: Places, mut arena: Arena, wake: Wake, key: Key) -> io::Result<Self> {
        let Places { slots, listeners, pids, counts_sources } = places;
        Ok(Self {
            // A child writes to the head and to its slot: side by side, they are one page mostly, and first
            // of all, they are near the program's own data (see `Arena::new`).
            head: &arena.take(1)?[0],
            slots: arena.take(slots)?,
            tallies: arena.take(listeners)?,
            finder: arena.take(pids)?,
            // last, as they are touched only where sources are limited
            sources: Box::leak(Box::new(match counts_sources {
                true => Sources::new(&mut arena, key)?,
                false => Sources::none(),
            })),
            ledger: ledger::Ledger::new(slots, listeners, pids)?,
            wake: Arc::new(wake),
            measures: Arc::default(),
            epoch: Instant::now(),
            file: None,
        })
    }

    /// Lets children read the master's memory that are forked until the answer is dropped.
    ///
    /// # Errors
    ///
    /// As madvise(2).
    pub(crate) fn lend(&self) -> io::Result<Lent<'_>> {
        self.ledger.lend()
    }

    /// In a child that reads the master's memory: from here on it can't write it.
    ///
    /// # Errors
    ///
    /// As mprotect(2).
    pub(crate) fn read_only(&self) -> io::Result<()> {
        self.ledger.read_only()
    }

    /// In a child that the master's memory is nothing to.
    pub(crate) fn keep_out(&self) {
        self.ledger.keep_out();
    }

    /// The first number of a listener that is not `in_use`, with all counters at 0; `None` if there are
    /// too many.
    pub(crate) fn open(&self, in_use: impl Fn(usize) -> bool) -> Option<usize> {
        let number = (0..self.tallies.len()).find(|&number| !in_use(number))?;
        self.totals(number).reset();
        self.tallies[number].reset();
        Some(number)
    }

    /// How many children there are, dead or alive, whose death no descriptor tells of.
    pub(crate) fn unwatched(&self) -> u32 {
        self.ledger.unwatched()
    }

    /// How many living children have left it to the master to raise their `oom_score_adj`.
    pub(crate) fn unraised(&self) -> u32 {
        self.ledger.unraised()
    }

    /// The child in a slot leaves that to the master.
    pub(crate) fn raise_later(&self, index: u32) {
        self.ledger.raise_later(index);
    }

    /// What the child in a slot says.
    pub(crate) fn slot(&self, index: u32) -> &'static Slot {
        &self.slots[index as usize]
    }

    /// What the master knows of the child in a slot.
    pub(crate) fn record(&self, index: u32) -> &Record {
        self.ledger.record(index)
    }

    pub(crate) fn child(&self, index: u32) -> Child<'_> {
        Child { index, slot: self.slot(index), record: self.record(index) }
    }

    /// Which listening socket the child in a slot serves.
    pub(crate) fn listener_of(&self, index: u32) -> usize {
        self.record(index).listener()
    }

    /// What the master counts, for the master and its workers.
    pub(crate) fn totals(&self, listener: usize) -> &Totals {
        &self.ledger.totals()[listener]
    }

    /// What children count.
    pub(crate) fn tally(&self, listener: usize) -> &'static Tally {
        &self.tallies[listener]
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Where the daemon is on its way from the start to the end.
    pub(crate) fn stage(&self) -> Stage {
        self.ledger.stage()
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.ledger.set_stage(stage);
    }

    /// How long the turn of the master's loop is overdue.
    pub(crate) fn overdue(&self, now: Instant) -> Duration {
        Duration::from_millis(self.millis(now).saturating_sub(self.ledger.next_turn_ms()))
    }

    /// The master's loop turns then at the latest; `None`: when something happens.
    pub(crate) fn set_next_turn(&self, then: Option<Instant>) {
        self.ledger.set_next_turn(then.map_or(u64::MAX, |then| self.millis(then)));
    }

    /// Milliseconds since the daemon began.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        now.duration_since(self.epoch).as_millis() as u64
    }

    /// How many slots have ever been used; the others' pages are not touched.
    pub(crate) fn used(&self) -> usize {
        self.ledger.used() as usize
    }

    /// Children that count, with those whose death is not known yet.
    pub(crate) fn children(&self) -> impl Iterator<Item = Child<'_>> + use<'_> {
        (0..self.ledger.used()).map(|index| self.child(index)).filter(Child::counts)
    }

    /// The master takes a free slot for `listener`, or `None` at its limit.
    pub(crate) fn take(&self, listener: usize, watched: bool, now: Instant) -> Option<u32> {
        if !watched && !self.totals(listener).has_room() {
            return None;
        }
        let index = self.ledger.take(listener, watched, self.millis(now))?;
        self.slot(index).begin(watched);
        if self.head.used.load(Ordering::Relaxed) != self.ledger.used() {
            self.head.used.store(self.ledger.used(), Ordering::Relaxed);
        }
        Some(index)
    }

    /// Counts the child in a slot as born.
    pub(crate) fn born(&self, index: u32) {
        self.ledger.born(index);
        self.finder_of(self.record(index).pid()).store(index + 1, Ordering::Relaxed);
    }

    /// Where it says which slot has a pid.
    fn finder_of(&self, pid: u32) -> &'static AtomicU32 {
        &self.finder[pid as usize % self.finder.len()]
    }

    /// Gives back a slot whose child is dead, or was never born.
    pub(crate) fn put_back(&self, index: u32) {
        // another process that gets its number must not take the slot for its own
        self.slot(index).pid.store(0, Ordering::Relaxed);
        self.leave(self.slot(index), self.listener_of(index));
        self.ledger.vacate(index);
    }

    /// How many clients each source has.
    pub(crate) fn sources(&self) -> &'static Sources {
        self.sources
    }

    /// The client of a child does not count any more as one of its source's, nor those of any process as without a first
    /// exchange.
    #[inline(always)]
    pub(crate) fn leave(&self, slot: &Slot, listener: usize) {
        self.sources.leave_at(&slot.ticket);
        Early::abandon(&slot.early, &self.tally(listener).early);
    }

    /// A listener takes no more clients, but serves those that are queued.
    pub(crate) fn drain(&self, listener: usize, queued: u32) {
        self.tally(listener).set_queued(queued);
        self.totals(listener).drain();
    }

    /// In a worker that begins to serve: counts that, and wakes the master if too few are idle now.
    pub(crate) fn one_fewer_idle(&self, listener: usize) {
        if self.tally(listener).one_fewer_idle() <= self.totals(listener).wanted_idle() {
            self.wake.notify();
        }
    }

    /// From here on it is measured how long things take: two looks at the clock for each client, and one at its
    /// socket.
    pub(crate) fn measure(&self) {
        self.measures.store(true, Ordering::Relaxed);
    }

    /// Whether it is measured how long things take.
    #[inline(always)]
    pub(crate) fn measures(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    /// The clock, in microseconds, if it is measured how long things take.
    #[inline(always)]
    pub(crate) fn clock_us(&self) -> Option<u64> {
        self.measures().then(sys::clock::monotonic_us)
    }

    /// Whether to be woken by each child that ends from now on.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.head.dead.set_awaited(waiting);
    }

    /// Whether children have announced their end that are not counted as dead yet.
    pub(crate) fn has_dead(&self) -> bool {
        !self.head.dead.is_empty()
    }

    /// Counts a client or datagram that was turned away.
    pub(crate) fn refuse(&self, listener: usize, why: Refusal) {
        self.tally(listener).refuse(why);
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Head")
    }
}

#[cfg(test)]
mod tests;
