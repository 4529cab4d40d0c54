//! A connection's stream, apart from the handler: for another thread or coroutine.

use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};

use super::wait::{Attempt, Blocking};
use super::{Connection, Medium, Ready, may_wait_until, options, waited};
use crate::sys::socket::NO_SIGNAL;
use crate::transport::{Peer, Traffic};

/// A connection's stream, for another thread or coroutine: made by [`Connection::try_clone`].
///
/// It reads and writes the same bytes as the connection, as a clone of a [`std::net::TcpStream`] does; also as `&Stream`, so
/// that an `Arc<Stream>` reads in one thread while it writes in another. Writers that may write at the same time want a
/// [`Mutex`](std::sync::Mutex), or their bytes may be mixed.
///
/// It ends with the connection: once the handler has returned, reads find the end and writes fail, in whichever thread; a
/// client is never kept by a forgotten clone.
///
/// Its bytes are counted as the connection's. Its reads and writes have the same limits of time, those of the server
/// ([`idle_timeout`](crate::Server::idle_timeout), [`max_lifetime`](crate::Server::max_lifetime)) and of the connection
/// when it was cloned, and fail with the same errors.
///
/// # Examples
///
/// A client is told the time, so to speak, and may speak meanwhile:
///
/// ```
/// use std::io::{BufRead, Write};
/// use std::sync::mpsc::{RecvTimeoutError, channel};
/// use std::time::Duration;
/// use forkd_server::{Connection, Service};
///
/// fn ticker(connection: &mut Connection<'_>) -> std::io::Result<()> {
///     let mut ticks = connection.try_clone()?;
///     let (end, ended) = channel::<()>();
///     let ticking = std::thread::spawn(move || {
///         while ended.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
///             ticks.write_all(b"tick\n")?;
///         }
///         Ok::<(), std::io::Error>(())
///     });
///     let (rfile, _) = connection.files();
///     for line in rfile.lines() {
///         if line? == "quit" {
///             break;
///         }
///     }
///     drop(end);
///     ticking.join().expect("no panic")
/// }
/// # use forkd_server::{Server, model::Model};
/// # let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
/// # let endpoint = server.server_address().to_string();
/// # let client = std::net::TcpStream::connect(&endpoint["tcp://".len()..]).unwrap();
/// # let talk = std::thread::spawn(move || {
/// #     let mut lines = std::io::BufReader::new(&client).lines();
/// #     assert_eq!(lines.next().unwrap().unwrap(), "tick");
/// #     (&client).write_all(b"quit\n").unwrap();
/// #     assert!(lines.all(|line| line.unwrap() == "tick"));
/// # });
/// # server.ready(Service::handler("ticker", || ticker))?.handle_request()?;
/// # talk.join().unwrap();
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug)]
pub struct Stream {
    socket: OwnedFd,
    peer: Peer,
    wait: &'static (dyn Attempt + Send + Sync),
    traffic: &'static Traffic,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    /// When the connection ends, whatever its client does.
    deadline: Option<Instant>,
}

/// Ends the clones of a connection when it ends.
#[derive(Debug, Default)]
pub(super) struct Cloned(OnceCell<OwnedFd>);

impl Drop for Cloned {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(socket) = self.0.get() {
            end(socket);
        }
    }
}

#[cold]
#[inline(never)]
fn end(socket: &OwnedFd) {
    // it fails only where the client has gone
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

impl Connection<'_> {
    /// Another handle of the connection, which other threads and coroutines can have: a server can so write while it reads,
    /// and a handler be told by others what to write.
    ///
    /// | model | the clone may go to | a wait for it |
    /// |---|---|---|
    /// | [`Coroutine`](crate::model::Model::Coroutine) | [`coroutine::spawn`](crate::coroutine::spawn), and threads | lets other coroutines go on |
    /// | all others | threads | has its thread wait |
    ///
    /// It costs two descriptors and two system calls. The connection then counts as one that has completed its first exchange
    /// ([`early_drop`](crate::Server::early_drop)). What a [`BufReader`](std::io::BufReader) of the connection has taken, a
    /// clone does not see.
    ///
    /// ```
    /// use std::io::{copy, Write};
    /// use forkd_server::{Connection, coroutine, service::Service};
    ///
    /// /// Passes on all that comes, by one coroutine for each direction.
    /// fn forward(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     let (mut client, server) = (connection.try_clone()?, coroutine::TcpStream::connect("127.0.0.1:7".parse().unwrap())?);
    ///     let server = std::rc::Rc::new(server);
    ///     let answers = std::rc::Rc::clone(&server);
    ///     let answering = coroutine::spawn(move || {
    ///         copy(&mut &*answers, &mut client)?;
    ///         client.shutdown(std::net::Shutdown::Write)
    ///     });
    ///     copy(connection, &mut &*server)?;
    ///     server.shutdown(std::net::Shutdown::Write)?;
    ///     answering.join().expect("no panic")
    /// }
    /// let service = Service::handler("forward", || forward);
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) for a datagram, which has no stream; otherwise there is no descriptor left.
    #[doc(alias = "split")]
    pub fn try_clone(&self) -> io::Result<Stream> {
        let Medium::Stream(socket, wait) = &self.medium else {
            let why = "a datagram has no stream that could be cloned: what is written to its connection is the answer";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        };
        if self.cloned.0.get().is_none() {
            // there is none yet, so it is this one
            let _ = self.cloned.0.set(socket.try_clone()?);
        }
        self.early.gives(1);
        Ok(Stream {
            socket: socket.try_clone()?,
            peer: self.peer,
            wait: wait.map_or(&Blocking, |wait| wait.anywhere()),
            traffic: self.traffic,
            read_timeout: self.read_timeout.get(),
            write_timeout: self.write_timeout.get(),
            deadline: self.deadline,
        })
    }
}

