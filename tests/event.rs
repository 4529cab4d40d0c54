//! The event model: one thread, many connections, and none that harms another.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::Signal;

/// A moment in which nothing must happen.
const A_WHILE: Duration = Duration::from_millis(300);

/// The one worker.
fn worker(daemon: &Daemon) -> i32 {
    let [worker] = daemon.children()[..] else { panic!("not one worker: {:?}", daemon.children()) };
    worker
}

fn serving(daemon: &Daemon) -> u64 {
    let status = daemon.status();
    status["children"].as_array().unwrap().iter().map(|child| child["serving"].as_u64().unwrap()).sum()
}

/// How much memory it has of its own, in KiB.
fn memory(pid: i32) -> u64 {
    Usage::of(pid).unwrap().anonymous
}

#[test]
fn clients_that_do_not_read_cost_one_reply_each_and_delay_no_other() {
    const CLIENTS: usize = 40;
    /// What is read at once, and a little.
    const EACH_KIB: u64 = 72;
    /// The buffer that all share, code that was not run before, and gaps between what was given back.
    const ALL_KIB: u64 = 1024;
    let daemon = Daemon::start("-m event");
    let worker = worker(&daemon);
    let mut quick = daemon.served();
    let before = memory(worker);
    let noise = wire::noise(1, 1 << 20);
    // what the first ones had is there for the second ones
    for _ in 0..2 {
        let mut greedy: Vec<Client> = (0..CLIENTS).map(|_| daemon.connect()).collect();
        for client in &mut greedy {
            // until the server takes no more
            client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            while client.write(&noise).is_ok() {}
            echoes(&mut quick, b"quick");
        }
        let grown = memory(worker).saturating_sub(before);
        assert!(grown < CLIENTS as u64 * EACH_KIB + ALL_KIB, "{grown} KiB for {CLIENTS} clients");
        let since = Instant::now();
        (0..100).for_each(|_| echoes(&mut quick, b"quick"));
        assert!(since.elapsed() < LIMIT);
        drop(greedy);
        eventually("they have gone", || serving(&daemon) == 1);
    }
}

#[test]
fn a_producer_does_not_hold_up_the_others() {
    let daemon = Daemon::start("-m event --service chargen");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (mut hog, mut page) = (daemon.connect(), vec![0; 1 << 16]);
                while !over.load(Ordering::Relaxed) {
                    hog.read_exact(&mut page).unwrap();
                }
            });
        }
        for _ in 0..50 {
            let mut line = [0; 74];
            daemon.connect().read_exact(&mut line).unwrap();
            assert!(line.starts_with(b" !\"#"));
        }
        over.store(true, Ordering::Relaxed);
    });
    // what is sent to a producer is thrown away also while its lines are not taken
    let mut client = daemon.connect();
    client.write_all(&vec![b'x'; 64 << 20]).unwrap();
}

#[test]
fn at_the_limit_clients_wait_for_a_place() {
    let daemon = Daemon::start("-m event --max-connections 3");
    let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
    let mut waiting: Vec<Client> = (0..2).map(|_| daemon.connect()).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"?").unwrap());
    assert!(is_silent(&waiting[0], A_WHILE));
    daemon.wait_for_line("connection limit reached; new clients wait limit=3");
    assert_eq!(serving(&daemon), 3);
    for mut client in waiting {
        served.remove(0);
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        echoes(&mut client, b"thanks");
        served.push(client);
    }
    served.iter_mut().for_each(|client| echoes(client, b"all well"));
    drop(served);
    let burst: Vec<Client> = (0..20).map(|_| daemon.connect()).collect();
    burst.into_iter().for_each(|mut client| echoes(&mut client, b"x"));
}

#[test]
fn a_worker_that_is_spent_serves_its_last_connections_beside_its_successor() {
    let daemon = Daemon::start("-m event --max-connections-per-child 3");
    let first = worker(&daemon);
    let mut long = daemon.served();
    // the limit has a jitter: after two or three
    daemon.served();
    daemon.served();
    eventually("another has taken its place", || daemon.children().iter().any(|&pid| pid != first));
    for _ in 0..10 {
        short_connection(daemon.addr(), b"x").unwrap();
        echoes(&mut long, b"going on");
    }
    let status = daemon.status();
    let of_first = status["children"].as_array().unwrap().iter().find(|child| child["pid"] == first).unwrap();
    assert_eq!((&of_first["state"], &of_first["serving"]), (&"leaving".into(), &1.into()), "{status}");
    drop(long);
    eventually("it goes after its last connection", || !daemon.children().contains(&first));
    assert!(daemon.deaths(0, "recycled") >= 1);
    assert_eq!(daemon.deaths(0, ""), daemon.deaths(0, "recycled"));
}

#[test]
fn a_killed_worker_is_replaced_and_costs_its_own_connections_only() {
    let daemon = Daemon::start("-m event -w 2");
    let mut clients: Vec<(Client, i32)> = (0..20)
        .map(|_| {
            let client = daemon.served();
            let pid = daemon.server_of(&client);
            (client, pid)
        })
        .collect();
    let victim = clients[0].1;
    signal(victim, Signal::SIGKILL);
    for (client, pid) in &mut clients {
        if *pid == victim {
            assert!(is_cut(client));
        } else {
            echoes(client, b"all well");
        }
    }
    eventually("another takes its place", || {
        let children = daemon.children();
        children.len() == 2 && !children.contains(&victim)
    });
    eventually("it is counted", || daemon.deaths(0, "SIGKILL") == 1);
    short_connection(daemon.addr(), b"x").unwrap();
}

#[test]
fn a_reload_between_fork_and_event_loses_no_client() {
    let forkd = Forkd::new("--config {dir}/f.toml");
    let toml = |model: &str| format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = '{model}'\n");
    std::fs::write(forkd.dir.path().join("f.toml"), toml("event")).unwrap();
    let daemon = forkd.start();
    let (address, over, served) = (daemon.addr(), AtomicBool::new(false), AtomicU64::new(0));
    let mut long = daemon.served();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    short_connection(address, b"hello").unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for model in ["fork", "event", "prefork", "event", "iterative", "event", "fork"] {
            let before = served.load(Ordering::Relaxed);
            eventually("there is load", || served.load(Ordering::Relaxed) > before + 20);
            std::fs::write(daemon.path("f.toml"), toml(model)).unwrap();
            let ended = common::forkd(forkd_command().arg("reload").arg("--control").arg(daemon.control()));
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            echoes(&mut long, b"still here");
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(long);
    daemon.settles_at(0);
}

#[test]
fn who_is_silent_is_cut_and_who_does_not_read_too() {
    let daemon = Daemon::start("-m event --idle-timeout 2s");
    let mut busy = daemon.served();
    let mut silent = daemon.served();
    let mut greedy = daemon.connect();
    greedy.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    while greedy.write(&[b'x'; 65_536]).is_ok() {}
    eventually("the others are gone", || {
        echoes(&mut busy, b"tick");
        serving(&daemon) == 1
    });
    echoes(&mut busy, b"tock");
    assert!(is_cut(&mut silent));
    assert!(is_cut(&mut greedy));
    assert!(is_cut(&mut busy));
}
