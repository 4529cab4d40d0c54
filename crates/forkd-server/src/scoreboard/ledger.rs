//! What the master knows of its children, in memory that they can't write.
//!
//! A record for each slot, the list of free ones, and the counters of each listening socket that decide
//! something. What a child writes in its [`Slot`](super::Slot) is shown, or is a hint that is checked here: that it
//! ends, above all. A child that says so gives its *place* back at once, so that a client that comes again finds it
//! free. Its *slot* is not another child's before the kernel says that it is dead: no two living children ever
//! have the same slot. If it lives on, it has said what isn't so, or another child has written there: then it
//! counts again, until it is dead.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::child::Place;
use super::saved::SavedChild;
use super::sequence::Sequence;
use super::{Stage, Totals};
use crate::sys::shared::{Lent, Own, OwnArena, bytes_for};

/// How long a child may live on after it has announced its end, in milliseconds: it only has a socket to close.
pub(super) const EXIT_TIMEOUT_MS: u64 = 1000;

/// How many of those that have announced their end are looked at before a slot is taken that was never used.
const TRIES: usize = 2;

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Occupancy {
    /// There is no child.
    Vacant,
    /// It has a child, which counts as one of its listener's.
    Held,
    /// The child has announced its end, and does not count any more.
    Released,
    /// It has announced its end, which has been counted, and lives on: it counts again.
    Overdue,
}

/// How a child's death is noticed.
const UNWATCHED: u32 = 0;
/// A descriptor of the master's tells.
const WATCHED: u32 = 1;
/// Its pid is another child's by now: it is dead.
const SUPERSEDED: u32 = 2;

forkd_sys::plain! {
    /// Which slots are free: indices plus one, so that zeroed memory says none.
    #[repr(align(64))]
    #[derive(Debug)]
    pub(super) struct Stock {
        /// Top of the list of slots that are free again.
        free: AtomicU32,
        /// Slots from here on have never been used.
        fresh: AtomicU32,
        /// The queue of those that are [released](Occupancy::Released).
        oldest: AtomicU32,
        newest: AtomicU32,
        /// How many slots have a child, dead or alive, whose death no descriptor tells of.
        unwatched: AtomicU32,
        /// How many children have left it to the master to raise their `oom_score_adj`, and live.
        unraised: AtomicU32,
        /// While the counters of a child are moved to the totals.
        pub(super) reaping: Sequence,
        /// Where the daemon is on its way from the start to the end; not decided by.
        stage: AtomicU32,
        /// When the master's loop turns next at the latest, in milliseconds; not decided by.
        next_turn_ms: AtomicU64,
    }
}

forkd_sys::plain! {
    /// What the master knows of the child in a slot.
    #[repr(align(64))]
    #[derive(Debug)]
    pub(crate) struct Record {
        /// Written by the kernel during fork.
        pub(crate) pid: AtomicU32,
        occupancy: AtomicU32,
        listener: AtomicU32,
        notice: AtomicU32,
        /// The next slot in the list of free ones, or in the queue.
        next: AtomicU32,
        /// 1 if the child has left it to the master to raise its `oom_score_adj`.
        raises_later: AtomicU32,
        /// The [`Place`] of a worker that accepts by itself; of others the generation is 0.
        number: AtomicU32,
        generation: AtomicU32,
        started_ms: AtomicU64,
        /// When it announced its end.
        announced_ms: AtomicU64,
        /// When its client was accepted, in microseconds, where that is measured, or 0.
        accepted_us: AtomicU64,
    }
}

