//! A queue of connections that were accepted and wait to be served, which a master and its workers share.
//!
//! It is a pair of sockets: the process that puts a connection in sends its descriptor, and may close its own
//! (unix(7), `SCM_RIGHTS`). The kernel holds it until some process takes it out, or until the last copy of the pair is
//! closed, and so is every connection in it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, Result, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

use super::limits::open_files;
use super::socket::{NO_SIGNAL, receive_with_descriptor};

/// How many connections fit into the default buffer of a socket: each takes less than 1 KiB.
const MOST: u64 = 200;

/// Descriptors that wait in the buffer of a socket pair, where they need no numbers in this process.
#[derive(Debug)]
pub struct Queue {
    entrance: OwnedFd,
    exit: OwnedFd,
}

impl Queue {
    /// # Errors
    ///
    /// As socketpair(2).
    pub fn new() -> Result<Self> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
        let (entrance, exit) = socketpair(family, kind, SocketFlags::empty(), None)?;
        for end in [&entrance, &exit] {
            fcntl_setfd(end, FdFlags::CLOEXEC)?;
        }
        Ok(Self { entrance, exit })
    }

    /// How many connections fit in. The kernel lets a user without privileges have as many descriptors in such
    /// queues as a process may have open.
    pub fn capacity() -> u64 {
        open_files().map_or(MOST, |files| MOST.min(files / 2))
    }

    /// Puts a connection in; waits for nothing.
    ///
    /// # Errors
    ///
    /// As sendmsg(2): `AGAIN` or `TOOMANYREFS` if there is no room.
    pub fn put(&self, connection: impl AsFd) -> Result<()> {
        let descriptors = [connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | NO_SIGNAL;
        sendmsg(&self.entrance, &[IoSlice::new(b"c")], &mut control, flags).map(|_| ())
    }

    /// Takes out the connection that was put in first, if there is one.
    ///
    /// # Errors
    ///
    /// As recvmsg(2); `MFILE` where this process has no descriptor left.
    pub fn take(&self) -> Result<Option<OwnedFd>> {
        // a connection that finds no descriptor is lost, so there must be one
        drop(fcntl_dupfd_cloexec(&self.exit, 0)?);
        match receive_with_descriptor(&self.exit, &mut [0], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(None),
            // another thread may have taken the last one since
            received => received?.1.map(Some).ok_or(Errno::MFILE),
        }
    }

    /// Its own two descriptors.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.entrance.as_raw_fd(), self.exit.as_raw_fd()]
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_put_in_comes_out_in_order_and_as_many_as_is_said_fit() {
        let queue = Queue::new().expect("queue");
        assert!(queue.take().expect("take").is_none());
        let mut clients = Vec::new();
        for _ in 0..Queue::capacity() {
            let (client, server) = UnixStream::pair().expect("pair");
            queue.put(&server).expect("put");
            clients.push(client);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let server = queue.take().expect("take").expect("a connection");
            UnixStream::from(server).write_all(&[number as u8]).expect("write");
            let mut said = Vec::new();
            client.read_to_end(&mut said).expect("read");
            assert_eq!(said, [number as u8]);
        }
        assert!(queue.take().expect("take").is_none());
    }
}
