//! Descriptors: pipes, flags, and closing many at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smallvec::SmallVec;

/// A pipe whose ends close at exec: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
    {
        Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd"
    )))]
    {
        let ends = nix::unistd::pipe()?;
        for end in [&ends.0, &ends.1] {
            fcntl(end, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        }
        Ok(ends)
    }
}

/// A file in memory that has no name. Where memfd_create(2) is forbidden, since what is written there could be executed, it is
/// one of /dev/shm.
///
/// # Errors
///
/// As memfd_create(2) and open(2); `Unsupported` where the system has no such files.
#[cfg(target_os = "linux")]
pub fn without_name() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
    let in_memory = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
        open("/dev/shm", flags, Mode::RUSR | Mode::WUSR)
    };
    match memfd_create(c"forkd", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
        Err(errno) if super::calls::is_forbidden(errno) => Ok(in_memory()?),
        file => Ok(file?),
    }
}

/// The same.
#[cfg(not(target_os = "linux"))]
pub fn without_name() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Waits until there may be something to read, accept or receive, at most for `limit`; tells whether
/// there is. A signal ends the wait, too.
pub fn wait_readable(fd: impl AsFd, limit: Duration) -> bool {
    first_readable(&[fd.as_fd()], Some(limit)).is_some()
}

/// Waits for the time to pass, by poll(2): where a filter forbids clock_nanosleep(2), std's sleep is a panic.
pub fn pause(limit: Duration) {
    first_readable(&[], Some(limit));
}

/// As [`wait_readable`], for several, and maybe without a limit; returns the first that is.
pub fn first_readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Option<usize> {
    first_ready(fds, PollFlags::POLLIN, limit)
}

/// As [`wait_readable`], for writing.
pub fn wait_writable(fd: impl AsFd, limit: Duration) -> bool {
    first_ready(&[fd.as_fd()], PollFlags::POLLOUT, Some(limit)).is_some()
}

fn first_ready(fds: &[BorrowedFd<'_>], what: PollFlags, limit: Option<Duration>) -> Option<usize> {
    let asked = fds.iter().map(|&fd| PollFd::new(fd, what));
    let mut asked: SmallVec<[PollFd<'_>; 4]> = asked.collect();
    let limit = limit.map_or(PollTimeout::NONE, |limit| limit.try_into().unwrap_or(PollTimeout::MAX));
    poll(&mut asked, limit).ok()?;
    asked.iter().position(|fd| fd.any().unwrap_or(false))
}

/// Closes a descriptor. What `OwnedFd` does when dropped, without libc (see `raw`).
pub fn close(fd: OwnedFd) {
    let fd = fd.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership, so the number is closed once, here.
    unsafe { rustix::io::close(fd) };
}

/// In a child on the portable path: the end of the pipe by which its parent learns of its death.
static KEPT: AtomicI32 = AtomicI32::new(-1);

/// Takes note of a descriptor that this process has open until it ends.
pub(crate) fn keep_until_death(end: &OwnedFd) {
    KEPT.store(end.as_raw_fd(), Ordering::Relaxed);
}

/// What this process must have open until it is dead, also as another program.
pub(crate) fn kept_until_death() -> Option<BorrowedFd<'static>> {
    let kept = KEPT.load(Ordering::Relaxed);
    // SAFETY: `fork::portable` has it open until the child ends.
    (kept >= 0).then(|| unsafe { BorrowedFd::borrow_raw(kept) })
}

/// Has all descriptors but the three standard ones close at exec, also those that other code has left open.
/// Async-signal-safe. Linux only: elsewhere forkd's own do, and no others.
pub fn close_others_at_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: close_range(2) with this flag closes nothing yet.
    let _ = unsafe {
        let flag = libc::CLOSE_RANGE_CLOEXEC as usize;
        super::raw::syscall4(libc::SYS_close_range, 3, u32::MAX as usize, flag, 0)
    };
}

/// Sets or clears `O_NONBLOCK`, which all descriptors of the same open file description share.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// The master's own descriptors, which a child closes first of all.
///
/// Kept as ranges of consecutive numbers: closing a range is one system call, and forkd opens
/// what it keeps in one go, so there are one or two.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CloseSet {
    ranges: Vec<(RawFd, RawFd)>,
}

impl CloseSet {
    /// The set of these descriptors.
    pub fn new(fds: impl IntoIterator<Item = RawFd>) -> Self {
        let mut fds: Vec<RawFd> = fds.into_iter().collect();
        fds.sort_unstable();
        let mut ranges: Vec<(RawFd, RawFd)> = Vec::new();
        for fd in fds {
            match ranges.last_mut() {
                Some((_, last)) if fd <= *last + 1 => *last = fd,
                _ => ranges.push((fd, fd)),
            }
        }
        Self { ranges }
    }

    /// Closes them all, in a forked child that will run only code that does not use them.
    ///
    /// The values that own these descriptors live on in the child's copy of the parent's memory
    /// and must not be used or dropped there: `sys::fork` sees to the latter, since the child
    /// leaves by `_exit`.
    // as `sys::fork::exit`
    #[inline(always)]
    pub fn close_in_child(&self) {
        for &(first, last) in &self.ranges {
            close_range(first, last);
        }
    }
}

/// Closes a few that are in no set yet, in such a child.
pub fn close_in_child(fds: impl Iterator<Item = RawFd>) {
    fds.for_each(|fd| close_range(fd, fd));
}

#[inline(always)]
fn close_range(first: RawFd, last: RawFd) {
    #[cfg(target_os = "linux")]
    if !super::portable() {
        // SAFETY: the numbers are of descriptors that this process image never uses again (see
        // `close_in_child`).
        let done =
            unsafe { super::raw::syscall4(libc::SYS_close_range, first as usize, last as usize, 0, 0) };
        if done.is_ok() {
            return;
        }
    }
    for fd in first..=last {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_descriptors_make_one_range() {
        assert_eq!(CloseSet::new([5, 3, 4, 9, 11, 10, 9]).ranges, [(3, 5), (9, 11)]);
        assert_eq!(CloseSet::new([]).ranges, []);
    }
}
