//! What is known of each source, in memory of a fixed size that all processes of a server share.
//!
//! A keyed hash leads to a [`Bucket`] of eight sources; one that is new there takes the place of one with the fewest clients,
//! mostly none, that is not penalised. So strangers allocate nothing by however many addresses, each client costs the
//! same, and what is forgotten is what matters least.
//!
//! A client that counts has a [`Ticket`]. It lies where the master finds it when the process dies that serves the client: a
//! child's in its slot, those of a worker that has many among the [holdings](Sources::hold). The invariant: a ticket is given
//! back once, by whichever process swaps it out of there. One that writes what isn't so spoils counts, and nothing else.

use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::num::NonZeroU64;

use siphasher::sip::SipHasher13;

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::bucket::{Bucket, Excess, Known, Sought, Terms, WAYS, Words};
use super::source::Source;
use crate::sys::shared::{Arena, Plain, bytes_for, layout};

/// Of 320 bytes each: 131,072 sources are told apart, in 5 MiB.
const BUCKETS: usize = 16_384;
/// How many clients of workers count at once: 2 MiB.
const HOLDINGS: usize = 262_144;
/// How many holdings are looked at for a free one.
const PROBES: usize = 64;

super::plain! {
    /// What is known of the holdings. Any process may write nonsense here: nothing depends on it but how long it takes to
    /// find one.
    #[repr(align(64))]
    #[derive(Debug)]
    struct Extent {
        held: AtomicU32,
        /// How many have ever been used, from the first on.
        used: AtomicU32,
    }
}

/// A client that counts as one of its source's: 18 bits of the entry's number plus one, 17 of the number of the slot that
/// holds it, 29 of the source's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Ticket(NonZeroU64);

impl Ticket {
    const ENTRY: u64 = (1 << 18) - 1;
    const SLOT_SHIFT: u32 = 18;
    const SLOT: u64 = (1 << 17) - 1;
    const HASH_SHIFT: u32 = 35;

    fn new(entry: usize, hash: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(entry as u64) | (hash >> 16) << Self::HASH_SHIFT)
    }

    fn held_by(self, slot: u32) -> Self {
        Self(self.0 | (u64::from(slot) & Self::SLOT) << Self::SLOT_SHIFT)
    }

    fn is_held_by(self, slot: u32) -> bool {
        self.0.get() >> Self::SLOT_SHIFT & Self::SLOT == u64::from(slot)
    }

    fn entry(self) -> Option<usize> {
        (self.0.get() & Self::ENTRY).checked_sub(1).map(|entry| entry as usize)
    }

    /// Whether an entry is of its source.
    fn fits(self, entry: u64) -> bool {
        (entry >> 16) << Self::HASH_SHIFT == self.0.get() >> Self::HASH_SHIFT << Self::HASH_SHIFT
    }

    /// Puts it, or none, where the master finds it.
    pub(crate) fn put(ticket: Option<Self>, at: &AtomicU64) {
        at.store(ticket.map_or(0, |ticket| ticket.0.get()), Ordering::Release);
    }

    /// Takes the one that is there, if there is one; no other process gets it then.
    pub(crate) fn take(at: &AtomicU64) -> Option<Self> {
        NonZeroU64::new(at.swap(0, Ordering::AcqRel)).map(Self)
    }
}

/// What leads from a source to its bucket. Processes of the server have it in common, and no client knows it: none can choose
/// its bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u64; 2]);

impl Key {
    /// One that no stranger can foretell.
    pub(crate) fn random() -> Self {
        let random = RandomState::new();
        Self([0, 1].map(|half: u8| random.hash_one(half)))
    }
}

impl BuildHasher for Key {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0[0], self.0[1])
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// The sources of a server's clients.
#[derive(Debug)]
pub(crate) struct Sources {
    buckets: &'static [Bucket],
    holdings: &'static [AtomicU64],
    extent: &'static [Extent],
    key: Key,
}

impl Sources {
    /// How much memory that takes.
    pub(crate) const BYTES: usize =
        bytes_for::<Bucket>(BUCKETS) + bytes_for::<AtomicU64>(HOLDINGS) + bytes_for::<Extent>(1);

