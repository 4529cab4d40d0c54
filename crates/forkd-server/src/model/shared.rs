//! A worker's work, for threads and coroutines: they are not bound to any frame of its main function's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::hooks::Ticker;
use super::listener_context::ListenerContext;
use super::serve::WorkerContext;
use crate::scoreboard::{Scoreboard, Slot};
use crate::transport::udp_filter::UdpFilter;

/// What a [`WorkerContext`] is made of.
pub(super) struct Shared {
    context: ListenerContext,
    udp_filter: UdpFilter,
    board: Scoreboard,
    slot: &'static Slot,
    index: u32,
    ticker: Option<Arc<Mutex<Ticker>>>,
    /// How many are served now. The slot shows it, but other processes can write there.
    open: AtomicU32,
}

impl Shared {
    pub(super) fn of(work: &WorkerContext<'_>) -> Self {
        let WorkerContext { context, udp_filter, board, slot, index, ticker } = *work;
        let (context, udp_filter, board, ticker) =
            (context.clone(), udp_filter.clone(), board.clone(), ticker.cloned());
        Self { context, udp_filter, board, slot, index, ticker, open: AtomicU32::new(0) }
    }

    pub(super) fn work(&self) -> WorkerContext<'_> {
        let &Self { ref context, ref udp_filter, ref board, slot, index, ref ticker, .. } = self;
        WorkerContext { context, udp_filter, board, slot, index, ticker: ticker.as_ref() }
    }

    /// Begins to serve one more.
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.work().one_more_open();
    }

    /// Has served one.
    pub(super) fn end(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.work().one_fewer_open();
    }

    /// How many are served.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }
}
