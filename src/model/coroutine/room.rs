//! What the coroutines of a worker share, and what goes with each of them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::coroutine::{MAIN, scheduler};
use crate::events;
use crate::model::serve::{Post, Work};
use crate::scoreboard::{Scoreboard, Slot, State};
use crate::transport::Peer;
use crate::transport::guard::Guard;

/// What the coroutines of a worker share. They may not borrow, so they have a [`Work`] of their own.
pub(super) struct Room {
    pub(super) post: Post,
    guard: Guard,
    board: &'static Scoreboard,
    slot: &'static Slot,
    /// The worker takes no more clients.
    leaving: Cell<bool>,
    /// The main function waits for one to leave.
    wanted: Cell<bool>,
}

impl Room {
    pub(super) fn of(work: &Work<'_>) -> Rc<Self> {
        Rc::new(Self {
            post: work.post.clone(),
            guard: work.guard.clone(),
            board: work.board,
            slot: work.slot,
            leaving: Cell::default(),
            wanted: Cell::default(),
        })
    }

    pub(super) fn work(&self) -> Work<'_> {
        Work { post: &self.post, guard: &self.guard, board: self.board, slot: self.slot }
    }

    /// How many are served now.
    pub(super) fn open(&self) -> u32 {
        self.slot.open.load(Ordering::Relaxed)
    }

    pub(super) fn set_open(&self, count: u32) {
        self.slot.open.store(count, Ordering::Relaxed);
        if !self.leaving.get() {
            self.slot.set_state(if count == 0 { State::Idle } else { State::Serving });
        }
    }

    /// For the main function.
    pub(super) fn wait_until_fewer_than(&self, count: u32) {
        while self.open() >= count {
            self.wanted.set(true);
            if let Some(scheduler) = scheduler() {
                scheduler.park(None);
            }
        }
    }

    /// Takes no more clients, and says so: somebody else should.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
        self.slot.set_state(State::Leaving);
        self.board.wake().notify();
    }
}

/// A client's place in the room, which goes with its coroutine.
pub(super) struct Seat(pub(super) Rc<Room>);

impl Seat {
    pub(super) fn take(room: &Rc<Room>, peer: Peer) -> Self {
        room.slot.set_peer(peer);
        room.set_open(room.open() + 1);
        Self(Rc::clone(room))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set_open(self.0.open().saturating_sub(1));
        if self.0.wanted.take()
            && let Some(scheduler) = scheduler()
        {
            scheduler.wake(MAIN);
        }
    }
}

/// A panic costs one client, and one line of the log.
pub(super) fn contained(room: &Room, peer: Peer, serve: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(serve)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        events::handler_panicked(room.post.listener.endpoint(), peer, text.unwrap_or("no message"));
    }
}
