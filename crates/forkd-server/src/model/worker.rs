//! A worker of a pool, whichever model it follows.

use std::sync::Arc;

#[cfg(feature = "coroutine")]
use super::coroutine;
use super::serve::{Terms, WorkerContext};
use super::{Model, event, prefork, thread};
use crate::events;
use crate::scoreboard::Cause;
use crate::service::application::{Application, Board, Worker};
use crate::sys::shutdown_fd::ShutdownFd;

/// Serves until the shutdown, or until the limit is reached.
pub(crate) fn run(work: &WorkerContext<'_>, shutdown: &Arc<ShutdownFd>, terms: &Terms) -> Cause {
    if let Some(application) = work.service().as_application() {
        return run_application(application, work, shutdown, terms);
    }
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

/// Runs a function that accepts by itself, until that returns.
fn run_application(
    application: &Application,
    work: &WorkerContext<'_>,
    shutdown: &Arc<ShutdownFd>,
    terms: &Terms,
) -> Cause {
    // the master forks nothing for a program that gets here
    let Application::Function(function) = application else { return Cause::Failed };
    let listeners = work.context.listeners().map(Arc::clone).collect();
    match function(Worker::new(listeners, shutdown, Board { slot: work.slot }, terms.place)) {
        Ok(()) if shutdown.is_shut() => Cause::Retired,
        Ok(()) => {
            events::worker_returned(work.listener().endpoint(), terms.place.number);
            Cause::Recycled
        }
        Err(error) => {
            events::worker_failed(work.listener().endpoint(), terms.place.number, &*error);
            Cause::Failed
        }
    }
}
