//! How a client is served, whichever socket it came by, and whichever process and model serve it.
//!
//! [`ListenerContext`] is what processes share about a listening socket, [`WorkerContext`] what one of them has.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::hooks::{Hooks, Ticker};
use super::spread::{Shares, Spread};
use super::yielding::Yielding;
use super::{Model, Threads};
use crate::access::sources::{Counted, Ticket};
use crate::access::{AccessSpec, Tables};
use crate::admission::Room;
use crate::limit::SharedLimit;
use crate::scoreboard::{Cause, Scoreboard, Slot, State, Tally};
use crate::service::Service;
use crate::sys::clock::monotonic_us;
use crate::sys::datagram::{Batch, Datagram, Patience, Source};
use crate::sys::fd::wait_readable;
use crate::sys::tcp::{queued_for, reset_at_close};
use crate::transport::proxy::{Parsed, ProxyVersion};
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Connection, Endpoint, Listener, Peer, Refusal, ServerInfo, Traffic};
use crate::{Error, events};

/// A listening socket, with what its children must know of it.
#[derive(Debug, Clone)]
pub(crate) struct ListenerContext {
    /// Shared by the stations before and after a reload.
    pub(crate) listener: Arc<Listener>,
    /// Its number on the scoreboard.
    pub(crate) number: usize,
    pub(crate) service_config: ServiceConfig,
    /// What a client is asked about; `None`: each is served.
    access: Option<Arc<Access>>,
}

/// A connection that is to be served.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Peer,
    /// It counts as one of its source's.
    pub(crate) ticket: Option<Ticket>,
}

/// What decides whether a client is served.
#[derive(Debug)]
struct Access {
    spec: AccessSpec,
    hooks: Hooks,
    tables: Tables<'static>,
    /// So that no client can fill the log, whichever process refuses it.
    refusals: &'static SharedLimit,
}

impl Access {
    #[cold]
    #[inline(never)]
    fn paced(&self, room: Room) -> Room {
        let wait = self.spec.wait(self.tables.paid_at, monotonic_us);
        wait.map_or(room, |us| Room::Later(Duration::from_micros(us)))
    }
}

impl ListenerContext {
    pub(crate) fn new(
        listener: Arc<Listener>,
        number: usize,
        service_config: ServiceConfig,
        access: &AccessSpec,
        board: &Scoreboard,
    ) -> Self {
        let hooks = &service_config.hooks;
        let is_asked = !access.is_open() || hooks.verify.is_some();
        let access = is_asked.then(|| {
            Arc::new(Access {
                spec: access.clone(),
                hooks: hooks.clone(),
                tables: Tables {
                    sources: board.sources(),
                    listener: number,
                    paid_at: &board.tally(number).paid_at,
                },
                refusals: &board.tally(number).refusals,
            })
        });
        Self { listener, number, service_config, access }
    }

