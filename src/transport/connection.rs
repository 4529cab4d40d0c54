//! The connection that a handler talks to.
//!
//! A stream socket, or one datagram that is read to its end and answered with what was written,
//! as in socketserver's `DatagramRequestHandler`. All bytes are counted on their way.

mod hand_over;

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};

use super::inherited::local_end;
use super::pump::Pump;
use super::{Endpoint, FilePart, Peer, Site, Traffic};
use crate::sys;
use crate::sys::buffer::{Buffer, CHUNK};

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
    site: &'a Site,
    /// How long a wait may last.
    idle_timeout: Option<Duration>,
}

#[derive(Debug)]
enum Medium<'a> {
    /// The socket blocks, unless somebody else waits for it.
    Stream(OwnedFd, Option<&'a dyn Wait>),
    Datagram {
        unread: Cell<&'a [u8]>,
        /// `None` until something is written, be it nothing.
        answer: RefCell<Option<Vec<u8>>>,
    },
}

/// Who waits for a socket that does not block, and lets others work meanwhile.
pub(crate) trait Wait: std::fmt::Debug {
    /// Makes a call that reads or writes up to `wanted` bytes (0: it may do less than it could), until it
    /// does not say that it would block. Fails with `WouldBlock` when that takes longer than the connection
    /// may be silent.
    fn attempt(
        &self,
        socket: BorrowedFd<'_>,
        ready: Ready,
        wanted: usize,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<usize>;

    /// Waits until the socket is ready, at most for `limit`; tells whether it is.
    fn until(&self, socket: BorrowedFd<'_>, ready: Ready, limit: Option<Duration>) -> io::Result<bool>;
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Read,
    Write,
}

impl<'a> Connection<'a> {
    pub(crate) fn stream(socket: OwnedFd, peer: Peer, traffic: &'a Traffic, site: &'a Site) -> Self {
        Traffic::add(&traffic.connections, 1);
        Self { medium: Medium::Stream(socket, None), peer, traffic, site, idle_timeout: None }
    }

    /// The same with a socket that does not block, which `wait` waits for; how long it may be silent is known
    /// there.
    pub(crate) fn waiting(self, wait: &'a dyn Wait) -> Self {
        match self.medium {
            Medium::Stream(socket, _) => Self { medium: Medium::Stream(socket, Some(wait)), ..self },
            Medium::Datagram { .. } => self,
        }
    }

    /// A datagram was counted when it came, so reading it does not count again.
    pub(crate) fn datagram(payload: &'a [u8], peer: Peer, traffic: &'a Traffic, site: &'a Site) -> Self {
        let medium = Medium::Datagram { unread: Cell::new(payload), answer: RefCell::default() };
        Self { medium, peer, traffic, site, idle_timeout: None }
    }

    /// Who is at the other end: `client_address` of socketserver.
    ///
    /// ```
    /// use std::io::Write;
    /// use forkd::{Connection, Handler};
    ///
    /// struct Greeting;
    /// impl Handler for Greeting {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         writeln!(&*connection, "Hello, {}!", connection.peer())
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Our end of the connection: the address that the client has connected to, which on a wildcard
    /// address says more than the server's endpoint, or the path. `None` for a datagram, whose socket is
    /// not the handler's, and where there is neither.
    ///
    /// ```
    /// use std::io::Write;
    /// use forkd::{Connection, Handler};
    ///
    /// struct WhereAmI;
    /// impl Handler for WhereAmI {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         match connection.local_endpoint() {
    ///             Some(endpoint) => writeln!(connection, "{endpoint}"),
    ///             None => writeln!(connection, "nowhere"),
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn local_endpoint(&self) -> Option<Endpoint> {
        match &self.medium {
            Medium::Stream(socket, _) => local_end(socket),
            Medium::Datagram { .. } => None,
        }
    }

    /// The server that the connection came to; [`Site`] has an example.
    #[must_use]
    pub fn server(&self) -> &'a Site {
        self.site
    }

    /// Waits until there is something to read from `fd`, at most for `limit`; tells whether there is. Others
    /// work meanwhile, where the model lets them.
    pub(crate) fn wait_readable(&self, fd: impl AsFd, limit: Duration) -> io::Result<bool> {
        match &self.medium {
            Medium::Stream(_, Some(wait)) => wait.until(fd.as_fd(), Ready::Read, Some(limit)),
            _ => Ok(readable_within(fd, limit)),
        }
    }

    /// Counts it as one whose handler has failed.
    pub(crate) fn has_failed(&self) {
        Traffic::add(&self.traffic.failed, 1);
    }

    /// What was written in answer to a datagram, if only nothing; `None` for a stream.
    pub(crate) fn into_answer(self) -> Option<Vec<u8>> {
        match self.medium {
            Medium::Datagram { answer, .. } => answer.into_inner(),
            Medium::Stream(..) => None,
        }
    }

    /// Closes the connection.
    pub(crate) fn close(self) {
        if let Medium::Stream(socket, _) = self.medium {
            sys::fd::close(socket);
        }
    }

    /// Has reads and writes fail that wait for longer than `limit`.
    pub(crate) fn set_idle_timeout(&mut self, limit: Duration) -> io::Result<()> {
        self.idle_timeout = Some(limit);
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        if let Medium::Stream(socket, None) = &self.medium {
            for timeout in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(socket, timeout, Some(limit))?;
            }
        }
        Ok(())
    }