impl Record {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        match self.occupancy.load(Ordering::Acquire) {
            1 => Occupancy::Held,
            2 => Occupancy::Released,
            3 => Occupancy::Overdue,
            _ => Occupancy::Vacant,
        }
    }

    fn set_occupancy(&self, occupancy: Occupancy) {
        self.occupancy.store(occupancy as u32, Ordering::Release);
    }

    pub(crate) fn listener(&self) -> usize {
        self.listener.load(Ordering::Relaxed) as usize
    }

    /// Whether the master holds a descriptor that tells of this child's death.
    pub(crate) fn is_watched(&self) -> bool {
        self.notice.load(Ordering::Relaxed) == WATCHED
    }

    /// Whether its pid is another child's by now: this one is dead.
    pub(crate) fn is_superseded(&self) -> bool {
        self.notice.load(Ordering::Relaxed) == SUPERSEDED
    }

    pub(crate) fn started_ms(&self) -> u64 {
        self.started_ms.load(Ordering::Relaxed)
    }

    /// Whether its child counts as one of its listener's: it lives, or its death is not known yet.
    pub(super) fn counts(&self) -> bool {
        matches!(self.occupancy(), Occupancy::Held | Occupancy::Overdue)
    }

    /// Whether the child has left it to the master to raise its `oom_score_adj`.
    fn raises_later(&self) -> bool {
        self.raises_later.load(Ordering::Relaxed) == 1
    }

    /// Where it is in its pool, if it is a worker that accepts by itself.
    pub(crate) fn place(&self) -> Option<Place> {
        let generation = self.generation.load(Ordering::Relaxed);
        // what forks for each client does not clear it
        let is_one = self.is_watched() && generation > 0;
        is_one.then(|| Place { number: self.number.load(Ordering::Relaxed), generation })
    }

    pub(crate) fn set_place(&self, place: Option<Place>) {
        let Place { number, generation } = place.unwrap_or_default();
        self.number.store(number, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The client of this child was accepted then.
    pub(crate) fn set_accepted(&self, us: u64) {
        self.accepted_us.store(us, Ordering::Relaxed);
    }

    pub(super) fn accepted_us(&self) -> u64 {
        self.accepted_us.load(Ordering::Relaxed)
    }

    fn save(&self, slot: u32) -> SavedChild {
        SavedChild {
            slot,
            pid: self.pid(),
            listener: self.listener(),
            occupancy: self.occupancy.load(Ordering::Relaxed),
            notice: self.notice.load(Ordering::Relaxed),
            raises_later: self.raises_later(),
            started_ms: self.started_ms(),
            announced_ms: self.announced_ms.load(Ordering::Relaxed),
            accepted_us: self.accepted_us(),
            place: self.place(),
            ..SavedChild::default()
        }
    }

    fn restore(&self, child: &SavedChild) {
        self.pid.store(child.pid, Ordering::Relaxed);
        self.listener.store(child.listener as u32, Ordering::Relaxed);
        self.notice.store(child.notice, Ordering::Relaxed);
        self.started_ms.store(child.started_ms, Ordering::Relaxed);
        self.announced_ms.store(child.announced_ms, Ordering::Relaxed);
        self.accepted_us.store(child.accepted_us, Ordering::Relaxed);
        self.set_place(child.place);
    }

    /// Whether the child is dead, by what the kernel says of its pid.
    pub(super) fn is_dead(&self, is_child: impl Fn(u32) -> bool) -> bool {
        self.is_superseded() || !is_child(self.pid())
    }
}

/// The master's memory. A clone is the same one.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    memory: std::sync::Arc<OwnArena>,
    stock: Own<Stock>,
    records: Own<Record>,
    totals: Own<Totals>,
    /// Which slot last had a pid: an index plus one, at the pid's place modulo the length.
    by_pid: Own<AtomicU32>,
}

impl Ledger {
    pub(super) fn new(slots: usize, listeners: usize, pids: usize) -> io::Result<Self> {
        let bytes = bytes_for::<Stock>(1)
            + bytes_for::<Record>(slots)
            + bytes_for::<Totals>(listeners)
            + bytes_for::<AtomicU32>(pids);
        let mut memory = OwnArena::new(bytes)?;
        Ok(Self {
            stock: memory.take(1)?,
            records: memory.take(slots)?,
            totals: memory.take(listeners)?,
            by_pid: memory.take(pids)?,
            memory: std::sync::Arc::new(memory),
        })
    }

