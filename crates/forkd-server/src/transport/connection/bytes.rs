//! What goes in and out of a connection.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};

use super::super::pump::Pump;
use super::super::{FilePart, Traffic, limit_unsent};
use super::{Connection, Input, Medium, Ready, Wait};
use crate::sys::buffer::{Buffer, CHUNK};
use crate::sys::socket::NO_SIGNAL;

/// What is sent so waits in the kernel for what follows at once, and shares a segment with it, if that is the end
/// (tcp(7), `MSG_MORE`): so the client is woken once and not twice.
pub(crate) const MORE: SendFlags = {
    #[cfg(target_os = "linux")]
    {
        SendFlags::MORE
    }
    #[cfg(not(target_os = "linux"))]
    {
        SendFlags::empty()
    }
};

/// A file that is so long is sent as bulk, of which little is left unsent: what waits in the socket for long has left
/// the processor's cache when the client reads it.
const BULK: u64 = 1024 * 1024;

/// The most bytes for which a call that sends waits but once, and not for each part of them for as long as it may:
/// sendfile(2) goes by the pages of a pipe, and a Unix socket by what one of its buffers takes.
const PART: usize = 64 * 1024;

/// Makes a call on a socket that blocks, for as long as it may. No function: what has two callers may become one of its
/// own, a closure too, and that would be one more window of text for a forked child.
macro_rules! block {
    ($connection:expr, $socket:expr, $ready:expr, $call:expr) => {
        loop {
            if $connection.is_limited.get() {
                $connection.limit($socket, $ready)?;
            }
            match $call {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => $connection.waited($connection.told($ready).get(), $ready)?,
                done => break done?,
            }
        }
    };
}

