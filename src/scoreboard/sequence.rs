//! A consistent look at several counters that one process changes and others read (a seqlock).
//!
//! Its atomics come from the module that includes this file, as those of `stack.rs` do.

use super::atomic::{AtomicU32, Ordering, fence};

/// Odd while its one writer changes what belongs together.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Sequence(AtomicU32);

impl Sequence {
    /// The one writer makes a change, by atomic stores.
    pub(super) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = change();
        self.0.store(before.wrapping_add(2), Ordering::Release);
        result
    }

    /// What `read` returns, if no change went on meanwhile.
    pub(super) fn read<R>(&self, read: impl FnOnce() -> R) -> Option<R> {
        let before = self.0.load(Ordering::Acquire);
        let result = read();
        fence(Ordering::Acquire);
        (before.is_multiple_of(2) && before == self.0.load(Ordering::Relaxed)).then_some(result)
    }
}
