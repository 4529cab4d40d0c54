//! `forkd probe`: the exit code of a health check says whether the server does its work.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::thread;

use common::{Ended, Forkd, run, sources};

/// Long enough for a loaded machine; a server that answers is not waited for.
const PATIENCE: &str = "10s";
/// Of a server that does not answer.
const SHORT: &str = "50ms";

#[track_caller]
fn probe(timeout: &str, args: &[&str]) -> Ended {
    let answer = run(&[&["probe", "--timeout", timeout], args].concat());
    assert_eq!(answer.stdout.lines().count() + answer.stderr.lines().count(), 1, "{answer:?}");
    answer
}

#[track_caller]
fn is_healthy(args: &[&str], line: &str) {
    let answer = probe(PATIENCE, args);
    assert_eq!((answer.code, &*answer.stderr), (Some(0), ""));
    assert!(answer.stdout.starts_with(line), "{}", answer.stdout);
}

#[track_caller]
fn is_not(args: &[&str], code: i32, why: &str) {
    fails(PATIENCE, args, code, why);
}

#[track_caller]
fn fails(timeout: &str, args: &[&str], code: i32, why: &str) {
    let answer = probe(timeout, args);
    assert_eq!((answer.code, &*answer.stdout), (Some(code), ""), "{}", answer.stderr);
    assert!(answer.stderr.contains(why), "{}", answer.stderr);
}

#[test]
fn a_server_of_each_kind_that_echoes_is_healthy() {
    let args = "tcp://127.0.0.1:0 udp://127.0.0.1:0 unix://{dir}/s unixgram://{dir}/g";
    let daemon = Forkd::new(args).start();
    for listener in daemon.status()["listeners"].as_array().unwrap() {
        let endpoint = listener["endpoint"].as_str().unwrap();
        is_healthy(&[endpoint], &format!("{endpoint} echoes ("));
    }
}

#[test]
fn one_that_is_not_there_is_not() {
    // ports that nothing else gets meanwhile: one whose socket does not listen, one whose socket takes from port 9 alone
    let (_tcp, free) = sources::bound(1);
    is_not(&[&format!("tcp://{free}")], 69, "is not healthy: connection refused");
    is_not(&[&format!("http://{free}/readyz")], 69, "/readyz is not healthy: connection refused");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect("127.0.0.1:9").unwrap();
    is_not(&[&format!("udp://{}", udp.local_addr().unwrap())], 69, "is not healthy: connection refused");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    is_not(&[&format!("unix://{}", path.display())], 69, "is not healthy: connection refused");
    is_not(&[&format!("unixgram://{}", path.display())], 69, "is not healthy: connection refused");
}

#[test]
fn one_that_does_not_answer_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _unix = UnixListener::bind(dir.path().join("s")).unwrap();
    let _unixgram = UnixDatagram::bind(dir.path().join("g")).unwrap();
    let tcp = format!("tcp://{}", tcp.local_addr().unwrap());
    let udp = format!("udp://{}", udp.local_addr().unwrap());
    let unix = format!("unix://{}/s", dir.path().display());
    let unixgram = format!("unixgram://{}/g", dir.path().display());
    let http = tcp.replace("tcp", "http");
    for endpoint in [&tcp, &udp, &unix, &unixgram, &http] {
        fails(SHORT, &[endpoint], 69, "is not healthy: timed out");
    }
    // the kernel has made the connection
    is_healthy(&["--connect-only", &tcp], &format!("{tcp} listens ("));
    is_healthy(&["--connect-only", &unix], &format!("{unix} listens ("));
}

/// Answers one client after another as this says, until the test ends.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 512]);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn another_answer_than_an_echo_is_told_apart() {
    let address = answering("who are you?\n");
    is_not(&[&format!("tcp://{address}")], 65, "answers, but not as a server that echoes");
    is_not(&[&format!("http://{address}")], 65, "/ answers, but not as a server that answers");
    let daytime = Forkd::new("--service daytime").start();
    is_not(&[&format!("tcp://{}", daytime.addr())], 65, "not as a server that echoes");
    is_healthy(&["--connect-only", &format!("tcp://{}", daytime.addr())], "tcp://");
}

#[test]
fn http_is_judged_by_its_status() {
    let address = answering("HTTP/1.1 503 Service \u{7}Unavailable\r\n\r\n");
    is_not(&[&format!("http://{address}/x")], 69, "/x is not healthy: 503 Service \\u{7}Unavailable");
    let metrics = Forkd::new("--metrics tcp://127.0.0.1:0").start();
    let line = metrics.wait_for_line("metrics at http://");
    let (_, url) = line.split_once("metrics at ").unwrap();
    is_healthy(&[url], &format!("{url} answers ("));
    is_not(&[&format!("{url}/nothing")], 69, "is not healthy: 404 Not Found");
}

#[test]
fn what_can_not_be_asked_is_refused() {
    for args in [["--connect-only", "udp://127.0.0.1:7"], ["--connect-only", "http://127.0.0.1:7/"]] {
        is_not(&args, 64, "--connect-only is for");
    }
    is_not(&["systemd:echo"], 64, "nothing to connect to");
    is_not(&["tcp://127.0.0.1:0"], 64, "port 0");
}
