//! A thread for each connection, and for each datagram of a handler, which may be slow.
//!
//! The main thread accepts. At the limit, and while no thread can be started, it takes no client in. A thread whose
//! client has gone is kept for a moment ([`KEPT`]) and serves the next one, if one comes: to start and end a thread
//! takes eleven system calls, to wake one takes two, and none if it does not sleep yet.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::accept_loop::{self, Acceptor, Driver};
use super::super::listener_context::Admitted;
use super::super::spread::{LOOK, Shares, Spread};
use super::{Shared, Terms, WorkerContext, connection, datagrams, peer_of, waits_until};
use crate::access::sources::Counted;
use crate::admission::{REST, Room, Shortage};
use crate::events;
use crate::limit::RateLimit;
use crate::scoreboard::Cause;
use crate::sys::datagram::{Batch, Datagram};
use crate::sys::fd::{first_readable, wait_readable};
use crate::sys::shutdown_fd::ShutdownFd;
use crate::sys::tcp::was_reset;
use crate::sys::thread::spawn;
use crate::sys::wake::Wake;
use crate::transport::early::Early;
use crate::transport::{Peer, Refusal};

/// For how long a thread without a client is kept.
const KEPT: Duration = Duration::from_secs(1);

/// The client that a thread is started for.
enum Client {
    Connection(OwnedFd, Peer, Option<Counted>, Early),
    Datagram(Box<Batch>, Peer, Option<Counted>),
}

impl Client {
    fn peer(&self) -> Peer {
        match *self {
            Self::Connection(_, peer, ..) | Self::Datagram(_, peer, _) => peer,
        }
    }
}

/// Where a thread without a client waits for its next one.
#[derive(Default)]
struct Mailbox {
    next: Mutex<Next>,
    came: Condvar,
}

#[derive(Default)]
enum Next {
    #[default]
    Nothing,
    /// Nothing, and its thread sleeps until something comes.
    Awaited,
    Client(Client),
    /// There will be no other client.
    End,
}

impl Mailbox {
    fn put(&self, next: Next) {
        let before = std::mem::replace(&mut *lock(&self.next), next);
        if let Next::Awaited = before {
            self.came.notify_one();
        }
    }
}

/// Nothing that is done under a lock can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads have in common.
struct ThreadGroup {
    shared: Shared,
    /// Those that wait for a client, the one that has waited for the shortest time last; `None` when no more is
    /// waited for.
    waiting: Mutex<Option<Vec<Arc<Mailbox>>>>,
    /// The main thread waits for one of them to end.
    awaited: AtomicBool,
    wake: Wake,
}

