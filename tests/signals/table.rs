//! The table of docs/SIGNALS.md, held against what each signal does to each kind of process.
//!
//! The first word of a cell says what is tested; the rest is for people.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

use super::common::*;

const DOCUMENT: &str = include_str!("../../docs/SIGNALS.md");

/// The kinds of processes, in the order of the table's columns.
const KINDS: [&str; 4] = ["master", "child (fork)", "worker", "metrics child"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The daemon ends gracefully.
    Stop,
    /// The process ends by the signal.
    Die,
    /// The process ends by itself.
    Leave,
    /// It goes on, and something was done.
    Handled,
    Blocked,
    Ignored,
}

impl Effect {
    fn of(cell: &str) -> Option<Self> {
        Some(match cell.split([' ', ':', ',']).next()? {
            "stop" => Self::Stop,
            "die" => Self::Die,
            "leave" => Self::Leave,
            "handled" => Self::Handled,
            "blocked" => Self::Blocked,
            "ignored" => Self::Ignored,
            // SIGKILL and SIGSTOP
            _ => return None,
        })
    }

    fn ends_it(self) -> bool {
        matches!(self, Self::Stop | Self::Die | Self::Leave)
    }
}

/// What the table says of each kind of process.
fn table() -> BTreeMap<&'static str, Vec<(i32, Effect)>> {
    let mut lines = DOCUMENT.lines().skip_while(|line| !line.starts_with("| signal "));
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim);
    assert_eq!(cells(lines.next().expect("a table")).skip(1).collect::<Vec<_>>(), KINDS);
    let mut table: BTreeMap<&str, Vec<(i32, Effect)>> = BTreeMap::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let mut cells = cells(line);
        let signals = numbers(cells.next().expect("signals"));
        for (kind, cell) in KINDS.into_iter().zip(cells) {
            let effect = Effect::of(cell);
            table.entry(kind).or_default().extend(signals.iter().filter_map(|&n| Some((n, effect?))));
        }
    }
    table
}

/// Of a cell such as `SIGTTIN, SIGTTOU`, or `34 to 64 (SIGRTMIN to SIGRTMAX)`.
fn numbers(cell: &str) -> Vec<i32> {
    let number = |word: &str| {
        let known = word.parse::<nix::sys::signal::Signal>().map(|signal| signal as i32);
        known.or_else(|_| word.parse()).unwrap_or_else(|_| panic!("{word:?} is no signal"))
    };
    let cell = cell.split(" (").next().expect("a cell");
    match cell.split_once(" to ") {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => cell.split(", ").map(number).collect(),
    }
}

#[test]
fn it_has_every_signal_once() {
    for (kind, row) in table() {
        let mut numbers: Vec<i32> = row.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        // but SIGKILL and SIGSTOP
        let all: Vec<i32> = (1..=64).filter(|n| ![9, 19].contains(n)).collect();
        assert_eq!(numbers, all, "{kind}");
    }
}

/// A daemon, and the process of it that gets signals.
struct Target {
    daemon: Daemon,
    client: Client,
    pid: i32,
}

impl Target {
    fn new(kind: &str, model: &str) -> Self {
        let daemon = Forkd::new(&format!("{model} --metrics unix://{{dir}}/m tcp://127.0.0.1:0")).start();
        let client = daemon.served();
        let server = daemon.server_of(&client);
        let workers: Vec<i64> = daemon.status()["children"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["pid"].as_i64().unwrap())
            .collect();
        let pid = match kind {
            "master" => daemon.pid(),
            "metrics child" => {
                let others = daemon.children().into_iter();
                others.filter(|&pid| !workers.contains(&i64::from(pid))).max().expect("a child for metrics")
            }
            _ => server,
        };
        Self { daemon, client, pid }
    }

    fn send(&self, number: i32) {
        // SAFETY: kill(2) is a plain system call; the process is there, or its parent has not heard of its end.
        assert_eq!(unsafe { libc::kill(self.pid, number) }, 0, "signal {number}");
    }

