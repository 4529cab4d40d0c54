//! Connections that have not completed their first exchange, counted where all processes of a listening socket see it.
//!
//! There are two counts, that of the process and that of the listening socket. When a process dies the master takes what
//! is left in the first off the second. So the process adds to its own first, and takes from it last: where it is killed in
//! between, the count of the socket is too low, which is over when it is 0, and never too high. The atomics come from the
//! module that includes this file.

use std::cell::Cell;

use super::atomic::{AtomicU32, Ordering};

/// Counts a connection until its first exchange is complete, or this is dropped; or counts nothing.
#[derive(Debug, Default)]
pub(crate) struct Early(Cell<Option<Counts>>);

#[derive(Debug, Clone, Copy)]
struct Counts {
    of_process: &'static AtomicU32,
    of_socket: &'static AtomicU32,
    /// The service never answers: what the client has sent is all of the exchange.
    by_input: bool,
}

impl Early {
    /// Counts one more; tells how many others there are.
    pub(crate) fn begin(
        of_process: &'static AtomicU32,
        of_socket: &'static AtomicU32,
        by_input: bool,
    ) -> (Self, u32) {
        of_process.fetch_add(1, Ordering::AcqRel);
        let others = of_socket.fetch_add(1, Ordering::AcqRel);
        (Self(Cell::new(Some(Counts { of_process, of_socket, by_input }))), others)
    }

    /// One that was [left](Self::leave_to_process) to this process.
    pub(crate) fn resume(
        of_process: &'static AtomicU32,
        of_socket: &'static AtomicU32,
        by_input: bool,
    ) -> Self {
        Self(Cell::new(Some(Counts { of_process, of_socket, by_input })))
    }

    /// It counts on, until the process takes it up or dies.
    pub(crate) fn leave_to_process(self) {
        self.0.set(None);
    }

    /// The client has sent something.
    #[inline(always)]
    pub(crate) fn took(&self) {
        if let Some(counts) = self.0.get()
            && counts.by_input
        {
            self.end();
        }
    }

    /// The client will be sent so many bytes. It may come again as soon as it has them, so that is not said later.
    #[inline(always)]
    pub(crate) fn gives(&self, bytes: usize) {
        if self.0.get().is_some() && bytes > 0 {
            self.end();
        }
    }

    /// It counts no more.
    #[cold]
    #[inline(never)]
    fn end(&self) {
        if let Some(Counts { of_process, of_socket, .. }) = self.0.take() {
            subtract(of_socket, 1);
            subtract(of_process, 1);
        }
    }

    /// The process is dead, or ends: those that it had count no more.
    #[inline(always)]
    pub(crate) fn abandon(of_process: &AtomicU32, of_socket: &AtomicU32) {
        if of_process.load(Ordering::Relaxed) != 0 {
            Self::take_off(of_process, of_socket);
        }
    }

    #[cold]
    #[inline(never)]
    fn take_off(of_process: &AtomicU32, of_socket: &AtomicU32) {
        subtract(of_socket, of_process.swap(0, Ordering::AcqRel));
    }
}

impl Drop for Early {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.get().is_some() {
            self.end();
        }
    }
}

/// At 0 it stays: another process may have written anything.
fn subtract(count: &AtomicU32, number: u32) {
    let fewer = |count: u32| Some(count.saturating_sub(number));
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fewer);
}