    /// How that is laid out, see [`Plain::LAYOUT`].
    pub(crate) const LAYOUT: u64 = layout(
        "sources, hashed by SipHash-1-3",
        Extent::LAYOUT ^ Bucket::LAYOUT.wrapping_mul(BUCKETS as u64) ^ (HOLDINGS as u64) << 32,
    );

    /// # Errors
    ///
    /// `ENOMEM` if the arena was made too small.
    pub(crate) fn new(arena: &mut Arena, key: Key) -> io::Result<Self> {
        Ok(Self {
            extent: arena.take(1)?,
            buckets: arena.take(BUCKETS)?,
            holdings: arena.take(HOLDINGS)?,
            key,
        })
    }

    /// Where no source is counted.
    pub(crate) fn none() -> Self {
        Self { extent: &[], buckets: &[], holdings: &[], key: Key::random() }
    }

    /// What leads to them.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Lets a client of a source in at a listening socket, if it may; tells where it counts, if clients are counted.
    ///
    /// # Errors
    ///
    /// Why it may not come in.
    pub(super) fn enter<P: Fn(&AtomicU64) -> bool, F: Fn(&AtomicU64) -> bool>(
        &self,
        listener: usize,
        source: Source,
        terms: &Terms<P, F>,
        now_ms: impl Fn() -> u64,
    ) -> Result<Option<Ticket>, Excess> {
        let (Some(number), sought) = self.seek(listener, source) else { return Ok(None) };
        let way = self.buckets[number].enter(sought, terms, now_ms)?;
        Ok(way.map(|way| Ticket::new(number * WAYS + way, sought.hash)))
    }

    /// The words of a source, which gets some if it has none.
    pub(super) fn words_of(&self, listener: usize, source: Source, now_ms: u64) -> Option<Words<'static>> {
        let (number, sought) = self.seek(listener, source);
        self.buckets[number?].words_of(sought, now_ms)
    }

    /// The number of the bucket of a source, if there are any, and what to look for there.
    fn seek(&self, listener: usize, source: Source) -> (Option<usize>, Sought) {
        let hash = self.hash(listener, source);
        // the lowest 16 bits are not in the entry
        let number = (hash as usize).checked_rem(self.buckets.len());
        (number, Sought { hash, label: source.label(listener) })
    }

    fn hash(&self, listener: usize, source: Source) -> u64 {
        self.key.hash_one((listener, source))
    }

    /// All sources that are known, each with the number of its listening socket, as the entries say, which others than the
    /// source may have written.
    pub(super) fn known(&self) -> impl Iterator<Item = (usize, Source, Known<'static>)> + use<> {
        self.buckets.iter().flat_map(Bucket::known).filter_map(|known| {
            let (listener, source) = Source::of_label(known.label)?;
            Some((listener, source, known))
        })
    }

    /// Whether a source leads to where it was found.
    pub(super) fn leads_to(&self, listener: usize, source: Source, known: &Known<'_>) -> bool {
        known.has(self.hash(listener, source))
    }

    /// A client that counted has left.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let Some(entry) = ticket.entry() else { return };
        if let Some(bucket) = self.buckets.get(entry / WAYS) {
            bucket.leave(entry % WAYS, |entry| ticket.fits(entry));
        }
    }

    /// The same, for one whose ticket may lie there; mostly there is none, and that costs nothing.
    #[inline(always)]
    pub(crate) fn leave_at(&self, place: &AtomicU64) {
        if place.load(Ordering::Relaxed) != 0 {
            self.leave_from(place);
        }
    }

    #[cold]
    #[inline(never)]
    fn leave_from(&self, place: &AtomicU64) {
        if let Some(ticket) = Ticket::take(place) {
            self.leave(ticket);
        }
    }

    /// A number that no client can foretell.
    pub(crate) fn draw(&self, seed: impl Hash) -> u64 {
        self.key.hash_one(seed)
    }

    /// Has a client count for as long as the answer is there, or until the process with this slot dies; `None` if there are too
    /// many, and then it doesn't count.
    #[cold]
    #[inline(never)]
    pub(crate) fn hold(&'static self, ticket: Ticket, slot: u32) -> Option<Counted> {
        let extent = self.extent.first()?;
        // those near the first are used, as many as there are twice: of few pages are ever touched
        let number = extent.held.fetch_add(1, Ordering::Relaxed) as usize;
        let region = number.saturating_mul(2).max(PROBES).next_power_of_two().min(self.holdings.len());
        let held = ticket.held_by(slot);
        // all of one source in one process would begin at the same place without the number
        let hash = self.key.hash_one((held.0, number));
        // steps of another width for each: those near the first lie close together
        let (start, step) = (hash as usize, (hash >> 32) as usize | 1);
        for probe in 0..PROBES {
            let index = start.wrapping_add(probe.wrapping_mul(step)) % region;
            let place = &self.holdings[index];
            if place.compare_exchange(0, held.0.get(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                extent.used.fetch_max(index as u32 + 1, Ordering::Relaxed);
                return Some(Counted { sources: self, place });
            }
        }
        self.give_back(ticket);
        None
    }

    /// The process with this slot is dead: what it held is given back.
    pub(crate) fn abandon(&self, slot: u32) {
        let used = self.extent.first().map_or(0, |extent| extent.used.load(Ordering::Relaxed) as usize);
        for place in self.holdings.iter().take(used) {
            let Some(ticket) = NonZeroU64::new(place.load(Ordering::Acquire)).map(Ticket) else { continue };
            let swap = || place.compare_exchange(ticket.0.get(), 0, Ordering::AcqRel, Ordering::Relaxed);
            if ticket.is_held_by(slot) && swap().is_ok() {
                self.give_back(ticket);
            }
        }
    }

    /// Of one that was held.
    fn give_back(&self, ticket: Ticket) {
        self.extent.iter().for_each(|extent| _ = extent.held.fetch_sub(1, Ordering::Relaxed));
        self.leave(ticket);
    }
}