    /// Finds out whether this process has the descriptors left to serve one client, while so many threads accept, that
    /// client's among them: each that waits in accept(2) has the descriptor of its next client already.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    pub(crate) fn require_descriptors(&self, accepting: u32) -> Result<(), Error> {
        let service = &self.service_config.service;
        let needed = match service.descriptors() {
            // the thread that accepts first serves its client, and the others wait
            1 => 1,
            of_a_client => accepting as usize + of_a_client - 1,
        };
        let all: io::Result<Vec<OwnedFd>> =
            (0..needed).map(|_| self.listener.as_fd().try_clone_to_owned()).collect();
        all.map(drop).map_err(|cause| {
            let (endpoint, name) = (self.listener.endpoint(), service.name());
            let what = format!(
                "cannot serve {endpoint}: too few descriptors are left for a client of the service {name}, which \
                 needs {needed}"
            );
            Error::os(what, cause)
        })
    }

    /// The room for a client that may not come yet, as too many have come: there is some later.
    #[inline(always)]
    pub(crate) fn paced(&self, room: Room) -> Room {
        match &self.access {
            Some(access) if matches!(room, Room::Free | Room::Elsewhere) => access.paced(room),
            _ => room,
        }
    }

    /// A connection that was accepted, unless it is not to be served.
    // a function of its own would be one more window of text for each spare child to fault in
    #[inline(always)]
    pub(crate) fn admit_connection(
        &self,
        board: &Scoreboard,
        (socket, peer): (OwnedFd, Peer),
    ) -> Option<Admitted> {
        if board.measures()
            && let Some(waited) = queued_for(&socket)
        {
            board.tally(self.number).accept_latencies.observe(waited.as_micros() as u64);
        }
        match self.admit(peer) {
            Ok(ticket) => Some(Admitted { socket, peer, ticket }),
            Err(why) => {
                self.refuse(board, socket.as_fd(), why);
                None
            }
        }
    }

    /// A refusal that the client sees at once, unless it is the application's own.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&self, board: &Scoreboard, socket: BorrowedFd<'_>, why: Refusal) {
        board.refuse(self.number, why);
        if why != Refusal::Application {
            reset_at_close(socket);
        }
    }

    /// Decides whether a datagram is answered, with the hop limit of its answer, and whether it counts.
    pub(crate) fn admit_datagram(
        &self,
        udp_filter: &UdpFilter,
        datagram: &Datagram<'_>,
    ) -> Result<(Option<u8>, Option<Ticket>), Refusal> {
        let hops = udp_filter.admit(datagram)?;
        let ticket = self.admit(peer_of(datagram))?;
        if self.proxy().is_none() {
            return Ok((hops, ticket));
        }
        let (client, _) = self.sender(datagram).ok_or(Refusal::Proxy)?;
        self.admit_introduced(client).map(|ticket| (hops, ticket))
    }

    /// Whose datagram it is, and how many of its bytes are the header that says so; `None` if it has none and should.
    #[inline(always)]
    fn sender(&self, datagram: &Datagram<'_>) -> Option<(Peer, usize)> {
        let source = peer_of(datagram);
        match self.proxy().map(|version| version.parse(datagram.payload)) {
            None => Some((source, 0)),
            Some(Parsed::Header(length, client)) => Some((client.map_or(source, Peer::Ip), length)),
            Some(Parsed::Incomplete | Parsed::Broken) => None,
        }
    }

    /// Decides whether a client that has come in is served: the one place, for connections and datagrams of all
    /// models, before anything is started for the client.
    #[inline(always)]
    fn admit(&self, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        self.access.as_deref().map_or(Ok(None), |access| self.ask(access, peer))
    }

    #[inline(never)]
    fn ask(&self, access: &Access, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        match &access.spec.proxy {
            Some(proxy) => self.told(access, peer, proxy.admit(peer).map(|()| None)),
            None => self.ask_of_client(access, peer),
        }
    }

    /// Decides whether a client is served of whom a proxy has told: what is asked about others when they come in.
    pub(crate) fn admit_introduced(&self, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        self.access.as_deref().map_or(Ok(None), |access| self.ask_of_client(access, peer))
    }

    fn ask_of_client(&self, access: &Access, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        let Access { spec, hooks, tables, .. } = access;
        let admitted = spec
            .admit(peer)
            .and_then(|()| if hooks.admit(peer) { Ok(()) } else { Err(Refusal::Application) })
            .and_then(|()| spec.count(*tables, peer, monotonic_us));
        self.told(access, peer, admitted)
    }

    /// Logs a refusal.
    fn told<T>(&self, access: &Access, peer: Peer, admitted: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(why) = &admitted
            && *why != Refusal::Application
            && let Some(suppressed) = access.refusals.admit()
        {
            events::refused(self.listener.endpoint(), peer, *why, suppressed);
        }
        admitted
    }

    /// Which header clients have in front, if they come by a proxy.
    #[inline(always)]
    pub(crate) fn proxy(&self) -> Option<ProxyVersion> {
        self.access.as_deref().and_then(|access| access.spec.proxy.as_ref()).map(|proxy| proxy.version)
    }

    /// A proxy has not said whose a connection is.
    #[cold]
    pub(crate) fn no_header(&self, proxy: Peer, error: &io::Error) {
        if let Some(suppressed) = self.access.as_deref().and_then(|access| access.refusals.admit()) {
            events::no_proxy_header(self.listener.endpoint(), proxy, why_no_header(error), suppressed);
        }
    }
}

