//! Signals to the master, as orders.
//!
//! signal-hook turns them into bytes on a socket pair that the master's loop polls; their handlers
//! run only while it waits, as all signals are blocked otherwise.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::Error;
use crate::sys::signal::have_children_die;

/// What a signal asks of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Stop gracefully; a second one hastens. With the signal's name.
    Stop(&'static str),
    /// Stop at once (SIGQUIT).
    StopNow,
    /// Read the configuration again (SIGHUP).
    Reload,
    /// Write the status to the log (SIGUSR1).
    Report,
    /// Replace the program (SIGUSR2).
    Upgrade,
    /// One worker more (SIGTTIN).
    Grow,
    /// One worker fewer (SIGTTOU).
    Shrink,
}

impl Order {
    fn of(signal: i32) -> Option<Self> {
        Some(match signal {
            SIGTERM => Self::Stop("SIGTERM"),
            SIGINT => Self::Stop("SIGINT"),
            SIGQUIT => Self::StopNow,
            SIGHUP => Self::Reload,
            SIGUSR1 => Self::Report,
            SIGUSR2 => Self::Upgrade,
            SIGTTIN => Self::Grow,
            SIGTTOU => Self::Shrink,
            _ => return None,
        })
    }
}

/// The pipe from the signal handlers to the master's loop. Children close it by its numbers, so that no signal to them wakes
/// the master.
#[derive(Debug)]
pub(super) struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    write_end: RawFd,
}

impl Signals {
    /// Installs the handlers.
    pub(super) fn new() -> Result<Self, Error> {
        let cannot = |cause| Error::os("cannot install the signal handlers", cause);
        let (read_end, write_end) = UnixStream::pair().map_err(cannot)?;
        let raw = write_end.as_raw_fd();
        let signals = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU];
        let delivery = SignalDelivery::with_pipe(read_end, write_end, SignalOnly, signals).map_err(cannot)?;
        // afterwards, as it leaves these handlers to the master
        have_children_die().map_err(cannot)?;
        Ok(Self { delivery, write_end: raw })
    }

    /// The orders that have come.
    pub(super) fn take(&mut self) -> Vec<Order> {
        self.delivery.pending().filter_map(Order::of).collect()
    }

    /// Has those that have come and were not taken come again, to the next program: the caller keeps them back.
    pub(super) fn leave(&mut self) {
        for signal in self.delivery.pending() {
            // it fails only for what is no signal
            let _ = rustix::process::Signal::from_named_raw(signal)
                .map(|signal| rustix::process::kill_process(rustix::process::getpid(), signal));
        }
    }

    /// Both ends.
    pub(super) fn descriptors(&self) -> [RawFd; 2] {
        [self.delivery.get_read().as_raw_fd(), self.write_end]
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}
