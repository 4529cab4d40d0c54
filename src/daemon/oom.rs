//! When memory is short: a child dies and not the master, and the log says why it did.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::scoreboard::Cause;
use crate::sys::oom;

/// How many children of built-in services there may be before the next one makes itself the OOM killer's choice at
/// its birth.
///
/// That takes three system calls, which a short connection feels. Fewer fill no memory at once (each takes about 0.1
/// MiB), and if they live on the master does it for them. A handler's or a program's child may be of any size.
pub(super) const FEW: u32 = 64;

/// The signal that the OOM killer sends, among others.
pub(super) const KILL: u8 = libc::SIGKILL as u8;

/// For how long a kill that is counted is taken for the cause of a death that is found later.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the counter is read while there are children, so that a kill is never much older than it is thought to be.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Tells children that the OOM killer has taken from those that were killed otherwise, by the counter of the control
/// group.
#[derive(Debug)]
pub(super) struct OomKills {
    /// What the counter said last, and when it was read.
    count: Cell<Option<u64>>,
    read_at: Cell<Instant>,
    /// How many kills no death has been found for yet, and when the last of them was seen.
    unexplained: Cell<u64>,
    seen_at: Cell<Instant>,
    /// The files with the counter, if they are kept open.
    kept: Vec<File>,
}

impl OomKills {
    pub(super) fn new(now: Instant) -> Self {
        let count = Cell::new(oom::kills(&oom::counters()));
        Self {
            count,
            read_at: Cell::new(now),
            unexplained: Cell::default(),
            seen_at: Cell::new(now),
            kept: Vec::new(),
        }
    }

    /// Opens the files with the counter for good; their descriptors.
    pub(super) fn keep_open(&mut self) -> impl Iterator<Item = RawFd> {
        self.kept = oom::counters();
        self.kept.iter().map(AsRawFd::as_raw_fd)
    }

    /// When the counter is to be read again, if there are children; `None` where there is no counter.
    pub(super) fn next_reading(&self) -> Option<Instant> {
        self.count.get().map(|_| self.read_at.get() + READ_EVERY)
    }

    /// Reads the counter.
    pub(super) fn read(&self, now: Instant) {
        self.note(now, self.kills());
    }

    fn note(&self, now: Instant, count: Option<u64>) {
        let before = self.count.replace(count);
        // what was counted since an older reading may have been killed at any time
        let is_recent = now <= self.read_at.replace(now) + PATIENCE;
        let more = before.zip(count).map_or(0, |(before, count)| count.saturating_sub(before));
        if more > 0 && is_recent {
            self.unexplained.set(self.unexplained.get() + more);
            self.seen_at.set(now);
        }
    }

    /// Why a child was ended by SIGKILL.
    pub(super) fn cause(&self, now: Instant) -> Cause {
        self.cause_by(now, || self.kills())
    }

    fn kills(&self) -> Option<u64> {
        if self.kept.is_empty() { oom::kills(&oom::counters()) } else { oom::kills(&self.kept) }
    }

    fn cause_by(&self, now: Instant, kills: impl Fn() -> Option<u64>) -> Cause {
        if now > self.seen_at.get() + PATIENCE {
            self.unexplained.set(0);
        }
        // once in each turn of the loop is enough: many may have been killed
        if self.unexplained.get() == 0 && self.read_at.get() != now {
            self.note(now, kills());
        }
        match self.unexplained.get().checked_sub(1) {
            Some(rest) => {
                self.unexplained.set(rest);
                Cause::Oom
            }
            None => Cause::Signal(KILL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Cause = Cause::Signal(KILL);

    #[test]
    fn as_many_deaths_are_explained_as_the_counter_says() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let kills = OomKills { count: Cell::new(Some(3)), read_at: Cell::new(start), ..OomKills::new(start) };
        assert_eq!(kills.cause_by(at(1), || Some(3)), KILLED);
        // read once in a turn
        assert_eq!(kills.cause_by(at(1), || Some(9)), KILLED);
        assert_eq!([2, 2, 3].map(|s| kills.cause_by(at(s), || Some(5))), [Cause::Oom, Cause::Oom, KILLED]);
        // a program that was killed long ago explains no child's death
        assert_eq!(kills.cause_by(at(4), || Some(7)), Cause::Oom);
        assert_eq!(kills.cause_by(at(40), || Some(7)), KILLED);
        // where there is no counter, and where one appears
        assert_eq!([50, 51, 52].map(|s| kills.cause_by(at(s), || None)), [KILLED; 3]);
        assert_eq!([53, 54].map(|s| kills.cause_by(at(s), || Some(4))), [KILLED; 2]);
        assert_eq!(kills.cause_by(at(55), || Some(5)), Cause::Oom);
        // one that was killed at any time since an old reading explains no death either
        assert_eq!(kills.cause_by(at(3600), || Some(6)), KILLED);
        assert_eq!(kills.cause_by(at(3601), || Some(7)), Cause::Oom);
        // the death is found after the counter has been read
        kills.note(at(3605), Some(8));
        kills.note(at(3610), Some(8));
        assert_eq!([3611, 3612].map(|s| kills.cause_by(at(s), || Some(8))), [Cause::Oom, KILLED]);
        kills.note(at(3615), Some(9));
        assert_eq!(kills.cause_by(at(3626), || Some(9)), KILLED);
    }
}