    /// Takes the next bytes of the client, none at the end of them.
    ///
    /// The buffer is not zeroed first, so a short message touches one page of it.
    // part of whoever calls it, as `send`
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
                        wait.attempt(socket.as_fd(), Ready::Read, CHUNK, &mut || buffer.fill(socket))?
                    }
                };
                Traffic::add(&self.traffic.bytes_in, n as u64);
                Ok(buffer.filled())
            }
        }
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
        if let Medium::Stream(socket, _) = &self.medium {
            buffer.empty();
            let silence = self.idle_timeout.unwrap_or(Duration::MAX);
            if !self.wait_readable(socket, limit.min(silence))? {
                return if silence < limit { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(None) };
            }
        }
        self.chunk(buffer).map(Some)
    }

    /// Sends back all that comes, until the client's data end.
    ///
    /// Bytes are read and written while they come in small pieces. After two full chunks in a row
    /// they go from socket to socket inside the kernel (splice(2)), until a short one comes.
    #[inline(always)]
    pub(crate) fn echo(&self) -> io::Result<()> {
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
                if let Medium::Stream(socket, None) = &self.medium {
                    pump.run(socket, CHUNK, self.traffic)?;
                }
            }
        }
    }

    /// As `write_all`, but part of whoever calls it (see `Offer::serve`).
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
                        rustix::io::write(socket, bytes)
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
                    let n = patiently(socket, *wait, Ready::Write, 0, || left.send_to(socket))?;
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

/// Makes a call that may have to wait for the socket, however that is waited for.
#[inline(always)]
fn patiently(
    socket: &OwnedFd,
    wait: Option<&dyn Wait>,
    ready: Ready,
    wanted: usize,
    mut call: impl FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    match wait {
        None => Ok(retry_on_intr(call)?),
        Some(wait) => wait.attempt(socket.as_fd(), ready, wanted, &mut call),
    }
}

/// Whether there is something to read within `limit`, whatever signals come meanwhile.
fn readable_within(fd: impl AsFd, limit: Duration) -> bool {
    let since = Instant::now();
    loop {
        let left = limit.saturating_sub(since.elapsed());
        if sys::fd::wait_readable(&fd, left) {
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
                let n = patiently(socket, *wait, Ready::Read, buffer.len(), || {
                    rustix::io::read(socket, &mut *buffer)
                })?;
                Traffic::add(&self.traffic.bytes_in, n as u64);
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
