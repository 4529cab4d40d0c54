//! A thread for each connection, and for each datagram of a handler, which may be slow.
//!
//! The main thread accepts. At the limit, and while no thread can be started, it takes nobody in.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::super::entrance::{Entrance, REST, errno};
use super::super::serve::{batch_for, unless_reset};
use super::super::turns::somebody_comes;
use super::{Shared, Terms, Work, connection, datagrams, peer_of};
use crate::events;
use crate::limit::{Episode, RateLimit};
use crate::scoreboard::Cause;
use crate::sys::datagram::{Batch, Datagram, Patience};
use crate::sys::fd::{Gate, first_readable, wait_readable};
use crate::sys::thread::spawn;
use crate::sys::wake::Wake;
use crate::transport::listener::Kind;
use crate::transport::{Peer, Refusal};

/// The first pause after a thread that could not be started; doubles up to the longest, as with fork.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whom a thread is started for.
enum Client {
    Connection(OwnedFd, Peer),
    Datagram(Box<Batch>, Peer),
}

impl Client {
    fn peer(&self) -> Peer {
        match *self {
            Self::Connection(_, peer) | Self::Datagram(_, peer) => peer,
        }
    }
}

/// What the threads have in common.
struct Crew {
    shared: Shared,
    /// The main thread waits for one of them to end.
    awaited: AtomicBool,
    wake: Wake,
}

