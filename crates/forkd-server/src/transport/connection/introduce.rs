//! How a connection learns whose it is, where a proxy passes it on.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::io::Errno;

use super::{Connection, Medium, Ready};
use crate::sys::fd::wait_readable;
use crate::transport::Peer;
use crate::transport::proxy::{HEADER_TIMEOUT, Header, ProxyVersion};

impl Connection<'_> {
    /// Takes the header of the PROXY protocol off the input; from here on the client that it names is the
    /// [peer](Self::peer).
    ///
    /// # Errors
    ///
    /// As [`Header::take`], but `TimedOut` if it has not come in time.
    pub(crate) fn introduce(&mut self, version: ProxyVersion) -> io::Result<()> {
        let Medium::Stream(socket, wait) = &self.medium else { return Ok(()) };
        let (mut header, mut taken) = (Header::default(), Err(io::ErrorKind::TimedOut.into()));
        let mut take = || match header.take(socket, version) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Errno::AGAIN),
            result => {
                taken = result;
                Ok(0)
            }
        };
        match wait {
            Some(wait) => {
                _ = wait.attempt(socket.as_fd(), Ready::Read, 0, Some(HEADER_TIMEOUT), &mut take)?
            }
            None => {
                let until = Instant::now() + HEADER_TIMEOUT;
                while take().is_err() {
                    let left = until.saturating_duration_since(Instant::now());
                    // a signal ends the wait, too
                    if !wait_readable(socket, left) && left.is_zero() {
                        break;
                    }
                }
            }
        }
        if let Some(client) = taken? {
            self.peer = Peer::Ip(client);
        }
        Ok(())
    }
}
