//! Limits of the process: setrlimit(2).

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits, soft and hard, that this process has raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// How many descriptors this process may have open; `None` without a limit.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Allows this process as many open descriptors as it may allow itself: for one that serves many
/// connections at once. The soft limit is low for the sake of programs that use select(2).
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    BEFORE.get_or_init(|| limit);
    // with fewer it works, too: clients that do not fit in wait
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Makes room for so many descriptors, if this process may have them, before it starts threads. The kernel enlarges the
/// table of descriptors when it is full, and if threads share that, the one that needs the room waits for as long as a
/// processor may still use the old table: some milliseconds, at 64, 128, 256 and so on.
pub fn make_room(open: impl AsFd, count: usize) {
    /// More than the process has besides.
    const OTHERS: usize = 64;
    let most = open_files().unwrap_or(0).min(i32::MAX as u64) as usize;
    let last = count.saturating_add(OTHERS).min(most).saturating_sub(1) as i32;
    // without it works, too
    drop(rustix::io::fcntl_dupfd_cloexec(open, last));
}

/// In a new process: has the program find its limits as the caller of this process has set them. Async-signal-safe.
pub(super) fn hand_down() -> rustix::io::Result<()> {
    BEFORE.get().map_or(Ok(()), |&limit| setrlimit(Resource::Nofile, limit))
}
