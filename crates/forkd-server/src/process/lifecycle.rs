//! The way to the end: how long connections may go on, and what comes after.
//!
//! ```text
//! Running ──TERM, INT──▶ Draining ──grace over, or a second signal──▶ Ending ──▶ Killing
//!    └────────QUIT──────────────────────────────────────────────────────▲
//! ```

use std::time::{Duration, Instant};

use crate::scoreboard::Stage;

/// How long a child has between the signal that ends it and SIGKILL. It ends its programs meanwhile, which
/// may take a quarter of that (see `sys::program`).
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the daemon is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// Serving.
    Running,
    /// Waiting for connections to finish, until the grace time is over.
    Draining(Instant),
    /// Waiting for children to die by a signal that lets them record it.
    Ending(Instant),
    /// Waiting for the kernel.
    Killing,
}

/// What entering a phase calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Stop accepting, serve what is queued.
    Drain,
    /// End the children by a signal.
    End,
    /// Kill them.
    Kill,
}

impl Lifecycle {
    /// Whether it has not been told to stop.
    pub(super) fn is_running(self) -> bool {
        self == Self::Running
    }

    /// A signal asks to stop.
    pub(super) fn stop(&mut self, now: Instant, grace: Duration) -> Step {
        match self {
            Self::Running if grace.is_zero() => self.end(now),
            Self::Running => {
                *self = Self::Draining(now + grace);
                Step::Drain
            }
            Self::Draining(_) => self.end(now),
            Self::Ending(_) | Self::Killing => self.kill(),
        }
    }

    /// A signal asks to stop at once.
    pub(super) fn stop_now(&mut self, now: Instant) -> Step {
        match self {
            Self::Running | Self::Draining(_) => self.end(now),
            Self::Ending(_) | Self::Killing => self.kill(),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Step {
        match *self {
            Self::Draining(until) if now >= until => self.end(now),
            Self::Ending(until) if now >= until => self.kill(),
            _ => Step::Nothing,
        }
    }

    /// What is shown of it.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Running => Stage::Running,
            Self::Draining(_) => Stage::Draining,
            Self::Ending(_) => Stage::Ending,
            Self::Killing => Stage::Killing,
        }
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Draining(until) | Self::Ending(until) => Some(until),
            Self::Running | Self::Killing => None,
        }
    }

    fn end(&mut self, now: Instant) -> Step {
        *self = Self::Ending(now + KILL_TIMEOUT);
        Step::End
    }

    fn kill(&mut self) -> Step {
        *self = Self::Killing;
        Step::Kill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_stop_waits_for_the_grace_time_then_ends_then_kills() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        assert_eq!(phase.tick(t), Step::Nothing);
        assert_eq!(phase.stop(t, GRACE), Step::Drain);
        assert_eq!(phase.tick(t + GRACE / 2), Step::Nothing);
        assert_eq!(phase.deadline(), Some(t + GRACE));
        assert_eq!(phase.tick(t + GRACE), Step::End);
        assert_eq!(phase.tick(t + GRACE), Step::Nothing);
        assert_eq!(phase.tick(t + GRACE + KILL_TIMEOUT), Step::Kill);
        assert_eq!(phase.tick(t + GRACE * 2), Step::Nothing);
    }

    #[test]
    fn a_second_signal_hastens_and_a_third_kills() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        assert_eq!(phase.stop(t, GRACE), Step::Drain);
        assert_eq!(phase.stop(t, GRACE), Step::End);
        assert_eq!((phase.stage(), phase.stop(t, GRACE)), (Stage::Ending, Step::Kill));
    }

    #[test]
    fn quit_and_a_grace_of_nothing_end_at_once() {
        let t = Instant::now();
        assert_eq!(Lifecycle::Running.stop_now(t), Step::End);
        assert_eq!(Lifecycle::Running.stop(t, Duration::ZERO), Step::End);
    }
}
