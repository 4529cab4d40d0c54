//! What a forkd has counted, asked at its control socket.

use std::path::Path;
use std::time::Duration;

use crate::daemon::Question;
use crate::daemon::status::Status;
use crate::foreign;
use forkd_compare::Counters;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the one behind this control socket; `None` if it does not answer.
pub(in crate::cli) fn ask(control: &Path) -> Option<Counters> {
    let answer =
        Question::at(control, ANSWER_TIMEOUT).and_then(|question| question.ask("status", None)).ok()?;
    let status: Status = foreign::from_json(answer.as_bytes()).ok()?;
    Some(status.listeners.iter().fold(Counters::default(), |sum, listener| Counters {
        alive: sum.alive + listener.alive,
        forked: sum.forked + listener.forked,
        connections: sum.connections + listener.connections,
        refused: sum.refused + listener.refused.values().sum::<u64>(),
        peak: sum.peak + listener.peak,
        spread: sum.spread.or(listener.spread),
    }))
}
