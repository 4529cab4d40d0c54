//! What the kernel says of a TCP socket, and what is said to it. Of other sockets there is nothing to know.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The connections that wait to be accepted at a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many they are.
    pub length: u32,
    /// How many there may be before the kernel takes no more; it may take one more than that.
    pub limit: u32,
}

/// How many clients wait to be accepted, where the system says so: on Linux, for TCP (tcp(7), TCP_INFO, whose `tcpi_unacked`
/// and `tcpi_sacked` are the length and the limit of a listener's queue).
pub fn queue(listener: impl AsFd) -> Option<Queue> {
    #[cfg(target_os = "linux")]
    {
        tcp_info(listener).map(|info| Queue { length: info.tcpi_unacked, limit: info.tcpi_sacked })
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
pub fn queued_for(connection: impl AsFd) -> Option<Duration> {
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

/// Has the kernel end a TCP connection whose peer does not answer for `limit`; `None`: never.
///
/// While the connection is silent, the kernel sends probes from half of the limit on (tcp(7), SO_KEEPALIVE): a peer
/// that has restarted answers with a reset, one that has vanished does not answer. While sent bytes wait, the peer
/// has to acknowledge or to take some of them within the limit (TCP_USER_TIMEOUT; Linux only). On a listening
/// socket, it holds for each connection that is accepted there.
pub fn keep_alive(socket: impl AsFd, limit: Option<Duration>) {
    use rustix::net::sockopt;
    // what the system refuses stays as it was
    let _ = sockopt::set_socket_keepalive(&socket, limit.is_some());
    #[cfg(not(target_os = "openbsd"))]
    if let Some(Probes { idle, interval, count }) = limit.map(Probes::within) {
        let _ = sockopt::set_tcp_keepidle(&socket, idle);
        let _ = sockopt::set_tcp_keepintvl(&socket, interval);
        let _ = sockopt::set_tcp_keepcnt(&socket, count);
    }
    #[cfg(target_os = "linux")]
    {
        let limit = limit.unwrap_or_default().as_millis();
        let _ = sockopt::set_tcp_user_timeout(&socket, u32::try_from(limit).unwrap_or(u32::MAX));
    }
}

/// When the kernel asks whether the peer of a silent connection is still there.
#[cfg(not(target_os = "openbsd"))]
#[derive(Debug, PartialEq, Eq)]
struct Probes {
    /// From when on.
    idle: Duration,
    /// The time between two.
    interval: Duration,
    /// How many without an answer end the connection.
    count: u32,
}

#[cfg(not(target_os = "openbsd"))]
impl Probes {
    /// The system counts whole seconds, at least one.
    fn within(limit: Duration) -> Self {
        let [idle, interval] = [2, 8].map(|part| (limit.as_secs() / part).max(1));
        let count = (limit.as_secs().saturating_sub(idle) / interval).clamp(1, 127);
        Self { idle: Duration::from_secs(idle), interval: Duration::from_secs(interval), count: count as u32 }
    }
}

/// How often the two halves of what was sent are asked for, until no acknowledgement has come between.
#[cfg(target_os = "linux")]
const MOST_LOOKS: u32 = 100;

/// How many bytes have come over a connection, and how many were sent, where the system says so: on Linux,
/// for TCP. Unread data count, too.
pub fn carried(connection: impl AsFd) -> Option<(u64, u64)> {
    #[cfg(target_os = "linux")]
    {
        let mut info = tcp_info(&connection)?;
        // an acknowledgement between the two calls would make bytes vanish: then they are made again
        let waiting = (0..MOST_LOOKS).find_map(|_| {
            let waiting = unacknowledged(&connection);
            let before = std::mem::replace(&mut info, tcp_info(&connection)?);
            (before.tcpi_bytes_acked == info.tcpi_bytes_acked).then_some(waiting)
        });
        // A FIN counts like a byte; the numbers are of linux/tcp_states.h.
        let has_come = matches!(info.tcpi_state, 6 | 8 | 9 | 11);
        let was_sent = matches!(info.tcpi_state, 4..=6 | 9 | 11);
        let sent = info.tcpi_bytes_acked + waiting.unwrap_or_else(|| unacknowledged(&connection));
        let less = |bytes: u64, fin: bool| bytes.saturating_sub(fin.into());
        Some((less(info.tcpi_bytes_received, has_come), less(sent, was_sent)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = connection;
        None
    }
}

/// How many bytes were written to a TCP connection that its peer has not acknowledged yet, where the system says so: on
/// Linux.
pub fn unacknowledged(connection: impl AsFd) -> u64 {
    #[cfg(target_os = "linux")]
    {
        let mut bytes = 0;
        // SAFETY: the kernel writes an int. Where it fails there are none.
        let _ = unsafe { ioctl::unsent(connection.as_fd().as_raw_fd(), &raw mut bytes) };
        u64::try_from(bytes).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = connection;
        0
    }
}

#[cfg(target_os = "linux")]
mod ioctl {
    // SIOCOUTQ of tcp(7), which shares its number: bytes not yet acknowledged
    nix::ioctl_read_bad!(unsent, libc::TIOCOUTQ, libc::c_int);
}

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

/// Has the close of a connection be a reset, which says "no" at once, where an orderly close looks like an answer of nothing.
pub fn reset_at_close(connection: impl AsFd) {
    // it fails only for what is no socket
    let _ = rustix::net::sockopt::set_socket_linger(connection, Some(Duration::ZERO));
}

/// Whether the client has reset the connection. What it had sent before is void, too (RFC 9293, section 3.10.7.4).
pub fn was_reset(connection: impl AsFd) -> bool {
    matches!(rustix::net::sockopt::socket_error(connection), Ok(Err(_)))
}

/// Has writes to a TCP socket wait while more than `bytes` are unsent (tcp(7), TCP_NOTSENT_LOWAT);
/// other sockets, and other systems, have no such limit.
pub fn limit_unsent(socket: impl AsFd, bytes: u32) {
    #[cfg(target_os = "linux")]
    {
        let (fd, length) = (socket.as_fd().as_raw_fd(), size_of::<u32>() as libc::socklen_t);
        let value = (&raw const bytes).cast();
        // SAFETY: the kernel reads `length` bytes from `bytes`.
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, length) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, bytes);
}

/// Has a listening TCP socket give connections only when their clients have sent something, or have said nothing for about
/// a second (tcp(7), TCP_DEFER_ACCEPT); or as they come again. Linux only.
pub fn defer_accept(listener: impl AsFd, on: bool) {
    #[cfg(target_os = "linux")]
    {
        // in seconds: as long as it takes until the kernel answers the client's first packet once more
        let limit = libc::c_int::from(on);
        let (fd, length) = (listener.as_fd().as_raw_fd(), size_of_val(&limit) as libc::socklen_t);
        // SAFETY: the kernel reads `length` bytes from `limit`.
        unsafe {
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, (&raw const limit).cast(), length)
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (listener, on);
}

/// Has the kernel drop each packet that asks a listening TCP socket for a new connection; its sender tries again a
/// second later. Connections whose handshake has begun are not concerned. Linux only: other systems have no such filter.
pub fn drop_new_connections(listener: impl AsFd) {
    #[cfg(target_os = "linux")]
    {
        use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
        // the byte of the TCP header with the flags (RFC 9293, section 3.1), and the two that count
        const FLAGS: u32 = 13;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut steps = [
            step(BPF_LD | BPF_B | BPF_ABS, 0, 0, FLAGS),
            step(BPF_ALU | BPF_AND | BPF_K, 0, 0, SYN | ACK),
            step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYN),
            step(BPF_RET | BPF_K, 0, 0, 0),
            step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        let (fd, length) = (listener.as_fd().as_raw_fd(), size_of_val(&program) as libc::socklen_t);
        // SAFETY: the kernel reads `program` and the `len` steps that it points to, and keeps a copy.
        unsafe {
            let program = (&raw const program).cast();
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, length)
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[cfg(all(test, not(target_os = "openbsd")))]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn new_connections_are_dropped_and_those_that_are_queued_stay() {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let mut first = TcpStream::connect(address).expect("connect");
        drop_new_connections(&listener);
        let second = std::thread::spawn(move || TcpStream::connect(address));
        // what the queued client sends is no new connection
        first.write_all(b"x").expect("write");
        let (mut connection, _) = listener.accept().expect("accept");
        connection.read_exact(&mut [0]).expect("read");
        connection.write_all(b"y").expect("write");
        first.read_exact(&mut [0]).expect("read");
        // the second tries until it is refused
        listener.set_nonblocking(true).expect("fcntl");
        let dropped = || crate::drops::dropped(&listener);
        while dropped() == Some(0) && !second.is_finished() {
            std::thread::yield_now();
        }
        assert!(listener.accept().is_err() && !second.is_finished());
        drop(listener);
        let refused = second.join().expect("join").expect_err("no connection");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_sent_is_counted_whole_while_acknowledgements_come() {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};

        const BYTES: usize = 64 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut connection, _) = listener.accept().expect("accept");
        let reader = std::thread::spawn(move || {
            // it frees the queue in small steps, each an acknowledgement
            let mut chunk = [0; 4096];
            while client.read(&mut chunk).expect("read") > 0 {}
        });
        let (mut sent, piece) = (0, [0; 16 << 10]);
        while sent < BYTES {
            sent += connection.write(&piece).expect("write");
            assert_eq!(carried(&connection), Some((0, sent as u64)));
        }
        drop(connection);
        reader.join().expect("join");
    }

    #[test]
    fn probes_end_with_the_limit() {
        for (limit, idle, interval, count) in
            [(2, 1, 1, 1), (5, 2, 1, 3), (120, 60, 15, 4), (300, 150, 37, 4), (43_200, 21_600, 5_400, 4)]
        {
            let [limit, idle, interval] = [limit, idle, interval].map(Duration::from_secs);
            assert_eq!(Probes::within(limit), Probes { idle, interval, count });
            assert!(idle + interval * count <= limit);
        }
    }
}
