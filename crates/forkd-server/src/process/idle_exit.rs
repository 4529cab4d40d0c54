//! When a daemon with nothing to do ends, whose sockets another process keeps and starts it again for. Pure, as the pool's
//! policy.
//!
//! Invariant: it ends only when it has no child and no client is queued. Workers accept without the master, so what it sees
//! of them may be out of date when it acts; first it has them leave, which each does after the client that it may have
//! accepted meanwhile. If one has, or a client is queued, the daemon opens again. A client that comes after the last look
//! stays in the queue of the socket, which outlives the daemon.

use std::time::{Duration, Instant};

/// How often it looks, in the time after which it ends: an end that comes late by a part of that costs four looks and no
/// work for each client.
const LOOKS: u32 = 4;

/// How often it looks whether the workers have left.
const SOON: Duration = Duration::from_millis(10);

/// How long workers without clients may take for that; one that takes longer has one.
const PATIENCE: Duration = Duration::from_secs(1);

/// What there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// A child has a client, by its own account, or the daemon starts, reloads, is replaced or is about to stop.
    pub(super) is_busy: bool,
    /// How many connections and datagrams there have been.
    pub(super) clients: u64,
    /// How many children are alive.
    pub(super) children: u32,
    /// A client waits at a socket.
    pub(super) is_queued: bool,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Have all workers leave.
    Close,
    /// Have workers again.
    Reopen,
    Exit,
}

/// The rule.
#[derive(Debug)]
pub(super) struct IdleExit {
    limit: Duration,
    /// Since when nothing has happened.
    since: Instant,
    clients: u64,
    /// Until when workers may leave, once they are to.
    closing: Option<Instant>,
    next: Instant,
}

impl IdleExit {
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, since: now, clients: 0, closing: None, next: now + limit / LOOKS }
    }

    /// How long nothing has to happen.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// When to look next.
    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// Whether the workers have been told to leave.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Looks, if that is due.
    pub(super) fn turn(&mut self, now: Instant, sight: impl FnOnce() -> Sight) -> Step {
        if now >= self.next { self.look(now, sight()) } else { Step::Nothing }
    }

    /// This is to be seen now.
    fn look(&mut self, now: Instant, sight: Sight) -> Step {
        let Sight { is_busy, clients, children, is_queued } = sight;
        let is_idle = !is_busy && !is_queued && clients == self.clients;
        if !is_idle {
            (self.since, self.clients) = (now, clients);
        }
        let step = match self.closing {
            None if is_idle && now >= self.since + self.limit => Step::Close,
            None => Step::Nothing,
            Some(_) if is_idle && children == 0 => Step::Exit,
            Some(until) if is_idle && now < until => Step::Nothing,
            Some(_) => Step::Reopen,
        };
        match step {
            Step::Close => self.closing = Some(now + PATIENCE),
            // one that does not leave may have a client that it doesn't tell of
            Step::Reopen => (self.closing, self.since) = (None, now),
            Step::Nothing | Step::Exit => {}
        }
        self.next = now + if self.is_closing() { SOON } else { self.limit / LOOKS };
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const QUIET: Sight = Sight { is_busy: false, clients: 7, children: 3, is_queued: false };

    /// One that has been quiet for nearly so long.
    fn quiet(start: Instant) -> IdleExit {
        let mut idle = IdleExit::new(LIMIT, start);
        assert_eq!(idle.look(start, QUIET), Step::Nothing);
        assert_eq!(idle.look(start + LIMIT - SOON, QUIET), Step::Nothing);
        idle
    }

    #[test]
    fn workers_leave_first_and_then_it_ends() {
        let start = Instant::now();
        let (mut idle, end) = (quiet(start), start + LIMIT);
        assert_eq!(idle.look(end, QUIET), Step::Close);
        assert!(idle.is_closing() && idle.deadline() == end + SOON);
        assert_eq!(idle.look(end + SOON, Sight { children: 1, ..QUIET }), Step::Nothing);
        assert_eq!(idle.look(end + SOON * 2, Sight { children: 0, ..QUIET }), Step::Exit);
    }

    #[test]
    fn whatever_happens_begins_the_time_anew() {
        let start = Instant::now();
        let busy = Sight { is_busy: true, ..QUIET };
        let queued = Sight { is_queued: true, ..QUIET };
        // one has come and gone since the last look
        let one_more = Sight { clients: 8, ..QUIET };
        for sight in [busy, queued, one_more] {
            let (mut idle, then) = (quiet(start), start + LIMIT);
            assert_eq!(idle.look(then, sight), Step::Nothing);
            let quiet = Sight { clients: sight.clients, ..QUIET };
            assert_eq!(idle.look(then + LIMIT - SOON, quiet), Step::Nothing);
            assert_eq!(idle.look(then + LIMIT, quiet), Step::Close);
        }
    }

    #[test]
    fn a_client_that_came_meanwhile_opens_it_again() {
        let start = Instant::now();
        let none = Sight { children: 0, ..QUIET };
        let busy = Sight { is_busy: true, ..QUIET };
        let served = Sight { clients: 8, ..none };
        let queued = Sight { is_queued: true, ..none };
        for sight in [busy, served, queued] {
            let (mut idle, end) = (quiet(start), start + LIMIT);
            assert_eq!(idle.look(end, QUIET), Step::Close);
            assert_eq!(idle.look(end + SOON, sight), Step::Reopen, "{sight:?}");
            assert!(!idle.is_closing());
            let none = Sight { clients: sight.clients, ..none };
            assert_eq!(idle.look(end + LIMIT, none), Step::Nothing);
            assert_eq!(idle.look(end + SOON + LIMIT, none), Step::Close);
        }
    }

    #[test]
    fn a_worker_that_does_not_leave_may_have_a_client() {
        let start = Instant::now();
        let (mut idle, end) = (quiet(start), start + LIMIT);
        assert_eq!(idle.look(end, QUIET), Step::Close);
        assert_eq!(idle.look(end + PATIENCE - SOON, QUIET), Step::Nothing);
        assert_eq!(idle.look(end + PATIENCE, QUIET), Step::Reopen);
        assert_eq!(idle.look(end + PATIENCE + LIMIT - SOON, QUIET), Step::Nothing);
    }

    #[test]
    fn it_looks_four_times_as_long_as_it_is_open() {
        let start = Instant::now();
        let mut idle = IdleExit::new(LIMIT, start);
        assert_eq!(idle.deadline(), start + LIMIT / 4);
        idle.look(start + LIMIT / 4, QUIET);
        assert_eq!(idle.deadline(), start + LIMIT / 2);
    }
}
