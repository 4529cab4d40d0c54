//! Bulk echo inside the kernel: socket → pipe → socket by splice(2), for sockets that block and sockets that are waited
//! for.
//!
//! Invariant: when [`Pump::run`] returns, the pipe is empty, so the caller may read and write again. A thread has few
//! pipes, however many connections: each belongs to one of them for as long as bytes are in it, or it blocks.

#[cfg(target_os = "linux")]
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

#[cfg(target_os = "linux")]
use rustix::pipe::{SpliceFlags, splice};

use super::Traffic;
use super::connection::Ready;
#[cfg(target_os = "linux")]
use crate::sys::calls::is_forbidden_io;

/// Makes a call on the socket, and waits for it as long as the connection may.
pub(super) type Attempt<'a> =
    dyn FnMut(Ready, &mut dyn FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> + 'a;

/// How one connection's bulk goes through the kernel.
#[derive(Debug, Default)]
pub(super) struct Pump {
    /// It has had a pipe, and keeps little unsent.
    has_run: bool,
    /// The socket can't be spliced, or splice(2) is forbidden.
    useless: bool,
}

/// How much one splice moves at most, in bytes: three quarters of a pipe as the kernel makes it.
///
/// Measured: with pieces of 64 KiB and more, server and client pass over what has left the cache,
/// and wait for each other.
#[cfg(target_os = "linux")]
const PIECE: usize = 48 * 1024;

/// How many bytes may wait unsent in a socket that carries bulk: more would only age there, while the
/// client has enough to read, and a client that reads nothing would have the kernel hold megabytes for it. What
/// is on its way is not limited by this, so it costs no speed over a long line.
const UNSENT: u32 = 16 * 1024;

/// A client that has not acknowledged this number of bytes is slow; on a busy machine one that reads is behind by less.
#[cfg(feature = "coroutine")]
const SLOW: u64 = 1024 * 1024;

/// Has the kernel take no more for a client that does not read than it needs to keep a client busy that does.
pub(crate) fn limit_unsent(socket: impl AsFd) {
    crate::sys::tcp::limit_unsent(socket, UNSENT);
}

/// The same, if the client is so far behind that it may not read at all; tells whether it is. Where bytes are moved
/// in small pieces, a limit costs a client that reads a tenth of the rate.
#[cfg(feature = "coroutine")]
pub(crate) fn limit_unsent_if_slow(socket: impl AsFd) -> bool {
    let is_slow = crate::sys::tcp::unacknowledged(&socket) > SLOW;
    if is_slow {
        limit_unsent(socket);
    }
    is_slow
}

/// How many pipes a thread has at most: descriptors are for clients.
#[cfg(target_os = "linux")]
const PIPES: usize = 16;

#[cfg(target_os = "linux")]
thread_local! {
    /// The pipes of this thread.
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { idle: Vec::new(), lent: 0 }) };
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Pool {
    idle: Vec<Pipe>,
    lent: usize,
}

/// Its read end and its write end.
#[cfg(target_os = "linux")]
type Pipe = (OwnedFd, OwnedFd);

/// A pipe that one connection has to itself.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Lent {
    /// Gone when this is dropped.
    pipe: Option<Pipe>,
    /// How many bytes are in it.
    holds: usize,
}

#[cfg(target_os = "linux")]
impl Lent {
    /// `None` if the thread has as many as it may have, or there are no descriptors for one (`EMFILE`).
    fn take() -> Option<Self> {
        let idle = POOL.with_borrow_mut(|pool| match pool.idle.pop() {
            None if pool.lent >= PIPES => None,
            idle => Some(idle),
        });
        let pipe = match idle? {
            Some(pipe) => pipe,
            None => crate::sys::fd::pipe().ok()?,
        };
        POOL.with_borrow_mut(|pool| pool.lent += 1);
        Some(Self { pipe: Some(pipe), holds: 0 })
    }

