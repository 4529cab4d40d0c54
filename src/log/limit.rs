//! A limit on the log lines that a stranger can trigger; pure, the clock is passed in.
//!
//! The invariant: over any span of time, no more than `burst` lines plus one per interval are let
//! through, and every line held back is in the count that comes with the next one.

use std::time::{Duration, Instant};

/// Lets a burst of lines through, then one per interval, and counts what it holds back.
///
/// One limit per kind of line, kept by whoever writes that line.
///
/// # Fork safety
///
/// Plain memory: after a fork each process has a limit of its own.
///
/// # Examples
///
/// ```
/// # use std::time::Instant;
/// let mut limit = forkd::log::RateLimit::default();
/// if let Some(suppressed) = limit.admit(Instant::now()) {
///     log::warn!(suppressed; "refused a connection");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimit {
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
    pub fn new(burst: u32, per: Duration) -> Self {
        let tolerance = per.saturating_mul(burst.saturating_sub(1));
        Self { tolerance, per, paid_at: None, suppressed: 0 }
    }

    /// Asks to write a line. `None` means no; `Some(n)` means yes, and `n` lines have been held
    /// back since the last one.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let debt = self.paid_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if debt > self.tolerance {
            self.suppressed += 1;
            return None;
        }
        self.paid_at = now.checked_add(debt.saturating_add(self.per));
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Default for RateLimit {
    /// Five lines at once, then one every ten seconds.
    fn default() -> Self {
        Self::new(5, Duration::from_secs(10))
    }
}

/// Something that lasts, such as a shortage: worth one line when it begins and one when it is over.
///
/// One that comes and goes all the time is limited like any other line; of one whose beginning was
/// held back, the end is, too.
#[derive(Debug, Default)]
pub(crate) struct Spell {
    limit: RateLimit,
    lasts: bool,
    said: bool,
}

impl Spell {
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
    fn a_spell_has_a_beginning_and_an_end() {
        let (mut spell, now) = (Spell::default(), Instant::now());
        assert!(!spell.end(), "it was not there");
        let mut lines = || (spell.begin(now), spell.begin(now), spell.end(), spell.end());
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
