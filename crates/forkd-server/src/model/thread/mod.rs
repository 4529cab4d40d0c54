//! Threads: a worker with a thread for each connection, or with a fixed pool of them.
//!
//! They share the process: the shutdown descriptor, the counters, the line on the scoreboard. SIGTERM finds the main thread,
//! as it is blocked in the others; a crash ends them all. A panic ends one connection, since nothing that a
//! connection needs is another's.

mod each;
mod fixed;

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener_context::peer_of;
use super::serve::{Terms, WorkerContext};
use super::shared::Shared;
use super::{Threads, prefork};
use crate::scoreboard::Cause;
use crate::sys::datagram::Batch;
use crate::sys::limits::make_room;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::transport::Peer;
use crate::transport::early::Early;
use crate::transport::listener::Kind;

/// Serves until the shutdown, or until the limit is reached; then waits for its threads.
pub(crate) fn run(work: &WorkerContext<'_>, shutdown: &Arc<ShutdownFd>, terms: &Terms) -> Cause {
    if work.listener().kind() == Kind::Stream {
        let (Threads::Each(clients) | Threads::Fixed(clients)) = terms.threads;
        let cut = usize::from(work.context.service_config.hooks.open.is_some());
        make_room(work.listener(), clients as usize * (work.service().descriptors() + cut));
    }
    match (work.listener().kind(), terms.threads) {
        // a service that waits for no client is quicker in batches, by one thread, than with a thread for each
        (Kind::Datagram, Threads::Each(_)) if !work.service().is_handler() => {
            prefork::run(work, shutdown, terms)
        }
        (_, Threads::Each(most)) => each::run(Shared::of(work), shutdown, terms, most),
        (_, Threads::Fixed(count)) => fixed::run(Shared::of(work), shutdown, terms, count),
    }
}

/// For how long threads are waited for that have been cut, as their clients' time is over: one that waits for its client ends
/// at once, and one that waits for anything else is left alone.
const CUT: Duration = Duration::from_secs(1);

/// Until when a worker waits for its threads from now on, the shutdown, if that has an end.
fn waits_until(work: &WorkerContext<'_>, terms: &Terms) -> Option<Instant> {
    work.serves_until(terms).and_then(|until| until.checked_add(CUT))
}

/// Serves a connection. Says that this has ended before the client can see it: one that comes again at once
/// finds its place free.
fn connection(work: &WorkerContext<'_>, socket: OwnedFd, peer: Peer, early: Early, ended: impl FnOnce()) {
    let mut connection = work.connection(socket, peer, early);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work.serve_timed(&mut connection))) {
        // a proxy may have named another client
        work.panicked(connection.peer(), &*payload);
    }
    ended();
    connection.close();
}

/// Has datagrams of a batch answered.
fn datagrams(
    work: &WorkerContext<'_>,
    batch: &mut Batch,
    answer: impl FnOnce(&mut Batch),
    ended: impl FnOnce(),
) {
    let served = catch_unwind(AssertUnwindSafe(|| answer(batch)));
    if let Err(payload) = served {
        // a handler that can panic is given one at a time
        work.panicked(peer_of(&batch.datagram(0)), &*payload);
    }
    ended();
}
