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

/// Those that fork whatever is said about workers.
const FORKING: [&str; 2] = ["fork", "prefork"];

/// Also where a process has one connection at a time, and waits for its client.
#[test]
fn a_thread_of_a_child_or_a_worker_writes_to_its_client_at_any_time() {
    for model in ["fork", "prefork", "thread", "event", "coroutine"] {
        let server = example("test-servers", &format!("pushed tcp://127.0.0.1:0 {model}"));
        let mut heard = String::new();
        server.connect().read_to_string(&mut heard).unwrap();
        let lines: Vec<&str> = heard.lines().collect();
        assert_eq!(lines.len(), 3, "{model}: {heard:?}");
        for (number, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("{} by process ", number + 1)), "{model}: {heard:?}");
        }
        let own = format!(" by process {}\n", server.pid());
        assert!(!FORKING.contains(&model) || !heard.contains(&own), "{model}: {heard:?}");
    }
}

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
        reports(&server, "failed=2 ");
        let server = example("test-servers", &format!("steps udp://127.0.0.1:0 {model}"));
        assert_eq!(ask(&server, "-text"), "setup handle text finish", "{model}");
    }
}

#[test]
fn what_a_handler_leaves_unread_does_not_cost_the_answer() {
    for model in MODELS.into_iter().chain(["coroutine"]) {
        let server = example("test-servers", &format!("steps tcp://127.0.0.1:0 {model}"));
        for _ in 0..3 {
            let mut stream = server.connect();
            stream.write_all(&[b'h'; 10_000]).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "setup handle  finish", "{model}");
        }
    }
}

#[test]
fn handlers_that_fail_do_not_fill_the_log() {
    const CLIENTS: usize = 4;
    const EACH: usize = 50;
    for model in ["fork", "prefork", "thread", "threads", "coroutine"] {
        let server = example("test-servers", &format!("steps tcp://127.0.0.1:0 {model}"));
        let fails = || {
            let mut client = server.connect();
            let peer = client.local_addr().unwrap();
            client.write_all(b"s").unwrap();
            assert!(is_cut(&mut client));
            peer
        };
        let start = std::time::Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| (0..EACH).for_each(|_| _ = fails()));
            }
        });
        server.has_left_out("handler failed", CLIENTS * EACH, start, fails);
        assert_eq!(server.count_lines("forkd-server: "), 0, "{model}: there is a logger");
        assert_eq!(talk(&server, "-more"), "setup handle more finish", "{model}: the server goes on");
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
fn a_protocol_that_panics_costs_its_connection_and_no_other_of_its_thread() {
    let server = example("test-servers", "brittle tcp://127.0.0.1:0 event");
    server.settles_at(2);
    let workers = server.children();
    let mut bystander = server.served();
    for number in 1..=3 {
        let mut victim = server.connect();
        victim.write_all(b"panic").unwrap();
        assert!(is_cut(&mut victim));
        let lines = server.wait_for_lines(number, "connection failed cause=panicked peer=127.0.0.1:");
        assert!(lines[0].starts_with("forkd: error: "), "{lines:?}");
        echoes(&mut bystander, b"nothing happened");
    }
    assert_eq!(talk(&server, "three"), "three");
    assert_eq!(server.children(), workers);
}

#[test]
fn a_handler_is_refused_where_it_would_block_others() {
    let server = Forkd::example("test-servers", "steps tcp://127.0.0.1:0 event").launch();
    assert_eq!(server.wait().code(), Some(1));
    server.wait_for_line(
        "the service is steps, which waits for its client, and would block all others under the model event",
    );
}

#[test]
fn an_elastic_pool_grows_with_its_clients_and_shrinks_again() {
    let server = example("test-servers", "elastic tcp://127.0.0.1:0 prefork");
    eventually("one is spare", || (1..=2).contains(&server.children().len()));
    let clients: Vec<_> = (0..4).map(|_| server.served()).collect();
    assert_eq!(server.children().len(), 4);
    drop(clients);
    server.settles_at(2);
    assert_eq!(talk(&server, "three"), "three");
}

#[test]
fn an_elastic_pool_is_refused_where_no_worker_is_known_to_be_idle() {
    for model in ["fork", "thread", "event", "coroutine"] {
        let server = Forkd::example("test-servers", &format!("elastic tcp://127.0.0.1:0 {model}")).launch();
        assert_eq!(server.wait().code(), Some(1), "{model}");
        let why = if model == "event" { "waits for its client" } else { "has no elastic pool, which needs" };
        server.wait_for_line(why);
    }
}

#[test]
fn a_datagram_whose_handler_panics_costs_no_other_its_answer() {
    for model in MODELS {
        let server = example("test-servers", &format!("fragile udp://127.0.0.1:0 {model}"));
        let socket = udp(&server);
        // all are queued before the first is read, as in a burst
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
fn a_program_is_a_service_of_the_library_but_not_for_datagrams() {
    for model in MODELS {
        let server = example("test-servers", &format!("exec tcp://127.0.0.1:0 {model}"));
        assert_eq!(talk(&server, "hello\n"), "TCP hello\n");
        let ended = Forkd::example("test-servers", &format!("exec udp://127.0.0.1:0 {model}")).run();
        assert!(ended.code == Some(1) && ended.stderr.contains("exec needs connections"), "{ended:?}");
    }
}

/// A client from 127.0.0.2, which is refused.
fn refused(server: &Daemon) -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let std::net::SocketAddr::V4(address) = server.addr() else { panic!("no IPv4") };
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 2, 0)).unwrap();
    connect(client.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
    let mut client = std::net::TcpStream::from(client);
    client.set_read_timeout(Some(LIMIT)).unwrap();
    is_cut(&mut client)
}

