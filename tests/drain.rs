//! A stop that is announced: clients are served while load balancers learn that they are to send no more.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;

/// One of each kind of process that accepts.
const MODELS: [&str; 6] =
    ["", "--spare 2", "-m prefork -w 2", "-m thread -w 2", "-m event -w 2", "-m coroutine -w 2"];
const METRICS: &str = "--metrics tcp://127.0.0.1:0 tcp://127.0.0.1:0";

/// Where the metrics and the health of a daemon are.
#[track_caller]
fn metrics(daemon: &Daemon) -> SocketAddr {
    let line = daemon.wait_for_line("metrics at http://");
    line.split_once("http://").unwrap().1.strip_suffix("/metrics").unwrap().parse().unwrap()
}

/// Sends these pieces there, and returns what comes back.
#[track_caller]
fn ask(daemon: &Daemon, pieces: &[&str]) -> String {
    let mut stream = TcpStream::connect_timeout(&metrics(daemon), LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The status and the content of an answer.
#[track_caller]
fn probe(daemon: &Daemon, path: &str) -> (u16, String) {
    let answer = ask(daemon, &[&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")]);
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), content.trim_end().to_owned())
}

#[track_caller]
fn agent(daemon: &Daemon) -> String {
    ask(daemon, &["agent\n"])
}

/// It takes clients, and says that there should come none.
#[track_caller]
fn drains(daemon: &Daemon) {
    eventually("it says so", || probe(daemon, "/readyz").0 == 503);
    assert_eq!(probe(daemon, "/readyz").1, "503 Service Unavailable: draining");
    assert_eq!(agent(daemon), "drain\n");
    assert_eq!(probe(daemon, "/livez"), (200, "alive".to_owned()));
    assert!(probe(daemon, "/metrics").1.contains("forkd_phase{phase=\"draining\"} 1"));
    assert_eq!(daemon.status()["phase"], "draining");
    for _ in 0..5 {
        short_connection(daemon.addr(), b"still taken").unwrap();
    }
}

/// It takes none, and those that it has may finish.
#[track_caller]
fn refuses(daemon: &Daemon, held: &mut Client) {
    eventually("clients are refused", || is_refused(daemon.addr()));
    assert_eq!((probe(daemon, "/readyz").0, probe(daemon, "/livez").0), (503, 200));
    assert_eq!(agent(daemon), "drain\n");
    echoes(held, b"going on");
}

#[track_caller]
fn ends_well(daemon: &Daemon) {
    assert!(daemon.wait().success(), "{:?}", daemon.log());
    eventually("no process is left", || daemon.is_gone());
    assert!(daemon.wait_for_line("stopped").contains(" cut=0"));
}

both_ways! {
    fn clients_are_served_until_the_next_signal(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(&format!("{args} --drain-delay 1h {METRICS}")).way(way).start();
            let mut held = daemon.served();
            assert_eq!(probe(&daemon, "/readyz"), (200, "ready".to_owned()));
            daemon.signal(Signal::SIGTERM);
            assert!(daemon.wait_for_line("draining").contains("signal=SIGTERM children="), "{:?}", daemon.log());
            drains(&daemon);
            assert_eq!(daemon.count_lines("stopping"), 0);
            daemon.signal(Signal::SIGINT);
            assert!(daemon.wait_for_line("stopping").contains("signal=SIGINT"));
            refuses(&daemon, &mut held);
            drop(held);
            ends_well(&daemon);
        }
    }

    fn the_delay_ends_by_itself(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(&format!("{args} --drain-delay 1s {METRICS}")).way(way).start();
            let mut held = daemon.served();
            daemon.signal(Signal::SIGINT);
            daemon.wait_for_line("draining");
            assert!(daemon.wait_for_line("stopping").contains("signal=drain-delay"));
            refuses(&daemon, &mut held);
            drop(held);
            ends_well(&daemon);
        }
    }

    fn sigquit_waits_for_nothing(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(&format!("{args} --drain-delay 1h --grace 1h")).way(way).start();
            let mut held = daemon.served();
            daemon.signal(Signal::SIGTERM);
            daemon.wait_for_line("draining");
            daemon.signal(Signal::SIGQUIT);
            assert!(is_cut(&mut held));
            assert!(daemon.wait().success());
            assert!(daemon.wait_for_line("stopped").contains(" cut=1"));
        }
    }

    fn what_dies_is_replaced(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(&format!("{args} --drain-delay 1h {METRICS}")).way(way).start();
            daemon.signal(Signal::SIGTERM);
            daemon.wait_for_line("draining");
            let first = metrics_server(&daemon);
            for pid in daemon.children() {
                signal(pid, Signal::SIGKILL);
            }
            eventually("another process serves metrics", || metrics_server(&daemon) != first);
            eventually("clients are served", || short_connection(daemon.addr(), b"x").is_ok());
            drains(&daemon);
        }
    }

    fn the_service_manager_hears_of_it_and_that_the_master_lives(way: Way) {
        let forkd = Forkd::new("--drain-delay 1h --grace 1h").way(way);
        let path = forkd.dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let hears = |what: &str| loop {
            let mut message = [0; 4096];
            let length = manager.recv(&mut message).unwrap_or_else(|error| panic!("no {what}: {error}"));
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.contains(what) {
                return message;
            }
        };
        let daemon = forkd.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "200000").start();
        hears("READY=1\nSTATUS=serving: ");
        daemon.signal(Signal::SIGTERM);
        // the delay, the grace time and a little more
        assert!(hears("STOPPING=1").contains("EXTEND_TIMEOUT_USEC=7205000000"));
        hears("STATUS=draining: ");
        for _ in 0..5 {
            hears("WATCHDOG=1");
        }
        daemon.signal(Signal::SIGTERM);
        hears("EXTEND_TIMEOUT_USEC=3605000000");
        assert!(daemon.wait().success());
    }

    fn a_program_that_agents_ask_says_how_much_is_idle(way: Way) {
        let daemon = Forkd::new(&format!("-m prefork -w 4 {METRICS}")).way(way).start();
        assert_eq!(agent(&daemon), "ready up 100%\n");
        let clients = [daemon.served(), daemon.served(), daemon.served()];
        eventually("three of four are busy", || agent(&daemon) == "ready up 25%\n");
        let last = daemon.served();
        // 0% would say that it drains
        eventually("all are busy", || agent(&daemon) == "ready up 1%\n");
        drop((clients, last));
        eventually("none is", || agent(&daemon) == "ready up 100%\n");
        // in pieces, and what only begins like that
        assert_eq!(ask(&daemon, &["ag", "en", "t\n"]), "ready up 100%\n");
        assert!(ask(&daemon, &["agen", "da\r\n\r\n"]).starts_with("HTTP/1.1 400 "));
        assert!(ask(&daemon, &["GET /readyz HT", "TP/1.0\r\n\r\n"]).ends_with("ready\n"));
    }

    fn a_master_that_misses_what_is_due_does_not_live(way: Way) {
        let daemon = Forkd::new(METRICS).way(way).start();
        // whose child the master looks at now and then
        let _held = daemon.served();
        assert_eq!(probe(&daemon, "/livez").0, 200);
        stopped(daemon.pid());
        within(LIMIT * 4, "that is noticed", || probe(&daemon, "/livez").0 == 503);
        assert!(probe(&daemon, "/readyz").1.ends_with("the master is stuck"));
        daemon.signal(Signal::SIGCONT);
        eventually("it goes on", || probe(&daemon, "/livez").0 == 200);
        assert_eq!(probe(&daemon, "/readyz").0, 200);
    }
}

/// The process that serves metrics: the child of which `forkd status` knows nothing.
#[track_caller]
fn metrics_server(daemon: &Daemon) -> Option<i32> {
    let status = daemon.status();
    let known: Vec<i64> =
        status["children"].as_array().unwrap().iter().filter_map(|child| child["pid"].as_i64()).collect();
    daemon.children().into_iter().find(|pid| !known.contains(&i64::from(*pid)))
}

#[test]
fn before_it_is_ready_nothing_is_announced() {
    // a pool whose workers can't be forked is never ready
    let daemon =
        Forkd::new("-m prefork -w 2 --drain-delay 1h").forbid(libc::SYS_clone3, libc::EAGAIN).launch();
    daemon.wait_for_line("cannot fork a worker");
    daemon.signal(Signal::SIGTERM);
    let limit = Duration::from_secs(60);
    daemon.wait_for(limit);
    assert_eq!(daemon.count_lines("draining"), 0, "{:?}", daemon.log());
}
