//! How a connection ends: by its limits of time, and what its protocol is told of that.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Channel, Flow, Input, Phase, Session, Shared};
use crate::service::CloseReason;
use crate::transport::{Peer, TimedOut};

impl<'a> Channel<'a> {
    /// Whether it has been silent, or there, for too long.
    pub(super) fn timed_out(&self, shared: &Shared<'a>) -> Option<TimedOut> {
        let is_still = || shared.idle_timeout.is_some_and(|limit| shared.now - self.active >= limit);
        match shared.max_lifetime {
            Some(limit) if self.age(shared) >= limit => Some(TimedOut::Lifetime),
            _ if self.is_held() || !is_still() => None,
            _ if self.phase == Phase::Open && self.is_clear() => Some(TimedOut::Idle),
            _ => Some(TimedOut::Unread),
        }
    }

    /// For how many whole milliseconds it has been there, at least.
    fn age(&self, shared: &Shared<'a>) -> Duration {
        Duration::from_millis(shared.millis().wrapping_sub(self.began).saturating_sub(1).into())
    }

    /// When it wants to be looked at, whatever happens.
    pub(in crate::reactor) fn due(&self, shared: &Shared<'a>) -> Option<Instant> {
        let silence = shared.idle_timeout.filter(|_| !self.is_held());
        let silence = silence.and_then(|limit| self.active.checked_add(limit));
        let end = shared.max_lifetime.map(|limit| shared.now + limit.saturating_sub(self.age(shared)));
        [self.until, silence, end].into_iter().flatten().min()
    }

    /// Its protocol has panicked, and is not called any more.
    pub(in crate::reactor) fn broke(&mut self, payload: &(dyn Any + Send)) -> io::Error {
        self.phase = Phase::Broken;
        self.session.panicked(payload, self.peer);
        io::Error::other("its protocol has panicked")
    }

    /// Closes the connection, and tells its protocol why; its session is to hear of it.
    pub(in crate::reactor) fn close(mut self, outcome: &io::Result<Flow>) -> Box<dyn Session<'a> + 'a> {
        let reason = match (outcome, self.phase, self.input) {
            (Err(error), ..) => CloseReason::of(error),
            (Ok(_), Phase::Aborted, _) => CloseReason::Aborted,
            (Ok(_), _, Input::Told) => CloseReason::Ended,
            (Ok(_), ..) => CloseReason::Finished,
        };
        self.line.close();
        self.link = None;
        tell(&mut *self.session, self.phase, reason, self.peer);
        self.session
    }

    /// The reactor is no more.
    pub(in crate::reactor) fn stop(&mut self) {
        self.link = None;
        tell(&mut *self.session, self.phase, CloseReason::Stopped, self.peer);
    }
}

/// Tells a protocol why its connection is over, if it can still be called.
fn tell<'a>(session: &mut (dyn Session<'a> + 'a), phase: Phase, reason: CloseReason<'_>, peer: Peer) {
    if phase != Phase::Broken
        && let Err(payload) = catch_unwind(AssertUnwindSafe(|| session.protocol().closed(reason)))
    {
        session.panicked(&*payload, peer);
    }
}
