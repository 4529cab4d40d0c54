//! What a child has carried, counted where the scoreboard can see it.

use std::sync::atomic::{AtomicU64, Ordering};

forkd_sys::plain! {
    /// What a child has carried; written by the child alone, by all its threads.
    #[derive(Debug, Default)]
    pub struct Traffic {
        pub(crate) connections: AtomicU64,
        pub(crate) bytes_in: AtomicU64,
        pub(crate) bytes_out: AtomicU64,
        /// Connections whose handler failed or panicked.
        pub(crate) failed: AtomicU64,
    }
}

impl Traffic {
    pub(crate) const fn new() -> Self {
        Self {
            connections: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn reset(&self) {
        for counter in [&self.connections, &self.bytes_in, &self.bytes_out, &self.failed] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
