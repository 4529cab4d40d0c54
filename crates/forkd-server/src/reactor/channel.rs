//! Runs a [`Protocol`] on a socket that does not block: `service::driven` for a reactor.
//!
//! Invariant: bytes reach the protocol and the client as they do on a blocking connection. Nothing is
//! read while output waits, but for a protocol that listens while it produces, and that only until it
//! has answered: so a client that does not read occupies two replies of memory at most.

use std::any::Any;
use std::io;
use std::time::{Duration, Instant};

use super::line::{Line, Next};
use super::pollers::Polled;
use super::{Reactor, Shared};
use crate::events;
use crate::fairness::{Load, TURN, Turn};
use crate::service::{Protocol, Reply};
use crate::sys::poller::{Event, Interest};
use crate::timers::At;
use crate::transport::{LEFTOVER, LINGER, Peer, TimedOut, limit_unsent};

/// The owner of the protocol, which is told of the end.
pub(crate) trait Session<'a> {
    fn protocol(&mut self) -> &mut dyn Protocol;

    /// The protocol has panicked: this is the connection's end.
    fn panicked(&mut self, _payload: &(dyn Any + Send), peer: Peer) {
        events::protocol_panicked(peer);
    }

    /// The connection has ended, and is closed.
    fn closed(self: Box<Self>, reactor: &mut Reactor<'a>, peer: Peer, outcome: io::Result<()>);
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Goes,
    Over,
}

pub(super) struct Channel<'a> {
    line: Line<'a>,
    pub(super) session: Box<dyn Session<'a> + 'a>,
    pub(super) peer: Peer,
    phase: Phase,
    input: Input,
    /// What it has answered while it produces has not gone yet.
    crowded: bool,
    /// When it began, by [`Shared::millis`]: a whole `Instant` would be 16 bytes for each connection.
    began: u32,
    /// When bytes have last come or gone.
    active: Instant,
    /// When the protocol's wait for input ends, or the lingering.
    until: Option<Instant>,
    /// What it has done in its last turns.
    load: Load,
    /// What it waits for; never nothing.
    pub(super) wanted: Polled,
    /// What the poller waits for.
    pub(super) polled: Polled,
    /// When the reactor looks at it in any case.
    pub(super) alarm: Option<At>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for input.
    Open,
    /// Has more to send.
    Producing,
    /// Ends once all is sent.
    Finishing,
    /// Has said that it ends; waits for the client to end, too, and for this number of bytes at most.
    Lingering(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// The client's bytes have ended.
    Ended,
    /// The protocol knows.
    Told,
}

impl<'a> Channel<'a> {
    pub(super) fn new(
        line: Line<'a>,
        peer: Peer,
        session: Box<dyn Session<'a> + 'a>,
        shared: &Shared<'a>,
    ) -> Self {
        Self {
            line,
            session,
            peer,
            phase: Phase::Open,
            input: Input::Open,
            crowded: false,
            began: shared.millis(),
            active: shared.now,
            until: None,
            load: Load::default(),
            wanted: Interest::NONE.into(),
            polled: Interest::NONE.into(),
            alarm: None,
        }
    }

    /// The connection is there: is there a greeting?
    pub(super) fn begin(&mut self, shared: &mut Shared<'a>) -> io::Result<Flow> {
        let next = self.line.dispose(self.session.protocol().connected(self.peer))?;
        self.follow(next);
        self.go_on(shared)
    }

    /// The socket is ready.
    pub(super) fn turn(&mut self, event: Event, shared: &mut Shared<'a>) -> io::Result<Flow> {
        if event.writable {
            self.line.flush()?;
        }
        if event.readable && self.wanted.interest.read {
            self.read(shared)?;
        }
        self.go_on(shared)
    }

    /// The time of its alarm has come.
    pub(super) fn expired(&mut self, shared: &mut Shared<'a>) -> io::Result<Flow> {
        let is_over = self.until.is_some_and(|until| until <= shared.now);
        match self.phase {
            Phase::Open if is_over => {
                let next = self.line.dispose(self.session.protocol().timed_out())?;
                self.follow(next);
            }
            Phase::Lingering(_) if is_over || self.timed_out(shared).is_some() => return Ok(Flow::Over),
            _ => {
                let limit = self.timed_out(shared);
                return limit.map_or(Ok(Flow::Goes), |limit| Err(limit.error(io::ErrorKind::TimedOut)));
            }
        }
        self.go_on(shared)
    }

    /// Whether it has been silent, or there, for too long.
    fn timed_out(&self, shared: &Shared<'a>) -> Option<TimedOut> {
        let is_still = || shared.idle_timeout.is_some_and(|limit| shared.now - self.active >= limit);
        match shared.max_lifetime {
            Some(limit) if self.age(shared) >= limit => Some(TimedOut::Lifetime),
            _ if !is_still() => None,
            _ if self.waits_for_input() => Some(TimedOut::Idle),
            _ => Some(TimedOut::Unread),
        }
    }

