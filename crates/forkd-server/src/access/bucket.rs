//! The counts of a few sources, which several processes change, none of them with a lock.
//!
//! An entry is a word: 48 bits of the source's hash, and a count of 16 bits. They change together, by one
//! compare-and-swap, so there is no moment at which the count of one source is another's. Its atomics come from the module
//! that includes this file.

use super::atomic::{AtomicU64, Ordering};

/// How many sources a bucket has: as many words as a line of the cache.
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
    }
}

/// What has come of counting one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// It counts in this entry.
    At(usize),
    /// There are as many as may be.
    Full,
    /// Other processes were always quicker: it doesn't count.
    Busy,
}

impl Bucket {
    /// Counts one more client of the source with this hash, if that makes no more than `most`, which is 1 to 65,535. A
    /// source that has no entry gets the one with the fewest clients.
    pub(super) fn enter(&self, hash: u64, most: u64) -> Entered {
        let is_its = |entry: u64| entry & !COUNT == hash & !COUNT;
        for _ in 0..TRIES {
            let entries = self.entries.each_ref().map(|entry| entry.load(Ordering::Relaxed));
            let (way, next) = match entries.iter().position(|&entry| is_its(entry)) {
                Some(way) if entries[way] & COUNT >= most => return Entered::Full,
                Some(way) => (way, entries[way] + 1),
                None => {
                    let least = (0..WAYS).min_by_key(|&way| entries[way] & COUNT);
                    (least.unwrap_or_default(), hash & !COUNT | 1)
                }
            };
            let swap = |entry: &AtomicU64, now| {
                entry.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed)
            };
            if swap(&self.entries[way], entries[way]).is_ok() {
                return Entered::At(way);
            }
        }
        Entered::Busy
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
