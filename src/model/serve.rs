//! What a child does with one connection or datagram, whichever model it runs under.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::scoreboard::{Cause, Scoreboard, Slot, Totals};
use crate::service::Service;
use crate::sys::datagram::{Batch, Datagram, Patience, Source};
use crate::transport::guard::Guard;
use crate::transport::{Connection, Listener, Peer, Refusal, Traffic};

/// A listening socket, with what its children must know of it.
#[derive(Debug)]
pub(crate) struct Post {
    /// Shared by the stations before and after a reload.
    pub(crate) listener: Rc<Listener>,
    /// Its number on the scoreboard.
    pub(crate) number: usize,
    pub(crate) service: Service,
    pub(crate) idle_timeout: Option<Duration>,
}

/// What a child needs for its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) post: &'a Post,
    pub(crate) guard: &'a Guard,
    pub(crate) board: &'static Scoreboard,
    pub(crate) slot: &'static Slot,
}

impl Work<'_> {
    pub(crate) fn listener(&self) -> &Listener {
        &self.post.listener
    }

    pub(crate) fn service(&self) -> &Service {
        &self.post.service
    }

    /// The listener's counters.
    pub(crate) fn totals(&self) -> &'static Totals {
        self.board.totals(self.post.number)
    }

    /// Serves one connection until it ends; it is still to be closed.
    pub(crate) fn connection(&self, socket: OwnedFd, peer: Peer) -> (Cause, Connection<'_>) {
        let since = self.clock();
        let served =
            serve_connection(self.service(), socket, peer, self.post.idle_timeout, &self.slot.traffic);
        self.lasted(since);
        served
    }

    /// When a connection begins that a worker serves, if that is measured. How long it lasted is said to
    /// [`lasted`](Self::lasted).
    #[inline(always)]
    pub(crate) fn clock(&self) -> Option<u64> {
        // of a child that serves no other the master keeps count
        if self.slot.is_watched() { self.board.clock_us() } else { None }
    }

    /// A connection that began then has ended.
    #[inline(always)]
    pub(crate) fn lasted(&self, since: Option<u64>) {
        if let (Some(since), Some(now)) = (since, self.clock()) {
            self.totals().durations.observe(now.saturating_sub(since));
        }
    }

    /// Answers the first `count` datagrams of a batch.
    pub(crate) fn datagrams(&self, batch: &mut Batch, count: usize, echoes: bool) {
        let mut queued = 0;
        for i in 0..count {
            let datagram = batch.datagram(i);
            let (peer, length) = (peer_of(&datagram), datagram.payload.len() as u64);
            let hops = match self.guard.admit(&datagram) {
                Ok(hops) => hops,
                Err(why) => {
                    self.board.refuse(self.post.number, why);
                    continue;
                }
            };
            Traffic::add(&self.slot.traffic.connections, 1);
            Traffic::add(&self.slot.traffic.bytes_in, length);
            self.slot.set_peer(peer);
            if echoes {
                batch.queue_back(i, hops);
                queued += 1;
            } else {
                self.answer(batch, i, peer, hops);
            }
        }
        if queued > 0 {
            let (sent, bytes) = batch.send_back(self.listener(), self.patience());
            Traffic::add(&self.slot.traffic.bytes_out, bytes);
            (sent..queued).for_each(|_| self.board.refuse(self.post.number, Refusal::Unsendable));
        }
    }

    fn answer(&self, batch: &Batch, i: usize, peer: Peer, hops: Option<u8>) {
        let traffic = &self.slot.traffic;
        let mut send = |payload: &[u8]| {
            batch.answer(i, self.listener(), payload, hops, self.patience())?;
            Traffic::add(&traffic.bytes_out, payload.len() as u64);
            Ok(())
        };
        if let Err(error) = self.service().answer(batch.datagram(i).payload, peer, traffic, &mut send) {
            log::debug!(peer:% = peer, error:% = error; "datagram not answered");
            self.board.refuse(self.post.number, Refusal::Unsendable);
        }
    }

    /// A Unix peer that does not read would hold its server for as long as it likes.
    fn patience(&self) -> Patience {
        if self.listener().is_unix() { Patience::DontWait } else { Patience::Wait }
    }
}

/// Serves one connection until it ends; it is still to be closed.
// a function of its own would be one more window of text for each child to fault in
#[inline(always)]
pub(crate) fn serve_connection<'a>(
    service: &Service,
    socket: OwnedFd,
    peer: Peer,
    idle_timeout: Option<Duration>,
    traffic: &'a Traffic,
) -> (Cause, Connection<'a>) {
    let mut connection = Connection::stream(socket, peer, traffic);
    let result = match idle_timeout {
        Some(limit) => connection.set_idle_timeout(limit).and_then(|()| service.serve(&mut connection)),
        None => service.serve(&mut connection),
    };
    let cause = match result {
        Ok(()) => {
            log::debug!(peer:% = peer; "connection closed");
            Cause::Done
        }
        Err(error) if is_the_client_s(&error) => {
            log::debug!(peer:% = peer, error:% = error; "connection ended");
            Cause::Done
        }
        Err(error) => {
            log::warn!(peer:% = peer, error:% = error; "handler failed");
            Cause::Failed
        }
    };
    (cause, connection)
}

/// How large a datagram can be: UDP's limit is below 64 KiB, a Unix socket's is its send buffer.
pub(crate) fn batch_for(listener: &Listener, capacity: usize) -> Batch {
    Batch::new(capacity, if listener.is_unix() { 256 * 1024 } else { 64 * 1024 })
}

/// Who sent a datagram, as far as the scoreboard can say.
pub(crate) fn peer_of(datagram: &Datagram<'_>) -> Peer {
    match datagram.source {
        Source::Ip(address) => Peer::Ip(address),
        Source::Unix | Source::Unnamed => Peer::Unix { pid: 0, uid: 0 },
    }
}

/// An end that is the client's doing, or the idle time-out's, and no fault of the handler.
fn is_the_client_s(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | WouldBlock)
}
