//! A pool of workers: the worker's side.
//!
//! All workers of a pool block in accept(2) on one shared listener: the kernel wakes one for each
//! connection, in turn; nothing is stranded behind a busy worker, and there is no lock that a dead
//! one could leave locked. A worker serves one connection at a time and learns through its
//! [`ShutdownFd`] that it should leave.

use super::accept_loop::{self, Driver};
use super::listener_context::Admitted;
use super::serve::{Terms, WorkerContext};
use crate::scoreboard::{Cause, State};
use crate::sys::datagram::Batch;
use crate::sys::shutdown_fd::ShutdownFd;

/// Serves until the shutdown, or until the limit is reached.
pub(crate) fn run(work: &WorkerContext<'_>, shutdown: &ShutdownFd, terms: &Terms) -> Cause {
    let &Terms { limit, elastic, .. } = terms;
    let mut worker = Worker { work, limit, served: 0, elastic };
    if !work.comes_up(1) {
        return Cause::Failed;
    }
    worker.become_idle();
    accept_loop::run(work, shutdown, &mut worker)
}

struct Worker<'a> {
    work: &'a WorkerContext<'a>,
    limit: u64,
    served: u64,
    elastic: bool,
}

impl Worker<'_> {
    /// Waits for the next one, as far as the scoreboard is concerned.
    fn become_idle(&self) {
        if self.elastic {
            self.work.tally().one_more_idle();
        }
        self.work.slot.set_state(State::Idle);
    }

    fn begin(&self) {
        self.work.slot.set_state(State::Serving);
        if self.elastic {
            self.work.board.one_fewer_idle(self.work.context.number);
        }
    }
}

impl Driver for Worker<'_> {
    fn connection(&mut self, Admitted { socket, peer, ticket }: Admitted) {
        let (counted, early) = (self.work.count(ticket), self.work.early());
        self.begin();
        self.work.slot.set_peer(peer);
        let mut connection = self.work.connection(socket, peer, early);
        self.work.serve_timed(&mut connection);
        // before the client can see the end: one that comes again at once counts as one
        drop(counted);
        connection.close();
    }

    fn datagrams(&mut self, batch: &mut Batch, count: usize) {
        self.begin();
        self.work.datagrams(batch, count);
    }

    fn goes_on(&mut self, served: u64) -> bool {
        self.served += served;
        if self.limit != 0 && self.served >= self.limit && !self.work.is_draining() {
            return false;
        }
        self.become_idle();
        true
    }
}
