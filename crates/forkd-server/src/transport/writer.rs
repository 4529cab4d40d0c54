//! Writes to a connection at any time, from anywhere.

mod outbox;
mod wakeups;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub(crate) use outbox::{Found, Hold, Outbox, Outboxes, Wish};
pub(crate) use wakeups::{Rouser, Wakeups};

/// From this many bytes on that wait for a client no more is kept for it.
const LIMIT: usize = 64 * 1024;

/// Writes to a connection at any time: from another connection, a timer, another thread. A
/// [`Protocol`](crate::Protocol) takes it from its [`Opening`](crate::Opening), and
/// [`Reactor::connect`](crate::reactor::Reactor::connect) returns one.
///
/// No method waits for the client. What is written is kept until the loop of the connection sends it, in one order with
/// the protocol's replies. A client that does not read costs at most [`LIMIT`](Self::LIMIT) bytes and one write; after
/// that writes fail, and nobody else waits for it.
///
/// Clones write to the same connection, and are equal. The default is one of no connection, whose writes fail.
///
/// # Fork safety
///
/// It writes to a connection of its own process. Where each connection or each worker has a process, as under
/// [`Model::Fork`](crate::model::Model::Fork) and in a pool, a protocol can reach only those that its process serves.
///
/// # Examples
///
/// Each line goes to all clients:
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use forkd_server::{Opening, Protocol, Reply, Service, Writer};
///
/// #[derive(Clone, Default)]
/// struct Member(Arc<Mutex<Vec<Writer>>>);
///
/// impl Protocol for Member {
///     fn opened(&mut self, opening: &Opening) {
///         self.0.lock().unwrap().push(opening.writer());
///     }
///
///     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
///         // who has gone, or does not read, is no member any more
///         self.0.lock().unwrap().retain(|writer| writer.write(input).is_ok());
///         Reply::Wait
///     }
/// }
///
/// let room = Member::default();
/// let service = Service::protocol("room", move || room.clone());
/// # let mut member = Member::default();
/// # let openings = [Opening::default(), Opening::default()];
/// # openings.iter().for_each(|opening| member.opened(opening));
/// # member.received(b"hello");
/// # assert!(openings.iter().all(|opening| opening.writer().queued() == 5));
/// ```
#[derive(Clone)]
pub struct Writer(Arc<Outbox>);

impl Writer {
    /// From this many bytes on that wait for a client [`write`](Self::write) fails: 64 KiB.
    pub const LIMIT: usize = LIMIT;

    pub(crate) fn of(outbox: &Arc<Outbox>) -> Self {
        Self(Arc::clone(outbox))
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.0
    }

    /// Has these bytes sent, all or none, behind all that was written before. It does not wait for that.
    ///
    /// # Errors
    ///
    /// [`WriteError::Full`] while the client has [`LIMIT`](Self::LIMIT) bytes or more still to take,
    /// [`WriteError::Closed`] once the connection is over, or [`end`](Self::end), [`finish`](Self::finish) or
    /// [`abort`](Self::abort) was called.
    ///
    /// # Examples
    ///
    /// ```
    /// use forkd_server::{Opening, WriteError, Writer};
    ///
    /// // a connection that no loop looks after, for a test
    /// let writer = Opening::default().writer();
    /// assert_eq!(writer.write(&[0; 100_000]), Ok(()));
    /// assert_eq!((writer.queued(), writer.write(b"!")), (100_000, Err(WriteError::Full)));
    /// assert_eq!(Writer::default().write(b"!"), Err(WriteError::Closed));
    /// ```
    pub fn write(&self, bytes: &[u8]) -> Result<(), WriteError> {
        self.0.write(bytes)
    }

    /// Tells the client the end when all that was written is sent, and goes on to receive what it sends: half a close
    /// (`loseWriteConnection` of Twisted). The connection is over when the client has ended, too.
    ///
    /// ```
    /// use forkd_server::{Protocol, Reply, Writer};
    ///
    /// /// One end of a tunnel: what comes here goes to the other end, its end too.
    /// struct Tunnel(Writer);
    /// impl Protocol for Tunnel {
    ///     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
    ///         match self.0.write(input) {
    ///             Ok(()) => Reply::WaitFor(&self.0),
    ///             Err(_) => Reply::Finish(b""),
    ///         }
    ///     }
    ///     fn ended(&mut self) -> Reply<'_> {
    ///         self.0.end();
    ///         Reply::Wait
    ///     }
    /// }
    /// # use forkd_server::Opening;
    /// # let writer = Opening::default().writer();
    /// # let mut tunnel = Tunnel(writer.clone());
    /// # assert_eq!(tunnel.received(b"x"), Reply::WaitFor(&writer));
    /// # assert_eq!(tunnel.ended(), Reply::Wait);
    /// # assert_eq!((writer.queued(), writer.is_open()), (1, false));
    /// ```
    pub fn end(&self) {
        self.0.wish(Wish::End);
    }

    /// Ends the connection when all that was written is sent (`loseConnection` of Twisted): as
    /// [`Reply::Finish`](crate::Reply::Finish), it throws away what the client still sends.
    ///
    /// ```
    /// let writer = forkd_server::Opening::default().writer();
    /// writer.finish();
    /// assert!(!writer.is_open() && writer.write(b"!").is_err());
    /// ```
    pub fn finish(&self) {
        self.0.wish(Wish::Finish);
    }

    /// Ends the connection at once, and forgets what was not sent (`abortConnection` of Twisted).
    ///
    /// ```
    /// let writer = forkd_server::Opening::default().writer();
    /// writer.abort();
    /// assert!(!writer.is_open());
    /// ```
    pub fn abort(&self) {
        self.0.wish(Wish::Abort);
    }

    /// How many bytes wait for the client in this process; the kernel has some more.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queued()
    }

    /// Whether it can still be written to: the connection is not over, nor was it ended by this side.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self(Arc::new(Outbox::closed()))
    }
}

impl PartialEq for Writer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Writer {}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_open, queued) = (self.is_open(), self.queued());
        f.debug_struct("Writer").field("is_open", &is_open).field("queued", &queued).finish()
    }
}

/// Why a [`Writer`] takes nothing.
///
/// ```
/// use forkd_server::{WriteError, Writer};
/// let error = Writer::default().write(b"hello").unwrap_err();
/// assert_eq!(error, WriteError::Closed);
/// assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::BrokenPipe);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// The client reads more slowly than it is written to; later it may have room again.
    Full,
    /// The connection is over, or was ended by this side.
    Closed,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => {
                write!(f, "the client has {LIMIT} bytes or more still to read, and no more is kept for it")
            }
            Self::Closed => f.write_str("the connection is over, or was ended by this side"),
        }
    }
}

impl Error for WriteError {}

impl From<WriteError> for std::io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Full => std::io::ErrorKind::WouldBlock,
            WriteError::Closed => std::io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
