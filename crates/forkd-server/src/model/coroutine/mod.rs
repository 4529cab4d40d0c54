//! Coroutines, the worker's side: one for each connection, and the one that accepts is the main function.
//!
//! A client that has to be waited for costs the others nothing. One whose handler computes, or calls what
//! blocks, holds up all clients of this worker.

mod room;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;

use room::{Room, Seat, contained};
use rustix::io::Errno;

use super::entrance::{Entrance, Nobody, REST, errno};
use super::serve::{Work, batch_for, peer_of};
use super::worker::Terms;
use crate::coroutine::{self, JoinHandle, Waiter, scheduler};
use crate::fairness::TURN;
use crate::scoreboard::Cause;
use crate::sys::datagram::{Batch, Patience};
use crate::sys::fd::Gate;
use crate::sys::limits::raise_open_files;
use crate::transport::listener::Kind;
use crate::transport::{Listener, Peer, Ready, Wait};
use crate::{Error, events};

/// Datagrams taken at once, where no answer is waited for.
const BATCH: usize = 8;
/// What a client that comes in counts: after so many, those that are in have their turn.
const ENTRY: usize = TURN / 16;
/// How many datagrams wait for their handlers at most: each has a buffer for the largest. Others wait in the
/// socket.
const DATAGRAMS: u32 = 256;

/// Serves until the gate is shut, or the limit is reached.
pub(crate) fn run(work: &Work<'_>, gate: &Gate, terms: &Terms) -> Cause {
    if work.turns.is_none() {
        // this process is the server's own
        raise_open_files();
    }
    if work.listener().kind() == Kind::Stream {
        // it fails only for what is no open file
        let _ = work.listener().set_nonblocking(true);
    }
    let main = || {
        let mut worker = Worker::new(work, gate, terms);
        worker.heed_the_bell()?;
        let turns = worker.take_turns();
        if !work.comes_up(1) {
            return Ok(Cause::Failed);
        }
        let cause = match work.listener().kind() {
            Kind::Stream => worker.connections(),
            Kind::Datagram => worker.datagrams(),
        };
        match turns.filter(JoinHandle::is_finished).map(JoinHandle::join) {
            // the application's own work, which is not ours to judge
            Some(Err(payload)) => resume_unwind(payload),
            _ => Ok(cause),
        }
    };
    coroutine::run(main).flatten().unwrap_or_else(|error| {
        log::error!("{}", Error::os("worker cannot start", error).sentence());
        Cause::Failed
    })
}

struct Worker<'a> {
    work: &'a Work<'a>,
    gate: &'a Gate,
    terms: &'a Terms,
    served: u64,
    entrance: Entrance<'a>,
    room: Rc<Room>,
    /// Waits for the listener, and is roused when the gate is shut.
    doorway: Rc<Waiter>,
}

impl<'a> Worker<'a> {
    fn new(work: &'a Work<'a>, gate: &'a Gate, terms: &'a Terms) -> Self {
        let (entrance, room) = (Entrance::new(work), Room::of(work));
        Self { work, gate, terms, served: 0, entrance, room, doorway: Rc::default() }
    }

    fn connections(&mut self) -> Cause {
        loop {
            self.wait_for_place();
            match self.come_in(|| self.work.accept_nonblocking(self.gate)) {
                Ok((socket, peer)) => {
                    self.entrance.succeeded();
                    self.seat(socket, peer);
                    if self.is_spent(1) {
                        return self.finish(Cause::Recycled);
                    }
                }
                Err(error) if self.goes_on(error) => {}
                Err(_) => break,
            }
        }
        self.drain(|worker| {
            worker.room.wait_until_fewer_than(worker.terms.max_connections);
            worker.reserve()?;
            let (socket, peer) = worker.work.accept_queued(false)?;
            worker.seat(socket, peer);
            Ok(())
        });
        self.finish(Cause::Retired)
    }

