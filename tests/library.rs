//! The library, used from outside: the example for users, and servers made to misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};

use common::{Daemon, Forkd, LIMIT, echoes, eventually, fds_of, is_cut, short_connection, threads_of};
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

const MODELS: [&str; 4] = ["fork", "prefork", "thread", "threads"];

#[test]
fn the_example_shouts_over_tcp_and_udp_under_each_model() {
    for model in ["fork", "prefork", "thread"] {
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
    for model in MODELS {
        let server = example("test-servers", &format!("steps tcp://127.0.0.1:0 {model}"));
        assert_eq!(talk(&server, "-text"), "setup handle text finish", "{model}");
        assert_eq!(talk(&server, "h"), "setup handle  finish", "{model}: also when handle failed");
        assert_eq!(talk(&server, "s"), "setup ", "{model}: but not when setup did");
        for what in ["setup, as was wished", "handle, as was wished"] {
            let line = server.wait_for_line(what);
            assert!(line.starts_with("forkd: warning: handler failed peer=127.0.0.1:"), "{line}");
        }
        assert_eq!(talk(&server, "-more"), "setup handle more finish", "{model}: the server goes on");
        reports(&server, "failed=2 ");
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
        reports(&server, "failed=1 ");
        assert_eq!(server.count_lines("cause=panicked"), 1, "{model}");
    }
}

#[test]
fn a_datagram_whose_handler_panics_costs_no_other_its_answer() {
    for model in MODELS {
        let server = example("test-servers", &format!("fragile udp://127.0.0.1:0 {model}"));
        let socket = udp(&server);
        // all are queued before anybody looks, as in a burst
        server.settles_at(match model {
            "fork" => 0,
            "prefork" => 2,
            _ => 1,
        });
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
        reports(&server, "failed=2 ");
    }
}

#[test]
fn of_threads_that_panic_nothing_is_left() {
    for (model, threads) in [("thread", 1), ("threads", 1 + 4)] {
        let server = example("test-servers", &format!("fragile tcp://127.0.0.1:0 {model}"));
        short_connection(server.addr(), b"x").unwrap();
        let worker = server.children()[0];
        let descriptors = fds_of(worker).len();
        for _ in 0..20 {
            let mut victim = server.connect();
            victim.write_all(b"panic").unwrap();
            assert!(is_cut(&mut victim), "{model}");
        }
        server.wait_for_lines(20, "cause=panicked");
        eventually("no thread is left", || threads_of(worker).len() == threads);
        eventually("no descriptor is left", || fds_of(worker).len() <= descriptors);
        assert_eq!(server.children(), [worker], "{model}");
    }
}

#[test]
fn a_thread_that_overflows_its_stack_is_recorded_as_a_crash_and_its_worker_replaced() {
    for (model, portable) in [("thread", false), ("thread", true), ("threads", true)] {
        let base = Forkd::example("test-servers", &format!("fragile tcp://127.0.0.1:0 {model}"));
        let server = base.portable(portable).start();
        let worker = server.children();
        let mut victim = server.connect();
        victim.write_all(b"overflow").unwrap();
        assert!(is_cut(&mut victim), "{model}");
        let line = server.wait_for_line("worker crashed");
        assert!(line.contains("cause=SIGSEGV") && line.contains("peer=127.0.0.1:"), "{line}");
        assert_eq!(talk(&server, "three"), "three", "{model}");
        assert_ne!(server.children(), worker);
    }
}

#[test]
fn a_slow_datagram_or_connection_does_not_hold_up_others() {
    for model in ["thread", "threads"] {
        let server = example("test-servers", &format!("turnstile udp://127.0.0.1:0 {model}"));
        let slow = udp(&server);
        slow.send(b"wait").unwrap();
        slow.set_nonblocking(true).unwrap();
        common::holds_for(std::time::Duration::from_millis(200), "it waits", || {
            slow.recv(&mut [0; 9]).is_err()
        });
        slow.set_nonblocking(false).unwrap();
        assert_eq!(ask(&server, "go"), "go", "{model}");
        assert_eq!(receive(&slow), "wait", "{model}");
        assert_eq!(server.children().len(), 1);

        let server = example("test-servers", &format!("turnstile tcp://127.0.0.1:0 {model}"));
        let mut slow: Vec<_> = (0..3).map(|_| server.connect()).collect();
        slow.iter_mut().for_each(|client| client.write_all(b"wait").unwrap());
        assert_eq!(talk(&server, "go"), "go", "{model}");
        for mut client in slow {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "wait", "{model}");
        }
    }
}

#[test]
fn the_signal_to_stop_does_not_cut_short_what_a_protocol_waits_for() {
    for model in MODELS.into_iter().filter(|&model| model != "fork") {
        let server = example("test-servers", &format!("patient tcp://127.0.0.1:0 {model}"));
        let mut client = server.served();
        server.signal(Signal::SIGTERM);
        server.wait_for_line("stopping");
        assert!(common::is_silent(&client, std::time::Duration::from_millis(200)), "{model}");
        echoes(&mut client, b"in time");
        drop(client);
        assert_eq!(server.wait().code(), Some(0), "{model}");
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
