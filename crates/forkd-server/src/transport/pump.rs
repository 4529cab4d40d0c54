//! Bulk echo inside the kernel: socket → pipe → socket by splice(2).
//!
//! Invariant: when [`Pump::run`] returns, the pipe is empty, so the caller may read and write again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Traffic;

/// A pipe that is made when it first pays.
#[derive(Debug, Default)]
pub(super) struct Pump {
    #[cfg(target_os = "linux")]
    pipe: Option<(OwnedFd, OwnedFd)>,
    /// No pipe is to be had (`EMFILE`), or the socket can't be spliced, or splice(2) is forbidden.
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

#[cfg(target_os = "linux")]
impl Pump {
    /// Sends back what comes from `socket` until a piece is shorter than `worth`; at the end of
    /// the client's data that is a piece of no length.
    pub(super) fn run(&mut self, socket: &OwnedFd, worth: usize, traffic: &Traffic) -> io::Result<()> {
        use rustix::io::{Errno, retry_on_intr};
        use rustix::pipe::{SpliceFlags, splice};

        use crate::sys::calls::is_forbidden;
        if self.useless {
            return Ok(());
        }
        let Some((read_end, write_end)) = self.pipe(socket) else { return Ok(()) };
        loop {
            let came = retry_on_intr(|| splice(socket, None, write_end, None, PIECE, SpliceFlags::MOVE));
            let came = match came {
                Err(errno) if errno == Errno::INVAL || is_forbidden(errno) => {
                    self.useless = true;
                    return Ok(());
                }
                came => came?,
            };
            Traffic::add(&traffic.bytes_in, came as u64);
            let mut left = came;
            while left > 0 {
                let went = retry_on_intr(|| splice(read_end, None, socket, None, left, SpliceFlags::MOVE))?;
                Traffic::add(&traffic.bytes_out, went as u64);
                left -= went;
            }
            if came < worth {
                return Ok(());
            }
        }
    }

    fn pipe(&mut self, socket: &OwnedFd) -> Option<&(OwnedFd, OwnedFd)> {
        if self.pipe.is_none() {
            self.pipe = crate::sys::fd::pipe().ok();
            self.useless = self.pipe.is_none();
            limit_unsent(socket);
        }
        self.pipe.as_ref()
    }
}

#[cfg(not(target_os = "linux"))]
impl Pump {
    /// Elsewhere there is no splice(2); the caller goes on reading and writing.
    pub(super) fn run(&mut self, _socket: &OwnedFd, _worth: usize, _traffic: &Traffic) -> io::Result<()> {
        self.useless = true;
        Ok(())
    }
}
