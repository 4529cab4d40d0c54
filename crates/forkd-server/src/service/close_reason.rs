//! Why a connection is over.

use std::{fmt, io};

use crate::transport::TimedOut;

/// Why a connection is over, as [`Protocol::closed`](super::Protocol::closed) is told.
///
/// ```
/// use forkd_server::CloseReason;
/// assert_eq!(CloseReason::Ended.to_string(), "the client has ended it");
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum CloseReason<'a> {
    /// The client has ended it, and has all that it was sent (`ConnectionDone` of Twisted).
    Ended,
    /// The protocol has: by [`Reply::Finish`](crate::Reply::Finish) or
    /// [`Writer::finish`](crate::transport::Writer::finish).
    Finished,
    /// It was [aborted](crate::transport::Writer::abort) by this side.
    Aborted,
    /// The client has reset it, or has gone while it was sent something.
    Reset,
    /// A limit of time is over.
    TimedOut(TimedOut),
    /// The server has stopped, and does not wait for it any more; or its reactor was dropped.
    Stopped,
    /// Something else has gone wrong.
    Failed(&'a io::Error),
}

impl<'a> CloseReason<'a> {
    /// As an error tells it that has ended the connection.
    pub(crate) fn of(error: &'a io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match (TimedOut::of(error), error.kind()) {
            (Some(limit), _) => Self::TimedOut(limit),
            (None, BrokenPipe | ConnectionAborted | ConnectionReset) => Self::Reset,
            (None, _) => Self::Failed(error),
        }
    }
}

impl fmt::Display for CloseReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the client has ended it",
            Self::Finished => "this side has ended it",
            Self::Aborted => "this side has aborted it",
            Self::Reset => "the client has reset it, or has gone",
            Self::TimedOut(limit) => return limit.fmt(f),
            Self::Stopped => "the server has stopped",
            Self::Failed(error) => return error.fmt(f),
        })
    }
}
