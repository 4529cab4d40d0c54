//! A worker of a pool, whichever model it follows.

use std::sync::Arc;

#[cfg(feature = "coroutine")]
use super::coroutine;
use super::serve::{Terms, WorkerContext};
use super::{Model, event, prefork, thread};
use crate::scoreboard::Cause;
use crate::sys::shutdown_fd::ShutdownFd;

/// Serves until the shutdown, or until the limit is reached.
pub(crate) fn run(work: &WorkerContext<'_>, shutdown: &Arc<ShutdownFd>, terms: &Terms) -> Cause {
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
