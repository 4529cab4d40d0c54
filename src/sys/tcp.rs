//! What the kernel says of a TCP socket, and what is said to it. Of other sockets there is nothing to know.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

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
