//! Coroutines, the worker's side: one for each connection, and the one that accepts is the main function.
//!
//! A client that has to be waited for costs the others nothing. One whose handler computes, or calls what
//! blocks, holds up all clients of this worker.

mod tasks;

use std::cell::RefCell;
use std::io;
use std::mem::replace;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tasks::{ConnectionGuard, Tasks, contained};

use super::accept_loop::{self, Acceptor, BATCH, Driver};
use super::listener_context::{Admitted, peer_of};
use super::serve::{Terms, WorkerContext, batch_for};
use super::spread::{LOOK, Shares, Spread};
use super::yielding::Yielding;
use crate::admission::{REST, Room};
use crate::coroutine::{self, JoinHandle, Waiter, scheduler};
use crate::fairness::TURN;
use crate::scoreboard::Cause;
use crate::service::Service;
use crate::sys::datagram::Batch;
use crate::sys::limits::raise_open_files;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::transport::listener::Kind;
use crate::transport::{Listener, Ready};
use crate::{Error, events};

/// What a client that is accepted counts in bytes: after some clients, those that are served have their turn.
const ENTRY: usize = TURN / 16;
/// The most datagrams that wait for their handlers: each has a buffer for the largest. Others wait in the socket.
const DATAGRAMS: u32 = 256;

/// Serves until the shutdown, or until the limit is reached.
pub(crate) fn run(work: &WorkerContext<'_>, shutdown: &ShutdownFd, terms: &Terms) -> Cause {
    if work.ticker.is_none() {
        // this process is the server's own
        raise_open_files();
    }
    if work.listener().kind() == Kind::Stream {
        // it fails only for what is no open file
        let _ = work.listener().set_nonblocking(true);
    }
    let main = || {
        let mut worker = Worker::new(work, shutdown, terms);
        worker.watch_shutdown()?;
        worker.yields();
        let ticker = worker.spawn_ticker();
        if !work.comes_up(1) {
            return Ok(Cause::Failed);
        }
        let cause = accept_loop::run(work, shutdown, &mut worker);
        worker.finish();
        match ticker.filter(JoinHandle::is_finished).map(JoinHandle::join) {
            // the application's own work, which is not ours to judge
            Some(Err(payload)) => resume_unwind(payload),
            _ => Ok(cause),
        }
    };
    coroutine::run(main).flatten().unwrap_or_else(|error| {
        events::worker_cannot_start(&Error::os("cannot make a scheduler", error));
        Cause::Failed
    })
}

struct Worker<'a> {
    work: &'a WorkerContext<'a>,
    shutdown: &'a ShutdownFd,
    terms: &'a Terms,
    /// How many it serves at once.
    most: u32,
    served: u64,
    tasks: Rc<Tasks>,
    /// Waits for the listener, and is roused at the shutdown.
    waiter: Rc<Waiter>,
    batches: Batches,
    spread: Spread,
}

/// As a prefork worker, with whole batches of datagrams where no answer is waited for, and else a coroutine for each
/// client.
impl Driver for Worker<'_> {
    const POLLS: bool = true;

    fn connection(&mut self, Admitted { socket, peer, ticket }: Admitted) {
        let (counted, early) = (self.work.count(ticket), self.work.early());
        let shares = self.shares();
        self.spread.took(shares, Instant::now);
        let guard = ConnectionGuard::take(&self.tasks, peer);
        coroutine::spawn(move || {
            let (work, waiter) = (guard.0.work(), Waiter::of_connection());
            let mut connection = work.connection(socket, peer, early).waiting(&waiter);
            if let Err(payload) = contained(|| work.serve_timed(&mut connection)) {
                // a proxy may have named another client
                work.panicked(connection.peer(), &*payload);
            }
            drop(counted);
            connection.close();
        });
    }

    fn datagrams(&mut self, batch: &mut Batch, count: usize) {
        if !self.work.service().is_handler() {
            self.tasks.begin();
            self.work.datagrams(batch, count);
            self.tasks.end();
            return;
        }
        let (peer, batches) = (peer_of(&batch.datagram(0)), self.batches.clone());
        let (guard, mut batch) = (ConnectionGuard::take(&self.tasks, peer), replace(batch, batches.take()));
        coroutine::spawn(move || {
            let work = guard.0.work();
            if let Err(payload) = contained(|| work.datagrams(&mut batch, 1)) {
                work.panicked(peer, &*payload);
            }
            batches.put_back(batch);
        });
    }

    fn goes_on(&mut self, served: u64) -> bool {
        self.served += served;
        !self.work.is_spent(self.terms, self.served)
    }

    /// One at a time for a handler, which has a coroutine for each.
    fn at_once(&self, service: &Service) -> usize {
        if service.is_handler() { 1 } else { BATCH }
    }

    /// Waits for a client, or for the stop; lets others have their turn now and then.
    fn wait_for_client(&mut self) {
        // it fails where there is no memory for it
        if self.waiter.ready(self.work.listener().as_fd(), Ready::Read).is_err() {
            coroutine::sleep(REST);
        }
    }

    fn room(&mut self) -> Room {
        // datagrams are nothing that stays
        let stays = self.work.listener().kind() == Kind::Stream;
        let shares = self.shares();
        match self.tasks.open() < self.most {
            false => Room::Full,
            true if stays && !self.spread.takes(shares, Instant::now) => Room::Elsewhere,
            true => Room::Free,
        }
    }

    fn leave_to_others(&mut self) -> bool {
        // a client that comes meanwhile makes it ready again
        self.waiter.exhausted(Ready::Read, true);
        coroutine::sleep(LOOK);
        if self.work.is_still_queued(&mut self.spread, self.tasks.open()) {
            self.waiter.rouse();
        }
        !self.tasks.is_closed()
    }

    fn wait_for_room(&mut self, acceptor: &mut Acceptor<'_>) -> bool {
        if self.work.listener().kind() == Kind::Stream {
            acceptor.report_full(self.most, events::connections_at_limit);
        }
        self.tasks.wait_until_fewer_than(self.most, !acceptor.drains(), None);
        !self.tasks.is_closed()
    }

    fn enter<T>(
        &mut self,
        queued: bool,
        mut call: impl FnMut() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        // A client that comes in is served, so there is a stack for it.
        scheduler().map_or(Ok(()), |scheduler| scheduler.reserve()).map_err(|_| Errno::NOMEM)?;
        if queued {
            return call();
        }
        if self.tasks.is_closed() {
            return Err(Errno::NOTSOCK);
        }
        let entered = call();
        match &entered {
            Ok(_) => self.waiter.moved(ENTRY),
            Err(Errno::AGAIN) => {
                self.work.found_none(&mut self.spread);
                self.waiter.exhausted(Ready::Read, true);
            }
            Err(_) => {}
        }
        entered
    }

    fn pause(&mut self, length: Duration) {
        coroutine::sleep(length);
    }
}

