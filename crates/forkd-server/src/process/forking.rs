//! The fork model, the master's side: it accepts, and forks a child for each client.
//!
//! A listener brings in only a few clients in one turn of the loop, so that a flood at one of them keeps no client of
//! another waiting. What is short here, slots or descriptors, leaves clients in the backlog. No client is dropped for a
//! shortage: a connection that no child can be forked for stays pending, and the listener rests, until fork(2) works
//! again or the daemon stops.
//!
//! With `--spare` children are forked before their clients come, and accept them by themselves; the master then accepts
//! those that it rejects, and at a stop those that are queued.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::child::{ChildWork, Order};
use super::context::Context;
use super::descriptors::{Closing, kept_for};
use super::pending::{Client, Pending};
use super::spares::{self, Look, News, Spare, Spares};
use crate::access::sources::Ticket;
use crate::admission::{Admission, Failure, Next, Room, Round};
use crate::limit::RateLimit;
use crate::model::Overflow;
use crate::model::accept_loop::errno;
use crate::model::listener_context::{Admitted, ListenerContext, peer_of};
use crate::model::serve::batch_for;
use crate::sandbox::Confinement;
use crate::spec::ModelSpec;
use crate::sys::call_off::Wait;
use crate::sys::datagram::Patience;
use crate::sys::fd::wait_readable;
use crate::sys::fork::{Inherited, PidCells, fork_apart};
use crate::sys::tcp::{reset_at_close, was_reset};
use crate::transport::listener::Kind;
use crate::transport::{Peer, Refusal};
use crate::{Error, events};

/// How many clients of one listener get a child in one turn of the loop, and how many get none: a fork takes as long as
/// some twenty refusals.
const FORKS: u32 = 4;
const REFUSALS: u32 = 64;

/// A listening socket whose clients each get a child.
#[derive(Debug)]
pub(super) struct Forking {
    pub(super) context: ListenerContext,
    max_children: u32,
    work: Inherited<ChildWork>,
    pending: Pending,
    admission: Admission<u32>,
    spares: Option<Spares>,
    /// The program before this one has left it, which forks no child any more.
    is_restored: bool,
    /// Some of that program's children may wait for their client.
    has_old_spares: bool,
    /// When there are more to be forked.
    again: Option<Instant>,
    /// It serves.
    is_live: bool,
    /// There were more clients than it could bring in its last turn.
    crowded: bool,
    refusals: RateLimit,
}

impl Forking {
    /// # Errors
    ///
    /// For spare children, as [`Wait::at`].
    pub(super) fn new(
        context: ListenerContext,
        spec: &ModelSpec,
        confinement: Arc<Confinement>,
        cx: &Context,
    ) -> Result<Self, Error> {
        let datagrams = context.listener.kind() == Kind::Datagram;
        let wanted = Some(spec.spare.min(spec.max_children)).filter(|&wanted| wanted > 0 && !datagrams);
        let waiting = wanted.map(|_| Wait::at(&*context.listener)).transpose().map_err(|cause| {
            Error::os(format!("cannot have spare children for {}", context.listener.endpoint()), cause)
        })?;
        let theirs = waiting.iter().flat_map(Wait::descriptors);
        cx.descriptors.add(theirs.clone());
        // the child answers a datagram through the listening socket itself
        let listener = datagrams.then(|| context.listener.as_raw_fd());
        let keep =
            listener.into_iter().chain(theirs).chain(kept_for(&context.service_config.service)).collect();
        let batch = datagrams.then(|| batch_for(&context.listener, 1));
        Ok(Self {
            max_children: spec.max_children,
            spares: wanted.map(|wanted| Spares::new(wanted, cx.now)),
            is_restored: false,
            has_old_spares: false,
            work: Inherited::new(ChildWork::new(
                context.clone(),
                Closing::all_but(keep),
                confinement,
                batch,
                waiting,
                cx,
            )),
            context,
            pending: Pending::default(),
            admission: Admission::new(spec.overflow == Overflow::Reject),
            again: None,
            is_live: false,
            crowded: false,
            refusals: RateLimit::default(),
        })
    }

