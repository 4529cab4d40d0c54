//! A child for each connection, or for each datagram: the child's side.
//!
//! The master has accepted, forked, and closed its copy. The child serves, announces its end on
//! the scoreboard, and leaves. It holds nothing of the master's but the wake descriptor.

use std::os::fd::OwnedFd;

use super::serve::Work;
use crate::scoreboard::{Cause, State};
use crate::sys::datagram::Batch;
use crate::transport::Peer;

/// What the child was forked for.
pub(crate) enum Task<'a> {
    /// One connection.
    Connection(OwnedFd, Peer),
    /// The first datagram of a batch.
    Datagram(&'a mut Batch),
}

/// Does the task, and says how it ended before the client can see the end: one that comes again at
/// once finds this child's place free.
pub(crate) fn run(work: &Work<'_>, task: Task<'_>, ended: impl FnOnce(Cause)) -> Cause {
    if let Some(now) = work.board.clock_us() {
        work.slot.set_began(now);
    }
    work.slot.set_state(State::Serving);
    match task {
        Task::Connection(socket, peer) => {
            let (cause, connection) = work.connection(socket, peer);
            ended(cause);
            connection.close();
            cause
        }
        Task::Datagram(batch) => {
            // the master has asked the application
            work.datagrams_if(batch, 1, |datagram| work.udp_filter.admit(datagram));
            ended(Cause::Done);
            Cause::Done
        }
    }
}
