//! One connection to the server, and how far its present message has got.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, read};
use rustix::net::send;

use super::clock::Nanos;
use super::fault::Fault;
use super::message::Message;
use forkd_sys::poller::Interest;
use forkd_sys::socket::NO_SIGNAL;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// It has no connection and wants none now.
    #[default]
    Away,
    /// It has sent, or is to send, or to connect first, and waits for its echo.
    Busy,
    /// It is connected and has had its echo.
    Idle,
    /// It has been given up, and stays connected: there may be servers that it waits for still.
    Left,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) socket: Option<OwnedFd>,
    /// What is to be sent before the first message.
    pub(super) header: Vec<u8>,
    /// What the poller looks for on its behalf.
    pub(super) watched: Option<Interest>,
    pub(super) state: State,
    /// Whether the operation is one to be measured, and not the way to it.
    pub(super) is_measured: bool,
    /// Whether it ever had an echo.
    pub(super) was_served: bool,
    /// When the operation ought to have begun, and when it did.
    pub(super) due: Nanos,
    pub(super) began: Nanos,
    /// When it goes on after a pause.
    pub(super) wakes: Nanos,
    pub(super) number: u64,
    sent: usize,
    received: usize,
}

impl Client {
    /// Begins an operation, with a message of its own.
    pub(super) fn begin(&mut self, due: Nanos, now: Nanos, is_measured: bool) {
        (self.due, self.began, self.is_measured) = (due, now, is_measured);
        (self.state, self.sent, self.received) = (State::Busy, 0, 0);
        self.number += 1;
    }

    /// What to wait for: also that it can be written to, if not all is sent.
    pub(super) fn wanted(&self, size: usize) -> Interest {
        if self.has_sent(size) { Interest::READ } else { Interest::BOTH }
    }

    pub(super) fn has_sent(&self, size: usize) -> bool {
        self.sent == size && self.header.is_empty()
    }

    /// Sends as much of the message as can be sent now.
    pub(super) fn push(
        &mut self,
        message: &Message<'_>,
        size: usize,
        output: &mut [u8],
    ) -> Result<(), Fault> {
        let Some(socket) = &self.socket else { return Ok(()) };
        while !self.has_sent(size) {
            let is_header = !self.header.is_empty();
            let sent = if is_header {
                send(socket, &self.header, NO_SIGNAL)
            } else {
                let length = message.copy(self.sent, output);
                send(socket, &output[..length], NO_SIGNAL)
            };
            match sent {
                Ok(length) if is_header => _ = self.header.drain(..length),
                Ok(length) => self.sent += length,
                // still connecting is ENOTCONN on some systems
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is, once, and verifies it; tells whether that was the end of the message.
    pub(super) fn pull(
        &mut self,
        message: &Message<'_>,
        size: usize,
        input: &mut [u8],
    ) -> Result<bool, Fault> {
        let Some(socket) = &self.socket else { return Ok(false) };
        match read(socket, &mut *input) {
            Ok(0) => Err(Fault::ClosedEarly),
            Ok(length) if !message.matches(self.received, &input[..length]) => Err(Fault::WrongBytes),
            Ok(length) => {
                self.received += length;
                Ok(self.received == size)
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Closes the connection, which a poller then forgets.
    pub(super) fn close(&mut self) {
        (self.socket, self.watched) = (None, None);
        (self.state, self.wakes) = (State::Away, 0);
    }
}
