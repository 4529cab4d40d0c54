//! What a signal does to this process: sigaction(2), also of the signals that the C library keeps to itself.

pub(crate) mod caller;

use std::io;
use std::ptr;

#[cfg(target_os = "linux")]
use super::raw::syscall4;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

pub(super) fn set(signal: Signal, handler: SigHandler, flags: SaFlags) -> io::Result<()> {
    replace(signal, handler, flags).map(drop)
}

/// The same; returns what happened before.
pub(super) fn replace(signal: Signal, handler: SigHandler, flags: SaFlags) -> io::Result<SigHandler> {
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: the handlers that this crate sets are async-signal-safe (each says why), and replacing a
    // disposition is what the caller asked for.
    Ok(unsafe { sigaction(signal, &action)? }.handler())
}

/// Gives every signal its default action, as daemon(7) has it. Async-signal-safe.
pub(super) fn reset_all() {
    for signal in 1..=LAST {
        set_unchecked(signal, libc::SIG_DFL);
    }
}

/// The highest number of a signal: signal(7).
const LAST: i32 = 64;

/// The signals that the C library has to itself (nptl(7)). Its own functions neither block nor handle them for a
/// caller, and where it has no use for them yet, their default action ends the process.
#[cfg(target_os = "linux")]
const OF_THE_C_LIBRARY: [i32; 2] = [32, 33];

/// Ignores the signals of the C library that have no handler; it installs its own where it needs one, and then
/// nothing is changed here.
#[cfg(target_os = "linux")]
pub(super) fn ignore_those_of_the_c_library() {
    for signal in OF_THE_C_LIBRARY {
        if action_of(signal) == Some(libc::SIG_DFL) {
            set_unchecked(signal, libc::SIG_IGN);
        }
    }
}

/// The action of a signal by its number, past the C library, which does not tell of its own; `None` for a number of no
/// signal.
#[cfg(target_os = "linux")]
pub(super) fn action_of(signal: i32) -> Option<libc::sighandler_t> {
    let mut now: KernelAction = [0; 8];
    // SAFETY: the kernel writes its `struct sigaction`, which is shorter, to `now`.
    let asked = unsafe {
        let null = ptr::null::<KernelAction>();
        libc::syscall(libc::SYS_rt_sigaction, signal, null, &raw mut now, size_of::<u64>())
    };
    (asked == 0).then_some(now[0])
}

#[cfg(not(target_os = "linux"))]
pub(super) fn action_of(signal: i32) -> Option<libc::sighandler_t> {
    // SAFETY: `sigaction` consists of integers, and of a pointer to a function, which may be null here.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: sigaction(2) writes to `now`.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
    (asked == 0).then_some(now.sa_sigaction)
}

/// The kernel's `struct sigaction` begins with the handler; there is room for the rest.
#[cfg(target_os = "linux")]
type KernelAction = [usize; 8];

/// Sets the default action, or none, for a signal by its number, past the C library, which refuses that for its
/// own. A number of no signal is only an error. Async-signal-safe.
#[cfg(target_os = "linux")]
#[inline(always)]
pub(super) fn set_unchecked(signal: i32, action: libc::sighandler_t) {
    let new: KernelAction = [action, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads its `struct sigaction`, which is shorter, from `new`: without flags and without a
    // handler, which would need a restorer.
    let _ = unsafe {
        syscall4(libc::SYS_rt_sigaction, signal as usize, (&raw const new).addr(), 0, size_of::<u64>())
    };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn set_unchecked(signal: i32, action: libc::sighandler_t) {
    // SAFETY: signal(3) is async-signal-safe, and neither action needs a handler.
    unsafe { libc::signal(signal, action) };
}
