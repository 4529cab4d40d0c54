//! The descriptor by which a worker is told to leave.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::fd::pipe;

/// A descriptor number that a signal handler can put out of use.
///
/// A worker that blocks in accept(2) or recvmsg(2) has to leave when it is told, and a flag that
/// a handler sets can be missed between its test and the call. So the handler replaces the
/// descriptor by that of a pipe: a call that begins later fails with `ENOTSOCK`, and one that
/// was interrupted is restarted by the kernel (SA_RESTART) on the same number, and fails too.
#[derive(Debug)]
pub struct ShutdownFd {
    /// The number of the socket, which the caller keeps open, if it ends with this program.
    ours: Option<RawFd>,
    socket: OwnedFd,
    /// What takes its place, a pipe: no file, because after a chroot(2) there may be none to open.
    null: OwnedFd,
    /// The pipe's other end. At the shutdown it is closed, so that `null` is at its end: readable for good.
    open: AtomicI32,
}

impl ShutdownFd {
    /// Takes a copy of the socket's descriptor; `socket` itself stays as it is. It `is_ours` if no other program
    /// serves it.
    pub fn new(socket: impl AsFd, is_ours: bool) -> io::Result<Self> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        let (null, open) = pipe()?;
        let ours = is_ours.then(|| socket.as_fd().as_raw_fd());
        Ok(Self { ours, socket: copy, null, open: AtomicI32::new(open.into_raw_fd()) })
    }

    /// Becomes readable at the shutdown: for a caller that waits for several things.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Whether it has been shut.
    pub fn is_shut(&self) -> bool {
        self.open.load(Ordering::Relaxed) < 0
    }

    /// Puts the copy out of use for good. Async-signal-safe.
    pub fn shut(&self) {
        // SAFETY: both descriptors are open as long as `self` is; dup2(2) is async-signal-safe and
        // replaces `socket` atomically.
        unsafe { libc::dup2(self.null.as_raw_fd(), self.socket.as_raw_fd()) };
        let open = self.open.swap(-1, Ordering::Relaxed);
        if open >= 0 {
            // SAFETY: the caller that gets the number out of the cell is the only one to have it, and closes it
            // once; close(2) is async-signal-safe.
            unsafe { libc::close(open) };
        }
    }

    /// As [`shut`](Self::shut), and the socket itself takes no more clients, if it is ours. Async-signal-safe.
    pub fn shut_for_all(&self) {
        self.shut();
        if let Some(socket) = self.ours {
            // a client that connects now would not be served: a refusal is the better answer
            // SAFETY: shutdown(2) is async-signal-safe, and a number of no socket is only an error.
            unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
        }
    }
}

impl Drop for ShutdownFd {
    fn drop(&mut self) {
        self.shut();
    }
}

impl AsFd for ShutdownFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
