//! A pool of workers: the worker's side.
//!
//! All workers of a pool block in accept(2) on one shared listener: the kernel wakes one for each
//! connection, in turn; nothing is stranded behind a busy worker, and there is no lock that a dead
//! one could leave locked. A worker serves one connection at a time and learns through its
//! [`Gate`] that it should leave.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::serve::{Work, batch_for, concerns_one_connection};
use crate::events;
use crate::log::{RateLimit, Spell};
use crate::scoreboard::{Cause, State};
use crate::sys::datagram::Patience;
use crate::sys::fd::{Gate, wait_readable};
use crate::transport::Peer;
use crate::transport::listener::Kind;

/// The pause after accept(2) has found no descriptor or no memory.
const REST: Duration = Duration::from_millis(100);

/// Datagrams taken at once when they come faster than one at a time.
const BATCH: usize = 8;

/// Serves until told to leave, or until `limit` connections are done (0: no limit).
///
/// A worker of an `elastic` pool counts itself while it is idle.
pub(crate) fn run(work: &Work<'_>, gate: &Gate, limit: u64, elastic: bool) -> Cause {
    let mut worker = Worker {
        work,
        gate,
        limit,
        served: 0,
        elastic,
        starved: Spell::default(),
        failures: RateLimit::default(),
    };
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
    /// accept(2) finds no descriptor or no memory.
    starved: Spell,
    failures: RateLimit,
}

/// Why there is nothing to serve.
enum Nothing {
    /// Look again.
    Yet,
    /// The gate is shut: leave.
    More,
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
                Err(error) => match self.nothing(error) {
                    Nothing::Yet => {}
                    Nothing::More => break,
                },
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
                batch.receive(self.gate)
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
                    match self.nothing(errno) {
                        Nothing::Yet => {}
                        Nothing::More => break,
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
        if self.starved.end() {
            events::descriptors_back(self.work.listener().endpoint());
        }
        if self.elastic && self.work.totals().one_fewer_idle() {
            self.work.board.wake().notify();
        }
    }

    fn is_spent(&mut self, served: u64) -> bool {
        self.served += served;
        self.limit != 0 && self.served >= self.limit
    }

    fn nothing(&mut self, error: Errno) -> Nothing {
        let endpoint = self.work.listener().endpoint();
        match error {
            // a gate that is shut is no socket, and a listener that is shut does not listen
            Errno::NOTSOCK | Errno::INVAL => return Nothing::More,
            // the daemon has begun to stop, and its signal is on the way
            Errno::AGAIN => _ = wait_readable(self.work.listener(), REST),
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                if self.starved.begin(Instant::now()) {
                    events::descriptors_exhausted(endpoint, &error);
                }
                std::thread::sleep(REST);
            }
            error if concerns_one_connection(error) => {}
            error => {
                if let Some(suppressed) = self.failures.admit(Instant::now()) {
                    events::accept_failed(endpoint, &error, suppressed);
                }
                std::thread::sleep(REST);
            }
        }
        Nothing::Yet
    }
}
