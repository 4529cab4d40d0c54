//! For how long a client is waited for.

use std::time::{Duration, Instant};

/// What is waited for. The number of answers makes one request's wait another than the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    First,
    Head(u32),
    Content(u32),
    Next(u32),
}

/// For how long a client may read nothing of what it has asked for, where no idle time-out is given: it may
/// occupy a whole worker, too.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it waits for a client.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// A request from its first byte on, however it trickles in; also the client's time until its
    /// first byte.
    pub(super) request: Duration,
    /// For the next request. Short, because a client that is silent may occupy a whole worker.
    pub(super) idle: Duration,
    /// The most requests; then others have their turn: a worker serves one connection at a time.
    pub(super) requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let [request, idle] = [10, 5].map(Duration::from_secs);
        Self { request, idle, requests: 1000 }
    }
}

/// What is waited for, and since when.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeouts {
    pub(super) limits: Limits,
    wait: Option<(Wait, Instant)>,
}

impl Timeouts {
    /// Until when this may last, which is asked before each wait.
    pub(super) fn until(&mut self, wait: Wait, now: Instant) -> Instant {
        let since = match self.wait {
            Some((before, since)) if before == wait => since,
            _ => now,
        };
        self.wait = Some((wait, since));
        since
            + match wait {
                Wait::First | Wait::Head(_) | Wait::Content(_) => self.limits.request,
                Wait::Next(_) => self.limits.idle,
            }
    }
}
