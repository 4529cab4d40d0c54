//! Servers whose faults are known, as threads of the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The default size of a message.
pub(crate) const SIZE: usize = 64;

pub(crate) type Message = [u8; SIZE];

/// A server that has a thread for each connection; returns its endpoint.
pub(crate) fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    endpoint
}

/// A server that answers each message with what `answer` makes of it, and ends a connection for which
/// that is nothing. It is told how many messages came before, on all connections.
pub(crate) fn echo(answer: impl Fn(u64, Message) -> Option<Message> + Send + Sync + 'static) -> String {
    let count = AtomicU64::new(0);
    server(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut message = [0; SIZE];
        while stream.read_exact(&mut message).is_ok() {
            match answer(count.fetch_add(1, Ordering::Relaxed), message) {
                Some(answer) if stream.write_all(&answer).is_ok() => {}
                _ => return,
            }
        }
    })
}

/// A UDP server that answers the nth datagram (from 0) so many times; returns its endpoint.
pub(crate) fn datagrams(times: impl Fn(u64) -> usize + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("udp://{}", socket.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        for count in 0.. {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { return };
            (0..times(count)).for_each(|_| _ = socket.send_to(&buffer[..length], peer));
        }
    });
    endpoint
}

/// A TCP and a UDP endpoint at which nothing answers, and what keeps others from binding them.
pub(crate) fn silent() -> (String, String, impl Sized) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
    // bound, and listening never
    let tcp = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(tcp.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(tcp.as_raw_fd()).unwrap().port();
    // connected, and deaf to all other peers
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect("127.0.0.1:9").unwrap();
    let endpoints = (format!("tcp://127.0.0.1:{port}"), format!("udp://{}", udp.local_addr().unwrap()));
    (endpoints.0, endpoints.1, (tcp, udp))
}
