//! What is known of sources, for an operator: which have clients, which are refused, why, and for how long.
//!
//! The table may have been written by a process that went wild. The invariant: what is shown leads to where it was found,
//! is of a listening socket that there is, and no more than what was asked for is kept of it.

use std::cmp::Reverse;
use std::time::Duration;

use super::AccessSpec;
use super::atomic::Ordering;
use super::bucket::{Known, UNTIL_SHIFT};
use super::gcra::Rate;
use super::penalty::{InForce, Penalties};
use super::rules::Rule;
use super::sources::Sources;
use crate::transport::{Offence, Refusal};

/// A source that has clients, or is refused, at a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSource {
    /// The number of the listening socket.
    pub socket: usize,
    /// The source.
    pub source: Rule,
    /// How many clients it has, as far as they are counted.
    pub clients: u16,
    /// Why its next client would be refused.
    pub refused: Option<Refused>,
}

/// Why the next client of a source would be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What it would count as.
    pub why: Refusal,
    /// What it is penalised for.
    pub offence: Option<Offence>,
    /// For how long; `None`: until one of its clients leaves.
    pub left: Option<Duration>,
}

impl Refused {
    /// Whether a pardon changes it.
    fn is_pardonable(self) -> bool {
        self.left.is_some()
    }
}

impl KnownSource {
    /// The worst come first: those that are penalised, those that come too often, those that have as many clients as they
    /// may.
    fn order(&self) -> Reverse<(u8, Option<Duration>, u16)> {
        let rank = |refused: &Refused| match refused.why {
            Refusal::Penalty => 3,
            Refusal::SourceRate => 2,
            _ => 1,
        };
        let left = self.refused.and_then(|refused| refused.left);
        Reverse((self.refused.as_ref().map_or(0, rank), left, self.clients))
    }
}

/// Some of what is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The worst.
    pub sources: Vec<KnownSource>,
    /// How many there are beside those.
    pub left_out: usize,
}

impl Listing {
    /// Keeps the `most` that come first.
    fn of(all: impl Iterator<Item = KnownSource>, most: usize) -> Self {
        let (mut sources, mut count) = (Vec::new(), 0);
        for source in all {
            sources.push(source);
            count += 1;
            if sources.len() > 2 * most {
                sources.select_nth_unstable_by_key(most, KnownSource::order);
                sources.truncate(most);
            }
        }
        sources.sort_unstable_by_key(|source| (source.order(), source.socket, source.source.to_string()));
        sources.truncate(most);
        let left_out = count - sources.len();
        Self { sources, left_out }
    }
}

impl AccessSpec {
    /// What is known of a source at a listening socket of this policy.
    fn look(&self, socket: usize, source: Rule, known: &Known<'_>, now_us: u64) -> KnownSource {
        let (clients, words) = (known.clients(), known.words);
        let penalty = self.penalties.in_force(words.record, || now_us / 1000);
        let penalty = penalty.map(|InForce { offence, left }| Refused {
            why: Refusal::Penalty,
            offence: Some(offence),
            left: Some(left),
        });
        let rate = || {
            let wait = self.rate_per_source?.wait(words.paid_at, now_us)?;
            let left = Some(Duration::from_micros(wait));
            Some(Refused { why: Refusal::SourceRate, offence: None, left })
        };
        let limit = || {
            let is_full = self.max_per_source.is_some_and(|most| clients >= most);
            is_full.then_some(Refused { why: Refusal::SourceLimit, offence: None, left: None })
        };
        // in the order in which it is decided
        KnownSource { socket, source, clients, refused: penalty.or_else(limit).or_else(rate) }
    }
}

/// What is known of the sources at the listening sockets of which there is a policy: of those that have clients, or are
/// refused, the worst.
pub(crate) fn list<'a>(
    sources: &Sources,
    policy: impl Fn(usize) -> Option<&'a AccessSpec>,
    most: usize,
    now_us: u64,
) -> Listing {
    let matters = |known: &Known<'_>| {
        known.clients() > 0
            || known.words.record.load(Ordering::Relaxed) >> UNTIL_SHIFT > now_us / 1000
            || !Rate::is_paid(known.words.paid_at, now_us)
    };
    let all = sources.known(matters).filter_map(|(socket, source, known)| {
        let policy = policy(socket)?;
        Some(policy.look(socket, source.rule(policy.source_prefix), &known, now_us))
    });
    Listing::of(all.filter(|source| source.clients > 0 || source.refused.is_some()), most)
}

