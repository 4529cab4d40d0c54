//! The grid: every service over every transport under every model either works, or is refused before
//! the start with a sentence that says why.
//!
//! One line for each model at the end of the file; `cargo test --test grid event::tcp6` is a row of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use common::wire::{datagrams, noise, receive, stream};
use common::{Daemon, Forkd, eventually};

/// So many clients at once.
const CLIENTS: usize = 200;

/// Whether that is the whole answer to a request.
type IsAnswer = fn(request: &[u8], answer: &[u8]) -> bool;

/// What is asked of a service.
struct Service {
    name: &'static str,
    options: &'static str,
    request: Vec<u8>,
    is_answer: IsAnswer,
    /// It goes on until its client goes.
    is_endless: bool,
    /// It needs a connection.
    is_dialogue: bool,
}

fn service(name: &'static str) -> Service {
    let (options, request, is_answer): (_, _, IsAnswer) = match name {
        "echo" => ("", noise(1, 3000), |request, answer| answer == request),
        "discard" => ("", noise(1, 3000), |_, answer| answer.is_empty()),
        "chargen" => ("", b"?".to_vec(), |_, answer| answer.iter().all(|&byte| byte < 127)),
        "daytime" => ("", Vec::new(), |_, answer| answer.ends_with(b"\r\n") && answer.len() > 20),
        "time" => ("", Vec::new(), |_, answer| answer.len() == 4),
        "ack" => ("--framing line", b"one\ntwo\nthree".to_vec(), |request, answer| {
            let count = request.split(|&byte| byte == b'\n').count();
            answer == b"OK".repeat(count) || answer == b"OK"
        }),
        "http" => {
            let request = "GET /hello HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
            ("--route /hello=hi", request.into(), |_, answer| {
                answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\nhi")
            })
        }
        "exec" => ("", noise(1, 3000), |request, answer| answer == request),
        other => panic!("no such service: {other}"),
    };
    let is_dialogue = matches!(name, "http" | "exec");
    Service { name, options, request, is_answer, is_endless: name == "chargen", is_dialogue }
}

impl Service {
    #[track_caller]
    fn check(&self, answer: &[u8]) {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
        assert!((self.is_answer)(&self.request, answer), "{}: {} bytes: {text:?}", self.name, answer.len());
    }

    #[track_caller]
    fn check_datagram(&self, request: &[u8], answer: &[u8]) {
        let name = self.name;
        match name {
            // never more than 512 characters (RFC 864)
            "chargen" => assert!(answer.len() <= 512),
            // one datagram is one message
            "ack" => assert_eq!(answer, b"OK"),
            _ => assert!((self.is_answer)(request, answer), "{name}: {} bytes", answer.len()),
        }
    }

    /// Sends what is left of a request, and checks what comes back, to the end.
    #[track_caller]
    fn finish(&self, client: &mut UnixStream, rest: &[u8]) {
        if self.is_endless {
            let mut answer = vec![0; 5000];
            client.read_exact(&mut answer).unwrap();
            return self.check(&answer);
        }
        // a service that has said what it has to say may have closed already
        let _ = client.write_all(rest);
        let _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        self.check(&answer);
    }
}

/// Why there is no such cell, in words that the refusal has.
fn why_not(transport: &str, model: &str, service: &Service) -> Option<&'static str> {
    match transport {
        "udp" | "unixgram" if service.is_dialogue => Some("needs a connection"),
        _ if model.starts_with("event") && service.name == "exec" => {
            Some("waits for its client, and would block all others under the model event")
        }
        _ => None,
    }
}

fn cell(endpoint: &str, model: &str, name: &'static str) {
    let service = service(name);
    let transport = endpoint.split(':').next().unwrap_or_default();
    let forkd = |options: &str| {
        // what it runs comes last
        let (named, runs) = if name == "exec" { ("", "--exec cat") } else { (name, "") };
        let service_option = if named.is_empty() { String::new() } else { format!("--service {named}") };
        Forkd::new(&format!("-m {model} {service_option} {} {options} {endpoint} {runs}", service.options))
    };
    if let Some(words) = why_not(transport, model, &service) {
        let refusal = forkd("").run();
        assert_eq!(refusal.code, Some(64), "{}", refusal.stderr);
        assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
        return;
    }
    let daemon = forkd("--allow-amplification").start();
    match transport {
        "tcp" | "unix" => {
            any_pieces_will_do(&daemon, &service);
            a_reset_harms_no_other(&daemon, &service);
            a_slow_client_beside_a_quick_one(&daemon, model, &service);
            many_at_once(&daemon, &service);
        }
        _ => {
            datagrams_of_any_length(&daemon, &service);
            many_datagrams_at_once(&daemon, &service);
        }
    }
    // of its own lines: a program that exec runs says what it likes
    let bad = |line: &String| line.starts_with("forkd: error: ") || line.starts_with("forkd: warning: ");
    assert!(!daemon.log().iter().any(bad), "nothing of this is trouble: {:#?}", daemon.log());
}

