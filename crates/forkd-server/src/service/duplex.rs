//! Runs a [`Protocol`] on a blocking connection that may be written to at any time.
//!
//! Invariant: what is written goes out in one order with the replies. The thread, or the coroutine, waits for the client
//! and for its writers at once; a reply is waited for, as on any blocking connection.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driven::{Next, dispose, part};
use super::{CloseReason, Protocol, Reply};
use crate::sys::buffer::Buffer;
use crate::transport::{Awaited, Connection, Found, Hold, Outbox, Rouser, TimedOut, Wish};

pub(super) struct Duplex<'c, 'a> {
    connection: &'c Connection<'a>,
    outbox: Arc<Outbox>,
    rouser: Rouser,
    /// Why no input is read.
    hold: Option<Hold>,
    /// The client's bytes have ended, and the protocol knows.
    input_has_ended: bool,
    /// The client was told that no more comes.
    output_has_ended: bool,
    /// When bytes have last come or gone.
    active: Instant,
}

/// What a wait has come to.
enum Woken {
    /// There may be input.
    Input,
    /// The time is over that the protocol has given its client.
    Late,
    /// The server stops.
    Stopping,
    /// A writer has ended the connection.
    Finish,
    Over(CloseReason<'static>),
}

impl<'c, 'a> Duplex<'c, 'a> {
    pub(super) fn new(connection: &'c Connection<'a>, outbox: Arc<Outbox>) -> io::Result<Self> {
        let rouser = connection.rouser().inspect_err(|_| outbox.close())?;
        outbox.attach(rouser.clone());
        connection.server().outboxes().add(&outbox);
        let active = Instant::now();
        let (input_has_ended, output_has_ended, hold) = (false, false, None);
        Ok(Self { connection, outbox, rouser, hold, input_has_ended, output_has_ended, active })
    }

    /// Holds the input until another client has taken the most of what was written for it.
    pub(super) fn hold(&mut self, other: &Arc<Outbox>) {
        self.hold = Some(Hold::new(other, self.rouser.clone()));
    }

    /// Serves the connection from its beginning to its end.
    pub(super) fn converse(mut self, protocol: &mut dyn Protocol) -> io::Result<CloseReason<'static>> {
        let next = self.dispose(protocol.connected(self.connection.peer()))?;
        self.go_on(protocol, next)
    }

