//! Coroutines: many clients of one worker, none of which can harm another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;

fn patient(endpoint: &str) -> Daemon {
    Forkd::example("test-servers", &format!("persistent {endpoint} coroutine")).start()
}

fn only_worker(daemon: &Daemon) -> i32 {
    // an example of the library says that it listens before it forks
    daemon.settles_at(1);
    let [worker] = daemon.children()[..] else { panic!("not one worker: {:?}", daemon.children()) };
    worker
}

both_ways! {
    fn slow_clients_delay_no_other(way: Way) {
        let daemon = Forkd::new("-m coroutine").way(way).start();
        let mut slow: Vec<Client> = (0..20).map(|_| daemon.served()).collect();
        // one of them does not even read
        let mut deaf = daemon.served();
        deaf.set_nonblocking(true).unwrap();
        while deaf.write(&[b'x'; 65_536]).is_ok() {}
        for byte in b"slowly" {
            slow.iter_mut().for_each(|client| client.write_all(&[*byte]).unwrap());
            (0..10).for_each(|_| short_connection(daemon.addr(), b"quickly").unwrap());
        }
        for client in &mut slow {
            let mut back = [0; 6];
            client.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"slowly");
        }
        assert_eq!(daemon.children().len(), 1);
    }

    fn bulk_goes_through_pipes_and_no_client_keeps_more_than_few_of_them(way: Way) {
        let daemon = Forkd::new("-m coroutine").way(way).start();
        let worker = only_worker(&daemon);
        let ends_of_pipes = || fds_of(worker).iter().filter(|(_, target)| target.starts_with("pipe:")).count();
        let before = ends_of_pipes();
        // more than there are pipes for, and none of them reads
        let mut deaf: Vec<Client> = (0..20).map(|_| daemon.served()).collect();
        for client in &mut deaf {
            client.set_nonblocking(true).unwrap();
            while client.write(&[b'x'; 65_536]).is_ok() {}
        }
        eventually("there is a pipe", || ends_of_pipes() > before);
        short_connection(daemon.addr(), &[b'x'; 100_000]).unwrap();
        assert!(ends_of_pipes() - before <= 2 * 16, "{} more", ends_of_pipes() - before);
    }

    fn a_worker_that_is_killed_is_replaced(way: Way) {
        let daemon = Forkd::new("-m coroutine -w 2").way(way).start();
        for round in 1..=5 {
            let mut held = daemon.served();
            let victim = daemon.server_of(&held);
            signal(victim, Signal::SIGKILL);
            assert!(is_cut(&mut held));
            eventually("another takes its place", || {
                let children = daemon.children();
                children.len() == 2 && !children.contains(&victim)
            });
            eventually("it is counted", || daemon.deaths(0, "SIGKILL") == round);
            short_connection(daemon.addr(), b"x").unwrap();
        }
    }

    fn a_worker_at_its_limit_is_replaced_and_finishes_what_it_has(way: Way) {
        let daemon = Forkd::new("-m coroutine --max-connections-per-child 8").way(way).start();
        let first = only_worker(&daemon);
        let mut long = daemon.served();
        (0..7).for_each(|_| short_connection(daemon.addr(), b"x").unwrap());
        eventually("another takes its place", || daemon.children().iter().any(|&pid| pid != first));
        (0..3).for_each(|_| short_connection(daemon.addr(), b"y").unwrap());
        echoes(&mut long, b"still here");
        assert!(is_running(first));
        drop(long);
        eventually("the first has gone", || !is_running(first));
        eventually("it is counted", || daemon.deaths(0, "recycled") == 1);
        daemon.settles_at(1);
    }

    fn a_reload_renews_the_worker_and_cuts_no_client(way: Way) {
        let forkd = Forkd::new("--config {dir}/f.toml").way(way);
        let group = |model: &str| format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = '{model}'\n");
        let file = forkd.dir.path().join("f.toml");
        std::fs::write(&file, group("coroutine")).unwrap();
        let daemon = forkd.start();
        let mut held = Vec::new();
        for model in ["coroutine", "iterative", "coroutine", "fork", "coroutine"] {
            held.push(daemon.served());
            let before = daemon.children();
            std::fs::write(&file, group(model)).unwrap();
            let control = daemon.control().to_str().unwrap().to_owned();
            assert_eq!(run(&["reload", "--control", &control]).code, Some(0));
            assert_eq!(daemon.listener(0)["model"], model);
            held.iter_mut().for_each(|client| echoes(client, b"x"));
            // iterative serves no other client while one is served
            short_connection(daemon.addr(), b"y").unwrap();
            assert!(model == "fork" || daemon.children().iter().any(|pid| !before.contains(pid)));
        }
        drop(held);
        daemon.settles_at(1);
    }

    fn a_silent_client_is_cut_after_the_idle_time_out(way: Way) {
        let daemon = Forkd::new("-m coroutine --idle-timeout 2s").way(way).start();
        let mut silent = daemon.served();
        let mut talks = daemon.served();
        let mut deaf = daemon.served();
        deaf.set_nonblocking(true).unwrap();
        while deaf.write(&[b'x'; 65_536]).is_ok() {}
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(200));
            echoes(&mut talks, b"I am here");
        }
        assert!(is_cut(&mut silent));
        eventually("no other client is served", || daemon.status()["children"][0]["serving"] == 1);
        echoes(&mut talks, b"still here");
    }

    fn without_descriptors_clients_wait_and_come_in_after(way: Way) {
        let daemon = Forkd::new("-m coroutine").way(way).start();
        let mut inside = daemon.served();
        let worker = only_worker(&daemon);
        let taken: Vec<i32> = fds_of(worker).into_iter().map(|(number, _)| number).collect();
        let lowest_free = (0..).find(|number| !taken.contains(number)).unwrap();
        set_limit(worker, libc::RLIMIT_NOFILE, lowest_free as u64).unwrap();
        let mut waiting: Vec<Client> = (0..5).map(|_| daemon.connect()).collect();
        waiting.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
        daemon.wait_for_line("cannot accept");
        echoes(&mut inside, b"all is well in here");
        set_limit(worker, libc::RLIMIT_NOFILE, 256).unwrap();
        for client in &mut waiting {
            client.read_exact(&mut [0; 5]).unwrap();
        }
        daemon.wait_for_line("accepting again");
        assert_eq!(daemon.count_lines("cannot accept"), 1);
    }

    fn a_worker_outlives_a_killed_master_by_the_grace_time(way: Way) {
        let daemon = Forkd::new("-m coroutine --grace 1s").way(way).start();
        let worker = only_worker(&daemon);
        let mut stays = daemon.served();
        signal(daemon.pid(), Signal::SIGKILL);
        daemon.wait();
        echoes(&mut stays, b"going on");
        within(LIMIT, "it does not listen any more", || is_refused(daemon.addr()));
        assert!(is_cut(&mut stays));
        eventually("the worker has gone", || !is_running(worker));
    }

    fn a_stack_overflow_ends_the_worker_says_why_and_another_takes_its_place(way: Way) {
        let server = Forkd::example("test-servers", "persistent tcp://127.0.0.1:0 coroutine").way(way).start();
        for round in 1..=3 {
            let worker = only_worker(&server);
            let mut bystander = server.served();
            let mut victim = server.connect();
            victim.write_all(b"deep").unwrap();
            assert!(is_cut(&mut victim) && is_cut(&mut bystander));
            let lines = server.wait_for_lines(round, "worker crashed");
            assert!(lines[round - 1].contains(&format!("pid={worker} cause=SIGSEGV")), "{lines:?}");
            // the crashed one may be on its way out still
            eventually("another takes its place", || {
                matches!(server.children()[..], [another] if another != worker)
            });
            echoes(&mut server.served(), b"and on");
        }
    }
}