fn any_pieces_will_do(daemon: &Daemon, service: &Service) {
    for size in [1, 7, 1000, 4000] {
        let mut client = stream(daemon);
        // the shorter the pieces, the fewer of them
        let at = service.request.len().min(20 * size);
        for piece in service.request[..at].chunks(size) {
            let _ = client.write_all(piece);
        }
        service.finish(&mut client, &service.request[at..]);
    }
}

fn a_reset_harms_no_other(daemon: &Daemon, service: &Service) {
    for _ in 0..3 {
        let mut victim = stream(daemon);
        let _ = victim.write_all(&service.request[..service.request.len() / 2]);
        common::reset(victim);
    }
    service.finish(&mut stream(daemon), &service.request);
}

/// One that has connected, and says only the first byte; another comes after it.
fn a_slow_client_beside_a_quick_one(daemon: &Daemon, model: &str, service: &Service) {
    let mut slow = stream(daemon);
    let first = service.request.len().min(1);
    slow.write_all(&service.request[..first]).unwrap();
    let mut quick = stream(daemon);
    let holds = first > 0 && !service.is_endless;
    if model == "iterative" && holds {
        // that is what the other models are for
        let _ = quick.write_all(&service.request);
        quick.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let nothing = quick.read(&mut [0; 9]).expect_err("an answer, while the other one is served");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        quick.set_read_timeout(Some(common::LIMIT)).unwrap();
        service.finish(&mut slow, &service.request[first..]);
        service.finish(&mut quick, b"");
    } else {
        if service.is_endless {
            drop(slow);
            return service.finish(&mut quick, &service.request);
        }
        service.finish(&mut quick, &service.request);
        service.finish(&mut slow, &service.request[first..]);
    }
}

fn many_at_once(daemon: &Daemon, service: &Service) {
    let mut clients: Vec<UnixStream> = (0..CLIENTS).map(|_| stream(daemon)).collect();
    if !service.is_endless {
        for client in &mut clients {
            let _ = client.write_all(&service.request);
            let _ = client.shutdown(Shutdown::Write);
        }
    }
    for mut client in clients {
        service.finish(&mut client, b"");
    }
}

fn datagrams_of_any_length(daemon: &Daemon, service: &Service) {
    let client = datagrams(daemon);
    // RFC 768: 65,535 bytes less the headers
    for length in [0, 1, 1472, 9000, 65_507] {
        let request = noise(length as u64, length);
        client.send(&request).unwrap();
        if service.name != "discard" {
            service.check_datagram(&request, &receive(&client).expect("an answer"));
        }
    }
    if service.name == "discard" {
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(receive(&client).is_err(), "discard does not answer");
    }
}

/// All ask before the first one reads; the requests differ, so an answer tells whose it is.
fn many_datagrams_at_once(daemon: &Daemon, service: &Service) {
    let clients: Vec<(UnixDatagram, Vec<u8>)> =
        (0..CLIENTS).map(|number| (datagrams(daemon), noise(number as u64, 16 + number))).collect();
    let read = |daemon: &Daemon| daemon.listener(0)["connections"].as_u64().unwrap();
    let before = read(daemon);
    for (client, request) in &clients {
        client.send(request).unwrap();
    }
    if service.name == "discard" {
        // UDP may lose one silently: some may be missing, but not most
        eventually("they are read", || read(daemon) >= before + CLIENTS as u64 / 2);
        for (client, _) in &clients {
            client.set_nonblocking(true).unwrap();
            assert!(receive(client).is_err(), "discard does not answer");
        }
        return;
    }
    for (client, request) in &clients {
        service.check_datagram(request, &insist(client, request));
    }
}

/// The answer to a datagram that is under way. UDP may lose it, and an answer over a Unix socket fills its
/// sender's buffer until it is read, in which not all of so many have room: then it is asked again.
fn insist(client: &UnixDatagram, request: &[u8]) -> Vec<u8> {
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut answer = None;
    eventually("an answer", || {
        answer = receive(client).ok();
        if answer.is_none() {
            client.send(request).unwrap();
        }
        answer.is_some()
    });
    answer.unwrap()
}

macro_rules! grid {
    ($($name:ident: $model:literal;)*) => {$(
        mod $name {
            row!(tcp4: "tcp://127.0.0.1:0", $model);
            row!(tcp6: "tcp://[::1]:0", $model);
            row!(unix: "unix://{dir}/s", $model);
            row!(udp4: "udp://127.0.0.1:0", $model);
            row!(udp6: "udp://[::1]:0", $model);
            row!(unixgram: "unixgram://{dir}/s", $model);
        }
    )*};
}

macro_rules! row {
    ($name:ident: $endpoint:literal, $model:literal) => {
        mod $name {
            cells!($endpoint, $model: echo discard chargen daytime time ack http exec);
        }
    };
}

macro_rules! cells {
    ($endpoint:literal, $model:literal: $($service:ident)*) => {$(
        #[test]
        fn $service() {
            super::super::cell($endpoint, $model, stringify!($service));
        }
    )*};
}

grid! {
    iterative: "iterative";
    fork: "fork";
    prefork: "prefork -w 2";
    thread: "thread";
    thread_pool: "thread -w 2";
    threads: "thread --threads 3";
    event: "event";
    events: "event -w 2";
    coroutine: "coroutine";
    coroutines: "coroutine -w 2";
}
