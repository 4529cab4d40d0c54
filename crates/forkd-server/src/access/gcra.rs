//! How often clients may come: the generic cell rate algorithm (ITU-T I.371), on a word that several processes change.
//!
//! The word is when what was admitted so far will be paid for, at one for each interval; in nanoseconds, of which an interval
//! has a thousand and more, so that it is as long as it should be but for a thousandth. Times that are passed in and out are in
//! microseconds. The invariant: over any span no
//! more than the burst plus one for each interval is admitted, and nonsense in the word costs no more than a burst.

use std::fmt;
use std::str::FromStr;

use super::atomic::{AtomicU64, Ordering};

/// How many clients may come in a unit of time, and how many at once.
///
/// ```
/// use forkd_server::supervise::Rate;
/// assert_eq!("600/m:20".parse::<Rate>().unwrap().to_string(), "600/m:20");
/// assert_eq!("5/s".parse::<Rate>().unwrap().to_string(), "5/s:5");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: char,
    burst: u32,
}

/// The units, in nanoseconds.
const UNITS: [(char, u64); 3] = [('s', 1_000_000_000), ('m', 60_000_000_000), ('h', 3_600_000_000_000)];

/// The most clients in a second, of which each is worth a microsecond, and at once. A burst of so many is worth no more than
/// 115 years, a fifth of what the word can have.
const MOST: u32 = 1_000_000;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = || {
            let (count, rest) = text.split_once('/')?;
            let (unit, burst) =
                rest.split_once(':').map_or((rest, None), |(unit, burst)| (unit, Some(burst)));
            let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=MOST).contains(number));
            let (unit, _) = UNITS.into_iter().find(|(name, _)| unit == name.to_string())?;
            let count = number(count)?;
            Some(Self { count, unit, burst: burst.map_or(Some(count), number)? })
        };
        rate().ok_or_else(|| {
            format!(
                "{text:?} is no rate; write N/s, N/m or N/h, and how many may come at once if that is another number, like \
                 10/s or 600/m:20 (1 to {MOST})"
            )
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.count, self.unit, self.burst)
    }
}

impl Rate {
    /// In nanoseconds, rounded up: no more may come than that.
    fn interval(self) -> u64 {
        let unit = UNITS.iter().find(|(name, _)| *name == self.unit).map_or(1, |(_, length)| *length);
        unit.div_ceil(u64::from(self.count))
    }

    /// For how long what was admitted is not paid for, of which a process that went wild may have written any.
    fn debt(self, paid_at: u64, now: u64) -> u64 {
        paid_at.saturating_sub(now).min(self.interval() * u64::from(self.burst))
    }

    fn tolerance(self) -> u64 {
        self.interval() * u64::from(self.burst - 1)
    }

    /// How long the next client is to wait; `None`: it may come.
    pub(super) fn wait(self, paid_at: &AtomicU64, now_us: u64) -> Option<u64> {
        let debt = self.debt(paid_at.load(Ordering::Relaxed), nanos(now_us));
        debt.checked_sub(self.tolerance()).map(|wait| wait.div_ceil(1000)).filter(|&wait_us| wait_us > 0)
    }

    /// Counts a client that comes in all the same.
    pub(super) fn charge(self, paid_at: &AtomicU64, now_us: u64) {
        let now = nanos(now_us);
        let pay = |paid_at: u64| Some(now + self.debt(paid_at, now) + self.interval());
        let _ = paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// Counts a client, if it may come.
    pub(super) fn admit(self, paid_at: &AtomicU64, now_us: u64) -> bool {
        let now = nanos(now_us);
        let pay = |paid_at: u64| {
            let debt = self.debt(paid_at, now);
            (debt <= self.tolerance()).then(|| now + debt + self.interval())
        };
        paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

/// A time on the clock, which reaches 290 years.
fn nanos(us: u64) -> u64 {
    us.min(u64::MAX / 2000) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_burst_is_admitted_and_then_one_for_each_interval() {
        let (rate, paid_at) = (rate("10/s:3"), AtomicU64::new(0));
        let admitted = |now| (0..9).filter(|_| rate.admit(&paid_at, now)).count();
        assert_eq!(admitted(SECOND), 3);
        assert_eq!((admitted(SECOND + 99_999), admitted(SECOND + 100_000)), (0, 1));
        assert_eq!(admitted(2 * SECOND), 3, "quiet earns the burst back, and no more");
    }

    #[test]
    fn a_flood_is_held_to_the_rate() {
        let (rate, paid_at) = (rate("100/s:5"), AtomicU64::new(0));
        let admitted =
            (0..10 * SECOND).step_by(500).filter(|&now| rate.admit(&paid_at, SECOND + now)).count();
        assert_eq!(admitted, 5 + 999);
    }

    #[test]
    fn a_rate_that_is_no_whole_number_of_microseconds_is_held_to() {
        for most in [600_000, 999_999, 7] {
            let (rate, paid_at) = (rate(&format!("{most}/s:5")), AtomicU64::new(0));
            let admitted = (0..SECOND).filter(|&now| rate.admit(&paid_at, SECOND + now)).count();
            assert!((most - most / 1000..=most + 5).contains(&admitted), "{most}: {admitted}");
        }
    }

    #[test]
    fn neither_the_longest_burst_nor_the_last_time_overflows() {
        let (rate, paid_at) = (rate("1/h:1000000"), AtomicU64::new(0));
        for now in [0, u64::MAX] {
            assert!((0..1_000_000).all(|_| rate.admit(&paid_at, now)));
            assert!(!rate.admit(&paid_at, now));
            rate.charge(&paid_at, now);
        }
    }

    #[test]
    fn what_waits_is_told_how_long_and_what_was_let_in_all_the_same_is_paid_for() {
        let (rate, paid_at) = (rate("10/s:1"), AtomicU64::new(0));
        assert_eq!(rate.wait(&paid_at, SECOND), None);
        rate.charge(&paid_at, SECOND);
        assert_eq!(rate.wait(&paid_at, SECOND), Some(100_000));
        assert_eq!(rate.wait(&paid_at, SECOND + 40_000), Some(60_000));
        assert_eq!(rate.wait(&paid_at, SECOND + 100_000), None);
    }

    #[test]
    fn nonsense_in_shared_memory_locks_clients_out_for_no_longer_than_a_burst_takes() {
        let (rate, paid_at) = (rate("10/s:3"), AtomicU64::new(u64::MAX));
        assert!(!rate.admit(&paid_at, SECOND));
        assert_eq!(rate.wait(&paid_at, SECOND), Some(100_000));
        rate.charge(&paid_at, SECOND);
        assert_eq!(rate.wait(&paid_at, SECOND + 200_000), None);
    }

    #[test]
    fn a_mistake_says_what_to_write() {
        assert_eq!(rate("1/h").interval(), 3600 * SECOND * 1000);
        assert_eq!(rate("1000000/s").interval(), 1000);
        for text in ["", "10", "10/", "10/d", "0/s", "10/s:0", "1000001/s", "10/s:x", "-1/s", "10/s:5:5"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("like 10/s or 600/m:20"), "{text}");
        }
    }
}
