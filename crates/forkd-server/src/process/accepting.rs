//! The fork model, the master's side: how clients come in, as the rules of [`admission`](crate::admission) say.
//!
//! A listener brings in only a few clients in one turn of the loop, so that a flood at one of them keeps no client of
//! another waiting. What is short here, slots or descriptors, leaves clients in the backlog.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;

use super::context::Context;
use super::forking::Forking;
use crate::admission::{Failure, Next, Room, Round};
use crate::events;
use crate::model::accept_loop::errno;
use crate::model::serve::peer_of;
use crate::sys::datagram::Patience;
use crate::sys::tcp::was_reset;
use crate::transport::{Peer, Refusal};

/// How many clients of one listener get a child in one turn of the loop, and how many get none: a fork takes as long as
/// some twenty refusals.
const FORKS: u32 = 4;
const REFUSALS: u32 = 64;

impl Forking {
    /// Whether the loop should wait for clients here.
    pub(super) fn wants_clients(&self, cx: &Context) -> bool {
        self.admission.wants_clients(self.room(cx), cx.now)
    }

    /// Whether a child may be forked.
    fn room(&self, cx: &Context) -> Room {
        // while fork fails, one client now and then finds out whether it still does
        let is_short = cx.shortage.retry_at().is_some_and(|then| cx.now < then);
        match self.has_room(cx) {
            _ if is_short || !self.pending.is_empty() => Room::Soon,
            true => Room::Free,
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
        let mut round = Round::of(most.min(FORKS), REFUSALS);
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
                Next::Wait | Next::Rest(_) | Next::Stop => break,
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
        if self.crowded != round.is_spent() {
            // not written for nothing: after a fork that is a page fault
            self.crowded = round.is_spent();
        }
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
        let client = self.next_client(cx);
        if let Ok(Some((connection, peer))) = client {
            self.give_child(cx, slot, connection, peer);
            return Ok(true);
        }
        cx.board.put_back(slot);
        client.map(|_| false)
    }

    /// The next client, unless it is not served; a datagram is in the batch.
    fn next_client(&mut self, cx: &Context) -> rustix::io::Result<Option<(Option<OwnedFd>, Peer)>> {
        if self.batch.is_none() {
            let drains = self.admission.is_draining();
            let client = self.context.accept(cx.board, |listener| match drains {
                true => listener.accept_queued(true),
                false => listener.accept_now(listener),
            })?;
            // In a crowd no child is forked for a connection that its client has reset: Linux hands that one over, too.
            let client = client.filter(|(socket, _)| !self.crowded || !was_reset(socket));
            return Ok(client.map(|(socket, peer)| (Some(socket), peer)));
        }
        self.receive()?;
        let Some(datagram) = self.batch.as_ref().map(|batch| batch.datagram(0)) else { return Ok(None) };
        match self.context.admit_datagram(&cx.udp_filter, &datagram) {
            Ok(_) => Ok(Some((None, peer_of(&datagram)))),
            Err(why) => {
                cx.board.refuse(self.context.number, why);
                Ok(None)
            }
        }
    }

    /// The next datagram is in the batch.
    fn receive(&mut self) -> rustix::io::Result<()> {
        let Some(batch) = &mut self.batch else { return Err(Errno::AGAIN) };
        batch.receive_one(&*self.context.listener, Patience::DontWait).map_err(|error| errno(&error))
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
        if let Some(suppressed) = self.admission.is_full(cx.now) {
            events::at_limit(self.context.listener.endpoint(), self.max_children, suppressed);
        }
    }

    /// There are as many children as allowed, and the next client is rejected.
    fn reject_one(&mut self, cx: &Context) -> rustix::io::Result<()> {
        let peer = match &self.batch {
            Some(_) => {
                self.receive()?;
                self.batch.as_ref().map_or(Peer::None, |batch| peer_of(&batch.datagram(0)))
            }
            None => {
                let listener = &self.context.listener;
                let (connection, peer) = match self.admission.is_draining() {
                    true => listener.accept_queued(true)?,
                    false => listener.accept_now(&**listener)?,
                };
                // a reset says "no" at once, where an orderly close looks like an answer of nothing
                let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
                peer
            }
        };
        cx.board.refuse(self.context.number, Refusal::Limit);
        if let Some(suppressed) = self.refusals.admit(cx.now) {
            events::rejected(self.context.listener.endpoint(), peer, self.max_children, suppressed);
        }
        Ok(())
    }
}
