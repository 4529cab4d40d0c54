//! System calls that forkd can do without, and what processes can be confined by.

use rustix::process::{Resource, getrlimit};

use super::facts::{Fact, Limit};
use crate::sys;
use forkd_server::sandbox::Level;

/// What the kernel lets this process do.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// The calls that it has not, or that a filter forbids, and how they fail.
    pub missing: Vec<(&'static str, String)>,
    /// This program does without all that only Linux has.
    pub is_portable: bool,
    /// What is missing for the strict sandbox.
    pub gap: Option<&'static str>,
    /// The version of Landlock.
    pub landlock: Option<u32>,
}

impl Kernel {
    /// Asks this system, by calls that do nothing.
    pub fn here() -> Self {
        let missing = sys::calls::missing().map(|(name, error)| (name, error.to_string()));
        Self {
            missing: missing.collect(),
            is_portable: sys::portable(),
            gap: Level::Strict.missing(),
            landlock: sys::sandbox::landlock_version(),
        }
    }
}

/// What forkd does instead of a call.
pub(super) fn instead_of(call: &str) -> &'static str {
    match call {
        "accept4" => "accepts by two calls",
        "clone3" => "forks by fork(2), slower, and follows workers by a pipe each",
        "close_range" => "closes descriptors one by one in each child",
        "eventfd2" => "wakes its master by a pipe",
        "memfd_create" => "keeps its scoreboard in /dev/shm",
        "openat2" => "looks up the paths of http name by name",
        "pidfd_open" => "waits for a program's end in a thread",
        "pidfd_send_signal" => "signals workers by their process ids",
        "recvmmsg" => "receives datagrams one by one",
        _ => "copies by read(2) and write(2)",
    }
}

/// The limits of open files and of processes, by getrlimit(2).
pub(super) fn limits() -> [Fact<Limit>; 2] {
    let of = |resource| {
        let limit = getrlimit(resource);
        let or_all = |number: Option<u64>| number.unwrap_or(u64::MAX);
        Ok(Limit { soft: or_all(limit.current), hard: or_all(limit.maximum) })
    };
    #[cfg(not(target_os = "illumos"))]
    let processes = of(Resource::Nproc);
    #[cfg(target_os = "illumos")]
    let processes = Err("illumos has no such limit".into());
    [of(Resource::Nofile), processes]
}