    /// Waits for a client, or for the bell; lets others have their turn now and then.
    fn come_in<T>(&self, mut enter: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        self.reserve()?;
        let mut entered = None;
        let mut call = || {
            if self.room.is_closed() {
                return Err(Errno::NOTSOCK);
            }
            entered = Some(enter()?);
            Ok(ENTRY)
        };
        match self.doorway.attempt(self.work.listener().as_fd(), Ready::Read, 0, &mut call) {
            Ok(_) => entered.ok_or(Errno::AGAIN),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Makes sure that there is a stack for one more: who comes in is served.
    fn reserve(&self) -> rustix::io::Result<()> {
        scheduler().map_or(Ok(()), |scheduler| scheduler.reserve()).map_err(|_| Errno::NOMEM)
    }

    /// Serves a client in a coroutine of its own.
    fn seat(&self, socket: OwnedFd, peer: Peer) {
        let seat = Seat::take(&self.room, peer);
        coroutine::spawn(move || {
            let waiter = Waiter::of_connection(seat.0.work().post.offer.idle_timeout);
            contained(&seat.0, peer, || {
                seat.0.work().waiting_connection(socket, peer, &waiter).1.close();
            });
        });
    }

    /// As a prefork worker, with whole batches where no answer is waited for, and else a coroutine for each.
    fn datagrams(&mut self) -> Cause {
        let batches = Batches::new(self.work);
        loop {
            let mut batch = batches.take();
            let received =
                self.come_in(|| batch.receive(self.gate, Patience::DontWait).map_err(|error| errno(&error)));
            match received {
                Ok(count) => {
                    self.entrance.succeeded();
                    self.answer(batch, count, &batches);
                    if self.is_spent(count as u64) {
                        return self.finish(Cause::Recycled);
                    }
                }
                Err(error) if self.goes_on(error) => batches.put_back(batch),
                Err(_) => break,
            }
        }
        self.drain(|worker| {
            worker.reserve()?;
            let mut batch = batches.take();
            let mut receive = || batch.receive_one(worker.work.listener(), Patience::DontWait);
            worker.work.take_queued(|| receive().map_err(|error| errno(&error)))?;
            worker.answer(batch, 1, &batches);
            Ok(())
        });
        self.finish(Cause::Retired)
    }

    /// At a stop, serves those that are queued.
    fn drain(&mut self, mut take_one: impl FnMut(&Self) -> rustix::io::Result<()>) {
        if !self.work.is_draining() {
            return;
        }
        loop {
            match take_one(self) {
                Ok(()) => self.entrance.succeeded(),
                Err(error) if self.entrance.goes_on_draining(error, || coroutine::sleep(REST)) => {}
                Err(_) => break,
            }
        }
        // who comes now shall go elsewhere, while others are served
        self.work.listener().refuse();
    }

    fn answer(&self, mut batch: Batch, count: usize, batches: &Batches) {
        if !self.work.service().is_handler() {
            self.room.begin();
            self.work.datagrams(&mut batch, count, self.work.service().echoes());
            batches.put_back(batch);
            self.room.end();
            return;
        }
        self.room.wait_until_fewer_than(DATAGRAMS);
        let peer = peer_of(&batch.datagram(0));
        let (seat, batches) = (Seat::take(&self.room, peer), batches.clone());
        coroutine::spawn(move || {
            let work = seat.0.work();
            contained(&seat.0, peer, || work.datagrams(&mut batch, 1, false));
            batches.put_back(batch);
        });
    }

    /// Has the doorway look again when the gate is shut.
    fn heed_the_bell(&self) -> io::Result<()> {
        let bell = self.gate.bell().try_clone_to_owned()?;
        let end = End(Rc::clone(&self.room), Rc::clone(&self.doorway));
        coroutine::spawn(move || {
            // it fails where there is no memory for it
            while Waiter::default().until(bell.as_fd(), Ready::Read, None).is_err() {
                coroutine::sleep(REST);
            }
            drop(end);
        });
        Ok(())
    }

    /// In a process that is not this server's own: does what is to be done now and then.
    fn take_turns(&self) -> Option<JoinHandle<()>> {
        self.work.turns?;
        let end = End(Rc::clone(&self.room), Rc::clone(&self.doorway));
        Some(coroutine::spawn(move || {
            while let Some(pause) = end.0.work().turn() {
                coroutine::sleep(pause);
            }
        }))
    }

    /// At the limit, waits until one has been served, or nobody is to come in any more.
    fn wait_for_place(&mut self) {
        let most = self.terms.max_connections;
        if self.room.open() < most {
            return;
        }
        self.entrance.full(most, events::connections_at_limit);
        self.room.wait_for_place(most);
    }

    /// Whether this one was its last client. At a stop there is no other worker to take its place.
    fn is_spent(&mut self, served: u64) -> bool {
        self.served += served;
        self.work.is_spent(self.terms, self.served)
    }

    /// Whether to try again, after a while.
    fn goes_on(&mut self, error: Errno) -> bool {
        match self.entrance.failed(error) {
            Nobody::Comes => return false,
            // the doorway waits
            Nobody::Yet | Nobody::Waits => {}
            Nobody::Fits => coroutine::sleep(REST),
        }
        true
    }

    /// Serves those that are in to their end, or leaves them to be unwound.
    fn finish(&self, cause: Cause) -> Cause {
        self.work.leaves();
        if self.terms.waits {
            self.room.wait_until_fewer_than(1);
        }
        cause
    }
}

/// When it is dropped, nobody is to come in any more.
struct End(Rc<Room>, Rc<Waiter>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
        self.1.rouse();
    }
}

/// Buffers for datagrams, which are used again.
#[derive(Clone)]
struct Batches {
    idle: Rc<RefCell<Vec<Batch>>>,
    capacity: usize,
    listener: Arc<Listener>,
}

impl Batches {
    fn new(work: &Work<'_>) -> Self {
        // One at a time for a handler, which has a coroutine for each.
        let capacity = if work.service().is_handler() { 1 } else { BATCH };
        Self { idle: Rc::default(), capacity, listener: Arc::clone(&work.post.listener) }
    }

    fn take(&self) -> Batch {
        let idle = self.idle.borrow_mut().pop();
        idle.unwrap_or_else(|| batch_for(&self.listener, self.capacity))
    }

    fn put_back(&self, batch: Batch) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < BATCH {
            idle.push(batch);
        }
    }
}
