//! How many workers a pool should have: policy alone.
//!
//! Nothing here forks, kills or reads a clock. The master tells what happened ([`Pool::on`]), asks
//! for a [`Plan`], and carries it out; so every rule is tested with a clock that is a number.

use std::time::{Duration, Instant};

use super::starts::Starts;

/// The most workers forked at once while the pool is short (as Apache's prefork does it).
const MAX_SPAWN_RATE: u32 = 32;
/// How long to let new workers get ready before more are forked.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a surplus worker is told to leave.
const SHRINK_EVERY: Duration = Duration::from_secs(1);
/// The size of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Fewer idle workers than this are too few (elastic pools).
    pub(crate) min_spare: u32,
    /// More idle workers than this are too many (elastic pools).
    pub(crate) max_spare: u32,
}

/// The workers there are, without those that have been told to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) alive: u32,
    /// Those that wait for a connection; one that still starts counts as idle.
    pub(crate) idle: u32,
    /// Those that have started.
    pub(crate) up: u32,
    /// Whether one of them has served, or lived for long enough: starting is possible at all.
    pub(crate) settled: bool,
    /// Whether the pool may begin with fewer workers than are always wanted: clients are served that a daemon which
    /// gives up would cut.
    pub(crate) may_begin_short: bool,
}

/// How many workers [`Event::Grow`] adds at most.
pub(crate) const MAX_GROWTH: u32 = 64;

/// What happened to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A worker died early (see [`EARLY`](super::starts::EARLY)).
    StartFailed,
    /// A worker could not be forked. Until the pool is complete this is a failed start; later, or if the pool
    /// [may begin short](Census::may_begin_short), it is a shortage, which may pass: whether other workers live or not,
    /// the daemon goes on.
    ForkFailed,
    /// A worker serves, or has lived for long enough.
    Settled,
    /// One worker more, please (SIGTTIN).
    Grow,
    /// One worker fewer, please (SIGTTOU).
    Shrink,
}

/// What the master should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// There are fewer workers than there should be.
    pub(crate) short: bool,
    pub(crate) spawn: u32,
    /// Tell so many to leave, idle ones first.
    pub(crate) retire: u32,
    /// Workers can't be started: end the daemon.
    pub(crate) give_up: bool,
    /// Ask again then, at the latest.
    pub(crate) again: Option<Instant>,
}

/// The policy's memory.
#[derive(Debug)]
pub(crate) struct Pool {
    size: Size,
    /// How many to fork at the next shortage of idle workers.
    rate: u32,
    spawned_at: Option<Instant>,
    shrunk_at: Option<Instant>,
    starts: Starts,
    /// As many workers as are always wanted have been up at once: starting is possible for all of them.
    complete: bool,
    /// The last failed start was a fork that failed.
    fork_fails: bool,
    /// It serves with the workers that could be forked; the others are a shortage.
    began_short: bool,
    /// How far [`Event::Grow`] goes.
    ceiling: u32,
}

