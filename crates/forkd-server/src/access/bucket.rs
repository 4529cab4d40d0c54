//! The counts of a few sources, which several processes change, none of them with a lock.
//!
//! An entry is a word: 48 bits of the source's hash, and a count of 16 bits. They change together, by one
//! compare-and-swap, so there is no moment at which the count of one source is another's. Its atomics come from the module
//! that includes this file. How often clients come is a word beside it: one that is changed for the wrong source for a
//! moment lets a client in or out, and no count depends on it.

use super::atomic::{AtomicU64, Ordering};

/// How many sources a bucket has: as many as there are words in a line of the cache.
pub(super) const WAYS: usize = 8;

/// How often to try again where other processes change the same bucket.
const TRIES: usize = 64;

const COUNT: u64 = 0xffff;

super::plain! {
    /// The sources whose hash leads here.
    #[repr(align(64))]
    #[derive(Debug, Default)]
    pub(crate) struct Bucket {
        entries: [AtomicU64; WAYS],
        /// When what each source has had so far is paid for (see `gcra`).
        paid_at: [AtomicU64; WAYS],
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Its source has as many clients as it may.
    Clients,
    /// They come too often.
    Rate,
}

/// What a source may.
pub(super) struct Terms<F> {
    /// The most clients, 1 to 65,535; `None`: they are not counted.
    pub(super) most: Option<u16>,
    /// Counts a client in this word, if it does not come too often.
    pub(super) pays: F,
}

impl Bucket {
    /// Lets a client of the source with this hash in, if it may; tells in which entry it counts. A source that has no entry gets
    /// that of the one with the fewest clients, and of these the one that is quiet for longest. Where other processes are
    /// always quicker, a client is let in, and doesn't count.
    pub(super) fn enter<F: Fn(&AtomicU64) -> bool>(
        &self,
        hash: u64,
        terms: &Terms<F>,
    ) -> Result<Option<usize>, Excess> {
        let mut has_paid = false;
        for _ in 0..TRIES {
            let entries = self.entries.each_ref().map(|entry| entry.load(Ordering::Relaxed));
            let Some(way) = entries.iter().position(|entry| entry & !COUNT == hash & !COUNT) else {
                self.make_room(hash, &entries);
                continue;
            };
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

    /// Gives a source an entry.
    fn make_room(&self, hash: u64, entries: &[u64; WAYS]) {
        let harm = |&way: &usize| (entries[way] & COUNT, self.paid_at[way].load(Ordering::Relaxed));
        let least = (0..WAYS).min_by_key(harm).unwrap_or_default();
        if self.swap(least, entries[least], hash & !COUNT) {
            self.paid_at[least].store(0, Ordering::Relaxed);
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

    /// How many clients all of them have.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.entries.iter().map(|entry| entry.load(Ordering::Relaxed) & COUNT).sum()
    }
}
