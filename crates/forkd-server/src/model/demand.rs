//! How many workers an elastic pool should have whose workers accept by themselves: policy alone.
//!
//! The master does not see what such workers do, so it goes by what the kernel counts: clients that wait to be accepted, and
//! processor time. Nothing here makes a system call or reads a clock.
//!
//! Invariant: the target is within the bounds; and under a load that does not change it comes to rest, but for a trial with
//! one worker fewer now and then, which becomes rarer each time that it fails.

use std::time::{Duration, Instant};

/// How often the load is sampled: the mean over a second evens out what single requests do, and a second is what a client
/// may well have to wait.
const EVERY: Duration = Duration::from_secs(1);
/// In so many samples in a row more clients must be queued than there are workers: one alone may have hit the moment at
/// which many came at once, who are accepted in the next one.
const CROWDED_SAMPLES: u32 = 2;
/// With more of a processor than this, on average, workers are too busy: a request that takes 1 ms waits for another 4 ms,
/// on average (one server with random arrivals, M/M/1), and above that it gets worse soon.
const BUSY: f64 = 0.8;
/// With less of a processor than this each, one worker fewer is enough. It is so far below [`BUSY`] that a pool which has
/// just shrunk does not grow again: even from two workers to one the share at most doubles.
const CALM: f64 = 0.5;
/// For so long it must be calm before a worker leaves: longer than the pauses between the pages of a visitor.
const PATIENCE: Duration = Duration::from_secs(30);
/// The patience after a growth doubles each time that a pool which has shrunk had to grow within it, up to this. Workers that wait for
/// others (a database) use no processor, so that only a trial shows whether one fewer is enough.
const MOST_PATIENCE: Duration = Duration::from_secs(32 * 60);
/// So many samples with all workers up are to be seen before anything is decided: in the first one the newest of them has
/// just begun, so that only the one after it shows what it changes.
const SETTLED_SAMPLES: u32 = 2;

/// What the workers have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// The clients that wait to be accepted; `None` if that is not known.
    pub(crate) queued: Option<u32>,
    /// The processor time that all workers have used so far. It drops when one leaves.
    pub(crate) cpu: Duration,
    /// The workers that are up.
    pub(crate) workers: u32,
}

/// The policy's memory.
#[derive(Debug)]
pub(crate) struct Demand {
    min: u32,
    max: u32,
    target: u32,
    next: Instant,
    /// When the last sample was, and the processor time then.
    last: Option<(Instant, Duration)>,
    /// How many samples in a row have had all workers up since the target changed.
    settled: u32,
    /// How many samples in a row have had more clients queued than workers.
    crowded: u32,
    /// Since when one worker fewer would be enough.
    calm_since: Option<Instant>,
    patience: Duration,
    /// When the pool has shrunk last, if it has not grown since.
    shrunk_at: Option<Instant>,
}

impl Demand {
    /// That of a pool which begins with `min` workers.
    pub(crate) fn new(min: u32, max: u32, now: Instant) -> Self {
        Self {
            min,
            max: max.max(min),
            target: min,
            next: now,
            last: None,
            settled: 0,
            crowded: 0,
            calm_since: None,
            patience: PATIENCE,
            shrunk_at: None,
        }
    }

    /// How many workers there should be.
    pub(crate) fn target(&self) -> u32 {
        self.target
    }

    /// When the next sample is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Takes a sample, unless it is too early for one; returns how many workers there should be.
    pub(crate) fn sample(&mut self, now: Instant, load: Load) -> u32 {
        if now < self.next {
            return self.target;
        }
        self.next = now + EVERY;
        let used = self.processors(now, load.cpu);
        if load.workers < self.target {
            // what there is to do is shared by fewer than there will be
            self.forget();
            return self.target;
        }
        self.settled += 1;
        if self.settled >= SETTLED_SAMPLES {
            self.decide(now, load, used);
        }
        self.target
    }

    /// Changes the bounds.
    pub(crate) fn resize(&mut self, min: u32, max: u32) -> u32 {
        (self.min, self.max) = (min, max.max(min));
        self.go_to(self.target.clamp(self.min, self.max))
    }

    /// One worker more or fewer, within the bounds, since somebody says so (SIGTTIN, SIGTTOU).
    pub(crate) fn step(&mut self, by: i32) -> u32 {
        self.go_to(self.target.saturating_add_signed(by).clamp(self.min, self.max))
    }

    /// How many processors the workers have used since the last sample; `None` if that can't be told, as one has left.
    fn processors(&mut self, now: Instant, cpu: Duration) -> Option<f64> {
        let (then, before) = self.last.replace((now, cpu))?;
        let span = now.saturating_duration_since(then).as_secs_f64();
        cpu.checked_sub(before).map(|used| used.as_secs_f64() / span).filter(|used| used.is_finite())
    }

