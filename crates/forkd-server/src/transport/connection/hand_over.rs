//! A connection that a program reads and writes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{Connection, Input, Medium, Ready, Wait};
use crate::sys;
use crate::sys::poller::{Event, Poller};
use crate::transport::Traffic;

impl Connection<'_> {
    /// The socket, for a program that reads and writes it itself: it blocks from now on, unless others have it, too. All
    /// that comes is the program's, until it is [taken back](Self::take_back).
    ///
    /// # Errors
    ///
    /// `Unsupported` for a datagram; else as fcntl(2).
    pub(crate) fn hand_over(&self) -> io::Result<OwnedFd> {
        let Medium::Stream(socket, _) = &self.medium else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a datagram has no connection to hand over",
            ));
        };
        if !self.is_shared {
            sys::fd::set_nonblocking(socket, false)?;
        }
        self.input.set(Input::Ended);
        socket.try_clone()
    }

    /// The program has ended, and no other process has the connection.
    pub(crate) fn take_back(&self) {
        if let Medium::Stream(socket, _) = &self.medium {
            let has_begun = sys::tcp::carried(socket).is_some_and(|(bytes_in, _)| bytes_in > 0);
            self.input.set(if has_begun { Input::Begun } else { Input::Silent });
        }
    }

    /// Counts what the program has read and written, as far as the system knows.
    pub(crate) fn count_carried(&self) {
        if let Medium::Stream(socket, _) = &self.medium
            && let Some((bytes_in, bytes_out)) = sys::tcp::carried(socket)
        {
            // what is unread is counted when it is read
            let unread = rustix::io::ioctl_fionread(socket).unwrap_or(0);
            Traffic::add(&self.traffic.bytes_in, bytes_in.saturating_sub(unread));
            Traffic::add(&self.traffic.bytes_out, bytes_out);
        }
    }

    /// Waits for several descriptors at once, as this connection is waited for: others work meanwhile, where the
    /// model lets them.
    ///
    /// # Errors
    ///
    /// As epoll_create1(2) or kqueue(2).
    pub(crate) fn watch(&self) -> io::Result<Watch> {
        let wait = match &self.medium {
            Medium::Stream(_, Some(wait)) => Some(wait.another()),
            _ => None,
        };
        Ok(Watch { wait, poller: Poller::new()?, events: Vec::new() })
    }
}

/// A poller that lets others work while it waits, where the model lets them.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Ends before the poller does, which it waits for.
    wait: Option<Box<dyn Wait>>,
    pub(crate) poller: Poller,
    events: Vec<Event>,
}

impl Watch {
    /// Waits until some are ready, at most for `limit`; a signal may end the wait, too. What was told must not be
    /// ready any more at the next call: a poller within a poller tells of news only.
    ///
    /// # Errors
    ///
    /// As epoll_wait(2) or kevent(2).
    pub(crate) fn next(&mut self, limit: Duration) -> io::Result<&[Event]> {
        let Self { wait, poller, events } = self;
        match wait {
            None => poller.wait(events, Some(limit))?,
            Some(wait) => {
                let mut look = || match poller.wait(events, Some(Duration::ZERO)) {
                    Ok(()) if events.is_empty() => Err(rustix::io::Errno::AGAIN),
                    Ok(()) => Ok(0),
                    Err(error) => {
                        Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
                    }
                };
                wait.attempt(poller.as_fd(), Ready::Read, 0, Some(limit), &mut look)?;
            }
        }
        Ok(events)
    }
}