    fn has(&self, field: &str, number: i32) -> bool {
        let mask = u64::from_str_radix(&proc_status(self.pid, field), 16).expect("a mask");
        mask >> (number - 1) & 1 == 1
    }

    /// It goes on as if nothing had been sent, and the field of /proc says why.
    fn survives(&mut self, what: &str, all: &[(i32, Effect)]) {
        for &(number, effect) in all {
            let fields: &[&str] = match effect {
                Effect::Blocked => &["SigBlk"],
                // those of the C library's own may have a handler of its
                Effect::Ignored if [32, 33].contains(&number) => &["SigIgn", "SigCgt"],
                Effect::Ignored => &["SigIgn"],
                _ => &["SigCgt"],
            };
            // the master's mask is another between two waits
            let is_so = || fields.iter().any(|field| self.has(field, number));
            eventually(&format!("{what}: signal {number} is {effect:?}"), is_so);
            self.send(number);
        }
        echoes(&mut self.client, b"all well");
        short_connection(self.daemon.addr(), b"x").unwrap();
        let mut scraper = UnixStream::connect(self.daemon.path("m")).unwrap();
        scraper.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut metrics = String::new();
        scraper.read_to_string(&mut metrics).unwrap();
        assert!(metrics.starts_with("HTTP/1.1 200 ") || metrics.starts_with("HTTP/1.0 200 "), "{metrics}");
        assert_eq!(self.daemon.count_lines("metrics server ended"), 0);
        assert!(is_running(self.pid), "{what}: {:?}", self.daemon.log());
        assert_ne!(state_of(self.pid), Some('T'), "{what}");
    }

    fn ends(self, what: &str, kind: &str, number: i32, effect: Effect) {
        let Self { daemon, client, pid } = &self;
        self.send(number);
        if effect == Effect::Leave {
            client.shutdown(std::net::Shutdown::Both).unwrap();
        }
        if kind == "master" {
            let status = daemon.wait();
            let expected = if effect == Effect::Stop { (Some(0), None) } else { (None, Some(number)) };
            assert_eq!((status.code(), status.signal()), expected, "{what}: {:?}", daemon.log());
            return;
        }
        eventually(&format!("{what} ends"), || !is_running(*pid));
        let name = nix::sys::signal::Signal::try_from(number).unwrap();
        match (effect, kind) {
            (Effect::Die, "metrics child") => {
                daemon.wait_for_line(&format!("metrics server ended; starting another pid={pid} how={name}"));
            }
            (Effect::Die, _) => {
                daemon.wait_for_line(&format!(" pid={pid} cause={name} "));
            }
            _ => assert_eq!(daemon.count_lines(&format!("pid={pid} cause=")), 0),
        }
        short_connection(daemon.addr(), b"x").unwrap();
        assert!(daemon.ended().is_none());
    }
}

fn holds_for(kind: &str, model: &str) {
    let row = &table()[kind];
    let (ends, survives): (Vec<_>, Vec<_>) = row.iter().partition(|(_, effect)| effect.ends_it());
    Target::new(kind, model).survives(&format!("{kind} {model}"), &survives);
    for &(number, effect) in &ends {
        Target::new(kind, model).ends(&format!("{kind} {model}, signal {number}"), kind, number, effect);
    }
}

#[test]
fn it_holds_for_a_master() {
    holds_for("master", "-m fork --grace 1ms");
    holds_for("master", "-m prefork -w 2 --grace 1ms");
}

#[test]
fn it_holds_for_a_child() {
    holds_for("child (fork)", "-m fork");
}

#[test]
fn it_holds_for_the_metrics_child() {
    holds_for("metrics child", "-m fork");
}

under_models! {
    [prefork thread threads event coroutine]

    fn it_holds_for_a_worker(model) {
        // another one serves clients that come meanwhile
        holds_for("worker", &format!("{} -w 2", model.replace("-w 2", "")));
    }
}
