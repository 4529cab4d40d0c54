//! For how long a source is refused for what its clients have done, on a word that several processes change.
//!
//! The first offence costs what the configuration says, and each one that comes after a penalty twice as much as the last one,
//! up to 16 times. A source that was good for as long as its last penalty took begins anew. An offence during a penalty,
//! by a client that was in already, has it last longer and doubles nothing: of many clients that go wrong together, one
//! counts. The invariant: nonsense in the word refuses a source for no longer than the configuration could.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::atomic::{AtomicU64, Ordering};
use super::bucket::UNTIL_SHIFT;
use super::rules::Rules;
use crate::transport::{Offence, Peer};

/// What an offence costs the first time.
///
/// ```
/// use forkd_server::supervise::Penalty;
/// assert_eq!("timeout=90s".parse::<Penalty>().unwrap().to_string(), "timeout=1m 30s");
/// assert!("timeout".parse::<Penalty>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// What it is for.
    pub offence: Offence,
    /// For how long the source is refused.
    pub length: Duration,
}

/// The shortest and the longest penalty, before it is doubled.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl FromStr for Penalty {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let penalty = || {
            let (name, length) = text.split_once('=')?;
            let offence = Offence::ALL.into_iter().find(|offence| offence.name() == name)?;
            let length = humantime::parse_duration(length).ok()?;
            (SHORTEST..=LONGEST).contains(&length).then_some(Self { offence, length })
        };
        penalty().ok_or_else(|| {
            let causes = Offence::ALL.map(Offence::name).join(", ");
            format!(
                "{text:?} is no penalty; write a cause and for how long, like timeout=1m. The causes are {causes}; 1ms to 1day"
            )
        })
    }
}

impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.offence, humantime::format_duration(self.length))
    }
}

/// What each offence costs, and which sources it costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Penalties {
    /// In milliseconds, by [`Offence`]; 0: nothing.
    lengths: [u64; Offence::ALL.len()],
    exempt: Rules,
}

/// How often a penalty is doubled at most.
const MOST_DOUBLINGS: u32 = 4;

/// Below the end of a penalty, in milliseconds, a word has how often it was doubled, what it was for, and what is no
/// business of penalties.
const DOUBLINGS_SHIFT: u32 = UNTIL_SHIFT - 3;
const OFFENCE_SHIFT: u32 = UNTIL_SHIFT - 6;
const REST: u64 = (1 << OFFENCE_SHIFT) - 1;

/// The last penalty of a source.
#[derive(Debug, Clone, Copy)]
struct Last {
    until: u64,
    doublings: u32,
    offence: Offence,
}

impl Last {
    /// `None`: there was none.
    fn of(word: u64) -> Option<Self> {
        let until = word >> UNTIL_SHIFT;
        let offence = *Offence::ALL.get((word >> OFFENCE_SHIFT & 7) as usize)?;
        let doublings = ((word >> DOUBLINGS_SHIFT & 7) as u32).min(MOST_DOUBLINGS);
        (until > 0).then_some(Self { until, doublings, offence })
    }

    fn word(self) -> u64 {
        let Self { until, doublings, offence } = self;
        until << UNTIL_SHIFT | u64::from(doublings) << DOUBLINGS_SHIFT | (offence as u64) << OFFENCE_SHIFT
    }
}

/// A penalty that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) offence: Offence,
    /// For how long it goes on.
    pub(crate) left: Duration,
}

impl Penalties {
    /// Those, and what fits a rule of `exempt` is never penalised.
    pub fn new(penalties: impl IntoIterator<Item = Penalty>, exempt: Rules) -> Self {
        let mut all = Self { exempt, ..Self::default() };
        penalties.into_iter().for_each(|penalty| all.add(penalty));
        all
    }

    /// One more.
    pub fn add(&mut self, Penalty { offence, length }: Penalty) {
        self.lengths[offence as usize] = (length.as_millis() as u64).max(1);
    }

    /// Sources that are never penalised.
    pub fn exempt(&mut self) -> &mut Rules {
        &mut self.exempt
    }

    /// Whether no offence costs anything.
    pub fn is_empty(&self) -> bool {
        self.lengths == [0; Offence::ALL.len()]
    }

    /// Whether an offence costs something.
    pub(super) fn names(&self, offence: Offence) -> bool {
        self.lengths[offence as usize] > 0
    }

