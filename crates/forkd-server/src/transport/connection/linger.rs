//! The end of a connection whose client may still be sending.
//!
//! To close a socket with unread input, or to which more input comes, is to reset the connection, which can take
//! from the client what it has not read yet (RFC 1122, section 4.2.2.13; RFC 9112, section 9.6).

use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::{Connection, Input, Medium};
use crate::sys::buffer::Buffer;

/// How long what the client still sends is taken and discarded, after the end was said to it.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// The most bytes that are discarded so.
pub(crate) const LEFTOVER: usize = 16 * 1024 * 1024;

impl Connection<'_> {
    /// Says that no more comes; tells whether the client may still hear it.
    ///
    /// It reaches the client before a reset does that the close becomes if there is more of its input.
    pub(crate) fn end(&self) -> bool {
        match &self.medium {
            // it fails only if the client has gone
            Medium::Stream(socket, _) => shutdown(socket, Shutdown::Write).is_ok(),
            Medium::Datagram { .. } => false,
        }
    }

    /// Says that no more comes, and discards what the client still sends, for a bounded time; then the connection
    /// can be closed without a reset. So the client sees the end before its place is free for the next one.
    ///
    /// A client whose input has ended can't send any more, and one that has sent nothing yet is not in the middle
    /// of it: neither is waited for.
    pub(crate) fn linger(&self, buffer: &mut Buffer) {
        match self.input.get() {
            Input::Ended => return,
            Input::Silent if self.discarded(buffer, Duration::ZERO).is_none() => return,
            _ => {}
        }
        if !self.end() {
            return;
        }
        let (until, mut left) = (Instant::now() + LINGER, LEFTOVER);
        while let Some(limit) = until.checked_duration_since(Instant::now())
            && let Some(length) = self.discarded(buffer, limit)
            && let Some(rest) = left.checked_sub(length)
        {
            left = rest;
        }
    }

    /// How many bytes have come within the limit; `None` if none have, or no more will.
    fn discarded(&self, buffer: &mut Buffer, limit: Duration) -> Option<usize> {
        let chunk = self.chunk_within(buffer, limit).ok().flatten()?;
        (!chunk.is_empty()).then_some(chunk.len())
    }
}
