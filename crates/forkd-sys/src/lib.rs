//! forkd's room for `unsafe`: fork, threads, shared memory, signal handlers, batches of datagrams.
//!
//! Each file is small, safe on the outside, and states at each `unsafe` the fact that makes it
//! sound. Nothing here knows what forkd does: no policy, no logging, no configuration.

pub mod accept;
pub mod arena;
pub mod buffer;
pub mod call_off;
pub mod calls;
pub mod clock;
#[cfg(feature = "coroutine")]
pub mod context;
pub mod datagram;
mod disposition;
pub mod drops;
pub mod fd;
pub mod fork;
pub mod handover;
pub mod holders;
pub mod limits;
pub mod lock;
pub mod namespace;
pub mod notify_socket;
pub mod oom;
pub mod orphans;
pub mod pidfd;
pub mod poller;
pub mod pre_fork_trim;
pub mod procfs;
pub mod program;
pub mod queue;
#[cfg(target_os = "linux")]
mod raw;
pub mod sandbox;
pub mod shared;
pub mod shutdown_fd;
pub mod signal;
pub mod sock_diag;
pub mod socket;
pub mod stack;
pub mod tcp;
pub mod thread;
#[cfg(feature = "tty")]
pub mod tty;
pub mod usage;
pub mod wake;

use std::sync::OnceLock;

/// Whether to do without what only Linux has (pidfds, clone3, eventfd, close_range).
///
/// True on other systems, and with musl, whose raise(3) goes by a thread id that only its own fork
/// brings up to date. On Linux, `FORKD_PORTABLE=1` asks for it, so that the portable way can
/// be tested where it would not be taken.
pub fn portable() -> bool {
    static PORTABLE: OnceLock<bool> = OnceLock::new();
    *PORTABLE.get_or_init(|| {
        cfg!(not(all(target_os = "linux", target_env = "gnu")))
            || std::env::var_os("FORKD_PORTABLE").is_some_and(|v| v == "1")
    })
}
