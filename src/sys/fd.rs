//! Descriptors: pipes, flags, and closing many at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smallvec::SmallVec;

/// A pipe whose ends close at exec: (read end, write end).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
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

/// Waits until there may be something to read, accept or receive, at most for `limit`; tells whether
/// there is. A signal ends the wait, too.
pub(crate) fn wait_readable(fd: impl AsFd, limit: Duration) -> bool {
    first_readable(&[fd.as_fd()], Some(limit)).is_some()
}

/// As [`wait_readable`], for several, and maybe without a limit; returns the first that is.
pub(crate) fn first_readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Option<usize> {
    first_ready(fds, PollFlags::POLLIN, limit)
}

/// As [`wait_readable`], for writing.
pub(crate) fn wait_writable(fd: impl AsFd, limit: Duration) -> bool {
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
pub(crate) fn close(fd: OwnedFd) {
    let fd = fd.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership, so the number is closed once, here.
    unsafe { rustix::io::close(fd) };
}

/// Has all descriptors but the three standard ones close at exec, also those that somebody has left open
/// for it. Async-signal-safe. Linux only: elsewhere forkd's own do, and no others.
pub(crate) fn close_others_at_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: close_range(2) with this flag closes nothing yet.
    let _ = unsafe {
        let flag = libc::CLOSE_RANGE_CLOEXEC as usize;
        super::raw::syscall4(libc::SYS_close_range, 3, u32::MAX as usize, flag, 0)
    };
}

/// Sets or clears `O_NONBLOCK`, which all descriptors of the same open file description share.
pub(crate) fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// How many connections wait to be accepted, where the system says so: on Linux, for TCP (tcp(7),
/// TCP_INFO, whose `tcpi_unacked` is the length of a listener's queue).
pub(crate) fn queue_length(listener: impl AsFd) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        tcp_info(listener).map(|info| info.tcpi_unacked)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = listener;
        None
    }
}

/// How long a TCP connection, over which nothing was sent yet, has been there, where the system says so: on Linux,
/// to a tick of its clock, 1 to 10 ms (tcp(7), TCP_INFO, whose `tcpi_last_data_sent` counts from the end of the
/// handshake until data are sent). For one that was just accepted that is the time in the queue.
pub(crate) fn queued_for(connection: impl AsFd) -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        tcp_info(connection).map(|info| Duration::from_millis(info.tcpi_last_data_sent.into()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = connection;
        None
    }
}

/// Has the kernel ask now and then whether the peer of a silent TCP connection is still there (tcp(7),
/// SO_KEEPALIVE): one that has closed, vanished or restarted answers with a reset, or not at all.
pub(crate) fn keep_alive(connection: impl AsFd) {
    use rustix::net::sockopt;
    // what the system refuses is as it was
    let _ = sockopt::set_socket_keepalive(&connection, true);
    #[cfg(not(target_os = "openbsd"))]
    {
        let _ = sockopt::set_tcp_keepidle(&connection, Duration::from_secs(60));
        let _ = sockopt::set_tcp_keepintvl(&connection, Duration::from_secs(15));
        let _ = sockopt::set_tcp_keepcnt(&connection, 4);
    }
}

/// How many bytes have come over a connection, and how many were sent, where the system says so: on Linux,
/// for TCP. Data that nobody has read count, too.
pub(crate) fn carried(connection: impl AsFd) -> Option<(u64, u64)> {
    #[cfg(target_os = "linux")]
    {
        let info = tcp_info(&connection)?;
        let mut unacknowledged = 0;
        // SAFETY: the kernel writes an int. Where it fails there are none.
        let _ = unsafe { unsent(connection.as_fd().as_raw_fd(), &raw mut unacknowledged) };
        // A FIN counts like a byte; the numbers are of linux/tcp_states.h.
        let has_come = matches!(info.tcpi_state, 6 | 8 | 9 | 11);
        let was_sent = matches!(info.tcpi_state, 4..=6 | 9 | 11);
        let sent = info.tcpi_bytes_acked + u64::try_from(unacknowledged).unwrap_or_default();
        let less = |bytes: u64, fin: bool| bytes.saturating_sub(fin.into());
        Some((less(info.tcpi_bytes_received, has_come), less(sent, was_sent)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = connection;
        None
    }
}

// SIOCOUTQ of tcp(7), which shares its number: bytes not yet acknowledged
#[cfg(target_os = "linux")]
nix::ioctl_read_bad!(unsent, libc::TIOCOUTQ, libc::c_int);

#[cfg(target_os = "linux")]
fn tcp_info(socket: impl AsFd) -> Option<libc::tcp_info> {
    // SAFETY: tcp_info consists of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to `info`; an older one writes fewer.
    let answer = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length)
    };
    (answer == 0).then_some(info)
}

