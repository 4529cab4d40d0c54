//! What is known of a few sources, which several processes change, none of them with a lock.
//!
//! An entry is a word: 48 bits of the source's hash, and a count of 16 bits. They change together, by one
//! compare-and-swap, so there is no moment at which the count of one source is another's. Its atomics come from the module
//! that includes this file. Beside it are words that are changed by themselves: how often clients come, what they have
//! done, and whose entry it is. While a source takes the place of another, one of them may be changed for the wrong one: a
//! client is let in or not, and no count depends on it.

use super::atomic::{AtomicU64, Ordering};

/// How many sources a bucket has: as many as there are words in a line of the cache.
pub(super) const WAYS: usize = 8;

/// How often to try again where other processes change the same bucket.
const TRIES: usize = 64;

const COUNT: u64 = 0xffff;

/// Above this a record is until when its source is penalised, in milliseconds.
pub(super) const UNTIL_SHIFT: u32 = 24;

super::plain! {
    /// The sources whose hash leads here.
    #[repr(align(64))]
    #[derive(Debug, Default)]
    pub(crate) struct Bucket {
        entries: [AtomicU64; WAYS],
        /// When what each source has had so far is paid for (see `gcra`).
        paid_at: [AtomicU64; WAYS],
        /// What each source has done (see `penalty`), and above what kind it is (see [`Label`]).
        records: [AtomicU64; WAYS],
        /// Which source it is.
        addresses: [[AtomicU64; 2]; WAYS],
    }
}

/// Whose entry it is, which only tells what is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Label {
    /// The lowest bits of a record.
    pub(super) kind: u64,
    pub(super) address: [u64; 2],
}

/// The words beside an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) paid_at: &'a AtomicU64,
    pub(super) record: &'a AtomicU64,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Its source has as many clients as it may.
    Clients,
    /// They come too often.
    Rate,
    /// They have done what is penalised.
    Penalty,
}

/// A source that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought {
    pub(super) hash: u64,
    pub(super) label: Label,
}

/// What a source may.
pub(super) struct Terms<P, F> {
    /// The most clients, 1 to 65,535; `None`: they are not counted.
    pub(super) most: Option<u16>,
    /// Whether one that is not known gets an entry; otherwise it may come in.
    pub(super) notes: bool,
    /// Whether it is penalised, by its record.
    pub(super) is_penalised: P,
    /// Counts a client in this word, if it does not come too often.
    pub(super) pays: F,
}

/// What is known of a source.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) entry: u64,
    pub(super) words: Words<'a>,
    pub(super) label: Label,
}

impl Known<'_> {
    /// How many clients it has.
    pub(super) fn clients(&self) -> u16 {
        (self.entry & COUNT) as u16
    }

    /// Whether this is the hash of the source.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.entry & !COUNT == hash & !COUNT
    }
}

impl Bucket {
    /// Lets a client of a source in, if it may; tells in which entry it counts. A source that has no entry gets that of the
    /// one with the fewest clients, and of these of the one that is penalised for the shortest time, mostly not at all, and
    /// is quiet for longest. Where other processes are always quicker, a client is let in, and doesn't count.
    pub(super) fn enter<P: Fn(&AtomicU64) -> bool, F: Fn(&AtomicU64) -> bool>(
        &self,
        source: Sought,
        terms: &Terms<P, F>,
        now_ms: impl Fn() -> u64,
    ) -> Result<Option<usize>, Excess> {
        let mut has_paid = false;
        for _ in 0..TRIES {
            let entries = self.load();
            let Some(way) = way_of(source.hash, &entries) else {
                if !terms.notes {
                    return Ok(None);
                }
                self.make_room(source, &entries, now_ms());
                continue;
            };
            if (terms.is_penalised)(&self.records[way]) {
                return Err(Excess::Penalty);
            }
            // one that may not come in for another reason pays nothing
            if terms.most.is_some_and(|most| entries[way] & COUNT >= most.into()) {
                return Err(Excess::Clients);
            }
            if !has_paid && !(terms.pays)(&self.paid_at[way]) {
                return Err(Excess::Rate);
            }
            has_paid = true;
            match terms.most {
                None => return Ok(None),
                Some(_) if self.swap(way, entries[way], entries[way] + 1) => return Ok(Some(way)),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// The words beside the entry of a source, which gets one if it has none; `None` where other processes are always
    /// quicker.
    pub(super) fn words_of(&self, source: Sought, now_ms: u64) -> Option<Words<'_>> {
        for _ in 0..TRIES {
            let entries = self.load();
            match way_of(source.hash, &entries) {
                Some(way) => return Some(self.words(way)),
                None => self.make_room(source, &entries, now_ms),
            }
        }
        None
    }

    fn load(&self) -> [u64; WAYS] {
        self.entries.each_ref().map(|entry| entry.load(Ordering::Relaxed))
    }

    fn words(&self, way: usize) -> Words<'_> {
        Words { paid_at: &self.paid_at[way], record: &self.records[way] }
    }

    /// Gives a source an entry.
    fn make_room(&self, Sought { hash, label }: Sought, entries: &[u64; WAYS], now_ms: u64) {
        let harm = |&way: &usize| {
            let Words { paid_at, record } = self.words(way);
            // one that is over is none
            let until = Some(record.load(Ordering::Relaxed) >> UNTIL_SHIFT).filter(|&until| until > now_ms);
            (entries[way] & COUNT, until, paid_at.load(Ordering::Relaxed))
        };
        let least = (0..WAYS).min_by_key(harm).unwrap_or_default();
        if self.swap(least, entries[least], hash & !COUNT) {
            self.paid_at[least].store(0, Ordering::Relaxed);
            self.records[least].store(label.kind, Ordering::Relaxed);
            for (word, part) in self.addresses[least].iter().zip(label.address) {
                word.store(part, Ordering::Relaxed);
            }
        }
    }

    fn swap(&self, way: usize, now: u64, next: u64) -> bool {
        self.entries[way].compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Counts one fewer in an entry, if that is still of the source that counted there.
    pub(super) fn leave(&self, way: usize, is_its: impl Fn(u64) -> bool) {
        let fewer = |entry: u64| (is_its(entry) && entry & COUNT > 0).then(|| entry - 1);
        // another source may have the entry by now
        let _ = self.entries[way].fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// All sources that have an entry. Of one that is replaced meanwhile the parts may not belong together.
    pub(super) fn known(&self) -> impl Iterator<Item = Known<'_>> {
        let used = (0..WAYS).map(|way| (way, self.entries[way].load(Ordering::Relaxed)));
        used.filter(|&(_, entry)| entry != 0).map(|(way, entry)| {
            let words = self.words(way);
            let kind = words.record.load(Ordering::Relaxed);
            let address = self.addresses[way].each_ref().map(|word| word.load(Ordering::Relaxed));
            Known { entry, words, label: Label { kind, address } }
        })
    }

    /// How many clients all of them have.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.entries.iter().map(|entry| entry.load(Ordering::Relaxed) & COUNT).sum()
    }
}

fn way_of(hash: u64, entries: &[u64; WAYS]) -> Option<usize> {
    entries.iter().position(|entry| entry & !COUNT == hash & !COUNT)
}