    /// Whether a client is never penalised.
    pub(super) fn exempts(&self, peer: Peer) -> bool {
        !self.exempt.is_empty() && self.exempt.decide(peer).rule.is_some()
    }

    /// How long the last penalty took, in milliseconds.
    fn length(&self, last: Last) -> u64 {
        self.lengths[last.offence as usize] << last.doublings
    }

    /// How long it goes on.
    fn left(&self, last: Last, now: u64) -> u64 {
        last.until.saturating_sub(now).min(self.length(last))
    }

    /// The penalty that is in force, if there is one. The time is in milliseconds.
    pub(super) fn in_force(&self, word: &AtomicU64, now: impl FnOnce() -> u64) -> Option<InForce> {
        let last = Last::of(word.load(Ordering::Relaxed))?;
        let left = self.left(last, now());
        (left > 0).then(|| InForce { offence: last.offence, left: Duration::from_millis(left) })
    }

    /// The penalty after one more offence, if that changes anything.
    fn after(&self, last: Option<Last>, offence: Offence, now: u64) -> Option<Last> {
        // one for what costs nothing any more is forgotten
        let last = last.filter(|last| self.length(*last) > 0);
        let left = last.map_or(0, |last| self.left(last, now));
        let doublings = match last {
            Some(last) if left > 0 => last.doublings,
            Some(last) if now < last.until.saturating_add(self.length(last)) => {
                MOST_DOUBLINGS.min(last.doublings + 1)
            }
            _ => 0,
        };
        let length = self.lengths[offence as usize] << doublings;
        // the longer one goes on
        (length > left).then_some(Last { until: now + length, doublings, offence })
    }

    /// Takes note of an offence; tells for how long its source is refused from now on, if it was not already.
    pub(super) fn impose(&self, word: &AtomicU64, offence: Offence, now: u64) -> Option<Duration> {
        let next = |word: u64| self.after(Last::of(word), offence, now).map(|next| next.word() | word & REST);
        let before = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        let begins = Last::of(before).is_none_or(|last| self.left(last, now) == 0);
        let length = self.after(Last::of(before), offence, now).map(|next| next.until - now);
        length.filter(|_| begins).map(Duration::from_millis)
    }

