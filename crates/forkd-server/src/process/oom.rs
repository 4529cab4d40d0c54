//! When memory is short: a child dies and not the master, and the log says why it did.
//!
//! The OOM killer takes the process with the highest score: its memory, and `oom_score_adj` thousandths of all memory
//! that the control group may have. The master maps more of the program than its children do, so its score is higher
//! than that of a child which is not raised, or not by enough.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::scoreboard::Cause;
use crate::sys::oom::{Expendable, Group, machine_memory};

/// At least so many children of built-in services may leave it to the master to make them the OOM killer's choice, which it
/// does for those that live on; where there is memory for more, more may. Others do it at their start.
///
/// That takes three system calls, and files of /proc that the kernel makes anew for each process: a short connection feels
/// it. A handler's or a program's child may be of any size.
const FEW: u32 = 64;

/// Such a child takes no more than this as a rule, and all of them together no more than this part of the memory, so that
/// what fills the memory is something else, or children that go before the master.
const CHILD: u64 = 256 << 10;
const PART: u64 = 16;

/// With less memory than this for the control group a few children may fill it, and the master is a large part of it.
const LITTLE: u64 = 64 << 20;

/// By how much the score of a child is raised, and by how much where there is [little](LITTLE) memory. It is no more
/// than is needed, since a process with a high score goes before others of the whole machine, too.
const MORE: i32 = 500;
const MOST: i32 = 1000;

/// The signal that the OOM killer sends, among others.
pub(super) const KILL: u8 = libc::SIGKILL as u8;

/// For how long a kill that is counted is taken for the cause of a death that is found later.
const KILL_WINDOW: Duration = Duration::from_secs(10);

/// How often the counter is read while there are children, so that a kill is never much older than it is thought to be.
const READ_EVERY: Duration = Duration::from_secs(5);

/// What the master does about the OOM killer: says which children go before it, and tells those that it has taken from
/// those that were killed otherwise, by the counter of the control group.
#[derive(Debug)]
pub(super) struct OomKiller {
    /// What the counter said last, and when it was read.
    count: Cell<Option<u64>>,
    read_at: Cell<Instant>,
    /// How many kills no death has been found for yet, and when the last of them was seen.
    unexplained: Cell<u64>,
    seen_at: Cell<Instant>,
    /// Whether there is [little](LITTLE) memory.
    is_little: bool,
    /// How many children may leave it to the master to raise their score.
    few: u32,
    /// What makes a child the OOM killer's choice rather than the master.
    score: Option<Expendable>,
    /// The files with the counter and the limit, which are kept open once there is a limit.
    kept: Option<Group>,
}

impl OomKiller {
    pub(super) fn new(now: Instant) -> Self {
        let mut group = Group::open();
        let limit = group.read_limit();
        let is_little = is_little(limit);
        Self {
            count: Cell::new(group.kills()),
            is_little,
            few: few(limit),
            score: score(is_little),
            read_at: Cell::new(now),
            unexplained: Cell::default(),
            seen_at: Cell::new(now),
            kept: limit.map(|_| group),
        }
    }

    /// Opens the files with the counter and the limit for good.
    pub(super) fn keep_open(&mut self) {
        self.kept.get_or_insert_with(Group::open);
    }

    /// The descriptors of the files that are kept open.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.kept.iter().flat_map(Group::descriptors)
    }

    /// Whether there is memory left for another child: ENOMEM if not, as fork(2) would say if the OOM killer did not
    /// make room by a kill.
    pub(super) fn require_room(&self) -> io::Result<()> {
        match self.kept.as_ref().is_none_or(Group::has_room) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        }
    }

    /// What makes a child the OOM killer's choice rather than the master.
    pub(super) fn score(&self) -> Option<Expendable> {
        self.score
    }

    /// How many children of built-in services may leave it to the master to raise their score.
    pub(super) fn few(&self) -> u32 {
        self.few
    }

    /// When the counter is to be read again, if there are children; `None` where there is no counter.
    pub(super) fn next_reading(&self) -> Option<Instant> {
        self.count.get().map(|_| self.read_at.get() + READ_EVERY)
    }

    /// Reads the counter, and the limit, which may change; tells whether that has opened files for good.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let is_kept = self.kept.is_some();
        let mut group = self.kept.take().unwrap_or_else(Group::open);
        self.note(now, group.kills());
        let limit = group.read_limit();
        let (is_little, few) = (is_little(limit), few(limit));
        if self.few != few {
            self.few = few;
        }
        if self.is_little != is_little {
            self.is_little = is_little;
            self.score = score(is_little);
        }
        if is_kept || limit.is_some() {
            self.kept = Some(group);
        }
        self.kept.is_some() && !is_kept
    }

    fn note(&self, now: Instant, count: Option<u64>) {
        let before = self.count.replace(count);
        // what was counted since an older reading may have been killed at any time
        let is_recent = now <= self.read_at.replace(now) + KILL_WINDOW;
        let more = before.zip(count).map_or(0, |(before, count)| count.saturating_sub(before));
        if more > 0 && is_recent {
            self.unexplained.set(self.unexplained.get() + more);
            self.seen_at.set(now);
        }
    }

    /// Why a child was ended by SIGKILL.
    pub(super) fn cause(&self, now: Instant) -> Cause {
        self.cause_by(now, || self.kept.as_ref().map_or_else(|| Group::open().kills(), Group::kills))
    }

    fn cause_by(&self, now: Instant, kills: impl Fn() -> Option<u64>) -> Cause {
        if now > self.seen_at.get() + KILL_WINDOW {
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

fn is_little(limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| limit < LITTLE)
}

fn few(limit: Option<u64>) -> u32 {
    if is_little(limit) {
        return 0;
    }
    let memory = limit.unwrap_or_else(machine_memory);
    u32::try_from(memory / PART / CHILD).unwrap_or(u32::MAX).max(FEW)
}

fn score(is_little: bool) -> Option<Expendable> {
    Expendable::rather_than_us(if is_little { MOST } else { MORE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_child_is_left_to_the_master_that_could_fill_the_memory() {
        let mib = |count: u64| Some(count << 20);
        assert_eq!([mib(63), mib(64), mib(256), mib(8192)].map(few), [0, 64, 64, 2048]);
        assert!(few(None) >= FEW);
    }

    const KILLED: Cause = Cause::Signal(KILL);

    #[test]
    fn as_many_deaths_are_explained_as_the_counter_says() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let kills =
            OomKiller { count: Cell::new(Some(3)), read_at: Cell::new(start), ..OomKiller::new(start) };
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