    /// Goes on with what the program before this one has left: no child is forked for it.
    pub(super) fn restore(&mut self, has_spares: bool) {
        self.admission.close();
        self.is_restored = true;
        self.has_old_spares = has_spares;
    }

    /// Whether the program before this one has left it.
    pub(super) fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// Whether children may wait for their client.
    pub(super) fn has_spares(&self) -> bool {
        self.spares.is_some() || self.has_old_spares
    }

    /// Whether a client is held for want of a child.
    pub(super) fn holds_a_client(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether it has children.
    pub(super) fn has_children(&self, cx: &Context) -> bool {
        cx.board.totals(self.context.number).alive.load(Ordering::Relaxed) > 0
    }

    /// Whether another child may be forked.
    pub(super) fn has_room(&self, cx: &Context) -> bool {
        cx.board.totals(self.context.number).has_room()
    }

    /// When this part wants to be looked at again, at the latest.
    pub(super) fn deadline(&self, cx: &Context) -> Option<Instant> {
        let pause = match self.context.paced(Room::Free) {
            Room::Later(length) if self.spares(cx).is_none() => Some(cx.now + length),
            _ => None,
        };
        let times = [self.admission.rest_until(), cx.shortage.retry_at(), pause];
        times.into_iter().flatten().filter(|&then| then > cx.now).chain(self.again).min()
    }

    /// Time has passed.
    pub(super) fn on_turn(&mut self, cx: &mut Context) {
        if !self.pending.is_empty() {
            self.try_pending(cx);
        }
        self.keep_spares(cx);
        if self.admission.is_draining() {
            // the backlog is looked into until it is empty
            self.take_clients(cx, u32::MAX);
        }
    }

    /// From here on clients are served.
    pub(super) fn go_live(&mut self, cx: &Context) {
        self.is_live = true;
        let totals = cx.board.totals(self.context.number);
        totals.set_limit(self.max_children);
        totals.set_wanted_idle(0);
        // it fails only for what is no open file
        let _ = self.context.listener.set_nonblocking(self.spares.is_none());
    }

    /// Leaves the listener to a successor, and the pending client to a child to come.
    pub(super) fn hand_over(&mut self, cx: &Context) {
        self.admission.close();
        self.end_spares(cx);
    }

    /// Has the children end that wait for their client; until it is [reopened](Self::reopen) the master accepts, if there
    /// are to be no spares meanwhile.
    pub(super) fn rest(&self, cx: &Context) {
        if self.spares.is_some() {
            spares::call_off(cx.board, self.context.number);
        }
    }

    /// Has such children again.
    pub(super) fn reopen(&mut self) {
        self.spares.iter_mut().for_each(Spares::forget);
    }

    /// Serves those that are queued, and no others.
    pub(super) fn drain(&mut self, cx: &Context, queued: u32) {
        self.admission.drain(queued);
        self.end_spares(cx);
        // from here on the master accepts
        let _ = self.context.listener.set_nonblocking(true);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.admission.is_closed() && self.pending.is_empty()
    }

    /// Takes no more clients, and gives up a pending one.
    pub(super) fn close(&mut self, cx: &mut Context) {
        self.admission.close();
        self.end_spares(cx);
        if let Some(client) = self.let_go(cx) {
            client.ticket.into_iter().for_each(|ticket| cx.board.sources().leave(ticket));
            self.give_up(cx, client.peer);
        }
        self.context.listener.refuse();
    }
}

/// What was taken from the queue: a connection or, in the batch, a datagram.
type Taken = (Option<OwnedFd>, Peer);

/// How clients come in, as the rules of [`admission`](crate::admission) say.
impl Forking {
    /// Whether the loop should wait for clients here.
    pub(super) fn wants_clients(&self, cx: &Context) -> bool {
        let room = self.room(cx);
        let takes = match self.spares(cx) {
            // they accept as long as there are any
            Some(spares) => room == Room::Full && !spares.any_wait(),
            None => true,
        };
        takes && self.admission.wants_clients(room, cx.now)
    }

