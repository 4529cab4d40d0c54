//! The thread model: how many threads there are, what happens at the limits, and that none is left.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;

/// A moment in which nothing must happen.
const A_WHILE: Duration = Duration::from_millis(300);

/// The pid of the only worker.
#[track_caller]
fn worker(daemon: &Daemon) -> i32 {
    let [worker] = daemon.children()[..] else { panic!("not one worker: {:?}", daemon.children()) };
    worker
}

#[track_caller]
fn has_threads(pid: i32, count: usize) {
    let mut names = Vec::new();
    let reached = becomes_true(LIMIT, || {
        names = threads_of(pid);
        names.len() == count
    });
    assert!(reached, "{} threads instead of {count}: {names:?}", names.len());
}

/// How many connections the workers serve, and what they are said to do.
fn serving(daemon: &Daemon) -> (u64, Vec<String>) {
    let status = daemon.status();
    let children = status["children"].as_array().unwrap();
    let states = children.iter().map(|child| child["state"].as_str().unwrap().to_owned()).collect();
    (children.iter().map(|child| child["serving"].as_u64().unwrap()).sum(), states)
}

both_ways! {
    fn each_connection_has_a_thread_of_its_own(way: Way) {
        let daemon = Forkd::new("-m thread").way(way).start();
        let worker = worker(&daemon);
        assert_eq!(threads_of(worker).len(), 1);
        assert_eq!(serving(&daemon), (0, vec!["idle".into()]));
        let mut clients = Vec::new();
        for count in [1, 10, 100] {
            clients.resize_with(count, || daemon.served());
            // each is served, by a thread of its own: no more and no fewer
            let names = threads_of(worker);
            assert_eq!(names.iter().filter(|name| *name == "connection").count(), count, "{names:?}");
            assert_eq!(names.len(), 1 + count, "{names:?}");
            assert_eq!(serving(&daemon), (count as u64, vec!["serving".into()]));
        }
        // the process has kept its own name, and is still the only one
        assert!(threads_of(worker).contains(&"forkd".to_owned()));
        assert_eq!(daemon.children(), [worker]);
        drop(clients);
        has_threads(worker, 1);
        assert_eq!(serving(&daemon), (0, vec!["idle".into()]));
    }

    fn a_thread_whose_client_has_gone_serves_the_next_one(way: Way) {
        let daemon = Forkd::new("-m thread").way(way).start();
        let worker = worker(&daemon);
        let ids = || -> BTreeSet<_> {
            let tasks = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap();
            tasks.map(|task| task.unwrap().file_name()).collect()
        };
        // where the next client is quicker than the thread, it gets another one, which then waits as well
        eventually("no thread is started for the second", || {
            let first = daemon.served();
            let before = ids();
            drop(first);
            let _second = daemon.served();
            ids() == before
        });
        has_threads(worker, 1);
    }

    /// To enlarge it, the kernel would have the thread that accepts wait for some milliseconds.
    fn the_table_of_descriptors_has_room_for_all_clients_from_the_start(way: Way) {
        for limit in ["--max-threads 300", "--threads 300"] {
            let daemon = Forkd::new(&format!("-m thread {limit}")).way(way).start();
            let room = || proc_status(worker(&daemon), "FDSize").parse::<usize>().unwrap();
            let before = room();
            let _clients: Vec<Client> = (0..200).map(|_| daemon.served()).collect();
            assert!(before >= 300 && room() == before, "{limit}: {before}, and then {}", room());
        }
    }

    fn a_pool_has_as_many_threads_as_it_was_given(way: Way) {
        let daemon = Forkd::new("-m thread --threads 3").way(way).start();
        let worker = worker(&daemon);
        // each gives itself its name
        eventually("all have a name", || threads_of(worker).iter().filter(|name| *name == "pool thread").count() == 3);
        let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        let mut fourth = daemon.asks();
        assert!(is_silent(&fourth, A_WHILE));
        assert_eq!(serving(&daemon), (3, vec!["serving".into()]));
        served.iter_mut().for_each(|client| echoes(client, b"not me"));
        served.pop();
        is_answered(&mut fourth);
        assert_eq!(threads_of(worker).len(), 1 + 3);
        drop((served, fourth));
        eventually("all are idle", || serving(&daemon) == (0, vec!["idle".into()]));
        assert_eq!(threads_of(worker).len(), 1 + 3);
    }

    fn at_the_limit_clients_wait_for_a_thread(way: Way) {
        let daemon = Forkd::new("-m thread --max-threads 3").way(way).start();
        let worker = worker(&daemon);
        let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        let mut waiting: Vec<Client> = (0..4).map(|_| daemon.asks()).collect();
        assert!(is_silent(&waiting[0], A_WHILE));
        assert_eq!(threads_of(worker).len(), 1 + 3);
        daemon.wait_for_line("thread limit reached");
        served.iter_mut().for_each(|client| echoes(client, b"all well"));
        for mut client in waiting.drain(..) {
            served.remove(0);
            is_answered(&mut client);
            served.push(client);
            has_threads(worker, 1 + 3);
        }
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({}));
        // at the limit it hears of a stop
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        drop(served);
        assert!(daemon.wait().success());
    }

    fn several_workers_share_the_load(way: Way) {
        let daemon = Forkd::new("-m thread -w 2 --max-threads 5").way(way).start();
        let mut clients: Vec<Client> = (0..10).map(|_| daemon.served()).collect();
        let workers = daemon.children();
        assert_eq!(workers.len(), 2);
        assert!(workers.iter().all(|&worker| threads_of(worker).len() == 1 + 5));
        assert!(is_silent(&daemon.asks(), A_WHILE));
        clients.iter_mut().for_each(|client| echoes(client, b"all well"));
    }

    fn a_worker_that_is_killed_is_replaced(way: Way) {
        for args in ["-m thread", "-m thread --threads 2"] {
            let daemon = Forkd::new(args).way(way).start();
            for round in 1..=3 {
                let mut clients = [daemon.served(), daemon.served()];
                let killed = worker(&daemon);
                signal(killed, Signal::SIGKILL);
                assert!(clients.iter_mut().all(is_cut));
                let line = daemon.wait_for_line(&format!("worker was killed pid={killed} cause=SIGKILL"));
                assert!(line.contains(" peer=127.0.0.1:"), "{line}");
                short_connection(daemon.addr(), b"x").unwrap();
                assert_eq!(daemon.deaths(0, "SIGKILL"), round);
            }
        }
    }

    fn a_worker_at_its_limit_is_replaced_while_a_long_connection_goes_on(way: Way) {
        for args in ["-m thread", "-m thread --threads 2"] {
            let daemon = Forkd::new(args).arg("--max-connections-per-child").arg("8").way(way).start();
            let (mut long, first) = (daemon.served(), worker(&daemon));
            for _ in 0..40 {
                short_connection(daemon.addr(), b"x").unwrap();
                echoes(&mut long, b"still here");
            }
            // each after 7 or 8
            eventually("some have gone", || daemon.deaths(0, "recycled") >= 3);
            assert!(daemon.children().contains(&first));
            let (_, mut states) = serving(&daemon);
            states.sort();
            assert_eq!(states, ["idle", "leaving"]);
            drop(long);
            daemon.settles_at(1);
            assert!(!daemon.children().contains(&first));
            eventually("all are counted", || daemon.listener(0)["connections"] == 41);
            assert_eq!(daemon.deaths(0, ""), daemon.deaths(0, "recycled"), "{}", daemon.listener(0));
        }
    }

    fn silent_connections_are_closed_and_others_go_on(way: Way) {
        for args in ["-m thread", "-m thread --threads 2"] {
            let daemon = Forkd::new(args).arg("--idle-timeout").arg("400ms").way(way).start();
            let (mut silent, mut other) = (daemon.served(), daemon.served());
            let mut ended = false;
            within(LIMIT, "the silent one is closed", || {
                echoes(&mut other, b"not silent");
                silent.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                ended = ended || silent.read(&mut [0]).is_ok_and(|n| n == 0);
                ended
            });
            echoes(&mut other, b"to the end");
            assert_eq!(daemon.listener(0)["failed"], 0);
        }
    }

    fn clients_wait_while_no_thread_can_be_started_and_are_served_after(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = three_threads_allowed("", way);
        let mut waiting: Vec<Client> = (0..3).map(|_| daemon.asks()).collect();
        daemon.wait_for_line("cannot start a thread");
        assert!(is_silent(&waiting[0], A_WHILE));
        served.iter_mut().for_each(|client| echoes(client, b"all well"));
        // one that ends makes room
        served.pop();
        is_answered(&mut waiting[0]);
        set_limit(worker(&daemon), libc::RLIMIT_NPROC, 100).unwrap();
        waiting[1..].iter_mut().for_each(is_answered);
        daemon.wait_for_line("threads can be started again");
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({}));
        assert_eq!(daemon.listener(0)["connections"], 5);
    }

    fn a_client_is_held_for_longer_than_the_grace_time_that_only_a_stop_has(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = three_threads_allowed("--grace 200ms", way);
        let mut held = daemon.asks();
        daemon.wait_for_line("cannot start a thread");
        assert!(is_silent(&held, Duration::from_secs(1)));
        served.pop();
        is_answered(&mut held);
        daemon.wait_for_line("threads can be started again");
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({}));
        let mut cut = daemon.asks();
        eventually("it is held", || daemon.count_lines("cannot start a thread") == 2);
        signal(daemon.pid(), Signal::SIGTERM);
        assert!(is_cut(&mut cut));
    }

    fn a_pool_that_can_t_have_its_threads_is_no_pool(way: Way) {
        if !need_root() {
            return;
        }
        // the master, its worker, and three of five threads
        let forkd = Forkd::new("-m thread --threads 5").uid(own_user()).way(way).limit(libc::RLIMIT_NPROC, 5);
        let daemon = forkd.launch();
        assert_eq!(daemon.wait_for(Duration::from_secs(30)).code(), Some(71));
        let line = daemon.wait_for_line("cannot start the threads of a worker");
        assert!(line.starts_with("forkd: error: ") && line.contains("endpoint=tcp://127.0.0.1:"), "{line}");
        eventually("no process is left", || daemon.is_gone());
    }

    fn without_descriptors_clients_wait_at_a_stop_too(way: Way) {
        let daemon = Forkd::new("-m thread").way(way).start();
        let (mut first, worker) = (daemon.served(), worker(&daemon));
        let open: Vec<i32> = fds_of(worker).into_iter().map(|fd| fd.0).collect();
        let free = (0..).find(|fd| !open.contains(fd)).unwrap();
        set_limit(worker, libc::RLIMIT_NOFILE, free as u64).unwrap();
        // an accept(2) that it is in already has its descriptor, and may bring in one more
        let mut more = daemon.asks();
        let mut waiting: Vec<Client> = (0..3).map(|_| daemon.asks()).collect();
        daemon.wait_for_line("cannot accept");
        assert!(is_silent(&waiting[2], A_WHILE));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        echoes(&mut first, b"going on");
        drop(first);
        is_answered(&mut more);
        drop(more);
        for mut client in waiting.drain(..) {
            is_answered(&mut client);
        }
        assert!(daemon.wait().success());
        let line = daemon.wait_for_line("stopped");
        assert!(line.contains("connections=5 cut=0"), "{line}");
    }
}

