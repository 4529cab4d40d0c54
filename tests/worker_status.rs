//! What `forkd status` and the log show of workers that accept by themselves.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Says what it is, works for a while, and leaves when it is told to, but not at once.
const PROGRAM: &str = r#"
import os, signal, socket, time

def say(text):
    address = os.environ["NOTIFY_SOCKET"]
    address = "\0" + address[1:] if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(text.encode(), address)

leaves = []
signal.signal(signal.SIGTERM, lambda *_: leaves.append(1))
until = time.process_time() + 0.05
while time.process_time() < until:
    pass
say("STATUS=worker %s of %s\nREADY=1" % (os.environ["FORKD_WORKER"], os.environ["FORKD_GENERATION"]))
while not leaves or os.path.exists("{dir}/stays"):
    time.sleep(0.02)
"#;

/// A daemon with two such workers, and two sockets; `None` where there is no python3.
fn daemon() -> Option<Daemon> {
    need_tool("python3").then(|| {
        let args = "-w 2 tcp://127.0.0.1:0 udp://127.0.0.1:0 --worker-exec python3 {dir}/program";
        let daemon = Forkd::new(args).with_file("program", PROGRAM).start();
        // they count as ready after a second
        eventually("they say so", || {
            workers(&daemon).iter().all(|child| child["worker"]["status"].is_string())
        });
        daemon
    })
}

fn workers(daemon: &Daemon) -> Vec<Value> {
    daemon.status()["children"].as_array().unwrap().clone()
}

/// The worker with this number and generation.
fn worker(daemon: &Daemon, number: u64, generation: u64) -> Option<Value> {
    let is_it =
        |child: &Value| child["worker"]["number"] == number && child["worker"]["generation"] == generation;
    workers(daemon).into_iter().find(is_it)
}

fn shown(daemon: &Daemon, args: &[&str]) -> String {
    let ended = run(&[&["status", "--control", daemon.control().to_str().unwrap()], args].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

#[test]
fn what_workers_say_and_use_is_shown() {
    let Some(daemon) = daemon() else { return };
    for number in [0, 1] {
        let child = worker(&daemon, number, 1).expect("a worker");
        assert_eq!((&child["state"], &child["endpoint"]), (&"ready".into(), &daemon.endpoint(0).into()));
        let worker = &child["worker"];
        assert_eq!(worker["status"], format!("worker {number} of 1"));
        assert!(worker["cpu_s"].as_f64() >= Some(0.05), "{worker}");
        assert!(worker["rss_bytes"].as_u64() > Some(1 << 20), "{worker}");
    }
    let json: Value = serde_json::from_str(&shown(&daemon, &["--json"])).unwrap();
    for child in json["children"].as_array().unwrap() {
        let bytes = |what: &str| child["worker"][what].as_u64().unwrap_or_else(|| panic!("{child}"));
        assert!((1..=bytes("rss_bytes")).contains(&bytes("pss_bytes")), "{child}");
    }
    let (first, beside) = (daemon.endpoint(0), daemon.endpoint(1));
    let table = shown(&daemon, &[]);
    let line = |begin: &str| {
        let line = table.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{table}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let head = ["WORKER", "GEN", "PID", "STATE", "AGE", "CPU", "RSS", "PSS", "LISTENER", "STATUS"];
    assert_eq!(line("WORKER"), head, "{table}");
    assert_eq!(line("0 ")[8..], [&first, "worker", "0", "of", "1"], "{table}");
    // of clients nothing is known
    assert_eq!(line(&first)[7..], ["-"; 4], "{table}");
    assert_eq!(line(&beside)[3..5], ["-"; 2], "{table}");
    assert!(table.contains(&format!("{beside} is served by the workers of {first}\n")), "{table}");
    let listeners = &daemon.status()["listeners"];
    assert_eq!((&listeners[0]["workers_of"], &listeners[1]["workers_of"]), (&Value::Null, &first.into()));
    assert_eq!(listeners[0]["knows_clients"], false);
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_line("status of a worker worker=1 generation=1 pid=");
    assert!(!daemon.wait_for_line("status of tcp://").contains("connections="));
}

#[test]
fn a_worker_that_dies_is_a_restart_and_one_that_is_told_to_leave_is_none() {
    let Some(daemon) = daemon() else { return };
    let pid = worker(&daemon, 0, 1).unwrap()["pid"].as_i64().unwrap();
    signal(pid as i32, Signal::SIGKILL);
    daemon.wait_for_line(&format!("worker was killed worker=0 pid={pid} cause=SIGKILL"));
    eventually("another has its number", || {
        worker(&daemon, 0, 1)
            .is_some_and(|child| child["pid"] != pid && child["worker"]["status"].is_string())
    });
    assert_eq!(daemon.listener(0)["restarts"], 1);
    let control = daemon.control().to_str().unwrap().to_owned();
    assert_eq!(run(&["reload", "--control", &control]).code, Some(0));
    eventually("the others have left", || {
        let all = workers(&daemon);
        all.len() == 2 && all.iter().all(|child| child["worker"]["generation"] == 2)
    });
    assert_eq!(daemon.listener(0)["restarts"], 1);
    assert!(shown(&daemon, &[]).contains(&format!("{} restarts: workers=1\n", daemon.endpoint(0))));
}

#[test]
fn a_worker_that_was_told_to_leave_is_shown_as_leaving() {
    let Some(daemon) = daemon() else { return };
    let stays = daemon.path("stays");
    std::fs::write(&stays, "").unwrap();
    daemon.signal(Signal::SIGTTOU);
    eventually("one of them leaves", || {
        let states: Vec<Value> = workers(&daemon).iter().map(|child| child["state"].clone()).collect();
        states.len() == 2 && states.contains(&"leaving".into()) && states.contains(&"ready".into())
    });
    std::fs::remove_file(stays).unwrap();
    eventually("it has left", || workers(&daemon).len() == 1);
    assert_eq!((&daemon.listener(0)["restarts"], daemon.deaths(0, "retired")), (&0.into(), 1));
}
