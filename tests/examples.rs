//! The example programs do what their first lines say.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use common::wire;
use common::{Client, Daemon, Forkd, LIMIT};
use forkd_server::model::Model;
use nix::sys::signal::Signal;

/// A server that is told its endpoint last.
#[track_caller]
fn server(name: &str, args: &str) -> Daemon {
    Forkd::example(name, args).start()
}

/// Runs a program to its end with this input; returns what it prints.
#[track_caller]
fn output(name: &str, args: &[&str], input: &str) -> String {
    let program: PathBuf = common::example(name);
    let mut child = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a client hears that says this and then no more.
#[track_caller]
fn heard(client: &mut Client, says: &str) -> String {
    client.write_all(says.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn datagram(daemon: &Daemon, text: &str) -> String {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(daemon.address("udp")).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send(text.as_bytes()).unwrap();
    let mut answer = [0; 512];
    let n = client.recv(&mut answer).unwrap();
    String::from_utf8(answer[..n].to_vec()).unwrap()
}

#[test]
fn fork_echo_has_a_child_for_each_client_and_no_zombie() {
    let daemon = server("fork_echo", "tcp://127.0.0.1:0");
    // one after the other: what two processes print at once is mixed
    let mut clients = Vec::new();
    for number in 1..=2 {
        clients.push(daemon.served());
        daemon.wait_for_lines(number, " serves 127.0.0.1:");
    }
    daemon.settles_at(2);
    for number in 1..=2 {
        clients.pop();
        daemon.wait_for_lines(number, " has served 127.0.0.1:");
    }
    daemon.settles_at(0);
}

#[test]
fn the_menu_by_processes_and_by_threads_and_its_client() {
    for model in Model::ALL {
        let daemon = server("menu_server", &format!("{model} tcp://127.0.0.1:0"));
        let dialogue = output("menu_client", &[&daemon.addr().to_string()], "0\n7\nexit\n");
        let lines: Vec<&str> = dialogue.lines().collect();
        assert_eq!(lines.len(), 4, "{dialogue}");
        assert_eq!(
            (lines[0], lines[2], lines[3]),
            ("Welcome to connect 10086", "Please choose again", "Goodbye")
        );
        let own = format!("process {},", daemon.pid());
        let has_children = matches!(model, Model::Fork | Model::Prefork);
        assert_eq!(!lines[1].contains(&own), has_children, "{model}: {dialogue}");
        // as the textbook's client sends it, without the end of a line
        assert_eq!(heard(&mut daemon.connect(), "exit"), "Welcome to connect 10086\n");
    }
}

#[test]
fn the_menu_s_last_words_arrive_though_more_was_sent() {
    for model in Model::ALL {
        let daemon = server("menu_server", &format!("{model} tcp://127.0.0.1:0"));
        for _ in 0..20 {
            let mut client = daemon.connect();
            // unread when the dialogue ends
            client.write_all(&[&b"7\nexit\n"[..], &[b'x'; 300_000]].concat()).unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).expect("an end, and no reset");
            assert_eq!(heard, "Welcome to connect 10086\nPlease choose again\n", "{model}");
        }
    }
}

#[test]
fn receipts_over_tcp_and_udp() {
    assert_eq!(heard(&mut server("ack_tcp", "tcp://127.0.0.1:0").connect(), "hello"), "Receive");
    assert_eq!(datagram(&server("ack_udp", "udp://127.0.0.1:0"), "hello"), "Receive");
}

#[test]
fn the_four_datagram_servers() {
    for class in ["UDPServer", "ForkingUDPServer", "ThreadingUDPServer"] {
        let daemon = server("udp_classes", &format!("{class} udp://127.0.0.1:0"));
        let answer = datagram(&daemon, "hello");
        assert!(answer.starts_with("HELLO (process "), "{class}: {answer}");
        let own = format!("(process {},", daemon.pid());
        assert_eq!(answer.contains(&own), class != "ForkingUDPServer", "{class}: {answer}");
    }
    let daemon = server("udp_classes", "UnixDatagramServer unixgram://{dir}/s");
    let client = wire::datagrams(&daemon);
    client.send(b"hello").unwrap();
    assert!(wire::receive(&client).unwrap().starts_with(b"HELLO (process "));
}

#[test]
fn a_slow_client_holds_up_others_only_where_one_is_served_after_the_other() {
    let first = |model: &str| -> u64 {
        let text = output("slow_client", &[model], "");
        assert_eq!(text.lines().count(), 5, "{text}");
        let words: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
        words[words.len() - 2].parse().unwrap()
    };
    // the slow one takes a second
    assert!(first("iterative") >= 900);
    assert!(first("thread") < 900);
}

#[test]
fn http_with_data_routes() {
    let daemon = server("http_routes", "tcp://127.0.0.1:0");
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        heard(&mut daemon.connect(), &request)
    };
    let page = get("/now.json");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("{\"seconds\": "), "{page}");
    // threads share the counter
    assert!(get("/visits").ends_with("\r\n\r\n1\n") && get("/visits").ends_with("\r\n\r\n2\n"));
    assert!(get("/nothing").starts_with("HTTP/1.1 404 "));
}

