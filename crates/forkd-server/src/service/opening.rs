//! What a protocol is told when its connection begins.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::transport::{Outbox, Peer, Writer};

/// A connection that begins, as [`Protocol::opened`](super::Protocol::opened) is told of it.
///
/// The default is for tests: what is written to its [`writer`](Self::writer) is counted, and sent nowhere.
///
/// ```
/// use forkd_server::{Opening, Protocol, Reply, Writer};
///
/// #[derive(Default)]
/// struct Greeter(Writer);
/// impl Protocol for Greeter {
///     fn opened(&mut self, opening: &Opening) {
///         self.0 = opening.writer();
///         let _ = self.0.write(b"hello");
///     }
///     fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
///         Reply::Wait
///     }
/// }
/// let mut greeter = Greeter::default();
/// greeter.opened(&Opening::default());
/// assert_eq!(greeter.0.queued(), 5);
/// ```
#[derive(Debug, Default)]
pub struct Opening {
    peer: Peer,
    outbox: OnceCell<Arc<Outbox>>,
}

impl Opening {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, outbox: OnceCell::new() }
    }

    /// Of a connection that could be written to before.
    pub(crate) fn with(peer: Peer, outbox: Arc<Outbox>) -> Self {
        Self { peer, outbox: OnceCell::from(outbox) }
    }

    /// The client, or the server that was connected to.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What writes to the connection from here on, at any time and from any thread: of one connection they are all the
    /// same. A connection without one pays nothing for that there are writers. With one it takes some memory, and where
    /// it has a thread or a process a descriptor; if there is none left, it ends with that error.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::of(self.outbox.get_or_init(Arc::default))
    }

    /// What was asked for, if anything was.
    pub(crate) fn into_outbox(self) -> Option<Arc<Outbox>> {
        self.outbox.into_inner()
    }
}
