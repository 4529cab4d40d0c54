//! What a worker that accepts by itself tells of its clients.

use std::sync::atomic::Ordering;

use super::worker::Board;
use crate::transport::Traffic;

/// A connection that counts as served until this is dropped: see [`Worker::connection`](super::Worker::connection).
///
/// It may go into the thread or task that serves the connection.
///
/// ```
/// use forkd_server::{OpenConnection, Worker};
///
/// struct Session {
///     client: std::net::TcpStream,
///     _counted: OpenConnection,
/// }
///
/// fn begin(worker: &Worker, client: std::net::TcpStream) -> Session {
///     Session { client, _counted: worker.connection() }
/// }
/// ```
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
