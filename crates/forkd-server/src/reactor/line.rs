//! A stream socket that does not block, and what it has not taken yet.
//!
//! Invariant: what is given to a line goes out in the order in which it was given. A reply is written at
//! once; only what the socket does not take is copied, to memory that is given back when it has gone.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, Shutdown};

use crate::fairness::Turn;
use crate::service::Reply;
use crate::sys::socket::NO_SIGNAL;
use crate::transport::early::Early;
use crate::transport::{FilePart, MORE, Outbox, Traffic};

#[derive(Debug)]
pub(super) struct Line<'a> {
    socket: OwnedFd,
    waiting: VecDeque<Piece>,
    traffic: Option<&'a Traffic>,
    /// What is to be gone before more input is read, until somebody asks.
    awaited: Option<Arc<Outbox>>,
    /// Counts it until its first exchange is complete.
    early: Early,
    /// What was done since [`take_turn`](Self::take_turn) was asked.
    turn: Turn,
}

#[derive(Debug)]
enum Piece {
    /// Bytes, and how many of them have gone.
    Bytes(Box<[u8]>, usize),
    File(FilePart),
}

/// What a reply asks for, once it is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Input,
    /// Input, when another client has taken most of what [`Line::take_awaited`] tells.
    InputLater,
    Produce,
    End,
}

impl<'a> Line<'a> {
    pub(super) fn new(socket: OwnedFd, traffic: Option<&'a Traffic>, early: Early) -> Self {
        Self { socket, waiting: VecDeque::new(), traffic, awaited: None, early, turn: Turn::default() }
    }

    /// Whether the socket has taken all that it was given.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The bytes that have come and gone since this was asked before.
    pub(super) fn take_turn(&mut self) -> Turn {
        std::mem::take(&mut self.turn)
    }

    /// What the last reply waits for, if it was such a one.
    pub(super) fn take_awaited(&mut self) -> Option<Arc<Outbox>> {
        self.awaited.take()
    }

    /// Reads what there is; `None` if that is nothing yet, and 0 at the end of it.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let came = unless_it_waits(|| rustix::io::read(&self.socket, &mut *buffer))?;
        if let Some(n) = came {
            self.turn.count(n);
            if let Some(traffic) = self.traffic {
                Traffic::add(&traffic.bytes_in, n as u64);
            }
        }
        Ok(came)
    }

    /// Sends what a reply says, behind all that waits.
    pub(super) fn dispose(&mut self, reply: Reply<'_>) -> io::Result<Next> {
        let next = match reply {
            Reply::Wait | Reply::Send(_) => Next::Input,
            Reply::WaitFor(writer) => {
                self.awaited = Some(Arc::clone(writer.outbox()));
                Next::InputLater
            }
            Reply::More(_) | Reply::File(_) => Next::Produce,
            Reply::Finish(_) => Next::End,
        };
        match reply {
            Reply::Wait | Reply::WaitFor(_) => {}
            Reply::Send(bytes) | Reply::More(bytes) => self.send_by(bytes, SendFlags::empty())?,
            // the end follows at once
            Reply::Finish(bytes) => self.send_by(bytes, MORE)?,
            Reply::File(part) => self.send_file(part.clone())?,
        }
        Ok(next)
    }

    /// Sends these bytes, behind all that waits.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send_by(bytes, SendFlags::empty())
    }

    /// Sends what the socket takes of these bytes, before which nothing may wait; returns how many those are.
    pub(super) fn send_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes, SendFlags::empty())
    }

    /// How many bytes wait in memory, at least one if anything waits.
    pub(super) fn ahead(&self) -> usize {
        let length = |piece: &Piece| match piece {
            Piece::Bytes(bytes, at) => bytes.len() - at,
            Piece::File(_) => 1,
        };
        self.waiting.iter().map(length).sum()
    }

    fn send_by(&mut self, bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        let gone = if self.is_clear() && !bytes.is_empty() { self.write(bytes, flags)? } else { 0 };
        if gone < bytes.len() {
            self.waiting.push_back(Piece::Bytes(bytes[gone..].into(), 0));
        }
        Ok(())
    }

    /// One piece at a time: others have their turn.
    fn send_file(&mut self, mut part: FilePart) -> io::Result<()> {
        if self.is_clear() && part.length > 0 {
            self.write_file(&mut part)?;
        }
        if part.length > 0 {
            self.waiting.push_back(Piece::File(part));
        }
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(piece) = self.waiting.pop_front() {
            let rest = match piece {
                Piece::Bytes(bytes, at) => {
                    let at = at + self.write(&bytes[at..], SendFlags::empty())?;
                    (at < bytes.len()).then_some(Piece::Bytes(bytes, at))
                }
                Piece::File(mut part) => {
                    self.write_file(&mut part)?;
                    (part.length > 0).then_some(Piece::File(part))
                }
            };
            if let Some(rest) = rest {
                self.waiting.push_front(rest);
                return Ok(());
            }
        }
        self.waiting = VecDeque::new();
        Ok(())
    }

    /// Something was read.
    pub(super) fn took(&self) {
        self.early.took();
    }

    fn write(&mut self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        self.early.gives(bytes.len());
        let flags = flags | NO_SIGNAL;
        let n = unless_it_waits(|| rustix::net::send(&self.socket, bytes, flags))?.unwrap_or(0);
        self.sent(n);
        Ok(n)
    }

    fn write_file(&mut self, part: &mut FilePart) -> io::Result<()> {
        self.early.gives(part.length as usize);
        match unless_it_waits(|| part.send_to(&self.socket))? {
            None => Ok(()),
            // it was longer when its length was taken, and the client counts on that
            Some(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter")),
            Some(n) => {
                part.advance(n as u64);
                self.sent(n);
                Ok(())
            }
        }
    }

    fn sent(&mut self, n: usize) {
        if n > 0 {
            self.turn.count(n);
        }
        if let Some(traffic) = self.traffic {
            Traffic::add(&traffic.bytes_out, n as u64);
        }
    }

    /// Says that no more comes. It fails only if the peer has gone.
    pub(super) fn end(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.socket, Shutdown::Write)?)
    }

    /// Before the client can see that, it does not count any more.
    pub(super) fn close(self) {
        drop(self.early);
        crate::sys::fd::close(self.socket);
    }
}

/// `None` if the socket has nothing, or takes nothing, at the moment.
fn unless_it_waits(attempt: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match retry_on_intr(attempt) {
        Err(Errno::AGAIN) => Ok(None),
        outcome => Ok(Some(outcome?)),
    }
}

impl AsFd for Line<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
