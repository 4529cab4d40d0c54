//! How a worker or a child serves a client, whichever socket it came by.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::hooks::Ticker;
use super::listener_context::ListenerContext;
use super::service_config::End;
use super::spread::{Shares, Spread};
use super::yielding::Yielding;
use super::{Model, Threads};
use crate::access::sources::{Counted, Ticket};
use crate::events;
use crate::scoreboard::{Cause, Place, Scoreboard, Slot, State, Tally};
use crate::service::Service;
use crate::sys::datagram::{Batch, Datagram, Patience};
use crate::sys::fd::wait_readable;
use crate::transport::early::Early;
use crate::transport::proxy::ProxyVersion;
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Connection, Listener, Offence, OpenConnections, Peer, Refusal, Traffic};

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
    /// For how long after the shutdown a client is held for which no thread can be started, and in a process that is not this
    /// server's own, for how long clients are served.
    pub(crate) grace: Duration,
    /// Whether it waits for those that it serves at the shutdown.
    pub(crate) waits: bool,
    /// Which worker of its pool it is.
    pub(crate) place: Place,
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
    pub(crate) fn connection(&self, socket: OwnedFd, peer: Peer, early: Early) -> Connection<'_> {
        let server_info = &self.context.service_config.server_info;
        Connection::stream(socket, peer, early, &self.slot.traffic, server_info)
    }

    /// Serves one connection until it ends; it is still to be closed.
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> Cause {
        match self.context.proxy() {
            Some(version) => self.serve_introduced(connection, version),
            None => self.serve_client(connection),
        }
    }

    #[inline(always)]
    fn serve_client(&self, connection: &mut Connection<'_>) -> Cause {
        let end = self.context.service_config.serve(connection);
        self.ended(connection.peer(), end, connection.offence());
        end.cause()
    }

    /// Takes note of how a connection has ended, and of what its client has done wrong by what the service says: the one
    /// place, for connections of all models.
    #[inline(always)]
    pub(crate) fn ended(&self, peer: Peer, end: End, offence: Option<Offence>) {
        if let End::TimedOut(limit) = end {
            self.tally().count_timed_out(limit);
        }
        if let Some(offence) = offence.or(end.offence()) {
            self.context.offended(peer, offence);
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
                self.serve_client(connection)
            }
            Err(why) => {
                if let Some(socket) = connection.socket() {
                    self.context.refuse(self.board, socket, why);
                }
                Cause::Done
            }
        }
    }

    /// The same in a worker.
    pub(crate) fn serve_timed(&self, connection: &mut Connection<'_>) {
        let _stopwatch = self.stopwatch();
        match &self.context.service_config.hooks.open {
            None => _ = self.serve(connection),
            Some(open) => self.serve_until_cut(connection, open),
        }
    }

    /// The same for a connection that is cut at the end of a stop, if it is still served then. It is apart, as nothing that a
    /// daemon serves is cut so.
    #[cold]
    #[inline(never)]
    fn serve_until_cut(&self, connection: &mut Connection<'_>, open: &Arc<OpenConnections>) {
        let _open = connection.socket().and_then(|socket| open.add(socket));
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
            events::worker_cannot_start(&error);
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

    /// Tells the connections of this worker that wait for their writers, too, that it was told to leave.
    pub(crate) fn tell_of_stop(&self) {
        self.context.service_config.server_info.outboxes().stop();
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

    /// Until when clients are served from now on, the shutdown, if that has an end: a worker's is its master's concern.
    pub(crate) fn serves_until(&self, terms: &Terms) -> Option<Instant> {
        self.ticker.and_then(|_| Instant::now().checked_add(terms.grace))
    }

    /// A handler or a protocol has panicked, and this process goes on.
    pub(crate) fn panicked(&self, peer: Peer, payload: &(dyn Any + Send)) {
        Traffic::add(&self.slot.traffic.failed, 1);
        events::connection_failed(self.listener().endpoint(), peer);
        self.context.crashed(peer);
        self.context.service_config.hooks.panicked(peer, payload);
    }

    /// In a child: its client does not count any more, as one of its source's or without a first exchange.
    #[inline(always)]
    pub(crate) fn counts_no_more(&self) {
        if self.context.asks() {
            self.leave();
        }
    }

    #[cold]
    #[inline(never)]
    fn leave(&self) {
        self.board.leave(self.slot, self.context.number);
    }

    /// Has a client of this worker count for as long as the answer is there.
    #[inline(always)]
    pub(crate) fn count(&self, ticket: Option<Ticket>) -> Option<Counted> {
        let ticket = ticket?;
        self.board.sources().hold(ticket, self.index)
    }

    /// What ends the count of a connection without a first exchange that this process has taken.
    #[inline(always)]
    pub(crate) fn early(&self) -> Early {
        self.context.early(self.slot)
    }

    /// Answers the first `count` datagrams of a batch.
    pub(crate) fn datagrams(&self, batch: &mut Batch, count: usize) {
        if !self.context.asks() {
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
