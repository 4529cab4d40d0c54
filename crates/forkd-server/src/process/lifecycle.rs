//! The way to the end: how long clients are still taken, how long connections may go on, and what comes after.
//!
//! ```text
//! Running ──TERM, INT──▶ Announcing ──delay over──▶ Draining ──grace over──▶ Ending ──▶ Killing
//!    └────────QUIT───────────┴──────────────────────────┴──────────────────────▲
//! ```
//!
//! Each further TERM or INT ends the phase that it finds.
//!
//! Without a delay, and without a grace time, there is no such phase.

use std::time::{Duration, Instant};

use crate::scoreboard::Stage;

/// How long a child has between the signal that ends it and SIGKILL. It ends its programs meanwhile, which
/// may take a quarter of that (see `sys::program`).
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the phases of a stop may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopTimes {
    /// How long clients are still taken, so that load balancers learn first that there will be none.
    pub drain_delay: Duration,
    /// How long connections may go on after that.
    pub grace: Duration,
}

impl StopTimes {
    /// No more clients from the beginning on.
    pub(crate) const fn without_delay(grace: Duration) -> Self {
        Self { drain_delay: Duration::ZERO, grace }
    }

    /// All of it.
    pub(super) fn whole(self) -> Duration {
        self.drain_delay.saturating_add(self.grace)
    }
}

/// Where the daemon is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// Serving.
    Running,
    /// Serving as before, and saying that it will end, until the delay is over.
    Announcing(Instant),
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
    /// Go on, and say that it will end.
    Announce,
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

    /// Whether it takes clients, and so replaces what dies.
    pub(super) fn accepts(self) -> bool {
        matches!(self, Self::Running | Self::Announcing(_))
    }

    /// A signal asks to stop.
    pub(super) fn stop(&mut self, now: Instant, times: StopTimes) -> Step {
        match self {
            Self::Running if !times.drain_delay.is_zero() => {
                *self = Self::Announcing(now + times.drain_delay);
                Step::Announce
            }
            Self::Running | Self::Announcing(_) => self.drain(now, times),
            Self::Draining(_) => self.end(now),
            Self::Ending(_) | Self::Killing => self.kill(),
        }
    }

    /// A signal asks to stop at once.
    pub(super) fn stop_now(&mut self, now: Instant) -> Step {
        match self {
            Self::Running | Self::Announcing(_) | Self::Draining(_) => self.end(now),
            Self::Ending(_) | Self::Killing => self.kill(),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, times: StopTimes) -> Step {
        match *self {
            Self::Announcing(until) if now >= until => self.drain(now, times),
            Self::Draining(until) if now >= until => self.end(now),
            Self::Ending(until) if now >= until => self.kill(),
            _ => Step::Nothing,
        }
    }

    /// What is shown of it.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Running => Stage::Running,
            // to a load balancer both are the same: it is to send no more clients
            Self::Announcing(_) | Self::Draining(_) => Stage::Draining,
            Self::Ending(_) => Stage::Ending,
            Self::Killing => Stage::Killing,
        }
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Announcing(until) | Self::Draining(until) | Self::Ending(until) => Some(until),
            Self::Running | Self::Killing => None,
        }
    }

    fn drain(&mut self, now: Instant, times: StopTimes) -> Step {
        if times.grace.is_zero() {
            return self.end(now);
        }
        *self = Self::Draining(now + times.grace);
        Step::Drain
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

    const DELAY: Duration = Duration::from_secs(5);
    const GRACE: Duration = Duration::from_secs(10);
    const AT_ONCE: StopTimes = StopTimes::without_delay(GRACE);
    const DELAYED: StopTimes = StopTimes { drain_delay: DELAY, grace: GRACE };

    #[test]
    fn a_stop_waits_for_the_grace_time_then_ends_then_kills() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        assert_eq!(phase.tick(t, AT_ONCE), Step::Nothing);
        assert_eq!(phase.stop(t, AT_ONCE), Step::Drain);
        assert_eq!(phase.tick(t + GRACE / 2, AT_ONCE), Step::Nothing);
        assert_eq!(phase.deadline(), Some(t + GRACE));
        assert_eq!(phase.tick(t + GRACE, AT_ONCE), Step::End);
        assert_eq!(phase.tick(t + GRACE, AT_ONCE), Step::Nothing);
        assert_eq!(phase.tick(t + GRACE + KILL_TIMEOUT, AT_ONCE), Step::Kill);
        assert_eq!(phase.tick(t + GRACE * 2, AT_ONCE), Step::Nothing);
    }

    #[test]
    fn with_a_delay_it_accepts_until_that_is_over_and_has_its_grace_time_then() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        assert!(phase.is_running() && phase.accepts());
        assert_eq!(phase.stop(t, DELAYED), Step::Announce);
        assert!(!phase.is_running() && phase.accepts());
        assert_eq!((phase.stage(), phase.deadline()), (Stage::Draining, Some(t + DELAY)));
        assert_eq!(phase.tick(t + DELAY / 2, DELAYED), Step::Nothing);
        assert_eq!(phase.tick(t + DELAY, DELAYED), Step::Drain);
        assert!(!phase.accepts());
        assert_eq!((phase.stage(), phase.deadline()), (Stage::Draining, Some(t + DELAY + GRACE)));
        assert_eq!(phase.tick(t + DELAYED.whole(), DELAYED), Step::End);
    }

    #[test]
    fn a_second_signal_hastens_and_a_third_kills() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        assert_eq!(phase.stop(t, AT_ONCE), Step::Drain);
        assert_eq!(phase.stop(t, AT_ONCE), Step::End);
        assert_eq!((phase.stage(), phase.stop(t, AT_ONCE)), (Stage::Ending, Step::Kill));
    }

    #[test]
    fn each_signal_ends_one_phase_the_delay_too() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        let steps = [t, t, t, t].map(|now| phase.stop(now, DELAYED));
        assert_eq!(steps, [Step::Announce, Step::Drain, Step::End, Step::Kill]);
        // the grace time begins when the delay ends, and not when it would have ended
        let mut phase = Lifecycle::Announcing(t + DELAY);
        phase.stop(t, DELAYED);
        assert_eq!(phase, Lifecycle::Draining(t + GRACE));
    }

    #[test]
    fn quit_and_a_grace_of_nothing_end_at_once() {
        let t = Instant::now();
        assert_eq!(Lifecycle::Running.stop_now(t), Step::End);
        assert_eq!(Lifecycle::Announcing(t + DELAY).stop_now(t), Step::End);
        assert_eq!(Lifecycle::Running.stop(t, StopTimes::without_delay(Duration::ZERO)), Step::End);
    }

    #[test]
    fn a_grace_of_nothing_begins_after_the_delay() {
        let (mut phase, t) = (Lifecycle::Running, Instant::now());
        let times = StopTimes { grace: Duration::ZERO, ..DELAYED };
        assert_eq!(phase.stop(t, times), Step::Announce);
        assert_eq!(phase.tick(t + DELAY, times), Step::End);
    }
}
