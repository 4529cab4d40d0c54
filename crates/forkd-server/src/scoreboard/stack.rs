//! The stack of the dead: children push, the master takes all of it. Without a lock, as any of them may be
//! killed in the middle.
//!
//! Children can write all of this, so it tells the master which child to look at, and nothing more. The tests check every
//! order in which processes can take these steps (`tests/model.rs`), for which this file has its atomics from
//! the module that includes it.

use super::atomic::{AtomicU32, Ordering, fence};

super::plain! {
    /// Entries are indices plus one, so that zeroed memory is an empty stack.
    #[derive(Debug, Default)]
    pub(super) struct Stack {
        top: AtomicU32,
        /// The master wants to be woken by the next child that pushes.
        awaited: AtomicU32,
    }
}

impl Stack {
    /// Pushes an index, whose `next` is for the stack to use; tells whether to wake the master.
    ///
    /// Async-signal-safe and without a system call. What the child has written before is seen by the process that
    /// takes the stack.
    pub(super) fn push(&self, index: u32, next: &AtomicU32) -> bool {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            next.store(top, Ordering::Relaxed);
            match self.top.compare_exchange_weak(top, index + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        // with the fence of `await_next`: the master sees this entry, or this child sees that it is awaited
        fence(Ordering::SeqCst);
        self.awaited.load(Ordering::Relaxed) != 0
    }

    /// Takes the whole stack at once and returns its top entry. As no process ever takes a single one, an entry that
    /// is pushed again meanwhile (ABA) is no problem.
    pub(super) fn take(&self) -> u32 {
        if self.is_empty() { 0 } else { self.top.swap(0, Ordering::Acquire) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed) == 0
    }

    /// Whether to be woken by each push from now on. What is not seen by a look after this wakes the master.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited.into(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
