//! What can go wrong with a client, by kind.

use std::collections::BTreeMap;
use std::fmt;

use rustix::io::Errno;

/// Why a client did not get its echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing listens there.
    Refused,
    /// The server, or the system in its place, broke the connection.
    Reset,
    /// Nothing came within the time limit.
    TimedOut,
    /// The server closed the connection before the last byte.
    ClosedEarly,
    /// Something else came back, or more than was sent.
    WrongBytes,
    /// This machine has no free port for one more connection to this server.
    NoPort,
    /// This process, or the machine, has no free descriptor.
    NoDescriptor,
    /// Any other error of a system call, by its number (errno(3)).
    System(i32),
}

impl Fault {
    /// Returns the name that stands in reports: `refused`, `reset`, `timed-out`, `closed-early`,
    /// `wrong-bytes`, `no-port`, `no-descriptor`, or `error-N`.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::Refused => "refused".into(),
            Self::Reset => "reset".into(),
            Self::TimedOut => "timed-out".into(),
            Self::ClosedEarly => "closed-early".into(),
            Self::WrongBytes => "wrong-bytes".into(),
            Self::NoPort => "no-port".into(),
            Self::NoDescriptor => "no-descriptor".into(),
            Self::System(errno) => format!("error-{errno}"),
        }
    }
}

impl Fault {
    /// The kind that has this name in reports, if there is one.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        let named = [
            Self::Refused,
            Self::Reset,
            Self::TimedOut,
            Self::ClosedEarly,
            Self::WrongBytes,
            Self::NoPort,
            Self::NoDescriptor,
        ];
        let system = || key.strip_prefix("error-")?.parse().ok().map(Self::System);
        named.into_iter().find(|fault| fault.key() == key).or_else(system)
    }
}

/// For a person.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::TimedOut => "timed out",
            Self::ClosedEarly => "closed early",
            Self::WrongBytes => "wrong bytes",
            Self::NoPort => "no local port left",
            Self::NoDescriptor => "no descriptor left",
            Self::System(errno) => return std::io::Error::from_raw_os_error(*errno).fmt(f),
        })
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        match errno {
            // a Unix socket whose file is gone has no listener either
            Errno::CONNREFUSED | Errno::NOENT => Self::Refused,
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Self::Reset,
            Errno::TIMEDOUT => Self::TimedOut,
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::NoPort,
            Errno::MFILE | Errno::NFILE => Self::NoDescriptor,
            other => Self::System(other.raw_os_error()),
        }
    }
}

/// How often each [`Fault`] happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<Fault, u64>);

impl Faults {
    /// Returns how many there were of this kind.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// Returns how many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns each kind that happened, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        self.0.iter().map(|(fault, count)| (*fault, *count))
    }

    /// Returns the kind that happened most often.
    #[must_use]
    pub fn chief(&self) -> Option<Fault> {
        self.iter().max_by_key(|(_, count)| *count).map(|(fault, _)| fault)
    }

    /// Those of a report; a kind that it knows and this forkd doesn't is left out.
    pub(super) fn of_keys(errors: &BTreeMap<String, u64>) -> Self {
        Self(errors.iter().filter_map(|(key, count)| Some((Fault::of_key(key)?, *count))).collect())
    }

    pub(super) fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (fault, count) in other.iter() {
            *self.0.entry(fault).or_default() += count;
        }
    }
}

/// As in "3 timed out, 1 wrong bytes".
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (fault, count)) in self.iter().enumerate() {
            write!(f, "{}{count} {fault}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_has_a_name_that_says_what_happened() {
        assert_eq!(Fault::from(Errno::CONNREFUSED), Fault::Refused);
        assert_eq!(Fault::from(Errno::PIPE), Fault::Reset);
        assert_eq!(Fault::from(Errno::ADDRNOTAVAIL).to_string(), "no local port left");
        let other = Fault::from(Errno::NETUNREACH);
        assert!(other.key().starts_with("error-") && other.to_string().contains("unreachable"), "{other}");
        for fault in [other, Fault::ClosedEarly, Fault::NoDescriptor] {
            assert_eq!(Fault::of_key(&fault.key()), Some(fault));
        }
        assert_eq!((Fault::of_key("error-x"), Fault::of_key("")), (None, None));
    }

    #[test]
    fn counts_by_kind() {
        let mut faults = Faults::default();
        [Fault::WrongBytes, Fault::TimedOut, Fault::TimedOut].into_iter().for_each(|f| faults.count(f));
        let mut both = faults.clone();
        both.add(&faults);
        assert_eq!(both.to_string(), "4 timed out, 2 wrong bytes");
        assert_eq!((both.total(), both.of(Fault::TimedOut), both.of(Fault::Reset)), (6, 4, 0));
        assert_eq!(both.chief(), Some(Fault::TimedOut));
    }
}
