//! What another program needs to go on with a scoreboard, and how it does.
//!
//! The memory that children write goes on as it is, if the other program lays it out in the same way; what its children
//! count is counted then. If not, their deaths are counted, and what they did until the change. The master's own memory
//! is written down, by names, and made anew: so the other program may have more counters, or fewer.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::child::Place;
use super::ledger::Occupancy;
use super::{Cause, LAYOUT, Places, Scoreboard, State, Sums, Totals};
use crate::access::sources::Key;
use crate::sys::clock::monotonic_us;
use crate::sys::handover::LeftOpen;
use crate::sys::shared::{Arena, ArenaFile};
use crate::sys::wake::Wake;

/// A scoreboard, written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct SavedBoard {
    memory: RawFd,
    bytes: usize,
    layout: u64,
    wake: RawFd,
    #[cfg_attr(feature = "serde", serde(default))]
    wake_entrance: Option<RawFd>,
    /// When the daemon began, by the system's monotonic clock.
    began_us: u64,
    /// What leads to the sources.
    key: [u64; 2],
    used: u32,
    listeners: Vec<SavedTotals>,
    children: Vec<SavedChild>,
}

/// What the master has counted for a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct SavedTotals {
    listener: usize,
    counts: BTreeMap<String, u64>,
    deaths: BTreeMap<String, u64>,
    /// The counts of each histogram, and the sum of its lengths in microseconds.
    lengths: BTreeMap<String, (Vec<u64>, u64)>,
}

/// What the master knows of a child.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct SavedChild {
    pub(super) slot: u32,
    pub(super) pid: u32,
    pub(super) listener: usize,
    /// See [`Occupancy`].
    pub(super) occupancy: u32,
    /// How its death is noticed.
    pub(super) notice: u32,
    pub(super) raises_later: bool,
    pub(super) started_ms: u64,
    pub(super) announced_ms: u64,
    pub(super) accepted_us: u64,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) place: Option<Place>,
    /// What it has carried so far, for a program that does not understand what it writes.
    pub(super) connections: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) failed: u64,
}

impl SavedChild {
    fn carrying(self, sums: Sums) -> Self {
        let Sums { connections, bytes_in, bytes_out, failed } = sums;
        Self { connections, bytes_in, bytes_out, failed, ..self }
    }

    fn carried(&self) -> Sums {
        let Self { connections, bytes_in, bytes_out, failed, .. } = *self;
        Sums { connections, bytes_in, bytes_out, failed }
    }
}

impl SavedBoard {
    /// Its descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + use<> {
        [self.memory, self.wake].into_iter().chain(self.wake_entrance)
    }

    /// Whether this program has the same layout for what children write.
    pub(crate) fn is_understood(&self) -> bool {
        self.layout == LAYOUT
    }
}

impl Scoreboard {
    /// The descriptor of its memory, if a successor can have it.
    pub(crate) fn file_descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(|file| file.as_fd().as_raw_fd())
    }

    /// Writes it down, with what was counted for these listening sockets; `None` if no successor can have its memory.
    pub(crate) fn save(
        &self,
        listeners: impl IntoIterator<Item = usize>,
        now: Instant,
    ) -> Option<SavedBoard> {
        let (wake, entrance) = self.wake.ends();
        let age_us = u64::try_from(now.duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX);
        Some(SavedBoard {
            memory: self.file_descriptor()?,
            bytes: Places::OF_A_MASTER.bytes(),
            layout: LAYOUT,
            wake: wake.as_raw_fd(),
            wake_entrance: entrance.map(|entrance| entrance.as_raw_fd()),
            began_us: monotonic_us().saturating_sub(age_us),
            key: self.sources.key().0,
            used: self.ledger.used(),
            listeners: listeners.into_iter().map(|listener| self.totals(listener).save(listener)).collect(),
            children: self.ledger.save().into_iter().map(|child| self.with_carried(child, now)).collect(),
        })
    }

    fn with_carried(&self, saved: SavedChild, now: Instant) -> SavedChild {
        let child = self.child(saved.slot);
        // what one that is released has carried is counted already
        if child.counts() { saved.carrying(child.carried(self.millis(now))) } else { saved }
    }

    /// Goes on with what the program before this one has written down.
    ///
    /// # Errors
    ///
    /// `InvalidData` where it contradicts itself; else as [`new`](Self::new), and as fcntl(2).
    pub(crate) fn adopt(saved: &SavedBoard, left: &mut LeftOpen) -> io::Result<Self> {
        let wake = Wake::adopt(
            left.remove(saved.wake)?,
            saved.wake_entrance.map(|entrance| left.remove(entrance)).transpose()?,
        );
        let memory = left.remove(saved.memory)?;
        let (places, key) = (Places::OF_A_MASTER, Key(saved.key));
        let file = match saved.is_understood() {
            true => ArenaFile::adopt(memory, saved.bytes)?,
            // the children go on to write there, and this program looks nowhere in it
            false => ArenaFile::new(places.bytes())?,
        };
        let board = Self::in_memory(places, Arena::of(&file)?, wake, key)?;
        let age = Duration::from_micros(monotonic_us().saturating_sub(saved.began_us));
        let epoch = Instant::now().checked_sub(age).unwrap_or(board.epoch);
        let board = Self { file: Some(Arc::new(file)), epoch, ..board };
        for totals in &saved.listeners {
            let to = board.ledger.totals().get(totals.listener).ok_or(io::ErrorKind::InvalidData)?;
            to.restore(totals);
        }
        board.ledger.restore(saved.used, &saved.children)?;
        board.head.used.store(saved.used, Ordering::Relaxed);
        if !saved.is_understood() {
            saved.children.iter().for_each(|child| board.speak_for(child));
        }
        Ok(board)
    }
}

