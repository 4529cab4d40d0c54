//! What is to be done at some time, in the order of the times.
//!
//! A tree and no heap: what is cancelled is gone at once, so a program that cancels what it sets (a
//! time-out for each of a million requests) occupies no more than it has set now.

use std::collections::BTreeMap;
use std::time::Instant;

/// When, and which of those that were set for the same time: the first that was set comes first.
pub(crate) type At = (Instant, u64);

#[derive(Debug)]
pub(crate) struct Timers<T> {
    set: BTreeMap<At, T>,
    count: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { set: BTreeMap::new(), count: 0 }
    }
}

impl<T> Timers<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(crate) fn set(&mut self, when: Instant, what: T) -> At {
        self.count += 1;
        let at = (when, self.count);
        self.set.insert(at, what);
        at
    }

    pub(crate) fn cancel(&mut self, at: At) -> Option<T> {
        self.set.remove(&at)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(&(when, _), _)| when)
    }

    /// Takes the next one, if it is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<T> {
        let first = self.set.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_come_in_the_order_of_their_times_and_of_their_setting() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, name) in [(20, 'c'), (10, 'a'), (10, 'b'), (30, 'e')] {
            timers.set(at(ms), name);
        }
        let d = timers.set(at(25), 'd');
        assert_eq!((timers.next(), timers.due(at(9))), (Some(at(10)), None));
        assert_eq!((timers.cancel(d), timers.cancel(d)), (Some('d'), None));
        let order: String = std::iter::from_fn(|| timers.due(at(30))).collect();
        assert_eq!((order.as_str(), timers.is_empty()), ("abce", true));
    }
}
