//! The signals that this process was started with, for the programs that it starts.
//!
//! Invariant: they are remembered before anything in this process changes them, the Rust runtime included, which
//! ignores SIGPIPE before `main`.

use std::sync::OnceLock;

use nix::sys::signal::SigSet;

use super::{LAST, action_of, reset_all, set_unchecked};

#[derive(Debug, Clone, Copy)]
struct Caller {
    /// A bit for each signal that is ignored.
    ignored: u64,
    blocked: SigSet,
}

static CALLER: OnceLock<Caller> = OnceLock::new();

/// Is called by the C library before `main`.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
#[used]
// SAFETY: the section is an array of such functions, and this one needs nothing that is set up later: it makes system
// calls and stores what they have told.
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = {
    extern "C" fn remember() {
        caller();
    }
    remember
};

/// What this process was started with, as far as it has not been changed when this is asked first.
fn caller() -> &'static Caller {
    CALLER.get_or_init(|| Caller {
        ignored: (1..=LAST).filter(|&signal| action_of(signal) == Some(libc::SIG_IGN)).map(bit).sum(),
        blocked: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
    })
}

/// In a new process, in which all signals are blocked: has signals come to the program as the caller wants it. It is
/// async-signal-safe, as the caller was asked for before `main`.
pub(crate) fn hand_down() -> nix::Result<()> {
    let caller = caller();
    reset_all();
    for signal in (1..=LAST).filter(|&signal| caller.ignored & bit(signal) != 0) {
        set_unchecked(signal, libc::SIG_IGN);
    }
    caller.blocked.thread_set_mask()
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}
