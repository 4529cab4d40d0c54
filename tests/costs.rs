//! What an operation costs, counted and not timed: system calls, page faults, instructions.
//!
//! The bars of system calls hold for every build. Page faults and instructions are those of a release build, so these
//! tests are run by `.ci/run`, or by hand:
//!
//! ```sh
//! cargo build --release
//! export FORKD_BIN=$(find target -path '*/release/forkd')
//! cargo test --test costs -- --include-ignored              # with FORKD_BLESS=1: keeps the instructions anew
//! ```
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "costs/instructions.rs"]
mod instructions;
#[path = "costs/steps.rs"]
mod steps;
#[path = "costs/tracer.rs"]
mod tracer;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::path::Path;

use common::*;
use instructions::instructions;
use nix::sys::signal::Signal;
use steps::steps;
use tracer::{Counts, trace};

/// Connections that are counted in a round, after as many that are not: what is done once is no cost of a connection.
const CONNECTIONS: usize = 25;

/// What is done once in some seconds is none either, and not in all rounds.
const ROUNDS: usize = 5;

/// The most system calls and page faults that a connection may cost under a model: connect, one echo, close, or a request of
/// http for a small file.
struct Bar {
    options: &'static str,
    connection: fn(&Daemon),
    calls: usize,
    faults: u64,
}

/// One of the calls is the sandbox's.
const FORK: Bar = Bar { options: "-m fork", connection: echo, calls: 13, faults: 4 };
/// A child that counts touches the counts of its source and of its listener, and asks the vDSO for the time; the text for
/// that lies where that of each child is. The kernel is told twice how long a wait may last.
const FORK_LIMITS: Bar = Bar {
    options: "-m fork --allow 127.0.0.0/8 --max-per-source 1000 --rate-per-source 1000000/s --early-drop 500:10:1000 \
              --max-lifetime 1h --penalty timeout=1s",
    connection: echo,
    calls: 17,
    faults: 7,
};
/// The master forks several in one turn. A child waits on its stack, and closes the listener when it has its client.
const SPARE: Bar = Bar { options: "-m fork --spare 8", connection: echo, calls: 14, faults: 9 };
const PREFORK: Bar = Bar { options: "-m prefork -w 1", connection: echo, calls: 5, faults: 0 };
/// The kernel is told twice how long a wait may last, and not for each of ten exchanges.
const LIFETIME: Bar =
    Bar { options: "-m prefork -w 1 --max-lifetime 1h", connection: ten_exchanges, calls: 25, faults: 0 };
const THREAD: Bar = Bar { options: "-m thread -w 1", connection: echo, calls: 10, faults: 1 };
const EVENT: Bar = Bar { options: "-m event -w 1", connection: echo, calls: 10, faults: 0 };
const FORK_HTTP: Bar = Bar {
    options: concat!("-m fork --service http --root ", env!("CARGO_MANIFEST_DIR"), "/tests/costs"),
    connection: request,
    calls: 21,
    faults: 13,
};
const THREAD_HTTP: Bar = Bar {
    options: concat!("-m thread -w 1 --service http --root ", env!("CARGO_MANIFEST_DIR"), "/tests/costs"),
    connection: request,
    calls: 16,
    faults: 1,
};

fn echo(daemon: &Daemon) {
    short_connection(daemon.addr(), &[7; 64]).unwrap();
}