    /// For how many whole milliseconds it has been there, at least.
    fn age(&self, shared: &Shared<'a>) -> Duration {
        Duration::from_millis(shared.millis().wrapping_sub(self.began).saturating_sub(1).into())
    }

    fn waits_for_input(&self) -> bool {
        self.phase == Phase::Open && self.line.is_clear()
    }

    fn read(&mut self, shared: &mut Shared<'a>) -> io::Result<()> {
        let Some(n) = self.line.read(&mut shared.buffer)? else { return Ok(()) };
        if n == 0 {
            self.input = Input::Ended;
        } else if let Phase::Lingering(left) = &mut self.phase {
            match left.checked_sub(n) {
                Some(less) => *left = less,
                // enough, whether there is more or not
                None => self.input = Input::Ended,
            }
        } else {
            self.line.took();
            let reply = self.session.protocol().received(&shared.buffer[..n]);
            let is_silent = matches!(reply, Reply::Wait);
            let next = self.line.dispose(reply)?;
            let produces = self.phase == Phase::Producing;
            self.crowded = produces && !is_silent;
            if !(produces && next == Next::Input) {
                self.follow(next);
            }
        }
        Ok(())
    }

    fn follow(&mut self, next: Next) {
        self.phase = match next {
            // what it says to the end is the last
            Next::Input if self.input == Input::Told => Phase::Finishing,
            Next::Input => Phase::Open,
            Next::Produce => Phase::Producing,
            Next::End => Phase::Finishing,
        };
    }

    /// Does all that can be done without waiting, within the limit of a turn.
    fn go_on(&mut self, shared: &mut Shared<'a>) -> io::Result<Flow> {
        let mut produced = Turn::default();
        while self.line.is_clear() {
            self.crowded = false;
            match (self.phase, self.input) {
                (Phase::Producing, _) if !produced.is_over() => {
                    let reply = self.session.protocol().resume();
                    produced.count(length(reply));
                    let next = self.line.dispose(reply)?;
                    self.follow(next);
                }
                (Phase::Open, Input::Ended) => {
                    self.input = Input::Told;
                    let next = self.line.dispose(self.session.protocol().ended())?;
                    self.follow(next);
                }
                (Phase::Finishing, Input::Open) => {
                    if self.line.end().is_err() || self.session.protocol().client_is_done() {
                        return Ok(Flow::Over);
                    }
                    self.phase = Phase::Lingering(LEFTOVER);
                    self.until = Some(shared.now + LINGER);
                }
                (Phase::Finishing | Phase::Lingering(_), Input::Ended | Input::Told) => {
                    return Ok(Flow::Over);
                }
                _ => break,
            }
        }
        let turn = self.line.take_turn();
        if turn != Turn::default() {
            self.active = shared.now;
            self.load.add(turn);
        }
        if !matches!(self.phase, Phase::Lingering(_)) {
            self.until =
                if self.waits_for_input() { self.session.protocol().deadline(shared.now) } else { None };
        }
        self.wanted = Polled { interest: self.interest(), is_bulk: self.load.is_bulk() };
        if self.wanted.is_bulk && !self.polled.is_bulk {
            limit_unsent(&self.line);
        }
        Ok(Flow::Goes)
    }

    fn interest(&mut self) -> Interest {
        let is_clear = self.line.is_clear();
        let read = match self.phase {
            Phase::Open => is_clear,
            Phase::Producing => {
                self.input == Input::Open && !self.crowded && self.session.protocol().listens()
            }
            Phase::Finishing => false,
            Phase::Lingering(_) => true,
        };
        Interest { read, write: !is_clear || self.phase == Phase::Producing, end: false }
    }

    /// When it wants to be looked at, whatever happens.
    pub(super) fn due(&self, shared: &Shared<'a>) -> Option<Instant> {
        let silence = shared.idle_timeout.and_then(|limit| self.active.checked_add(limit));
        let end = shared.max_lifetime.map(|limit| shared.now + limit.saturating_sub(self.age(shared)));
        [self.until, silence, end].into_iter().flatten().min()
    }

    pub(super) fn line(&self) -> &Line<'a> {
        &self.line
    }

    /// Closes the connection; its session is to hear of it.
    pub(super) fn close(self) -> Box<dyn Session<'a> + 'a> {
        self.line.close();
        self.session
    }
}

fn length(reply: Reply<'_>) -> usize {
    match reply {
        Reply::Wait => 0,
        Reply::Send(bytes) | Reply::More(bytes) | Reply::Finish(bytes) => bytes.len(),
        // one piece of it goes
        Reply::File(_) => TURN,
    }
}
