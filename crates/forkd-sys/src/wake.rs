//! One descriptor by which any child can wake the master.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, RawFd};

#[cfg(target_os = "linux")]
use super::calls::is_forbidden;

/// An eventfd, or a pipe on the portable path and where there are no eventfds; never blocks on either side.
#[derive(Debug)]
pub struct Wake {
    read_end: OwnedFd,
    /// An eventfd is its own write end.
    write_end: Option<OwnedFd>,
}

impl Wake {
    /// Makes one that nothing has woken.
    ///
    /// # Errors
    ///
    /// As eventfd(2) and pipe(2).
    pub fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if !super::portable() {
            use rustix::event::{EventfdFlags, eventfd};
            match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
                Err(errno) if is_forbidden(errno) => {}
                read_end => return Ok(Self { read_end: apart(read_end?), write_end: None }),
            }
        }
        let (read_end, write_end) = super::fd::pipe()?;
        super::fd::set_nonblocking(&read_end, true)?;
        super::fd::set_nonblocking(&write_end, true)?;
        Ok(Self { read_end, write_end: Some(write_end) })
    }

    /// Takes over the descriptors of one that this process had before it executed this program.
    pub fn adopt(read_end: OwnedFd, write_end: Option<OwnedFd>) -> Self {
        Self { read_end, write_end }
    }

    /// Its read end and, if that is another one, its write end.
    pub fn ends(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.read_end.as_fd(), self.write_end.as_ref().map(AsFd::as_fd))
    }

    /// Makes the read end readable. Async-signal-safe: one write(2).
    pub fn notify(&self) {
        // A full pipe or counter is readable already: there is nothing to do about an error.
        let _ = rustix::io::write(self.write_end.as_ref().unwrap_or(&self.read_end), &1_u64.to_ne_bytes());
    }

    /// Takes all notifications that have come.
    pub fn drain(&self) {
        let mut taken = [0; 512];
        // One read empties an eventfd. What a pipe still holds makes the next poll return at once.
        let _ = rustix::io::read(&self.read_end, &mut taken);
    }
}

/// The descriptor by a number beyond those that a process has as a rule: then a child closes its parent's others by one
/// system call, as they are a row. It costs nothing, as the kernel has room for 64 in any case.
#[cfg(target_os = "linux")]
fn apart(descriptor: OwnedFd) -> OwnedFd {
    const LAST: RawFd = 63;
    let copy = rustix::io::fcntl_dupfd_cloexec(&descriptor, LAST).ok();
    copy.filter(|copy| copy.as_raw_fd() == LAST).unwrap_or(descriptor)
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}
