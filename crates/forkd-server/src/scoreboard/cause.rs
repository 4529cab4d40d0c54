//! Why a child is no more.

use std::fmt;

use crate::sys;

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its connection or datagram is done.
    Done,
    /// Its handler returned an error.
    Failed,
    /// It has served as many connections as one worker should.
    Recycled,
    /// It was told to leave: the pool shrinks, or the daemon stops.
    Retired,
    /// Its handler panicked.
    Panicked,
    /// It left with a status that forkd gave no meaning to.
    Exit,
    /// The kernel's OOM killer has taken it.
    Oom,
    /// A signal killed it.
    Signal(u8),
}

/// The signals that are raised by what a program does.
const RAISED: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS, libc::SIGTRAP];

impl Cause {
    /// Those without a number, which metrics name before they happen.
    pub const NAMED: [Self; 7] =
        [Self::Done, Self::Failed, Self::Recycled, Self::Retired, Self::Panicked, Self::Exit, Self::Oom];
    /// Named causes, then signals 0 to 64.
    pub(crate) const COUNT: usize = Self::NAMED.len() + 65;

    /// A number below [`Cause::COUNT`].
    pub(crate) fn index(self) -> usize {
        // the table that tells the others apart would be one more page for each child to fault in
        match self {
            Self::Done => 0,
            Self::Signal(signal) => Self::NAMED.len() + usize::from(signal.min(64)),
            named => named.rare_index(),
        }
    }

    #[cold]
    #[inline(never)]
    fn rare_index(self) -> usize {
        Self::NAMED.iter().position(|&cause| cause == self).unwrap_or(0)
    }

    pub(crate) fn from_index(index: usize) -> Self {
        let signal = |index: usize| Self::Signal((index - Self::NAMED.len()) as u8);
        Self::NAMED.get(index).copied().unwrap_or_else(|| signal(index))
    }

    /// The status that a child ends with, so that its parent can tell (see [`Cause::from_status`]).
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Panicked => sys::fork::PANICKED,
            Self::Done | Self::Retired => 0,
            other => other.index() as u8,
        }
    }

    /// The cause behind an exit status of a worker.
    pub(crate) fn from_status(status: u8) -> Self {
        match status {
            0 => Self::Retired,
            sys::fork::PANICKED => Self::Panicked,
            status => [Self::Failed, Self::Recycled]
                .into_iter()
                .find(|c| c.status() == status)
                .unwrap_or(Self::Exit),
        }
    }

    /// Whether it went wrong in a way that what a client sends can cause: a panic, or a signal that is raised by what a
    /// program does and not sent by others.
    pub(crate) fn is_crash(self) -> bool {
        match self {
            Self::Panicked => true,
            Self::Signal(signal) => RAISED.contains(&i32::from(signal)),
            _ => false,
        }
    }

    /// Whether this end is part of a normal life.
    pub(crate) fn is_normal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Recycled | Self::Retired)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Recycled => "recycled",
            Self::Retired => "retired",
            Self::Panicked => "panicked",
            Self::Exit => "exit",
            Self::Oom => "oom",
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(i32::from(*number)) {
                Ok(signal) => signal.as_str(),
                Err(_) => return write!(f, "signal-{number}"),
            },
        };
        f.write_str(name)
    }
}