    /// The spare children, if they accept.
    fn spares(&self, cx: &Context) -> Option<&Spares> {
        self.spares.as_ref().filter(|_| cx.has_spares)
    }

    /// Whether a child may be forked.
    fn room(&self, cx: &Context) -> Room {
        // while fork fails, one client now and then finds out whether it still does
        match self.has_room(cx) {
            _ if cx.is_short() || !self.pending.is_empty() => Room::Soon,
            true => self.context.paced(Room::Free),
            // there may be room after all, as soon as these are reaped
            false if cx.board.has_dead() => Room::Soon,
            false => Room::Full,
        }
    }

    /// There may be clients, of which `most` are taken at most.
    pub(super) fn take_clients(&mut self, cx: &mut Context, most: u32) {
        if !self.wants_clients(cx) {
            return;
        }
        // it could not be filled up while there was no descriptor at all
        cx.restore_reserve();
        self.admission.rested();
        let usual = self.usual_round(cx);
        let mut round = Round::of(most.min(usual), REFUSALS);
        loop {
            let taken = match self.admission.next(&round, self.room(cx)) {
                Next::Accept => match self.slot(cx) {
                    Some(slot) => self.take_one(cx, slot),
                    None => break,
                },
                Next::Reject => self.reject_one(cx).map(|()| false),
                Next::WaitForRoom => {
                    self.at_limit(cx);
                    break;
                }
                Next::Wait | Next::LeaveToOthers | Next::Rest(_) | Next::Pause(_) => break,
                Next::Done => return self.close(cx),
            };
            let news = match taken {
                Ok(true) => self.admission.accepted(&mut round),
                Ok(false) => {
                    self.admission.refused(&mut round);
                    None
                }
                Err(error) => self.admission.failed(&mut round, error, cx.now),
            };
            events::accepting(self.context.listener.endpoint(), news);
            if matches!(taken, Err(error) if Failure::of(error) == Failure::Shortage) {
                self.take_by_reserve(cx, &mut round);
            }
        }
        let crowded = usual > 1 && round.is_spent();
        if self.crowded != crowded {
            // not written for nothing: after a fork that is a page fault
            self.crowded = crowded;
        }
    }

    /// How many clients are taken in one turn. While they come one by one, no second one is looked for: to find none is a
    /// system call for nothing.
    fn usual_round(&self, cx: &Context) -> u32 {
        if self.crowded || cx.is_busy || self.admission.is_draining() { FORKS } else { 1 }
    }

    /// A slot for the child of a client, which stays queued if there is none.
    fn slot(&mut self, cx: &Context) -> Option<u32> {
        let slot = cx.board.take(self.context.number, false, cx.now);
        if slot.is_none() {
            self.admission.put_back();
            self.at_limit(cx);
        }
        slot
    }

    /// Takes the next client, and forks a child for it; `false` if it gets none.
    fn take_one(&mut self, cx: &mut Context, slot: u32) -> rustix::io::Result<bool> {
        let client = self.next_client().map(|client| self.admit(cx, slot, client));
        if let Ok(Some(client)) = client {
            self.give_child(cx, slot, client);
            return Ok(true);
        }
        cx.board.put_back(slot);
        client.map(|_| false)
    }

    /// The next client; a datagram is in the batch.
    fn next_client(&mut self) -> rustix::io::Result<Taken> {
        let listener = &self.context.listener;
        if let Some(batch) = &mut self.work.batch {
            batch.receive_one(&**listener, Patience::DontWait).map_err(|error| errno(&error))?;
            return Ok((None, peer_of(&batch.datagram(0))));
        }
        let (socket, peer) = match self.admission.is_draining() {
            true => listener.accept_queued(true)?,
            false if self.spares.is_some() => listener.accept_among_waiting()?,
            false => listener.accept_now(&**listener)?,
        };
        Ok((Some(socket), peer))
    }