#[test]
fn a_handler_that_waits_lets_others_go_on() {
    let server = patient("tcp://127.0.0.1:0");
    let mut sleeper = server.connect();
    sleeper.write_all(b"sleep").unwrap();
    // it asks its own worker, which would never answer if it waited
    let question = format!("ask {}", server.addr());
    let mut asking = server.connect();
    asking.write_all(question.as_bytes()).unwrap();
    let mut answer = [0; 6];
    asking.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"may I?");
    echoes(&mut asking, b"and on");
    assert!(is_silent(&sleeper, Duration::from_millis(100)));
    // a stop waits for the grace time, and not for ever
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(is_cut(&mut sleeper));
}

#[test]
fn a_datagram_that_is_waited_for_delays_no_other() {
    let server = patient("udp://127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address("udp")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    for n in 0..100_u8 {
        socket.send(b"sleep").unwrap();
        socket.send(&[b'a' + n % 20]).unwrap();
        let mut answer = [0; 9];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(answer[..length], [b'a' + n % 20]);
    }
}

#[test]
fn a_panic_costs_one_connection_and_is_said_once() {
    for (endpoint, scheme) in [("tcp://127.0.0.1:0", "tcp"), ("udp://127.0.0.1:0", "udp")] {
        let server = Forkd::example("test-servers", &format!("fragile {endpoint} coroutine")).start();
        let worker = only_worker(&server);
        let peer = if scheme == "tcp" {
            let mut bystander = server.served();
            let mut victim = server.connect();
            victim.write_all(b"panic").unwrap();
            let peer = victim.local_addr().unwrap();
            assert!(is_cut(&mut victim));
            echoes(&mut bystander, b"nothing happened");
            peer
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(server.address("udp")).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.send(b"panic").unwrap();
            socket.send(b"hello").unwrap();
            assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 5);
            socket.local_addr().unwrap()
        };
        server.wait_for_line("as was wished");
        let line = server.wait_for_line("connection failed");
        assert!(line.starts_with("forkd: error: ") && line.contains("cause=panicked"), "{line}");
        assert!(line.contains(&format!("peer={peer}")), "{line}");
        assert_eq!(server.count_lines("connection failed"), 1);
        assert_eq!(only_worker(&server), worker, "the worker goes on");
    }
}

#[test]
fn two_workers_share_the_clients() {
    let daemon = Daemon::start("-m coroutine -w 2");
    let mut clients: Vec<Client> = (0..40).map(|_| daemon.connect()).collect();
    clients.iter_mut().for_each(|client| echoes(client, b"hello"));
    let status = daemon.status();
    let serving: u64 =
        status["children"].as_array().unwrap().iter().filter_map(|child| child["serving"].as_u64()).sum();
    assert_eq!(serving, 40, "{status}");
    for client in &mut clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    }
    assert_eq!(daemon.children().len(), 2);
}
