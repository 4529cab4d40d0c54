//! `forkd status --watch`: again and again, with what happens per second.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};

use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A running `forkd status --watch`; killed when dropped.
struct Watch {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watch {
    fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut command = forkd_command();
        command.args(["status", "--control"]).arg(daemon.control()).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads up to a line that is wanted.
    #[track_caller]
    fn read_until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if is_it(&line) {
                return line;
            }
            line.clear();
        }
        panic!("no line with {what}");
    }

    /// Ends it by Ctrl-C.
    #[track_caller]
    fn interrupt(&mut self) {
        signal(self.child.id() as i32, Signal::SIGINT);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// Closes the other end of its pipe.
    #[track_caller]
    fn ends_with_its_reader(&mut self) {
        drop(std::mem::replace(&mut self.out, BufReader::new(silence())));
        let mut ended = None;
        eventually("it ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(0));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn rates_are_of_what_happens_meanwhile() {
    let daemon = Daemon::start("");
    short_connection(daemon.addr(), b"before").unwrap();
    let mut watch = Watch::start(&daemon, &["--watch", "300ms"]);
    let is_row = |line: &str| line.starts_with("tcp://") && line.contains(" echo ");
    let rates = |line: String| line.split_whitespace().skip(11).map(str::to_owned).collect::<Vec<_>>();
    // nothing to compare the first one with
    assert_eq!(rates(watch.read_until("a listener", is_row)), ["-", "-", "-", "-"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while daemon.ended().is_none() {
                let _ = short_connection(daemon.addr(), b"x");
            }
        });
        let moves = |line: &str| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            is_row(line) && (11..15).all(|at| cells[at].parse::<f64>().is_ok_and(|rate| rate > 0.0))
        };
        watch.read_until("rates above 0", moves);
        // blocks, each with its own first line
        watch.read_until("a blank line", |line| line == "\n");
        watch.read_until("another block", |line| line.starts_with("forkd pid"));
        daemon.signal(Signal::SIGTERM);
        watch.read_until("that the daemon is gone", |line| line.starts_with("no daemon answers at "));
    });
    watch.interrupt();
}

#[test]
fn json_comes_line_by_line_and_ends_with_its_reader() {
    let daemon = Daemon::start("");
    let mut watch = Watch::start(&daemon, &["--json", "--watch", "100ms"]);
    for _ in 0..3 {
        let line = watch.read_until("anything", |_| true);
        let status: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["pid"], daemon.pid());
    }
    watch.ends_with_its_reader();
}

#[test]
fn it_ends_with_its_reader_and_not_at_the_next_interval() {
    let daemon = Daemon::start("");
    let mut watch = Watch::start(&daemon, &["--watch", "1h"]);
    watch.read_until("a line", |line| line.starts_with("forkd pid"));
    watch.ends_with_its_reader();
}

#[test]
fn on_a_small_terminal_nothing_wraps_or_scrolls_away() {
    if !need_tool("script") {
        return;
    }
    let daemon = Daemon::start("");
    let _clients: Vec<Client> = (0..30).map(|_| daemon.served()).collect();
    let (program, control) = (env!("CARGO_BIN_EXE_forkd"), daemon.control().display());
    let line = format!("stty rows 20 cols 60; exec {program} status --watch 100ms --control {control}");
    let mut terminal = std::process::Command::new("script");
    terminal.env("TERM", "xterm");
    terminal.args(["-q", "-c", &line, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let mut watch = Watch { out: BufReader::new(child.stdout.take().unwrap()), child };
    let (clear, mut seen) = ("\x1b[H\x1b[2J", String::new());
    while seen.matches(clear).count() < 3 {
        let mut chunk = [0; 4096];
        let n = watch.out.read(&mut chunk).unwrap();
        assert!(n > 0, "{seen}");
        seen += &String::from_utf8_lossy(&chunk[..n]).replace('\r', "");
    }
    // without what comes before the first, and the last, which may be incomplete
    let screens: Vec<&str> = seen.split(clear).skip(1).take(2).collect();
    for screen in screens {
        assert!(screen.lines().count() < 20 && screen.lines().all(|line| line.len() <= 60), "{screen}");
        assert!(screen.starts_with("forkd pid ") && screen.contains(" more lines"), "{screen}");
    }
}

/// An output that nothing comes from.
fn silence() -> ChildStdout {
    let mut child = std::process::Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    child.stdout.take().unwrap()
}

/// Each of the ways in which a terminal can be steered, as JSON has it, and as it is shown.
const STEERING: &str = r"a\u001b[2J\u009b31m\u202e\nb\u007f";
const SHOWN: &str = r"a\u{1b}[2J\u{9b}31m\u{202e}\nb\u{7f}";

#[test]
fn what_others_say_steers_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("c\x1b[2J\u{9b}31m");
    let is_harmless = |said: &str, shown: &str| {
        let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!said.contains(steers) && said.contains(shown), "{said:?}");
    };
    let ask = |what: &[&str]| forkd(forkd_command().args(what).arg("--control").arg(&control));
    is_harmless(&ask(&["status"]).stderr, r"/c\u{1b}[2J\u{9b}31m: No such file");
    let text = r#"{ "pid": 1, "uptime_s": 2.5, "note": "RAW", "listeners": [{ "endpoint": "X", "service": "X",
        "model": "X", "alive": 1, "peak": 1, "forked": 1, "connections": 1, "bytes_in": 1, "bytes_out": 1,
        "failed": 1, "refused": { "X": 1 }, "deaths": { "X": 1 } }], "children": [{ "pid": 2, "slot": 0,
        "endpoint": "X", "state": "X", "serving": 1, "threads": 1, "peer": "X", "age_s": 1.0,
        "connections": 1, "bytes_in": 1, "bytes_out": 1 }] }"#;
    let status = text.replace('X', STEERING).replace("RAW", "\u{9b}31m\u{202e}\u{7f}");
    let refusal = format!(r#"{{ "error": "{STEERING}" }}"#);
    let listener = std::os::unix::net::UnixListener::bind(&control).unwrap();
    let answers = [status.as_str(), &status, &refusal, "\x1b[2J", &status];
    let daemon = std::thread::spawn({
        let answers = answers.map(str::to_owned);
        move || {
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                client.read_exact(&mut [0; 7]).unwrap();
                client.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    is_harmless(&ask(&["status"]).stdout, &format!("{SHOWN} refused: {SHOWN}=1\n"));
    let json = ask(&["status", "--json"]).stdout;
    is_harmless(&json, "\"note\": \"\\u009b31m\\u202e\\u007f\"");
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap(),
        serde_json::from_str::<Value>(&status).unwrap()
    );
    is_harmless(&ask(&["status"]).stderr, "is no forkd");
    is_harmless(&ask(&["status"]).stderr, "is no forkd");
    is_harmless(&ask(&["reload"]).stderr, "is no forkd");
    daemon.join().unwrap();
    is_harmless(&run(&["status", "--c\u{9b}2J"]).stderr, r"--c\u{9b}2J");
}

#[test]
fn a_daemon_that_is_not_there_and_an_interval_that_is_none_are_refused() {
    let nowhere = run(&["status", "--watch", "--control", "/nowhere/c.sock"]);
    assert_eq!(nowhere.code, Some(69), "{}", nowhere.stderr);
    let short = run(&["status", "--watch", "1ms"]);
    assert_eq!(short.code, Some(64));
    assert!(short.stderr.contains("the least is 100ms"), "{}", short.stderr);
}