#[test]
fn frames_come_back_reversed_and_an_end_within_one_is_no_failure() {
    let daemon = server("frames", "tcp://127.0.0.1:0");
    assert_eq!(
        heard(&mut daemon.connect(), "\0\0\0\u{5}hello\0\0\0\0\0\0\0\u{1}x"),
        "\0\0\0\u{5}olleh\0\0\0\0\0\0\0\u{1}x"
    );
    assert_eq!(heard(&mut daemon.connect(), ""), "");
    assert_eq!(heard(&mut daemon.connect(), "\0\0"), "");
    assert_eq!(heard(&mut daemon.connect(), "\0\0\0\u{5}hell"), "");
    // and one that is too long is
    assert_eq!(heard(&mut daemon.connect(), "\u{7f}\0\0\0"), "");
    daemon.wait_for_line(" failed: a message of 2130706432 bytes");
    assert_eq!(daemon.count_lines(" failed: "), 1, "{:?}", daemon.log());
}

#[test]
fn twisted_s_echo_in_one_process() {
    let daemon = server("twisted_echo", "tcp://127.0.0.1:0");
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    common::echoes(&mut two, b"second first");
    common::echoes(&mut one, b"hello");
    daemon.wait_for_lines(2, " has come");
    assert!(daemon.children().is_empty());
}

#[test]
fn pages_are_fetched_at_once_and_come_back_by_callback() {
    let text = output("page_fetches", &[], "");
    assert!(text.starts_with("3 requests are on their way\n"), "{text}");
    for line in ["/one: ", "/two: ", "/three: "] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("HTTP/1.1 200 OK") && text.contains("HTTP/1.1 404 "), "{text}");
    let refused = output("page_fetches", &["127.0.0.1:1", "/"], "");
    assert!(refused.contains("/: ") && !refused.contains("HTTP"), "{refused}");
}

#[test]
fn events_run_in_the_order_of_their_registration() {
    let text = output("event_registry", &[], "");
    let turn = |n: u32| format!("connect to localhost\nturn {n}\na closure is an event, too\n");
    assert_eq!(text, turn(1) + &turn(2));
}

#[test]
fn two_coroutines_switch_by_name() {
    assert_eq!(output("two_coroutines", &[], ""), "12\n56\n34\n");
}

#[test]
fn coroutines_count_in_turns_and_the_slow_one_is_left() {
    let text = output("spawn_join_sleep", &[], "");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..6], ["one 1", "two 1", "three 1", "one 2", "two 2", "three 2"], "{text}");
    assert_eq!(lines.last(), Some(&"the slow one is not waited for"));
}

