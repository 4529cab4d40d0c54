//! Runs a [`Protocol`] on a socket that does not block: `service::driven` for a reactor.
//!
//! Invariant: bytes reach the protocol and the client as they do on a blocking connection. Nothing is
//! read while output waits, but for a protocol that listens while it has more to send, and that only until it
//! has answered: so a client that does not read occupies two replies of memory at most, and what an
//! [`Outbox`] holds.

mod closing;
mod linked;

use std::any::Any;
use std::io;
use std::time::Instant;

use super::line::{Line, Next};
use super::link::Link;
use super::pollers::Polled;
use super::{Reactor, Shared};
use crate::events;
use crate::fairness::{Load, TURN, Turn};
use crate::service::{Opening, Protocol, Reply};
use crate::slab::Key;
use crate::sys::poller::{Event, Interest};
use crate::timers::At;
#[cfg(doc)]
use crate::transport::Outbox;
use crate::transport::{LEFTOVER, LINGER, Peer, limit_unsent};

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
    key: Key,
    /// If it may be written to at any time.
    link: Option<Box<Link>>,
    phase: Phase,
    input: Input,
    /// What it has answered while it has more to send has not gone yet.
    crowded: bool,
    /// When it began, by [`Shared::millis`]: a whole `Instant` would be 16 bytes for each connection.
    began: u32,
    /// When bytes have last come or gone.
    active: Instant,
    /// When the protocol's wait for input ends, or the lingering.
    until: Option<Instant>,
    /// What it has done in its last turns.
    load: Load,
    /// What it waits for; if nothing, for a call.
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
    /// It ends at once, whatever has not gone.
    Aborted,
    /// Its protocol has panicked.
    Broken,
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
        key: Key,
        link: Option<Box<Link>>,
        shared: &Shared<'a>,
    ) -> Self {
        Self {
            line,
            session,
            peer,
            key,
            link,
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
        let opening = match &self.link {
            Some(link) => Opening::with(self.peer, link.outbox()),
            None => Opening::new(self.peer),
        };
        self.session.protocol().opened(&opening);
        if let (None, Some(outbox)) = (&self.link, opening.into_outbox()) {
            self.add_link(outbox, shared)?;
        }
        let next = dispose(&mut self.line, &self.link, self.session.protocol().connected(self.peer))?;
        self.follow(next, shared)?;
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
                let next = dispose(&mut self.line, &self.link, self.session.protocol().timed_out())?;
                self.follow(next, shared)?;
            }
            Phase::Lingering(_) if is_over || self.timed_out(shared).is_some() => return Ok(Flow::Over),
            _ => {
                let limit = self.timed_out(shared);
                return limit.map_or(Ok(Flow::Goes), |limit| Err(limit.error(io::ErrorKind::TimedOut)));
            }
        }
        self.go_on(shared)
    }

    fn waits_for_input(&self) -> bool {
        self.phase == Phase::Open && self.input == Input::Open && self.is_clear() && !self.is_held()
    }

    /// Whether the socket has taken all that it was to be given.
    #[inline(always)]
    fn is_clear(&self) -> bool {
        self.line.is_clear() && self.link.as_ref().is_none_or(|link| link.is_clear())
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
            let is_silent = matches!(reply, Reply::Wait | Reply::WaitFor(_));
            let next = dispose(&mut self.line, &self.link, reply)?;
            let produces = self.phase == Phase::Producing;
            self.crowded = !is_silent && (produces || !self.is_clear());
            self.follow_meanwhile(next, shared)?;
        }
        Ok(())
    }

    /// Follows a reply that was not asked for by [`Protocol::resume`]: what is produced goes on.
    #[inline(always)]
    fn follow_meanwhile(&mut self, next: Next, shared: &mut Shared<'a>) -> io::Result<()> {
        let produces = self.phase == Phase::Producing;
        self.follow(next, shared)?;
        if produces && self.phase == Phase::Open {
            self.phase = Phase::Producing;
        }
        Ok(())
    }

    #[inline(always)]
    fn follow(&mut self, next: Next, shared: &mut Shared<'a>) -> io::Result<()> {
        if next == Next::InputLater {
            self.hold(shared)?;
        }
        self.phase = match next {
            // what it says to the end is the last, if nobody may write to it later
            Next::Input | Next::InputLater if self.input == Input::Told && self.link.is_none() => {
                Phase::Finishing
            }
            Next::Input | Next::InputLater => Phase::Open,
            Next::Produce => Phase::Producing,
            Next::End => {
                self.link.iter().for_each(|link| link.is_finished());
                Phase::Finishing
            }
        };
        Ok(())
    }

    /// Does all that can be done without waiting, within the limit of a turn.
    fn go_on(&mut self, shared: &mut Shared<'a>) -> io::Result<Flow> {
        let mut produced = Turn::default();
        loop {
            if self.link.is_some() && self.push(shared)? == Flow::Over {
                return Ok(Flow::Over);
            }
            if !self.is_clear() {
                break;
            }
            self.crowded = false;
            match (self.phase, self.input) {
                (Phase::Producing, _) if !produced.is_over() => {
                    let reply = self.session.protocol().resume();
                    produced.count(length(reply));
                    let next = dispose(&mut self.line, &self.link, reply)?;
                    self.follow(next, shared)?;
                }
                (Phase::Open, Input::Ended) => {
                    self.input = Input::Told;
                    let next = dispose(&mut self.line, &self.link, self.session.protocol().ended())?;
                    self.follow(next, shared)?;
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
        let is_clear = self.is_clear();
        let read = match self.phase {
            Phase::Open if is_clear => self.input == Input::Open && !self.is_held(),
            Phase::Open | Phase::Producing => {
                let may_read = self.input == Input::Open && !self.crowded && !self.is_held();
                may_read && self.session.protocol().listens()
            }
            Phase::Lingering(_) => true,
            Phase::Finishing | Phase::Aborted | Phase::Broken => false,
        };
        Interest { read, write: !is_clear || self.phase == Phase::Producing, end: false }
    }

    pub(super) fn line(&self) -> &Line<'a> {
        &self.line
    }
}

/// Sends what a reply says, behind all that was written before.
#[inline(always)]
fn dispose(line: &mut Line<'_>, link: &Option<Box<Link>>, reply: Reply<'_>) -> io::Result<Next> {
    if let Some(link) = link
        && !matches!(reply, Reply::Wait | Reply::WaitFor(_))
    {
        link.precede(line)?;
    }
    line.dispose(reply)
}

fn length(reply: Reply<'_>) -> usize {
    match reply {
        Reply::Wait | Reply::WaitFor(_) => 0,
        Reply::Send(bytes) | Reply::More(bytes) | Reply::Finish(bytes) => bytes.len(),
        // one piece of it goes
        Reply::File(_) => TURN,
    }
}
