//! A consistent look at several counters that one process changes and others read (a seqlock).
//!
//! Its atomics come from the module that includes this file, as those of `stack.rs` do.

use super::atomic::{AtomicU32, Ordering, fence};

super::plain! {
    /// Odd while its one writer changes what belongs together.
    #[derive(Debug, Default)]
    pub(super) struct Sequence {
        count: AtomicU32,
    }
}

impl Sequence {
    /// The one writer makes a change, by atomic stores.
    pub(super) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let before = self.count.load(Ordering::Relaxed);
        self.count.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = change();
        self.count.store(before.wrapping_add(2), Ordering::Release);
        result
    }

    /// What `read` returns, if no change went on meanwhile.
    pub(super) fn read<R>(&self, read: impl FnOnce() -> R) -> Option<R> {
        let before = self.count.load(Ordering::Acquire);
        let result = read();
        fence(Ordering::Acquire);
        (before.is_multiple_of(2) && before == self.count.load(Ordering::Relaxed)).then_some(result)
    }
}