/// How clients of one socket are served.
#[derive(Debug, Clone)]
pub(crate) struct ServiceConfig {
    pub(crate) service: Service,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) hooks: Hooks,
    /// What handlers see of all this.
    pub(crate) server_info: ServerInfo,
    /// So that no client can fill the log, whichever processes it is served by.
    failures: &'static SharedLimit,
}

impl ServiceConfig {
    pub(crate) fn new(
        endpoint: &Endpoint,
        service: Service,
        model: Model,
        hooks: Hooks,
        failures: &'static SharedLimit,
    ) -> Self {
        let server_info =
            ServerInfo::new(endpoint.clone(), service.name(), model.name(), hooks.handle.clone());
        Self { idle_timeout: service.patience(), service, hooks, server_info, failures }
    }

    /// With the time-out that was asked for, if one was; the service has its own.
    pub(crate) fn with_idle_timeout(self, asked: Option<Duration>) -> Self {
        Self { idle_timeout: asked.or(self.idle_timeout), ..self }
    }

    /// Serves one connection until it ends; it is still to be closed.
    // a function of its own would be one more window of text for each child to fault in
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> Cause {
        let result = match self.idle_timeout {
            Some(limit) => connection.set_idle_timeout(limit).and_then(|()| self.service.serve(connection)),
            None => self.service.serve(connection),
        };
        let cause = self.outcome(connection.peer(), result);
        if cause == Cause::Failed {
            connection.has_failed();
        }
        cause
    }

    /// What has become of a connection that ended like this.
    #[inline(always)]
    pub(crate) fn outcome(&self, peer: Peer, result: io::Result<()>) -> Cause {
        match result {
            Ok(()) => {
                log::debug!(peer:% = peer; "connection closed");
                Cause::Done
            }
            Err(error) if is_the_client_s(&error) => {
                log::debug!(peer:% = peer, error:% = error; "connection ended");
                Cause::Done
            }
            Err(error) => {
                self.failed(peer, &error);
                Cause::Failed
            }
        }
    }

    /// A handler has returned an error that is no client's doing.
    pub(crate) fn failed(&self, peer: Peer, error: &io::Error) {
        if let Some(suppressed) = self.failures.admit() {
            events::handler_failed(peer, error, suppressed);
        }
        self.hooks.failed(peer, error);
    }
}

/// Why a connection has no header.
fn why_no_header(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "its first bytes are no such header",
        io::ErrorKind::TimedOut => "it has not come in time",
        _ => "the connection has ended before it",
    }
}

/// An end that is the client's doing, or the idle time-out's, and no fault of the handler.
fn is_the_client_s(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | WouldBlock)
}

/// What a worker is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) model: Model,
    /// After how many connections it leaves; 0: never.
    pub(crate) limit: u64,
    /// How many workers may be at their limit, and serve those that stay, beside those that take clients.
    pub(crate) leavers: u32,
    /// How many it serves at once (event, coroutine).
    pub(crate) max_connections: u32,
    /// Its pool is elastic, so it counts itself while it is idle.
    pub(crate) elastic: bool,
    /// What threads it has, if its model has any.
    pub(crate) threads: Threads,
    /// For how long after the shutdown a client is held for which no thread can be started.
    pub(crate) grace: Duration,
    /// Whether it waits for those that it serves at the shutdown.
    pub(crate) waits: bool,
}

/// What a child needs for its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerContext<'a> {
    pub(crate) context: &'a ListenerContext,
    pub(crate) udp_filter: &'a UdpFilter,
    pub(crate) board: &'a Scoreboard,
    pub(crate) slot: &'static Slot,
    /// The number of the slot.
    pub(crate) index: u32,
    /// In a process that is not this server's own, nothing interrupts a wait for clients: there each one is
    /// for the shutdown, too, and comes after a [`tick`](Self::tick).
    pub(crate) ticker: Option<&'a Arc<Mutex<Ticker>>>,
}

