//! A worker of a pool: it accepts from the listening socket that it shares with the others, and serves as its model does.
//!
//! It holds the listening socket, the scoreboard, which it can't write beyond its own part, and the standard streams. It is
//! born with SIGTERM held back; SIGTERM then tells it to take no more clients, by shutting its copy of the listener, and
//! SIGQUIT ends it at once. It ends when it has been told so and has served its last client, when it has served as many as
//! it may, or when its master dies.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustix::process::Pid;

use super::pooling::Born;
use super::post_fork::{expect_children, silence};
use crate::Error;
use crate::model::serve::{Terms, WorkerContext};
use crate::model::worker::run;
use crate::sandbox::Confinement;
use crate::scoreboard::Cause;
use crate::sys::arena;
use crate::sys::fd::{CloseSet, close_in_child};
use crate::sys::oom::Expendable;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::sys::signal::{OnParentDeath, TermHeld, at_death_of, shut_on};

/// What the master has prepared for it.
pub(super) struct Setup<'a> {
    pub(super) close: &'a CloseSet,
    /// Workers that were forked just before it, whose descriptors it closes beside that.
    pub(super) born: &'a [Born],
    pub(super) parent: Pid,
    /// What its standard output and error become (`--daemon`).
    pub(super) null: Option<&'a File>,
    /// Makes it the OOM killer's choice rather than the master.
    pub(super) expendable: Option<Expendable>,
    /// What it can't do from its first client on.
    pub(super) confinement: &'a Confinement,
}

/// The life of a worker, after fork(2); returns the status that it exits with.
pub(super) fn live(setup: Setup<'_>, work: &WorkerContext<'_>, terms: &Terms) -> u8 {
    arena::open();
    if let Some(expendable) = setup.expendable {
        expendable.become_so();
    }
    let shutdown = begin(setup, work);
    expect_children(work.service());
    let cause = match shutdown {
        Ok(shutdown) => {
            let served = catch_unwind(AssertUnwindSafe(|| run(work, &shutdown, terms)));
            served.unwrap_or_else(|payload| {
                work.context.service_config.hooks.panicked(work.slot.peer(), &*payload);
                Cause::Panicked
            })
        }
        Err(error) => {
            log::error!("{}", Error::os("worker cannot start", error).sentence());
            Cause::Failed
        }
    };
    // for where the kernel does not keep the status
    work.slot.record(cause);
    cause.status()
}

/// Becomes a worker; returns what SIGTERM shuts.
fn begin(setup: Setup<'_>, work: &WorkerContext<'_>) -> io::Result<Arc<ShutdownFd>> {
    let listener = work.listener();
    // what the master knows it may read from here on, and not write
    work.board.read_only()?;
    silence(setup.null);
    let shutdown = Arc::new(ShutdownFd::new(listener, !listener.is_inherited())?);
    shut_on(&shutdown, Signal::SIGTERM)?;
    TermHeld::release_in_child();
    setup.confinement.confine_worker()?;
    setup.close.close_in_child();
    close_in_child(setup.born.iter().flat_map(Born::descriptors));
    // An idle worker leaves at once then, and a busy one after its connection.
    at_death_of(setup.parent, OnParentDeath::Terminate);
    Ok(shutdown)
}