impl Scoreboard {
    /// Of a child that writes where this program does not look, it is known that it serves, and that it ends as it should.
    fn speak_for(&self, child: &SavedChild) {
        let (slot, is_worker) = (self.slot(child.slot), self.record(child.slot).is_watched());
        self.totals(child.listener).add(child.carried());
        slot.begin(is_worker);
        slot.record(if is_worker { Cause::Retired } else { Cause::Done });
        slot.set_state(State::Serving);
    }
}

impl Totals {
    /// What is counted up, by names.
    fn counts(&self) -> [(&'static str, &AtomicU64); 7] {
        [
            ("forked", &self.forked),
            ("connections", &self.connections),
            ("bytes_in", &self.bytes_in),
            ("bytes_out", &self.bytes_out),
            ("failed", &self.failed),
            ("failed_forks", &self.failed_forks),
            ("restarts", &self.restarts),
        ]
    }

    fn histograms(&self) -> [(&'static str, &super::histogram::Histogram); 3] {
        [
            ("durations", &self.durations),
            ("fork_latencies", &self.fork_latencies),
            ("lifetimes", &self.lifetimes),
        ]
    }

    fn save(&self, listener: usize) -> SavedTotals {
        let counts = self.counts().map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)));
        let [peak, limit] = [("peak", &self.peak), ("limit", &self.limit)]
            .map(|(name, number)| (name.to_owned(), u64::from(number.load(Ordering::Relaxed))));
        SavedTotals {
            listener,
            counts: counts.into_iter().chain([peak, limit]).collect(),
            deaths: self.deaths().map(|(cause, count)| (cause.to_string(), count)).collect(),
            lengths: self.histograms().map(|(name, lengths)| (name.to_owned(), lengths.save())).into(),
        }
    }

    fn restore(&self, saved: &SavedTotals) {
        self.reset();
        for (name, count) in self.counts() {
            count.store(saved.counts.get(name).copied().unwrap_or(0), Ordering::Relaxed);
        }
        for (name, number) in [("peak", &self.peak), ("limit", &self.limit)] {
            let count = saved.counts.get(name).copied().unwrap_or(0);
            number.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        for (index, deaths) in self.deaths.iter().enumerate() {
            if let Some(count) = saved.deaths.get(&Cause::from_index(index).to_string()) {
                deaths.store(*count, Ordering::Relaxed);
            }
        }
        for (name, lengths) in self.histograms() {
            saved.lengths.get(name).into_iter().for_each(|(counts, sum_us)| lengths.restore(counts, *sum_us));
        }
    }
}

impl Occupancy {
    /// That with this number; a place that is vacant is not written down.
    pub(super) fn numbered(number: u32) -> Option<Self> {
        [Self::Held, Self::Released, Self::Overdue].into_iter().find(|occupancy| *occupancy as u32 == number)
    }
}
