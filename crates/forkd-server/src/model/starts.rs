//! How patient to be with workers that fail to start; pure, like `pool`, whose part it is.

use std::time::{Duration, Instant};

use crate::admission::{LONGEST_PAUSE, back_off};

/// A worker that dies sooner than this, without having served a client, has failed to start.
pub(crate) const EARLY: Duration = Duration::from_secs(1);
/// So many rounds of failed starts in a row end the daemon.
pub(crate) const MAX_START_FAILURES: u32 = 8;

/// How starting workers has gone lately.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    failures: u32,
    not_before: Option<Instant>,
}

impl Starts {
    /// Several deaths within one pause are one failure: a whole pool that is killed at once has
    /// not failed as often as it has workers.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.not_before.is_some_and(|then| now < then) {
            return;
        }
        self.failures += 1;
        self.not_before = Some(now + back_off(self.failures));
    }

    /// No worker is to be started for a while, and none has failed.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.not_before = Some(now + LONGEST_PAUSE);
    }

    /// One that works forgives all failures.
    pub(crate) fn worked(&mut self) {
        self.failures = 0;
    }

    /// Whether the last one has failed.
    pub(super) fn fail(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn are_hopeless(&self) -> bool {
        self.failures >= MAX_START_FAILURES
    }

    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_and_end_without_hope() {
        let (mut starts, mut now) = (Starts::default(), Instant::now());
        let mut pauses = Vec::new();
        while !starts.are_hopeless() {
            starts.failed(now);
            let then = starts.not_before().expect("a pause");
            pauses.push((then - now).as_millis());
            now = then;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000]);
        starts.worked();
        assert!(!starts.are_hopeless() && !starts.fail());
    }

    #[test]
    fn many_that_die_at_once_are_one_failure() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        for _ in 0..64 {
            starts.failed(now + Duration::from_millis(1));
        }
        assert!(starts.fail() && !starts.are_hopeless());
        assert_eq!(starts.not_before(), Some(now + Duration::from_millis(11)));
    }
}
