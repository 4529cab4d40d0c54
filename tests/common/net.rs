//! Clients, all with time-outs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::LIMIT;

/// A TCP client.
pub type Client = TcpStream;

/// A port for a test alone, over TCP and UDP: the kernel gives it to nothing that asks for any port, as another test may.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = std::process::id().wrapping_mul(67) + NEXT.fetch_add(1, Ordering::Relaxed);
        // below those of net.ipv4.ip_local_port_range
        let port = (20_000 + nth % 12_000) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Whether a connection of this port, as the one that closed it first, is still known to the kernel (TIME_WAIT); there may
/// be too many of them, so that it forgets at once.
pub fn lingers(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next(), fields.nth(1));
        local.is_some_and(|local| local.ends_with(&of_port)) && state == Some("06")
    })
}

/// Connects within [`LIMIT`]; reads and writes time out after it.
pub fn connect(address: SocketAddr) -> io::Result<Client> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends bytes and asserts that they come back. A stream of any kind; give it time-outs.
#[track_caller]
pub fn echoes(stream: &mut (impl Read + Write), bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("receive");
    assert!(back == bytes, "the echo differs");
}

/// Asserts that the answer to [`Daemon::asks`](super::Daemon::asks) comes, and that the connection goes on.
#[track_caller]
pub fn is_answered(stream: &mut (impl Read + Write)) {
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"?");
    echoes(stream, b"thanks");
}

/// A whole connection: connect, echo, half-close, read the end of file.
pub fn short_connection(address: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    if back == bytes { Ok(()) } else { Err(io::Error::other(format!("{back:?} came back"))) }
}

/// Whether nothing comes from the server for so long, not even an end.
pub fn is_silent(stream: &Client, span: Duration) -> bool {
    stream.set_read_timeout(Some(span)).unwrap();
    let result = stream.peek(&mut [0]);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    matches!(result, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Whether the server has ended the connection, in whichever way, within [`LIMIT`]; what it still
/// had to say is skipped.
pub fn is_cut(stream: &mut Client) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            // a read with a time-out is not begun again after a signal: signal(7)
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        }
    }
}

/// Whether nothing listens there.
pub fn is_refused(address: SocketAddr) -> bool {
    matches!(TcpStream::connect_timeout(&address, LIMIT), Err(e) if e.kind() == ErrorKind::ConnectionRefused)
}

/// Makes a client one that has vanished: its kernel drops whatever the server sends, unseen, and answers nothing.
pub fn vanishes(stream: &Client) {
    // socket(7), SO_ATTACH_FILTER: a filter of one instruction, which lets 0 bytes pass
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    let length = size_of_val(&filter) as libc::socklen_t;
    let (fd, value) = (stream.as_raw_fd(), (&raw const filter).cast());
    // SAFETY: the kernel copies the filter during the call.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// When the kernel will ask whether this client is still there, by the server's end of its connection.
pub fn keepalive_due(client: &Client) -> Option<Duration> {
    // "tr tm->when": 02 is the keepalive timer, which is due in so many hundredths of a second
    let (timer, when) = server_socket(client, 5);
    (timer == "02").then(|| Duration::from_millis(10 * u64::from_str_radix(&when, 16).unwrap()))
}

/// How many bytes of the server's the kernel keeps for this client, which has not acknowledged them.
pub fn kept_for(client: &Client) -> u64 {
    u64::from_str_radix(&server_socket(client, 4).0, 16).unwrap()
}

/// A field of two parts of the server's end of a connection (proc_net_tcp(5)).
fn server_socket(client: &Client, field: usize) -> (String, String) {
    let [server, client] = [client.peer_addr().unwrap(), client.local_addr().unwrap()].map(in_proc);
    let table = if server.len() > 13 { "/proc/net/tcp6" } else { "/proc/net/tcp" };
    let table = std::fs::read_to_string(table).unwrap();
    let line = table.lines().find(|line| line.contains(&format!(" {server} {client} "))).expect("its line");
    let (one, other) = line.split_whitespace().nth(field).unwrap().split_once(':').unwrap();
    (one.to_owned(), other.to_owned())
}

/// How many segments a client has received so far, those without data too (tcp(7), TCP_INFO).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn segments(client: &Client) -> u32 {
    // SAFETY: tcp_info consists of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (fd, value) = (client.as_raw_fd(), (&raw mut info).cast());
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    let done = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    info.tcpi_segs_in
}

/// As proc_net_tcp(5) writes it: words in the order of this machine's bytes.
fn in_proc(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
    words.map(|word| format!("{word:08X}")).collect::<String>() + &format!(":{:04X}", address.port())
}

/// Ends a connection by a reset instead of an orderly close.
pub fn reset(stream: impl AsFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    drop(stream);
}
