//! Which limit of time has ended a connection.

use std::error::Error;
use std::{fmt, io};

/// Which limit of time has ended a connection that its client had not ended.
///
/// ```
/// use forkd_server::transport::TimedOut;
/// assert_eq!(TimedOut::Idle.to_string(), "the client was silent for too long");
/// assert_eq!(TimedOut::ALL.map(TimedOut::name), ["idle", "unread", "lifetime"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedOut {
    /// The client sent nothing for too long (`--idle-timeout`).
    Idle,
    /// The client read nothing of what it was sent for too long (`--idle-timeout`).
    Unread,
    /// The connection lasted too long (`--max-lifetime`).
    Lifetime,
}

impl TimedOut {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Unread, Self::Lifetime];

    /// In counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Unread => "unread",
            Self::Lifetime => "lifetime",
        }
    }

    /// As the error of a read or a write; [`of`](Self::of) finds it in there, also when a handler has returned it.
    #[cold]
    pub(crate) fn error(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, self)
    }

    /// The limit that an error tells of, if it is such an error.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "the client was silent for too long",
            Self::Unread => "the client read nothing for too long",
            Self::Lifetime => "the connection lasted too long",
        })
    }
}

impl Error for TimedOut {}