    /// The client, if it gets a child.
    fn admit(&self, cx: &Context, slot: u32, client: Taken) -> Option<Client> {
        match (client, &self.work.batch) {
            ((Some(socket), peer), _) => {
                // it counts in the slot of its child
                let Admitted { socket, peer, ticket } =
                    self.context.admit_connection(cx.board, cx.board.slot(slot), (socket, peer))?;
                // In a crowd no child is forked for a connection that its client has reset: Linux hands that over, too.
                if (self.crowded || cx.is_busy) && was_reset(&socket) {
                    ticket.into_iter().for_each(|ticket| cx.board.sources().leave(ticket));
                    return None;
                }
                Some(Client { connection: Some(socket), peer, since: cx.now, ticket })
            }
            ((None, peer), Some(batch)) => {
                let admitted = self.context.admit_datagram(&cx.udp_filter, &batch.datagram(0));
                let (_, ticket) = admitted.map_err(|why| cx.board.refuse(self.context.number, why)).ok()?;
                Some(Client { connection: None, peer, since: cx.now, ticket })
            }
            ((None, _), None) => None,
        }
    }

    /// Serves one client with the descriptor in reserve; the others wait in the backlog.
    fn take_by_reserve(&mut self, cx: &mut Context, round: &mut Round) {
        if !cx.give_up_reserve() {
            return;
        }
        if self.admission.take_queued()
            && let Some(slot) = self.slot(cx)
            && let Err(error) = self.take_one(cx, slot)
        {
            self.admission.failed(round, error, cx.now);
        }
        cx.restore_reserve();
    }

    /// There are as many children as allowed, and clients wait.
    fn at_limit(&mut self, cx: &Context) {
        if let Some(suppressed) = self.admission.found_full(cx.now) {
            events::at_limit(self.context.listener.endpoint(), self.max_children, suppressed);
        }
    }

    /// There are as many children as allowed, and the next client is rejected.
    fn reject_one(&mut self, cx: &Context) -> rustix::io::Result<()> {
        let (connection, peer) = self.next_client()?;
        if let Some(connection) = connection {
            reset_at_close(&connection);
        }
        cx.board.refuse(self.context.number, Refusal::Limit);
        if let Some(suppressed) = self.refusals.admit(cx.now) {
            events::rejected(self.context.listener.endpoint(), peer, self.max_children, suppressed);
        }
        Ok(())
    }
}

/// How each gets a child.
impl Forking {
    /// Forks spare children for those that have taken their client, a few in one turn.
    fn keep_spares(&mut self, cx: &mut Context) {
        let Some(spares) = self.spares.as_mut().filter(|_| cx.has_spares && self.is_live) else { return };
        let alive = cx.board.totals(self.context.number).alive.load(Ordering::Relaxed);
        if !spares.look_is_due(cx.is_woken, alive, cx.now) {
            return;
        }
        let is_queued = || wait_readable(&*self.context.listener, Duration::ZERO);
        let Look { missing, news } = spares.look(cx.board, cx.now, is_queued);
        let retry_at = spares.retry_at().filter(|&then| then > cx.now);
        match news {
            None => {}
            Some(News::Failing) => events::spares_failing(self.context.listener.endpoint()),
            Some(News::WorkAgain(after)) => {
                events::spares_work_again(self.context.listener.endpoint(), after);
            }
        }
        let most = if cx.is_short() { 0 } else { missing.min(FORKS) };
        // on the stack, as a write to the heap after each fork would be a page fault
        let mut forked: SmallVec<[Spare; FORKS as usize]> = SmallVec::new();
        while (forked.len() as u32) < most {
            let Some(slot) = cx.board.take(self.context.number, false, cx.now) else { break };
            let Ok(pid) = self.fork_child(cx, slot, None, Peer::None, None) else { break };
            forked.push(Spare { slot, pid });
        }
        self.spares.iter_mut().filter(|_| !forked.is_empty()).for_each(|spares| spares.add(&forked));
        // those that are forked may have their client already
        let again = if forked.is_empty() { retry_at } else { Some(cx.now) };
        if self.again != again {
            self.again = again;
        }
        let is_full = forked.is_empty() && most > 0 && !self.has_room(cx);
        if is_full && self.is_awaited() {
            self.at_limit(cx);
        }
    }