/// A client that counts as one of its source's, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Counted {
    sources: &'static Sources,
    place: &'static AtomicU64,
}

impl Drop for Counted {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        if let Some(ticket) = Ticket::take(self.place) {
            self.sources.give_back(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bucket::UNTIL_SHIFT;
    use super::super::gcra::Rate;
    use super::*;

    fn sources() -> &'static Sources {
        let mut arena = Arena::new(Sources::BYTES).unwrap();
        Box::leak(Box::new(Sources::new(&mut arena, Key::random()).unwrap()))
    }

    fn enter(
        sources: &Sources,
        listener: usize,
        source: Source,
        most: u16,
    ) -> Result<Option<Ticket>, Excess> {
        comes(sources, listener, source, Some(most), |_| true)
    }

    /// A client comes that is not penalised.
    fn comes(
        sources: &Sources,
        listener: usize,
        source: Source,
        most: Option<u16>,
        pays: impl Fn(&AtomicU64) -> bool,
    ) -> Result<Option<Ticket>, Excess> {
        let terms = Terms { most, notes: true, is_penalised: |_: &AtomicU64| false, pays };
        sources.enter(listener, source, &terms, || 50)
    }

    /// Whether a client that is not counted comes in, at a rate.
    fn comes_in(sources: &Sources, source: Source, rate: Rate, now: u64) -> bool {
        comes(sources, 0, source, None, |paid_at| rate.admit(paid_at, now)).is_ok()
    }

    fn genuine(sources: &Sources) -> impl Iterator<Item = (usize, Source, Known<'static>)> {
        sources.known().filter(|(listener, source, known)| sources.leads_to(*listener, *source, known))
    }

    fn alive(sources: &Sources) -> u64 {
        sources.buckets.iter().map(Bucket::count).sum()
    }

    const ONE: Source = Source::V4(1);

    #[test]
    fn a_source_has_as_many_clients_as_it_may_at_each_socket() {
        let sources = sources();
        let tickets: Vec<_> = (0..3).map(|_| enter(sources, 0, ONE, 3).unwrap().unwrap()).collect();
        assert_eq!(enter(sources, 0, ONE, 3), Err(Excess::Clients));
        assert!(enter(sources, 1, ONE, 3).is_ok() && enter(sources, 0, Source::V4(2), 3).is_ok());
        assert!(enter(sources, 0, Source::User(1), 3).is_ok());
        sources.leave(tickets[0]);
        assert!(enter(sources, 0, ONE, 3).is_ok());
        assert_eq!(enter(sources, 0, ONE, 3), Err(Excess::Clients));
        assert!(
            enter(sources, 0, ONE, 4).is_ok(),
            "a reload may raise the limit, and those that count still do"
        );
    }

