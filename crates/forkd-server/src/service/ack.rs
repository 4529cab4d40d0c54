//! The receipt server of the textbook: each message is answered with the same words.

use std::sync::Arc;

use super::messages::{Framing, Messages};
use super::{Protocol, Reply, Service};

/// Answers each message with a fixed reply. A datagram is answered with no more bytes than it has: with
/// the beginning of the reply, if that is longer.
///
/// ```
/// use forkd_server::{Protocol, Reply, service::{Ack, Framing}};
/// let mut ack = Ack::new("Receive", Framing::Read);
/// assert_eq!(ack.received(b"hello"), Reply::Send(b"Receive"));
/// ```
#[derive(Debug, Clone)]
pub struct Ack {
    reply: Arc<[u8]>,
    messages: Messages,
    answer: Vec<u8>,
    amplifies: bool,
}

impl Ack {
    /// A service that answers `reply` to each message, which `framing` tells from the next.
    #[must_use]
    pub fn new(reply: &str, framing: Framing) -> Self {
        Self {
            reply: reply.as_bytes().into(),
            messages: Messages::new(framing),
            answer: Vec::new(),
            amplifies: false,
        }
    }

    /// The same, with the whole reply to any datagram: an attacker who forges a sender's address can then have
    /// it flood others, each byte for a multiple of its own.
    ///
    /// ```
    /// use forkd_server::{Protocol, Reply, service::{Ack, Framing}};
    /// let mut ack = Ack::new("Receive", Framing::Read);
    /// assert_eq!(ack.datagram(b"one"), Reply::Send(b"Rec"));
    /// assert_eq!(ack.amplifying().datagram(b"one"), Reply::Send(b"Receive"));
    /// ```
    #[must_use]
    pub fn amplifying(self) -> Self {
        Self { amplifies: true, ..self }
    }
}

impl Protocol for Ack {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.answer.clear();
        self.messages.feed(input, |_| {
            self.answer.extend_from_slice(&self.reply);
            true
        });
        if self.answer.is_empty() { Reply::Wait } else { Reply::Send(&self.answer) }
    }

    fn ended(&mut self) -> Reply<'_> {
        match self.messages.rest() {
            Some(_) => Reply::Finish(&self.reply),
            None => Reply::Finish(b""),
        }
    }

    fn datagram<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        let length = if self.amplifies { self.reply.len() } else { self.reply.len().min(input.len()) };
        Reply::Send(&self.reply[..length])
    }
}

impl From<Ack> for Service {
    fn from(ack: Ack) -> Self {
        Self::protocol("ack", move || ack.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_answered_and_one_without_an_end_at_the_end() {
        let mut ack = Ack::new("ok\n", Framing::Line);
        assert_eq!(ack.received(b"a\nb"), Reply::Send(b"ok\n"));
        assert_eq!(ack.received(b"b"), Reply::Wait);
        assert_eq!(ack.received(b"\nc\nd"), Reply::Send(b"ok\nok\n"));
        assert_eq!(ack.ended(), Reply::Finish(b"ok\n"));
        assert_eq!(ack.ended(), Reply::Finish(b""));
    }

    #[test]
    fn an_empty_datagram_is_a_message_too() {
        let mut ack = Ack::new("Receive", Framing::Read);
        assert_eq!(ack.datagram(b""), Reply::Send(b""));
        assert_eq!(ack.datagram(b"hello"), Reply::Send(b"Recei"));
        assert_eq!(ack.datagram(b"hello, server"), Reply::Send(b"Receive"));
        assert_eq!(ack.amplifying().datagram(b""), Reply::Send(b"Receive"));
    }
}
