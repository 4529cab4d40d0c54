//! forkd's own counters: children that lived for a moment are in them, too.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::daemon::ask;
use crate::daemon::status::Status;

const PATIENCE: Duration = Duration::from_secs(2);

/// What a forkd has counted, over all its listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    /// Children that it has.
    pub(super) alive: u32,
    /// Children that it has forked.
    pub(super) forked: u64,
    /// Connections that it has had, and datagrams.
    pub(super) connections: u64,
    /// Clients that it has turned away.
    pub(super) refused: u64,
    /// The most children at once.
    pub(super) peak: u32,
}

impl Counters {
    /// Asks the one behind this control socket; `None` if it does not answer.
    pub(super) fn of(control: &Path) -> Option<Self> {
        let mut stream = UnixStream::connect(control).ok()?;
        let status: Status = serde_json::from_str(&ask(&mut stream, "status", PATIENCE).ok()?).ok()?;
        Some(status.listeners.iter().fold(Self::default(), |sum, listener| Self {
            alive: sum.alive + listener.alive,
            forked: sum.forked + listener.forked,
            connections: sum.connections + listener.connections,
            refused: sum.refused + listener.refused.values().sum::<u64>(),
            peak: sum.peak + listener.peak,
        }))
    }
}
