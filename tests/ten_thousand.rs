//! Ten thousand connections: of short ones nothing is left under any model, and idle ones take the memory that
//! docs/MODELS.md says.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;

use common::*;

const CONNECTIONS: usize = 10_000;

/// The master and its children, each with its threads and its descriptors.
type Belongings = Vec<(i32, Vec<String>, Vec<(i32, String)>)>;

fn belongings(daemon: &Daemon) -> Belongings {
    let mut pids = daemon.children();
    pids.push(daemon.pid());
    pids.sort_unstable();
    let threads = |pid| {
        let mut names = threads_of(pid);
        names.sort();
        names
    };
    pids.into_iter().map(|pid| (pid, threads(pid), fds_of(pid))).collect()
}

/// Waits until nothing is there that was not there before.
#[track_caller]
fn owns_no_more_than(daemon: &Daemon, before: &Belongings) {
    let mut now = Belongings::new();
    let as_before = becomes_true(LIMIT, || {
        now = belongings(daemon);
        now == *before
    });
    assert!(as_before, "{now:?} instead of {before:?}");
}

/// The memory of all of them that is no file's, in KiB.
fn memory(belongings: &Belongings) -> u64 {
    belongings.iter().map(|&(pid, ..)| Usage::of(pid).unwrap().anonymous).sum()
}

/// Waits until no client is served; returns what the daemon has then.
fn at_rest(daemon: &Daemon, model: &str) -> Belongings {
    let is_idle = |child: &serde_json::Value| child["state"] == "idle" && child["serving"] == 0;
    eventually("no client is served", || daemon.status()["children"].as_array().unwrap().iter().all(is_idle));
    daemon.settles_at(match model {
        "-m fork" => 0,
        "-m prefork -w 2" => 2,
        _ => 1,
    });
    // a thread without a client is kept for a moment
    let is_kept = |pid: &i32| threads_of(*pid).contains(&"connection".to_owned());
    eventually("no thread is kept", || !daemon.children().iter().any(is_kept));
    belongings(daemon)
}

/// Several clients at once, and short connections of each.
fn rush(address: SocketAddr, connections: usize) {
    const CLIENTS: usize = 4;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(move || {
                (0..connections / CLIENTS).for_each(|_| short_connection(address, b"hello").unwrap());
            });
        }
    });
}

fn short_ones_leave_nothing(model: &str, way: Way) {
    /// What allocators keep or don't.
    const SLACK_KIB: u64 = 128;
    const FIRST: usize = 100;
    let daemon = Forkd::new(model).way(way).start();
    // some things are there when they are first needed
    rush(daemon.addr(), FIRST);
    let before = at_rest(&daemon, model);
    let halves = [(); 2].map(|()| {
        rush(daemon.addr(), CONNECTIONS / 2);
        owns_no_more_than(&daemon, &before);
        memory(&before)
    });
    assert!(halves[1] <= halves[0] + SLACK_KIB, "{model} {way:?}: more by the thousand: {halves:?} KiB");
    eventually("all are counted", || daemon.listener(0)["connections"] == FIRST + CONNECTIONS);
}

under_models! {
    [fork prefork iterative thread threads event coroutine]

    fn of_short_connections_nothing_is_left(model) {
        short_ones_leave_nothing(model, Way::Native);
        short_ones_leave_nothing(model, Way::Portable);
    }
}

/// One model after the other: together they would need twice as many descriptors.
#[test]
fn idle_connections_take_little_memory() {
    if !need(may_open(CONNECTIONS as u64 + 500), "this test needs 10,500 open files") {
        return;
    }
    for (args, stated) in [
        ("-m event", 364),
        // with a timer for each
        ("-m event --idle-timeout 10m", 444),
        // a page of its stack, and what is known of it; the frames of a debug build are larger, by two pages
        ("-m coroutine", if cfg!(debug_assertions) { 12_600 } else { 4400 }),
    ] {
        // the soft limit, which the worker raises
        let daemon = Forkd::new(args).limit(libc::RLIMIT_NOFILE, 256).start();
        // what is the program's own is touched first
        (0..20).for_each(|_| short_connection(daemon.addr(), &[b'x'; 20_000]).unwrap());
        let own = at_rest(&daemon, args);
        let before = memory(&own);
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| daemon.served()).collect();
        for _ in 0..2 {
            clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
            clients.iter_mut().for_each(|client| client.read_exact(&mut [0; 5]).unwrap());
        }
        assert_eq!(daemon.status()["children"][0]["serving"], CONNECTIONS);
        let each = (memory(&own) - before) as usize * 1024 / CONNECTIONS;
        assert!(each <= stated + stated / 4, "{args}: {each} bytes each");
        clients.into_iter().rev().for_each(|mut client| echoes(&mut client, b"still here"));
        at_rest(&daemon, args);
        owns_no_more_than(&daemon, &own);
        assert!(memory(&own) < before + 8192, "{args}: {before} KiB before, {} after", memory(&own));
        echoes(&mut daemon.served(), b"and on");
    }
}