impl<'w> WorkerContext<'w> {
    pub(crate) fn listener(&self) -> &Listener {
        &self.context.listener
    }

    pub(crate) fn service(&self) -> &Service {
        &self.context.service_config.service
    }

    /// The listener's counters that children write.
    pub(crate) fn tally(&self) -> &'static Tally {
        self.board.tally(self.context.number)
    }

    /// Begins to serve one more of several connections.
    pub(crate) fn one_more_open(&self) {
        self.slot.open.fetch_add(1, Ordering::Relaxed);
        self.tally().one_more_open();
    }

    /// Has served one of several.
    pub(crate) fn one_fewer_open(&self) {
        self.slot.open.fetch_sub(1, Ordering::Relaxed);
        // the connections of a worker that leaves are not counted with those of the others
        if self.slot.state() != State::Leaving {
            self.tally().one_fewer_open();
        }
    }

    /// How the clients are spread, for a worker that serves so many.
    pub(crate) fn shares(&self, mine: u32) -> Shares {
        let (tally, totals) = (self.tally(), self.board.totals(self.context.number));
        Shares {
            mine,
            all: tally.open.load(Ordering::Relaxed),
            workers: totals.takers(),
            emptied: tally.emptied(),
        }
    }

    /// No client is queued.
    pub(crate) fn found_none(&self, spread: &mut Spread) {
        spread.found_none();
        self.tally().found_empty();
    }

    /// A while after a client was left to other workers: whether it is still queued.
    pub(crate) fn is_still_queued(&self, spread: &mut Spread, mine: u32) -> bool {
        if !spread.looks(self.shares(mine)) {
            return false;
        }
        let is_queued = wait_readable(self.listener(), Duration::ZERO);
        if !is_queued {
            self.found_none(spread);
        }
        is_queued
    }

    /// After so many turns of clients: lets other workers have the processor, if there are any and it is time for that.
    pub(crate) fn let_others_run(&self, yielding: &mut Yielding, turns: usize) {
        if yielding.is_due(turns, Instant::now) && self.board.totals(self.context.number).takers() > 1 {
            let left = Instant::now();
            thread::yield_now();
            yielding.yielded(left, Instant::now());
        }
    }

    /// In a worker: whether it serves those that are queued before it leaves.
    pub(crate) fn is_draining(&self) -> bool {
        self.board.totals(self.context.number).is_draining()
    }

    /// Measures how long a connection lasts, from here on, if that is measured at all. It is for workers: of a
    /// child that has one connection the master keeps count.
    pub(crate) fn stopwatch(&self) -> Stopwatch<'w> {
        Stopwatch { board: self.board, tally: self.tally(), since: self.board.clock_us() }
    }

    /// A connection that was accepted.
    #[inline(always)]
    pub(crate) fn connection(&self, socket: OwnedFd, peer: Peer) -> Connection<'_> {
        let server_info = &self.context.service_config.server_info;
        Connection::stream(socket, peer, &self.slot.traffic, server_info)
    }

    /// Serves one connection until it ends; it is still to be closed.
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> Cause {
        match self.context.proxy() {
            Some(version) => self.serve_introduced(connection, version),
            None => self.context.service_config.serve(connection),
        }
    }

    /// Has the proxy say whose the connection is, and serves that client, unless it is not to be served.
    #[inline(never)]
    fn serve_introduced(&self, connection: &mut Connection<'_>, version: ProxyVersion) -> Cause {
        let proxy = connection.peer();
        let admitted = match connection.introduce(version) {
            Ok(()) => self.context.admit_introduced(connection.peer()),
            Err(error) => {
                self.context.no_header(proxy, &error);
                Err(Refusal::Proxy)
            }
        };
        match admitted {
            Ok(ticket) => {
                // until it is served; a child's one client counts in its slot, as one that the master has admitted
                let _counted = if self.slot.is_worker() {
                    self.count(ticket)
                } else {
                    Ticket::put(ticket, &self.slot.ticket);
                    None
                };
                self.slot.set_peer(connection.peer());
                self.context.service_config.serve(connection)
            }
            Err(why) => {
                if let Some(socket) = connection.stream_socket() {
                    self.context.refuse(self.board, socket, why);
                }
                Cause::Done
            }
        }
    }

    /// The same in a worker.
    pub(crate) fn serve_timed(&self, connection: &mut Connection<'_>) {
        let _stopwatch = self.stopwatch();
        self.serve(connection);
    }

    /// What comes before each wait in a process that is not this server's own: how long the wait may last,
    /// and `None` when no more clients are to be waited for.
    pub(crate) fn tick(&self) -> Option<Duration> {
        self.ticker.map_or(Some(Duration::MAX), |ticker| Ticker::tick_shared(ticker))
    }

    /// Says that this worker is up, for which the master waits. If it could not serve a single client, it logs why,
    /// and is not. So many of its threads accept, that of the client among them.
    pub(crate) fn comes_up(&self, accepting: u32) -> bool {
        // a process that is not this server's own comes up more than once, and has no master
        if self.ticker.is_none()
            && let Err(error) = self.context.require_descriptors(accepting)
        {
            log::error!("worker cannot start: {}", error.sentence());
            return false;
        }
        self.slot.set_state(State::Idle);
        self.board.wake().notify();
        true
    }

    /// Says that this worker takes no more clients: it is replaced now, and not after its last connection.
    pub(crate) fn leaves(&self) {
        self.slot.set_state(State::Leaving);
        self.board.wake().notify();
    }

    /// Whether a worker that serves several at once and has let in so many is to leave: it has reached its
    /// limit, no stop has begun, and not too many serve their last clients already. Or clients that stay could
    /// have as many processes as they like.
    pub(crate) fn is_spent(&self, terms: &Terms, served: u64) -> bool {
        terms.limit != 0
            && served >= terms.limit
            && !self.is_draining()
            && (self.ticker.is_some() || self.tally().may_leave(terms.leavers))
    }

    /// A handler or a protocol has panicked, and this process goes on.
    pub(crate) fn panicked(&self, peer: Peer, payload: &(dyn Any + Send)) {
        Traffic::add(&self.slot.traffic.failed, 1);
        events::connection_failed(self.listener().endpoint(), peer);
        self.context.service_config.hooks.panicked(peer, payload);
    }

    /// In a child: its client does not count any more as one of its source's.
    #[inline(always)]
    pub(crate) fn counts_no_more(&self) {
        if self.context.access.is_some() {
            self.leave();
        }
    }

    #[cold]
    #[inline(never)]
    fn leave(&self) {
        self.board.leave(self.index);
    }

    /// Has a client of this worker count for as long as the answer is there.
    #[inline(always)]
    pub(crate) fn count(&self, ticket: Option<Ticket>) -> Option<Counted> {
        let ticket = ticket?;
        self.board.sources().hold(ticket, self.index)
    }

    /// Answers the first `count` datagrams of a batch.
    pub(crate) fn datagrams(&self, batch: &mut Batch, count: usize) {
        if self.context.access.is_none() {
            return self.datagrams_if(batch, count, |datagram| Ok((self.udp_filter.admit(datagram)?, ())));
        }
        self.datagrams_if(batch, count, |datagram| {
            let (hops, ticket) = self.context.admit_datagram(self.udp_filter, datagram)?;
            Ok((hops, self.count(ticket)))
        });
    }

    /// Answers those of a batch that are admitted, with the hop limit of the answer.
    pub(crate) fn datagrams_if<C>(
        &self,
        batch: &mut Batch,
        count: usize,
        admit: impl Fn(&Datagram<'_>) -> Result<(Option<u8>, C), Refusal>,
    ) {
        let (mut queued, echoes) = (0, self.service().echoes());
        for i in 0..count {
            let datagram = batch.datagram(i);
            let admitted = admit(&datagram)
                .and_then(|admitted| Ok((admitted, self.context.sender(&datagram).ok_or(Refusal::Proxy)?)));
            // it counts until its answer is sent, or will be with the batch
            let ((hops, counted), (peer, skip)) = match admitted {
                Ok(admitted) => admitted,
                Err(why) => {
                    self.board.refuse(self.context.number, why);
                    continue;
                }
            };
            Traffic::add(&self.slot.traffic.connections, 1);
            Traffic::add(&self.slot.traffic.bytes_in, (datagram.payload.len() - skip) as u64);
            self.slot.set_peer(peer);
            if echoes && skip == 0 {
                batch.queue_back(i, hops);
                queued += 1;
            } else {
                let mut counted = Some(counted);
                self.answer(batch, i, (peer, skip), hops, &mut || drop(counted.take()));
            }
        }
        if queued > 0 {
            let (sent, bytes) = batch.send_back(self.listener(), self.patience());
            Traffic::add(&self.slot.traffic.bytes_out, bytes);
            (sent..queued).for_each(|_| self.board.refuse(self.context.number, Refusal::Unsendable));
        }
    }

    /// Has a datagram answered; calls `before_sending`, as a client that has its answer and asks again counts as one.
    fn answer(
        &self,
        batch: &Batch,
        i: usize,
        (peer, skip): (Peer, usize),
        hops: Option<u8>,
        before_sending: &mut dyn FnMut(),
    ) {
        let traffic = &self.slot.traffic;
        let mut send = |payload: &[u8]| {
            before_sending();
            match batch.answer(i, self.listener(), payload, hops, self.patience()) {
                Ok(()) => Traffic::add(&traffic.bytes_out, payload.len() as u64),
                Err(error) => {
                    log::debug!(peer:% = peer, error:% = error; "datagram not answered");
                    self.board.refuse(self.context.number, Refusal::Unsendable);
                }
            }
        };
        let service_config = &self.context.service_config;
        let payload = &batch.datagram(i).payload[skip..];
        let connection = Connection::datagram(payload, peer, traffic, &service_config.server_info);
        if let Err(error) = service_config.service.answer(payload, connection, &mut send) {
            service_config.failed(peer, &error);
        }
    }

    /// A Unix peer that does not read would hold its server for as long as it likes.
    fn patience(&self) -> Patience {
        if self.listener().is_unix() { Patience::DontWait } else { Patience::Wait }
    }
}

