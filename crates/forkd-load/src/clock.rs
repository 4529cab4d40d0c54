//! Time since a phase began, waits that end when they ought to, and the processor time of a thread.

use std::io;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use forkd_sys::poller::{Event, Poller};

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

    /// What moment that is.
    pub(super) fn at(self, moment: Nanos) -> Instant {
        self.0 + Duration::from_nanos(moment)
    }
}

/// A span in nanoseconds; one that is too long for them is as long as they can say.
pub(super) fn nanos(span: Duration) -> Nanos {
    span.as_nanos().try_into().unwrap_or(Nanos::MAX)
}

/// How much processor time the calling thread has had, in user and in kernel mode.
pub(super) fn thread_cpu() -> Duration {
    let clock = ClockId::from_raw(nix::libc::CLOCK_THREAD_CPUTIME_ID);
    clock_gettime(clock).map_or(Duration::ZERO, Into::into)
}

/// Waits as the poller does, but not for whole milliseconds, of which epoll_wait(2) counts its time.
pub(super) fn wait_exactly(poller: &Poller, events: &mut Vec<Event>, limit: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(poller, PollFlags::IN)];
    let limit = Timespec::try_from(limit).ok();
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => poller.wait(events, Some(Duration::ZERO)),
        Err(errno) => Err(errno.into()),
    }
}

/// Has this thread's waits end when they ought to, and not up to 50 µs later (prctl(2), PR_SET_TIMERSLACK);
/// or as before.
pub(super) fn exact_timers(on: bool) {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(on.then_some(std::num::NonZeroU64::MIN));
    #[cfg(not(target_os = "linux"))]
    let _ = on;
}
