//! How many workers a rate asks for: Little's law.
//!
//! J. D. C. Little, "A Proof for the Queuing Formula: L = λW" (Operations Research 9, 1961): the number of those that are
//! inside, on average, is the rate at which they come times how long each is inside. It holds whatever the distributions
//! are, of any part of a system, as long as one means the same part by all three. Where "inside" is "has a worker", L
//! is how many workers are busy. So W is how long a connection keeps its worker (from accept(2) to close(2)), and not
//! how long the client waits: that has the time in the queue in it, and its L is how many clients are there.

/// How many are served at once, on average, at so many a second, each of which takes so many microseconds of a worker.
pub(crate) fn at_once(rate: f64, service_us: f64) -> f64 {
    rate * service_us / 1e6
}

/// The least number of workers that can do it: with as many as are busy on average, or fewer, the queue grows for ever.
pub(crate) fn workers(at_once: f64) -> u32 {
    (at_once.ceil() as u32).max(1)
}

/// With how many workers that is looked at: with those, and where they have not kept it with one more, and one more.
pub(crate) const ENOUGH: [u32; 3] = [0, 1, 2];

/// With how many it can't be done; `None` where there are no fewer.
pub(crate) fn too_few(workers: u32) -> Option<u32> {
    (workers > 1).then_some(workers / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_what_littles_law_asks_for() {
        // docs/COMPARE.md: 1,000 connections a second that take 20 ms keep 20 workers busy
        assert_eq!(at_once(1000.0, 20_000.0), 20.0);
        assert_eq!([0.0, 0.03, 1.0, 1.01, 19.2].map(workers), [1, 1, 1, 2, 20]);
        assert_eq!([1, 2, 3, 20].map(too_few), [None, Some(1), Some(1), Some(10)]);
    }
}
