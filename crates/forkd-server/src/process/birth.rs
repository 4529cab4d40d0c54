//! The first steps of a forked process, in one place and in a fixed order.
//!
//! Most signals are blocked, and stay so: a Ctrl-C or a hang-up of the terminal reaches the whole
//! process group, and only the master acts on it. SIGTERM and SIGQUIT end a child from its first
//! instruction on, by handlers that it inherits (see `sys::signal`).

use std::fs::File;
use std::sync::Arc;

use rustix::process::Pid;

use super::signals::Signals;
use crate::scoreboard::Scoreboard;
use crate::service::Service;
use crate::sys::fd::CloseSet;
use crate::sys::orphans::adopt;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::sys::signal::{Bereaved, TermHeld, at_death_of, restore_sigchld, shut_on};
use crate::transport::Listener;

/// Becomes a child that serves one connection or datagram.
pub(super) fn child(board: &Scoreboard, close: &CloseSet, parent: Pid, service: &Service) {
    board.keep_out();
    // The signal pipe is among them: a signal to a child must not wake the master.
    close.close_in_child();
    at_death_of(parent, Bereaved::FinishSoon);
    expect_children(service);
    if service.hands_over() {
        adopt();
    }
}

/// A handler may run programs and wait for them; the built-in services don't.
pub(super) fn expect_children(service: &Service) {
    if !service.echoes() {
        // it fails only for a signal that can't be caught
        let _ = restore_sigchld();
    }
}

/// Becomes a worker, which SIGTERM tells to leave after its connection, by shutting its copy of
/// its listener. SIGQUIT ends it at once. What the master knows it may read from here on, and not write. With `null`, that takes the place of the standard streams.
pub(super) fn worker(
    board: &Scoreboard,
    close: &CloseSet,
    parent: Pid,
    signals: Option<Signals>,
    null: Option<&File>,
    listener: &Listener,
) -> std::io::Result<Arc<ShutdownFd>> {
    board.read_only()?;
    silence(null);
    let shutdown = Arc::new(ShutdownFd::new(listener, !listener.is_inherited())?);
    shut_on(&shutdown, libc::SIGTERM)?;
    // Takes back what these signals mean to a master and to a child, and closes the master's pipe.
    if let Some(signals) = signals {
        signals.leave_to_worker();
    }
    TermHeld::release_in_child();
    close.close_in_child();
    // An idle worker leaves at once then, and a busy one after its connection.
    at_death_of(parent, Bereaved::Terminate);
    Ok(shutdown)
}

/// Becomes a process that serves no clients of the daemon. It ends when its master says so, and not at a
/// SIGTERM, which may go to the whole process group (as that of timeout(1)): it has work until all the others
/// are done. SIGTERM is held back already.
pub(super) fn attendant(
    board: &Scoreboard,
    close: &CloseSet,
    signals: Option<Signals>,
    null: Option<&File>,
) -> std::io::Result<()> {
    board.read_only()?;
    silence(null);
    if let Some(signals) = signals {
        signals.leave_to_worker();
    }
    close.close_in_child();
    Ok(())
}

/// Puts `null`, if there is one, in the place of the standard streams.
fn silence(null: Option<&File>) {
    if let Some(null) = null {
        let _ = nix::unistd::dup2_stdout(null).and_then(|()| nix::unistd::dup2_stderr(null));
    }
}
