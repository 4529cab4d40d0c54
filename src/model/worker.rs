//! A worker of a pool, whichever model it follows.

use std::sync::Arc;

use super::serve::Work;
use super::{Model, coroutine, event, prefork, thread};
use crate::scoreboard::Cause;
use crate::sys::fd::Gate;

/// What a worker is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) model: Model,
    /// After how many connections it leaves; 0: never.
    pub(crate) limit: u64,
    /// Its pool is elastic, so it counts itself while it is idle.
    pub(crate) elastic: bool,
}

/// Serves until the gate is shut, or the limit is reached.
pub(crate) fn run(work: &Work<'_>, gate: &Arc<Gate>, terms: &Terms) -> Cause {
    match terms.model {
        // with fork it is the master that accepts
        Model::Fork | Model::Iterative | Model::Prefork => prefork::run(work, gate, terms),
        Model::Thread => thread::run(work, gate, terms),
        Model::Event => event::run(work, gate, terms),
        Model::Coroutine => coroutine::run(work, gate, terms),
    }
}