    /// Serves the connection to its end.
    pub(super) fn go_on(
        mut self,
        protocol: &mut dyn Protocol,
        mut next: Next,
    ) -> io::Result<CloseReason<'static>> {
        let mut buffer = Buffer::default();
        loop {
            let woken = match next {
                Next::End => Woken::Finish,
                Next::Input | Next::InputAfter(_) => self.wait(protocol)?,
                Next::Produce => match self.produce(protocol, &mut buffer)? {
                    Ok(more) => {
                        next = more;
                        continue;
                    }
                    Err(woken) => woken,
                },
            };
            next = match woken {
                Woken::Input => self.receive(protocol, &mut buffer)?.unwrap_or(Next::Input),
                Woken::Late => self.dispose(protocol.timed_out())?,
                Woken::Stopping => self.dispose(protocol.stopping())?,
                Woken::Over(reason) => return Ok(reason),
                Woken::Finish => {
                    part(protocol, self.connection, &mut buffer);
                    let ended = self.input_has_ended;
                    return Ok(if ended { CloseReason::Ended } else { CloseReason::Finished });
                }
            };
        }
    }

    /// Waits for the client, and sends what is written meanwhile.
    fn wait(&mut self, protocol: &mut dyn Protocol) -> io::Result<Woken> {
        loop {
            let Found { is_clear, wish, is_stopping } = self.push()?;
            if is_stopping {
                return Ok(Woken::Stopping);
            }
            match wish {
                Some(Wish::Abort) => return Ok(Woken::Over(CloseReason::Aborted)),
                Some(Wish::Finish) if is_clear => return Ok(Woken::Finish),
                Some(Wish::End) if is_clear && !self.output_has_ended => {
                    self.connection.end();
                    self.output_has_ended = true;
                }
                _ => {}
            }
            if self.input_has_ended && self.output_has_ended {
                return Ok(Woken::Over(CloseReason::Ended));
            }
            let reads = !self.input_has_ended
                && self.hold.is_none()
                && wish != Some(Wish::Finish)
                && (is_clear || protocol.listens());
            let (idle, end) = self.connection.limits();
            let silent = idle.filter(|_| self.hold.is_none()).and_then(|idle| self.active.checked_add(idle));
            let now = Instant::now();
            let is_over = |then: Option<Instant>, now| then.is_some_and(|then| then <= now);
            // with what is known now: while it waited, something may have been written
            if is_over(end, now) {
                return Err(TimedOut::Lifetime.error(io::ErrorKind::TimedOut));
            }
            if is_over(silent, now) {
                let limit = if is_clear { TimedOut::Idle } else { TimedOut::Unread };
                return Err(limit.error(io::ErrorKind::WouldBlock));
            }
            let late = if reads && is_clear { protocol.deadline(now) } else { None };
            let until = [silent, end, late].into_iter().flatten().min();
            let awaited = Awaited { input: reads, room: !is_clear, until };
            if self.connection.wait_for(awaited, &self.rouser)? && reads {
                return Ok(Woken::Input);
            }
            if is_over(late, Instant::now()) {
                return Ok(Woken::Late);
            }
        }
    }

    /// Sends what was written, as far as the client takes it.
    fn push(&mut self) -> io::Result<Found> {
        if self.hold.take_if(|hold| !hold.holds()).is_some() {
            self.active = Instant::now();
        }
        let (connection, active) = (self.connection, &mut self.active);
        self.outbox.flush(0, |bytes| {
            let sent = connection.send_now(bytes)?;
            if sent > 0 {
                *active = Instant::now();
            }
            Ok(sent)
        })
    }

    /// Takes what has come; `None` if that is nothing.
    fn receive(&mut self, protocol: &mut dyn Protocol, buffer: &mut Buffer) -> io::Result<Option<Next>> {
        let Some(chunk) = self.connection.chunk_within(buffer, Duration::ZERO)? else { return Ok(None) };
        self.active = Instant::now();
        let reply = if chunk.is_empty() {
            self.input_has_ended = true;
            protocol.ended()
        } else {
            self.connection.took_some();
            protocol.received(chunk)
        };
        self.dispose(reply).map(Some)
    }

    /// Asks what comes next; takes what comes meanwhile, if the protocol listens.
    fn produce(
        &mut self,
        protocol: &mut dyn Protocol,
        buffer: &mut Buffer,
    ) -> io::Result<Result<Next, Woken>> {
        let Found { wish, is_stopping, .. } = self.push()?;
        if is_stopping && let Next::End = self.dispose(protocol.stopping())? {
            return Ok(Ok(Next::End));
        }
        match wish {
            Some(Wish::Abort) => return Ok(Err(Woken::Over(CloseReason::Aborted))),
            Some(Wish::Finish) => return self.wait(protocol).map(Err),
            _ => {}
        }
        let listens = !self.input_has_ended && self.hold.is_none() && protocol.listens();
        if listens && let Some(Next::End) = self.receive(protocol, buffer)? {
            return Ok(Ok(Next::End));
        }
        self.dispose(protocol.resume()).map(Ok)
    }

    /// Sends a reply, behind all that was written before.
    fn dispose(&mut self, reply: Reply<'_>) -> io::Result<Next> {
        if !matches!(reply, Reply::Wait | Reply::WaitFor(_)) {
            let written = self.outbox.take();
            if !written.is_empty() {
                let mut connection = self.connection;
                connection.write_all(&written)?;
            }
        }
        let next = dispose(reply, self.connection)?;
        match &next {
            Next::InputAfter(other) => self.hold(other),
            Next::End => self.outbox.finish(),
            _ => self.active = Instant::now(),
        }
        Ok(next)
    }
}

/// However the connection ends, nothing is written to it any more.
impl Drop for Duplex<'_, '_> {
    fn drop(&mut self) {
        self.outbox.close();
    }
}
