//! What goes in and out of a connection.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags};

use super::super::pump::Pump;
use super::super::{FilePart, Traffic};
use super::{Connection, Input, Medium, Ready};
use crate::sys::buffer::{Buffer, CHUNK};
use crate::sys::fd::wait_readable;

/// Makes a call on a socket that blocks. No function: what has two callers may become one of its own, and that
/// would be one more window of text for a forked child.
macro_rules! at_once {
    ($call:expr) => {
        loop {
            match $call {
                Err(Errno::INTR) => {}
                outcome => break outcome,
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
                    None => at_once!(buffer.fill(socket))?,
                    Some(wait) => {
                        // others go on meanwhile, and need it
                        buffer.empty();
                        wait.attempt(socket.as_fd(), Ready::Read, CHUNK, &mut || buffer.fill_now(socket))?
                    }
                };
                self.took(n);
                Ok(buffer.filled())
            }
        }
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
        let silence = self.idle_timeout.unwrap_or(Duration::MAX);
        let came = match wait {
            None if !readable_within(socket, limit.min(silence)) => None,
            None => return self.chunk(buffer).map(Some),
            Some(wait) => {
                let limit = limit.min(silence);
                wait.attempt_within(socket.as_fd(), Ready::Read, CHUNK, limit, &mut || {
                    buffer.fill_now(socket)
                })?
            }
        };
        match came {
            Some(n) => {
                self.took(n);
                Ok(Some(buffer.filled()))
            }
            None if silence < limit => Err(io::ErrorKind::WouldBlock.into()),
            None => Ok(None),
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
            self.send(chunk)?;
            full_chunks = if chunk.len() == CHUNK { full_chunks + 1 } else { 0 };
            if full_chunks == 2 {
                full_chunks = 0;
                if let Medium::Stream(socket, None) = &self.medium {
                    pump.run(socket, CHUNK, self.traffic)?;
                }
            }
        }
    }

    /// As `write_all`, but part of its caller (see `ServiceConfig::serve`).
    #[inline(always)]
    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.put(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.medium {
            Medium::Datagram { answer, .. } => answer.borrow_mut().get_or_insert_default().write(bytes),
            Medium::Stream(socket, wait) => {
                let n = match wait {
                    None => at_once!(rustix::io::write(socket, bytes))?,
                    Some(wait) => wait.attempt(socket.as_fd(), Ready::Write, bytes.len(), &mut || {
                        rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
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
        while left.length > 0 {
            let sent = match &self.medium {
                Medium::Stream(socket, wait) => {
                    let n = match wait {
                        None => retry_on_intr(|| left.send_to(socket))?,
                        // sendfile(2) has no flag by which it does not wait
                        Some(wait) if self.is_shared => {
                            wait.attempt(socket.as_fd(), Ready::Write, 0, &mut || left.copy_to(socket))?
                        }
                        Some(wait) => {
                            wait.attempt(socket.as_fd(), Ready::Write, 0, &mut || left.send_to(socket))?
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

/// Whether there is something to read within `limit`, whatever signals come meanwhile.
fn readable_within(fd: &OwnedFd, limit: Duration) -> bool {
    let since = Instant::now();
    loop {
        let left = limit.saturating_sub(since.elapsed());
        if wait_readable(fd, left) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
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
                    None => retry_on_intr(|| rustix::io::read(socket, &mut *buffer))?,
                    Some(wait) => wait.attempt(socket.as_fd(), Ready::Read, buffer.len(), &mut || {
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
        self.put(bytes)
    }

    /// Writes all of it; an answer of nothing to a datagram is an answer, too.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { self.put(bytes).map(|_| ()) } else { self.send(bytes) }
    }

    /// Writes all that is formatted at once, and not piece by piece.
    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.send(arguments.to_string().as_bytes())
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
        self.put(bytes)
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