/// Forgets what the sources have done, and how often they came, that have clients which fit a rule; tells which of them
/// would be refused still.
pub(crate) fn pardon<'a>(
    sources: &Sources,
    policy: impl Fn(usize) -> Option<&'a AccessSpec>,
    rule: Rule,
    most: usize,
    now_us: u64,
) -> Listing {
    let all = sources.known(|_| true).filter_map(|(socket, source, known)| {
        let policy = policy(socket)?;
        let source = source.rule(policy.source_prefix);
        if !rule.meets(source) {
            return None;
        }
        let before = policy.look(socket, source, &known, now_us);
        Penalties::forget(known.words.record);
        known.words.paid_at.store(0, Ordering::Relaxed);
        Some(before)
    });
    Listing::of(all.filter(|source| source.refused.is_some_and(Refused::is_pardonable)), most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Tables;
    use crate::access::atomic::AtomicU64;
    use crate::access::rules::Rules;
    use crate::sys::shared::Arena;
    use crate::transport::Peer;

    const NOW: u64 = 1_000_000_000;

    fn sources() -> &'static Sources {
        let mut arena = Arena::new(Sources::BYTES).unwrap();
        Box::leak(Box::new(Sources::new(&mut arena).unwrap()))
    }

    fn peer(n: u8) -> Peer {
        Peer::Ip(([10, 0, 0, n], 9).into())
    }

    fn spec() -> AccessSpec {
        let penalties = Penalties::new(["timeout=10s".parse().unwrap()], Rules::default());
        let rate_per_source = Some("1/h:2".parse().unwrap());
        AccessSpec { max_per_source: Some(3), rate_per_source, penalties, ..AccessSpec::default() }
    }

    #[test]
    fn the_worst_are_listed_with_why_and_for_how_long_and_a_pardon_forgives_them() {
        let (sources, spec, paid_at) = (sources(), spec(), AtomicU64::new(0));
        let tables = Tables { sources, listener: 5, paid_at: &paid_at };
        let enter = |n| spec.count(tables, peer(n), || NOW);
        let served: Vec<_> = [1, 2, 2].into_iter().map(|n| enter(n).unwrap()).collect();
        let _ = enter(3).unwrap().map(|ticket| sources.leave(ticket));
        assert!(spec.penalise(tables, peer(3), Offence::Timeout, || NOW).is_some());
        assert_eq!(enter(3), Err(Refusal::Penalty));
        let policy = |socket| (socket == 5).then_some(&spec);
        let listing = list(sources, policy, 9, NOW);
        let told: Vec<_> = listing
            .sources
            .iter()
            .map(|known| {
                (
                    known.source.to_string(),
                    known.clients,
                    known.refused.map(|refused| (refused.why, refused.left)),
                )
            })
            .collect();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(
            told,
            [
                ("10.0.0.3".into(), 0, Some((Refusal::Penalty, seconds(10)))),
                ("10.0.0.2".into(), 2, Some((Refusal::SourceRate, seconds(3600)))),
                ("10.0.0.1".into(), 1, None),
            ]
        );
        assert_eq!((listing.sources[0].socket, listing.left_out), (5, 0));
        assert_eq!(list(sources, policy, 1, NOW).left_out, 2);
        assert_eq!(list(sources, |_| None, 9, NOW), Listing::default());

        let pardon = |rule: &str| pardon(sources, policy, rule.parse().unwrap(), 9, NOW);
        assert_eq!(pardon("10.0.1.0/24"), Listing::default());
        assert_eq!(pardon("10.0.0.3").sources, listing.sources[..1]);
        assert!(enter(3).is_ok());
        assert_eq!(pardon("10.0.0.0/8").sources.len(), 1, "of the one that came too often");
        assert!(enter(2).is_ok());
        assert_eq!(enter(2), Err(Refusal::SourceLimit));
        let full = list(sources, policy, 1, NOW).sources.remove(0).refused.unwrap();
        assert_eq!((full.why, full.left), (Refusal::SourceLimit, None));
        drop(served);
    }

    #[test]
    fn as_many_are_kept_as_were_asked_for() {
        let (sources, spec, paid_at) = (sources(), spec(), AtomicU64::new(0));
        let tables = Tables { sources, listener: 0, paid_at: &paid_at };
        for n in 0..=255 {
            assert!(spec.penalise(tables, peer(n), Offence::Timeout, || NOW + 1000 * u64::from(n)).is_some());
        }
        let listing = list(sources, |_| Some(&spec), 3, NOW + 255_000);
        let worst: Vec<String> = listing.sources.iter().map(|known| known.source.to_string()).collect();
        assert_eq!(
            (worst, listing.left_out),
            (["255", "254", "253"].map(|n| format!("10.0.0.{n}")).into(), 253)
        );
    }
}
