//! The first steps of a forked process, in one place and in a fixed order.
//!
//! All signals are blocked when they begin (see `sys::signal`). A child keeps most of them so: a
//! Ctrl-C or a hang-up of the terminal reaches the whole process group, and only the master acts
//! on it.

use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::Pid;

use super::signals::Signals;
use crate::sys::fd::{CloseSet, Gate};
use crate::sys::signal::{Blocked, ORPHANED, die_by, die_with_parent};

/// Becomes a child that serves one connection or datagram.
///
/// It dies by SIGTERM and SIGQUIT, after a word to the scoreboard.
pub(super) fn child(blocked: &Blocked, close: &CloseSet, parent: Pid) {
    // the signal pipe is among them: a handler of the master's must find nobody to wake
    close.close_in_child();
    die_with_parent(parent);
    let wanted = [Signal::SIGTERM, Signal::SIGQUIT];
    for signal in wanted {
        // sigaction(2) fails only for a signal that can't be caught
        let _ = die_by(signal);
    }
    blocked.unblock_in_child(&wanted.into_iter().chain([ORPHANED]).collect::<SigSet>());
}

/// Becomes a worker, which SIGTERM tells to leave after its connection: by shutting the gate to
/// its listener. SIGQUIT ends it at once.
pub(super) fn worker(
    blocked: &Blocked,
    close: &CloseSet,
    parent: Pid,
    signals: Option<Signals>,
    listener: impl AsFd,
) -> std::io::Result<&'static Gate> {
    // Dropping it takes back its handlers' actions and closes the master's pipe, so that a signal
    // to this worker does not wake the master.
    drop(signals);
    close.close_in_child();
    die_with_parent(parent);
    let gate: &'static Gate = Box::leak(Box::new(Gate::new(listener)?));
    gate.shut_on(libc::SIGTERM)?;
    die_by(Signal::SIGQUIT)?;
    blocked.unblock_in_child(&[Signal::SIGTERM, Signal::SIGQUIT, ORPHANED].into_iter().collect::<SigSet>());
    Ok(gate)
}
