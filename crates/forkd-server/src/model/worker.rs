//! A worker of a pool, whichever model it follows.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "coroutine")]
use super::coroutine;
use super::serve::Work;
use super::{Model, Threads, event, prefork, thread};
use crate::scoreboard::Cause;
use crate::sys::shutdown_fd::ShutdownFd;

/// What a worker is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) model: Model,
    /// After how many connections it leaves; 0: never.
    pub(crate) limit: u64,
    /// How many workers may be at their limit, and serve those that stay, beside those that take clients.
    pub(crate) leavers: u32,
    /// How many it serves at once (event, coroutine).
    pub(crate) max_connections: u32,
    /// Its pool is elastic, so it counts itself while it is idle.
    pub(crate) elastic: bool,
    /// What threads it has, if its model has any.
    pub(crate) threads: Threads,
    /// For how long after the shutdown a client is held for which no thread can be started.
    pub(crate) grace: Duration,
    /// Whether it waits for those that it serves at the shutdown.
    pub(crate) waits: bool,
}

/// Serves until the shutdown, or until the limit is reached.
pub(crate) fn run(work: &Work<'_>, shutdown: &Arc<ShutdownFd>, terms: &Terms) -> Cause {
    match terms.model {
        // with fork it is the master that accepts
        Model::Fork | Model::Iterative | Model::Prefork => prefork::run(work, shutdown, terms),
        Model::Thread => thread::run(work, shutdown, terms),
        Model::Event => event::run(work, shutdown, terms),
        #[cfg(feature = "coroutine")]
        Model::Coroutine => coroutine::run(work, shutdown, terms),
        // `Model::require` has refused it
        #[cfg(not(feature = "coroutine"))]
        Model::Coroutine => Cause::Failed,
    }
}
