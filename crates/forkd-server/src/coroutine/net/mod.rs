//! Sockets that let other coroutines go on while they wait, with the names of `std`.

mod datagram;
mod listener;
mod stream;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

pub use datagram::UdpSocket;
pub use listener::{TcpListener, UnixListener};
use rustix::io::Errno;
use rustix::net::{SendFlags, sockopt};
pub use stream::{TcpStream, UnixStream};

use super::waiter::Waiter;
use crate::transport::{Ready, Wait};

/// All sockets have this in common: a socket that does not block, and the coroutines that wait for it.
pub(super) struct Socket<S> {
    pub(super) inner: S,
    pub(super) waiter: Waiter,
}

impl<S: AsFd> Socket<S> {
    pub(super) fn new(inner: S) -> io::Result<Self> {
        crate::sys::fd::set_nonblocking(&inner, true)?;
        Ok(Self { inner, waiter: Waiter::default() })
    }

    pub(super) fn connection(inner: S) -> io::Result<Self> {
        Ok(Self { waiter: Waiter::of_connection(None), ..Self::new(inner)? })
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.inner.as_fd();
        self.waiter.attempt(fd, Ready::Read, buffer.len(), &mut || rustix::io::read(fd, &mut *buffer))
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let fd = self.inner.as_fd();
        let flags = SendFlags::NOSIGNAL;
        self.waiter.attempt(fd, Ready::Write, bytes.len(), &mut || rustix::net::send(fd, bytes, flags))
    }

    /// Makes a call of std's until it does not say that it would block: one that takes a client or a datagram,
    /// or sends one, after which there may be more.
    pub(super) fn attempt<T>(
        &self,
        ready: Ready,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut outcome = None;
        self.waiter.attempt(self.inner.as_fd(), ready, 0, &mut || match call(&self.inner) {
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
        self.waiter.limit(ready).set(limit);
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