#[test]
fn a_server_of_coroutines() {
    let daemon = server("coroutine_server", "tcp://127.0.0.1:0");
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let address = |client: &Client| client.local_addr().unwrap().to_string();
    let (first, second) = (address(&one), address(&two));
    assert_eq!(heard(&mut two, "hello\n"), format!("{second}: hello\n"));
    assert_eq!(heard(&mut one, "hello\n"), format!("{first}: hello\n"));
    assert!(daemon.children().is_empty());
}

/// The models of the examples whose clients share a process.
const SHARED: [Model; 3] = [Model::Event, Model::Coroutine, Model::Thread];

/// The next line that a client hears.
#[track_caller]
fn line(client: &mut BufReader<Client>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "the end after {line:?}");
    line
}

#[test]
fn in_a_chat_each_line_goes_to_all_others_and_one_that_does_not_read_is_put_out() {
    for model in SHARED {
        let daemon = server("chat", &format!("{model} tcp://127.0.0.1:0"));
        let enter = || {
            let mut client = BufReader::new(daemon.connect());
            assert_eq!(line(&mut client), "* welcome\n", "{model}");
            client
        };
        let mut ada = enter();
        let mut bob = enter();
        let named = |client: &BufReader<Client>| client.get_ref().local_addr().unwrap().to_string();
        let (a, b) = (named(&ada), named(&bob));
        assert_eq!(line(&mut ada), format!("* {b} has come\n"), "{model}");
        bob.get_mut().write_all(b"hel").unwrap();
        bob.get_mut().write_all(b"lo\nhow are you?\n").unwrap();
        assert_eq!(line(&mut ada), format!("<{b}> hello\n"));
        assert_eq!(line(&mut ada), format!("<{b}> how are you?\n"));
        // one more never reads; those who do wait for each line, and none is late
        let sleeper = enter();
        let s = named(&sleeper);
        assert_eq!(line(&mut ada), format!("* {s} has come\n"));
        assert_eq!(line(&mut bob), format!("* {s} has come\n"));
        let long = format!("{}\n", "x".repeat(4000));
        let mut said = String::new();
        for _ in 0..5000 {
            ada.get_mut().write_all(long.as_bytes()).unwrap();
            said = line(&mut bob);
            if said.starts_with("* ") {
                break;
            }
            assert_eq!(said, format!("<{a}> {long}"));
        }
        assert_eq!(said, format!("* {s} has gone: this side has aborted it\n"), "{model}");
        drop(ada);
        while said != format!("* {a} has gone: the client has reset it, or has gone\n")
            && said != format!("* {a} has gone: the client has ended it\n")
        {
            said = line(&mut bob);
        }
        assert!(daemon.children().is_empty());
    }
}

#[test]
fn a_ticker_is_heard_by_all_though_none_says_anything() {
    for model in SHARED {
        let daemon = server("ticker", &format!("{model} tcp://127.0.0.1:0 5"));
        let [mut one, mut two] = [(); 2].map(|()| BufReader::new(daemon.connect()));
        let number = |client: &mut BufReader<Client>| -> u64 {
            let line = line(client);
            line.trim().strip_prefix("tick ").unwrap().parse().unwrap()
        };
        let (first, second) = (number(&mut one), number(&mut two));
        for ticks in 1..20 {
            assert_eq!((number(&mut one), number(&mut two)), (first + ticks, second + ticks), "{model}");
        }
        drop(one);
        assert!(number(&mut two) > second);
    }
}

/// Sends all of it and its half of the end, and reads until the other half comes.
fn exchange(client: &Client, sends: Vec<u8>) -> Vec<u8> {
    let mut writer = client.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        writer.write_all(&sends).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    (&*client).read_to_end(&mut heard).unwrap();
    sending.join().unwrap();
    heard
}

