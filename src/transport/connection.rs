//! The connection that a handler talks to.
//!
//! A stream socket, or one datagram that is read to its end and answered with what was written,
//! as in socketserver's `DatagramRequestHandler`. All bytes are counted on their way.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::pump::Pump;
use super::{Peer, Traffic};
use crate::sys;
use crate::sys::buffer::{Buffer, CHUNK};

/// A connection, or a datagram, together with who is at the other end.
///
/// Reading returns `Ok(0)` at the end of the client's data. With an idle time-out set
/// (`--idle-timeout`), a read or write that waits longer fails with
/// [`WouldBlock`](io::ErrorKind::WouldBlock).
///
/// ```
/// use std::io::{Read, Write};
/// use forkd::{Connection, Handler};
///
/// struct Shout;
/// impl Handler for Shout {
///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         let mut chunk = [0; 512];
///         loop {
///             let n = connection.read(&mut chunk)?;
///             if n == 0 {
///                 return Ok(());
///             }
///             connection.write_all(&chunk[..n].to_ascii_uppercase())?;
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Connection<'a> {
    medium: Medium<'a>,
    peer: Peer,
    traffic: &'a Traffic,
}

#[derive(Debug)]
enum Medium<'a> {
    Stream(OwnedFd),
    Datagram { unread: &'a [u8], answer: Vec<u8> },
}

impl<'a> Connection<'a> {
    pub(crate) fn stream(socket: OwnedFd, peer: Peer, traffic: &'a Traffic) -> Self {
        Traffic::add(&traffic.connections, 1);
        Self { medium: Medium::Stream(socket), peer, traffic }
    }

    /// A datagram was counted when it came, so reading it does not count again.
    pub(crate) fn datagram(payload: &'a [u8], peer: Peer, traffic: &'a Traffic) -> Self {
        Self { medium: Medium::Datagram { unread: payload, answer: Vec::new() }, peer, traffic }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What was written in answer to a datagram; empty for a stream.
    pub(crate) fn into_answer(self) -> Vec<u8> {
        match self.medium {
            Medium::Datagram { answer, .. } => answer,
            Medium::Stream(_) => Vec::new(),
        }
    }

    /// Closes the connection.
    pub(crate) fn close(self) {
        if let Medium::Stream(socket) = self.medium {
            sys::fd::close(socket);
        }
    }

    /// Has reads and writes fail that wait for longer than `limit`.
    pub(crate) fn set_idle_timeout(&self, limit: Duration) -> io::Result<()> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        if let Medium::Stream(socket) = &self.medium {
            for timeout in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(socket, timeout, Some(limit))?;
            }
        }
        Ok(())
    }

    /// Takes the next bytes of the client, none at the end of them.
    ///
    /// The buffer is not zeroed first, so a short message touches one page of it.
    pub(crate) fn chunk<'b>(&mut self, buffer: &'b mut Buffer) -> io::Result<&'b [u8]>
    where
        'a: 'b,
    {
        match &mut self.medium {
            Medium::Datagram { unread, .. } => Ok(std::mem::take(unread)),
            Medium::Stream(socket) => {
                let chunk = sys::fd::read(socket, &mut **buffer)?;
                Traffic::add(&self.traffic.bytes_in, chunk.len() as u64);
                Ok(chunk)
            }
        }
    }

    /// As `write_all`, but part of whoever calls it (see `serve_connection`).
    #[inline(always)]
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    /// As [`chunk`](Self::chunk), but `None` at once where nothing has come.
    pub(crate) fn chunk_if_any<'b>(&mut self, buffer: &'b mut Buffer) -> io::Result<Option<&'b [u8]>>
    where
        'a: 'b,
    {
        if let Medium::Stream(socket) = &self.medium
            && !sys::fd::wait_readable(socket, Duration::ZERO)
        {
            return Ok(None);
        }
        self.chunk(buffer).map(Some)
    }

    /// Sends back all that comes, until the client's data end.
    ///
    /// Bytes are read and written while they come in small pieces. After two full chunks in a row
    /// they go from socket to socket inside the kernel (splice(2)), until a short one comes.
    #[inline(always)]
    pub(crate) fn echo(&mut self) -> io::Result<()> {
        let mut buffer = Buffer::new();
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
                if let Medium::Stream(socket) = &self.medium {
                    pump.run(socket, CHUNK, self.traffic)?;
                }
            }
        }
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.medium {
            Medium::Datagram { unread, .. } => unread.read(buffer),
            Medium::Stream(socket) => {
                let n = rustix::io::retry_on_intr(|| rustix::io::read(&*socket, &mut *buffer))?;
                Traffic::add(&self.traffic.bytes_in, n as u64);
                Ok(n)
            }
        }
    }
}

impl Write for Connection<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.medium {
            Medium::Datagram { answer, .. } => answer.write(bytes),
            Medium::Stream(socket) => {
                let n = rustix::io::retry_on_intr(|| rustix::io::write(&*socket, bytes))?;
                Traffic::add(&self.traffic.bytes_out, n as u64);
                Ok(n)
            }
        }
    }

    /// Does nothing: nothing is buffered.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
