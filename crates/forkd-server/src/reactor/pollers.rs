//! Which sources are ready: bulk connections after all others, and one at a time.
//!
//! Bulk connections ([`Load::is_bulk`](crate::fairness::Load::is_bulk)) have a poller of their own, which the poller
//! of all others looks after as one more descriptor. So a wait costs the same however many bulk connections are
//! ready, and the kernel has these take turns.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys::poller::{Event, Interest, Poller};

/// The token of the bulk poller; no key has it.
const BULK: usize = usize::MAX;

/// What a source waits for, and in which poller; if for nothing, in none.
///
/// A poller would tell again and again of the end of a connection that waits for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Polled {
    pub(super) interest: Interest,
    pub(super) is_bulk: bool,
}

impl From<Interest> for Polled {
    fn from(interest: Interest) -> Self {
        Self { interest, is_bulk: false }
    }
}

pub(super) struct Pollers {
    others: Poller,
    bulk: Poller,
}

impl Pollers {
    pub(super) fn new() -> io::Result<Self> {
        let (others, bulk) = (Poller::new()?, Poller::new()?);
        others.add(&bulk, BULK, Interest::READ)?;
        Ok(Self { others, bulk })
    }

    fn of(&self, polled: Polled) -> &Poller {
        if polled.is_bulk { &self.bulk } else { &self.others }
    }

    pub(super) fn add(&self, fd: impl AsFd, token: usize, polled: impl Into<Polled>) -> io::Result<()> {
        let polled = polled.into();
        if polled.interest == Interest::NONE {
            Ok(())
        } else {
            self.of(polled).add(fd, token, polled.interest)
        }
    }

    /// As [`Poller::add_edge`].
    pub(super) fn add_edge(&self, fd: impl AsFd, token: usize) -> io::Result<()> {
        self.others.add_edge(fd, token)
    }

    pub(super) fn change(
        &self,
        fd: impl AsFd,
        token: usize,
        before: Polled,
        polled: Polled,
    ) -> io::Result<()> {
        let is_nothing = |polled: Polled| polled.interest == Interest::NONE;
        if before.is_bulk == polled.is_bulk && !is_nothing(before) && !is_nothing(polled) {
            return self.of(polled).change(fd, token, before.interest, polled.interest);
        }
        if !is_nothing(before) {
            self.of(before).remove(&fd, before.interest)?;
        }
        self.add(fd, token, polled)
    }

    pub(super) fn remove(&self, fd: impl AsFd, interest: Interest) -> io::Result<()> {
        self.others.remove(fd, interest)
    }

    /// Waits until some are ready, as [`Poller::wait`]; of the bulk connections that are, one is last.
    pub(super) fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
        self.others.wait(events, limit)?;
        if let Some(at) = events.iter().position(|event| event.token == BULK) {
            events.remove(at);
            events.extend(self.bulk.next()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bulk_connections_come_one_at_a_time_after_all_others_and_take_turns() {
        let pollers = Pollers::new().unwrap();
        let ends: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        for (token, (here, there)) in ends.iter().enumerate() {
            let polled = Polled { interest: Interest::READ, is_bulk: token < 3 };
            pollers.add(here, token, polled).unwrap();
            rustix::io::write(there, b"x").unwrap();
        }
        let mut events = Vec::new();
        let mut ready = || {
            pollers.wait(&mut events, Some(Duration::ZERO)).unwrap();
            let mut tokens: Vec<_> = events.iter().map(|event| event.token).collect();
            let bulk = tokens.pop().unwrap();
            tokens.sort_unstable();
            assert_eq!(tokens, [3, 4]);
            bulk
        };
        let turns: Vec<_> = (0..6).map(|_| ready()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_connection_changes_its_poller() {
        let pollers = Pollers::new().unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        rustix::io::write(&there, b"x").unwrap();
        let mut events = Vec::new();
        let mut ready = || {
            pollers.wait(&mut events, Some(Duration::ZERO)).unwrap();
            events.iter().map(|event| event.token).collect::<Vec<_>>()
        };
        let mut before = Interest::READ.into();
        pollers.add(&here, 7, before).unwrap();
        for polled in [
            Polled { interest: Interest::READ, is_bulk: true },
            Polled { interest: Interest::BOTH, is_bulk: true },
            Polled { interest: Interest::WRITE, is_bulk: false },
        ] {
            pollers.change(&here, 7, before, polled).unwrap();
            before = polled;
            assert_eq!(ready(), [7], "{polled:?}");
        }
        pollers.change(&here, 7, before, Polled { interest: Interest::NONE, is_bulk: true }).unwrap();
        assert!(ready().is_empty());
    }
}