    fn decide(&mut self, now: Instant, load: Load, used: Option<f64>) {
        let queued = load.queued.unwrap_or(0);
        self.crowded = if queued > load.workers { self.crowded + 1 } else { 0 };
        let are_busy = used.is_some_and(|used| used > BUSY * f64::from(load.workers));
        if self.crowded >= CROWDED_SAMPLES || are_busy {
            self.grow(now);
            return;
        }
        let is_enough = |used: f64| used < CALM * f64::from(self.target.saturating_sub(1));
        if self.target <= self.min || queued > 0 || !used.is_some_and(is_enough) {
            self.calm_since = None;
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        // where one fewer has proved enough, another one need not wait for longer
        let patience = if self.shrunk_at.is_some() { PATIENCE } else { self.patience };
        if now.saturating_duration_since(since) >= patience {
            self.shrunk_at = Some(now);
            self.go_to(self.target - 1);
        }
    }

    fn grow(&mut self, now: Instant) {
        let regrets = self.shrunk_at.take().is_some_and(|then| now < then + self.patience);
        if self.target < self.max {
            self.patience = if regrets { (self.patience * 2).min(MOST_PATIENCE) } else { PATIENCE };
            self.go_to(self.target + 1);
        }
        self.calm_since = None;
    }

    fn go_to(&mut self, target: u32) -> u32 {
        if self.target != target {
            self.target = target;
            self.forget();
        }
        target
    }

    /// What was seen is not of the workers that there will be.
    fn forget(&mut self) {
        (self.settled, self.crowded, self.calm_since) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Workers that come up at once, and the load that they have.
    struct Simulation {
        demand: Demand,
        now: Instant,
        cpu: Duration,
        changes: Vec<(Duration, u32)>,
        start: Instant,
    }

    impl Simulation {
        fn new(min: u32, max: u32) -> Self {
            let start = Instant::now();
            let demand = Demand::new(min, max, start);
            Self { demand, now: start, cpu: Duration::ZERO, changes: Vec::new(), start }
        }

        /// For so many seconds: of each, by the number of workers, the processors that they use and the queue.
        fn run(&mut self, time: u64, load: impl Fn(u32) -> (f64, u32)) -> u32 {
            for _ in 0..time {
                let workers = self.demand.target();
                let (used, queued) = load(workers);
                self.cpu += Duration::from_secs_f64(used);
                self.now += EVERY;
                let target =
                    self.demand.sample(self.now, Load { queued: Some(queued), cpu: self.cpu, workers });
                assert!((self.demand.min..=self.demand.max).contains(&target));
                if target != workers {
                    self.changes.push((self.now - self.start, target));
                }
            }
            self.demand.target()
        }
    }

    #[test]
    fn it_grows_while_the_workers_are_busy() {
        let mut pool = Simulation::new(1, 8);
        // 2.9 processors' work: three of four are 72 %, more than 80 % of three
        assert_eq!(pool.run(60, |workers| (2.9_f64.min(workers.into()), 0)), 4);
        // and not by single steps of a minute
        assert!(pool.changes.last().is_some_and(|change| change.0 <= seconds(10)), "{:?}", pool.changes);
        assert_eq!(pool.run(3600, |_| (2.9, 0)), 4);
    }

    #[test]
    fn a_queue_counts_if_it_is_there_twice() {
        let (mut pool, start) = (Demand::new(2, 8, Instant::now()), Instant::now());
        let mut at = 0;
        let mut sample = |queued| {
            at += 1;
            pool.sample(start + seconds(at), Load { queued, cpu: Duration::ZERO, workers: 2 })
        };
        // the first one settles
        for queued in [Some(9), Some(9), Some(2), Some(3), None, Some(3), Some(0)] {
            assert_eq!(sample(queued), 2);
        }
        assert_eq!((sample(Some(3)), sample(Some(3))), (2, 3));
        // the new one is not up yet
        assert_eq!([(); 9].map(|()| sample(Some(50))), [3; 9]);
    }

    #[test]
    fn after_a_growth_it_waits_for_the_new_worker_and_one_more_sample() {
        let (mut pool, start) = (Demand::new(1, 8, Instant::now()), Instant::now());
        let mut cpu = Duration::ZERO;
        let mut sample = |at, workers: u32| {
            cpu += seconds(workers.into());
            pool.sample(start + seconds(at), Load { queued: None, cpu, workers })
        };
        assert_eq!([sample(1, 1), sample(2, 1)], [1, 2]);
        assert_eq!([sample(3, 1), sample(4, 1), sample(5, 2), sample(6, 2)], [2, 2, 2, 3]);
    }

    #[test]
    fn earlier_samples_change_nothing() {
        let start = Instant::now();
        let mut pool = Demand::new(1, 8, start);
        let busy = |ms| Load { queued: Some(9), cpu: Duration::from_millis(ms), workers: 1 };
        assert_eq!(pool.next(), start);
        pool.sample(start, busy(0));
        assert_eq!(pool.next(), start + EVERY);
        for ms in 1..1000 {
            assert_eq!(pool.sample(start + Duration::from_millis(ms), busy(ms)), 1);
        }
        assert_eq!(pool.sample(start + EVERY, busy(1000)), 2);
    }

    #[test]
    fn it_shrinks_one_by_one_when_it_has_been_calm_for_long() {
        let mut pool = Simulation::new(2, 8);
        pool.run(60, |workers| (5.0_f64.min(workers.into()), 0));
        let (grown, at) = (pool.demand.target(), pool.now - pool.start);
        assert_eq!(grown, 7);
        assert_eq!(pool.run(29, |_| (0.1, 0)), 7);
        assert_eq!(pool.run(5, |_| (0.1, 0)), 6);
        assert!(pool.changes.last().is_some_and(|change| change.0 >= at + PATIENCE));
        // somebody waits
        assert_eq!(pool.run(600, |_| (0.1, 1)), 6);
        assert_eq!(pool.run(200, |_| (0.1, 0)), 2);
        // 0.1 is little, but two are the fewest
        assert_eq!(pool.run(600, |_| (0.1, 0)), 2);
    }

    #[test]
    fn what_a_dead_worker_takes_with_it_is_no_idleness() {
        let mut pool = Simulation::new(1, 8);
        pool.run(60, |workers| (3.0_f64.min(workers.into()), 0));
        let grown = pool.demand.target();
        for _ in 0..60 {
            pool.cpu = Duration::ZERO;
            // what is left is less than before
            assert_eq!(pool.run(9, |_| (3.0, 0)), grown);
        }
    }

    #[test]
    fn workers_that_wait_for_others_are_tried_with_one_fewer_more_and_more_rarely() {
        let mut pool = Simulation::new(1, 8);
        // of fewer than five the queue never gets empty, and none of them uses a processor
        let waits = |workers| (0.01, if workers < 5 { 50 } else { 0 });
        pool.run(3600, waits);
        let before = pool.changes.len();
        pool.run(6 * 3600, waits);
        // down and up again every 32 minutes
        assert!(pool.changes.len() - before <= 2 * 12, "{:?}", pool.changes);
        // when there is nothing to do any more, the first one waits for so long, and the others do not
        assert_eq!(pool.run(36 * 60, |_| (0.0, 0)), 1, "{:?}", pool.changes);
    }

    #[test]
    fn bounds_and_steps_by_hand() {
        let mut pool = Demand::new(2, 4, Instant::now());
        assert_eq!([pool.step(1), pool.step(1), pool.step(1)], [3, 4, 4]);
        assert_eq!([pool.step(-1), pool.step(i32::MIN), pool.step(i32::MAX)], [3, 2, 4]);
        assert_eq!([pool.resize(1, 3), pool.resize(7, 9), pool.resize(9, 1)], [3, 7, 9]);
    }

    proptest! {
        #[test]
        fn the_target_is_within_the_bounds(
            bounds in (0_u32..9, 0_u32..9),
            steps in prop::collection::vec((0_u8..9, 0_u32..9, 0_u32..9, prop::option::of(0_u32..99)), 0..200),
        ) {
            let mut now = Instant::now();
            let mut pool = Demand::new(bounds.0, bounds.1, now);
            for (kind, a, b, queued) in steps {
                let (min, max) = (pool.min, pool.max);
                let target = match kind {
                    0 => pool.step(a as i32 - 4),
                    1 => {
                        let target = pool.resize(a, b);
                        prop_assert!((a..=b.max(a)).contains(&target));
                        continue;
                    }
                    _ => {
                        now += Duration::from_millis(u64::from(a) * 300);
                        pool.sample(now, Load { queued, cpu: seconds(b.into()), workers: a })
                    }
                };
                prop_assert!((min..=max).contains(&target));
            }
        }

        /// Work that needs so many processors, or workers that wait: after an hour, nothing but a rare trial.
        #[test]
        fn under_a_constant_load_it_comes_to_rest(
            work in 0.0..12.0_f64, processors in 1.0..9.0_f64, max in 1_u32..12, waits in prop::option::of(1_u32..12),
        ) {
            let mut pool = Simulation::new(1, max);
            let load = |workers: u32| match waits {
                Some(needed) => (0.0, if workers < needed { 50 } else { 0 }),
                None => (work.min(processors).min(workers.into()), 0),
            };
            pool.run(2 * 3600, load);
            let before = pool.changes.len();
            pool.run(3600, load);
            let changes = pool.changes.len() - before;
            prop_assert!(changes <= if waits.is_some() { 4 } else { 0 }, "{:?}", pool.changes);
        }
    }
}
