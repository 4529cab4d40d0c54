//! How a loop learns, from anywhere, which of its sources something was written for.
//!
//! Invariant: what is called for is told at the next [`take`](Wakeups::take), and a loop that waits is woken for it. A
//! call that comes while the loop is at work costs no system call: the loop looks before it waits.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use crate::slab::Key;
use crate::sys::wake::Wake;

/// The sources of one loop that are called for.
#[derive(Debug)]
pub(crate) struct Wakeups {
    calls: Mutex<Calls>,
    wake: Wake,
}

#[derive(Debug, Default)]
struct Calls {
    keys: Vec<Key>,
    /// The loop waits, or is about to, and does not know of a call.
    is_asleep: bool,
    /// The descriptor is readable.
    is_woken: bool,
}

impl Wakeups {
    /// # Errors
    ///
    /// As eventfd(2) or pipe(2).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { calls: Mutex::default(), wake: Wake::new()? })
    }

    /// Calls for a source.
    fn call(&self, key: Key) {
        let mut calls = self.calls();
        calls.keys.push(key);
        if mem::take(&mut calls.is_asleep) {
            calls.is_woken = true;
            self.wake.notify();
        }
    }

    /// For the loop, before it waits: whether it may, as nothing is called for. From here on a call wakes it.
    pub(crate) fn may_wait(&self) -> bool {
        let mut calls = self.calls();
        calls.is_asleep = calls.keys.is_empty();
        calls.is_asleep
    }

    /// For the loop, after it has waited: what was called for meanwhile.
    pub(crate) fn take(&self) -> Vec<Key> {
        let mut calls = self.calls();
        calls.is_asleep = false;
        if mem::take(&mut calls.is_woken) {
            self.wake.drain();
        }
        mem::take(&mut calls.keys)
    }

    /// Nothing that is done under the lock can panic.
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is readable when a loop that waits is called.
impl AsFd for Wakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Wakes a loop for one of its sources.
#[derive(Debug, Clone)]
pub(crate) struct Rouser {
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) key: Key,
}

impl Rouser {
    pub(super) fn rouse(&self) {
        self.wakeups.call(self.key);
    }
}

impl PartialEq for Rouser {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && Arc::ptr_eq(&self.wakeups, &other.wakeups)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::fd::wait_readable;

    #[test]
    fn a_loop_that_waits_is_woken_and_one_that_works_is_not() {
        let wakeups = Wakeups::new().unwrap();
        let is_readable = || wait_readable(&wakeups, Duration::ZERO);
        wakeups.call(Key::FIRST);
        assert!(!is_readable() && !wakeups.may_wait());
        assert_eq!(wakeups.take(), [Key::FIRST]);
        assert!(wakeups.may_wait());
        wakeups.call(Key::FIRST);
        wakeups.call(Key::FIRST);
        assert!(is_readable());
        assert_eq!(wakeups.take(), [Key::FIRST; 2]);
        assert!(!is_readable() && wakeups.may_wait());
    }
}
