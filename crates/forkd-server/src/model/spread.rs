//! How clients spread over the workers of a pool that serve many at once: pure.
//!
//! The rule: a worker that is ahead of the others leaves the next client to them. It is ahead when it has a 32nd more
//! connections than the workers have on average, and one more. Those that are not ahead take clients as they come, and
//! not all workers can be ahead, so a client that is left to the others is theirs, unless they are hung, full, or out
//! of their share of the processor. So it is left to them for [`PATIENCE`] at most: one that still waits then is taken,
//! with some more, twice as many each time. [`FORGET`] later the others are trusted again.
//!
//! A worker that has left a client looks again every [`LOOK`]: it may not be ahead any more.

use std::time::{Duration, Instant};

/// When to look again after a client was left to the others.
pub(crate) const LOOK: Duration = Duration::from_micros(200);

/// For how long a client is left to the others at most: in that time a busy processor comes to each of its processes.
const PATIENCE: Duration = Duration::from_millis(4);

/// For how long a worker goes by what it has found of the others.
const FORGET: Duration = Duration::from_secs(1);

/// How many more than a 32nd a worker may have.
const MARGIN: u32 = 1;

/// What a worker knows of its pool. What others have written may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Its own connections.
    pub(crate) mine: u32,
    /// Those of all workers that take clients.
    pub(crate) all: u32,
    /// How many workers take clients.
    pub(crate) workers: u32,
    /// How often workers have found the queue empty.
    pub(crate) emptied: u32,
}

impl Shares {
    /// By how many connections the worker has more than the average and a 32nd.
    fn excess(self) -> u32 {
        let average = u64::from(self.all) * 33 / (32 * u64::from(self.workers.max(1)));
        self.mine.saturating_sub(u32::try_from(average).unwrap_or(u32::MAX))
    }
}

/// A client that is left to the others.
#[derive(Debug, Clone, Copy)]
struct Left {
    since: Instant,
    emptied: u32,
}

/// What a worker goes by.
#[derive(Debug)]
pub(crate) struct Spread {
    margin: u32,
    /// How many more it takes if the others are late again.
    step: u32,
    late_at: Option<Instant>,
    left: Option<Left>,
}

impl Default for Spread {
    fn default() -> Self {
        Self { margin: MARGIN, step: MARGIN, late_at: None, left: None }
    }
}

impl Spread {
    /// Whether to take the next client; if not, it is left to the others, and to be [looked](Self::looks) for later.
    pub(crate) fn takes(&mut self, shares: Shares, now: impl FnOnce() -> Instant) -> bool {
        let excess = if shares.workers > 1 { shares.excess() } else { 0 };
        if excess <= MARGIN {
            self.left = None;
            return true;
        }
        let now = now();
        if self.late_at.is_some_and(|then| now >= then + FORGET) {
            (self.margin, self.step, self.late_at) = (MARGIN, MARGIN, None);
        }
        if excess <= self.margin {
            self.left = None;
            return true;
        }
        let Shares { emptied, .. } = shares;
        let left = self.left.filter(|left| left.emptied == emptied).unwrap_or(Left { since: now, emptied });
        self.left = Some(left);
        now >= left.since + PATIENCE
    }

    /// A client has come in.
    pub(crate) fn took(&mut self, shares: Shares, now: impl FnOnce() -> Instant) {
        if self.left.take().is_some() {
            self.step = self.step.saturating_mul(2);
            self.margin = shares.excess().saturating_add(self.step);
            self.late_at = Some(now());
        }
    }

    /// No client is queued.
    pub(crate) fn found_none(&mut self) {
        self.left = None;
    }

    /// After [`LOOK`]: whether the client that was left to the others may still be queued.
    pub(crate) fn looks(&mut self, shares: Shares) -> bool {
        self.left = self.left.filter(|left| left.emptied == shares.emptied);
        self.left.is_some()
    }
}