/// Counts, when it is dropped, for how long it was there: a connection that ends in a panic has lasted, too.
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    board: &'a Scoreboard,
    tally: &'static Tally,
    /// By the clock, in microseconds.
    since: Option<u64>,
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        if let (Some(since), Some(now)) = (self.since, self.board.clock_us()) {
            self.tally.durations.observe(now.saturating_sub(since));
        }
    }
}

/// How large a datagram can be: UDP's limit is below 64 KiB, a Unix socket's is its send buffer.
pub(crate) fn batch_for(listener: &Listener, capacity: usize) -> Batch {
    Batch::new(capacity, if listener.is_unix() { 256 * 1024 } else { 64 * 1024 })
}

/// The sender of a datagram, as far as the scoreboard can say.
pub(crate) fn peer_of(datagram: &Datagram<'_>) -> Peer {
    match datagram.source {
        Source::Ip(address) => Peer::Ip(address),
        Source::Unix | Source::Unnamed => Peer::Unix { pid: 0, uid: 0, gid: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    #[test]
    fn what_ends_in_a_panic_has_lasted_too() {
        let board = Scoreboard::new().unwrap();
        board.measure();
        let tally = board.tally(0);
        let lasts = || Stopwatch { board: &board, tally, since: board.clock_us() };
        let panics = catch_unwind(AssertUnwindSafe(|| {
            let _stopwatch = lasts();
            resume_unwind(Box::new("as was wished"));
        }));
        assert!(panics.is_err());
        drop(lasts());
        drop(Stopwatch { since: None, board: &board, tally });
        assert_eq!(tally.durations.read().counts.iter().sum::<u64>(), 2);
    }
}
