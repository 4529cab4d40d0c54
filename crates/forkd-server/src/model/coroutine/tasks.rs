//! The coroutines of a worker that serve clients: how many there are, and what waits for one to end.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use crate::coroutine::{MAIN, scheduler};
use crate::model::serve::WorkerContext;
use crate::model::shared::Shared;
use crate::transport::Peer;

/// The coroutines of a worker that serve clients.
pub(super) struct Tasks {
    shared: Shared,
    /// No client is accepted any more.
    closed: Cell<bool>,
    /// The main function waits for one to end.
    wanted: Cell<bool>,
}

impl Tasks {
    pub(super) fn of(work: &WorkerContext<'_>) -> Rc<Self> {
        let shared = Shared::of(work);
        Rc::new(Self { shared, closed: Cell::default(), wanted: Cell::default() })
    }

    pub(super) fn work(&self) -> WorkerContext<'_> {
        self.shared.work()
    }

    /// How many are served now.
    pub(super) fn open(&self) -> u32 {
        self.shared.open()
    }

    /// Begins to serve one more.
    pub(super) fn begin(&self) {
        self.shared.begin();
    }

    /// Has served one.
    pub(super) fn end(&self) {
        self.shared.end();
    }

    /// No client is accepted any more; those that are served may finish.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.call_main();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// For the main function: waits until there are fewer, or no client is accepted any more and `heeds_close`; or until then.
    pub(super) fn wait_until_fewer_than(&self, count: u32, heeds_close: bool, until: Option<Instant>) {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        while self.open() >= count && !(heeds_close && self.is_closed()) && !is_over() {
            self.wanted.set(true);
            if let Some(scheduler) = scheduler() {
                scheduler.park(until);
            }
        }
    }

    fn call_main(&self) {
        if self.wanted.take()
            && let Some(scheduler) = scheduler()
        {
            scheduler.wake(MAIN);
        }
    }
}

/// Counts a client as served while its coroutine has this.
pub(super) struct ConnectionGuard(pub(super) Rc<Tasks>);

impl ConnectionGuard {
    pub(super) fn take(tasks: &Rc<Tasks>, peer: Peer) -> Self {
        tasks.work().slot.set_peer(peer);
        tasks.begin();
        Self(Rc::clone(tasks))
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.end();
        self.0.call_main();
    }
}

/// A panic costs one client. One that is left when the worker ends is unwound in the same way, and has not failed.
/// Returns what was panicked with, if it has.
pub(super) fn contained(serve: impl FnOnce()) -> Result<(), Box<dyn Any + Send>> {
    match catch_unwind(AssertUnwindSafe(serve)) {
        Err(payload) if scheduler().is_some_and(|scheduler| !scheduler.is_ending()) => Err(payload),
        _ => Ok(()),
    }
}
