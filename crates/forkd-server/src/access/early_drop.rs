//! Which new connections are refused while many have not completed their first exchange: sshd's random early drop
//! (`MaxStartups`, sshd_config(5)). Up to a number of such connections each new one comes in; from there on more and more
//! of them are refused, by chance, and beyond a second number all. So clients that are silent can't lock the others
//! out: some of those that say something come in.

use std::fmt;
use std::str::FromStr;

/// From how many connections without a first exchange on which part of the new ones is refused.
///
/// ```
/// use forkd_server::supervise::EarlyDrop;
/// assert_eq!("10:30:100".parse::<EarlyDrop>().unwrap().to_string(), "10:30:100");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyDrop {
    from: u32,
    percent: u32,
    full: u32,
}

/// The most connections that such a rule is about.
const MOST: u32 = 1_000_000;

impl FromStr for EarlyDrop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || {
            let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
            let [from, percent, full] = numbers?.try_into().ok()?;
            let is_meant = 1 <= from && from <= full && full <= MOST && (1..=100).contains(&percent);
            is_meant.then_some(Self { from, percent, full })
        };
        rule().ok_or_else(|| {
            format!(
                "{text:?} is no rule for an early drop; write FROM:PERCENT:FULL, like 10:30:100: of new connections 30 % are \
                 refused where 10 have not completed their first exchange, and all where 100 have not (1 to {MOST}, FULL \
                 no less than FROM)"
            )
        })
    }
}

impl fmt::Display for EarlyDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.from, self.percent, self.full)
    }
}

impl EarlyDrop {
    /// Whether a new connection is refused where so many others have not completed their first exchange. Which one that
    /// is, a random number decides, which is asked for only if it can.
    pub(crate) fn refuses(self, early: u32, random: impl FnOnce() -> u64) -> bool {
        if early < self.from {
            return false;
        }
        if early >= self.full {
            return true;
        }
        // in as many parts as make each step from FROM to FULL a whole number
        let (steps, step) = (u64::from(self.full - self.from), u64::from(early - self.from));
        let percent = u64::from(self.percent);
        random() % (100 * steps) < percent * steps + (100 - percent) * step
    }

    /// From how many connections on all new ones are refused.
    #[must_use]
    pub fn full(self) -> u32 {
        self.full
    }

    /// The rule in words.
    #[must_use]
    pub fn in_words(self) -> String {
        let Self { from, percent, full } = self;
        format!(
            "of new connections {percent} % are refused where {from} have not completed their first exchange, and all where \
             {full} have not"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> EarlyDrop {
        text.parse().unwrap()
    }

    #[test]
    fn none_is_refused_below_the_first_number_and_all_are_from_the_last_on() {
        let rule = rule("10:30:100");
        let no_number = || -> u64 { panic!("a random number, which costs something") };
        for early in 0..10 {
            assert!(!rule.refuses(early, no_number), "{early}");
        }
        for early in [100, 101, u32::MAX] {
            assert!(rule.refuses(early, no_number), "{early}");
        }
    }

    #[test]
    fn the_part_that_is_refused_grows_evenly() {
        // of 100 · 90 numbers
        let part = |early| (0..9000).filter(|&random| rule("10:30:100").refuses(early, || random)).count();
        assert_eq!([10, 11, 55, 99].map(part), [2700, 2770, 5850, 8930]);
        let steep = |early| (0..100).filter(|&random| rule("7:1:8").refuses(early, || random)).count();
        assert_eq!([6, 7, 8].map(steep), [0, 1, 100]);
    }

    #[test]
    fn one_number_for_both_is_a_limit() {
        let limit = rule("5:50:5");
        assert_eq!([4, 5].map(|early| limit.refuses(early, || 0)), [false, true]);
    }

    #[test]
    fn a_mistake_says_what_to_write() {
        for text in [
            "",
            "10",
            "10:30",
            "0:30:100",
            "10:0:100",
            "10:101:100",
            "10:30:9",
            "10:30:1000001",
            "a:b:c",
            "1:2:3:4",
        ] {
            assert!(text.parse::<EarlyDrop>().unwrap_err().contains("like 10:30:100"), "{text}");
        }
    }

    proptest! {
        /// One that is refused at a number of others is refused at each larger one, by the same random number.
        #[test]
        fn more_others_never_let_one_in(
            (from, more, percent) in (1..1000u32, 0..1000u32, 1..=100u32), early in 0..3000u32, random: u64,
        ) {
            let text = format!("{from}:{percent}:{}", from + more);
            let rule = rule(&text);
            prop_assert_eq!(rule.to_string(), text);
            let refuses = |early| rule.refuses(early, || random);
            prop_assert!(refuses(early) <= refuses(early + 1));
            prop_assert!(!refuses(from - 1) && refuses(from + more));
        }
    }
}
