//! The signals that this process was started with, for the programs that it starts.
//!
//! Invariant: they are remembered before anything in this process changes them, the Rust runtime included, which
//! ignores SIGPIPE before `main`.

use std::sync::OnceLock;

use nix::sys::signal::SigSet;

use super::{LAST, action_of, reset_all, set_unchecked};

/// The signals that a process was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// A bit for each signal that is ignored.
    pub ignored: u64,
    /// A bit for each signal that is blocked.
    pub blocked: u64,
}

static CALLER: OnceLock<Caller> = OnceLock::new();

/// Where this program is a successor: what the first program of this process was started with.
static FIRST_CALLER: OnceLock<Caller> = OnceLock::new();

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
pub fn caller() -> Caller {
    let remember = || Caller {
        ignored: signals().filter(|&signal| action_of(signal) == Some(libc::SIG_IGN)).map(bit).sum(),
        blocked: blocked(),
    };
    *FIRST_CALLER.get().unwrap_or_else(|| CALLER.get_or_init(remember))
}

/// Takes over what the first program of this process was started with, in one that it has executed since.
pub fn adopt(caller: Caller) {
    let _ = FIRST_CALLER.set(caller);
}

fn signals() -> impl Iterator<Item = i32> {
    1..=LAST
}

fn blocked() -> u64 {
    let mask = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
    // SAFETY: sigismember(3) reads a set, and is told of no number but those of signals.
    let is_blocked = |&signal: &i32| unsafe { libc::sigismember(mask.as_ref(), signal) } == 1;
    signals().filter(is_blocked).map(bit).sum()
}

/// In a new process, in which all signals are blocked: has signals come to the program as the caller wants it. It is
/// async-signal-safe, as the caller was asked for before `main`.
pub(crate) fn hand_down() -> nix::Result<()> {
    let caller = caller();
    reset_all();
    for signal in signals().filter(|&signal| caller.ignored & bit(signal) != 0) {
        set_unchecked(signal, libc::SIG_IGN);
    }
    let mut mask = *SigSet::empty().as_ref();
    for signal in signals().filter(|&signal| caller.blocked & bit(signal) != 0) {
        // SAFETY: sigaddset(3) writes to a set of this function's. It refuses the numbers that the C library keeps to itself.
        unsafe { libc::sigaddset(&raw mut mask, signal) };
    }
    // SAFETY: it was made empty and has been changed by sigaddset(3) alone.
    unsafe { SigSet::from_sigset_t_unchecked(mask) }.thread_set_mask()
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}
