//! The reactor as a program of one's own uses it: listen, connect, timers, all in one thread.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{LIMIT, free_port, set_limit};
use forkd_server::reactor::Reactor;
use forkd_server::{Echo, Error, Peer, Protocol, Reply};

/// Says something, collects what comes, and ends when that is as much.
struct Call {
    says: Vec<u8>,
    heard: Vec<u8>,
}

impl Call {
    fn new(says: impl Into<Vec<u8>>) -> Self {
        Self { says: says.into(), heard: Vec::new() }
    }
}

impl Protocol for Call {
    fn connected(&mut self, _: Peer) -> Reply<'_> {
        Reply::More(&self.says)
    }

    /// An echo of much comes while much is still to be sent.
    fn listens(&self) -> bool {
        true
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.heard.extend_from_slice(input);
        if self.heard.len() < self.says.len() { Reply::Wait } else { Reply::Finish(b"") }
    }
}

/// Never says anything, nor ends.
struct Silent;

impl Protocol for Silent {
    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
    }
}

struct Brittle;

impl Protocol for Brittle {
    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        std::panic::resume_unwind(Box::new("as was wished"))
    }
}

/// Fails the test if it takes too long.
fn reactor<'a>() -> Reactor<'a> {
    let mut reactor = Reactor::new().unwrap();
    reactor.call_later(LIMIT, |_| panic!("time is up"));
    reactor
}

#[test]
fn a_thousand_conversations_in_one_thread() {
    const CALLS: usize = 1000;
    set_limit(0, libc::RLIMIT_NOFILE, 3 * CALLS as u64).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for endpoint in ["tcp://127.0.0.1:0", &format!("unix://{}/s", dir.path().display())] {
        let done = Cell::new(0);
        let mut reactor = reactor();
        let server = reactor.listen(endpoint, |_| Echo).unwrap();
        let address = server.endpoints().next().unwrap().to_string();
        for number in 0..CALLS {
            // some more than a socket takes at once
            let says = format!("{number} ").repeat(if number % 100 == 0 { 300_000 } else { 3 });
            let call = Call::new(says);
            let on_closed = |reactor: &mut Reactor<'_>, call: Call, outcome: io::Result<()>| {
                outcome.unwrap();
                assert!(call.heard == call.says);
                done.set(done.get() + 1);
                if done.get() == CALLS {
                    reactor.stop();
                }
            };
            reactor.connect(&address, call, on_closed).unwrap();
        }
        reactor.run().unwrap();
        assert_eq!(done.get(), CALLS);
    }
}

#[test]
fn it_ends_when_nothing_is_left() {
    let calls = Cell::new(0);
    let mut reactor = Reactor::new().unwrap();
    let server = reactor.listen("tcp://127.0.0.1:0", |_| Echo).unwrap();
    let address = server.endpoints().next().unwrap().to_string();
    reactor
        .connect(&address, Call::new("x"), |reactor, _, outcome| {
            outcome.unwrap();
            calls.set(calls.get() + 1);
            reactor.unlisten(server);
        })
        .unwrap();
    // no stop, no time-out: the last one closes the door
    reactor.run().unwrap();
    assert_eq!(calls.get(), 1);
    assert!(std::net::TcpStream::connect(address.strip_prefix("tcp://").unwrap()).is_err());
}

#[test]
fn what_goes_wrong_is_told_to_the_callback_which_gets_the_protocol_back() {
    let free = format!("127.0.0.1:{}", free_port());
    let errors = RefCell::new(Vec::new());
    let mut reactor = Reactor::new().unwrap();
    for endpoint in [
        &format!("tcp://{free}"),
        "unix:///no/such/socket",
        "tcp://no-such-host.invalid:7",
        "tcp://127.0.0.1:0",
    ] {
        reactor
            .connect(endpoint, Call::new(endpoint), |_, call, outcome| {
                errors
                    .borrow_mut()
                    .push((String::from_utf8(call.says).unwrap(), outcome.unwrap_err().kind()));
            })
            .unwrap();
        assert!(errors.borrow().is_empty(), "not before connect has returned");
    }
    reactor.run().unwrap();
    drop(reactor);
    let errors = errors.into_inner();
    let of = |part: &str| errors.iter().find(|(says, _)| says.contains(part)).unwrap().1;
    assert_eq!(of(&free.to_string()), ErrorKind::ConnectionRefused);
    assert_eq!(of("/no/such/socket"), ErrorKind::NotFound);
    assert_eq!(of("no-such-host"), ErrorKind::NotFound);
    assert_eq!(errors.len(), 4);
}

