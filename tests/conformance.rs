//! The same dialogues with CPython's own socketserver classes and with forkd's library: the same answers.
//!
//! That CPython's servers pass shows that the suite asks for what socketserver does. The steps are those
//! of CPython's test_socketserver (stream_examine, dgram_examine, handle_error, shutdown, server_close,
//! verify_request, handle_request with a time-out, nothing left of threads and children), and some more.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;

use common::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

/// What a client does, and what must come of it.
enum Step {
    Send(&'static [u8]),
    /// A line of so many bytes, and the same back.
    Long(usize),
    /// No more will come.
    HalfClose,
    Expect(&'static [u8]),
    /// The server ends the connection, and says nothing more.
    End,
}
use Step::{End, Expect, HalfClose, Long, Send};

const STREAMS: &[&[Step]] = &[
    &[Send(b"hello world\n"), Expect(b"hello world\n"), End],
    &[Send(b"hello"), Send(b" world\n"), Expect(b"hello world\n"), End],
    &[Send(b"one\ntwo\n"), Expect(b"one\n"), End],
    &[Send(b"no end of the line"), HalfClose, Expect(b"no end of the line"), End],
    &[HalfClose, End],
    &[Send(b"\n"), Expect(b"\n"), End],
    &[Send(b"\0\xff\r\x80\n"), Expect(b"\0\xff\r\x80\n"), End],
    &[Long(100_000), End],
    &[Send(b"raise\n"), End],
    // gone before anything is said
    &[],
    &[Send(b"the server goes on\n"), Expect(b"the server goes on\n"), End],
];

/// A datagram, and its answer, or what the log says of a failure. Then the answer does not matter: CPython has an
/// empty one where forkd has none.
type Question = (&'static [u8], Result<&'static [u8], &'static str>);

const DATAGRAMS: &[Question] = &[
    (b"hello world\n", Ok(b"hello world\n")),
    (b"one\ntwo\n", Ok(b"one\n")),
    (b"no end of the line", Ok(b"no end of the line")),
    (b"", Ok(b"")),
    (b"\0\xff\r\x80\n", Ok(b"\0\xff\r\x80\n")),
    // as long as socketserver takes them (max_packet_size)
    (&[b'x'; 8192], Ok(&[b'x'; 8192])),
    (b"raise\n", Err("handled as was wished")),
    (b"the server goes on\n", Ok(b"the server goes on\n")),
];

const STREAM_STEPS: &[&[Step]] = &[
    &[Send(b"-text\n"), Expect(b"setup handle text\n finish"), End],
    &[Send(b"h"), Expect(b"setup handle  finish"), End],
    &[Send(b"s"), Expect(b"setup "), End],
    &[Send(b"-more\n"), Expect(b"setup handle more\n finish"), End],
];

const DATAGRAM_STEPS: &[Question] = &[
    (b"-text\n", Ok(b"setup handle text\n finish")),
    (b"h", Ok(b"setup handle  finish")),
    (b"s", Err("handled setup, as was wished")),
    (b"-more\n", Ok(b"setup handle more\n finish")),
];

/// A server class of CPython, or forkd under a model.
#[derive(Clone, Copy)]
enum Side {
    Cpython(&'static str),
    Forkd(&'static str),
}

struct Server {
    daemon: Daemon,
    transport: &'static str,
}

impl Server {
    #[track_caller]
    fn start(side: Side, transport: &'static str, handler: &str) -> Self {
        let endpoint = match transport {
            "tcp" | "udp" => format!("{transport}://127.0.0.1:0"),
            _ => format!("{transport}://{{dir}}/socket"),
        };
        let args = |name| format!("{name} {handler} {endpoint} {{dir}}/stop");
        let server = match side {
            Side::Forkd(model) => Forkd::example("test-conformance", &args(model)),
            Side::Cpython(class) => {
                let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/server.py");
                Forkd::script(script, &args(class)).within(&["python3"])
            }
        };
        Self { daemon: server.start(), transport }
    }

    fn is_stream(&self) -> bool {
        matches!(self.transport, "tcp" | "unix")
    }

    fn has_addresses(&self) -> bool {
        matches!(self.transport, "tcp" | "udp")
    }

    #[track_caller]
    fn talk(&self, dialogues: &[&[Step]]) {
        for (number, steps) in dialogues.iter().enumerate() {
            let mut client = wire::stream(&self.daemon);
            steps.iter().for_each(|step| follow(&mut client, step, number));
        }
    }

    #[track_caller]
    fn ask(&self, questions: &[Question]) {
        for (question, answer) in questions {
            // a socket for each: an answer that does not matter is no other's
            let client = wire::datagrams(&self.daemon);
            client.send(question).unwrap();
            match answer {
                Ok(answer) => {
                    let heard = wire::receive(&client).unwrap_or_else(|e| panic!("{e} for {question:?}"));
                    assert!(heard == *answer, "{heard:?} for {question:?}");
                }
                // while its client is there
                Err(line) => _ = self.daemon.wait_for_line(line),
            }
        }
    }

    /// A line, and the same back.
    #[track_caller]
    fn examine(&self) {
        match self.is_stream() {
            true => self.talk(&[&[Send(b"hello world\n"), Expect(b"hello world\n"), End]]),
            false => self.ask(&[(b"hello world\n", Ok(b"hello world\n"))]),
        }
    }

    fn address(&self) -> SocketAddr {
        self.daemon.address(self.transport)
    }

    /// A client from this address of the loopback network, with time-outs.
    fn client_from(&self, address: Ipv4Addr) -> UnixStream {
        let kind = if self.is_stream() { SockType::Stream } else { SockType::Datagram };
        let client = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let SocketAddr::V4(server) = self.address() else { panic!("no IPv4") };
        bind(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, 0))).unwrap();
        connect(client.as_raw_fd(), &SockaddrIn::from(server)).unwrap();
        let client = UnixStream::from(client);
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }

    /// Has it end, as `shutdown` and `server_close` do, and sees that it has gone.
    #[track_caller]
    fn stop(self) {
        let Self { daemon, transport } = &self;
        std::fs::write(daemon.path("stop"), "").unwrap();
        assert_eq!(daemon.wait().code(), Some(0));
        eventually("no process is left", || daemon.is_gone());
        match *transport {
            "tcp" => assert!(is_refused(self.address())),
            "udp" => _ = UdpSocket::bind(self.address()).unwrap(),
            "unix" => assert!(UnixStream::connect(daemon.path("socket")).is_err()),
            _ => assert!(UnixDatagram::unbound().unwrap().connect(daemon.path("socket")).is_err()),
        }
    }
}

#[track_caller]
fn follow(client: &mut UnixStream, step: &Step, number: usize) {
    match step {
        Send(bytes) => client.write_all(bytes).unwrap(),
        HalfClose => client.shutdown(Shutdown::Write).unwrap(),
        Expect(bytes) => {
            let mut heard = vec![0; bytes.len()];
            let read = client.read_exact(&mut heard);
            read.unwrap_or_else(|e| {
                panic!("dialogue {number}: {e} after {:?}", String::from_utf8_lossy(&heard))
            });
            assert!(heard == *bytes, "dialogue {number}: {:?}", String::from_utf8_lossy(&heard));
        }
        Long(length) => {
            let mut line = vec![b'x'; *length];
            line.push(b'\n');
            client.write_all(&line).unwrap();
            let mut heard = vec![0; line.len()];
            client.read_exact(&mut heard).unwrap();
            assert!(heard == line, "dialogue {number}: another line comes back");
        }
        End => {
            let mut rest = Vec::new();
            let ended = client.read_to_end(&mut rest);
            assert!(ended.is_ok() && rest.is_empty(), "dialogue {number}: {ended:?}, {rest:?}");
        }
    }
}

/// The dialogues, errors, and what a handler knows.
fn answers(side: Side, transport: &'static str) {
    let server = Server::start(side, transport, "lines");
    match server.is_stream() {
        true => server.talk(STREAMS),
        false => server.ask(DATAGRAMS),
    }
    server.daemon.wait_for_line("handled as was wished");
    if server.has_addresses() {
        // verify_request refuses 127.0.0.2
        let [mut refused, mut client] = [2, 3].map(|last| server.client_from(Ipv4Addr::new(127, 0, 0, last)));
        if !server.is_stream() {
            refused.write_all(b"hello\n").unwrap();
        }
        client.write_all(b"who\n").unwrap();
        let mut heard = [0; 100];
        let n = client.read(&mut heard).unwrap();
        let expected = format!("{} at {}\n", local(&client), server.address().port());
        assert_eq!(String::from_utf8_lossy(&heard[..n]), expected);
        match server.is_stream() {
            true => assert_eq!(refused.read(&mut heard).unwrap(), 0, "a client that was refused"),
            false => {
                refused.set_nonblocking(true).unwrap();
                assert!(refused.read(&mut heard).is_err(), "a datagram that was refused has an answer");
            }
        }
    }
    nothing_is_left(&server);
    server.stop();
}

fn local(client: &UnixStream) -> SocketAddr {
    let name: SockaddrIn = nix::sys::socket::getsockname(client.as_raw_fd()).unwrap();
    SocketAddrV4::from(name).into()
}

/// Of 40 clients no threads, children or descriptors are left: each would leave one, at least. A pool may still
/// be growing to its size meanwhile, and CPython collects its children now and then.
#[track_caller]
fn nothing_is_left(server: &Server) {
    let pid = server.daemon.pid();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    let count = || [threads(), children_of(pid).len(), fds_of(pid).len()];
    let before = count();
    (0..40).for_each(|_| server.examine());
    eventually("threads, children and descriptors go", || {
        count().into_iter().zip(before).all(|(now, before)| now < before + 20)
    });
}

/// The methods of a handler, in their order, also where they fail.
fn steps(side: Side, transport: &'static str) {
    let server = Server::start(side, transport, "steps");
    match server.is_stream() {
        true => server.talk(STREAM_STEPS),
        false => server.ask(DATAGRAM_STEPS),
    }
    server.daemon.wait_for_line("handled setup, as was wished");
    server.daemon.wait_for_line("handled handle, as was wished");
    server.stop();
}

/// One request after the other, by handle_request.
fn single(side: Side, transport: &'static str) {
    let server = Server::start(side, transport, "single");
    server.daemon.wait_for_lines(2, "timed out");
    for _ in 0..3 {
        let turns = server.daemon.count_lines("one turn");
        server.examine();
        server.daemon.wait_for_lines(turns + 1, "one turn");
    }
    let before = server.daemon.count_lines("timed out");
    server.daemon.wait_for_lines(before + 2, "timed out");
    server.stop();
}

/// `conformance! { name: "Class" on "transport" as "model", "model"; }`
macro_rules! conformance {
    ($($name:ident: $class:literal on $transport:literal as [$($model:ident $steps:tt),*];)*) => {
        /// What is compared.
        const CLASSES: &[&str] = &[$($class),*];

        $(
        mod $name {
            use super::*;

            mod cpython {
                use super::*;

                conformance!(@each Side::Cpython($class), $transport, [answers, steps, single]);
            }
            $(
                mod $model {
                    use super::*;

                    conformance!(@each Side::Forkd(stringify!($model)), $transport, $steps);
                }
            )*
        }
        )*
    };
    (@each $side:expr, $transport:literal, [$($step:ident),*]) => {$(
        #[test]
        fn $step() {
            if matches!($side, Side::Cpython(_)) && !need_tool("python3") {
                return;
            }
            super::super::$step($side, $transport);
        }
    )*};
}

// the workers of a pool have no handle_request
conformance! {
    tcp: "TCPServer" on "tcp" as [iterative [answers, steps, single]];
    udp: "UDPServer" on "udp" as [iterative [answers, steps, single]];
    unix: "UnixStreamServer" on "unix" as [iterative [answers, steps, single]];
    unix_datagram: "UnixDatagramServer" on "unixgram" as [iterative [answers, steps, single]];
    threading_tcp: "ThreadingTCPServer" on "tcp"
        as [thread [answers, steps, single], coroutine [answers, steps, single]];
    threading_udp: "ThreadingUDPServer" on "udp"
        as [thread [answers, steps, single], coroutine [answers, steps, single]];
    threading_unix: "ThreadingUnixStreamServer" on "unix"
        as [thread [answers, steps, single], coroutine [answers, steps, single]];
    threading_unix_datagram: "ThreadingUnixDatagramServer" on "unixgram"
        as [thread [answers, steps, single], coroutine [answers, steps, single]];
    forking_tcp: "ForkingTCPServer" on "tcp" as [fork [answers, steps, single], prefork [answers, steps]];
    forking_udp: "ForkingUDPServer" on "udp" as [fork [answers, steps, single], prefork [answers, steps]];
    forking_unix: "ForkingUnixStreamServer" on "unix"
        as [fork [answers, steps, single], prefork [answers, steps]];
    forking_unix_datagram: "ForkingUnixDatagramServer" on "unixgram"
        as [fork [answers, steps, single], prefork [answers, steps]];
}

/// Of the version of CPython that is here; `BaseServer` is what the others are made of.
#[test]
fn every_class_of_socketserver_has_its_place() {
    if !need_tool("python3") {
        return;
    }
    let script = "import socketserver as s\n\
                  for name in s.__all__:\n\
                  \x20   what = getattr(s, name)\n\
                  \x20   if isinstance(what, type) and issubclass(what, s.BaseServer): print(name)";
    let output = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    let classes = String::from_utf8(output.stdout).unwrap();
    assert!(classes.lines().count() >= 11, "{classes}");
    let missing: Vec<&str> =
        classes.lines().filter(|class| *class != "BaseServer" && !CLASSES.contains(class)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
