//! Counts that several processes change, none of them with a lock.
//!
//! Their atomics come from the module that includes this file, as those of `stack.rs` do.

use super::atomic::{AtomicU32, Ordering};

/// Takes one, if there is one.
pub(super) fn take_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// Adds one, if that makes no more than `most`.
pub(super) fn add_one(count: &AtomicU32, most: u32) -> bool {
    let more = |n: u32| (n < most).then_some(n + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Subtracts one and returns how many there were; at 0 it stays. A process that was killed may have left a count
/// wrong, until the master corrects it.
pub(super) fn subtract_one(count: &AtomicU32) -> u32 {
    let before = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
    before.unwrap_or(0)
}
