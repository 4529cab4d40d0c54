//! The sans-I/O way to be called.

use std::time::Instant;

use super::{CloseReason, Opening};
use crate::transport::{FilePart, Offence, Peer, Writer};

/// A service that is called back with bytes, as in Twisted or asyncio; it never blocks.
///
/// Because it does no I/O of its own it runs under every model, and it can be tested without a
/// socket. It answers by its [`Reply`]; to write at any other time it takes a [`Writer`] when it is
/// [opened](Self::opened).
///
/// # Examples
///
/// ```
/// use forkd_server::{Protocol, Reply};
///
/// struct Shout(Vec<u8>);
/// impl Protocol for Shout {
///     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
///         self.0 = input.to_ascii_uppercase();
///         Reply::Send(&self.0)
///     }
/// }
/// assert_eq!(Shout(Vec::new()).received(b"hello"), Reply::Send(b"HELLO"));
/// ```
pub trait Protocol {
    /// Is called first, when a stream begins. A protocol that wants to write at any time, and not only by its
    /// replies, takes a [`Writer`] from the `opening`. The default doesn't.
    fn opened(&mut self, opening: &Opening) {
        let _ = opening;
    }

    /// Is called when a stream begins; the reply is a greeting. The default waits for the client.
    fn connected(&mut self, peer: Peer) -> Reply<'_> {
        let _ = peer;
        Reply::Wait
    }

    /// Is called with bytes of a stream as they come, in pieces of any size but none.
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a>;

    /// Is called after [`Reply::More`], when its bytes are on their way: what comes next? The default
    /// has nothing more.
    fn resume(&mut self) -> Reply<'_> {
        Reply::Wait
    }

    /// Whether it takes input while it has more to send, as [`Reply::More`] says, or while the client has not taken
    /// what a [`Writer`] has written. The default doesn't: what comes then stays where it is, and the client waits.
    fn listens(&self) -> bool {
        false
    }

    /// Whether the client has promised to send no more, as one of HTTP does that asks for the end of the connection
    /// with its request. Is asked after [`Reply::Finish`]: then the connection is closed without waiting for the
    /// client to end it, too. The default knows of no promise.
    fn client_is_done(&self) -> bool {
        false
    }

    /// Is called when the client's bytes have ended, and it may still read; the connection ends after the
    /// reply. The default has nothing to say.
    ///
    /// A protocol that has taken a [`Writer`] may have more to say later: its connection goes on until
    /// [`Reply::Finish`], as of the default, or until the writer ends it.
    fn ended(&mut self) -> Reply<'_> {
        Reply::Finish(b"")
    }

    /// Says until when the client's next bytes are waited for, now that there are none; after that,
    /// [`timed_out`](Self::timed_out) is called. The default waits for ever.
    ///
    /// It is asked before each wait, with the time. How long a connection may be silent whatever its
    /// protocol is another matter ([`Server::idle_timeout`](crate::Server::idle_timeout)).
    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let _ = now;
        None
    }

    /// Is called when the time that [`deadline`](Self::deadline) has given is over. The reply is as any
    /// other; the default ends the connection without a word.
    fn timed_out(&mut self) -> Reply<'_> {
        Reply::Finish(b"")
    }

    /// Is called once when the server stops, or its worker is replaced, and the connection may go on until the time of
    /// grace is over. The reply is as any other; the default has nothing to say.
    ///
    /// Only a protocol that has taken a [`Writer`] is called: no other connection is woken for that. Nor is it under
    /// [`Model::Iterative`](crate::model::Model::Iterative), [`Fork`](crate::model::Model::Fork) and
    /// [`Prefork`](crate::model::Model::Prefork), or in a reactor of your own.
    fn stopping(&mut self) -> Reply<'_> {
        Reply::Wait
    }

    /// Is called last, once, when the connection is over, and says why. The default does nothing.
    ///
    /// A protocol that has panicked is not called any more, nor is one whose process is killed, or whose coroutine is
    /// unwound. To a thread a connection that is cut after the time of [`grace`](crate::Server::grace) looks as one
    /// that its client has ended.
    fn closed(&mut self, reason: CloseReason<'_>) {
        let _ = reason;
    }

    /// Says what the client has done wrong, if it has, when the connection is over: its source may be penalised for that
    /// ([`Server::penalty`](crate::Server::penalty)). The default knows of nothing.
    fn offence(&self) -> Option<Offence> {
        None
    }

    /// Is called with a whole datagram, which may be empty. The default treats it as bytes of a
    /// stream.
    ///
    /// [`Reply::Wait`] means no answer; `Reply::Send(&[])` answers with an empty datagram.
    fn datagram<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.received(input)
    }

    /// Says that every reply is the input itself, always.
    ///
    /// forkd then leaves the bytes in the kernel where it can, and no other method is called.
    fn echoes() -> bool
    where
        Self: Sized,
    {
        false
    }
}

/// What a [`Protocol`] answers; it may borrow from the protocol or from the input.
///
/// ```
/// use forkd_server::{Protocol, Reply};
///
/// /// Echoes until it hears a full stop, and then counts down.
/// struct Countdown(u8, [u8; 2]);
/// impl Protocol for Countdown {
///     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
///         if input == b"." { self.resume() } else { Reply::Send(input) }
///     }
///
///     fn resume(&mut self) -> Reply<'_> {
///         self.1 = [b'0' + self.0, b'\n'];
///         match self.0.checked_sub(1) {
///             None => Reply::Finish(&self.1),
///             Some(next) => {
///                 self.0 = next;
///                 Reply::More(&self.1)
///             }
///         }
///     }
/// }
/// let mut countdown = Countdown(1, [0; 2]);
/// assert_eq!(countdown.received(b"hello"), Reply::Send(b"hello"));
/// assert_eq!(countdown.received(b"."), Reply::More(b"1\n"));
/// assert_eq!(countdown.resume(), Reply::Finish(b"0\n"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Nothing yet.
    Wait,
    /// Nothing yet; and more input only when another client has taken most of what was written for it, or is gone: so
    /// one that passes its input on reads no more quickly than what it passes it to. To a datagram it is no answer.
    WaitFor(&'a Writer),
    /// These bytes; then more input.
    Send(&'a [u8]),
    /// These bytes; then [`Protocol::resume`] is asked for more, as soon as the client can take them.
    More(&'a [u8]),
    /// This part of a file, without its bytes being read; then [`Protocol::resume`] is asked for more. To
    /// a datagram it is no answer.
    File(&'a FilePart),
    /// These bytes, and then the end of the connection. The client reads its end of file at once; what it
    /// still sends is thrown away until it ends, too, for at most 2 seconds and 16 MiB: it would lose what it
    /// has not read yet if the connection were closed before (RFC 9112, section 9.6). A client that has promised to
    /// send no more ([`Protocol::client_is_done`]) is not waited for; nor, where that would occupy a process or a
    /// thread, one that has sent nothing at all.
    Finish(&'a [u8]),
}
