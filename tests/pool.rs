//! The pool of prefork: its size, and the coming and going of workers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;

both_ways! {
    fn one_worker_serves_one_after_the_other(way: Way) {
        let daemon = Forkd::new("-m iterative").way(way).start();
        assert_eq!((daemon.children().len(), &daemon.listener(0)["model"]), (1, &"iterative".into()));
        let mut slow = daemon.served();
        let mut quick = daemon.connect();
        std::io::Write::write_all(&mut quick, b"quick").unwrap();
        // that is what it costs: the quick one waits for the slow one
        assert!(is_silent(&quick, Duration::from_millis(300)));
        echoes(&mut slow, b"slow");
        drop(slow);
        let mut answer = [0; 5];
        std::io::Read::read_exact(&mut quick, &mut answer).unwrap();
        assert_eq!(&answer, b"quick");
        assert_eq!(daemon.children().len(), 1);
    }

    fn a_pool_for_datagrams_leaves_a_processor_to_the_kernel_unless_more_are_asked_for(way: Way) {
        let processors = std::thread::available_parallelism().unwrap().get();
        for (options, count) in [
            ("tcp://127.0.0.1:0", 8),
            ("udp://127.0.0.1:0", (processors - 1).clamp(1, 8)),
            ("-w 5 udp://127.0.0.1:0", 5),
            ("-w 3..5 udp://127.0.0.1:0", 3),
        ] {
            let daemon = Forkd::new(&format!("-m prefork {options}")).way(way).start();
            assert_eq!(daemon.children().len(), count, "{options}");
        }
    }

    fn an_elastic_pool_grows_and_shrinks(way: Way) {
        let daemon = Forkd::new("-m prefork -w 2..16 --min-spare 2 --max-spare 9").way(way).start();
        assert!((2..=4).contains(&daemon.children().len()));
        let mut held: Vec<Client> = (0..10).map(|_| daemon.connect()).collect();
        held.iter_mut().for_each(|client| echoes(client, b"x"));
        eventually("two are spare", || daemon.children().len() >= 12);
        // there is always a worker for one more
        echoes(&mut daemon.served(), b"y");
        assert!(daemon.children().len() <= 16);
        held.iter_mut().for_each(|client| echoes(client, b"z"));
        drop(held);
        daemon.settles_at(9);
        holds_for(Duration::from_millis(1500), "nine workers", || daemon.children().len() == 9);
        let l = daemon.listener(0);
        assert_eq!(l["deaths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["retired"], "{l}");
        assert!(l["peak"].as_u64() <= Some(16), "{l}");
        // retired in the middle of nothing: no client has noticed
        short_connection(daemon.addr(), b"x").unwrap();
    }

    fn an_elastic_pool_stops_at_its_maximum(way: Way) {
        let daemon = Forkd::new("-m prefork -w 1..4").way(way).start();
        let mut held: Vec<Client> = (0..6).map(|_| daemon.connect()).collect();
        held[..4].iter_mut().for_each(|client| echoes(client, b"x"));
        assert!(is_silent(&held[4], Duration::from_millis(300)));
        assert_eq!(daemon.children().len(), 4);
        held.drain(..2);
        held[2..].iter_mut().for_each(|client| echoes(client, b"x"));
        assert!(daemon.children().len() <= 4);
    }

    fn signals_resize_the_pool(way: Way) {
        let daemon = Forkd::new("-m prefork -w 2").way(way).start();
        let resize = |signal: Signal, lines: usize, count: usize| {
            daemon.signal(signal);
            daemon.wait_for_lines(lines, "pool resized");
            daemon.settles_at(count);
        };
        let mut held = [daemon.served(), daemon.served()];
        resize(Signal::SIGTTIN, 1, 3);
        resize(Signal::SIGTTIN, 2, 4);
        // the idle ones leave first
        resize(Signal::SIGTTOU, 3, 3);
        resize(Signal::SIGTTOU, 4, 2);
        held.iter_mut().for_each(|client| echoes(client, b"x"));
        // a busy one leaves after its connection
        daemon.signal(Signal::SIGTTOU);
        daemon.wait_for_lines(5, "pool resized");
        held.iter_mut().for_each(|client| echoes(client, b"y"));
        let [first, second] = held;
        drop(first);
        drop(second);
        daemon.settles_at(1);
        resize(Signal::SIGTTOU, 6, 1);
        short_connection(daemon.addr(), b"x").unwrap();
        assert_eq!(daemon.listener(0)["deaths"], serde_json::json!({"retired": 3}));
    }

    fn recycling_loses_no_client(way: Way) {
        const CLIENTS: usize = 4;
        const CONNECTIONS: usize = 400;
        let daemon = Forkd::new("-m prefork -w 2 --max-connections-per-child 8").way(way).start();
        let (address, first) = (daemon.addr(), daemon.children());
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    (0..CONNECTIONS / CLIENTS).for_each(|_| short_connection(address, b"hello").unwrap());
                });
            }
        });
        eventually("all are counted", || daemon.listener(0)["connections"] == CONNECTIONS);
        daemon.settles_at(2);
        let l = daemon.listener(0);
        let recycled = l["deaths"]["recycled"].as_u64().unwrap() as usize;
        // after 7 or 8 each
        assert!((CONNECTIONS / 8 - 2..=CONNECTIONS / 7).contains(&recycled), "{l}");
        assert_eq!(l["deaths"].as_object().unwrap().len(), 1, "{l}");
        assert!(daemon.children().iter().all(|pid| !first.contains(pid)));
    }

    fn workers_that_die_at_once_end_the_daemon(way: Way) {
        let daemon = Forkd::new("-m prefork -w 2").way(way).launch();
        let status = {
            let mut status = None;
            within(Duration::from_secs(30), "the daemon gives up", || {
                // they may be gone before the signal comes
                daemon.children().into_iter().for_each(|pid| {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
                });
                status = daemon.ended();
                status.is_some()
            });
            status.unwrap()
        };
        assert_eq!(status.code(), Some(70), "{status}");
        let line = daemon.wait_for_line("die before they have served a client");
        assert!(line.starts_with("forkd: error: ") && line.contains(&daemon.endpoint(0)), "{line}");
        // such lines are limited
        assert!(daemon.count_lines("worker was killed") >= 5);
        assert!(daemon.is_gone());
    }
}