impl<'a> Worker<'a> {
    fn shares(&self) -> Shares {
        self.work.shares(self.tasks.open())
    }

    fn new(work: &'a WorkerContext<'a>, shutdown: &'a ShutdownFd, terms: &'a Terms) -> Self {
        let most = match work.listener().kind() {
            Kind::Stream => terms.max_connections,
            Kind::Datagram => DATAGRAMS,
        };
        let (tasks, batches) = (Tasks::of(work), Batches::new(work));
        Self {
            work,
            shutdown,
            terms,
            most,
            served: 0,
            tasks,
            waiter: Rc::default(),
            batches,
            spread: Spread::default(),
        }
    }

    /// Has the waiter look again at the shutdown.
    fn watch_shutdown(&self) -> io::Result<()> {
        let shutdown_fd = self.shutdown.poll_fd().try_clone_to_owned()?;
        let end = End(Rc::clone(&self.tasks), Rc::clone(&self.waiter));
        coroutine::spawn(move || {
            // it fails where there is no memory for it
            while Waiter::default().until(shutdown_fd.as_fd(), Ready::Read, None).is_err() {
                coroutine::sleep(REST);
            }
            drop(end);
        });
        Ok(())
    }

    /// Lets other workers have the processor now and then.
    fn yields(&self) {
        let (tasks, mut yielding) = (Rc::clone(&self.tasks), Yielding::default());
        if let Some(scheduler) = scheduler() {
            scheduler.after_rounds(move |turns| tasks.work().let_others_run(&mut yielding, turns));
        }
    }

    /// In a process that is not this server's own: does what is to be done now and then.
    fn spawn_ticker(&self) -> Option<JoinHandle<()>> {
        self.work.ticker?;
        let end = End(Rc::clone(&self.tasks), Rc::clone(&self.waiter));
        Some(coroutine::spawn(move || {
            while let Some(pause) = end.0.work().tick() {
                coroutine::sleep(pause);
            }
        }))
    }

    /// Serves those that are in to their end, as long as there is time, and leaves the others to be unwound.
    fn finish(&self) {
        self.work.leaves();
        self.work.tell_of_stop();
        if self.terms.waits {
            self.tasks.wait_until_fewer_than(1, false, self.work.serves_until(self.terms));
        }
    }
}

/// When it is dropped, no client is accepted any more.
struct End(Rc<Tasks>, Rc<Waiter>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
        self.1.rouse();
    }
}

/// Buffers for one datagram each, which are used again.
#[derive(Clone)]
struct Batches {
    idle: Rc<RefCell<Vec<Batch>>>,
    listener: Arc<Listener>,
}

impl Batches {
    fn new(work: &WorkerContext<'_>) -> Self {
        Self { idle: Rc::default(), listener: Arc::clone(&work.context.listener) }
    }

    fn take(&self) -> Batch {
        let idle = self.idle.borrow_mut().pop();
        idle.unwrap_or_else(|| batch_for(&self.listener, 1))
    }

    fn put_back(&self, batch: Batch) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < BATCH {
            idle.push(batch);
        }
    }
}
