//! What a pool does beside, whose workers accept by themselves: the master does not see their clients, so it goes by what they
//! say, by the time, and by what the kernel tells of them.

use std::time::{Duration, Instant};

use crate::model::WorkerRange;
use crate::model::demand::{Demand, Load};
use crate::model::pool::MAX_GROWTH;
use crate::model::recycle::{Recycling, Why};
use crate::spec::Upkeep;

/// How long after one worker was renewed another may be.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How many of the workers are wanted, and for how long each.
#[derive(Debug)]
pub(super) struct ApplicationPool {
    upkeep: Upkeep,
    range: WorkerRange,
    /// How many workers are wanted once all of its generation have come in.
    wanted: u32,
    /// How many it may be made to have by hand.
    ceiling: u32,
    /// How many may be there now: fewer while its generation comes in.
    admitted: u32,
    /// How many of those have come in so far.
    come: u32,
    /// In how many places workers of the next generation have come in.
    given: u32,
    /// How many are wanted, as the load says.
    demand: Option<Demand>,
    recycling: Recycling,
    /// When the next worker may be due for that.
    next_look: Option<Instant>,
    /// The worker that leaves once another has come up in its place, by its slot.
    renewed: Option<u32>,
}

impl ApplicationPool {
    pub(super) fn new(upkeep: Upkeep, range: WorkerRange, now: Instant) -> Self {
        let demand = range.is_elastic().then(|| Demand::new(range.min, range.max, now));
        let recycling = Recycling { max_age: upkeep.max_age, max_memory: upkeep.max_memory };
        Self {
            upkeep,
            range,
            wanted: range.min,
            ceiling: range.max.saturating_add(MAX_GROWTH),
            admitted: range.min,
            come: 0,
            given: 0,
            demand,
            recycling,
            next_look: None,
            renewed: None,
        }
    }

    /// How many workers there should be now.
    pub(super) fn target(&self) -> u32 {
        let places = self.wanted.min(self.admitted).saturating_sub(self.given);
        places + u32::from(self.renewed.is_some())
    }

    /// How many there should be before the last generation goes.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// How its workers are kept.
    pub(super) fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Comes in a few at a time, in the place of a generation that has so many workers.
    pub(super) fn begin_to_follow(&mut self, wanted: u32) {
        self.wanted = wanted.clamp(self.range.min, self.range.max);
        self.admitted = self.upkeep.rolling.clamp(1, self.wanted);
        if let Some(demand) = &mut self.demand {
            demand.step(self.wanted as i32 - demand.target() as i32);
        }
    }

    /// So many are up: admits the next few if those are all. Returns how many places the last generation has lost.
    pub(super) fn follow(&mut self, up: u32) -> u32 {
        if up >= self.admitted {
            self.come = self.admitted;
            self.admitted = self.admitted.saturating_add(self.upkeep.rolling).min(self.wanted);
        }
        self.come
    }

    /// Leaves so many places to the next generation.
    pub(super) fn give(&mut self, places: u32) {
        self.given = places;
    }

    /// Has all of its places.
    pub(super) fn take_all(&mut self) {
        (self.admitted, self.given) = (u32::MAX, 0);
    }

    /// One worker more or fewer, by hand; also the fewest and the most.
    pub(super) fn resize(&mut self, by: i32) {
        let most = self.ceiling;
        let moved = |workers: u32| workers.saturating_add_signed(by).clamp(1, most);
        self.range = WorkerRange { min: moved(self.range.min), max: moved(self.range.max) };
        self.wanted = moved(self.wanted);
        if let Some(demand) = &mut self.demand {
            let aim = i64::from(demand.target()) + i64::from(by);
            let now = demand.resize(self.range.min, self.range.max);
            self.wanted = demand.step((aim - i64::from(now)) as i32);
        }
    }

    /// The fewest and the most workers.
    pub(super) fn range(&self) -> WorkerRange {
        self.range
    }

    /// Whether the load is to be looked at.
    pub(super) fn wants_load(&self, now: Instant) -> bool {
        self.demand.as_ref().is_some_and(|demand| demand.next() <= now)
    }

    /// Wants as many workers as this load asks for.
    pub(super) fn on_load(&mut self, load: Load, now: Instant) {
        if let Some(demand) = &mut self.demand {
            self.wanted = demand.sample(now, load);
        }
    }

    /// Whether the age and the memory of workers are to be looked at.
    pub(super) fn wants_look(&self, now: Instant) -> bool {
        self.renewed.is_none() && self.next_look.is_none_or(|then| then <= now)
    }

