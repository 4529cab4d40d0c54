//! `forkd serve --inetd`: standard input is the connection.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

/// A `forkd serve --inetd`; killed when dropped.
struct Served(Child);

impl Served {
    /// As inetd starts it: the connection is all three streams.
    #[track_caller]
    fn by_inetd(connection: impl AsFd, args: &str) -> Self {
        let copy = || Stdio::from(connection.as_fd().try_clone_to_owned().unwrap());
        Self(command(args).stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap())
    }

    /// As systemd does: standard error is the log, which [`Served::log`] returns.
    #[track_caller]
    fn by_systemd(connection: impl AsFd, args: &str) -> Self {
        let copy = Stdio::from(connection.as_fd().try_clone_to_owned().unwrap());
        Self(command(args).stdin(copy).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits for its end; the exit code, if it was no signal.
    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("it ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    fn log(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(args: &str) -> Command {
    let mut command = forkd_command();
    command.args(["serve", "--inetd"]).args(args.split_whitespace()).process_group(0);
    command
}

/// A client and the accepted connection.
fn tcp() -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let server = listener.accept().unwrap().0;
    // an inetd may like it so
    server.set_nonblocking(true).unwrap();
    (client, server)
}

#[test]
fn one_process_serves_the_connection_and_ends_with_it() {
    let (mut client, server) = tcp();
    let mut served = Served::by_inetd(server, "--log-level debug");
    echoes(&mut client, b"hello");
    assert!(children_of(served.pid()).is_empty());
    let payload = wire::noise(1, 1 << 20);
    let mut writer = client.try_clone().unwrap();
    let sent = payload.clone();
    let writer = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back == payload, "{} bytes came back; not a line of the log is among them", back.len());
    assert_eq!(served.ended(), Some(0));
}

/// Whether what this process has of a socket doesn't block.
fn is_nonblocking(socket: &impl AsFd) -> bool {
    OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

#[test]
fn others_that_share_the_connection_have_it_block_or_not_as_before() {
    let root = tempfile::tempdir().unwrap();
    let file = wire::noise(2, 3 << 20);
    std::fs::write(root.path().join("file"), &file).unwrap();
    let http = format!("--service http --root {}", root.path().display());
    for is_set in [false, true] {
        let (mut client, server) = tcp();
        server.set_nonblocking(is_set).unwrap();
        let mut served = Served::by_systemd(&server, "");
        echoes(&mut client, b"hello");
        echoes(&mut client, &wire::noise(1, 100_000));
        assert_eq!(is_nonblocking(&server), is_set);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(served.ended(), Some(0));

        let (mut client, server) = tcp();
        server.set_nonblocking(is_set).unwrap();
        let mut served = Served::by_systemd(&server, &http);
        client.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = vec![0; 9];
        client.read_exact(&mut answer).unwrap();
        drop(server);
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(&file), "{} bytes", answer.len());
        drop(client);
        assert_eq!(served.ended(), Some(0));

        // no wait is longer than may be, for a client that reads nothing either
        for args in ["--service chargen", http.as_str()] {
            let (mut client, server) = tcp();
            server.set_nonblocking(is_set).unwrap();
            client.write_all(&b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)).unwrap();
            let mut served = Served::by_systemd(&server, &format!("{args} --idle-timeout 100ms"));
            assert_eq!(served.ended(), Some(0), "{args}");
            assert_eq!(is_nonblocking(&server), is_set, "{args}");
        }
    }
    for is_set in [false, true] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(is_set).unwrap();
        let mut served = Served::by_systemd(&socket, "--idle-timeout 50ms");
        assert_eq!(served.ended(), Some(0));
        assert_eq!(is_nonblocking(&socket), is_set);
    }
}

#[test]
fn a_unix_connection_is_served_and_the_log_is_where_it_was() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut served = Served::by_systemd(server, "--log-level debug");
    echoes(&mut client, b"hello");
    drop(client);
    assert_eq!(served.ended(), Some(0));
    let log = served.log();
    assert!(log.contains("debug: connection closed peer=\"unix:pid="), "{log}");
}

#[test]
fn a_silent_client_and_a_signal_end_it() {
    let (mut client, server) = tcp();
    let mut served = Served::by_systemd(server, "--idle-timeout 100ms");
    assert!(is_cut(&mut client));
    assert_eq!(served.ended(), Some(0));

    let (mut client, server) = tcp();
    let mut served = Served::by_inetd(server, "");
    echoes(&mut client, b"x");
    signal(served.pid(), Signal::SIGTERM);
    assert!(is_cut(&mut client));
    assert_eq!(served.ended(), None);
}

