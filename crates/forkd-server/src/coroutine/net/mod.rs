//! Sockets that let other coroutines go on while they wait, with the names of `std`.

mod datagram;
mod listener;
mod stream;

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

pub use datagram::UdpSocket;
pub use listener::{TcpListener, UnixListener};
use rustix::io::Errno;
use rustix::net::sockopt;
pub use stream::{TcpStream, UnixStream};

use super::waiter::Waiter;
use crate::sys::socket::NO_SIGNAL;
use crate::transport::{Attempt, Ready};

/// All sockets have this in common: a socket that does not block, and the coroutines that wait for it.
pub(super) struct Socket<S> {
    pub(super) inner: S,
    pub(super) waiter: Waiter,
    /// How long a read and a write wait.
    read_limit: Cell<Option<Duration>>,
    write_limit: Cell<Option<Duration>>,
}

impl<S: AsFd> Socket<S> {
    pub(super) fn new(inner: S) -> io::Result<Self> {
        crate::sys::fd::set_nonblocking(&inner, true)?;
        Ok(Self::waited_for(inner, Waiter::default()))
    }

    pub(super) fn connection(inner: S) -> io::Result<Self> {
        Ok(Self { waiter: Waiter::of_connection(), ..Self::new(inner)? })
    }

    /// One that does not block.
    pub(super) fn waited_for(inner: S, waiter: Waiter) -> Self {
        Self { inner, waiter, read_limit: Cell::default(), write_limit: Cell::default() }
    }

    fn limit(&self, ready: Ready) -> &Cell<Option<Duration>> {
        match ready {
            Ready::Read => &self.read_limit,
            Ready::Write => &self.write_limit,
        }
    }

    /// Makes a call that reads or writes up to `wanted` bytes, as [`Attempt::attempt`], for as long as the socket's limit
    /// says.
    fn call(
        &self,
        ready: Ready,
        wanted: usize,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let done = self.waiter.attempt(self.inner.as_fd(), ready, wanted, self.limit(ready).get(), call)?;
        done.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(Ready::Read, buffer.len(), &mut || rustix::io::read(&self.inner, &mut *buffer))
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = NO_SIGNAL;
        self.call(Ready::Write, bytes.len(), &mut || rustix::net::send(&self.inner, bytes, flags))
    }

    /// Makes a call of std's until it does not say that it would block: one that takes a client or a datagram,
    /// or sends one, after which there may be more.
    pub(super) fn attempt<T>(
        &self,
        ready: Ready,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut outcome = None;
        self.call(ready, 0, &mut || match call(&self.inner) {
            Ok(value) => {
                outcome = Some(value);
                Ok(0)
            }
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        })?;
        outcome.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Waits until a connection that was begun is there, or has failed.
    pub(super) fn connected(self, limit: Option<Duration>) -> io::Result<Self> {
        if !self.waiter.until(self.inner.as_fd(), Ready::Write, limit)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sockopt::socket_error(&self.inner)??;
        Ok(self)
    }

    pub(super) fn set_limit(&self, ready: Ready, limit: Option<Duration>) -> io::Result<()> {
        if limit == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a time-out of zero is none: say None"));
        }
        self.limit(ready).set(limit);
        Ok(())
    }
}

/// What sockets of all kinds have.
macro_rules! socket {
    ($($socket:ty)*) => {$(
        impl AsFd for $socket {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.inner.as_fd()
            }
        }

        impl fmt::Debug for $socket {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.inner.fmt(f)
            }
        }
    )*};
}

pub(super) use socket;
