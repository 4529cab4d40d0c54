//! forkd's own counters: children that lived for a moment are in them, too.

use std::path::Path;
use std::time::Duration;

use crate::daemon::Question;
use crate::daemon::status::Status;
use crate::foreign;

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
        let answer =
            Question::at(control, PATIENCE).and_then(|question| question.ask("status", None)).ok()?;
        let status: Status = foreign::from_json(answer.as_bytes()).ok()?;
        Some(status.listeners.iter().fold(Self::default(), |sum, listener| Self {
            alive: sum.alive + listener.alive,
            forked: sum.forked + listener.forked,
            connections: sum.connections + listener.connections,
            refused: sum.refused + listener.refused.values().sum::<u64>(),
            peak: sum.peak + listener.peak,
        }))
    }
}