    #[test]
    fn a_client_beyond_the_number_of_its_source_does_not_count_towards_the_rate() {
        let (sources, rate): (_, Rate) = (sources(), "1/h:3".parse().unwrap());
        let comes = || comes(sources, 0, ONE, Some(2), |paid_at| rate.admit(paid_at, 1));
        let ticket = comes().unwrap().unwrap();
        assert!(comes().is_ok());
        (0..9).for_each(|_| assert_eq!(comes(), Err(Excess::Clients)));
        sources.leave(ticket);
        assert!(comes().is_ok_and(|ticket| ticket.is_some()));
    }

    #[test]
    fn a_million_sources_leave_those_that_have_clients_alone() {
        let sources = sources();
        let tickets: Vec<_> =
            (0..1000).map(|n| enter(sources, 0, Source::V4(n), 1).unwrap().unwrap()).collect();
        for n in 1_000_000..2_000_000 {
            enter(sources, 0, Source::V6(n), 1).unwrap().into_iter().for_each(|ticket| sources.leave(ticket));
        }
        assert_eq!(alive(sources), 1000);
        assert!((0..1000).all(|n| enter(sources, 0, Source::V4(n), 1).is_err()));
        tickets.into_iter().for_each(|ticket| sources.leave(ticket));
        assert_eq!(alive(sources), 0);
        const { assert!(Sources::BYTES <= 8 << 20) };
    }

    #[test]
    fn a_full_bucket_has_room_for_a_new_source_and_the_one_that_it_replaces_leaves_nothing_wrong() {
        let sources = sources();
        let many = 20 * BUCKETS as u128;
        let tickets: Vec<_> =
            (0..many).filter_map(|n| enter(sources, 0, Source::V6(n), 9).unwrap()).collect();
        assert_eq!(tickets.len() as u128, many);
        assert!(alive(sources) <= (BUCKETS * WAYS) as u64);
        tickets.into_iter().for_each(|ticket| sources.leave(ticket));
        assert_eq!(alive(sources), 0);
    }