#[test]
fn a_forwarder_carries_both_directions_at_once_and_each_end() {
    for model in SHARED {
        let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = target.local_addr().unwrap();
        let daemon = server("forwarder", &format!("{to} {model} tcp://127.0.0.1:0"));
        // neither reads before it has sent much, and each hears the end of the other
        let bytes = |seed: u32| -> Vec<u8> { (0..3_000_000_u32).map(|n| (n * 7 + seed) as u8).collect() };
        let client = daemon.connect();
        let far = target.accept().unwrap().0;
        let far = std::thread::spawn(move || {
            far.set_read_timeout(Some(LIMIT)).unwrap();
            let mut writer = far.try_clone().unwrap();
            let sending = std::thread::spawn(move || writer.write_all(&bytes(1)).map(|()| writer));
            let mut heard = Vec::new();
            (&far).read_to_end(&mut heard).unwrap();
            // the client has ended, and still hears
            let mut writer = sending.join().unwrap().unwrap();
            writer.write_all(b"the last words").unwrap();
            heard
        });
        let heard = exchange(&client, bytes(2));
        assert!(heard == [bytes(1), b"the last words".to_vec()].concat(), "{model}: {} bytes", heard.len());
        assert!(far.join().unwrap() == bytes(2), "{model}");
        // where no server listens the client hears the end
        drop(target);
        let mut client = daemon.connect();
        let mut heard = Vec::new();
        let _ = client.read_to_end(&mut heard);
        assert_eq!(heard, b"", "{model}");
    }
}

/// What the workers of axum answer to a GET; `None`: the connection ended without an answer.
#[track_caller]
fn get(daemon: &Daemon, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    let mut client = daemon.connect();
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // a process that aborts resets its connections
    client.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Some(body.to_owned())
}

#[test]
fn axum_in_workers_that_crash_alone_and_are_renewed_without_the_loss_of_a_request() {
    let daemon = server("axum_prefork", "tcp://127.0.0.1:0");
    daemon.settles_at(2);
    let first = daemon.children();
    assert!(get(&daemon, "/").unwrap().contains(" of generation 1, process "));
    // a panic costs a connection, and an abort a process
    assert_eq!(get(&daemon, "/panic"), None);
    assert_eq!(daemon.children(), first);
    assert_eq!(get(&daemon, "/abort"), None);
    daemon.wait_for_line("has died: SIGABRT");
    daemon.settles_at(2);
    let second = daemon.children();
    assert_eq!(second.iter().filter(|pid| first.contains(pid)).count(), 1, "the other one goes on");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = get(&daemon, "/").expect("no request is lost");
                    assert!(answer.starts_with("worker "), "{answer}");
                }
            });
        }
        for _ in 0..5 {
            let old = daemon.children();
            daemon.signal(Signal::SIGHUP);
            common::eventually("new workers", || {
                let now = daemon.children();
                now.len() == 2 && !now.iter().any(|pid| old.contains(pid))
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(get(&daemon, "/").unwrap().contains(" of generation 6, process "));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn workers_of_tokio_that_are_renewed_finish_their_clients() {
    let daemon = server("tokio_echo", "tcp://127.0.0.1:0");
    daemon.settles_at(2);
    let mut clients: Vec<Client> = (0..50).map(|_| daemon.served()).collect();
    daemon.signal(Signal::SIGHUP);
    daemon.settles_at(4);
    clients.iter_mut().for_each(|client| common::echoes(client, b"one more"));
    drop(clients);
    daemon.settles_at(2);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_loop_that_accepts_in_four_processes() {
    let daemon = server("worker_loop", "tcp://127.0.0.1:0");
    daemon.settles_at(4);
    assert!(heard(&mut daemon.connect(), "hello\n").ends_with(" of generation 1: hello\n"));
    let old = daemon.children();
    daemon.signal(Signal::SIGHUP);
    common::eventually("new workers", || {
        let now = daemon.children();
        now.len() == 4 && !now.iter().any(|pid| old.contains(pid))
    });
    assert!(heard(&mut daemon.connect(), "hello\n").ends_with(" of generation 2: hello\n"));
}