#[test]
fn a_client_that_has_vanished_ends_it() {
    let (mut client, server) = tcp();
    let mut served = Served::by_inetd(server, "--keepalive 2s");
    echoes(&mut client, b"x");
    vanishes(&client);
    assert_eq!(served.ended(), Some(0));
}

#[test]
fn a_client_that_has_gone_already_is_no_failure() {
    let (client, server) = tcp();
    reset(client);
    let mut served = Served::by_systemd(server, "");
    assert_eq!(served.ended(), Some(0));
    assert_eq!(served.log(), "");
}

#[test]
fn a_connection_lasts_for_so_long_whatever_its_client_does() {
    let (mut client, server) = tcp();
    let mut served = Served::by_systemd(server, "--max-lifetime 300ms --log-level debug");
    eventually("it is over", || {
        client.write_all(b"x").is_err() || !client.read(&mut [0]).is_ok_and(|length| length > 0)
    });
    assert_eq!(served.ended(), Some(0));
    let log = served.log();
    assert!(log.contains("debug: connection ended") && log.contains("lasted too long"), "{log}");
}

#[test]
fn datagrams_are_answered_until_none_comes() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.2", port)).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    for n in 0..20_u8 {
        client.send(&[n; 9]).unwrap();
    }
    let mut served = Served::by_inetd(&socket, "--idle-timeout 500ms");
    let mut answer = [0; 16];
    for n in 0..20 {
        assert_eq!(client.recv(&mut answer).expect("an answer"), 9);
        assert_eq!(answer[..9], [n; 9]);
    }
    client.send(b"later").unwrap();
    assert_eq!(client.recv(&mut answer).expect("an answer"), 5);
    assert_eq!(served.ended(), Some(0));
    // the socket is inetd's, and goes on
    client.send(b"next").unwrap();
    let mut next = Served::by_systemd(&socket, "--idle-timeout 50ms");
    assert_eq!(client.recv(&mut answer).expect("an answer"), 4);
    assert_eq!(next.ended(), Some(0));
}

#[test]
fn a_datagram_that_could_loop_is_not_answered() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let twin = UdpSocket::bind(("127.0.0.2", address.port())).unwrap();
    twin.send_to(b"x", address).unwrap();
    let mut served = Served::by_inetd(&socket, "--idle-timeout 50ms");
    assert_eq!(served.ended(), Some(0));
    twin.set_nonblocking(true).unwrap();
    assert!(twin.recv(&mut [0]).is_err());
}

#[test]
fn what_is_no_connection_is_64() {
    let (pipe, _writer) = std::io::pipe().unwrap();
    let (listener, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let unix = UnixListener::bind(unix.path().join("s")).unwrap();
    for (stdin, why) in [
        (OwnedFd::from(pipe), "cannot serve standard input, which is no socket"),
        (listener.into(), "which is a listening socket"),
        (unix.into(), "which is a listening socket"),
        (UnixDatagram::pair().unwrap().0.into(), "which is connected, to one peer only"),
    ] {
        let mut served = Served::by_systemd(stdin, "");
        assert_eq!(served.ended(), Some(64));
        let log = served.log();
        assert!(log.starts_with("forkd: error: ") && log.contains(why) && log.contains("nowait"), "{log}");
    }
}

#[test]
fn an_error_is_not_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut client, server) = tcp();
    for args in ["--idle-timeout 1us", "--idle-timeout 1us --log stderr"] {
        let mut served = Served::by_inetd(&server, args);
        assert_eq!(served.ended(), Some(64), "{args}");
    }
    drop((server, listener));
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"");
}

#[test]
fn what_makes_no_sense_for_one_connection_is_refused() {
    for option in ["tcp://127.0.0.1:0", "--daemon", "--workers=3", "--config=x", "--control=x", "--grace=1s"]
    {
        let ended = run(&["serve", "--inetd", option]);
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains("'--inetd' cannot be used with"), "{ended:?}");
    }
    let (_client, server) = tcp();
    for (variable, value) in
        [("FORKD_WORKERS", "3"), ("FORKD_ENDPOINTS", "tcp://127.0.0.1:0"), ("FORKD_CONFIG", "x")]
    {
        let mut asked = command("");
        asked.env(variable, value).stdin(OwnedFd::from(server.try_clone().unwrap())).stderr(Stdio::piped());
        let mut served = Served(asked.spawn().unwrap());
        assert_eq!(served.ended(), Some(64), "{variable}");
        assert_eq!(served.log(), format!("forkd: error: {variable} cannot be used with --inetd\n"));
    }
}

#[test]
fn it_ends_soon_after_its_client() {
    let (client, server) = tcp();
    let mut served = Served::by_inetd(server, "");
    let start = Instant::now();
    drop(client);
    assert_eq!(served.ended(), Some(0));
    assert!(start.elapsed() < LIMIT);
}