    /// Looks at workers, each with its slot, the number of its birth, when that was, and the memory that it has in use. Returns
    /// the one that is to be replaced.
    pub(super) fn look(
        &mut self,
        workers: impl Iterator<Item = (u32, u64, Instant)>,
        memory: impl Fn(u32) -> Option<u64>,
        now: Instant,
    ) -> Option<(u32, Why)> {
        let all: Vec<_> = workers.collect();
        let reads = self.recycling.max_memory.is_some();
        let due = all.iter().find_map(|&(slot, number, born)| {
            let age: Duration = now.saturating_duration_since(born);
            // it costs a look into /proc
            let memory = reads.then(|| memory(slot)).flatten();
            Some((slot, self.recycling.is_due(number, age, memory)?))
        });
        let births = all.iter().map(|&(_, number, born)| (number, born));
        // without workers, or a rule, nothing can be due before a worker is born
        self.next_look =
            Some(self.recycling.next_look(births, now).unwrap_or(now + Duration::from_secs(3600)));
        self.renewed = due.map(|(slot, _)| slot);
        due
    }

    /// A worker has come: it may be due sooner than the others.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.next_look = self.next_look.map(|then| then.min(now + RENEW_EVERY));
    }

    /// The worker that leaves once another has come up in its place.
    pub(super) fn renewed(&self) -> Option<u32> {
        self.renewed
    }

    /// It leaves, or has died.
    pub(super) fn has_renewed(&mut self, now: Instant) {
        // a program that needs more than it may have from its start is not renewed without end
        (self.renewed, self.next_look) = (None, Some(now + RENEW_EVERY));
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let look = self.next_look.filter(|_| self.renewed.is_none());
        self.demand.as_ref().map(Demand::next).into_iter().chain(look).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(rolling: u32, min: u32, max: u32) -> ApplicationPool {
        ApplicationPool::new(
            Upkeep { rolling, ..Upkeep::default() },
            WorkerRange { min, max },
            Instant::now(),
        )
    }

    #[test]
    fn a_generation_comes_in_a_few_at_a_time_and_the_last_goes_as_it_comes() {
        let mut new = pool(2, 5, 5);
        new.begin_to_follow(5);
        let mut steps = vec![(new.target(), 0)];
        for up in [0, 1, 2, 3, 4, 4, 5, 4] {
            let gone = new.follow(up);
            steps.push((new.target(), gone));
        }
        // (how many there should be, how many places the last generation has lost)
        let few = [(2, 0), (2, 0), (2, 0), (4, 2), (4, 2)];
        assert_eq!(steps, [&few[..], &[(5, 4), (5, 4), (5, 5), (5, 5)]].concat());
    }

    #[test]
    fn an_elastic_generation_follows_with_as_many_as_there_are() {
        let mut new = pool(1, 2, 8);
        new.begin_to_follow(6);
        assert_eq!((new.target(), new.wanted()), (1, 6));
        new.take_all();
        assert_eq!(new.target(), 6);
        new.begin_to_follow(100);
        assert_eq!(new.wanted(), 8);
    }

    #[test]
    fn places_are_given_and_taken_back() {
        let mut old = pool(1, 3, 3);
        old.give(2);
        assert_eq!(old.target(), 1);
        old.take_all();
        assert_eq!(old.target(), 3);
    }

    #[test]
    fn a_worker_that_is_due_leaves_when_another_has_come() {
        let now = Instant::now();
        let upkeep = Upkeep { max_memory: Some(1000), ..Upkeep::default() };
        let mut pool = ApplicationPool::new(upkeep, WorkerRange { min: 2, max: 2 }, now);
        let workers = || [(7, 0, now), (8, 1, now)].into_iter();
        assert_eq!(pool.look(workers(), |_| Some(1000), now), None);
        assert!(!pool.wants_look(now) && pool.next() == Some(now + Duration::from_secs(5)));
        let memory = |slot| Some(if slot == 8 { 1001 } else { 9 });
        assert_eq!(pool.look(workers(), memory, now), Some((8, Why::Memory)));
        assert_eq!((pool.target(), pool.renewed(), pool.next()), (3, Some(8), None));
        pool.has_renewed(now);
        assert_eq!((pool.target(), pool.wants_look(now)), (2, false));
        assert!(pool.wants_look(now + RENEW_EVERY));
    }

    #[test]
    fn by_hand_all_bounds_move() {
        let mut pool = pool(1, 2, 8);
        pool.resize(1);
        assert_eq!((pool.wanted(), pool.range()), (3, WorkerRange { min: 3, max: 9 }));
        (0..9).for_each(|_| pool.resize(-1));
        assert_eq!((pool.wanted(), pool.range()), (1, WorkerRange { min: 1, max: 1 }));
    }
}
