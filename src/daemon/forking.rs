//! The fork model, the master's side: accept, fork, close, and what to do when that fails.
//!
//! Nobody who has connected is dropped for a passing shortage: a connection that no child can be
//! forked for is held, and the listener rests, until fork(2) works again or the grace time is over.

use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::birth;
use super::context::{ACCEPT_REST, Context};
use super::descriptors::Closing;
use crate::events;
use crate::log::{RateLimit, Spell};
use crate::model::fork::{Task, run};
use crate::model::serve::{Post, Work, batch_for, concerns_one_connection, peer_of};
use crate::scoreboard::Cause;
use crate::sys::datagram::{Batch, Patience};
use crate::sys::fd::set_nonblocking;
use crate::sys::fork::{Watch, fork};
use crate::transport::listener::Kind;
use crate::transport::{Peer, Refusal};

/// How many clients one listener may bring in one turn of the loop, so that none starves another.
const PER_TURN: usize = 64;

/// A listening socket whose clients each get a child.
#[derive(Debug)]
pub(super) struct Forking {
    pub(super) post: Post,
    max_children: u32,
    rejects: bool,
    closing: Closing,
    /// For datagrams: the one in hand.
    batch: Option<Box<Batch>>,
    held: Option<Held>,
    rest_until: Option<Instant>,
    /// accept(2) finds no descriptor.
    starved: Spell,
    /// It takes no more clients but those that are queued.
    draining: bool,
    /// It takes no more clients.
    closed: bool,
    refusals: RateLimit,
    full: RateLimit,
}

/// Somebody who could not be served yet.
#[derive(Debug)]
struct Held {
    /// `None`: the datagram in the batch.
    connection: Option<OwnedFd>,
    peer: Peer,
    since: Instant,
}

/// How accepting went on.
#[derive(PartialEq, Eq)]
enum Next {
    /// There may be another client.
    More,
    /// There is none, or no room for one.
    Wait,
}

impl Forking {
    pub(super) fn new(post: Post, listen: &crate::config::Listen) -> Self {
        let listener = &post.listener;
        let datagrams = listener.kind() == Kind::Datagram;
        // the child answers a datagram through the listening socket itself
        let keep = if datagrams { vec![listener.as_raw_fd()] } else { Vec::new() };
        Self {
            max_children: listen.max_children,
            rejects: listen.overflow == crate::config::values::Overflow::Reject,
            closing: Closing::all_but(keep),
            batch: datagrams.then(|| Box::new(batch_for(listener, 1))),
            post,
            held: None,
            rest_until: None,
            starved: Spell::default(),
            draining: false,
            closed: false,
            refusals: RateLimit::default(),
            full: RateLimit::default(),
        }
    }

    /// Whether the loop should wait for clients here.
    pub(super) fn wants_clients(&self, cx: &Context) -> bool {
        !self.closed
            && self.held.is_none()
            // while fork fails, one client now and then finds out whether it still does
            && cx.shortage.is_none_or(|shortage| shortage.retry_at <= cx.now)
            && self.rest_until.is_none_or(|then| then <= cx.now)
            && (self.rejects || self.has_room(cx))
    }

    /// Whether another child may be forked.
    pub(super) fn has_room(&self, cx: &Context) -> bool {
        cx.board.totals(self.post.number).has_room()
    }

    /// When this part wants to be looked at again, at the latest.
    pub(super) fn deadline(&self, cx: &Context) -> Option<Instant> {
        let retry = cx.shortage.map(|shortage| shortage.retry_at);
        [self.rest_until, retry].into_iter().flatten().filter(|&then| then > cx.now).min()
    }

    /// Time has passed.
    pub(super) fn on_turn(&mut self, cx: &mut Context) {
        if self.held.is_some() {
            self.try_held(cx);
        }
        if self.draining {
            // the backlog is looked into until it is empty
            self.take_clients(cx);
        }
    }

    /// From here on clients are served.
    pub(super) fn go_live(&mut self, cx: &Context) {
        let totals = cx.board.totals(self.post.number);
        totals.set_limit(self.max_children);
        totals.set_wanted_idle(0);
        // it fails only for what is no open file
        let _ = set_nonblocking(&self.post.listener, true);
    }

