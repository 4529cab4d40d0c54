//! One thread that serves all its connections as they become ready: the worker's side.
//!
//! The worker is a [`Reactor`] that accepts until the shutdown. All workers of a pool are told of each client, without
//! `EPOLLEXCLUSIVE`: a worker that is woken and leaves, or has no room, would then have been the only one to know of
//! it. One that is ahead of the others leaves it to them ([`spread`](super::spread)). They are told once (`EPOLLET`):
//! what a worker has left in the queue would otherwise wake it again at once. So it looks at the queue again by itself.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::accept_loop::Acceptor;
use super::listener_context::Admitted;
use super::prefork;
use super::serve::{Stopwatch, Terms, WorkerContext};
use super::service_config::{End, ServiceConfig};
use super::spread::{LOOK, Shares, Spread};
use super::yielding::Yielding;
use crate::access::sources::Counted;
use crate::admission::{Next, REST, Room, Round};
use crate::reactor::{Reactor, Session, Timer};
use crate::scoreboard::Cause;
use crate::service::Protocol;
use crate::slab::Key;
use crate::sys::limits::raise_open_files;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::transport::early::Early;
use crate::transport::listener::Kind;
use crate::transport::proxy::{HEADER_TIMEOUT, Header, ProxyVersion};
use crate::transport::{Peer, Refusal, Traffic};
use crate::{Error, events};

/// How many clients are accepted in one turn: those that are served have theirs, too.
const AT_ONCE: u32 = 16;

/// Serves until the shutdown, or until the limit is reached, and then those that it has.
pub(crate) fn run(work: &WorkerContext<'_>, shutdown: &ShutdownFd, terms: &Terms) -> Cause {
    if work.listener().kind() == Kind::Datagram {
        // One request after the other, and no protocol waits: there is nothing else to wait for.
        return prefork::run(work, shutdown, terms);
    }
    if work.ticker.is_none() {
        // this process is the server's own
        raise_open_files();
    }
    // it fails only for what is no open file
    let _ = work.listener().set_nonblocking(true);
    let worker = EventWorker {
        work,
        shutdown,
        terms,
        acceptor: RefCell::new(Acceptor::new(work)),
        shutdown_watch: Cell::new(None),
        accepting: Cell::new(Accepting::Paused),
        spread: RefCell::default(),
        next_look: Cell::new(None),
        open: Cell::new(0),
        served: Cell::new(0),
        has_left: Cell::new(false),
    };
    match worker.serve() {
        Ok(cause) => cause,
        Err(error) => {
            events::worker_cannot_start(&error);
            Cause::Failed
        }
    }
}

/// The worker's listener, and the clients that it serves.
struct EventWorker<'a> {
    work: &'a WorkerContext<'a>,
    shutdown: &'a ShutdownFd,
    terms: &'a Terms,
    acceptor: RefCell<Acceptor<'a>>,
    /// The watch for the end, until that has come.
    shutdown_watch: Cell<Option<Key>>,
    accepting: Cell<Accepting>,
    spread: RefCell<Spread>,
    /// When it looks whether clients are queued, of whom it will not be told again.
    next_look: Cell<Option<Timer>>,
    open: Cell<u32>,
    served: Cell<u64>,
    has_left: Cell<bool>,
}

/// A connection.
struct Client<'r, 'w> {
    worker: &'r EventWorker<'w>,
    protocol: Box<dyn Protocol>,
    _counted: Option<Counted>,
    /// Stops when this is dropped.
    _stopwatch: Stopwatch<'w>,
}

impl<'r> Session<'r> for Client<'r, '_> {
    fn protocol(&mut self) -> &mut dyn Protocol {
        &mut *self.protocol
    }

    fn panicked(&mut self, payload: &(dyn Any + Send), peer: Peer) {
        self.worker.work.panicked(peer, payload);
    }

    fn closed(self: Box<Self>, reactor: &mut Reactor<'r>, peer: Peer, outcome: io::Result<()>) {
        let Self { worker, protocol, _counted, _stopwatch } = *self;
        let over = AssertUnwindSafe(|| {
            let offence = protocol.offence();
            drop(protocol);
            offence
        });
        let offence = catch_unwind(over).unwrap_or_else(|payload| {
            worker.work.panicked(peer, &*payload);
            None
        });
        worker.work.ended(peer, End::of(peer, &outcome), offence);
        worker.one_fewer(reactor);
    }
}

