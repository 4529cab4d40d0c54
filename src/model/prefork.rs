//! A pool of workers: the worker's side.
//!
//! All workers of a pool block in accept(2) on one shared listener: the kernel wakes one for each
//! connection, in turn; nothing is stranded behind a busy worker, and there is no lock that a dead
//! one could leave locked. A worker serves one connection at a time and learns through its
//! [`Gate`] that it should leave.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::entrance::{Entrance, Nobody, REST, concerns_one_connection};
use super::serve::{Work, batch_for};
use super::worker::Terms;
use crate::scoreboard::{Cause, State};
use crate::sys::datagram::Patience;
use crate::sys::fd::{Gate, wait_readable};
use crate::transport::Peer;
use crate::transport::listener::Kind;

/// Datagrams taken at once when they come faster than one at a time.
const BATCH: usize = 8;

/// Serves until the gate is shut, or the limit is reached.
pub(crate) fn run(work: &Work<'_>, gate: &Gate, terms: &Terms) -> Cause {
    let &Terms { limit, elastic, .. } = terms;
    let mut worker = Worker { work, gate, limit, served: 0, elastic, entrance: Entrance::new(work) };
    // the master waits for the first workers to be up
    work.slot.set_state(State::Idle);
    work.board.wake().notify();
    match work.listener().kind() {
        Kind::Stream => worker.connections(),
        Kind::Datagram => worker.datagrams(),
    }
}

struct Worker<'a> {
    work: &'a Work<'a>,
    gate: &'a Gate,
    limit: u64,
    served: u64,
    elastic: bool,
    entrance: Entrance<'a>,
}

impl Worker<'_> {
    fn connections(&mut self) -> Cause {
        self.rest();
        loop {
            match self.work.listener().accept(self.gate) {
                Ok((socket, peer)) => {
                    self.begin();
                    self.serve(socket, peer);
                    if self.is_spent(1) && !self.work.totals().is_draining() {
                        return Cause::Recycled;
                    }
                    self.rest();
                }
                Err(error) if self.goes_on(error) => {}
                Err(_) => break,
            }
        }
        if self.work.totals().is_draining() {
            self.drain();
        }
        Cause::Retired
    }

    fn serve(&self, socket: OwnedFd, peer: Peer) {
        self.work.slot.set_peer(peer);
        self.work.connection(socket, peer).1.close();
    }

    /// Serves what is queued: the listener does not block any more.
    fn drain(&self) {
        while self.takes_queued() {
            match self.work.listener().accept(self.work.listener()) {
                Ok((socket, peer)) => {
                    self.work.slot.set_state(State::Serving);
                    self.serve(socket, peer);
                }
                Err(error) if concerns_one_connection(error) => {}
                Err(_) => return,
            }
        }
    }

    /// Who comes after the stop has begun is not among them, or a busy service would never stop.
    fn takes_queued(&self) -> bool {
        self.work.totals().take_queued()
    }

    /// A lone datagram is received by itself, which is quicker; every 16th time a whole batch is
    /// asked for, and as long as batches come back with more than one, that goes on.
    fn datagrams(&mut self) -> Cause {
        let echoes = self.work.service().echoes();
        // One at a time for a handler: it may be slow while others are idle, or die of one of them.
        let mut batch = batch_for(self.work.listener(), if echoes { BATCH } else { 1 });
        let mut turn = 0_u32;
        let mut deep = false;
        self.rest();
        loop {
            turn = turn.wrapping_add(1);
            let received = if deep || turn.is_multiple_of(16) {
                batch.receive(self.gate, Patience::Wait)
            } else {
                batch.receive_one(self.gate, Patience::Wait).map(|()| 1)
            };
            match received {
                Ok(count) => {
                    deep = count > 1;
                    self.begin();
                    self.work.datagrams(&mut batch, count, echoes);
                    if self.is_spent(count as u64) && !self.work.totals().is_draining() {
                        return Cause::Recycled;
                    }
                    self.rest();
                }
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    if !self.goes_on(errno) {
                        break;
                    }
                }
            }
        }
        if self.work.totals().is_draining() {
            while self.takes_queued() && batch.receive_one(self.work.listener(), Patience::DontWait).is_ok() {
                self.work.datagrams(&mut batch, 1, echoes);
            }
        }
        Cause::Retired
    }

    /// Waits for the next one, as far as the scoreboard is concerned.
    fn rest(&self) {
        if self.elastic {
            self.work.totals().one_more_idle();
        }
        self.work.slot.set_state(State::Idle);
    }

    fn begin(&mut self) {
        self.work.slot.set_state(State::Serving);
        self.entrance.succeeded();
        if self.elastic && self.work.totals().one_fewer_idle() {
            self.work.board.wake().notify();
        }
    }

    fn is_spent(&mut self, served: u64) -> bool {
        self.served += served;
        self.limit != 0 && self.served >= self.limit
    }

    /// Whether to try again.
    fn goes_on(&mut self, error: Errno) -> bool {
        match self.entrance.failed(error) {
            Nobody::Comes => return false,
            Nobody::Yet => {}
            // the daemon has begun to stop, and its signal is on the way
            Nobody::Waits => _ = wait_readable(self.work.listener(), REST),
            Nobody::Fits => std::thread::sleep(REST),
        }
        true
    }
}
