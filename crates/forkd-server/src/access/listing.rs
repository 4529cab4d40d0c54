//! What is known of sources, for an operator: which have clients, which are refused, why, and for how long.
//!
//! The table may have been written by a process that went wild. The invariant: what is shown leads to where it was found,
//! is of a listening socket that there is, and no more than what was asked for is kept of it.

use std::cmp::Reverse;
use std::time::Duration;

use super::AccessSpec;
use super::atomic::Ordering;
use super::bucket::Known;
use super::penalty::{InForce, Penalties};
use super::rules::Rule;
use super::source::Source;
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

/// Some of what is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The worst: those that are penalised, those that come too often, those that have as many clients as they may.
    pub sources: Vec<KnownSource>,
    /// How many there are beside those.
    pub left_out: usize,
}

/// How a source stands: its clients, and why its next one would be refused.
type Standing = (u16, Option<Refused>);

/// By which the worst come first.
type Rank = Reverse<(u8, Option<Duration>, u16)>;

fn rank((clients, refused): Standing) -> Rank {
    let why = refused.map_or(0, |refused| match refused.why {
        Refusal::Penalty => 3,
        Refusal::SourceRate => 2,
        _ => 1,
    });
    Reverse((why, refused.and_then(|refused| refused.left), clients))
}

impl KnownSource {
    fn rank(&self) -> Rank {
        rank((self.clients, self.refused))
    }
}

/// Finds the worst among many, and keeps few more than that.
struct Worst {
    most: usize,
    kept: Vec<KnownSource>,
    count: usize,
    /// Of those that come after this there are enough.
    bar: Option<Rank>,
}

impl Worst {
    fn new(most: usize) -> Self {
        Self { most, kept: Vec::new(), count: 0, bar: None }
    }

    /// Takes note of one more; `make` tells which, if that is so, and is mostly not called where there are many.
    fn add(&mut self, standing: Standing, make: impl FnOnce() -> Option<(usize, Rule)>) {
        let is_wanted = self.bar.is_none_or(|bar| rank(standing) < bar);
        if let Some((socket, source)) = is_wanted.then(make).flatten() {
            self.kept.push(KnownSource { socket, source, clients: standing.0, refused: standing.1 });
        } else if is_wanted {
            return;
        }
        self.count += 1;
        if self.most > 0 && self.kept.len() > 2 * self.most {
            let (_, last, _) = self.kept.select_nth_unstable_by_key(self.most, KnownSource::rank);
            self.bar = Some(last.rank());
            self.kept.truncate(self.most);
        }
    }

    fn listing(mut self) -> Listing {
        self.kept.sort_unstable_by_key(|known| (known.rank(), known.socket, known.source.to_string()));
        self.kept.truncate(self.most);
        let left_out = self.count - self.kept.len();
        Listing { sources: self.kept, left_out }
    }
}

impl AccessSpec {
    /// How a source stands at a listening socket of this policy; in the order in which it is decided.
    fn standing(&self, source: Source, known: &Known<'_>, now_us: u64) -> Standing {
        let (clients, words) = (known.clients(), known.words);
        let refused = |why, offence, left| Refused { why, offence, left };
        let penalty = self.penalties.in_force(words.record, || now_us / 1000);
        let penalty = penalty.filter(|_| !self.exempts(source.first()));
        let penalty =
            penalty.map(|InForce { offence, left }| refused(Refusal::Penalty, Some(offence), Some(left)));
        let limit = || {
            let is_full = self.max_per_source.is_some_and(|most| clients >= most);
            is_full.then(|| refused(Refusal::SourceLimit, None, None))
        };
        let rate = || {
            let wait = self.rate_per_source?.wait(words.paid_at, now_us)?;
            Some(refused(Refusal::SourceRate, None, Some(Duration::from_micros(wait))))
        };
        (clients, penalty.or_else(limit).or_else(rate))
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
    let mut worst = Worst::new(most);
    for (socket, source, known) in sources.known() {
        let Some(policy) = policy(socket) else { continue };
        let standing = policy.standing(source, &known, now_us);
        if standing.0 > 0 || standing.1.is_some() {
            worst.add(standing, || {
                let is_so = sources.leads_to(socket, source, &known);
                is_so.then(|| (socket, source.rule(policy.source_prefix)))
            });
        }
    }
    worst.listing()
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
    let mut worst = Worst::new(most);
    for (socket, source, known) in sources.known() {
        let Some(policy) = policy(socket) else { continue };
        let source_rule = source.rule(policy.source_prefix);
        if !rule.meets(source_rule) || !sources.leads_to(socket, source, &known) {
            continue;
        }
        let standing = policy.standing(source, &known, now_us);
        Penalties::forget(known.words.record);
        known.words.paid_at.store(0, Ordering::Relaxed);
        if standing.1.is_some_and(Refused::is_pardonable) {
            worst.add(standing, || Some((socket, source_rule)));
        }
    }
    worst.listing()
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
        Box::leak(Box::new(Sources::new(&mut arena, crate::access::sources::Key::random()).unwrap()))
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
