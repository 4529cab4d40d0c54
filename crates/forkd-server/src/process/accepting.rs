//! The fork model, the master's side: who comes in, and who does not.
//!
//! A listener brings in only a few clients in one turn of the loop ([`Quota`]), so that a flood at one of them keeps
//! no client of another waiting. What is short here, places or descriptors, leaves clients in the backlog.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;

use super::context::{ACCEPT_REST, Context};
use super::forking::Forking;
use crate::events;
use crate::model::entrance::errno;
use crate::model::serve::{peer_of, unless_reset};
use crate::sys::datagram::Patience;
use crate::transport::listener::concerns_one_connection;
use crate::transport::{Peer, Refusal};

/// How accepting went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A child was forked; there may be another client.
    Forked,
    /// A client got no child; there may be another one.
    Refused,
    /// There is none, or no room for one.
    Wait,
}

/// How many clients one listener may bring in one turn of the loop. A fork takes as long as some twenty refusals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    forks: usize,
    refusals: usize,
}

impl Quota {
    /// The whole quota, but of no more than so many forks.
    pub(super) fn at_most(forks: usize) -> Self {
        Self { forks: forks.min(4), refusals: 64 }
    }

    fn is_left(self) -> bool {
        self.forks > 0 && self.refusals > 0
    }

    fn count(&mut self, next: Next) {
        match next {
            Next::Forked => self.forks -= 1,
            Next::Refused => self.refusals -= 1,
            Next::Wait => {}
        }
    }
}

impl Forking {
    /// There may be clients, of whom so many are taken at most.
    pub(super) fn take_clients(&mut self, cx: &mut Context, mut quota: Quota) {
        if !self.wants_clients(cx) {
            return;
        }
        // it could not be filled up while there was no descriptor at all
        cx.restore_reserve();
        while quota.is_left() {
            if self.is_drained() {
                self.close(cx);
                return;
            }
            let next = match self.batch {
                None => self.take_connection(cx),
                Some(_) => self.take_datagram(cx),
            };
            quota.count(next);
            if next == Next::Wait {
                break;
            }
        }
        let crowded = !quota.is_left();
        if self.crowded != crowded {
            // not written for nothing: after a fork that is a page fault
            self.crowded = crowded;
        }
    }

    fn accept(&mut self, cx: &Context) -> rustix::io::Result<(OwnedFd, Peer)> {
        let client = match self.draining {
            true => self.post.accept_queued(cx.board, true),
            false => self.post.accept_now(cx.board),
        };
        self.count_queued(&client);
        if self.crowded { unless_reset(client?) } else { client }
    }

    fn take_connection(&mut self, cx: &mut Context) -> Next {
        let Some(slot) = cx.board.take(self.post.number, false, cx.now) else { return self.at_limit(cx) };
        match self.accept(cx) {
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

    /// The next datagram is in the batch.
    fn receive(&mut self) -> rustix::io::Result<()> {
        let Some(batch) = &mut self.batch else { return Err(Errno::AGAIN) };
        let received = batch.receive_one(&*self.post.listener, Patience::DontWait);
        let received = received.map_err(|error| errno(&error));
        self.count_queued(&received);
        received
    }

    /// Takes the next client, who gets no child.
    fn refuse_one(&mut self) -> rustix::io::Result<Peer> {
        if self.batch.is_some() {
            self.receive()?;
            return self.batch.as_ref().map(|batch| peer_of(&batch.datagram(0))).ok_or(Errno::AGAIN);
        }
        let taken = match self.draining {
            true => self.post.listener.accept_queued(true),
            false => self.post.listener.accept_now(&*self.post.listener),
        };
        self.count_queued(&taken);
        let (connection, peer) = taken?;
        // a reset says "no" at once, where an orderly close looks like an answer of nothing
        let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
        Ok(peer)
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
            error if concerns_one_connection(error) => Next::Refused,
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
            match self.accept(cx) {
                Ok((connection, peer)) => _ = self.give_child(cx, slot, Some(connection), peer),
                Err(_) => cx.board.put_back(slot),
            }
        }
        cx.restore_reserve();
    }

    fn take_datagram(&mut self, cx: &mut Context) -> Next {
        let Some(slot) = cx.board.take(self.post.number, false, cx.now) else { return self.at_limit(cx) };
        if let Err(error) = self.receive() {
            cx.board.put_back(slot);
            return self.accept_failed(cx, error);
        }
        let Some(batch) = &self.batch else { return Next::Wait };
        let datagram = batch.datagram(0);
        if let Err(why) = self.post.admit(&cx.guard, &datagram) {
            // no child for one that gets no answer
            cx.board.put_back(slot);
            cx.board.refuse(self.post.number, why);
            return Next::Refused;
        }
        let peer = peer_of(&datagram);
        self.give_child(cx, slot, None, peer)
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
        let peer = match self.refuse_one() {
            Ok(peer) => peer,
            Err(error) => return self.accept_failed(cx, error),
        };
        cx.board.refuse(self.post.number, Refusal::Limit);
        if let Some(suppressed) = self.refusals.admit(cx.now) {
            events::rejected(self.post.listener.endpoint(), peer, self.max_children, suppressed);
        }
        Next::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many clients are taken, if the last of these goes on for ever.
    fn taken(forks: usize, nexts: &[Next]) -> usize {
        let (mut quota, mut count) = (Quota::at_most(forks), 0);
        while quota.is_left() {
            quota.count(nexts[count.min(nexts.len() - 1)]);
            count += 1;
        }
        count
    }

    #[test]
    fn a_turn_is_a_few_forks_or_many_refusals() {
        use Next::{Forked, Refused};
        for (forks, nexts, count) in [
            (usize::MAX, &[Forked][..], 4),
            (usize::MAX, &[Refused], 64),
            (usize::MAX, &[Refused, Refused, Refused, Forked], 7),
            (usize::MAX, &[Forked, Forked, Forked, Refused], 67),
            (1, &[Forked], 1),
            (0, &[Forked], 0),
        ] {
            assert_eq!(taken(forks, nexts), count, "{forks} {nexts:?}");
        }
    }
}