#[test]
fn the_application_is_asked_and_told_where_it_happens() {
    for model in FORKING {
        let server = example("test-servers", &format!("hooks tcp://127.0.0.1:0 {model}"));
        let master = server.pid();
        // service_actions, in this process
        server.wait_for_line(&format!("tick 4 in {master}"));
        let answer = talk(&server, "hello");
        let about = format!("hello: obedient {model} {} ", server.endpoint(0));
        let child = answer.strip_prefix(&about).unwrap_or_else(|| panic!("{answer}"));
        assert_ne!(child, master.to_string());
        // verify_request, in the process that accepts
        let accepts = if model == "fork" { master.to_string() } else { child.to_owned() };
        let asked = server.wait_for_line("verify 127.0.0.1:");
        assert!(asked.ends_with(&format!(" in {accepts}")), "{asked}, {accepts}");
        assert!(refused(&server));
        server.wait_for_line("verify 127.0.0.2:");
        reports(&server, "refused=application:1");
        // handle_error, in the process that serves
        assert_eq!(talk(&server, "fail"), "");
        let told = server.wait_for_line(": as was wished in ");
        assert!(told.starts_with("told of 127.0.0.1:") && !told.ends_with(&format!(" {master}")), "{told}");
        let mut client = server.connect();
        client.write_all(b"panic").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_cut(&mut client));
        server.wait_for_line(": panicked: as was wished");
    }
}

#[test]
fn a_datagram_is_asked_about_once() {
    for model in FORKING {
        let server = example("test-servers", &format!("hooks udp://127.0.0.1:0 {model}"));
        let refused = UdpSocket::bind("127.0.0.2:0").unwrap();
        refused.send_to(b"hello", server.address("udp")).unwrap();
        assert!(ask(&server, "hello").starts_with("hello: obedient "));
        reports(&server, "refused=application:1");
        refused.set_nonblocking(true).unwrap();
        assert!(refused.recv(&mut [0; 10]).is_err());
        assert_eq!(
            (server.count_lines("verify 127.0.0.1:"), server.count_lines("verify 127.0.0.2:")),
            (1, 1)
        );
    }
}

#[test]
fn children_are_not_waited_for_where_that_is_said() {
    for model in FORKING {
        let server = example("test-servers", &format!("hasty tcp://127.0.0.1:0 {model}"));
        let mut client = server.served();
        server.signal(Signal::SIGTERM);
        server.wait_for_line("stopping signal=SIGTERM children=");
        assert_eq!(server.count_lines(" grace=0s"), 1, "{:?}", server.log());
        assert!(is_cut(&mut client), "{model}");
        assert_eq!(server.wait().code(), Some(0), "{model}");
    }
}

#[test]
fn handlers_in_children_hear_of_the_stop() {
    for model in FORKING.into_iter().chain(["thread", "coroutine"]) {
        let server = example("test-servers", &format!("attentive tcp://127.0.0.1:0 {model}"));
        let mut client = server.connect();
        client.read_exact(&mut [0; 5]).unwrap();
        server.signal(Signal::SIGTERM);
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), server.wait().code()), ("the server stops\n", Some(0)), "{model}");
    }
}

#[test]
fn a_child_can_end_the_server() {
    for model in FORKING {
        let server = example("test-servers", &format!("hooks tcp://127.0.0.1:0 {model}"));
        let mut other = server.connect();
        assert!(talk(&server, "shutdown").starts_with("shutdown: obedient"), "it finishes with its client");
        server.wait_for_line("stopping signal=shutdown");
        // and with the other, which was there before
        other.write_all(b"still there?").unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("still there?: obedient"), "{answer}");
        assert_eq!(server.wait().code(), Some(0), "{model}");
    }
}

#[test]
fn handle_request_forks_a_child_and_goes_on() {
    let server = example("test-servers", "single tcp://127.0.0.1:0 fork");
    // only this one's child waits for it
    let mut slow = server.connect();
    for _ in 0..3 {
        let answer = talk(&server, "hello");
        assert!(
            answer.starts_with("hello: obedient fork") && !answer.ends_with(&format!(" {}", server.pid()))
        );
    }
    slow.write_all(b"slow").unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("slow: obedient fork"), "{answer}");
    talk(&server, "shutdown");
    server.wait_for_line("no more requests");
    assert_eq!(server.wait().code(), Some(0));
    // a signal ends it, too, and is said to the caller that has the loop
    let server = example("test-servers", "single tcp://127.0.0.1:0 fork");
    talk(&server, "hello");
    server.signal(Signal::SIGTERM);
    server.wait_for_line("stopped connections=1");
    // the workers of a pool accept by themselves
    let server = example("test-servers", "single tcp://127.0.0.1:0 prefork");
    assert_eq!(server.wait().code(), Some(1));
    server.wait_for_line("handle_request is not for a pool of workers");
}

#[test]
fn a_server_in_a_process_with_threads_is_an_error_and_no_hang() {
    for model in FORKING {
        let server = example("test-servers", &format!("threads tcp://127.0.0.1:0 {model}"));
        assert_eq!(server.wait().code(), Some(1), "{model}");
        server.wait_for_line("more than one thread");
    }
    // which does not fork
    let server = example("test-servers", "threads tcp://127.0.0.1:0 iterative");
    assert_eq!(talk(&server, "hello"), "hello");
}