    /// Takes a piece from the socket.
    fn fill(&mut self, socket: &OwnedFd) -> rustix::io::Result<usize> {
        if let Some((_, write_end)) = &self.pipe {
            self.holds = splice(socket, None, write_end, None, PIECE, SpliceFlags::MOVE)?;
        }
        Ok(self.holds)
    }

    /// Gives the socket of what there is; returns how many bytes went.
    fn empty(&mut self, socket: &OwnedFd) -> rustix::io::Result<usize> {
        let Some((read_end, _)) = &self.pipe else { return Ok(0) };
        let went = splice(read_end, None, socket, None, self.holds, SpliceFlags::MOVE)?;
        self.holds -= went;
        Ok(went)
    }
}

#[cfg(target_os = "linux")]
impl Drop for Lent {
    /// One with bytes in it is closed, and the next connection gets another.
    fn drop(&mut self) {
        let pipe = self.pipe.take().filter(|_| self.holds == 0);
        // the thread may be ending
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.lent -= 1;
            pool.idle.extend(pipe);
        });
    }
}

#[cfg(target_os = "linux")]
impl Pump {
    /// Sends back what comes from `socket` until a piece is shorter than `worth`; at the end of the client's data, and
    /// where there is no pipe, that is a piece of no length.
    pub(super) fn run(
        &mut self,
        socket: &OwnedFd,
        attempt: &mut Attempt<'_>,
        worth: usize,
        traffic: &Traffic,
    ) -> io::Result<()> {
        while !self.useless {
            let mut lent = None;
            let came = attempt(Ready::Read, &mut || match Lent::take() {
                Some(pipe) => lent.insert(pipe).fill(socket).inspect_err(|_| lent = None),
                None => Ok(0),
            });
            let came = match came {
                Err(error) if is_unfit(&error) => {
                    self.useless = true;
                    break;
                }
                came => came?,
            };
            Traffic::add(&traffic.bytes_in, came as u64);
            if let Some(pipe) = &mut lent {
                if !std::mem::replace(&mut self.has_run, true) {
                    limit_unsent(socket);
                }
                while pipe.holds > 0 {
                    let went = attempt(Ready::Write, &mut || pipe.empty(socket))?;
                    Traffic::add(&traffic.bytes_out, went as u64);
                }
            }
            if came < worth {
                break;
            }
        }
        Ok(())
    }
}

/// Whether splice(2) does not know such a socket, or is forbidden.
#[cfg(target_os = "linux")]
fn is_unfit(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) || is_forbidden_io(error)
}

#[cfg(not(target_os = "linux"))]
impl Pump {
    /// Elsewhere there is no splice(2); the caller goes on reading and writing.
    pub(super) fn run(
        &mut self,
        _socket: &OwnedFd,
        _attempt: &mut Attempt<'_>,
        _worth: usize,
        _traffic: &Traffic,
    ) -> io::Result<()> {
        self.useless = true;
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn idle() -> usize {
        POOL.with_borrow(|pool| pool.idle.len())
    }

    #[test]
    fn a_thread_has_few_pipes_and_uses_them_again() {
        let lent: Vec<_> = std::iter::from_fn(Lent::take).take(PIPES + 1).collect();
        assert_eq!((lent.len(), idle()), (PIPES, 0));
        drop(lent);
        assert_eq!(idle(), PIPES);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"not taken").unwrap();
        let mut lent = Lent::take().unwrap();
        assert_eq!(lent.fill(&ours.into()).unwrap(), 9);
        drop(lent);
        assert_eq!(idle(), PIPES - 1, "one with bytes in it is for no other connection");
    }

    #[test]
    fn what_comes_goes_back_until_a_piece_is_short() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"a short piece").unwrap();
        let (mut pump, traffic) = (Pump::default(), Traffic::default());
        pump.run(&ours.into(), &mut |_, call| Ok(call()?), 100, &traffic).unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), idle()), ("a short piece", 1));
    }
}
