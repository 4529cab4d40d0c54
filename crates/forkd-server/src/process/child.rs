//! A child of the fork model: it serves one connection, or one datagram, and ends.
//!
//! It holds the connection (or, for a datagram, the listening socket), the scoreboard, and the wake descriptor by which it
//! tells the master of its end; it closes all else that is the master's. It is born with most signals blocked: a Ctrl-C
//! or a hang-up of the terminal reaches the whole process group, and only the master acts on it. SIGTERM and SIGQUIT end
//! it from its first instruction on, by handlers that it inherits (see `sys::signal`). It ends when the handler returns
//! or panics, or a while after its master.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;

use super::post_fork::expect_children;
use crate::model::serve::WorkerContext;
use crate::scoreboard::{Cause, State};
use crate::sys::arena;
use crate::sys::datagram::Batch;
use crate::sys::fd::CloseSet;
use crate::sys::oom::Expendable;
use crate::sys::orphans::adopt;
use crate::sys::signal::{OnParentDeath, at_death_of};
use crate::transport::Peer;

/// What a child is forked for.
pub(super) enum Task<'a> {
    /// One connection.
    Connection(OwnedFd, Peer),
    /// The first datagram of a batch.
    Datagram(&'a mut Batch, Peer),
}

/// What the master has prepared for it.
pub(super) struct Setup<'a> {
    pub(super) close: &'a CloseSet,
    pub(super) parent: Pid,
    /// Makes it the OOM killer's choice rather than the master.
    pub(super) expendable: Option<Expendable>,
    /// Its number on the scoreboard.
    pub(super) index: u32,
}

/// The life of a child, after fork(2); returns the status that it exits with.
pub(super) fn live(setup: Setup<'_>, work: &WorkerContext<'_>, task: Option<Task<'_>>) -> u8 {
    if let Some(expendable) = setup.expendable {
        expendable.become_so();
    }
    work.board.keep_out();
    // The signal pipe is among them: a signal to a child must not wake the master.
    setup.close.close_in_child();
    at_death_of(setup.parent, OnParentDeath::FinishSoon);
    if !work.service().echoes() {
        // echo allocates nothing, and has no page for it
        arena::open();
    }
    expect_children(work.service());
    if work.service().hands_over() {
        adopt();
    }
    let Some(task) = task else { return Cause::Done.status() };
    let peer = match &task {
        Task::Connection(_, peer) | Task::Datagram(_, peer) => *peer,
    };
    let announce = |cause| work.board.announce(setup.index, cause);
    let served = catch_unwind(AssertUnwindSafe(|| serve(work, task, announce)));
    let cause = served.unwrap_or_else(|payload| {
        work.context.service_config.hooks.panicked(peer, &*payload);
        announce(Cause::Panicked);
        Cause::Panicked
    });
    cause.status()
}

/// Does the task, and announces how it ended before the client can see the end: one that comes again at
/// once finds this child's place free.
fn serve(work: &WorkerContext<'_>, task: Task<'_>, announce: impl FnOnce(Cause)) -> Cause {
    if let Some(now) = work.board.clock_us() {
        work.slot.set_began(now);
    }
    work.slot.set_state(State::Serving);
    match task {
        Task::Connection(socket, peer) => {
            let (cause, connection) = work.connection(socket, peer);
            announce(cause);
            connection.close();
            cause
        }
        Task::Datagram(batch, _) => {
            // the master has asked the application
            work.datagrams_if(batch, 1, |datagram| work.udp_filter.admit(datagram));
            announce(Cause::Done);
            Cause::Done
        }
    }
}