#[test]
fn what_is_no_endpoint_to_connect_to_is_said_at_once() {
    let mut reactor = Reactor::new().unwrap();
    for (endpoint, part) in
        [("udp://127.0.0.1:7", "connections are made to tcp://HOST:PORT"), ("127.0.0.1:7", "has no scheme")]
    {
        let error = reactor.connect(endpoint, Silent, |_, _, _| unreachable!()).unwrap_err();
        assert!(matches!(&error, Error::Usage(why) if why.contains(part)), "{error}");
    }
    let error = reactor.listen("tcp://192.0.2.1:0", |_| Echo).unwrap_err();
    assert_eq!(error.exit_code(), 69, "{error}");
    reactor.run().unwrap();
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    // whose queue is full: the system drops what would make it longer
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: listen(2) changes the queue of a socket that is ours.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let _queued = std::net::TcpStream::connect(address).unwrap();
    let outcome = Cell::new(None);
    let since = Instant::now();
    let mut reactor = Reactor::new().unwrap().connect_timeout(Duration::from_millis(200));
    reactor
        .connect(&format!("tcp://{address}"), Silent, |_, _, result| {
            outcome.set(Some((result.unwrap_err().kind(), since.elapsed())));
        })
        .unwrap();
    reactor.run().unwrap();
    let (kind, after) = outcome.get().expect("called back");
    assert_eq!(kind, ErrorKind::TimedOut);
    assert!(after >= Duration::from_millis(200) && after < LIMIT, "{after:?}");
}

#[test]
fn calls_come_in_order_and_not_if_they_are_cancelled() {
    let order = RefCell::new(Vec::new());
    let push = |name| order.borrow_mut().push(name);
    let push = &push;
    let mut reactor = Reactor::new().unwrap();
    let ms = Duration::from_millis;
    reactor.call_later(ms(40), |_| push("d"));
    reactor.call_later(ms(10), |_| push("a"));
    let never = reactor.call_later(ms(20), |_| push("never"));
    reactor.call_later(ms(15), move |reactor| {
        push("b");
        assert!(reactor.cancel(never));
        reactor.call_later(Duration::ZERO, |_| push("c"));
    });
    let since = Instant::now();
    reactor.run().unwrap();
    assert!(since.elapsed() >= ms(40));
    assert!(!reactor.cancel(never));
    drop(reactor);
    assert_eq!(order.into_inner(), ["a", "b", "c", "d"]);
}

#[test]
fn it_can_be_stopped_and_run_again() {
    let count = Cell::new(0);
    let mut reactor = reactor();
    fn tick<'a>(reactor: &mut Reactor<'a>, count: &'a Cell<u32>) {
        count.set(count.get() + 1);
        if count.get().is_multiple_of(10) {
            reactor.stop();
        }
        reactor.call_later(Duration::ZERO, |reactor| tick(reactor, count));
    }
    reactor.call_later(Duration::ZERO, |reactor| tick(reactor, &count));
    for round in 1..=3 {
        reactor.run().unwrap();
        assert_eq!(count.get(), 10 * round);
    }
}