    /// Leaves the listener to a successor, and the client that is held to a child to come.
    pub(super) fn hand_over(&mut self) {
        self.closed = true;
    }

    /// Serves those that are queued, and nobody else.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// There may be clients.
    pub(super) fn take_clients(&mut self, cx: &mut Context) {
        if !self.wants_clients(cx) {
            return;
        }
        // it could not be filled up while there was no descriptor at all
        cx.restore_reserve();
        for _ in 0..PER_TURN {
            if self.draining && self.has_room(cx) && !cx.board.totals(self.post.number).take_queued() {
                self.close(cx);
                return;
            }
            let next = match self.batch {
                None => self.take_connection(cx),
                Some(_) => self.take_datagram(cx),
            };
            if next == Next::Wait {
                return;
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed && self.held.is_none()
    }

    /// Takes no more clients, and lets go of one that is held.
    pub(super) fn close(&mut self, cx: &mut Context) {
        self.closed = true;
        if let Some(held) = self.take_held(cx) {
            self.give_up(cx, held.peer);
        }
        self.post.listener.refuse();
    }

    fn take_connection(&mut self, cx: &mut Context) -> Next {
        let Some(slot) = cx.board.take(self.post.number, false, cx.now) else { return self.at_limit(cx) };
        match self.post.listener.accept(&*self.post.listener) {
            Ok((connection, peer)) => {
                if self.starved.end() {
                    events::descriptors_back(self.post.listener.endpoint());
                }
                self.give_child(cx, slot, Some(connection), peer)
            }
            Err(error) => {
                cx.board.put_back(slot);
                self.accept_failed(cx, error)
            }
        }
    }

    fn accept_failed(&mut self, cx: &mut Context, error: Errno) -> Next {
        match error {
            Errno::AGAIN => {
                if self.draining {
                    // what was queued has been served now
                    self.close(cx);
                }
                Next::Wait
            }
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                self.accept_starved(cx, error);
                Next::Wait
            }
            error if concerns_one_connection(error) => Next::More,
            error => {
                if let Some(suppressed) = self.refusals.admit(cx.now) {
                    events::accept_failed(self.post.listener.endpoint(), &error, suppressed);
                }
                self.rest_until = Some(cx.now + ACCEPT_REST);
                Next::Wait
            }
        }
    }

    /// One client is served with the descriptor in reserve; the others wait in the backlog.
    fn accept_starved(&mut self, cx: &mut Context, error: Errno) {
        if self.starved.begin(cx.now) {
            events::descriptors_exhausted(self.post.listener.endpoint(), &error);
        }
        self.rest_until = Some(cx.now + ACCEPT_REST);
        if !cx.give_up_reserve() {
            return;
        }
        if let Some(slot) = cx.board.take(self.post.number, false, cx.now) {
            match self.post.listener.accept(&*self.post.listener) {
                Ok((connection, peer)) => _ = self.give_child(cx, slot, Some(connection), peer),
                Err(_) => cx.board.put_back(slot),
            }
        }
        cx.restore_reserve();
    }

    fn take_datagram(&mut self, cx: &mut Context) -> Next {
        let Some(slot) = cx.board.take(self.post.number, false, cx.now) else { return self.at_limit(cx) };
        let Some(batch) = &mut self.batch else { return Next::Wait };
        if let Err(error) = batch.receive_one(&*self.post.listener, Patience::DontWait) {
            cx.board.put_back(slot);
            return self.accept_failed(cx, Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        let datagram = batch.datagram(0);
        if let Err(why) = cx.guard.admit(&datagram) {
            // no child for one that gets no answer
            cx.board.put_back(slot);
            cx.board.refuse(self.post.number, why);
            return Next::More;
        }
        let peer = peer_of(&datagram);
        self.give_child(cx, slot, None, peer)
    }

    /// Forks a child for a connection, or for the datagram in the batch; holds it if that fails.
    fn give_child(&mut self, cx: &mut Context, slot: u32, connection: Option<OwnedFd>, peer: Peer) -> Next {
        let since = cx.now;
        match self.fork_child(cx, slot, connection, peer) {
            Ok(()) => Next::More,
            Err(connection) => {
                self.hold(cx, Held { connection, peer, since });
                Next::Wait
            }
        }
    }

    /// Children that others get meanwhile must not have it: the client would wait for its end.
    fn hold(&mut self, cx: &mut Context, held: Held) {
        cx.descriptors.add(held.connection.as_ref().map(AsRawFd::as_raw_fd));
        self.held = Some(held);
    }

    /// The number is free again soon, and then another client's: children must not close that.
    fn take_held(&mut self, cx: &mut Context) -> Option<Held> {
        let held = self.held.take()?;
        if let Some(connection) = &held.connection {
            cx.descriptors.remove(connection.as_raw_fd());
        }
        Some(held)
    }

    fn try_held(&mut self, cx: &mut Context) {
        if cx.shortage.is_some_and(|shortage| cx.now < shortage.retry_at) {
            return;
        }
        let Some(Held { connection, peer, since }) = self.take_held(cx) else { return };
        let Some(slot) = cx.board.take(self.post.number, false, cx.now) else {
            self.hold(cx, Held { connection, peer, since });
            return;
        };
        if let Err(connection) = self.fork_child(cx, slot, connection, peer) {
            if cx.now < since + cx.grace {
                self.hold(cx, Held { connection, peer, since });
                return;
            }
            self.give_up(cx, peer);
        }
    }

    fn give_up(&mut self, cx: &Context, peer: Peer) {
        cx.board.refuse(self.post.number, Refusal::Fork);
        if let Some(suppressed) = self.refusals.admit(cx.now) {
            events::held_too_long(peer, self.post.listener.endpoint(), suppressed);
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
        let work = Work { service: &cx.service, post: &self.post, guard: &cx.guard, board: cx.board, slot };
        let (connection_ref, batch) = (&mut connection, &mut self.batch);
        let forked = fork(&cx.blocked, &slot.pid, Watch::Nothing, || {
            birth::child(close, cx.pid, work.service);
            let task = match (connection_ref.take(), batch) {
                (Some(connection), _) => Task::Connection(connection, peer),
                (None, Some(batch)) => Task::Datagram(batch),
                (None, None) => return Cause::Done.status(),
            };
            let announce = |cause| work.board.announce(index, cause);
            let served = catch_unwind(AssertUnwindSafe(|| run(&work, task, announce)));
            let cause = served.unwrap_or_else(|_| {
                announce(Cause::Panicked);
                Cause::Panicked
            });
            cause.status()
        });
        match forked {
            Ok(child) => {
                cx.board.born(index);
                events::accepted(self.post.listener.endpoint(), peer, child.pid);
                cx.fork_worked();
                Ok(())
            }
            Err(error) => {
                cx.board.put_back(index);
                cx.fork_failed(&error);
                Err(connection)
            }
        }
    }

    /// There are as many children as allowed.
    fn at_limit(&mut self, cx: &mut Context) -> Next {
        if !self.rejects {
            if let Some(suppressed) = self.full.admit(cx.now) {
                events::at_limit(self.post.listener.endpoint(), self.max_children, suppressed);
            }
            return Next::Wait;
        }
        if cx.board.has_dead() {
            // there may be room after all, as soon as they are buried
            return Next::Wait;
        }
        let taken = match &mut self.batch {
            Some(batch) => batch
                .receive_one(&*self.post.listener, Patience::DontWait)
                .map(|()| peer_of(&batch.datagram(0)))
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            None => self.post.listener.accept(&*self.post.listener).map(|(connection, peer)| {
                // a reset says "no" at once, where an orderly close looks like an answer of nothing
                let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
                peer
            }),
        };
        let peer = match taken {
            Ok(peer) => peer,
            Err(error) => return self.accept_failed(cx, error),
        };
        cx.board.refuse(self.post.number, Refusal::Limit);
        if let Some(suppressed) = self.refusals.admit(cx.now) {
            events::rejected(self.post.listener.endpoint(), peer, self.max_children, suppressed);
        }
        Next::More
    }
}
