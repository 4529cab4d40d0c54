//! Clients of any transport in one type, for tests that do the same over each.
//!
//! std's Unix sockets make the same system calls as its other sockets, so they can stand for all.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Daemon, LIMIT};

/// A connection to the daemon's first endpoint, of whichever transport; with time-outs.
#[track_caller]
pub fn stream(daemon: &Daemon) -> UnixStream {
    let stream = match parts(&daemon.endpoint(0)) {
        (scheme, Address::Ip(address)) if scheme == "tcp" => {
            UnixStream::from(OwnedFd::from(super::net::connect(address).expect("connect")))
        }
        (scheme, Address::Path(path)) if scheme == "unix" => UnixStream::connect(path).expect("connect"),
        other => panic!("{other:?} has no streams"),
    };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A datagram socket connected to the daemon's first endpoint, of whichever transport; with
/// time-outs. Being connected, it gets nothing but what comes from the very address it sends to.
#[track_caller]
pub fn datagrams(daemon: &Daemon) -> UnixDatagram {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let socket = match parts(&daemon.endpoint(0)) {
        (scheme, Address::Ip(address)) if scheme == "udp" => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
            };
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(address).unwrap();
            UnixDatagram::from(OwnedFd::from(socket))
        }
        (scheme, Address::Path(path)) if scheme == "unixgram" => {
            let name = format!("client{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let socket = UnixDatagram::bind(daemon.path(&name)).unwrap();
            socket.connect(path).unwrap();
            socket
        }
        other => panic!("{other:?} has no datagrams"),
    };
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    socket
}

/// One datagram of any length.
pub fn receive(socket: &UnixDatagram) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256 * 1024];
    let n = socket.recv(&mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Sends a datagram, and asserts that it comes back.
#[track_caller]
pub fn bounces(socket: &UnixDatagram, payload: &[u8]) {
    socket.send(payload).expect("send");
    let back = receive(socket).expect("an answer");
    assert!(back == payload, "{} bytes came back for {}, or others", back.len(), payload.len());
}

/// Writes from a thread of its own, so that neither side waits for the other for ever.
pub fn send_aside(stream: &UnixStream, bytes: Vec<u8>) -> std::thread::JoinHandle<io::Result<()>> {
    let mut writer = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        writer.write_all(&bytes)?;
        writer.shutdown(std::net::Shutdown::Write)
    })
}

/// Bytes that differ from place to place and from seed to seed, so that nothing lost, doubled or swapped
/// goes unnoticed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    // splitmix64
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_ne_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| word()).collect();
    bytes.truncate(length);
    bytes
}

#[derive(Debug)]
enum Address {
    Ip(SocketAddr),
    Path(PathBuf),
}

fn parts(endpoint: &str) -> (String, Address) {
    let (scheme, rest) = endpoint.split_once("://").unwrap();
    let address = rest.parse().map_or_else(|_| Address::Path(rest.into()), Address::Ip);
    (scheme.to_owned(), address)
}