#[test]
fn a_dead_worker_is_replaced_soon_and_often() {
    let daemon = Daemon::start("-m prefork -w 3");
    for round in 1..=20 {
        // having served, it is no failed start
        let client = daemon.served();
        let pid = daemon.server_of(&client);
        signal(pid, Signal::SIGKILL);
        eventually("another takes its place", || {
            let children = daemon.children();
            children.len() == 3 && !children.contains(&pid)
        });
        eventually("it is counted", || daemon.deaths(0, "SIGKILL") == round);
    }
    short_connection(daemon.addr(), b"x").unwrap();
}

/// Or clients that stay could have as many processes as they like.
#[test]
fn only_so_many_workers_are_at_their_limit_and_serve_those_that_stay() {
    for model in ["thread", "thread --threads 30", "event", "coroutine"] {
        let daemon = Daemon::start(&format!("-m {model} -w 2 --max-connections-per-child 2"));
        let mut clients: Vec<Client> = (0..60).map(|_| daemon.served()).collect();
        // 16 that leave, and two that don't; some more while the master counts
        assert!(daemon.children().len() <= 22, "{model}: {:?}", daemon.children());
        clients.iter_mut().for_each(|client| echoes(client, b"still there?"));
        drop(clients);
        eventually(&format!("{model}: those at their limit are replaced"), || {
            daemon.deaths(0, "recycled") >= 2
        });
        echoes(&mut daemon.connect(), b"and it goes on");
    }
}
