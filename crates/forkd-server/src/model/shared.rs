//! A worker's work, for threads and coroutines: they are not bound to any frame of its main function's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::hooks::Turns;
use super::serve::{ListenerContext, Work};
use crate::scoreboard::{Scoreboard, Slot};
use crate::transport::udp_filter::UdpFilter;

/// What a [`Work`] is made of.
pub(super) struct Shared {
    context: ListenerContext,
    guard: UdpFilter,
    board: Scoreboard,
    slot: &'static Slot,
    turns: Option<Arc<Mutex<Turns>>>,
    /// How many are served now. The slot shows it, but other processes can write there.
    open: AtomicU32,
}

impl Shared {
    pub(super) fn of(work: &Work<'_>) -> Self {
        let Work { context, guard, board, slot, turns } = *work;
        let (context, guard, board, turns) = (context.clone(), guard.clone(), board.clone(), turns.cloned());
        Self { context, guard, board, slot, turns, open: AtomicU32::new(0) }
    }

    pub(super) fn work(&self) -> Work<'_> {
        let Self { context, guard, board, slot, turns, .. } = self;
        Work { context, guard, board, slot, turns: turns.as_ref() }
    }

    /// Begins to serve one more.
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.slot.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Has served one.
    pub(super) fn end(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.slot.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are served.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }
}