    pub(super) fn lend(&self) -> io::Result<Lent<'_>> {
        self.memory.lend()
    }

    pub(super) fn read_only(&self) -> io::Result<()> {
        self.memory.read_only()
    }

    pub(super) fn keep_out(&self) {
        self.memory.keep_out();
    }

    pub(super) fn stock(&self) -> &Stock {
        &self.stock[0]
    }

    pub(super) fn stage(&self) -> Stage {
        let stage = self.stock().stage.load(Ordering::Relaxed);
        Stage::ALL.into_iter().find(|known| *known as u32 == stage).unwrap_or_default()
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stock().stage.store(stage as u32, Ordering::Relaxed);
    }

    pub(super) fn next_turn_ms(&self) -> u64 {
        self.stock().next_turn_ms.load(Ordering::Relaxed)
    }

    pub(super) fn set_next_turn(&self, ms: u64) {
        self.stock().next_turn_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn record(&self, index: u32) -> &Record {
        &self.records[index as usize]
    }

    pub(super) fn totals(&self) -> &[Totals] {
        &self.totals
    }

    /// The record that an index from shared memory leads to, if it leads to one.
    pub(super) fn find(&self, index: u32) -> Option<&Record> {
        self.records.get(index as usize)
    }

    pub(super) fn unwatched(&self) -> u32 {
        self.stock().unwatched.load(Ordering::Relaxed)
    }

    /// How many living children have left it to the master to raise their `oom_score_adj`.
    pub(super) fn unraised(&self) -> u32 {
        self.stock().unraised.load(Ordering::Relaxed)
    }

    /// The child in a slot leaves that to the master.
    pub(super) fn raise_later(&self, index: u32) {
        self.record(index).raises_later.store(1, Ordering::Relaxed);
        let unraised = &self.stock().unraised;
        unraised.store(unraised.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether it has, and has lived since `then_ms`; once.
    pub(super) fn take_to_raise(&self, index: u32, then_ms: u64) -> bool {
        let record = self.record(index);
        let is_due = record.raises_later() && record.started_ms() <= then_ms && record.counts();
        if is_due {
            self.one_fewer_unraised(record);
            record.raises_later.store(0, Ordering::Relaxed);
        }
        is_due
    }

    /// That of this child is raised, or it ends.
    fn one_fewer_unraised(&self, record: &Record) {
        if record.raises_later() && record.occupancy() == Occupancy::Held {
            let unraised = &self.stock().unraised;
            unraised.store(unraised.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
    }

    /// How many slots have ever been used; the others' pages are not touched.
    pub(super) fn used(&self) -> u32 {
        self.stock().fresh.load(Ordering::Relaxed)
    }

    /// Takes a free slot for a child of this listener's.
    pub(super) fn take(&self, listener: usize, watched: bool, now_ms: u64) -> Option<u32> {
        let index = self.free_slot()?;
        let (record, totals, unwatched) =
            (self.record(index), &self.totals[listener], &self.stock().unwatched);
        totals.taken.store(totals.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        unwatched.store(unwatched.load(Ordering::Relaxed) + u32::from(!watched), Ordering::Relaxed);
        record.pid.store(0, Ordering::Relaxed);
        record.raises_later.store(0, Ordering::Relaxed);
        record.listener.store(listener as u32, Ordering::Relaxed);
        record.notice.store(if watched { WATCHED } else { UNWATCHED }, Ordering::Relaxed);
        record.started_ms.store(now_ms, Ordering::Relaxed);
        record.accepted_us.store(0, Ordering::Relaxed);
        record.set_occupancy(Occupancy::Held);
        Some(index)
    }

    fn free_slot(&self) -> Option<u32> {
        let Stock { free, fresh, .. } = self.stock();
        if let Some(index) = free.load(Ordering::Relaxed).checked_sub(1) {
            free.store(self.record(index).next.load(Ordering::Relaxed), Ordering::Relaxed);
            return Some(index);
        }
        for _ in 0..TRIES {
            let Some(index) = self.take_released() else { break };
            if self.record(index).is_dead(crate::sys::pidfd::is_our_child) {
                self.forget(index);
                return Some(index);
            }
            self.append(index);
        }
        // Those used before come first: few pages are ever touched.
        let index = fresh.load(Ordering::Relaxed);
        if index as usize == self.records.len() {
            return None;
        }
        fresh.store(index + 1, Ordering::Relaxed);
        Some(index)
    }

    /// Counts the child in a slot as born.
    pub(super) fn born(&self, index: u32) {
        let record = self.record(index);
        let totals = &self.totals[record.listener()];
        totals.add_alive();
        totals.forked.store(totals.forked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // A pid that another slot has was recycled: the child there is dead, however alive the number looks.
        let pid = record.pid();
        let last = self.by_pid[pid as usize % self.by_pid.len()].swap(index + 1, Ordering::Relaxed);
        let older = last.checked_sub(1).filter(|&older| older != index).map(|older| self.record(older));
        if let Some(older) =
            older.filter(|older| older.pid() == pid && older.occupancy() != Occupancy::Vacant)
        {
            // a watched child's watch tells
            let _ =
                older.notice.compare_exchange(UNWATCHED, SUPERSEDED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The child in a slot does not count any more; its slot is still its own.
    pub(super) fn release(&self, index: u32, now_ms: u64) {
        let record = self.record(index);
        self.totals[record.listener()].subtract_taken();
        self.one_fewer_unraised(record);
        record.announced_ms.store(now_ms, Ordering::Relaxed);
        record.set_occupancy(Occupancy::Released);
        self.append(index);
    }

    /// The child in a slot is dead, or was never born: another one may have it.
    pub(super) fn vacate(&self, index: u32) {
        let record = self.record(index);
        self.totals[record.listener()].subtract_taken();
        self.one_fewer_unraised(record);
        self.forget(index);
        self.push_free(index);
    }

    /// Looks at those that have announced their end, at most at `count` of them.
    pub(super) fn look_at_released(&self, count: usize, now_ms: u64, is_child: impl Fn(u32) -> bool) {
        let mut first_back = None;
        for _ in 0..count {
            let front = self.stock().oldest.load(Ordering::Relaxed).checked_sub(1);
            if front.is_none() || front == first_back {
                return;
            }
            let Some(index) = self.take_released() else { return };
            let record = self.record(index);
            if record.is_dead(&is_child) {
                self.forget(index);
                self.push_free(index);
            } else if now_ms.saturating_sub(record.announced_ms.load(Ordering::Relaxed)) >= EXIT_TIMEOUT_MS {
                let totals = &self.totals[record.listener()];
                totals.taken.store(totals.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                totals.add_alive();
                record.set_occupancy(Occupancy::Overdue);
            } else {
                self.append(index);
                first_back = first_back.or(Some(index));
            }
        }
    }

    /// Writes down what it knows of each child.
    pub(super) fn save(&self) -> Vec<SavedChild> {
        let in_queue =
            std::iter::successors(self.stock().oldest.load(Ordering::Relaxed).checked_sub(1), |&index| {
                self.record(index).next.load(Ordering::Relaxed).checked_sub(1)
            });
        // those that count first; then, in their order, those that are released
        let counting = (0..self.used()).filter(|&index| self.record(index).counts());
        counting.chain(in_queue).map(|index| self.record(index).save(index)).collect()
    }

    /// Goes on with children of the program before this one; nothing has been taken yet.
    ///
    /// # Errors
    ///
    /// `InvalidData` where it contradicts itself.
    pub(super) fn restore(&self, used: u32, children: &[SavedChild]) -> io::Result<()> {
        if used as usize > self.records.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.stock().fresh.store(used, Ordering::Relaxed);
        for child in children {
            self.restore_child(used, child).ok_or(io::ErrorKind::InvalidData)?;
        }
        // the last ones first, so that the first are taken first
        let is_free = |&index: &u32| self.record(index).occupancy() == Occupancy::Vacant;
        (0..used).rev().filter(is_free).for_each(|index| self.push_free(index));
        Ok(())
    }

    fn restore_child(&self, used: u32, child: &SavedChild) -> Option<()> {
        let record = self.records.get(child.slot as usize).filter(|_| child.slot < used)?;
        let totals = self.totals.get(child.listener)?;
        let occupancy = Occupancy::numbered(child.occupancy)?;
        if record.occupancy() != Occupancy::Vacant {
            return None;
        }
        let more =
            |counter: &AtomicU32| counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        record.restore(child);
        record.set_occupancy(occupancy);
        if !record.is_watched() {
            more(&self.stock().unwatched);
        }
        if record.counts() {
            more(&totals.taken);
            totals.add_alive();
        } else {
            self.append(child.slot);
        }
        if child.raises_later && occupancy == Occupancy::Held {
            self.raise_later(child.slot);
        }
        // its pid is another child's by now
        if !record.is_superseded() {
            self.by_pid[child.pid as usize % self.by_pid.len()].store(child.slot + 1, Ordering::Relaxed);
        }
        Some(())
    }

    fn forget(&self, index: u32) {
        let (record, unwatched) = (self.record(index), &self.stock().unwatched);
        let rest = unwatched.load(Ordering::Relaxed) - u32::from(!record.is_watched());
        unwatched.store(rest, Ordering::Relaxed);
        record.set_occupancy(Occupancy::Vacant);
    }

    fn push_free(&self, index: u32) {
        let free = &self.stock().free;
        self.record(index).next.store(free.load(Ordering::Relaxed), Ordering::Relaxed);
        free.store(index + 1, Ordering::Relaxed);
    }

    fn append(&self, index: u32) {
        let Stock { oldest, newest, .. } = self.stock();
        self.record(index).next.store(0, Ordering::Relaxed);
        let last = newest.load(Ordering::Relaxed).checked_sub(1).map(|last| &self.record(last).next);
        last.unwrap_or(oldest).store(index + 1, Ordering::Relaxed);
        newest.store(index + 1, Ordering::Relaxed);
    }

    fn take_released(&self) -> Option<u32> {
        let Stock { oldest, newest, .. } = self.stock();
        let index = oldest.load(Ordering::Relaxed).checked_sub(1)?;
        let next = self.record(index).next.load(Ordering::Relaxed);
        oldest.store(next, Ordering::Relaxed);
        if next == 0 {
            newest.store(0, Ordering::Relaxed);
        }
        Some(index)
    }
}
