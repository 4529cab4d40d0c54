//! What a client can do wrong.

use std::fmt;

/// What a client can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// Its connection was ended for being silent, or there, for too long.
    Timeout,
    /// It has not read what it was sent.
    Unread,
    /// It does not speak the service's protocol.
    Protocol,
    /// The process that served it has crashed, or its handler panicked.
    Crash,
    /// It was refused as one too many of its source, or as one that comes too soon.
    Rate,
}

impl Offence {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Timeout, Self::Unread, Self::Protocol, Self::Crash, Self::Rate];

    /// Its name, as an option has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unread => "unread",
            Self::Protocol => "protocol",
            Self::Crash => "crash",
            Self::Rate => "rate",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
