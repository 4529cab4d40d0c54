//! Operations that came to nothing, and when: what it costs the clients of a server that something is done to it.

use std::fmt;
use std::time::Instant;

use super::fault::Fault;

/// Why an operation came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Its client failed.
    Failed(Fault),
    /// A datagram had no answer in time.
    Unanswered,
    /// It was due, and until the end no client was free for it.
    Unsent,
}

impl Lost {
    /// Returns the name that stands in reports: that of the [fault](Fault::key), `unanswered` or `unsent`.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::Failed(fault) => fault.key(),
            Self::Unanswered => "unanswered".into(),
            Self::Unsent => "unsent".into(),
        }
    }
}

/// For a person.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(fault) => fault.fmt(f),
            Self::Unanswered => f.write_str("no answer"),
            Self::Unsent => f.write_str("not sent in time"),
        }
    }
}

/// An operation that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// When it failed; of a datagram without an answer, and of what was never sent, when it was due.
    pub at: Instant,
    /// Why.
    pub why: Lost,
}

/// The losses of a phase: the first of each thread one by one, and how many there were.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    told: Vec<Loss>,
    total: u64,
}

impl Losses {
    /// How many of a thread are told one by one: a server that is down for long has no end of them.
    const MOST: usize = 10_000;

    /// Returns those that are told one by one.
    #[must_use]
    pub fn told(&self) -> &[Loss] {
        &self.told
    }

    /// Returns how many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn count(&mut self, at: Instant, why: Lost) {
        self.total += 1;
        if self.told.len() < Self::MOST {
            self.told.push(Loss { at, why });
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.told.extend(&other.told);
        self.told.sort_by_key(|loss| loss.at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_are_told_and_all_are_counted() {
        let (begin, mut one, mut other) = (Instant::now(), Losses::default(), Losses::default());
        for ms in 0..20_000 {
            one.count(begin + Duration::from_millis(ms), Lost::Unsent);
        }
        other.count(begin + Duration::from_micros(1500), Lost::Failed(Fault::Reset));
        one.add(&other);
        assert_eq!((one.total(), one.told().len()), (20_001, Losses::MOST + 1));
        assert_eq!(one.told()[2].why, Lost::Failed(Fault::Reset));
        assert_eq!(
            (Lost::Unanswered.key(), Lost::Failed(Fault::Reset).to_string()),
            ("unanswered".into(), "connection reset".into())
        );
    }
}
