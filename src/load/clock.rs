//! Time since a phase began, and the processor time of a thread.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since a phase began.
pub(super) type Nanos = u64;

/// Counts from the moment it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Nanos {
        self.0.elapsed().as_nanos() as Nanos
    }
}

/// A span in nanoseconds; one that is too long for them is as long as they can say.
pub(super) fn nanos(span: Duration) -> Nanos {
    span.as_nanos().try_into().unwrap_or(Nanos::MAX)
}

/// How much processor time the calling thread has had, in user and in kernel mode.
pub(super) fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Has this thread's waits end when they ought to, and not up to 50 µs later (prctl(2), PR_SET_TIMERSLACK);
/// or as before.
pub(super) fn exact_timers(on: bool) {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(on.then_some(std::num::NonZeroU64::MIN));
    #[cfg(not(target_os = "linux"))]
    let _ = on;
}
