//! One client after the other: the loop of a prefork worker, and of each thread of a fixed pool.
//!
//! Whoever takes turns blocks in accept(2) or recvmsg(2) on the [`Gate`], and learns through it that it should
//! leave.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;

use super::entrance::{Entrance, REST, errno};
use super::serve::{Work, batch_for};
use crate::scoreboard::Cause;
use crate::sys::datagram::{Batch, Patience};
use crate::sys::fd::{Gate, first_readable};
use crate::transport::Peer;
use crate::transport::listener::Kind;

/// Datagrams taken at once when they come faster than one at a time.
const BATCH: usize = 8;

/// What is done in a turn.
pub(crate) trait Turn {
    /// Serves a connection.
    fn connection(&self, socket: OwnedFd, peer: Peer);
    /// Answers the first `count` datagrams of a batch.
    fn datagrams(&self, batch: &mut Batch, count: usize, echoes: bool);
    /// Whether that makes enough, with so many more served; if not, the next are waited for.
    fn is_spent(&self, served: u64) -> bool;
}

/// Serves until the gate is shut, or it is enough.
pub(crate) fn take(work: &Work<'_>, gate: &Gate, turn: &impl Turn) -> Cause {
    match work.listener().kind() {
        Kind::Stream => connections(work, gate, turn),
        Kind::Datagram => datagrams(work, gate, turn),
    }
}

fn connections(work: &Work<'_>, gate: &Gate, turn: &impl Turn) -> Cause {
    let mut entrance = Entrance::new(work);
    while somebody_comes(work, gate) {
        match work.accept(gate) {
            Ok((socket, peer)) => {
                entrance.succeeded();
                turn.connection(socket, peer);
                if turn.is_spent(1) {
                    return Cause::Recycled;
                }
            }
            Err(error) if entrance.goes_on(error, gate) => {}
            Err(_) => break,
        }
    }
    if work.is_draining() {
        drain(work, turn, &mut entrance);
    }
    Cause::Retired
}

/// Where no signal interrupts accept(2), it is called only when there may be somebody, or the gate is
/// shut; `false` when it is not to be called again.
pub(crate) fn somebody_comes(work: &Work<'_>, gate: &Gate) -> bool {
    if work.turns.is_none() {
        return true;
    }
    while let Some(limit) = work.turn() {
        if first_readable(&[gate.as_fd(), gate.bell()], Some(limit)).is_some() {
            return true;
        }
    }
    false
}

/// Serves what is queued: the listener does not block any more.
fn drain(work: &Work<'_>, turn: &impl Turn, entrance: &mut Entrance<'_>) {
    loop {
        match work.accept_queued(true) {
            Ok((socket, peer)) => {
                entrance.succeeded();
                turn.connection(socket, peer);
            }
            Err(error) if entrance.goes_on_draining(error, || sleep(REST)) => {}
            Err(_) => break,
        }
    }
    // who comes now shall go elsewhere, even while others are served
    work.listener().refuse();
}

/// A lone datagram is received by itself, which is quicker; every 16th time a whole batch is
/// asked for, and as long as batches come back with more than one, that goes on.
fn datagrams(work: &Work<'_>, gate: &Gate, turn: &impl Turn) -> Cause {
    let (mut entrance, echoes) = (Entrance::new(work), work.service().echoes());
    // One at a time for a handler: it may be slow while others are idle, or die of one of them.
    let mut batch = batch_for(work.listener(), if echoes { BATCH } else { 1 });
    let mut number = 0_u32;
    let mut deep = false;
    let patience = if work.turns.is_none() { Patience::Wait } else { Patience::DontWait };
    while somebody_comes(work, gate) {
        number = number.wrapping_add(1);
        let received = if patience == Patience::Wait && (deep || number.is_multiple_of(16)) {
            batch.receive(gate, Patience::Wait)
        } else {
            batch.receive_one(gate, patience).map(|()| 1)
        };
        match received {
            Ok(count) => {
                deep = count > 1;
                entrance.succeeded();
                turn.datagrams(&mut batch, count, echoes);
                if turn.is_spent(count as u64) {
                    return Cause::Recycled;
                }
            }
            Err(error) => {
                if !entrance.goes_on(errno(&error), gate) {
                    break;
                }
            }
        }
    }
    if work.is_draining() {
        loop {
            let mut receive = || batch.receive_one(work.listener(), Patience::DontWait);
            match work.take_queued(|| receive().map_err(|error| errno(&error))) {
                Ok(()) => turn.datagrams(&mut batch, 1, echoes),
                Err(error) if entrance.goes_on_draining(error, || sleep(REST)) => {}
                Err(_) => break,
            }
        }
    }
    Cause::Retired
}