/// A connection whose proxy is still to say whose it is.
#[derive(Default)]
struct Arrival {
    /// The socket with the watch for it, until it is known.
    socket: Cell<Option<(Key, Rc<OwnedFd>)>>,
    header: RefCell<Header>,
    /// When it is not waited for any more.
    ends: Cell<Option<Timer>>,
    early: Cell<Early>,
}

impl Arrival {
    /// It is waited for no more.
    fn end(&self, reactor: &mut Reactor<'_>, watch: Key) {
        reactor.unwatch(watch);
        self.ends.take().into_iter().for_each(|timer| _ = reactor.cancel(timer));
    }
}

/// Whether clients are accepted.
#[derive(Clone, Copy)]
enum Accepting {
    /// The reactor watches the listener.
    Watched(Key),
    /// Not now: there is no room, or no descriptor.
    Paused,
    /// No more.
    Stopped,
}

impl<'r, 'w> EventWorker<'w> {
    fn serve(&'r self) -> Result<Cause, Error> {
        let ServiceConfig { idle_timeout, max_lifetime, .. } = self.work.context.service_config;
        let mut reactor = Reactor::new()?;
        reactor.count_in(&self.work.slot.traffic);
        reactor.limit_time(idle_timeout, max_lifetime);
        let mut yielding = Yielding::default();
        reactor.after_rounds(move |turns| self.work.let_others_run(&mut yielding, turns));
        let cannot = |cause| Error::os("cannot wait for clients", cause);
        let watch =
            reactor.watch(self.shutdown.poll_fd(), |reactor| self.told_to_stop(reactor)).map_err(cannot)?;
        self.shutdown_watch.set(Some(watch));
        self.watch_listener(&mut reactor).map_err(cannot)?;
        self.tick(&mut reactor);
        if !self.work.comes_up(1) {
            return Ok(Cause::Failed);
        }
        reactor.run()?;
        // one that has drained says so, whatever it did before
        Ok(if self.has_left.get() && !self.drains() { Cause::Recycled } else { Cause::Retired })
    }

    /// In a process that is not this server's own: what is to be done now and then.
    fn tick(&'r self, reactor: &mut Reactor<'r>) {
        match self.work.tick() {
            // nothing, ever
            Some(Duration::MAX) => {}
            Some(pause) => _ = reactor.call_later(pause, |reactor| self.tick(reactor)),
            None => self.stop_accepting(reactor),
        }
    }

    /// Accepts clients from here on.
    fn watch_listener(&'r self, reactor: &mut Reactor<'r>) -> io::Result<()> {
        // Not the shutdown's copy: what a poller looks after is the socket and not its number, so one that is shut
        // would still be told of.
        let listener = self.work.listener();
        let key = reactor.watch_arrivals(listener.as_fd(), |reactor| self.accept_clients(reactor))?;
        self.accepting.set(Accepting::Watched(key));
        Ok(())
    }

    fn unwatch_listener(&self, reactor: &mut Reactor<'r>, then: Accepting) {
        if let Accepting::Watched(key) = self.accepting.replace(then) {
            reactor.unwatch(key);
        }
    }

    /// Accepts no client for a while.
    fn rest(&'r self, reactor: &mut Reactor<'r>) {
        self.unwatch_listener(reactor, Accepting::Paused);
        reactor.call_later(REST, |reactor| self.resume(reactor));
    }

    /// Accepts clients again, if it was only paused.
    fn resume(&'r self, reactor: &mut Reactor<'r>) {
        self.acceptor.borrow_mut().rested();
        if let Accepting::Paused = self.accepting.get()
            && self.watch_listener(reactor).is_err()
        {
            return self.rest(reactor);
        }
        // of those that are queued the last one is not followed by another that would be told of
        if let (true, Accepting::Watched(_)) = (self.drains(), self.accepting.get()) {
            self.accept_clients(reactor);
        }
    }

    /// Accepts no more clients; those that are served may finish, if that is waited for.
    fn stop_accepting(&self, reactor: &mut Reactor<'r>) {
        self.unwatch_listener(reactor, Accepting::Stopped);
        if self.open.get() == 0 || !self.terms.waits {
            reactor.stop();
        }
    }

    /// The shutdown, or the listener is shut: leaves, at a stop after those that are queued.
    fn told_to_stop(&'r self, reactor: &mut Reactor<'r>) {
        // it stays readable for good
        self.shutdown_watch.take().into_iter().for_each(|watch| reactor.unwatch(watch));
        reactor.server_stops();
        self.acceptor.borrow_mut().stop();
        if self.work.ticker.is_some() {
            reactor.call_later(self.terms.grace, Reactor::stop);
        }
        if !self.drains() {
            return self.stop_accepting(reactor);
        }
        if let Accepting::Stopped = self.accepting.get() {
            self.accepting.set(Accepting::Paused);
        }
        self.resume(reactor);
    }

    /// Accepts those that are queued and not left to other workers.
    fn accept_clients(&'r self, reactor: &mut Reactor<'r>) {
        self.acceptor.borrow_mut().begin(Round::of(AT_ONCE, AT_ONCE));
        loop {
            let room = match self.open.get() < self.terms.max_connections {
                false => Room::Full,
                true if self.spread.borrow_mut().takes(self.shares(), Instant::now) => Room::Free,
                true => Room::Elsewhere,
            };
            let room = self.work.context.paced(room);
            let step = self.acceptor.borrow_mut().step(room, |queued| self.accept(queued));
            match step {
                Ok(Some(client)) => {
                    self.spread.borrow_mut().took(self.shares(), Instant::now);
                    self.take(reactor, client);
                    if !self.drains() && self.work.is_spent(self.terms, self.served.get()) {
                        return self.leave(reactor);
                    }
                }
                Ok(None) => {}
                Err(Next::Wait) => break,
                Err(Next::WaitForRoom) => {
                    let limit = self.terms.max_connections;
                    self.acceptor.borrow_mut().report_full(limit, events::connections_at_limit);
                    return self.unwatch_listener(reactor, Accepting::Paused);
                }
                Err(Next::LeaveToOthers) => return self.look_later(reactor, LOOK, true),
                Err(Next::Pause(length)) => return self.look_later(reactor, length, false),
                Err(Next::Rest(_)) => return self.rest(reactor),
                Err(Next::Accept | Next::Reject | Next::Done) => {
                    if self.drains() {
                        // the master would learn only from this worker's end that the queue is empty
                        self.work.listener().refuse();
                    }
                    return self.stop_accepting(reactor);
                }
            }
        }
        if self.drains() {
            reactor.call_later(Duration::ZERO, |reactor| self.resume(reactor));
        } else if self.acceptor.borrow().has_more() {
            self.look_later(reactor, Duration::ZERO, false);
        } else {
            self.work.found_none(&mut self.spread.borrow_mut());
        }
    }

    /// Looks at the queue after a while; `left`: other workers may have emptied it.
    fn look_later(&'r self, reactor: &mut Reactor<'r>, delay: Duration, left: bool) {
        if let Some(timer) = self.next_look.take() {
            reactor.cancel(timer);
        }
        let timer = reactor.call_later(delay, move |reactor| {
            self.next_look.set(None);
            let is_queued =
                !left || self.work.is_still_queued(&mut self.spread.borrow_mut(), self.open.get());
            if let (true, Accepting::Watched(_)) = (is_queued, self.accepting.get()) {
                self.accept_clients(reactor);
            }
        });
        self.next_look.set(Some(timer));
    }

    fn shares(&self) -> Shares {
        self.work.shares(self.open.get())
    }

    /// Whether it has been told to serve those that are queued at a stop.
    fn drains(&self) -> bool {
        self.acceptor.borrow().drains()
    }

    fn accept(&self, queued: bool) -> rustix::io::Result<Option<Admitted>> {
        let client = match queued {
            true => self.work.listener().accept_queued(false)?,
            false => self.work.listener().accept_nonblocking(self.shutdown)?,
        };
        Ok(self.work.context.admit_connection(self.work.board, self.work.slot, client))
    }

    fn take(&'r self, reactor: &mut Reactor<'r>, Admitted { socket, peer, ticket }: Admitted) {
        let (counted, early) = (self.work.count(ticket), self.work.early());
        self.served.set(self.served.get() + 1);
        Traffic::add(&self.work.slot.traffic.connections, 1);
        self.open.set(self.open.get() + 1);
        self.work.one_more_open();
        match self.work.context.proxy() {
            Some(version) => self.await_header(reactor, (socket, early), peer, version),
            None => self.begin(reactor, (socket, early), peer, counted),
        }
    }

    /// Begins to serve a client when the proxy has said who that is.
    fn await_header(
        &'r self,
        reactor: &mut Reactor<'r>,
        (socket, early): (OwnedFd, Early),
        proxy: Peer,
        version: ProxyVersion,
    ) {
        let socket = Rc::new(socket);
        let arrival = Rc::new(Arrival { early: Cell::new(early), ..Arrival::default() });
        let (look, limit) = (Rc::clone(&arrival), Rc::clone(&arrival));
        let watched = reactor.watch(Rc::clone(&socket), move |reactor| {
            self.look_for_header(reactor, &look, proxy, version);
        });
        let Ok(watch) = watched else {
            // no memory for it
            return self.refuse(reactor, &socket, Refusal::Proxy);
        };
        arrival.socket.set(Some((watch, socket)));
        let ends = reactor.call_later(HEADER_TIMEOUT, move |reactor| {
            limit.ends.set(None);
            self.has_no_header(reactor, &limit, proxy, &io::ErrorKind::TimedOut.into());
        });
        arrival.ends.set(Some(ends));
    }

    fn look_for_header(
        &'r self,
        reactor: &mut Reactor<'r>,
        arrival: &Arrival,
        proxy: Peer,
        version: ProxyVersion,
    ) {
        let Some((watch, socket)) = arrival.socket.take() else { return };
        let taken = arrival.header.borrow_mut().take(&socket, version);
        let client = match taken {
            Ok(client) => client.map_or(proxy, Peer::Ip),
            Err(error) => {
                arrival.socket.set(Some((watch, socket)));
                return match error.kind() {
                    io::ErrorKind::WouldBlock => {}
                    _ => self.has_no_header(reactor, arrival, proxy, &error),
                };
            }
        };
        arrival.end(reactor, watch);
        let early = arrival.early.take();
        let counted = match self.work.context.admit_introduced(client) {
            Ok(ticket) => self.work.count(ticket),
            Err(why) => return self.refuse(reactor, &socket, why),
        };
        // the watch has it, too, until this call is over
        reactor.call_later(Duration::ZERO, move |reactor| {
            if let Some(socket) = Rc::into_inner(socket) {
                self.begin(reactor, (socket, early), client, counted);
            }
        });
    }

    fn has_no_header(&'r self, reactor: &mut Reactor<'r>, arrival: &Arrival, proxy: Peer, error: &io::Error) {
        let Some((watch, socket)) = arrival.socket.take() else { return };
        arrival.end(reactor, watch);
        self.work.context.no_header(proxy, error);
        self.refuse(reactor, &socket, Refusal::Proxy);
    }

    /// Ends the connection of a client that is not served.
    fn refuse(&'r self, reactor: &mut Reactor<'r>, socket: &OwnedFd, why: Refusal) {
        self.work.context.refuse(self.work.board, socket.as_fd(), why);
        self.one_fewer(reactor);
    }

    fn begin(
        &'r self,
        reactor: &mut Reactor<'r>,
        (socket, early): (OwnedFd, Early),
        peer: Peer,
        counted: Option<Counted>,
    ) {
        self.work.slot.set_peer(peer);
        let stopwatch = self.work.stopwatch();
        let made = catch_unwind(AssertUnwindSafe(|| self.work.service().make_protocol()));
        let protocol = match made {
            Ok(Some(protocol)) => protocol,
            // a handler is never started under this model
            Ok(None) => return self.one_fewer(reactor),
            Err(payload) => {
                self.work.panicked(peer, &*payload);
                return self.one_fewer(reactor);
            }
        };
        let client = Client { worker: self, protocol, _counted: counted, _stopwatch: stopwatch };
        reactor.adopt(socket, peer, early, Box::new(client));
    }

    fn one_fewer(&'r self, reactor: &mut Reactor<'r>) {
        self.open.set(self.open.get() - 1);
        self.work.one_fewer_open();
        match self.accepting.get() {
            Accepting::Watched(_) => {}
            // not at once: a client may leave while another is accepted
            Accepting::Paused => _ = reactor.call_later(Duration::ZERO, |reactor| self.resume(reactor)),
            Accepting::Stopped => self.stop_accepting(reactor),
        }
    }

    /// It has served as many as it should; another may take its place while it serves the last of them.
    fn leave(&self, reactor: &mut Reactor<'r>) {
        self.has_left.set(true);
        self.work.leaves();
        self.stop_accepting(reactor);
    }
}
