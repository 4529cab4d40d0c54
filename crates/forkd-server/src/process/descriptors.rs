//! Which descriptors are the master's own, so that children can close them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::RawFd;

use crate::service::Service;
use crate::sys::fd::CloseSet;
use crate::sys::procfs;

/// The master's own descriptors. It has one thread, and no reference to the set outlives a call.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    open: RefCell<BTreeSet<RawFd>>,
    /// Grows with each change, so that what was derived from `open` can be seen to be stale.
    changes: Cell<u64>,
}

impl Descriptors {
    pub(super) fn add(&self, fds: impl IntoIterator<Item = RawFd>) {
        self.open.borrow_mut().extend(fds);
        self.changes.set(self.changes.get() + 1);
    }

    pub(super) fn remove(&self, fd: RawFd) {
        self.open.borrow_mut().remove(&fd);
        self.changes.set(self.changes.get() + 1);
    }
}

/// What one kind of child closes: all but a few. Computed when the set has changed, not per fork.
#[derive(Debug)]
pub(super) struct Closing {
    keep: Vec<RawFd>,
    changes: Option<u64>,
    set: CloseSet,
}

impl Closing {
    pub(super) fn all_but(keep: Vec<RawFd>) -> Self {
        Self { keep, changes: None, set: CloseSet::default() }
    }

    /// These have been closed: their numbers are of no interest any more.
    pub(super) fn forget(&mut self, fds: &[RawFd]) {
        self.keep.retain(|fd| !fds.contains(fd));
        self.changes = None;
    }

    pub(super) fn of(&mut self, descriptors: &Descriptors) -> &CloseSet {
        self.update(descriptors);
        self.set()
    }

    pub(super) fn update(&mut self, descriptors: &Descriptors) {
        if self.changes != Some(descriptors.changes.get()) {
            let open = descriptors.open.borrow();
            self.set = CloseSet::new(open.iter().copied().filter(|fd| !self.keep.contains(fd)));
            self.changes = Some(descriptors.changes.get());
        }
    }

    /// As of the last update.
    #[inline(always)]
    pub(super) fn set(&self) -> &CloseSet {
        &self.set
    }
}

/// What children of this service need besides their listener: /proc, if a change of the root directory hides it.
pub(super) fn kept_for(service: &Service) -> Option<RawFd> {
    procfs::kept().filter(|_| service.hands_over())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_follows_the_changes() {
        let descriptors = Descriptors::default();
        let mut closing = Closing::all_but(vec![4]);
        descriptors.add([3, 4, 5]);
        assert_eq!(*closing.of(&descriptors), CloseSet::new([3, 5]));
        descriptors.remove(3);
        descriptors.add([6]);
        assert_eq!(*closing.of(&descriptors), CloseSet::new([5, 6]));
    }
}
