//! A connection that may be written to at any time: waits for its client and for its writers at once.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;

use super::{Connection, Medium, Traffic};
use crate::slab::Key;
use crate::sys::socket::NO_SIGNAL;
use crate::transport::{Rouser, Wakeups};

/// What a connection waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    pub(crate) input: bool,
    pub(crate) room: bool,
    /// When the wait ends in any case.
    pub(crate) until: Option<Instant>,
}

impl Connection<'_> {
    /// What wakes it while it [waits](Self::wait_for).
    ///
    /// # Errors
    ///
    /// As eventfd(2) or pipe(2).
    pub(crate) fn rouser(&self) -> io::Result<Rouser> {
        match &self.medium {
            Medium::Stream(socket, Some(wait)) => wait.rouser(socket.as_fd()),
            _ => Ok(Rouser { wakeups: Arc::new(Wakeups::new()?), key: Key::FIRST }),
        }
    }

    /// Waits until there may be input, or room for output, or it is called for; whichever of these is awaited. Returns
    /// whether there may be input.
    pub(crate) fn wait_for(&self, awaited: Awaited, rouser: &Rouser) -> io::Result<bool> {
        match &self.medium {
            Medium::Stream(socket, Some(wait)) => wait.any(socket.as_fd(), awaited),
            Medium::Stream(socket, None) => {
                let is_called = !rouser.wakeups.may_wait();
                let mut what = PollFlags::empty();
                what.set(PollFlags::IN, awaited.input);
                what.set(PollFlags::OUT, awaited.room);
                let mut fds = [PollFd::new(&*rouser.wakeups, PollFlags::IN), PollFd::new(socket, what)];
                // without interest, a client that has gone would be told of without end
                let count = if what.is_empty() { 1 } else { 2 };
                let limit = match awaited.until {
                    _ if is_called => Some(Duration::ZERO),
                    until => until.map(|until| until.saturating_duration_since(Instant::now())),
                };
                let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
                let polled = poll(&mut fds[..count], limit.as_ref());
                let _ = rouser.wakeups.take();
                match polled {
                    Err(Errno::INTR) => {}
                    polled => _ = polled?,
                }
                Ok(awaited.input && !fds[1].revents().is_empty())
            }
            Medium::Datagram { .. } => Ok(true),
        }
    }

    /// Sends what the socket takes of these bytes, without a wait, and lets nobody else work: the caller may hold a lock.
    /// Returns how many bytes those are.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let Medium::Stream(socket, wait) = &self.medium else { return Ok(bytes.len()) };
        self.early.gives(bytes.len());
        let flags = SendFlags::DONTWAIT | NO_SIGNAL;
        let sent = match retry_on_intr(|| rustix::net::send(socket, bytes, flags)) {
            Err(Errno::AGAIN) => 0,
            sent => sent?,
        };
        if let Some(wait) = wait {
            wait.has_sent(sent, bytes.len());
        }
        Traffic::add(&self.traffic.bytes_out, sent as u64);
        Ok(sent)
    }

    /// How long neither side may be silent, and when the connection ends in any case.
    pub(crate) fn limits(&self) -> (Option<Duration>, Option<Instant>) {
        (self.read_timeout.get(), self.deadline)
    }
}
