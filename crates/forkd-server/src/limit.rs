//! Limits on the log lines that a stranger can trigger.
//!
//! The invariant: over any span of time, no more than `burst` lines plus one per interval are let
//! through, and every line held back is in the count that comes with the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Lets a burst of lines through, then one per interval, and counts what it holds back.
///
/// One limit per kind of line, kept by the code that writes that line.
///
/// # Fork safety
///
/// Plain memory: after a fork each process has a limit of its own.
#[derive(Debug)]
pub(crate) struct RateLimit {
    tolerance: Duration,
    per: Duration,
    /// When the lines let through so far will be paid for, at one per interval: the theoretical
    /// arrival time of the generic cell rate algorithm (ITU-T I.371).
    paid_at: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// Makes a limit: `burst` lines (at least one) at once, then one every `per`.
    #[must_use]
    pub(crate) fn new(burst: u32, per: Duration) -> Self {
        let tolerance = per.saturating_mul(burst.saturating_sub(1));
        Self { tolerance, per, paid_at: None, suppressed: 0 }
    }

    /// Asks to write a line. `None` means no; `Some(n)` means yes, and `n` lines have been held
    /// back since the last one.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        let debt = self.paid_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if debt > self.tolerance {
            self.suppressed += 1;
            return None;
        }
        self.paid_at = now.checked_add(debt.saturating_add(self.per));
        Some(self.take_suppressed())
    }

    /// How many lines have been held back since the last one, which no other one will tell.
    pub(crate) fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.suppressed)
    }
}

impl Default for RateLimit {
    /// Five lines at once, then one every ten seconds.
    fn default() -> Self {
        Self::new(5, Duration::from_secs(10))
    }
}

forkd_sys::plain! {
    /// The same for a line that several processes write: it lies in memory that they share, and needs no lock.
    ///
    /// Lets five lines through at once, then one a second.
    #[derive(Debug, Default)]
    pub(crate) struct SharedLimit {
        /// As of [`RateLimit`], in nanoseconds of the system's monotonic clock, which all processes have in common.
        paid_at: AtomicU64,
        suppressed: AtomicU64,
    }
}

impl SharedLimit {
    const PER: u64 = 1_000_000_000;
    const TOLERANCE: u64 = 4 * Self::PER;
    /// More than any line leaves: a process that went wild has written it, and does not silence the others.
    const WRONG: u64 = 4 * Self::TOLERANCE;

    pub(crate) const fn new() -> Self {
        Self { paid_at: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Asks to write a line, as [`RateLimit::admit`].
    pub(crate) fn admit(&self) -> Option<u64> {
        let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        self.admit_at(now.as_nanos() as u64)
    }

    fn admit_at(&self, now: u64) -> Option<u64> {
        let pay = |paid_at: u64| match paid_at.saturating_sub(now) {
            Self::WRONG.. => Some(now + Self::PER),
            debt => (debt <= Self::TOLERANCE).then_some(now + debt + Self::PER),
        };
        if self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }

    /// Begins anew.
    pub(crate) fn reset(&self) {
        self.paid_at.store(0, Ordering::Relaxed);
        self.suppressed.store(0, Ordering::Relaxed);
    }
}

/// Something that lasts, such as a shortage: worth one line when it begins and one when it is over.
///
/// One that comes and goes all the time is limited like any other line; of one whose beginning was
/// held back, the end is, too.
#[derive(Debug, Default)]
pub(crate) struct Episode {
    limit: RateLimit,
    lasts: bool,
    said: bool,
}

impl Episode {
    /// It is there; tells whether to say so.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        if self.lasts {
            return false;
        }
        self.lasts = true;
        self.said = self.limit.admit(now).is_some();
        self.said
    }

    /// It is over, if it was there; tells whether to say so. Writes nothing where there is nothing to
    /// change: after a fork it would copy a page.
    pub(crate) fn end(&mut self) -> bool {
        if !self.lasts {
            return false;
        }
        self.lasts = false;
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limit = RateLimit::new(3, Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(limit.admit(at(0)), Some(0));
        }
        assert_eq!(limit.admit(at(0)), None);
        assert_eq!(limit.admit(at(9)), None);
        assert_eq!(limit.admit(at(10)), Some(2));
        assert_eq!(limit.admit(at(19)), None);
        assert_eq!(limit.admit(at(20)), Some(1));
    }

    #[test]
    fn quiet_earns_the_burst_back_and_no_more() {
        let start = Instant::now();
        let mut limit = RateLimit::new(2, Duration::from_secs(1));
        assert_eq!((limit.admit(start), limit.admit(start), limit.admit(start)), (Some(0), Some(0), None));
        let later = start + Duration::from_secs(3600);
        assert_eq!((limit.admit(later), limit.admit(later), limit.admit(later)), (Some(1), Some(0), None));
    }

    #[test]
    fn a_flood_at_any_pace_is_held_to_the_rate() {
        let start = Instant::now();
        let mut limit = RateLimit::default();
        let admitted = (0..100_000).filter(|ms| limit.admit(start + Duration::from_millis(*ms)).is_some());
        assert_eq!(admitted.count(), 5 + 9);
    }

    #[test]
    fn several_share_a_limit_and_no_line_is_lost_from_the_count() {
        const SECOND: u64 = SharedLimit::PER;
        let limit = SharedLimit::new();
        let admitted: Vec<Option<u64>> = (0..7).map(|_| limit.admit_at(SECOND)).collect();
        assert_eq!(admitted, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None]);
        assert_eq!((limit.admit_at(2 * SECOND), limit.admit_at(2 * SECOND)), (Some(2), None));
        let counted = std::thread::scope(|scope| {
            let flood = || -> u64 {
                (0..1000).filter_map(|ms| limit.admit_at(10 * SECOND + ms)).map(|n| n + 1).sum()
            };
            let floods: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
            floods.into_iter().map(|flood| flood.join().expect("no panic")).sum::<u64>()
        });
        // those after the last line come with the next one
        assert_eq!(counted + limit.admit_at(20 * SECOND).expect("a line"), 1 + 4 * 1000);
        limit.reset();
        assert_eq!(limit.admit_at(SECOND), Some(0));
    }

    #[test]
    fn nonsense_in_shared_memory_silences_no_process() {
        let limit = SharedLimit { paid_at: u64::MAX.into(), suppressed: 3.into() };
        assert_eq!((limit.admit_at(5), limit.admit_at(5)), (Some(3), Some(0)));
        assert!(limit.admit().is_some(), "the clock goes on");
    }

    #[test]
    fn an_episode_has_a_beginning_and_an_end() {
        let (mut episode, now) = (Episode::default(), Instant::now());
        assert!(!episode.end(), "it was not there");
        let mut lines = || (episode.begin(now), episode.begin(now), episode.end(), episode.end());
        for _ in 0..5 {
            assert_eq!(lines(), (true, false, true, false));
        }
        assert_eq!(lines(), (false, false, false, false));
    }

    #[test]
    fn strange_arguments_do_no_harm() {
        let now = Instant::now();
        let mut never_again = RateLimit::new(0, Duration::from_secs(u64::from(u32::MAX)));
        assert_eq!((never_again.admit(now), never_again.admit(now)), (Some(0), None));
        let mut unlimited = RateLimit::new(1, Duration::ZERO);
        assert_eq!((unlimited.admit(now), unlimited.admit(now)), (Some(0), Some(0)));
    }
}
