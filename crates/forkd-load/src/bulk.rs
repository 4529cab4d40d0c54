//! One connection that sends and receives as much as it can, at the same time.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, read};
use rustix::net::{SendAncillaryBuffer, send, sendmsg};

use super::clock::{Clock, Nanos, nanos};
use super::fault::Fault;
use super::message::Messages;
use super::meter::{Meter, Part};
use super::target::{TICK, Unconnected};
use super::task::Task;
use forkd_sys::poller::{Interest, Poller};
use forkd_sys::socket::{Mode, NO_SIGNAL};

/// Where a direction of the stream is: in which message, and at which of its bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Position {
    number: u64,
    at: usize,
}

impl Position {
    fn advance(&mut self, length: usize, size: usize) {
        self.at += length;
        self.number += (self.at / size) as u64;
        self.at %= size;
    }
}

struct Bulk<'a> {
    messages: &'a Messages,
    socket: OwnedFd,
    /// What is to be sent before all else.
    header: Vec<u8>,
    out: Position,
    back: Position,
    input: Vec<u8>,
}

/// Carries out the phase; what comes back while its time lasts counts, and all that was sent must come back.
pub(super) fn run(task: &Arc<Task>) -> io::Result<Part> {
    let mut meter = Meter::new(Arc::clone(&task.live));
    meter.open(nanos(task.plan.warm_up));
    let clock = Clock::start();
    let fault = match task.target.connect(Mode::NonBlocking, 0) {
        Ok(socket) => {
            task.target.no_delay(&socket);
            let input = vec![0; task.messages.size()];
            let (out, back) = (Position::default(), Position::default());
            let header = task.target.header(&socket);
            Bulk { messages: &task.messages, socket, header, out, back, input }
                .run(task, clock, &mut meter)?
        }
        Err(Unconnected::Full) => Some(Fault::Refused),
        Err(Unconnected::Failed(fault)) => Some(fault),
    };
    fault.into_iter().for_each(|fault| meter.fault(fault));
    Ok(meter.close(clock.now().min(task.end())))
}

impl Bulk<'_> {
    /// Returns what went wrong, if something did.
    fn run(mut self, task: &Task, clock: Clock, meter: &mut Meter) -> io::Result<Option<Fault>> {
        let poller = Poller::new()?;
        let (mut watched, mut events) = (Interest::BOTH, Vec::new());
        poller.add(&self.socket, 0, watched)?;
        let mut active = 0;
        loop {
            let now = clock.now();
            meter.at(now);
            let is_time_up = now >= task.end() || task.live.is_stopped();
            let most = task.operations().unwrap_or(u64::MAX);
            // what was begun is brought to its end, and that to its line's end
            let sends = (!is_time_up && self.out.number < most) || self.out.at > 0;
            let has_more = !is_time_up && self.out.number + 1 < most;
            if !sends && self.back == self.out {
                return Ok(None);
            }
            if now - active > nanos(task.plan.timeout) {
                return Ok(Some(Fault::TimedOut));
            }
            let progress = match self.step(sends.then_some(has_more), !is_time_up, now, meter) {
                Ok(progress) => progress,
                Err(fault) => return Ok(Some(fault)),
            };
            if progress {
                active = now;
                continue;
            }
            let wanted = if sends { Interest::BOTH } else { Interest::READ };
            if wanted != watched {
                poller.change(&self.socket, 0, watched, wanted)?;
                watched = wanted;
            }
            poller.wait(&mut events, Some(TICK))?;
        }
    }

    /// Writes once, if there is something, and reads once; tells whether either could be done. `sends` says whether
    /// there is more behind the present message. What comes while it `goes_on` counts.
    fn step(
        &mut self,
        sends: Option<bool>,
        goes_on: bool,
        now: Nanos,
        meter: &mut Meter,
    ) -> Result<bool, Fault> {
        let written = sends.map_or(Ok(0), |has_more| self.write(has_more))?;
        let received = self.read()?;
        let (before, size) = (self.back.number, self.messages.size());
        self.back.advance(received, size);
        for _ in before..self.back.number {
            meter.piece(goes_on.then_some(now));
        }
        if goes_on && meter.counts(now) {
            meter.part.bytes += received as u64;
        }
        Ok(written + received > 0)
    }

    /// Writes the rest of a message, and if there is more to come, enough of the next that the write is as
    /// long as a message.
    fn write(&mut self, has_more: bool) -> Result<usize, Fault> {
        if !self.header.is_empty() {
            let length = done(send(&self.socket, &self.header, NO_SIGNAL))?;
            self.header.drain(..length);
            return Ok(length);
        }
        let (size, Position { number, at }) = (self.messages.size(), self.out);
        let [here, next] = [number, number + 1].map(|number| self.messages.message(0, number));
        let mut room = if has_more { size } else { size - at };
        let ([a, b, c], [d, e, f]) = (here.pieces(at), next.pieces(0));
        let pieces = [a, b, c, d, e, f].map(|piece| {
            let length = piece.len().min(room);
            room -= length;
            IoSlice::new(&piece[..length])
        });
        let mut control = SendAncillaryBuffer::default();
        let length = done(sendmsg(&self.socket, &pieces, &mut control, NO_SIGNAL))?;
        self.out.advance(length, size);
        Ok(length)
    }

    /// Reads, and verifies what came.
    fn read(&mut self) -> Result<usize, Fault> {
        let length = match read(&self.socket, &mut self.input[..]) {
            Ok(0) => return Err(Fault::ClosedEarly),
            other => done(other)?,
        };
        let (mut position, mut rest) = (self.back, &self.input[..length]);
        while !rest.is_empty() {
            let (here, later) = rest.split_at(rest.len().min(self.messages.size() - position.at));
            if !self.messages.message(0, position.number).matches(position.at, here) {
                return Err(Fault::WrongBytes);
            }
            position.advance(here.len(), self.messages.size());
            rest = later;
        }
        Ok(length)
    }
}

/// What could not be done yet is nothing.
fn done(outcome: rustix::io::Result<usize>) -> Result<usize, Fault> {
    match outcome {
        Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(0),
        other => other.map_err(Fault::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_goes_from_message_to_message() {
        let mut position = Position::default();
        [3, 7, 25, 5].into_iter().for_each(|length| position.advance(length, 10));
        assert_eq!(position, Position { number: 4, at: 0 });
    }
}