/// Jain's index of how evenly connections are spread: 1 if all workers have as many, 1/n if one of n has all; `None`
/// if there are none, or only one worker.
pub(crate) fn index(connections: impl IntoIterator<Item = u32>) -> Option<f64> {
    let (mut workers, mut sum, mut squares) = (0, 0.0, 0.0);
    for count in connections.into_iter().map(f64::from) {
        (workers, sum, squares) = (workers + 1, sum + count, squares + count * count);
    }
    (workers > 1 && sum > 0.0).then(|| sum * sum / (f64::from(workers) * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(connections: &[u32], worker: usize) -> Shares {
        let workers = connections.len() as u32;
        Shares { mine: connections[worker], all: connections.iter().sum(), workers, emptied: 0 }
    }

    #[test]
    fn a_worker_is_ahead_from_a_32nd_more_than_the_average_on() {
        for (connections, ahead) in [
            (&[0, 0, 0, 0][..], &[][..]),
            (&[1, 0], &[]),
            (&[2, 0], &[]),
            (&[3, 0], &[0]),
            (&[1, 1, 1, 0], &[]),
            (&[2, 0, 0, 0], &[0]),
            (&[3, 1, 1, 0], &[0]),
            (&[50, 50, 50, 50], &[]),
            (&[52, 50, 48, 50], &[]),
            (&[53, 50, 47, 50], &[0]),
            (&[500, 500, 500, 0], &[0, 1, 2]),
            // all that a pool of one does is its own
            (&[1000], &[]),
            (&[u32::MAX / 4, 0, 0, 0], &[0]),
        ] {
            let is_ahead =
                |worker: &usize| !Spread::default().takes(shares(connections, *worker), Instant::now);
            let found: Vec<_> = (0..connections.len()).filter(is_ahead).collect();
            assert_eq!(found, ahead, "{connections:?}");
        }
    }

    #[test]
    fn a_client_is_left_to_the_others_until_one_has_emptied_the_queue_or_patience_is_over() {
        let begin = Instant::now();
        let ahead = shares(&[9, 0], 0);
        for (emptied, after, looks, takes) in [
            (0, LOOK, true, false),
            (0, PATIENCE - LOOK, true, false),
            (0, PATIENCE, true, true),
            // another is queued since
            (1, LOOK, false, false),
            (1, PATIENCE, false, false),
        ] {
            let (mut spread, then) = (Spread::default(), Shares { emptied, ..ahead });
            assert!(!spread.takes(ahead, || begin));
            assert_eq!(spread.looks(then), looks, "{emptied} {after:?}");
            assert_eq!(spread.takes(then, || begin + after), takes, "{emptied} {after:?}");
        }
        let mut spread = Spread::default();
        assert!(!spread.takes(ahead, || begin));
        assert!(spread.takes(shares(&[9, 9], 0), || begin + LOOK), "it is not ahead any more");
        assert!(!spread.takes(ahead, || begin + PATIENCE), "and this is another client");
        spread.found_none();
        assert!(!spread.looks(ahead));
    }

    #[test]
    fn wrong_counts_keep_no_client_out() {
        for all in [0, u32::MAX] {
            for workers in [0, 1, 2, u32::MAX] {
                let (mut spread, now) = (Spread::default(), Instant::now());
                let shares = Shares { mine: 3, all, workers, emptied: 0 };
                assert!(
                    spread.takes(shares, || now) || spread.takes(shares, || now + PATIENCE),
                    "{shares:?}"
                );
            }
        }
    }

    /// Whichever worker comes first, clients that stay are spread over all.
    #[test]
    fn clients_that_stay_are_spread_evenly() {
        for workers in [2, 4, 8, 64] {
            let mut connections = vec![0; workers];
            for _ in 0..workers * 50 {
                let takes =
                    |&worker: &usize| Spread::default().takes(shares(&connections, worker), Instant::now);
                let worker = (0..workers).find(takes).unwrap();
                connections[worker] += 1;
            }
            let index = index(connections.iter().copied());
            assert!(index > Some(0.95), "{index:?} {connections:?}");
        }
    }

    /// The other worker hangs: each time that a client was left to it in vain, twice as many more are taken.
    #[test]
    fn workers_that_are_late_are_waited_for_less_and_less() {
        let (mut spread, mut connections, mut now) = (Spread::default(), [0, 0], Instant::now());
        let mut taken = Vec::new();
        for _ in 0..6 {
            let before = connections[0];
            while spread.takes(shares(&connections, 0), || now) {
                spread.took(shares(&connections, 0), || now);
                connections[0] += 1;
            }
            taken.push(connections[0] - before);
            now += PATIENCE;
        }
        assert_eq!(taken, [3, 6, 10, 19, 35, 68]);
        // it may have come to life again
        connections[0] -= 10;
        assert!(spread.takes(shares(&connections, 0), || now + FORGET / 2));
        assert!(!spread.takes(shares(&connections, 0), || now + FORGET));
    }

    #[test]
    fn the_index_is_one_for_even_shares_and_one_nth_for_one_worker_with_all() {
        for (connections, expected) in [
            (&[5, 5, 5, 5][..], Some(1.0)),
            (&[8, 0, 0, 0], Some(0.25)),
            (&[0, 23, 148, 29], Some(0.43)),
            (&[1, 3], Some(0.8)),
            (&[0, 0], None),
            (&[7], None),
            (&[], None),
        ] {
            let rounded = index(connections.iter().copied()).map(|index| (index * 100.0).round() / 100.0);
            assert_eq!(rounded, expected, "{connections:?}");
        }
    }
}