/// A daemon whose user may have a master, a worker with two threads, and its two served clients.
fn three_threads_allowed(args: &str, way: Way) -> (Daemon, Vec<Client>) {
    let daemon = Forkd::new(&format!("-m thread {args}"))
        .uid(own_user())
        .way(way)
        .limit(libc::RLIMIT_NPROC, 4)
        .start();
    let served = vec![daemon.served(), daemon.served()];
    assert_eq!(daemon.count_lines("cannot start a thread"), 0);
    (daemon, served)
}

/// What one thread does is no other's concern, in either direction.
#[test]
fn bulk_and_small_talk_go_on_side_by_side() {
    for args in ["-m thread", "-m thread --threads 3"] {
        let daemon = Daemon::start(args);
        let data: Vec<u8> = (0..8_u32 << 20).map(|n| (n / 251) as u8).collect();
        let mut quick = daemon.served();
        std::thread::scope(|scope| {
            let bulks: Vec<_> = (0..2)
                .map(|_| {
                    let mut client = daemon.served();
                    let (mut writer, bytes) = (client.try_clone().unwrap(), &data);
                    scope.spawn(move || {
                        writer.write_all(bytes).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    scope.spawn(move || {
                        let mut back = Vec::new();
                        client.read_to_end(&mut back).unwrap();
                        assert!(back == *bytes, "other bytes came back");
                    })
                })
                .collect();
            while !bulks.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                echoes(&mut quick, b"a word in between");
            }
        });
    }
}
