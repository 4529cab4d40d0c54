//! A process that waits for its only client, and can be called off without harm to one.
//!
//! A signal that ended it could come just after accept(2) has taken a client. So the handler ends the wait and nothing else:
//! it puts a pipe in the place of the listening socket. The kernel begins accept(2) anew on the same number (SA_RESTART),
//! which fails with `ENOTSOCK`; a call that has a client already returns it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::fd::{CloseSet, pipe};

/// What such a process waits at.
#[derive(Debug)]
pub struct Wait {
    /// The listening socket, by a number of its own.
    listener: OwnedFd,
    /// One end of a pipe whose other end is closed: no socket, and poll(2) finds it ready at once.
    null: OwnedFd,
    both: CloseSet,
}

/// The number of the socket that this process waits at; or one of these.
static WAITS_AT: AtomicI32 = AtomicI32::new(NOWHERE);
const NOWHERE: RawFd = -1;
const CALLED_OFF: RawFd = -2;

/// The number of what takes its place.
static NULL: AtomicI32 = AtomicI32::new(NOWHERE);

impl Wait {
    /// For children that are forked later.
    ///
    /// # Errors
    ///
    /// As pipe(2) and fcntl(2).
    pub fn at(listener: impl AsFd) -> io::Result<Self> {
        let listener = apart(listener.as_fd())?;
        let (read_end, _) = pipe()?;
        let null = apart(read_end.as_fd())?;
        let both = CloseSet::new([&listener, &null].map(AsRawFd::as_raw_fd));
        Ok(Self { listener, null, both })
    }

    /// The socket and the pipe, which only these children need.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [&self.listener, &self.null].map(AsRawFd::as_raw_fd)
    }

    /// Takes a client by `accept`, which fails with `ENOTSOCK` once this process is called off. Tells also whether it was
    /// called off meanwhile: it may have a client all the same.
    pub fn take<T>(&self, accept: impl FnOnce(BorrowedFd<'_>) -> T) -> (T, bool) {
        let mine = self.listener.as_raw_fd();
        NULL.store(self.null.as_raw_fd(), Ordering::SeqCst);
        if WAITS_AT.swap(mine, Ordering::SeqCst) == CALLED_OFF {
            call_off();
        }
        let accepted = accept(self.listener.as_fd());
        // one that is called off remains so
        let is_mine = WAITS_AT.compare_exchange(mine, NOWHERE, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        (accepted, !is_mine)
    }

    /// Closes both, in a child that has its client.
    pub fn close_in_child(&self) {
        self.both.close_in_child();
    }
}

/// Ends the wait of this process, or the one that it is about to begin; `false` if it does not wait now. Async-signal-safe.
pub(super) fn call_off() -> bool {
    let socket = WAITS_AT.swap(CALLED_OFF, Ordering::SeqCst);
    if socket < 0 {
        return false;
    }
    // SAFETY: both numbers are of open descriptors, as `Wait` has them while this process waits; dup2(2) is
    // async-signal-safe, and replaces the socket atomically.
    unsafe { libc::dup2(NULL.load(Ordering::SeqCst), socket) };
    true
}

/// A copy by a number beyond those that a process has as a rule: then a child closes its parent's others by one system call.
fn apart(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const FIRST: RawFd = 40;
    // there may be no such number (RLIMIT_NOFILE)
    let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST);
    Ok(copy.or_else(|_| rustix::io::fcntl_dupfd_cloexec(descriptor, 0))?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn one_that_is_called_off_keeps_a_client_that_it_has_and_takes_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let _clients =
            [(); 2].map(|()| TcpStream::connect(listener.local_addr().expect("address")).expect("connect"));
        let wait = Wait::at(&listener).expect("descriptors");
        let (taken, called_off) = wait.take(|socket| {
            let taken = rustix::net::accept(socket);
            assert!(call_off());
            taken
        });
        assert!(taken.is_ok() && called_off, "{taken:?}");
        let no_socket = |wait: &Wait| {
            let (taken, called_off) = wait.take(|socket| rustix::net::accept(socket));
            assert_eq!((taken.expect_err("no socket"), called_off), (Errno::NOTSOCK, true));
        };
        no_socket(&wait);
        no_socket(&wait);

        // before it begins to wait
        let wait = Wait::at(&listener).expect("descriptors");
        assert!(!call_off());
        no_socket(&wait);
        assert!(rustix::net::accept(&listener).is_ok(), "the socket itself is as it was");

        // one that has its client, and is told later
        WAITS_AT.store(NOWHERE, Ordering::SeqCst);
        let wait = Wait::at(&listener).expect("descriptors");
        let _client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (taken, called_off) = wait.take(|socket| rustix::net::accept(socket));
        assert!(taken.is_ok() && !called_off && !call_off());
    }
}