/// Has writes to a TCP socket wait while more than `bytes` are unsent (tcp(7), TCP_NOTSENT_LOWAT);
/// other sockets have no such limit.
#[cfg(target_os = "linux")]
pub(crate) fn limit_unsent(socket: impl AsFd, bytes: u32) {
    let (fd, length) = (socket.as_fd().as_raw_fd(), size_of::<u32>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes from `bytes`.
    unsafe {
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast(), length);
    }
}

/// The master's own descriptors, which a child closes first of all.
///
/// Kept as ranges of consecutive numbers: closing a range is one system call, and forkd opens
/// what it keeps in one go, so there are one or two.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct CloseSet {
    ranges: Vec<(RawFd, RawFd)>,
}

impl CloseSet {
    pub(crate) fn new(fds: impl IntoIterator<Item = RawFd>) -> Self {
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
    pub(crate) fn close_in_child(&self) {
        for &(first, last) in &self.ranges {
            close_range(first, last);
        }
    }
}

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

/// A descriptor number that a signal handler can put out of use.
///
/// A worker that blocks in accept(2) or recvmsg(2) has to leave when it is told, and a flag that
/// a handler sets can be missed between its test and the call. So the handler replaces the
/// descriptor by that of a pipe: a call that begins later fails with `ENOTSOCK`, and one that
/// was interrupted is restarted by the kernel (SA_RESTART) on the same number, and fails too.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The number of the socket, which whoever made the gate keeps open, if it ends with this program.
    ours: Option<RawFd>,
    gate: OwnedFd,
    /// What takes its place, a pipe: no file, because after a chroot(2) there may be none to open.
    null: OwnedFd,
    /// The pipe's other end. A shut gate has closed it, so that `null` is at its end: readable for good.
    open: AtomicI32,
}

impl Gate {
    /// Makes a gate to the socket; `socket` itself stays as it is. It `is_ours` if nobody serves it when
    /// this program's processes are gone.
    pub(crate) fn new(socket: impl AsFd, is_ours: bool) -> io::Result<Self> {
        let gate = socket.as_fd().try_clone_to_owned()?;
        let (null, open) = pipe()?;
        let ours = is_ours.then(|| socket.as_fd().as_raw_fd());
        Ok(Self { ours, gate, null, open: AtomicI32::new(open.into_raw_fd()) })
    }

    /// Becomes readable when the gate is shut: for whoever waits for several things.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Shuts the gate for good. Async-signal-safe.
    pub(crate) fn shut(&self) {
        // SAFETY: both descriptors are open as long as `self` is; dup2(2) is async-signal-safe and
        // replaces `gate` atomically.
        unsafe { libc::dup2(self.null.as_raw_fd(), self.gate.as_raw_fd()) };
        let open = self.open.swap(-1, Ordering::Relaxed);
        if open >= 0 {
            // SAFETY: whoever gets the number out of the cell is the only one to have it, and closes it
            // once; close(2) is async-signal-safe.
            unsafe { libc::close(open) };
        }
    }

    /// Shuts the gate, and has the socket behind it take nobody any more, if it is ours. Async-signal-safe.
    pub(crate) fn shut_for_all(&self) {
        self.shut();
        if let Some(socket) = self.ours {
            // nobody will serve who connects now: a refusal is the better answer
            // SAFETY: shutdown(2) is async-signal-safe, and a number of no socket is only an error.
            unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
        }
    }

    /// Shuts the gate for good when `signal` arrives.
    pub(crate) fn shut_on(gate: &Arc<Self>, signal: i32) -> io::Result<()> {
        let gate = Arc::clone(gate);
        let action = move || {
            if super::signal::is_orphan() {
                gate.shut_for_all();
                super::signal::limit_orphan();
            } else {
                gate.shut();
            }
        };
        // SAFETY: the action makes async-signal-safe calls only.
        unsafe { signal_hook::low_level::register(signal, action)? };
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut();
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.gate.as_fd()
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

    #[test]
    fn a_shut_gate_is_no_socket() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("pair");
        let gate = Arc::new(Gate::new(&socket, true).expect("gate"));
        Gate::shut_on(&gate, libc::SIGWINCH).expect("register");
        assert!(!wait_readable(gate.bell(), Duration::ZERO));
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH).expect("raise");
        let error = rustix::net::accept(&*gate).expect_err("shut");
        assert_eq!(error, rustix::io::Errno::NOTSOCK);
        assert!(wait_readable(gate.bell(), Duration::ZERO));
        assert!(nix::sys::socket::getpeername::<nix::sys::socket::UnixAddr>(socket.as_raw_fd()).is_ok());
    }
}