fn ten_exchanges(daemon: &Daemon) {
    let mut client = daemon.connect();
    (0..10).for_each(|_| echoes(&mut client, &[7; 64]));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

fn request(daemon: &Daemon) {
    let mut client = daemon.connect();
    client.write_all(b"GET /instructions.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// Counts connections, one after the other, in several rounds; returns the one with the least of this count. `None` where
/// nothing can be traced.
fn counted(bar: &Bar, by: fn(&Counts) -> usize) -> Option<Counts> {
    let daemon = Forkd::new(bar.options).program_of_the_environment().start();
    let connections = || {
        for _ in 0..CONNECTIONS {
            (bar.connection)(&daemon);
        }
    };
    connections();
    match bar.options {
        options if options == SPARE.options => {
            let idle = || {
                let status = daemon.status();
                let children = status["children"].as_array().unwrap();
                children.len() > 4 && children.iter().all(|child| child["state"] == "idle")
            };
            eventually("they wait", || idle() && daemon.children().len() <= 8);
        }
        options => daemon.settles_at(if options.starts_with(FORK.options) { 0 } else { 1 }),
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        // the tracing ends with its thread
        let processes = [vec![daemon.pid()], daemon.children()].concat();
        let counts =
            std::thread::scope(|scope| scope.spawn(|| trace(&processes, connections)).join().unwrap());
        need(counts.is_some(), "no process may be traced here (ptrace(2))").then_some(())?;
        let mut counts = counts?;
        // std asks it in debug builds, whether a descriptor is open
        counts.calls.remove(&(libc::SYS_fcntl as u64));
        rounds.push(counts);
    }
    rounds.into_iter().min_by_key(by)
}

/// That each costs no more, but for what happens now and then, as once a second.
#[track_caller]
fn is_within(what: &str, count: usize, bar: usize, counts: &Counts) {
    let mean = count as f64 / CONNECTIONS as f64;
    eprintln!("{what}: {mean:.2} for a connection, at most {bar}");
    assert!(mean < bar as f64 + 0.5, "{what}: {mean:.2} for a connection, and not {bar}: {counts:?}");
}

#[track_caller]
fn calls_are_within(bar: &Bar) {
    let Some(counts) = counted(bar, Counts::all_calls) else { return };
    is_within(&format!("system calls, {}", bar.options), counts.all_calls(), bar.calls, &counts);
}

#[test]
fn system_calls_of_fork() {
    calls_are_within(&FORK);
}

#[test]
fn system_calls_of_spare_children() {
    calls_are_within(&SPARE);
}

#[test]
fn system_calls_of_http_under_fork() {
    calls_are_within(&FORK_HTTP);
}

#[test]
fn system_calls_of_prefork() {
    calls_are_within(&PREFORK);
}

#[test]
fn system_calls_of_fork_with_all_limits() {
    calls_are_within(&FORK_LIMITS);
}

#[test]
fn system_calls_where_connections_have_a_longest_lifetime() {
    calls_are_within(&LIFETIME);
}

#[test]
fn system_calls_of_thread() {
    calls_are_within(&THREAD);
}

#[test]
fn system_calls_of_http_under_thread() {
    calls_are_within(&THREAD_HTTP);
}

#[test]
fn system_calls_of_event() {
    calls_are_within(&EVENT);
}

/// In a pool a worker that is never without work lets the others have its processor. How often depends on who else has
/// it meanwhile.
#[test]
fn workers_that_serve_many_yield_to_each_other() {
    for (options, yields) in [
        ("-m event -w 2", true),
        ("-m coroutine -w 2", true),
        ("-m event -w 1", false),
        ("-m coroutine -w 1", false),
    ] {
        let daemon = Forkd::new(options).program_of_the_environment().start();
        let clients = || {
            let mut clients: Vec<Client> = (0..16).map(|_| daemon.served()).collect();
            for _ in 0..20 {
                clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
                clients.iter_mut().for_each(|client| client.read_exact(&mut [0]).unwrap());
            }
        };
        let workers = daemon.children();
        let counts = std::thread::scope(|scope| scope.spawn(|| trace(&workers, clients)).join().unwrap());
        if !need(counts.is_some(), "no process may be traced here (ptrace(2))") {
            return;
        }
        let calls = counts.unwrap().calls;
        assert_eq!(calls.contains_key(&(libc::SYS_sched_yield as u64)), yields, "{options}: {calls:?}");
    }
}

/// At each of several starts, as addresses are others each time.
#[test]
#[ignore = "of a release build: see above"]
fn page_faults_whatever_the_addresses() {
    for bar in [&FORK_HTTP, &THREAD_HTTP, &FORK, &FORK_LIMITS, &SPARE, &PREFORK, &THREAD, &EVENT] {
        for _ in 0..5 {
            let Some(counts) = counted(bar, |counts| counts.faults as usize) else { return };
            is_within(
                &format!("page faults, {}", bar.options),
                counts.faults as usize,
                bar.faults as usize,
                &counts,
            );
        }
    }
}

/// Those of the newest of several hundred: what it costs a child to say why it ends doesn't depend on how many there are.
#[test]
#[ignore = "of a release build: see above"]
fn page_faults_of_a_child_that_a_stop_ends() {
    const CHILDREN: usize = 400;
    const NEWEST: usize = 20;
    const MOST: usize = 5;
    let daemon = Forkd::new("-m fork").program_of_the_environment().start();
    let clients: Vec<Client> = (0..CHILDREN).map(|_| daemon.served()).collect();
    let newest: Vec<i32> =
        clients[CHILDREN - NEWEST..].iter().map(|client| daemon.server_of(client)).collect();
    let stop = || {
        daemon.signal(Signal::SIGQUIT);
        assert!(daemon.wait().success());
    };
    let counts = std::thread::scope(|scope| scope.spawn(|| trace(&newest, stop)).join().unwrap());
    if !need(counts.is_some(), "no process may be traced here (ptrace(2))") {
        return;
    }
    let faults = counts.as_ref().unwrap().faults as usize;
    eprintln!("page faults at a stop: {faults} of {NEWEST} children, at most {MOST} each");
    assert!(faults <= NEWEST * MOST, "{counts:?}");
    assert!(daemon.wait_for_line("stopped").contains(&format!("cut={CHILDREN}")));
}

/// Each page that a worker writes to is one more for each worker; and each that its master writes to between two forks, of
/// which the worker has the old copy.
#[test]
fn memory_of_a_prefork_pool() {
    const WORKERS: u64 = 64;
    let daemon = Forkd::new(&format!("-m prefork -w {WORKERS}")).program_of_the_environment().start();
    for _ in 0..4 * WORKERS {
        short_connection(daemon.addr(), &[7; 64]).unwrap();
    }
    let workers = daemon.children();
    let each = workers.iter().map(|&pid| Usage::of(pid).unwrap().part).sum::<u64>() / WORKERS;
    eprintln!("anonymous memory of a prefork worker: {each} KiB");
    assert!(each <= 48, "a prefork worker has {each} KiB of anonymous memory");
}

fn connections(daemon: &Daemon, count: usize, rests: &dyn Fn()) {
    for _ in 0..count {
        let mut client = daemon.connect();
        rests();
        echoes(&mut client, &[7; 64]);
        rests();
        drop(client);
        rests();
    }
}

fn exchanges(daemon: &Daemon, count: usize, rests: &dyn Fn()) {
    let mut client = daemon.connect();
    for _ in 0..count {
        rests();
        echoes(&mut client, &[7; 64]);
    }
    rests();
}

fn datagrams(daemon: &Daemon, count: usize, rests: &dyn Fn()) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(daemon.address("udp")).unwrap();
    for _ in 0..count {
        rests();
        socket.send(&[7; 64]).unwrap();
        assert_eq!(socket.recv(&mut [0; 65]).unwrap(), 64);
    }
}

/// How the instructions of an operation are counted, with the options of the daemon.
#[derive(Clone, Copy)]
enum Counting {
    /// Those of a worker, by callgrind, which does what the function says.
    Worker(&'static str, Ask),
    /// Those of a child of the fork model, from its first to its last.
    Child(&'static str),
}

type Ask = fn(&Daemon, usize, &dyn Fn());

/// Not kept are those of the master under fork, which depend on how soon it is told of a child's end; those of thread, which depend
/// on whether a thread that is done sleeps already when the next client comes; and those of a child of http, which differ by
/// a percent with the digits of the date and the processor.
const PATHS: [(&str, Counting); 6] = [
    ("prefork, a connection", Counting::Worker("-m prefork -w 1", connections)),
    ("prefork, an exchange", Counting::Worker("-m prefork -w 1", exchanges)),
    ("event, a connection", Counting::Worker("-m event -w 1", connections)),
    ("event, an exchange", Counting::Worker("-m event -w 1", exchanges)),
    ("prefork, a datagram", Counting::Worker("-m prefork -w 1 udp://127.0.0.1:0", datagrams)),
    ("fork, a child", Counting::Child("-m fork")),
];

impl Counting {
    /// `None` where it can't be counted.
    fn count(self) -> Option<f64> {
        match self {
            Self::Worker(options, ask) => need_tool("valgrind").then(|| instructions(options, ask)),
            Self::Child(options) => child(options),
        }
    }
}

/// The instructions of a child whose client has sent all that it sends before the child looks.
fn child(options: &str) -> Option<f64> {
    let daemon = Forkd::new(options).program_of_the_environment().start();
    let client = || {
        let mut client = daemon.connect();
        client.write_all(&[7; 64]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(client.read_to_end(&mut Vec::new()).unwrap() > 0);
    };
    // what is done once is done
    (0..10).for_each(|_| client());
    daemon.settles_at(0);
    let counted = std::thread::scope(|scope| scope.spawn(|| steps(daemon.pid(), client)).join().unwrap());
    need(counted.is_some(), "no process may be traced here (ptrace(2))");
    counted.map(|count| count as f64)
}

/// That the hot paths have as many instructions as `costs/instructions.txt` says, but for 3 %.
#[test]
#[ignore = "of a release build: see above"]
fn instructions_of_the_hot_paths() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/costs/instructions.txt");
    let found: Option<Vec<f64>> = PATHS.iter().map(|(_, counting)| counting.count()).collect();
    let Some(found) = found else { return };
    if std::env::var_os("FORKD_BLESS").is_some() {
        let lines = PATHS.iter().zip(&found).map(|((name, _), count)| format!("{name}: {count:.0}\n"));
        fs::write(&path, lines.collect::<String>()).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let kept: Vec<(&str, f64)> = kept
        .lines()
        .map(|line| line.rsplit_once(": ").unwrap())
        .map(|(name, count)| (name, count.parse().unwrap()))
        .collect();
    let mut changed = Vec::new();
    for ((name, counting), mut count) in PATHS.into_iter().zip(found) {
        let before = kept.iter().find(|(other, _)| *other == name).map_or(0.0, |(_, count)| *count);
        let is_off = |count: f64| (count - before).abs() > before * 0.03;
        // an interruption at the wrong moment has instructions, too: a count that is off must be so three times
        for _ in 0..2 {
            if is_off(count) {
                count = counting.count().unwrap();
            }
        }
        eprintln!("{name}: {count:.1} instructions, {before} are kept");
        if is_off(count) {
            changed.push(format!("{name}: {count:.0} instead of {before}"));
        }
    }
    assert!(changed.is_empty(), "{}; FORKD_BLESS=1 keeps what is new", changed.join(", "));
}