impl Crew {
    fn work(&self) -> Work<'_> {
        self.shared.work()
    }

    fn serve(&self, client: Client) {
        let work = self.work();
        match client {
            Client::Connection(socket, peer) => connection(&work, socket, peer, || self.end()),
            Client::Datagram(mut batch, _) => {
                // the application has been asked
                let admit = |datagram: &Datagram<'_>| work.guard.admit(datagram);
                let answer = |batch: &mut Batch| work.datagrams_if(batch, 1, false, admit);
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

    /// Waits until no more than `most` are served, or the gate is shut.
    fn wait_for(&self, most: u32, gate: Option<&Gate>) {
        self.awaited.store(true, Ordering::SeqCst);
        let work = self.work();
        while self.shared.open() > most {
            let limit = work.turn();
            match first_readable(&[self.wake.as_fd(), gate.map_or(self.wake.as_fd(), Gate::bell)], limit) {
                Some(0) => self.wake.drain(),
                Some(_) => break,
                None => {}
            }
        }
        self.awaited.store(false, Ordering::SeqCst);
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

pub(super) fn run(shared: Shared, gate: &Arc<Gate>, terms: &Terms, most: u32) -> Cause {
    let wake = match Wake::new() {
        Ok(wake) => wake,
        Err(error) => {
            events::no_threads(shared.work().listener().endpoint(), &error);
            return Cause::Failed;
        }
    };
    let crew = Arc::new(Crew { shared, awaited: AtomicBool::new(false), wake });
    let work = crew.work();
    let datagrams = work.listener().kind() == Kind::Datagram;
    let mut reception = Reception {
        crew: &crew,
        work: &work,
        gate,
        most,
        terms: *terms,
        entrance: Entrance::new(&work),
        batch: datagrams.then(|| batch_for(work.listener(), 1)),
        shortage: Episode::default(),
        refusals: RateLimit::default(),
    };
    // one that can't start a single thread serves nobody
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
    reception.serve()
}

/// The main thread.
struct Reception<'a> {
    crew: &'a Arc<Crew>,
    work: &'a Work<'a>,
    gate: &'a Gate,
    most: u32,
    terms: Terms,
    entrance: Entrance<'a>,
    /// For datagrams: the one in hand.
    batch: Option<Batch>,
    /// No thread can be started.
    shortage: Episode,
    refusals: RateLimit,
}

impl Reception<'_> {
    fn serve(&mut self) -> Cause {
        let work = self.work;
        let cause = self.receive();
        work.leaves();
        if cause == Cause::Recycled {
            // a stop may begin before the master has seen that, and then this worker is to serve the queue
            self.crew.wait_for(0, Some(self.gate));
        }
        let drains = work.is_draining();
        if drains {
            self.drain();
            // who comes now shall go elsewhere, while others are served
            work.listener().refuse();
        }
        if self.terms.waits {
            self.crew.wait_for(0, None);
        }
        if drains { Cause::Retired } else { cause }
    }

    /// Until the gate is shut, or the limit of connections is reached.
    fn receive(&mut self) -> Cause {
        let mut served = 0;
        loop {
            self.wait_for_room(Some(self.gate));
            if !somebody_comes(self.work, self.gate) {
                return Cause::Retired;
            }
            match self.next(Some(self.gate)) {
                Ok(client) => {
                    self.entrance.succeeded();
                    if let Some(client) = client {
                        self.start(client);
                        served += 1;
                    }
                    if self.work.is_spent(&self.terms, served) {
                        return Cause::Recycled;
                    }
                }
                Err(error) if self.entrance.goes_on(error, self.gate) => {}
                Err(_) => return Cause::Retired,
            }
        }
    }

    /// Serves those that are queued: the listener does not block any more.
    fn drain(&mut self) {
        let (work, crew) = (self.work, self.crew);
        loop {
            self.wait_for_room(None);
            match work.take_queued(|| self.next(None)) {
                Ok(client) => {
                    self.entrance.succeeded();
                    client.into_iter().for_each(|client| self.start(client));
                }
                // clients that are served have what is wanted
                Err(error) if self.entrance.goes_on_draining(error, || crew.rest(REST)) => {}
                Err(_) => return,
            }
        }
    }

    /// At the limit, waits until one has been served, or the gate is shut.
    fn wait_for_room(&mut self, gate: Option<&Gate>) {
        if self.crew.shared.open() < self.most {
            return;
        }
        self.entrance.full(self.most, events::at_thread_limit);
        self.crew.wait_for(self.most - 1, gate);
    }

    /// The next client, who is waited for at the gate, or else one of those who were queued when a stop began;
    /// `None` if it gets no answer.
    fn next(&mut self, gate: Option<&Gate>) -> Result<Option<Client>, Errno> {
        let work = self.work;
        let Some(batch) = &mut self.batch else {
            let accept_queued = || work.post.accept_queued(work.board, true);
            let client = gate.map_or_else(accept_queued, |gate| work.accept(gate))?;
            let (socket, peer) = if self.crew.shared.open() > 0 { unless_reset(client)? } else { client };
            return Ok(Some(Client::Connection(socket, peer)));
        };
        let received = match gate {
            Some(gate) => batch.receive_one(gate, Patience::Wait),
            None => batch.receive_one(work.listener(), Patience::DontWait),
        };
        received.map_err(|error| errno(&error))?;
        let datagram = batch.datagram(0);
        if let Err(why) = work.post.admit(work.guard, &datagram) {
            // no thread for one that gets no answer
            work.board.refuse(work.post.number, why);
            return Ok(None);
        }
        Ok(Some(Client::Datagram(Box::new(batch.copy_of(0)), peer_of(&datagram))))
    }

    /// Starts a thread for a client, which is held while that fails; at a stop for as long as the grace time lasts.
    fn start(&mut self, client: Client) {
        let (crew, peer, endpoint) = (Arc::clone(self.crew), client.peer(), self.work.listener().endpoint());
        self.work.slot.set_peer(peer);
        crew.shared.begin();
        self.work.slot.threads.fetch_add(1, Ordering::Relaxed);
        let mut body = move || {
            crew.serve(client);
            crew.work().slot.threads.fetch_sub(1, Ordering::Relaxed);
        };
        let (mut stops_at, mut pause) = (None, FIRST_PAUSE);
        loop {
            let error = match spawn(c"connection", body) {
                Ok(_) => break,
                Err((back, error)) => {
                    body = back;
                    error
                }
            };
            let now = Instant::now();
            if self.shortage.begin(now) {
                events::threads_failing(endpoint, &error);
            }
            self.work.board.tally(self.work.post.number).thread_failed();
            self.work.slot.held.store(1, Ordering::Relaxed);
            if self.gate.is_shut() && now >= *stops_at.get_or_insert(now + self.terms.grace) {
                return self.give_up(peer);
            }
            self.crew.rest(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if pause > FIRST_PAUSE {
            self.work.slot.held.store(0, Ordering::Relaxed);
        }
        if self.shortage.end() {
            events::threads_work_again(endpoint);
        }
    }

    fn give_up(&mut self, peer: Peer) {
        let work = self.work;
        self.crew.shared.end();
        work.slot.threads.fetch_sub(1, Ordering::Relaxed);
        work.slot.held.store(0, Ordering::Relaxed);
        work.board.refuse(work.post.number, Refusal::Thread);
        if let Some(suppressed) = self.refusals.admit(Instant::now()) {
            events::no_thread_for(peer, work.listener().endpoint(), suppressed);
        }
    }
}
