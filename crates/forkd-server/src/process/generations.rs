//! The programs that this process has run before this one, as far as their children still finish. Pure: what is due is told by
//! the time that is passed in.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How long a child that was told to end has until it is killed.
const KILL_TIMEOUT_MS: u64 = 1000;

/// The programs before this one, the oldest first. Times are in milliseconds since the daemon began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Generations(Vec<Generation>);

/// A program that has given way to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Generation {
    ended_ms: u64,
    /// When its children are told to end.
    finish_by_ms: Option<u64>,
    /// When those are killed that have been told.
    kill_by_ms: Option<u64>,
}

/// Children that are to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// When they were forked.
    pub(super) born_ms: RangeInclusive<u64>,
    /// They have been told already.
    pub(super) at_once: bool,
}

impl Generations {
    /// Which program has forked a child; `None`: this one.
    fn of(&self, born_ms: u64) -> Option<usize> {
        let at = self.0.partition_point(|generation| generation.ended_ms < born_ms);
        (at < self.0.len()).then_some(at)
    }

    /// Whether a child was forked by a program before this one.
    pub(super) fn are_of(&self, born_ms: u64) -> bool {
        self.of(born_ms).is_some()
    }

    fn have_children(&self, born_ms: impl Iterator<Item = u64>) -> Vec<bool> {
        let mut have = vec![false; self.0.len()];
        born_ms.filter_map(|born| self.of(born)).for_each(|at| have[at] = true);
        have
    }

    /// How many programs before this one still have children, by when those were forked.
    pub(super) fn alive(&self, born_ms: impl Iterator<Item = u64>) -> usize {
        self.have_children(born_ms).into_iter().filter(|&has| has).count()
    }

    /// This program gives way to the next. Children of all of them are to end after `finish_within`, if that is said; those that
    /// have none are forgotten.
    pub(super) fn next(
        &self,
        now_ms: u64,
        finish_within: Option<Duration>,
        born_ms: impl Iterator<Item = u64>,
    ) -> Self {
        let have = self.have_children(born_ms);
        let left = self.0.iter().zip(have).filter(|(_, has)| *has).map(|(generation, _)| generation.clone());
        let this = Generation { ended_ms: now_ms, ..Generation::default() };
        let finish_by = finish_within.map(|within| now_ms.saturating_add(within.as_millis() as u64));
        let until = |generation: Generation| {
            let finish_by_ms = generation.finish_by_ms.into_iter().chain(finish_by).min();
            Generation { finish_by_ms, ..generation }
        };
        Self(left.chain([this]).map(until).collect())
    }

    /// When something is due.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.0
            .iter()
            .flat_map(|generation| generation.finish_by_ms.into_iter().chain(generation.kill_by_ms))
            .min()
    }

    /// Whose children are to end now; each is named once for each.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<Due> {
        let (mut due, mut from) = (Vec::new(), 0);
        for generation in &mut self.0 {
            let born_ms = from..=generation.ended_ms;
            from = generation.ended_ms + 1;
            if generation.kill_by_ms.is_some_and(|at| at <= now_ms) {
                generation.kill_by_ms = None;
                due.push(Due { born_ms, at_once: true });
            } else if generation.finish_by_ms.is_some_and(|at| at <= now_ms) {
                generation.finish_by_ms = None;
                generation.kill_by_ms = Some(now_ms + KILL_TIMEOUT_MS);
                due.push(Due { born_ms, at_once: false });
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; 0] = [];

    fn ended(times: &[u64]) -> Generations {
        let next = |generations: Generations, &at: &u64| generations.next(at, None, times.iter().copied());
        times.iter().fold(Generations::default(), next)
    }

    #[test]
    fn generations_are_told_apart_by_when_their_children_were_forked() {
        let generations = ended(&[100, 200, 300]);
        assert_eq!(generations.alive(NONE.into_iter()), 0);
        assert_eq!(generations.alive([301, 400].into_iter()), 0, "those are this program's");
        assert_eq!(generations.alive([5, 100, 400].into_iter()), 1);
        assert_eq!(generations.alive([5, 101, 201, 300].into_iter()), 3);
        assert!(generations.are_of(300) && !generations.are_of(301));
        assert_eq!(Generations::default().alive([5].into_iter()), 0);
    }

    #[test]
    fn those_without_children_are_forgotten() {
        let next = ended(&[100, 200, 300]).next(400, None, [150, 350].into_iter());
        assert_eq!(next, ended(&[200, 400]));
    }

    #[test]
    fn a_deadline_is_of_all_programs_before_and_of_none_that_follows() {
        let within = Some(Duration::from_millis(50));
        let generations =
            ended(&[100]).next(200, within, [90].into_iter()).next(220, None, [90, 150].into_iter());
        assert_eq!(generations.deadline_ms(), Some(250));
        let mut generations = generations;
        assert_eq!(generations.take_due(249), []);
        let due = |from, to, at_once| Due { born_ms: from..=to, at_once };
        assert_eq!(generations.take_due(250), [due(0, 100, false), due(101, 200, false)]);
        assert_eq!(generations.take_due(251), []);
        assert_eq!(generations.deadline_ms(), Some(1250));
        assert_eq!(generations.take_due(1250), [due(0, 100, true), due(101, 200, true)]);
        assert_eq!((generations.take_due(9999), generations.deadline_ms()), (vec![], None));
    }

    #[test]
    fn the_earlier_deadline_holds() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let generations = Generations::default().next(100, ms(50), NONE.into_iter());
        assert_eq!(generations.next(120, ms(1000), [90].into_iter()).deadline_ms(), Some(150));
        assert_eq!(generations.next(120, ms(10), [90].into_iter()).deadline_ms(), Some(130));
    }
}