    #[test]
    fn what_a_dead_process_held_is_given_back_and_what_others_hold_is_not() {
        let sources = sources();
        let hold = |slot| sources.hold(enter(sources, 0, ONE, 9).unwrap().unwrap(), slot).unwrap();
        let (dead, living) = ([hold(5), hold(5)], hold(6));
        dead.into_iter().for_each(std::mem::forget);
        sources.abandon(5);
        assert_eq!(alive(sources), 1);
        sources.abandon(5);
        drop(living);
        assert_eq!((alive(sources), sources.extent[0].held.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn ten_thousand_clients_of_one_source_count_in_one_process() {
        let sources = sources();
        let hold = |ticket: Option<Ticket>| sources.hold(ticket.unwrap(), 5).unwrap();
        let held: Vec<_> = (0..10_000).map(|_| hold(enter(sources, 0, ONE, 10_000).unwrap())).collect();
        assert_eq!(enter(sources, 0, ONE, 10_000), Err(Excess::Clients));
        drop(held);
        assert_eq!(alive(sources), 0);
    }

    #[test]
    fn a_place_gives_its_ticket_once() {
        let (sources, place) = (sources(), AtomicU64::new(0));
        Ticket::put(enter(sources, 0, ONE, 9).unwrap(), &place);
        sources.leave_at(&place);
        sources.leave_at(&place);
        assert_eq!((alive(sources), place.into_inner()), (0, 0));
    }

    #[test]
    fn nonsense_in_shared_memory_is_survived() {
        let sources = sources();
        let counted = sources.hold(enter(sources, 0, ONE, 9).unwrap().unwrap(), 1).unwrap();
        sources.extent[0].used.store(u32::MAX, Ordering::Relaxed);
        sources.extent[0].held.store(u32::MAX - 1, Ordering::Relaxed);
        counted.place.store(u64::MAX, Ordering::Relaxed);
        drop(counted);
        let more: Vec<_> = (0..99).filter_map(|_| sources.hold(Ticket(NonZeroU64::MAX), 3)).collect();
        sources.abandon(3);
        sources.abandon(Ticket::SLOT as u32);
        drop(more);
        assert_eq!(enter(sources, 0, ONE, 9).map(|ticket| ticket.is_some()), Ok(true));
    }

    #[test]
    fn where_nothing_is_counted_each_client_is_served() {
        let none: &'static Sources = Box::leak(Box::new(Sources::none()));
        assert_eq!(enter(none, 0, ONE, 1), Ok(None));
        assert!(none.hold(Ticket(NonZeroU64::MIN), 1).is_none());
        none.abandon(1);
    }

    #[test]
    fn each_source_has_a_rate_of_its_own_and_a_million_others_don_t_change_that() {
        let (sources, rate) = (sources(), "1/h:2".parse().unwrap());
        let admitted = |source, now: u64| (0..9).filter(|_| comes_in(sources, source, rate, now)).count();
        assert_eq!((admitted(ONE, 1), admitted(Source::User(1), 1)), (2, 2));
        assert!(!comes_in(sources, ONE, rate, 2));
        let hour = 3_600_000_000;
        assert_eq!((admitted(ONE, hour), admitted(ONE, hour + 1)), (0, 1));
        for n in 0..1_000_000 {
            assert!(enter(sources, 0, Source::V6(n), 1).is_ok());
        }
    }

    /// Of a source that was penalised until then.
    fn until(sources: &Sources, source: Source, until: u64) -> Words<'static> {
        let words = sources.words_of(0, source, 0).unwrap();
        words.record.fetch_or(until << UNTIL_SHIFT, Ordering::Relaxed);
        words
    }

    #[test]
    fn a_million_sources_leave_those_that_are_penalised_alone_and_take_the_places_of_those_that_were() {
        let sources = sources();
        (0..1000).for_each(|n| _ = until(sources, Source::V4(n), 100));
        (1000..2000).for_each(|n| _ = until(sources, Source::V4(n), 50));
        let pays = |paid_at: &AtomicU64| {
            paid_at.store(1, Ordering::Relaxed);
            true
        };
        for n in 0..1_000_000 {
            assert!(comes(sources, 0, Source::V6(n), None, pays).is_ok());
        }
        let left = |range: std::ops::Range<u32>| {
            let is_one = |source: &Source| matches!(source, Source::V4(n) if range.contains(n));
            genuine(sources).filter(|(_, source, _)| is_one(source)).count()
        };
        assert_eq!((left(0..1000), left(1000..2000)), (1000, 0));
        assert!(genuine(sources).count() <= BUCKETS * WAYS);
    }

    #[test]
    fn of_those_that_are_penalised_the_one_that_is_for_the_shortest_time_has_to_go() {
        let sources = sources();
        // eight times as many as there is room for
        (1..=8 * (BUCKETS * WAYS) as u64).for_each(|n| _ = until(sources, Source::V6(n.into()), n));
        let all: Vec<u64> = genuine(sources)
            .filter(|(_, _, known)| known.label.kind >> UNTIL_SHIFT > 0)
            .filter_map(|(_, source, _)| if let Source::V6(n) = source { Some(n as u64) } else { None })
            .collect();
        assert_eq!(all.len(), BUCKETS * WAYS);
        // each bucket has the last eight that came there
        let median = {
            let mut all = all;
            all.sort_unstable();
            all[BUCKETS * WAYS / 2]
        };
        assert!(median > 7 * (BUCKETS * WAYS) as u64, "{median}");
    }

    #[test]
    fn whose_an_entry_is_is_believed_only_if_it_leads_there() {
        let sources = sources();
        let known = || genuine(sources).map(|(listener, source, _)| (listener, source)).collect::<Vec<_>>();
        let _ = enter(sources, 3, ONE, 9).unwrap();
        assert_eq!(known(), [(3, ONE)]);
        let record = sources.words_of(3, ONE, 0).unwrap().record;
        record.store(Source::V4(1).label(4).kind, Ordering::Relaxed);
        assert_eq!(known(), []);
        record.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(known(), []);
    }

    #[test]
    fn a_source_that_need_not_be_known_takes_no_place() {
        let sources = sources();
        let (is_penalised, pays) = (|_: &AtomicU64| true, |_: &AtomicU64| true);
        let terms = Terms { most: None, notes: false, is_penalised, pays };
        assert_eq!(sources.enter(0, ONE, &terms, || 0), Ok(None));
        assert_eq!(genuine(sources).count(), 0);
        sources.words_of(0, ONE, 0).unwrap();
        assert_eq!(sources.enter(0, ONE, &terms, || 0), Err(Excess::Penalty));
    }
}
