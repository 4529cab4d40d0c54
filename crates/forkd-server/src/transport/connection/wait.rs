//! How a connection is waited for that does not block.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Awaited;
use crate::sys::fd::{wait_readable, wait_writable};
use crate::transport::Rouser;

/// Makes calls on sockets that do not block.
pub(crate) trait Attempt: std::fmt::Debug {
    /// Makes a call that reads or writes up to `wanted` bytes (0: it may do less than it could), until it
    /// does not say that it would block: `None` if it still does after `limit`, if there is one.
    fn attempt(
        &self,
        socket: BorrowedFd<'_>,
        ready: Ready,
        wanted: usize,
        limit: Option<Duration>,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>>;
}

/// Waits for a socket that does not block, and lets others work meanwhile.
pub(crate) trait Wait: Attempt {
    /// What wakes the one that waits for [any](Self::any) of several.
    fn rouser(&self, socket: BorrowedFd<'_>) -> io::Result<Rouser>;

    /// Waits until a socket may be ready as awaited, or it is called for; returns whether there may be input.
    fn any(&self, socket: BorrowedFd<'_>, awaited: Awaited) -> io::Result<bool>;

    /// A call that did not wait has sent so many of the bytes that it was given.
    fn has_sent(&self, bytes: usize, of: usize);

    /// Waits in the same way, for another descriptor.
    fn another(&self) -> Box<dyn Wait>;

    /// Waits in the same way for any descriptor, in whichever thread that is asked.
    fn anywhere(&self) -> &'static (dyn Attempt + Send + Sync);
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Read,
    Write,
}

/// Has the thread wait until a socket may be ready, or until then; tells whether it may be.
pub(crate) fn block(socket: BorrowedFd<'_>, ready: Ready, until: Option<Instant>) -> bool {
    loop {
        let limit = until.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let is_ready = match ready {
            Ready::Read => wait_readable(socket, limit),
            Ready::Write => wait_writable(socket, limit),
        };
        // a signal ends the wait, too
        if is_ready || limit.is_zero() {
            return is_ready;
        }
    }
}

/// Has the thread wait.
#[derive(Debug)]
pub(crate) struct Blocking;

impl Attempt for Blocking {
    fn attempt(
        &self,
        socket: BorrowedFd<'_>,
        ready: Ready,
        _: usize,
        limit: Option<Duration>,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            match call() {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if block(socket, ready, until) => {}
                Err(Errno::AGAIN) => return Ok(None),
                done => return Ok(Some(done?)),
            }
        }
    }
}