impl Stream {
    /// The client.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// As [`Connection::set_read_timeout`], for this handle.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::time::Duration;
    /// use forkd_server::Stream;
    ///
    /// /// What comes next, if it comes within a second.
    /// fn soon(stream: &mut Stream) -> std::io::Result<u8> {
    ///     stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    ///     let mut next = [0];
    ///     stream.read_exact(&mut next).inspect_err(|error| eprintln!("{}: {error}", stream.peer()))?;
    ///     Ok(next[0])
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A time-out of zero is refused.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.read_timeout = options::checked(limit)?;
        Ok(())
    }

    /// As [`Connection::set_write_timeout`], for this handle.
    ///
    /// # Errors
    ///
    /// A time-out of zero is refused.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.write_timeout = options::checked(limit)?;
        Ok(())
    }

    /// As [`Connection::shutdown`]: also ends what others wait for in the connection and its clones.
    ///
    /// # Errors
    ///
    /// As shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        options::shutdown(&self.socket, how)
    }

    /// Makes a call that does not block, and waits for it as long as it may.
    fn attempt(
        &self,
        ready: Ready,
        wanted: usize,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let timeout = if ready == Ready::Read { self.read_timeout } else { self.write_timeout };
        loop {
            let limit = self.deadline.map_or(Ok(timeout), |deadline| may_wait_until(deadline, timeout))?;
            match self.wait.attempt(self.socket.as_fd(), ready, wanted, limit, call)? {
                Some(done) => return Ok(done),
                None => waited(limit, timeout, ready)?,
            }
        }
    }
}

/// The socket, for its options; see [`Connection::socket`].
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.attempt(Ready::Read, buffer.len(), &mut || {
            rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(n, _)| n)
        })?;
        Traffic::add(&self.traffic.bytes_in, n as u64);
        Ok(n)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | NO_SIGNAL;
        let n =
            self.attempt(Ready::Write, bytes.len(), &mut || rustix::net::send(&self.socket, bytes, flags))?;
        Traffic::add(&self.traffic.bytes_out, n as u64);
        Ok(n)
    }

    /// Writes all that is formatted at once, and not piece by piece.
    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(arguments.to_string().as_bytes())
    }

    /// Does nothing: nothing is buffered.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) -> io::Result<()> {
        (&*self).write_fmt(arguments)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::ServerInfo;
    use crate::transport::early::Early;

    #[test]
    fn a_connection_that_is_cloned_does_not_count_as_without_a_first_exchange() {
        static TRAFFIC: Traffic = Traffic::new();
        static COUNTS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (server, (early, _)) = (ServerInfo::nowhere(), Early::begin(&COUNTS[0], &COUNTS[1], false));
        let connection = Connection::stream(ours.into(), Peer::None, early, &TRAFFIC, &server);
        assert_eq!(COUNTS[1].load(Ordering::Relaxed), 1);
        let _clone = connection.try_clone().unwrap();
        assert_eq!(COUNTS[1].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_a_clone_carries_is_counted_as_the_connection_s() {
        static TRAFFIC: Traffic = Traffic::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = ServerInfo::nowhere();
        let mut connection = Connection::stream(ours.into(), Peer::None, Early::default(), &TRAFFIC, &server);
        let mut clone = connection.try_clone().unwrap();
        theirs.write_all(b"hello").unwrap();
        clone.read_exact(&mut [0; 3]).unwrap();
        connection.read_exact(&mut [0; 2]).unwrap();
        connection.write_all(b"to ").unwrap();
        write!(clone, "you").unwrap();
        let counted = [&TRAFFIC.connections, &TRAFFIC.bytes_in, &TRAFFIC.bytes_out];
        assert_eq!(counted.map(|count| count.load(Ordering::Relaxed)), [1, 5, 6]);
        connection.close();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), clone.read(&mut [0]).unwrap()), ("to you", 0));
    }
}
