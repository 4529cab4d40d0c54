//! What a worker that accepts by itself tells of its clients.

use std::sync::atomic::Ordering;

use super::worker::Board;
use crate::transport::Traffic;

/// A connection that counts as served until this is dropped: see [`Worker::connection`](super::Worker::connection).
#[derive(Debug)]
#[must_use = "a connection counts as served only as long as this is kept"]
pub struct OpenConnection(Board);

impl OpenConnection {
    pub(super) fn open(board: Board) -> Self {
        Traffic::add(&board.slot.traffic.connections, 1);
        board.slot.open.fetch_add(1, Ordering::Relaxed);
        Self(board)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.slot.open.fetch_sub(1, Ordering::Relaxed);
    }
}