impl<'a> Connection<'a> {
    /// Takes the next bytes of the client, none at the end of them.
    ///
    /// The buffer is not zeroed first, so a short message touches one page of it.
    // part of its caller, as `send`
    #[inline(always)]
    pub(crate) fn chunk<'b>(&self, buffer: &'b mut Buffer) -> io::Result<&'b [u8]>
    where
        'a: 'b,
    {
        match &self.medium {
            Medium::Datagram { unread, .. } => Ok(unread.take()),
            Medium::Stream(socket, wait) => {
                let n = match wait {
                    None => block!(self, socket, Ready::Read, buffer.fill(socket)),
                    Some(wait) => {
                        // others go on meanwhile, and need it
                        buffer.empty();
                        self.attempt(*wait, socket, Ready::Read, CHUNK, &mut || buffer.fill_now(socket))?
                    }
                };
                self.took(n);
                Ok(buffer.filled())
            }
        }
    }

    /// Makes a call on a socket that does not block, and waits for it as long as it may.
    #[inline(never)]
    fn attempt(
        &self,
        wait: &dyn Wait,
        socket: &OwnedFd,
        ready: Ready,
        wanted: usize,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let limit = self.may_wait(ready)?;
            match wait.attempt(socket.as_fd(), ready, wanted, limit, call)? {
                Some(done) => return Ok(done),
                None => self.waited(limit, ready)?,
            }
        }
    }

    /// What one call sends of these bytes, so that it ends in time.
    #[inline(always)]
    fn part_of<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        if self.is_limited.get() && self.deadline.is_some() { &bytes[..bytes.len().min(PART)] } else { bytes }
    }

    /// Has a read or a write of a socket that blocks wait as long as it may.
    // once, and not in each caller
    #[inline(never)]
    fn limit(&self, socket: &OwnedFd, ready: Ready) -> io::Result<()> {
        self.tell(socket, ready, self.may_wait(ready)?)
    }

    /// Has reads or writes of a socket that blocks wait for `limit` at most, or for ever.
    fn tell(&self, socket: &OwnedFd, ready: Ready, limit: Option<Duration>) -> io::Result<()> {
        if self.told(ready).get() != limit {
            let option = if ready == Ready::Read { Timeout::Recv } else { Timeout::Send };
            set_socket_timeout(socket, option, limit)?;
            self.told(ready).set(limit);
            self.is_limited.set(true);
        }
        Ok(())
    }

    /// Of which limit the kernel was told.
    fn told(&self, ready: Ready) -> &Cell<Option<Duration>> {
        if ready == Ready::Read { &self.read_limit } else { &self.write_limit }
    }

    /// Notes that a read has returned `bytes` bytes.
    #[inline(always)]
    fn took(&self, bytes: usize) {
        self.input.set(Input::after(bytes));
        Traffic::add(&self.traffic.bytes_in, bytes as u64);
    }

    /// As [`chunk`](Self::chunk), but `None` where nothing has come within `limit`. The connection may not be
    /// silent for longer for that.
    pub(crate) fn chunk_within<'b>(
        &self,
        buffer: &'b mut Buffer,
        limit: Duration,
    ) -> io::Result<Option<&'b [u8]>>
    where
        'a: 'b,
    {
        let Medium::Stream(socket, wait) = &self.medium else { return self.chunk(buffer).map(Some) };
        buffer.empty();
        // it is waited for in parts only if there is a deadline
        let until = self.deadline.and_then(|_| Instant::now().checked_add(limit));
        loop {
            let may_wait = self.may_wait(Ready::Read)?;
            let limit = until.map_or(limit, |until| until.saturating_duration_since(Instant::now()));
            let this = may_wait.map_or(limit, |may_wait| may_wait.min(limit));
            let came = match wait {
                None => self.fill_within(socket, buffer, this)?,
                Some(wait) => wait.attempt(socket.as_fd(), Ready::Read, CHUNK, Some(this), &mut || {
                    buffer.fill_now(socket)
                })?,
            };
            match came {
                Some(n) => {
                    self.took(n);
                    return Ok(Some(buffer.filled()));
                }
                None if this < limit => self.waited(may_wait, Ready::Read)?,
                None => return Ok(None),
            }
        }
    }

    /// Reads from a socket that blocks; `None` where nothing has come within `limit`, whatever signals come
    /// meanwhile.
    fn fill_within(
        &self,
        socket: &OwnedFd,
        buffer: &mut Buffer,
        limit: Duration,
    ) -> io::Result<Option<usize>> {
        let (since, mut left) = (Instant::now(), limit);
        loop {
            let filled = if left.is_zero() {
                buffer.fill_now(socket)
            } else {
                self.tell(socket, Ready::Read, Some(left))?;
                buffer.fill(socket)
            };
            match filled {
                Err(Errno::INTR) => left = limit.saturating_sub(since.elapsed()),
                Err(Errno::AGAIN) => return Ok(None),
                filled => return Ok(Some(filled?)),
            }
        }
    }

    /// Sends back all that comes, until the client's data end.
    ///
    /// Bytes are read and written while they come in small pieces. After two full chunks in a row
    /// they go from socket to socket inside the kernel (splice(2)), until a short one comes.
    #[inline(always)]
    pub(crate) fn echo(&self) -> io::Result<()> {
        let mut buffer = Buffer::default();
        let mut pump = Pump::default();
        let mut full_chunks = 0;
        loop {
            let chunk = self.chunk(&mut buffer)?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.send(chunk, SendFlags::empty())?;
            full_chunks = if chunk.len() == CHUNK { full_chunks + 1 } else { 0 };
            if full_chunks == 2 {
                full_chunks = 0;
                // splice(2) has no flag by which it does not wait for a socket that blocks for others, too
                if let Medium::Stream(socket, wait) = &self.medium
                    && !self.is_shared
                {
                    self.pump(&mut pump, socket, *wait)?;
                }
            }
        }
    }

    #[inline(never)]
    fn pump(&self, pump: &mut Pump, socket: &OwnedFd, wait: Option<&dyn Wait>) -> io::Result<()> {
        let mut attempt = |ready, call: &mut dyn FnMut() -> rustix::io::Result<usize>| match wait {
            None => Ok(block!(self, socket, ready, call())),
            // a pipe may be full of little, so a piece that is short says nothing of the socket
            Some(wait) => self.attempt(wait, socket, ready, 0, call),
        };
        pump.run(socket, &mut attempt, CHUNK, self.traffic)
    }

    /// Sends the last bytes of a connection, which go out in one segment with the end that follows.
    pub(crate) fn send_last(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_by(bytes, MORE)
    }

    #[inline(never)]
    fn send_by(&self, bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        self.send(bytes, flags)
    }

    /// As [`send_by`](Self::send_by), but part of its caller (see `ServiceConfig::serve`).
    #[inline(always)]
    fn send(&self, mut bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.put(bytes, flags)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn put(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        match &self.medium {
            Medium::Datagram { answer, .. } => answer.borrow_mut().get_or_insert_default().write(bytes),
            Medium::Stream(socket, wait) => {
                self.early.gives(bytes.len());
                let n = match wait {
                    None => {
                        let part = self.part_of(bytes);
                        block!(self, socket, Ready::Write, rustix::net::send(socket, part, flags | NO_SIGNAL))
                    }
                    Some(wait) => self.attempt(*wait, socket, Ready::Write, bytes.len(), &mut || {
                        rustix::net::send(socket, bytes, flags | SendFlags::DONTWAIT | NO_SIGNAL)
                    })?,
                };
                Traffic::add(&self.traffic.bytes_out, n as u64);
                Ok(n)
            }
        }
    }

    /// Sends a part of a file, which stays in the kernel on its way to a stream (sendfile(2)).
    pub(crate) fn send_file(&self, part: &FilePart) -> io::Result<()> {
        let mut left = part.clone();
        if let Medium::Stream(socket, _) = &self.medium
            && left.length >= BULK
        {
            limit_unsent(socket);
        }
        self.early.gives(left.length as usize);
        while left.length > 0 {
            let sent = match &self.medium {
                Medium::Stream(socket, wait) => {
                    let n = match wait {
                        None => {
                            let most = if self.deadline.is_some() { PART as u64 } else { u64::MAX };
                            let part = FilePart { length: left.length.min(most), ..left.clone() };
                            block!(self, socket, Ready::Write, part.send_to(socket))
                        }
                        // sendfile(2) has no flag by which it does not wait
                        Some(wait) if self.is_shared => {
                            self.attempt(*wait, socket, Ready::Write, 0, &mut || left.copy_to(socket))?
                        }
                        Some(wait) => {
                            self.attempt(*wait, socket, Ready::Write, 0, &mut || left.send_to(socket))?
                        }
                    };
                    Traffic::add(&self.traffic.bytes_out, n as u64);
                    n
                }
                Medium::Datagram { answer, .. } => {
                    left.append_to(answer.borrow_mut().get_or_insert_default())?
                }
            };
            // it was longer when its length was taken, and the client counts on that
            if sent == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"));
            }
            left.advance(sent as u64);
        }
        Ok(())
    }
}

impl Read for &Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.medium {
            Medium::Datagram { unread, .. } => {
                let mut rest = unread.get();
                let n = rest.read(buffer)?;
                unread.set(rest);
                Ok(n)
            }
            Medium::Stream(socket, wait) => {
                let n = match wait {
                    None => {
                        block!(self, socket, Ready::Read, rustix::io::read(socket, &mut *buffer))
                    }
                    Some(wait) => self.attempt(*wait, socket, Ready::Read, buffer.len(), &mut || {
                        rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(n, _)| n)
                    })?,
                };
                // reading nothing says nothing of an end
                if !buffer.is_empty() {
                    self.took(n);
                }
                Ok(n)
            }
        }
    }
}

impl Write for &Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes, SendFlags::empty())
    }

    /// Writes all of it; an answer of nothing to a datagram is an answer, too.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { self.write(bytes).map(drop) } else { self.send_by(bytes, SendFlags::empty()) }
    }

    /// Writes all that is formatted at once, and not piece by piece.
    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.send_by(arguments.to_string().as_bytes(), SendFlags::empty())
    }

    /// Does nothing: nothing is buffered.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self).write_all(bytes)
    }

    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) -> io::Result<()> {
        (&*self).write_fmt(arguments)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