    /// Forgets what a source has done.
    pub(super) fn forget(word: &AtomicU64) {
        word.fetch_and(REST, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1000;

    fn penalties(all: &[&str]) -> Penalties {
        Penalties::new(all.iter().map(|text| text.parse().unwrap()), Rules::default())
    }

    /// The seconds that are left.
    fn left(penalties: &Penalties, word: &AtomicU64, now: u64) -> u64 {
        penalties.in_force(word, || now).map_or(0, |in_force| in_force.left.as_secs())
    }

    #[test]
    fn each_offence_after_a_penalty_costs_twice_as_much_up_to_sixteen_times() {
        let (penalties, word) = (penalties(&["timeout=10s"]), AtomicU64::new(0));
        let mut now = 5 * SECOND;
        for length in [10, 20, 40, 80, 160, 160, 160] {
            assert_eq!(left(&penalties, &word, now), 0);
            let imposed = penalties.impose(&word, Offence::Timeout, now);
            assert_eq!(imposed, Some(Duration::from_secs(length)));
            assert_eq!(left(&penalties, &word, now), length);
            now += length * SECOND;
        }
    }

    #[test]
    fn a_source_that_is_good_for_as_long_as_its_last_penalty_begins_anew() {
        let (penalties, word) = (penalties(&["timeout=10s"]), AtomicU64::new(0));
        let length = |now: u64| penalties.impose(&word, Offence::Timeout, now * SECOND).unwrap().as_secs();
        // over at 20, 49, 108, and not forgotten for 10, 20, 40
        assert_eq!((length(10), length(29), length(68), length(147)), (10, 20, 40, 80));
        let end = 147 + 80;
        assert_eq!(length(end + 80), 10);
    }

    #[test]
    fn an_offence_during_a_penalty_has_it_last_longer_and_doubles_nothing() {
        let (penalties, word) = (penalties(&["timeout=10s", "crash=60s"]), AtomicU64::new(0));
        let impose = |offence, now: u64| penalties.impose(&word, offence, now * SECOND);
        assert_eq!(impose(Offence::Timeout, 10), Some(Duration::from_secs(10)));
        assert_eq!((impose(Offence::Timeout, 15), left(&penalties, &word, 15 * SECOND)), (None, 10));
        assert_eq!((impose(Offence::Crash, 20), left(&penalties, &word, 20 * SECOND)), (None, 60));
        // the longer one goes on
        assert_eq!((impose(Offence::Timeout, 21), left(&penalties, &word, 21 * SECOND)), (None, 59));
        assert_eq!(impose(Offence::Timeout, 80), Some(Duration::from_secs(20)));
    }

    #[test]
    fn what_is_not_named_costs_nothing_and_one_that_is_no_longer_named_is_over() {
        let word = AtomicU64::new(0);
        assert_eq!(penalties(&["timeout=10s"]).impose(&word, Offence::Crash, 1), None);
        assert_eq!(word.load(Ordering::Relaxed), 0);
        penalties(&["timeout=10s"]).impose(&word, Offence::Timeout, 1);
        assert_eq!(left(&penalties(&["timeout=10s"]), &word, 1), 10);
        assert_eq!(left(&penalties(&["timeout=5s"]), &word, 1), 5);
        assert_eq!(left(&penalties(&["crash=10s"]), &word, 1), 0);
    }

    #[test]
    fn the_rest_of_the_word_stays() {
        let (penalties, word) = (penalties(&["rate=1day"]), AtomicU64::new(REST));
        assert_eq!(penalties.in_force(&word, || 7), None);
        penalties.impose(&word, Offence::Rate, 7);
        assert_eq!(penalties.in_force(&word, || 7).unwrap().offence, Offence::Rate);
        Penalties::forget(&word);
        assert_eq!(word.into_inner(), REST);
    }

    #[test]
    fn an_exempt_network_is_known() {
        let mut penalties = penalties(&["rate=1s"]);
        let peer = |text: &str| Peer::Ip(text.parse().unwrap());
        assert!(!penalties.exempts(peer("10.0.0.1:1")));
        penalties.exempt().add("10.0.0.0/8".parse().unwrap(), true);
        penalties.exempt().add("uid:0".parse().unwrap(), true);
        assert!(penalties.exempts(peer("10.0.0.1:1")) && !penalties.exempts(peer("11.0.0.1:1")));
        assert!(penalties.exempts(Peer::Unix { pid: 1, uid: 0, gid: 1 }));
    }

    #[test]
    fn a_mistake_says_what_to_write() {
        for text in
            ["", "timeout", "timeout=", "timeout=5", "late=5s", "crash=0s", "crash=2days", "crash=-1s"]
        {
            let why = text.parse::<Penalty>().unwrap_err();
            assert!(
                why.contains("like timeout=1m") && why.contains("timeout, unread, protocol, crash, rate")
            );
        }
        assert_eq!("crash=1day".parse::<Penalty>().unwrap().to_string(), "crash=1day");
    }

    proptest! {
        /// Whatever was written there.
        #[test]
        fn no_word_refuses_for_longer_than_the_configuration_could(word: u64, now in 0..1_u64 << 39, offence in 0..5_usize) {
            let penalties = penalties(&["timeout=10s", "crash=60s"]);
            let word = AtomicU64::new(word);
            prop_assert!(left(&penalties, &word, now) <= 16 * 60);
            let before = word.load(Ordering::Relaxed);
            let imposed = penalties.impose(&word, Offence::ALL[offence], now);
            prop_assert!(imposed.is_none_or(|length| length <= Duration::from_secs(16 * 60)));
            prop_assert!(left(&penalties, &word, now) <= 16 * 60);
            prop_assert_eq!(word.load(Ordering::Relaxed) & REST, before & REST);
        }

        /// Of any number of offences at any times.
        #[test]
        fn a_penalty_never_ends_sooner_for_another_offence(steps in prop::collection::vec((0_u64..100_000, 0..5_usize), 1..50)) {
            let penalties = penalties(&["timeout=10s", "unread=1s", "crash=60s"]);
            let (word, mut now) = (AtomicU64::new(0), 1_u64);
            for (step, offence) in steps {
                now += step;
                let before = penalties.in_force(&word, || now).map_or(Duration::ZERO, |in_force| in_force.left);
                let imposed = penalties.impose(&word, Offence::ALL[offence], now);
                let after = penalties.in_force(&word, || now).map_or(Duration::ZERO, |in_force| in_force.left);
                prop_assert!(after >= before);
                prop_assert_eq!(imposed.is_some(), before.is_zero() && !after.is_zero());
                prop_assert!(imposed.is_none_or(|length| length == after));
            }
        }
    }
}
