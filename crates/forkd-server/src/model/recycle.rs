//! Which worker is replaced by a new one because of its age or its memory: policy alone.
//!
//! A program that leaks, or keeps what it has once taken, is as good as new then. Nothing here makes a system call or reads a
//! clock.

use std::fmt;
use std::time::{Duration, Instant};

use super::pool::with_jitter;

/// How often the memory of workers is looked at: a leak that matters fills it in minutes, and a look costs two small files of
/// /proc for each worker.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// When workers are replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recycling {
    /// From this age on, less up to an eighth of it, which depends on the worker's number: those that were forked together
    /// don't all go together.
    pub(crate) max_age: Option<Duration>,
    /// With more bytes of memory than this.
    pub(crate) max_memory: Option<u64>,
}

/// Why a worker is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Age,
    Memory,
}

impl fmt::Display for Why {
    /// A word for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "age",
            Self::Memory => "memory",
        })
    }
}

impl Recycling {
    /// Whether the worker that was forked as the `number`th one is to be replaced; its memory may be unknown.
    pub(crate) fn is_due(&self, number: u64, age: Duration, rss: Option<u64>) -> Option<Why> {
        if self.age_of(number).is_some_and(|most| age >= most) {
            return Some(Why::Age);
        }
        let is_large = self.max_memory.zip(rss).is_some_and(|(most, rss)| rss > most);
        is_large.then_some(Why::Memory)
    }

    /// When to ask again of these workers, each with its number and its birth; `None`: never.
    pub(crate) fn next_look(
        &self,
        workers: impl IntoIterator<Item = (u64, Instant)>,
        now: Instant,
    ) -> Option<Instant> {
        let mut workers = workers.into_iter().peekable();
        workers.peek()?;
        let by_memory = self.max_memory.map(|_| now + LOOK_EVERY);
        let by_age = workers.filter_map(|(number, born)| born.checked_add(self.age_of(number)?)).min();
        by_memory.into_iter().chain(by_age).min()
    }

    fn age_of(&self, number: u64) -> Option<Duration> {
        let most = u64::try_from(self.max_age?.as_millis()).unwrap_or(u64::MAX);
        Some(Duration::from_millis(with_jitter(most, number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn ages_are_spread_over_an_eighth() {
        let by_age = Recycling { max_age: Some(HOUR), max_memory: None };
        let ages: Vec<Duration> = (0..64).filter_map(|number| by_age.age_of(number)).collect();
        assert!(ages.iter().all(|age| (HOUR * 7 / 8..=HOUR).contains(age)));
        let sooner = ages.iter().filter(|&&age| age < HOUR * 15 / 16).count();
        assert!((16..48).contains(&sooner), "{sooner}");
        for (number, &age) in ages.iter().enumerate() {
            let number = number as u64;
            assert_eq!(by_age.is_due(number, age - Duration::from_millis(1), Some(u64::MAX)), None);
            assert_eq!(by_age.is_due(number, age, None), Some(Why::Age));
        }
        let forever = Recycling { max_age: Some(Duration::MAX), max_memory: None };
        assert_eq!(forever.is_due(u64::MAX, HOUR, None), None);
    }

    #[test]
    fn memory_is_due_where_it_is_known_and_above_the_limit() {
        let by_memory = Recycling { max_age: None, max_memory: Some(1000) };
        for (rss, due) in [(None, None), (Some(1000), None), (Some(1001), Some(Why::Memory))] {
            assert_eq!(by_memory.is_due(7, HOUR * 1000, rss), due, "{rss:?}");
        }
        assert_eq!(Recycling::default().is_due(7, HOUR * 1000, Some(u64::MAX)), None);
    }

    #[test]
    fn the_next_look_is_at_the_first_that_can_be_due() {
        let now = Instant::now();
        let workers = [(0, now), (1, now), (2, now + HOUR)];
        let look = |max_age, max_memory| Recycling { max_age, max_memory }.next_look(workers, now);
        assert_eq!(look(None, None), None);
        assert_eq!(look(None, Some(1)), Some(now + LOOK_EVERY));
        let first = look(Some(HOUR), None).expect("by age");
        assert_eq!(look(Some(HOUR), Some(1)), Some(now + LOOK_EVERY));
        let by_age = Recycling { max_age: Some(HOUR), max_memory: None };
        let due = |at: Instant| (0..2).any(|number| by_age.is_due(number, at - now, None).is_some());
        assert!(due(first) && !due(first - Duration::from_millis(1)));
        assert_eq!(by_age.next_look([], now), None);
    }

    #[test]
    fn a_reason_is_a_word() {
        assert_eq!([Why::Age, Why::Memory].map(|why| why.to_string()), ["age", "memory"]);
    }
}
