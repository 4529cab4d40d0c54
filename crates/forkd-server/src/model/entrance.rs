//! What a worker makes of an accept(2) or recvmsg(2) that fails.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::serve::Work;
use crate::events;
use crate::limit::{Episode, RateLimit};
use crate::sys::fd::{Gate, first_readable, pause};
use crate::transport::Endpoint;
use crate::transport::listener::concerns_one_connection;

/// The pause after accept(2) has found no descriptor or no memory.
pub(crate) const REST: Duration = Duration::from_millis(100);

/// Why there is nobody to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// It may be different the next time.
    Yet,
    /// Nobody is queued, and the socket does not block.
    Waits,
    /// Nobody can be let in for [`REST`].
    Fits,
    /// The gate is shut: leave.
    Comes,
}

/// Where a worker's clients come in.
#[derive(Debug)]
pub(crate) struct Entrance<'a> {
    work: &'a Work<'a>,
    /// accept(2) finds no descriptor or no memory.
    starved: Episode,
    failures: RateLimit,
    full: RateLimit,
}

impl<'a> Entrance<'a> {
    pub(crate) fn new(work: &'a Work<'a>) -> Self {
        Self { work, starved: Episode::default(), failures: RateLimit::default(), full: RateLimit::default() }
    }

    /// Somebody has come in.
    pub(crate) fn succeeded(&mut self) {
        if self.starved.end() {
            events::descriptors_back(self.work.listener().endpoint());
        }
    }

    /// As many are in as may be: nobody else comes in for now.
    pub(crate) fn full(&mut self, limit: u32, say: fn(&Endpoint, u32, u64)) {
        if let Some(suppressed) = self.full.admit(Instant::now()) {
            say(self.work.listener().endpoint(), limit, suppressed);
        }
    }

    /// Nobody has: whether to try again, when what kept them out may have passed.
    pub(crate) fn goes_on(&mut self, error: Errno, gate: &Gate) -> bool {
        match self.failed(error) {
            Nobody::Comes => return false,
            Nobody::Yet => {}
            // whoever takes turns waits before it accepts
            Nobody::Waits if self.work.turns.is_some() => {}
            // The daemon has begun to stop, and its signal is on the way; or the socket is shared with others, who
            // have it not block.
            Nobody::Waits => _ = first_readable(&[self.work.listener().as_fd(), gate.bell()], None),
            Nobody::Fits => pause(REST),
        }
        true
    }

    /// The same for a client that was queued when a stop began; `rest` waits until there may be what it needs.
    pub(crate) fn goes_on_draining(&mut self, error: Errno, rest: impl FnOnce()) -> bool {
        match self.failed(error) {
            Nobody::Waits | Nobody::Comes => return false,
            Nobody::Yet => {}
            Nobody::Fits => rest(),
        }
        true
    }

    /// Nobody has, and says why where that is news.
    pub(crate) fn failed(&mut self, error: Errno) -> Nobody {
        let endpoint = self.work.listener().endpoint();
        match error {
            // a gate that is shut is no socket, and a listener that is shut does not listen
            Errno::NOTSOCK | Errno::INVAL => Nobody::Comes,
            Errno::AGAIN => Nobody::Waits,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                if self.starved.begin(Instant::now()) {
                    events::descriptors_exhausted(endpoint, &error);
                }
                Nobody::Fits
            }
            error if concerns_one_connection(error) => Nobody::Yet,
            error => {
                if let Some(suppressed) = self.failures.admit(Instant::now()) {
                    events::accept_failed(endpoint, &error, suppressed);
                }
                Nobody::Fits
            }
        }
    }
}

/// The error of a call that fails with nothing else.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