impl ThreadGroup {
    fn work(&self) -> WorkerContext<'_> {
        self.shared.work()
    }

    /// What a thread does.
    fn serve_all(&self, first: Client, mailbox: &Arc<Mailbox>) {
        let mut next = Some(first);
        while let Some(client) = next {
            self.serve(client);
            next = self.next(mailbox);
        }
    }

    /// Waits for the next client of a thread.
    fn next(&self, mailbox: &Arc<Mailbox>) -> Option<Client> {
        lock(&self.waiting).as_mut()?.push(Arc::clone(mailbox));
        let is_empty = |next: &mut Next| matches!(next, Next::Nothing | Next::Awaited);
        let mut next = lock(&mailbox.next);
        if is_empty(&mut next) {
            *next = Next::Awaited;
        }
        let (mut next, waited) =
            mailbox.came.wait_timeout_while(next, KEPT, is_empty).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            drop(next);
            let mut waiting = lock(&self.waiting);
            let at =
                waiting.as_ref().and_then(|all| all.iter().position(|other| Arc::ptr_eq(other, mailbox)));
            if let (Some(all), Some(at)) = (waiting.as_mut(), at) {
                all.remove(at);
                return None;
            }
            drop(waiting);
            // it was taken for a client, which is on its way
            next = mailbox
                .came
                .wait_while(lock(&mailbox.next), is_empty)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::take(&mut *next) {
            Next::Client(client) => Some(client),
            Next::Nothing | Next::Awaited | Next::End => None,
        }
    }

    /// Gives a client to a thread that waits for one.
    fn hand_over(&self, client: Client) -> Result<(), Client> {
        // the lock is needed by threads that begin to wait, and so not held while one is woken
        let mailbox = lock(&self.waiting).as_mut().and_then(Vec::pop);
        match mailbox {
            Some(mailbox) => {
                mailbox.put(Next::Client(client));
                Ok(())
            }
            None => Err(client),
        }
    }

    /// Ends the threads that wait for a client, and those that serve one when it has gone.
    fn end_waiting(&self) {
        let waiting = lock(&self.waiting).take();
        waiting.into_iter().flatten().for_each(|mailbox| mailbox.put(Next::End));
    }

    fn serve(&self, client: Client) {
        let work = self.work();
        match client {
            Client::Connection(socket, peer, counted, early) => {
                connection(&work, socket, peer, early, || {
                    drop(counted);
                    self.end();
                })
            }
            Client::Datagram(mut batch, _, counted) => {
                let counted = Cell::new(counted);
                // the application has been asked
                let admit = |datagram: &Datagram<'_>| Ok((work.udp_filter.admit(datagram)?, counted.take()));
                let answer = |batch: &mut Batch| work.datagrams_if(batch, 1, admit);
                datagrams(&work, &mut batch, answer, || self.end());
            }
        }
    }

    /// The counter is changed before the flag is looked at, and the main thread does it the other way round:
    /// one of the two sees the other.
    fn end(&self) {
        self.shared.end();
        if self.awaited.load(Ordering::SeqCst) {
            self.wake.notify();
        }
    }

    /// Waits until no more than `most` are served, until the shutdown, or until then; tells whether they are so few.
    fn wait_for(&self, most: u32, shutdown: Option<&ShutdownFd>, until: Option<Instant>) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        let work = self.work();
        while self.shared.open() > most {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            let limit = work.tick().into_iter().chain(left).min();
            match first_readable(
                &[self.wake.as_fd(), shutdown.map_or(self.wake.as_fd(), ShutdownFd::poll_fd)],
                limit,
            ) {
                Some(0) => self.wake.drain(),
                Some(_) => break,
                None => {}
            }
        }
        self.awaited.store(false, Ordering::SeqCst);
        self.shared.open() <= most
    }

    /// Waits until one ends, at most for `pause`.
    fn rest(&self, pause: Duration) {
        self.awaited.store(true, Ordering::SeqCst);
        if wait_readable(&self.wake, pause) {
            self.wake.drain();
        }
        self.awaited.store(false, Ordering::SeqCst);
    }
}

pub(super) fn run(shared: Shared, shutdown: &Arc<ShutdownFd>, terms: &Terms, most: u32) -> Cause {
    let wake = match Wake::new() {
        Ok(wake) => wake,
        Err(error) => {
            events::no_threads(shared.work().listener().endpoint(), &error);
            return Cause::Failed;
        }
    };
    let group = Arc::new(ThreadGroup {
        shared,
        waiting: Mutex::new(Some(Vec::new())),
        awaited: AtomicBool::new(false),
        wake,
    });
    let work = group.work();
    // a worker that can't start a single thread serves no client
    match spawn(c"connection", || {}) {
        Ok(thread) => thread.join(),
        Err((_, error)) => {
            events::no_threads(work.listener().endpoint(), &error);
            return Cause::Failed;
        }
    }
    // the main thread goes on to accept while the client's own serves it
    if !work.comes_up(2) {
        return Cause::Failed;
    }
    let mut driver = MainThread {
        group: &group,
        work: &work,
        shutdown,
        most,
        terms: *terms,
        served: 0,
        spread: Spread::default(),
        shortage: Shortage::default(),
        refusals: RateLimit::default(),
    };
    let mut cause = accept_loop::run(&work, shutdown, &mut driver);
    work.leaves();
    if cause == Cause::Recycled {
        // a stop may begin before the master has seen that, and then this worker is to serve the queue
        group.wait_for(0, Some(shutdown), None);
        if work.is_draining() {
            cause = accept_loop::run(&work, shutdown, &mut driver);
        }
    }
    group.end_waiting();
    work.tell_of_stop();
    if terms.waits {
        group.wait_for(0, None, waits_until(&work, terms));
    }
    cause
}

/// The main thread.
struct MainThread<'a> {
    group: &'a Arc<ThreadGroup>,
    work: &'a WorkerContext<'a>,
    shutdown: &'a ShutdownFd,
    most: u32,
    terms: Terms,
    /// For how many clients a thread was started.
    served: u64,
    /// No thread can be started.
    spread: Spread,
    shortage: Shortage,
    refusals: RateLimit,
}