impl Pool {
    pub(crate) fn new(size: Size) -> Self {
        Self {
            size,
            rate: 1,
            spawned_at: None,
            shrunk_at: None,
            starts: Starts::default(),
            complete: false,
            fork_fails: false,
            began_short: false,
            ceiling: size.max.saturating_add(MAX_GROWTH),
        }
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Has always so many workers from now on.
    pub(crate) fn set_target(&mut self, workers: u32) {
        (self.size.min, self.size.max) = (workers, workers);
    }

    pub(crate) fn is_elastic(&self) -> bool {
        self.size.min < self.size.max
    }

    /// Whether it serves with fewer workers than are always wanted, since the others could not be forked.
    pub(crate) fn began_short(&self) -> bool {
        self.began_short
    }

    /// Takes note of an event.
    pub(crate) fn on(&mut self, event: Event, now: Instant) {
        if matches!(event, Event::StartFailed | Event::ForkFailed) {
            self.fork_fails = event == Event::ForkFailed;
        }
        match event {
            Event::StartFailed => self.starts.failed(now),
            Event::ForkFailed if self.complete => self.starts.rest(now),
            Event::ForkFailed => self.starts.failed(now),
            // until the pool is complete, one worker that works proves nothing about the others
            Event::Settled if self.complete => self.starts.worked(),
            Event::Settled => {}
            Event::Grow => self.resize(1),
            Event::Shrink => self.resize(-1),
        }
    }

    fn resize(&mut self, by: i32) {
        let Size { min, max, .. } = &mut self.size;
        *max = max.saturating_add_signed(by).clamp(1, self.ceiling);
        *min = min.saturating_add_signed(by).clamp(1, *max);
    }

    /// Says what to do about the workers there are.
    pub(crate) fn plan(&mut self, census: Census, now: Instant) -> Plan {
        self.complete |= census.up >= self.size.min;
        if self.starts.are_hopeless() && !(self.complete && census.settled) {
            if !(self.fork_fails && census.may_begin_short) {
                return Plan { give_up: true, ..Plan::default() };
            }
            (self.complete, self.began_short) = (true, true);
            self.starts.worked();
        }
        if census.alive > self.size.max {
            return Plan { retire: census.alive - self.size.max, ..Plan::default() };
        }
        let missing = self.missing(census, now);
        if missing > 0 {
            return self.spawn(missing, now);
        }
        self.shrink(census, now)
    }

    /// How many workers are wanted that are not there.
    fn missing(&mut self, census: Census, now: Instant) -> u32 {
        if census.alive < self.size.min {
            return self.size.min - census.alive;
        }
        if !self.is_elastic() || census.idle >= self.size.min_spare {
            // A shortage later is a new one.
            if self.spawned_at.is_none_or(|then| now >= then + SHRINK_EVERY) {
                self.rate = 1;
            }
            return 0;
        }
        self.rate.min(self.size.max - census.alive)
    }

    fn spawn(&mut self, missing: u32, now: Instant) -> Plan {
        let settled = self.spawned_at.filter(|_| !self.starts.fail()).map(|then| then + SETTLE);
        let wait =
            [self.starts.not_before(), settled.filter(|_| self.is_elastic())].into_iter().flatten().max();
        if let Some(then) = wait.filter(|&then| now < then) {
            return Plan { short: true, again: Some(then), ..Plan::default() };
        }
        self.spawned_at = Some(now);
        if self.is_elastic() {
            self.rate = (self.rate * 2).min(MAX_SPAWN_RATE);
        }
        // While starts fail, one is enough to find out.
        let spawn = if self.starts.fail() { 1 } else { missing };
        Plan { short: true, spawn, again: Some(now + SETTLE), ..Plan::default() }
    }

    fn shrink(&mut self, census: Census, now: Instant) -> Plan {
        if !self.is_elastic() || census.idle <= self.size.max_spare || census.alive <= self.size.min {
            return Plan::default();
        }
        // One at a time: the load may come back.
        match self.shrunk_at.map(|then| then + SHRINK_EVERY) {
            Some(then) if now < then => Plan { again: Some(then), ..Plan::default() },
            _ => {
                self.shrunk_at = Some(now);
                Plan { retire: 1, again: Some(now + SHRINK_EVERY), ..Plan::default() }
            }
        }
    }
}

/// After how many connections worker `number` is replaced: `limit`, less up to an eighth of
/// it, so that workers that were forked together don't all go together. 0 means never.
pub(crate) fn with_jitter(limit: u64, number: u64) -> u64 {
    // the golden ratio spreads consecutive numbers evenly
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    limit - ((u128::from(limit / 8) * u128::from(spread)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::super::starts::MAX_START_FAILURES;
    use super::*;
    use crate::admission::LONGEST_PAUSE;

    const FIXED: Size = Size { min: 4, max: 4, min_spare: 2, max_spare: 8 };
    const ELASTIC: Size = Size { min: 2, max: 100, min_spare: 2, max_spare: 4 };

    fn census(alive: u32, idle: u32) -> Census {
        Census { alive, idle, up: alive, settled: false, may_begin_short: false }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_fixed_pool_is_filled_at_once_and_kept_full() {
        let (mut pool, t) = (Pool::new(FIXED), Instant::now());
        assert_eq!(pool.plan(census(0, 0), t).spawn, 4);
        assert_eq!(pool.plan(census(4, 0), t), Plan::default());
        // all busy or all idle: a fixed pool does not care
        assert_eq!(pool.plan(census(4, 4), t + ms(5000)), Plan::default());
        assert_eq!(pool.plan(census(3, 0), t + ms(5000)).spawn, 1);
    }

    #[test]
    fn an_elastic_pool_doubles_while_it_is_short() {
        let (mut pool, mut t) = (Pool::new(ELASTIC), Instant::now());
        let mut alive = pool.plan(census(0, 0), t).spawn;
        assert_eq!(alive, 2);
        let mut spawned = Vec::new();
        while alive < 100 {
            t += SETTLE;
            let plan = pool.plan(census(alive, 0), t);
            spawned.push(plan.spawn);
            alive += plan.spawn;
        }
        assert_eq!(spawned, [2, 4, 8, 16, 32, 32, 4]);
        assert_eq!(pool.plan(census(100, 0), t + SETTLE), Plan::default());
    }

    #[test]
    fn starting_workers_get_time_before_more_are_forked() {
        let (mut pool, t) = (Pool::new(ELASTIC), Instant::now());
        pool.plan(census(0, 0), t);
        let plan = pool.plan(census(2, 0), t + ms(10));
        assert_eq!((plan.spawn, plan.again), (0, Some(t + SETTLE)));
    }

    #[test]
    fn the_rate_falls_back_after_a_quiet_second() {
        let (mut pool, t) = (Pool::new(ELASTIC), Instant::now());
        pool.plan(census(0, 0), t);
        pool.plan(census(2, 0), t + ms(100));
        assert_eq!(pool.plan(census(4, 0), t + ms(200)).spawn, 4);
        assert_eq!(pool.plan(census(8, 3), t + ms(1300)).spawn, 0);
        assert_eq!(pool.plan(census(8, 1), t + ms(1400)).spawn, 1);
    }

    #[test]
    fn a_surplus_leaves_one_a_second_down_to_the_minimum() {
        let (mut pool, t) = (Pool::new(ELASTIC), Instant::now());
        assert_eq!(pool.plan(census(20, 20), t).retire, 1);
        let plan = pool.plan(census(19, 19), t + ms(400));
        assert_eq!((plan.retire, plan.again), (0, Some(t + SHRINK_EVERY)));
        assert_eq!(pool.plan(census(19, 19), t + SHRINK_EVERY).retire, 1);
        assert_eq!(pool.plan(census(18, 4), t + ms(9000)).retire, 0);
        let mut small = Pool::new(Size { min: 6, max_spare: 3, ..ELASTIC });
        assert_eq!(small.plan(census(6, 6), t).retire, 0);
    }

    #[test]
    fn a_pool_with_one_that_works_is_not_given_up() {
        let (mut pool, mut t) = (Pool::new(FIXED), Instant::now());
        assert_eq!(pool.plan(census(4, 4), t), Plan::default());
        for _ in 0..3 * MAX_START_FAILURES {
            pool.on(Event::StartFailed, t);
            t += LONGEST_PAUSE;
        }
        let settled = Census { settled: true, ..census(3, 3) };
        assert_eq!(pool.plan(settled, t).spawn, 1);
        assert!(pool.plan(census(3, 3), t).give_up);
    }

    #[test]
    fn a_pool_that_never_gets_all_its_workers_is_given_up() {
        for event in [Event::StartFailed, Event::ForkFailed] {
            let (mut pool, mut t) = (Pool::new(FIXED), Instant::now());
            let some = Census { settled: true, ..census(3, 3) };
            for _ in 0..MAX_START_FAILURES {
                assert!(!pool.plan(some, t).give_up, "{event:?}");
                pool.on(event, t);
                // the others work meanwhile
                pool.on(Event::Settled, t);
                t += LONGEST_PAUSE;
            }
            assert!(pool.plan(some, t).give_up, "{event:?}");
            // the last one comes up after all
            assert!(!pool.plan(Census { settled: true, ..census(4, 4) }, t).give_up, "{event:?}");
            pool.on(Event::Settled, t);
            assert!(!pool.plan(census(0, 0), t).give_up, "{event:?}");
        }
    }

    #[test]
    fn a_fork_that_fails_never_ends_a_pool_that_was_complete() {
        let (mut pool, mut t) = (Pool::new(FIXED), Instant::now());
        assert!(!pool.plan(census(4, 4), t).short);
        for _ in 0..3 * MAX_START_FAILURES {
            let plan = pool.plan(census(0, 0), t);
            assert_eq!((plan.give_up, plan.short, plan.spawn), (false, true, 4));
            pool.on(Event::ForkFailed, t);
            t += LONGEST_PAUSE;
        }
    }

    #[test]
    fn a_pool_that_may_begin_short_serves_with_the_workers_that_could_be_forked() {
        let some = |alive| Census { may_begin_short: true, ..census(alive, alive) };
        for (event, gives_up) in [(Event::ForkFailed, false), (Event::StartFailed, true)] {
            let (mut pool, mut t) = (Pool::new(FIXED), Instant::now());
            for _ in 0..MAX_START_FAILURES {
                assert!(!pool.plan(some(3), t).give_up && !pool.began_short(), "{event:?}");
                pool.on(event, t);
                t += LONGEST_PAUSE;
            }
            let plan = pool.plan(some(3), t);
            assert_eq!((plan.give_up, pool.began_short()), (gives_up, !gives_up), "{event:?}");
            assert!(gives_up || (plan.short && plan.spawn == 1), "{event:?}: {plan:?}");
        }
        // from then on it is a shortage
        let (mut pool, mut t) = (Pool::new(FIXED), Instant::now());
        for _ in 0..3 * MAX_START_FAILURES {
            assert!(!pool.plan(some(1), t).give_up);
            pool.on(Event::ForkFailed, t);
            t += LONGEST_PAUSE;
        }
        assert!(!pool.plan(census(0, 0), t).give_up);
    }

    #[test]
    fn growth_has_an_end() {
        let (mut pool, t) = (Pool::new(FIXED), Instant::now());
        (0..1000).for_each(|_| pool.on(Event::Grow, t));
        assert_eq!(pool.size().max, FIXED.max + MAX_GROWTH);
    }

    #[test]
    fn one_that_lives_forgives_all_failures() {
        let (mut pool, mut t) = (Pool::new(FIXED), Instant::now());
        assert_eq!(pool.plan(census(4, 4), t), Plan::default());
        for _ in 0..3 * MAX_START_FAILURES {
            pool.on(Event::StartFailed, t);
            t += LONGEST_PAUSE;
            pool.on(Event::Settled, t);
            assert_eq!(pool.plan(census(0, 0), t).spawn, 4);
        }
    }

    #[test]
    fn signals_make_the_pool_larger_and_smaller_but_never_empty() {
        let (mut pool, t) = (Pool::new(FIXED), Instant::now());
        pool.on(Event::Grow, t);
        assert_eq!(pool.plan(census(4, 4), t).spawn, 1);
        for _ in 0..9 {
            pool.on(Event::Shrink, t);
        }
        assert_eq!(pool.plan(census(5, 5), t).retire, 4);
        assert_eq!(pool.size().max, 1);
    }

    #[test]
    fn jitter_stays_near_the_limit_and_differs() {
        assert_eq!(with_jitter(0, 7), 0);
        assert_eq!(with_jitter(1, 7), 1);
        assert!(with_jitter(u64::MAX, 7) > u64::MAX / 8 * 7);
        let limits: Vec<u64> = (0..8).map(|number| with_jitter(8000, number)).collect();
        assert!(limits.iter().all(|limit| (7000..=8000).contains(limit)), "{limits:?}");
        let mut distinct = limits.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 8);
    }
}
