//! Limits of the process: setrlimit(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows this process as many open descriptors as it may allow itself: for one that serves many
/// connections at once. The soft limit is low for the sake of programs that use select(2).
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // with fewer it works, too: who does not fit in waits
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