#[test]
fn a_protocol_that_panics_costs_its_own_connection() {
    let ends = RefCell::new(Vec::new());
    let mut reactor = reactor();
    let echo = reactor.listen("tcp://127.0.0.1:0", |_| Echo).unwrap();
    let brittle = reactor.listen("tcp://127.0.0.1:0", |_| Brittle).unwrap();
    let address = |of: &forkd_server::reactor::Listening| of.endpoints().next().unwrap().to_string();
    let (echo, brittle) = (address(&echo), address(&brittle));
    let mut call = |address: &str| {
        reactor
            .connect(address, Call::new("hello"), |reactor, call, _| {
                ends.borrow_mut().push(call.heard);
                if ends.borrow().len() == 4 {
                    reactor.stop();
                }
            })
            .unwrap();
    };
    [&echo, &brittle, &brittle, &echo].into_iter().for_each(|address| call(address));
    reactor.run().unwrap();
    drop(reactor);
    let mut ends = ends.into_inner();
    ends.sort();
    assert_eq!(ends, [&b""[..], b"", b"hello", b"hello"]);
}

#[test]
fn who_is_silent_is_given_up() {
    let outcome = RefCell::new(None);
    let mut reactor = Reactor::new().unwrap().idle_timeout(Duration::from_millis(100));
    let server = reactor.listen("tcp://127.0.0.1:0", |_| Silent).unwrap();
    let address = server.endpoints().next().unwrap().to_string();
    reactor
        .connect(&address, Silent, |reactor, _, result| {
            *outcome.borrow_mut() = Some(result);
            reactor.stop();
        })
        .unwrap();
    reactor.run().unwrap();
    drop(reactor);
    // either end may be the first to lose patience
    let result = outcome.into_inner().unwrap();
    assert!(result.is_ok() || result.unwrap_err().kind() == ErrorKind::TimedOut);
}

#[test]
fn datagrams_are_answered_each_by_a_protocol_of_its_own() {
    /// Says how many datagrams it has had.
    #[derive(Default)]
    struct Count(String);
    impl Protocol for Count {
        fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
            self.0 = format!("{}+{}", self.0.len(), input.len());
            Reply::Send(self.0.as_bytes())
        }
    }
    /// Takes the answers that have come, until there are three.
    fn listen<'a>(reactor: &mut Reactor<'a>, client: &'a UdpSocket, answers: &'a RefCell<Vec<String>>) {
        let mut answer = [0; 100];
        while let Ok(length) = client.recv(&mut answer) {
            answers.borrow_mut().push(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
        if answers.borrow().len() == 3 {
            reactor.stop();
        } else {
            reactor.call_later(Duration::from_millis(5), |reactor| listen(reactor, client, answers));
        }
    }
    let (client, answers) = (UdpSocket::bind("127.0.0.1:0").unwrap(), RefCell::default());
    let mut reactor = reactor();
    let server = reactor.listen("udp://127.0.0.1:0", |_| Count::default()).unwrap();
    let address = server.endpoints().next().unwrap().to_string();
    client.connect(address.strip_prefix("udp://").unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    for payload in [&b"hello"[..], b"", &[0; 2000]] {
        client.send(payload).unwrap();
    }
    listen(&mut reactor, &client, &answers);
    reactor.run().unwrap();
    drop(reactor);
    assert_eq!(answers.into_inner(), ["0+5", "0+0", "0+2000"]);
}

#[test]
fn the_time_that_a_protocol_gives_its_peer_is_kept() {
    /// Waits three times, and then gives up.
    #[derive(Default)]
    struct Patient(u32);
    impl Protocol for Patient {
        fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
            Reply::Wait
        }
        fn deadline(&mut self, now: Instant) -> Option<Instant> {
            Some(now + Duration::from_millis(20))
        }
        fn timed_out(&mut self) -> Reply<'_> {
            self.0 += 1;
            if self.0 < 3 { Reply::Wait } else { Reply::Finish(b"enough") }
        }
    }
    let heard = RefCell::new(Vec::new());
    let since = Instant::now();
    let mut reactor = reactor();
    let server = reactor.listen("tcp://127.0.0.1:0", |_| Patient::default()).unwrap();
    let address = server.endpoints().next().unwrap().to_string();
    reactor
        .connect(&address, Call::new("six is more"), |reactor, call, outcome| {
            outcome.unwrap();
            heard.replace(call.heard);
            reactor.stop();
        })
        .unwrap();
    reactor.run().unwrap();
    drop(reactor);
    assert_eq!(heard.into_inner(), b"enough");
    assert!(since.elapsed() >= Duration::from_millis(60));
}
