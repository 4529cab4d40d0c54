//! Who is to be woken when: pure, the time is passed in.

use std::collections::BTreeSet;
use std::time::Instant;

use super::scheduler::Id;

/// An entry goes when its coroutine does not wait any longer, so there is one for each that waits, and not
/// one for each wait there ever was.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Id)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, id: Id) {
        self.0.insert((at, id));
    }

    pub(super) fn unset(&mut self, at: Instant, id: Id) {
        self.0.remove(&(at, id));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }

    /// Takes the first of those whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Id> {
        self.next().filter(|&at| at <= now)?;
        self.0.pop_first().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_come_in_time_and_none_early() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, id) in [(30, 1), (10, 2), (20, 3), (10, 4), (15, 5)] {
            timers.set(at(ms), id);
        }
        timers.unset(at(15), 5);
        timers.unset(at(15), 5);
        assert_eq!((timers.next(), timers.pop(at(9))), (Some(at(10)), None));
        assert_eq!([timers.pop(at(10)), timers.pop(at(10)), timers.pop(at(19))], [Some(2), Some(4), None]);
        assert_eq!([timers.pop(at(99)), timers.pop(at(99)), timers.pop(at(99))], [Some(3), Some(1), None]);
        assert_eq!(timers.next(), None);
    }
}
