//! Starts the real binary, talks to it, and leaves nothing behind.
//!
//! Each [`Daemon`] has a directory, a control socket and a process group of its own, so tests run in
//! parallel; dropping it kills the whole group. Nothing sleeps to wait for something: tests ask
//! again ([`eventually`]) or wait for a line of the log, with a limit that is an error.
//!
//! ```text
//! let daemon = Daemon::start("--max-children 3 tcp://127.0.0.1:0");   // after `forkd serve`
//! let daemon = Forkd::new("-m prefork -w 4 unix://{dir}/s").portable(true).env("A", "b").start();
//! let mut client = daemon.connect();          // TcpStream to the first tcp endpoint, with time-outs
//! echoes(&mut client, b"hello");
//! daemon.children(); daemon.status(); daemon.wait_for_line("child crashed");
//! ```
#![allow(dead_code, unused_imports, unused_macros, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod daemon;
mod filter;
mod models;
mod net;
mod proc;
mod pty;
pub mod raw;
mod run;
mod skips;
pub mod sources;
mod start;
pub mod wire;

pub use daemon::Daemon;
pub(crate) use models::under_models;
pub use models::{ONE_PLACE, options_of};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use net::segments;
pub use net::{
    Client, connect, echoes, free_port, is_answered, is_cut, is_refused, is_silent, keepalive_due, kept_for,
    lingers, reset, short_connection, vanishes,
};
pub use proc::{
    Children, Usage, children_of, fds_of, group_of, is_running, proc_status, signal, state_of, stopped,
    threads_of,
};
pub use pty::Pty;
pub use run::{Ended, forkd, forkd_command, forkd_within, public_binary, run, without_options};
pub use skips::need;
pub use start::{Forkd, example, forbid, may_open, own_user, set_limit};

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may take that ought to be quick; long, because the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Waits until `condition` holds; panics, naming `what`, if that takes longer than [`LIMIT`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(LIMIT, what, condition);
}

/// Waits until `condition` holds; panics, naming `what`, if that takes longer than `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(becomes_true(limit, condition), "not within {limit:?}: {what}");
}

/// Whether `condition` holds at some time before `limit` is over.
pub fn becomes_true(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Panics if `condition` ever fails while `span` lasts: for what must *not* happen.
#[track_caller]
pub fn holds_for(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(!becomes_true(span, || !condition()), "no longer: {what}");
}

/// Whether the test runs as root; if not, says loudly that it is skipped.
pub fn need_root() -> bool {
    need(nix::unistd::geteuid().is_root(), "this test needs root")
}

/// Whether the program is installed; if not, says loudly that the test is skipped.
pub fn need_tool(name: &str) -> bool {
    need(tool(name).is_some(), &format!("{name} is not installed"))
}

/// The path of a program, if it is in PATH.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Which way the daemon goes: Linux's own, or the one for any POSIX system (`FORKD_PORTABLE=1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Native,
    Portable,
}

/// Runs each test twice, as `name::native` and `name::portable`:
/// `both_ways! { fn name(way: Way) { Forkd::new("...").way(way).start(); } }`
macro_rules! both_ways {
    ($($(#[$attribute:meta])* fn $name:ident($way:ident: Way) $body:block)*) => {$(
        mod $name {
            use super::*;
            fn both($way: Way) $body
            $(#[$attribute])*
            #[test]
            fn native() {
                both(Way::Native);
            }
            $(#[$attribute])*
            #[test]
            fn portable() {
                both(Way::Portable);
            }
        }
    )*};
}
pub(crate) use both_ways;
