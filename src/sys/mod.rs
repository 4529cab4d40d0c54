//! The room for `unsafe`: fork, threads, shared memory, signal handlers, batches of datagrams.
//!
//! Each file is small, safe on the outside, and states at each `unsafe` the fact that makes it
//! sound. Nothing here knows what forkd does: no policy, no logging, no configuration.

pub(crate) mod accept;
pub(crate) mod buffer;
pub(crate) mod calls;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod datagram;
pub(crate) mod drops;
pub(crate) mod fd;
pub(crate) mod fork;
pub(crate) mod handover;
pub(crate) mod holders;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod namespace;
pub(crate) mod oom;
pub(crate) mod orphans;
pub(crate) mod pidfd;
pub(crate) mod poller;
pub(crate) mod procfs;
pub(crate) mod program;
pub(crate) mod queue;
#[cfg(target_os = "linux")]
mod raw;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod slim;
pub(crate) mod sock_diag;
pub(crate) mod tcp;
pub(crate) mod thread;
#[cfg(feature = "top")]
pub(crate) mod tty;
pub(crate) mod wake;

use std::sync::OnceLock;

/// Whether to do without what only Linux has (pidfds, clone3, eventfd, close_range).
///
/// True on other systems, and with musl, whose raise(3) goes by a thread id that only its own fork
/// brings up to date. On Linux, `FORKD_PORTABLE=1` asks for it, so that the portable way can
/// be tested where it would not be taken.
pub(crate) fn portable() -> bool {
    static PORTABLE: OnceLock<bool> = OnceLock::new();
    *PORTABLE.get_or_init(|| {
        cfg!(not(all(target_os = "linux", target_env = "gnu")))
            || std::env::var_os("FORKD_PORTABLE").is_some_and(|v| v == "1")
    })
}
