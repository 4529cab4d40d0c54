//! A connection ends when it has lasted so long, whatever its client does: under each model, over each transport.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect as connect_to, socket};

/// How long a connection lasts here: long enough that a client can do something before.
const LIFETIME: Duration = Duration::from_millis(300);

/// What a client does for as long as it is let.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Silent,
    /// Sends a byte a moment, and reads.
    Drips,
    /// Sends, and never reads.
    Deaf,
    /// Sends and reads as much as it can.
    Greedy,
}

const HABITS: [Habit; 4] = [Habit::Silent, Habit::Drips, Habit::Deaf, Habit::Greedy];

/// Lets a client, whose socket does not block, do that until the server ends the connection.
#[track_caller]
fn lasts(client: &mut (impl Read + Write), habit: Habit) {
    let mut bytes = [0; 64 * 1024];
    let sends = match habit {
        Habit::Silent => 0,
        Habit::Drips => 1,
        Habit::Deaf | Habit::Greedy => bytes.len(),
    };
    let mut goes_on = || {
        let sent = if sends > 0 { client.write(&bytes[..sends]) } else { Err(ErrorKind::WouldBlock.into()) };
        let heard =
            if habit == Habit::Deaf { Err(ErrorKind::WouldBlock.into()) } else { client.read(&mut bytes) };
        let moves = sent.is_ok() || heard.is_ok();
        let is_over = is_end(sent) || is_end(heard);
        (is_over, moves && habit != Habit::Drips)
    };
    within(LIMIT, &format!("{habit:?} is ended"), || {
        // as much as it can, and then a pause
        (0..100)
            .map(|_| goes_on())
            .find(|&(is_over, moves)| is_over || !moves)
            .is_some_and(|(is_over, _)| is_over)
    });
}

/// Whether a call says that the connection is over.
fn is_end(result: io::Result<usize>) -> bool {
    match result {
        Ok(length) => length == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

fn nonblocking(client: TcpStream) -> TcpStream {
    client.set_nonblocking(true).unwrap();
    client
}

fn unix(daemon: &Daemon) -> UnixStream {
    let client = UnixStream::connect(daemon.path("s")).unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

under_models! { [fork spare prefork iterative thread threads event coroutine]
    fn whatever_a_client_does_it_leaves_in_time(model) {
        let daemon = Daemon::start(&format!("{model} --max-lifetime 300ms tcp://127.0.0.1:0 unix://{{dir}}/s"));
        for habit in HABITS {
            let start = Instant::now();
            lasts(&mut nonblocking(daemon.connect()), habit);
            assert!(start.elapsed() >= LIFETIME, "tcp, {habit:?}: after {:?}", start.elapsed());
            let start = Instant::now();
            lasts(&mut unix(&daemon), habit);
            assert!(start.elapsed() >= LIFETIME, "unix, {habit:?}: after {:?}", start.elapsed());
        }
        for listener in [0, 1] {
            daemon.has_timed_out(listener, &[("lifetime", 4)]);
            assert_eq!(daemon.listener(listener)["failed"], 0);
        }
    }
}

under_models! { [fork prefork thread event coroutine]
    fn what_ends_a_connection_is_counted_by_its_cause(model) {
        let daemon = Daemon::start(&format!("{model} --idle-timeout 5s --max-lifetime 1h unix://{{dir}}/s"));
        lasts(&mut unix(&daemon), Habit::Silent);
        daemon.has_timed_out(0, &[("idle", 1)]);
        // a Unix socket is full at once and stays so, while TCP takes a little more now and then
        lasts(&mut unix(&daemon), Habit::Deaf);
        daemon.has_timed_out(0, &[("idle", 1), ("unread", 1)]);
    }
}

under_models! { [fork prefork event coroutine]
    fn a_new_limit_is_for_new_connections(model) {
        let forkd = Forkd::new("--config {dir}/forkd.toml");
        let path = forkd.dir.path().join("forkd.toml");
        let model = model.split(' ').nth(1).unwrap();
        let text = format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = '{model}'\n");
        fs::write(&path, &text).unwrap();
        let daemon = forkd.start();
        let mut before = daemon.served();
        fs::write(&path, text + "max-lifetime = '300ms'\n").unwrap();
        assert_eq!(run(&["reload", "--control", daemon.control().to_str().unwrap()]).code, Some(0));
        // an old worker that waits in accept(2) may still get one
        let mut clients = Vec::new();
        within(LIMIT, "a new one is ended", || {
            if clients.len() < 16 {
                clients.push(nonblocking(daemon.connect()));
            }
            clients.iter_mut().any(|client| is_end(client.write(b"x")) || is_end(client.read(&mut [0; 64])))
        });
        echoes(&mut before, b"still here");
    }
}

under_models! { [fork prefork thread event coroutine]
    fn a_client_of_http_asks_for_only_so_long(model) {
        let options = format!("{model} --max-lifetime 300ms --service http --route /hello=Hello");
        let daemon = Daemon::start(&options);
        let (start, mut client) = (Instant::now(), daemon.connect());
        within(LIMIT, "it gets no more answers", || {
            let asked = client.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
            asked.is_err() || is_end(client.read(&mut [0; 4096]))
        });
        assert!(start.elapsed() >= LIFETIME, "after {:?}", start.elapsed());
        daemon.has_timed_out(0, &[("lifetime", 1)]);
    }
}

under_models! { [fork prefork thread coroutine]
    fn a_program_ends_with_the_lifetime_of_its_connection(model) {
        // the second one heeds no signal, and the third has left the connection to a process of another group as well
        for line in ["exec cat", "trap '' TERM; cat", "setsid -w cat"] {
            let mut forkd = Forkd::new(&format!("{model} --max-lifetime 300ms")).arg("--exec");
            for word in ["sh", "-c", line] {
                forkd = forkd.arg(word);
            }
            let daemon = forkd.start();
            let start = Instant::now();
            lasts(&mut nonblocking(daemon.connect()), Habit::Drips);
            assert!(start.elapsed() >= LIFETIME, "{line}: after {:?}", start.elapsed());
            daemon.has_timed_out(0, &[("lifetime", 1)]);
            assert_eq!(daemon.listener(0)["failed"], 0, "{line}");
        }
    }
}

/// Connects from the nth address of 127/8 after the usual one.
fn from_source(n: usize, address: SocketAddr) -> TcpStream {
    let SocketAddr::V4(address) = address else { panic!("no address of IPv4") };
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n as u32).octets();
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(source[0], source[1], source[2], source[3], 0)).unwrap();
    connect_to(client.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
    nonblocking(TcpStream::from(client))
}

#[test]
fn a_slow_drip_from_a_thousand_sources_ends() {
    const SOURCES: usize = 1000;
    if !need(may_open(4096), "a thousand connections need more descriptors") {
        return;
    }
    for model in ["fork --max-children 1100", "event"] {
        let daemon = Daemon::start(&format!("-m {model} --max-lifetime 2s --max-per-source 1"));
        let mut clients: Vec<TcpStream> = (1..=SOURCES).map(|n| from_source(n, daemon.addr())).collect();
        within(4 * LIMIT, "all are ended", || {
            clients.retain_mut(|client| !is_end(client.write(b"x")) && !is_end(client.read(&mut [0; 64])));
            clients.is_empty()
        });
        daemon.has_timed_out(0, &[("lifetime", SOURCES as u64)]);
        eventually("others are served", || short_connection(daemon.addr(), b"hello").is_ok());
    }
}
