//! What a pool does beside, whose workers accept by themselves: the master does not see their clients, so it goes by what they
//! say, by the time, and by what the kernel tells of them.

use crate::model::WorkerRange;
use crate::spec::Upkeep;

/// How many of the workers are wanted, and for how long each.
#[derive(Debug)]
pub(super) struct ApplicationPool {
    upkeep: Upkeep,
    range: WorkerRange,
    /// How many workers are wanted once all of its generation have come in.
    wanted: u32,
    /// How many may be there now: fewer while its generation comes in.
    admitted: u32,
    /// In how many places workers of the next generation have come in.
    given: u32,
}

impl ApplicationPool {
    pub(super) fn new(upkeep: Upkeep, range: WorkerRange) -> Self {
        Self { upkeep, range, wanted: range.min, admitted: range.min, given: 0 }
    }

    /// How many workers there should be now.
    pub(super) fn target(&self) -> u32 {
        self.wanted.min(self.admitted).saturating_sub(self.given)
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
    }

    /// So many are up: admits the next few if those are all. Returns how many places the last generation has lost.
    pub(super) fn follow(&mut self, up: u32) -> u32 {
        if up < self.admitted {
            return self.admitted - self.upkeep.rolling.clamp(1, self.admitted);
        }
        let come = self.admitted;
        self.admitted = self.admitted.saturating_add(self.upkeep.rolling).min(self.wanted);
        come
    }

    /// Leaves so many places to the next generation.
    pub(super) fn give(&mut self, places: u32) {
        self.given = places;
    }

    /// Has all of its places.
    pub(super) fn take_all(&mut self) {
        (self.admitted, self.given) = (u32::MAX, 0);
    }

    /// One worker more or fewer, by hand.
    pub(super) fn resize(&mut self, by: i32, most: u32) {
        self.wanted = self.wanted.saturating_add_signed(by).clamp(1, most);
        self.range.max = self.range.max.max(self.wanted);
        self.range.min = self.range.min.min(self.wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(rolling: u32, min: u32, max: u32) -> ApplicationPool {
        ApplicationPool::new(Upkeep { rolling, ..Upkeep::default() }, WorkerRange { min, max })
    }

    #[test]
    fn a_generation_comes_in_a_few_at_a_time_and_the_last_goes_as_it_comes() {
        let mut new = pool(2, 5, 5);
        new.begin_to_follow(5);
        let mut steps = vec![(new.target(), 0)];
        for up in [0, 1, 2, 3, 4, 5] {
            let gone = new.follow(up);
            steps.push((new.target(), gone));
        }
        // (how many there should be, how many places the last generation has lost)
        assert_eq!(steps, [(2, 0), (2, 0), (2, 0), (4, 2), (4, 2), (5, 4), (5, 5)]);
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
}
