//! The library, used from outside: the example for users, and servers made to misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};

use common::{Daemon, Forkd, LIMIT, echoes, eventually, is_cut};
use nix::sys::signal::Signal;

fn example(name: &str, args: &str) -> Daemon {
    Forkd::example(name, args).start()
}

/// Sends `text` and the end of it; returns all that comes.
#[track_caller]
fn talk(server: &Daemon, text: &str) -> String {
    let mut stream = server.connect();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{e} after {answer:?}"));
    answer
}

fn udp(server: &Daemon) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address("udp")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

#[track_caller]
fn receive(socket: &UdpSocket) -> String {
    let mut buffer = [0; 2048];
    let n = socket.recv(&mut buffer).expect("an answer");
    String::from_utf8(buffer[..n].to_vec()).unwrap()
}

#[track_caller]
fn ask(server: &Daemon, text: &str) -> String {
    let socket = udp(server);
    socket.send(text.as_bytes()).unwrap();
    receive(&socket)
}

/// Waits until a SIGUSR1 makes the server say this of itself.
#[track_caller]
fn reports(server: &Daemon, part: &str) {
    eventually(part, || {
        server.signal(Signal::SIGUSR1);
        server.log().iter().any(|line| line.contains("status of ") && line.contains(part))
    });
}

const MODELS: [&str; 2] = ["fork", "prefork"];

#[test]
fn the_example_shouts_over_tcp_and_udp_under_each_model() {
    for model in MODELS {
        let server = example("shout", &format!("tcp://127.0.0.1:0 {model}"));
        let answer = talk(&server, "hello\nworld");
        let (greeting, loud) = answer.split_once('\n').unwrap();
        assert!(greeting.starts_with("HELLO 127.0.0.1:"), "{greeting}");
        assert!(!greeting.contains(&format!("PROCESS {} ", server.pid())), "served by the master");
        assert_eq!(loud, "HELLO\nWORLD");
        // `Finish` ends the connection while the client's side is still open
        let mut stream = server.connect();
        stream.write_all(b"bye").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\nBYE"), "{answer:?}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0), "{model}");

        let server = example("shout", &format!("udp://127.0.0.1:0 {model}"));
        assert_eq!(ask(&server, "hello"), "HELLO");
        assert_eq!(ask(&server, ""), "");
        server.signal(Signal::SIGINT);
        assert_eq!(server.wait().code(), Some(0), "{model}");
    }
}

#[test]
fn a_handler_is_set_up_handles_and_finishes_in_this_order() {
    for model in ["fork", "prefork", "coroutine"] {
        let server = example("test-servers", &format!("steps tcp://127.0.0.1:0 {model}"));
        assert_eq!(talk(&server, "-text"), "setup handle text finish", "{model}");
        assert_eq!(talk(&server, "h"), "setup handle  finish", "{model}: also when handle failed");
        assert_eq!(talk(&server, "s"), "setup ", "{model}: but not when setup did");
        for what in ["setup, as was wished", "handle, as was wished"] {
            let line = server.wait_for_line(what);
            assert!(line.starts_with("forkd: warning: handler failed peer=127.0.0.1:"), "{line}");
        }
        assert_eq!(talk(&server, "-more"), "setup handle more finish", "{model}: the server goes on");
        let server = example("test-servers", &format!("steps udp://127.0.0.1:0 {model}"));
        assert_eq!(ask(&server, "-text"), "setup handle text finish", "{model}");
    }
}

#[test]
fn a_handler_that_panics_costs_its_connection_and_is_counted() {
    for model in MODELS {
        let server = example("test-servers", &format!("fragile tcp://127.0.0.1:0 {model}"));
        let mut bystander = server.served();
        let mut victim = server.connect();
        victim.write_all(b"panic").unwrap();
        assert!(is_cut(&mut victim), "{model}");
        let line = server.wait_for_line("cause=panicked");
        assert!(
            line.contains("error: ") && line.contains(" failed ") && line.contains("peer=127.0.0.1:"),
            "{line}"
        );
        echoes(&mut bystander, b"nothing happened");
        assert_eq!(talk(&server, "three"), "three", "{model}: new clients are served");
        reports(&server, "panicked:1");
    }
}

#[test]
fn a_datagram_whose_handler_panics_costs_no_other_its_answer() {
    for model in MODELS {
        let server = example("test-servers", &format!("fragile udp://127.0.0.1:0 {model}"));
        let socket = udp(&server);
        // all are queued before anybody looks, as in a burst
        server.settles_at(if model == "prefork" { 2 } else { 0 });
        let servers: Vec<i32> = server.children().into_iter().chain([server.pid()]).collect();
        servers.iter().copied().for_each(common::stopped);
        let wanted: Vec<String> = (0..80).map(|i| format!("{i:02}")).collect();
        for (i, text) in wanted.iter().enumerate() {
            socket.send(text.as_bytes()).unwrap();
            if [50, 60].contains(&i) {
                socket.send(b"panic").unwrap();
            }
        }
        servers.iter().for_each(|&pid| common::signal(pid, Signal::SIGCONT));
        let mut answers: Vec<String> = wanted.iter().map(|_| receive(&socket)).collect();
        answers.sort();
        assert_eq!(answers, wanted, "{model}");
        reports(&server, "panicked:2");
    }
}

#[test]
fn a_server_in_a_process_with_threads_is_an_error_and_no_hang() {
    for model in MODELS {
        let server = example("test-servers", &format!("threads tcp://127.0.0.1:0 {model}"));
        assert_eq!(server.wait().code(), Some(1), "{model}");
        server.wait_for_line("more than one thread");
    }
}