impl Driver for MainThread<'_> {
    fn connection(&mut self, Admitted { socket, peer, ticket }: Admitted) {
        let (counted, early) = (self.work.count(ticket), self.work.early());
        let shares = self.shares();
        self.spread.took(shares, Instant::now);
        // In a crowd no thread is started for a connection that its client has reset: Linux hands that one over, too.
        if self.group.shared.open() == 0 || !was_reset(&socket) {
            self.start(Client::Connection(socket, peer, counted, early));
        }
    }

    fn datagrams(&mut self, batch: &mut Batch, _: usize) {
        let (work, datagram) = (self.work, batch.datagram(0));
        match work.context.admit_datagram(work.udp_filter, &datagram) {
            Ok((_, ticket)) => {
                let counted = work.count(ticket);
                self.start(Client::Datagram(Box::new(batch.copy_of(0)), peer_of(&datagram), counted));
            }
            // no thread for one that gets no answer
            Err(why) => work.board.refuse(work.context.number, why),
        }
    }

    fn goes_on(&mut self, _: u64) -> bool {
        !self.work.is_spent(&self.terms, self.served)
    }

    fn room(&mut self) -> Room {
        let shares = self.shares();
        match self.group.shared.open() < self.most {
            false => Room::Full,
            true if self.spread.takes(shares, Instant::now) => Room::Free,
            true => Room::Elsewhere,
        }
    }

    /// In accept(2) it would take the next client, so it waits for one here.
    fn leave_to_others(&mut self) -> bool {
        let (stop, listener) = (self.shutdown.poll_fd(), self.work.listener().as_fd());
        if first_readable(&[stop, listener], None) == Some(0) || first_readable(&[stop], Some(LOOK)).is_some()
        {
            return false;
        }
        self.work.is_still_queued(&mut self.spread, self.group.shared.open());
        true
    }

    fn wait_for_room(&mut self, acceptor: &mut Acceptor<'_>) -> bool {
        acceptor.report_full(self.most, events::at_thread_limit);
        self.group.wait_for(self.most - 1, (!acceptor.drains()).then_some(self.shutdown), None)
    }

    /// Clients that are served have what is wanted.
    fn pause(&mut self, length: Duration) {
        self.group.rest(length);
    }
}

impl MainThread<'_> {
    fn shares(&self) -> Shares {
        self.work.shares(self.group.shared.open())
    }

    /// Starts a thread for a client, which is held while that fails; at a stop for as long as the grace time lasts.
    fn start(&mut self, client: Client) {
        let (group, peer, endpoint) =
            (Arc::clone(self.group), client.peer(), self.work.listener().endpoint());
        self.work.slot.set_peer(peer);
        group.shared.begin();
        let client = match group.hand_over(client) {
            Ok(()) => return self.started(),
            Err(client) => client,
        };
        self.work.slot.threads.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::default();
        let mut body = move || {
            group.serve_all(client, &mailbox);
            group.work().slot.threads.fetch_sub(1, Ordering::Relaxed);
        };
        let mut stops_at = None;
        loop {
            let error = match spawn(c"connection", body) {
                Ok(_) => break,
                Err((back, error)) => {
                    body = back;
                    error
                }
            };
            let now = Instant::now();
            if self.shortage.failed(now) {
                events::threads_failing(endpoint, &error);
            }
            self.work.board.tally(self.work.context.number).thread_failed();
            self.work.slot.held.store(1, Ordering::Relaxed);
            if self.shutdown.is_shut() && now >= *stops_at.get_or_insert(now + self.terms.grace) {
                return self.give_up(peer);
            }
            self.group.rest(self.shortage.retry_at().map_or(REST, |then| then - now));
        }
        self.started();
    }

    /// A client has its thread.
    fn started(&mut self) {
        self.served += 1;
        if self.shortage.retry_at().is_none() {
            return;
        }
        self.work.slot.held.store(0, Ordering::Relaxed);
        if self.shortage.worked(Instant::now()).is_some() {
            events::threads_work_again(self.work.listener().endpoint());
        }
    }

    fn give_up(&mut self, peer: Peer) {
        let work = self.work;
        self.group.shared.end();
        work.slot.threads.fetch_sub(1, Ordering::Relaxed);
        work.slot.held.store(0, Ordering::Relaxed);
        work.board.refuse(work.context.number, Refusal::Thread);
        if let Some(suppressed) = self.refusals.admit(Instant::now()) {
            events::no_thread_for(peer, work.listener().endpoint(), suppressed);
        }
    }
}
