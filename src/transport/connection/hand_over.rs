//! A connection that somebody else reads and writes: a program.

use std::io;
use std::os::fd::OwnedFd;

use super::{Connection, Medium};
use crate::sys;
use crate::transport::Traffic;

impl Connection<'_> {
    /// The socket, for a program that reads and writes it itself: it blocks from now on, unless others have it, too.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a datagram; else as fcntl(2).
    pub(crate) fn hand_over(&self) -> io::Result<OwnedFd> {
        let Medium::Stream(socket, _) = &self.medium else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a datagram has no connection to hand over",
            ));
        };
        if !self.is_shared {
            sys::fd::set_nonblocking(socket, false)?;
        }
        socket.try_clone()
    }

    /// Counts what somebody else has read and written, as far as the system knows.
    pub(crate) fn count_carried(&self) {
        if let Medium::Stream(socket, _) = &self.medium
            && let Some((bytes_in, bytes_out)) = sys::tcp::carried(socket)
        {
            Traffic::add(&self.traffic.bytes_in, bytes_in);
            Traffic::add(&self.traffic.bytes_out, bytes_out);
        }
    }
}
