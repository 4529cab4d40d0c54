//! How long things took, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Up to which length, in microseconds, each bucket but the last counts: about three times as much at each step.
pub type Bounds = [u64; 17];

/// From a fork on a quick machine to most of an hour.
pub const CONNECTIONS: Bounds = bounds(1);
/// From a child that has hardly begun to a worker of four weeks.
pub const LIFETIMES: Bounds = bounds(1_000);

/// `least` times 30, 100, 300 ...
const fn bounds(least: u64) -> Bounds {
    let (mut bounds, mut at, mut ten) = ([0; 17], 0, 10 * least);
    while at < bounds.len() {
        (bounds[at], ten) = if at % 2 == 0 { (3 * ten, ten) } else { (10 * ten, 10 * ten) };
        at += 1;
    }
    bounds
}

forkd_sys::plain! {
    /// Counts of lengths of time; may be written by many.
    #[derive(Debug)]
    pub(crate) struct Histogram {
        /// How many were in each bucket; the last is of those longer than all bounds.
        counts: [AtomicU64; CONNECTIONS.len() + 1],
        sum_us: AtomicU64,
    }
}

/// What a histogram held at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lengths {
    /// In the order of the bounds.
    pub counts: [u64; CONNECTIONS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one, in the buckets of [`CONNECTIONS`].
    pub(crate) fn observe(&self, us: u64) {
        self.observe_in(&CONNECTIONS, us);
    }

    pub(crate) fn observe_in(&self, bounds: &Bounds, us: u64) {
        let bucket = bounds.iter().position(|&bound| us <= bound).unwrap_or(bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Lengths {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Lengths { counts, sum: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)) }
    }

    /// The counts, and the sum in microseconds.
    pub(super) fn save(&self) -> (Vec<u64>, u64) {
        (self.read().counts.to_vec(), self.sum_us.load(Ordering::Relaxed))
    }

    /// Goes on from there, if there are as many buckets.
    pub(super) fn restore(&self, counts: &[u64], sum_us: u64) {
        if counts.len() == self.counts.len() {
            self.counts.iter().zip(counts).for_each(|(to, count)| to.store(*count, Ordering::Relaxed));
            self.sum_us.store(sum_us, Ordering::Relaxed);
        }
    }

    pub(super) fn reset(&self) {
        self.counts.iter().chain([&self.sum_us]).for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}

impl Lengths {
    /// Both together.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        Self { sum: self.sum.saturating_add(other.sum), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_in_the_bucket_that_it_fits_in() {
        let histogram =
            Histogram { counts: [const { AtomicU64::new(0) }; 18], sum_us: const { AtomicU64::new(0) } };
        for us in [0, 30, 31, 1_000, 3_000_000_000, 3_000_000_001] {
            histogram.observe(us);
        }
        let Lengths { counts, sum } = histogram.read();
        assert_eq!((counts[0], counts[1], counts[3], counts[16], counts[17]), (2, 1, 1, 1, 1));
        assert_eq!((counts.iter().sum::<u64>(), sum), (6, Duration::from_micros(6_000_001_062)));
        histogram.reset();
        assert_eq!(histogram.read(), Lengths::default());
        assert_eq!(CONNECTIONS[..4], [30, 100, 300, 1_000]);
        assert_eq!(
            (CONNECTIONS[16], LIFETIMES[0], LIFETIMES[16]),
            (3_000_000_000, 30_000, 3_000_000_000_000)
        );
    }
}
