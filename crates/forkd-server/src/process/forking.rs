//! The fork model, the master's side: a child for each client, and what to do when fork fails.
//!
//! No client is dropped for a shortage: a connection that no child can be forked for stays pending, and the listener
//! rests, until fork(2) works again or the daemon stops.

use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::birth;
use super::context::Context;
use super::descriptors::{Closing, kept_for};
use super::pending::{Client, Pending};
use crate::admission::Admission;
use crate::events;
use crate::limit::RateLimit;
use crate::model::Overflow;
use crate::model::fork::{Task, run};
use crate::model::serve::{ListenerContext, Work, batch_for};
use crate::scoreboard::Cause;
use crate::spec::ModelSpec;
use crate::sys::datagram::Batch;
use crate::sys::fork::{PidCells, Watch, fork};
use crate::transport::listener::Kind;
use crate::transport::{Peer, Refusal};

/// A listening socket whose clients each get a child.
#[derive(Debug)]
pub(super) struct Forking {
    pub(super) context: ListenerContext,
    pub(super) max_children: u32,
    closing: Closing,
    /// For datagrams: the one in hand.
    pub(super) batch: Option<Box<Batch>>,
    pub(super) pending: Pending,
    pub(super) admission: Admission<u32>,
    /// There were more clients than it could bring in its last turn.
    pub(super) crowded: bool,
    pub(super) refusals: RateLimit,
}

impl Forking {
    pub(super) fn new(context: ListenerContext, spec: &ModelSpec) -> Self {
        let datagrams = context.listener.kind() == Kind::Datagram;
        // the child answers a datagram through the listening socket itself
        let listener = datagrams.then(|| context.listener.as_raw_fd());
        let keep = listener.into_iter().chain(kept_for(&context.service_config.service)).collect();
        Self {
            max_children: spec.max_children,
            closing: Closing::all_but(keep),
            batch: datagrams.then(|| Box::new(batch_for(&context.listener, 1))),
            context,
            pending: Pending::default(),
            admission: Admission::of_master(spec.overflow == Overflow::Reject),
            crowded: false,
            refusals: RateLimit::default(),
        }
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
        let times = [self.admission.rest_until(), cx.shortage.retry_at()];
        times.into_iter().flatten().filter(|&then| then > cx.now).min()
    }

    /// Time has passed.
    pub(super) fn on_turn(&mut self, cx: &mut Context) {
        if !self.pending.is_empty() {
            self.try_pending(cx);
        }
        if self.admission.is_draining() {
            // the backlog is looked into until it is empty
            self.take_clients(cx, u32::MAX);
        }
    }

    /// From here on clients are served.
    pub(super) fn go_live(&mut self, cx: &Context) {
        let totals = cx.board.totals(self.context.number);
        totals.set_limit(self.max_children);
        totals.set_wanted_idle(0);
        // it fails only for what is no open file
        let _ = self.context.listener.set_nonblocking(true);
    }

    /// Leaves the listener to a successor, and the pending client to a child to come.
    pub(super) fn hand_over(&mut self) {
        self.admission.close();
    }

    /// Serves those that are queued, and no others.
    pub(super) fn drain(&mut self, queued: u32) {
        self.admission.drain(queued);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.admission.is_closed() && self.pending.is_empty()
    }

    /// Takes no more clients, and gives up a pending one.
    pub(super) fn close(&mut self, cx: &mut Context) {
        self.admission.close();
        if let Some(client) = self.let_go(cx) {
            self.give_up(cx, client.peer);
        }
        self.context.listener.refuse();
    }

    /// Forks a child for a connection, or for the datagram in the batch; holds it if that fails.
    pub(super) fn give_child(
        &mut self,
        cx: &mut Context,
        slot: u32,
        connection: Option<OwnedFd>,
        peer: Peer,
    ) {
        let since = cx.now;
        if let Some(now) = cx.board.clock_us() {
            cx.board.record(slot).set_accepted(now);
        }
        if let Err(connection) = self.fork_child(cx, slot, connection, peer) {
            self.hold(cx, Client { connection, peer, since });
        }
    }

    fn try_pending(&mut self, cx: &mut Context) {
        if cx.shortage.retry_at().is_some_and(|then| cx.now < then) {
            return;
        }
        let Some(Client { connection, peer, since }) = self.let_go(cx) else { return };
        let connection = match cx.board.take(self.context.number, false, cx.now) {
            None => connection,
            Some(slot) => {
                if let Some(now) = cx.board.clock_us() {
                    let waited = cx.now.duration_since(since).as_micros() as u64;
                    cx.board.record(slot).set_accepted(now.saturating_sub(waited));
                }
                match self.fork_child(cx, slot, connection, peer) {
                    Ok(()) => return,
                    Err(connection) => connection,
                }
            }
        };
        self.hold(cx, Client { connection, peer, since });
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

    /// On failure the connection comes back, and the shortage is noted.
    fn fork_child(
        &mut self,
        cx: &mut Context,
        index: u32,
        mut connection: Option<OwnedFd>,
        peer: Peer,
    ) -> Result<(), Option<OwnedFd>> {
        let slot = cx.board.slot(index);
        slot.set_peer(peer);
        let close = self.closing.of(&cx.descriptors);
        let work =
            Work { context: &self.context, udp_filter: &cx.udp_filter, board: cx.board, slot, ticker: None };
        let (connection_ref, batch) = (&mut connection, &mut self.batch);
        let raises_later =
            cx.raises_children && !work.service().is_handler() && cx.board.unwatched() < cx.oom.few();
        if raises_later {
            cx.board.record(index).raise_later();
        }
        let expendable = cx.oom.score().filter(|_| !raises_later);
        let cells = PidCells { parent: &cx.board.record(index).pid, child: Some(&slot.pid) };
        let forked = cx.oom.require_room().and_then(|()| {
            fork(&cx.blocked, cells, Watch::Nothing, || {
                if let Some(expendable) = expendable {
                    expendable.become_so();
                }
                birth::child(work.board, close, cx.pid, work.service());
                let task = match (connection_ref.take(), batch) {
                    (Some(connection), _) => Task::Connection(connection, peer),
                    (None, Some(batch)) => Task::Datagram(batch),
                    (None, None) => return Cause::Done.status(),
                };
                let announce = |cause| work.board.announce(index, cause);
                let served = catch_unwind(AssertUnwindSafe(|| run(&work, task, announce)));
                let cause = served.unwrap_or_else(|payload| {
                    work.context.service_config.hooks.panicked(peer, &*payload);
                    announce(Cause::Panicked);
                    Cause::Panicked
                });
                cause.status()
            })
        });
        match forked {
            Ok(child) => {
                cx.board.born(index);
                events::accepted(self.context.listener.endpoint(), peer, child.pid);
                cx.fork_worked();
                Ok(())
            }
            Err(error) => {
                cx.board.put_back(index);
                cx.board.totals(self.context.number).fork_failed();
                cx.fork_failed(&error);
                Err(connection)
            }
        }
    }
}