    /// Whether clients wait, and no spare child for them.
    fn is_awaited(&self) -> bool {
        self.spares.as_ref().is_some_and(|spares| !spares.any_wait())
            && wait_readable(&*self.context.listener, Duration::ZERO)
    }

    /// Has those that wait end, and forks no more of them.
    fn end_spares(&mut self, cx: &Context) {
        let has_old = std::mem::take(&mut self.has_old_spares);
        if self.spares.take().is_none() && !has_old {
            return;
        }
        if self.is_live || has_old {
            spares::call_off(cx.board, self.context.number);
        }
        self.again = None;
        self.work.end_waiting(cx);
    }

    /// Forks a child for a client, and keeps the client if that fails.
    fn give_child(&mut self, cx: &mut Context, slot: u32, client: Client) {
        if let Some(now) = cx.board.clock_us() {
            let waited = cx.now.duration_since(client.since).as_micros() as u64;
            cx.board.record(slot).set_accepted(now.saturating_sub(waited));
        }
        match self.fork_child(cx, slot, client.connection.as_ref(), client.peer, client.ticket) {
            Ok(pid) => events::accepted(self.context.listener.endpoint(), client.peer, pid),
            Err(()) => self.hold(cx, client),
        }
    }

    fn try_pending(&mut self, cx: &mut Context) {
        if cx.is_short() {
            return;
        }
        let Some(client) = self.let_go(cx) else { return };
        match cx.board.take(self.context.number, false, cx.now) {
            Some(slot) => self.give_child(cx, slot, client),
            None => self.hold(cx, client),
        }
    }

    fn hold(&mut self, cx: &mut Context, client: Client) {
        cx.board.totals(self.context.number).hold();
        self.pending.put(client, &mut cx.descriptors);
    }

    fn let_go(&mut self, cx: &mut Context) -> Option<Client> {
        let client = self.pending.take(&mut cx.descriptors)?;
        cx.board.totals(self.context.number).let_go();
        Some(client)
    }

    fn give_up(&mut self, cx: &Context, peer: Peer) {
        cx.board.refuse(self.context.number, Refusal::Fork);
        if let Some(suppressed) = self.refusals.admit(cx.now) {
            events::held_too_long(peer, self.context.listener.endpoint(), suppressed);
        }
    }

    /// Forks a child for a connection, or for the datagram in the batch, or one that waits for its client. A failure is
    /// noted as a shortage.
    fn fork_child(
        &mut self,
        cx: &mut Context,
        index: u32,
        connection: Option<&OwnedFd>,
        peer: Peer,
        ticket: Option<Ticket>,
    ) -> Result<u32, ()> {
        let (slot, record) = (cx.board.slot(index), cx.board.record(index));
        slot.set_peer(peer);
        Ticket::put(ticket, &slot.ticket);
        if connection.is_some() {
            self.context.begin_early(slot);
        }
        self.work.update(cx);
        let raises_later = cx.raises_children
            && !self.context.service_config.service.is_handler()
            && cx.board.unraised() < cx.oom.few();
        if raises_later {
            cx.board.raise_later(index);
        }
        let cells = PidCells { parent: &record.pid, child: Some(&slot.pid) };
        let order = Order { index, raises_later, peer }.pack();
        let forked = cx
            .oom
            .require_room()
            .and_then(|()| fork_apart(&cx.blocked, cells, &mut self.work, connection, order));
        match forked {
            Ok(child) => {
                cx.board.born(index);
                cx.fork_worked();
                Ok(child.pid.cast_unsigned())
            }
            Err(error) => {
                // the client keeps it
                Ticket::put(None, &slot.ticket);
                cx.board.put_back(index);
                cx.board.totals(self.context.number).fork_failed();
                cx.fork_failed(&error);
                Err(())
            }
        }
    }
}
