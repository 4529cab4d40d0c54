//! Shortages: as many children as allowed, no descriptors, no processes. Nobody who connected is lost.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::Signal;

/// A moment in which nothing must happen.
const A_WHILE: Duration = Duration::from_millis(300);

both_ways! {
    fn at_the_limit_clients_wait_for_a_place(way: Way) {
        let daemon = Forkd::new("--max-children 3").way(way).start();
        let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        let (mut fourth, mut fifth) = (daemon.asks(), daemon.asks());
        assert!(is_silent(&fourth, A_WHILE));
        assert_eq!(daemon.children().len(), 3);
        let killed = daemon.server_of(&served[0]);
        drop(served.remove(1));
        is_answered(&mut fourth);
        // a child says its last word a moment before it is gone
        daemon.settles_at(3);
        // one that dies without a word makes room as well
        assert!(is_silent(&fifth, A_WHILE));
        signal(killed, Signal::SIGKILL);
        is_answered(&mut fifth);
        daemon.settles_at(3);
        let l = daemon.listener(0);
        assert_eq!((&l["alive"], &l["peak"], &l["connections"]), (&3.into(), &3.into(), &5.into()));
        assert_eq!(l["refused"], serde_json::json!({}));
    }

    fn at_the_limit_clients_are_rejected_if_so_wished(way: Way) {
        let daemon = Forkd::new("--max-children 3 --overflow reject").way(way).start();
        let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        let since = Instant::now();
        // the reset may come while it still connects
        let connected = std::net::TcpStream::connect(daemon.addr());
        let error = connected.and_then(|mut fourth| {
            fourth.set_read_timeout(Some(LIMIT))?;
            fourth.read(&mut [0])
        });
        let error = error.expect_err("a reset, not an end of file");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(since.elapsed() < Duration::from_secs(3));
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({"limit": 1}));
        assert_eq!(daemon.children().len(), 3);
        served.iter_mut().for_each(|client| echoes(client, b"not me"));
        served.truncate(2);
        daemon.settles_at(2);
        eventually("there is room again", || short_connection(daemon.addr(), b"x").is_ok());
        daemon.wait_for_line("rejected a connection at the limit");
    }

    fn without_descriptors_clients_are_served_one_by_one(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        let descriptors = fds_of(daemon.pid()).len();
        let mut first = daemon.served();
        eventually("the master has closed its copy", || fds_of(daemon.pid()).len() == descriptors);
        allow_no_more_descriptors(&daemon);
        // the one in reserve is enough
        let mut others: Vec<Client> = (0..5).map(|_| daemon.asks()).collect();
        others.iter_mut().for_each(is_answered);
        echoes(&mut first, b"all well");
        assert_eq!(daemon.count_lines("accepting again"), 0);
        daemon.set_limit(libc::RLIMIT_NOFILE, 256);
        is_answered(&mut daemon.asks());
        daemon.wait_for_line("accepting again");
        assert_eq!(daemon.count_lines("cannot accept"), 1);
        assert_eq!(daemon.count_lines("accepting again"), 1);
    }

    fn without_any_descriptor_clients_wait(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        let descriptors = fds_of(daemon.pid()).len();
        // below the number of the one in reserve (but not below what ppoll(2) needs: the number of those
        // it waits for)
        daemon.set_limit(libc::RLIMIT_NOFILE, 5);
        let mut clients: Vec<Client> = (0..5).map(|_| daemon.asks()).collect();
        daemon.wait_for_line("cannot accept");
        assert!(is_silent(&clients[0], A_WHILE));
        daemon.set_limit(libc::RLIMIT_NOFILE, 256);
        clients.iter_mut().for_each(is_answered);
        daemon.wait_for_line("accepting again");
        assert_eq!(daemon.count_lines("cannot accept"), 1);
        assert_eq!(daemon.count_lines("accepting again"), 1);
        // the reserve has been filled up again
        eventually("as many descriptors as before", || fds_of(daemon.pid()).len() == descriptors);
    }

    fn a_worker_without_descriptors_says_so_and_accepts_again(way: Way) {
        for args in ["-m prefork -w 1", "-m event"] {
            let daemon = Forkd::new(args).way(way).start();
            let [worker] = daemon.children()[..] else { panic!("not one worker") };
            set_limit(worker, libc::RLIMIT_NOFILE, lowest_free(worker)).unwrap();
            // an accept(2) that it is in already has its descriptor, and may bring in one more
            drop(daemon.asks());
            daemon.wait_for_line("cannot accept");
            let mut client = daemon.asks();
            assert!(is_silent(&client, A_WHILE));
            set_limit(worker, libc::RLIMIT_NOFILE, 256).unwrap();
            is_answered(&mut client);
            daemon.wait_for_line("accepting again");
            assert_eq!(daemon.count_lines("cannot accept"), 1);
            assert_eq!(daemon.count_lines("accepting again"), 1);
        }
    }

    fn clients_wait_while_fork_fails_and_are_served_after(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = two_children_allowed("", way, 0);
        let mut waiting: Vec<Client> = (0..3).map(|_| daemon.asks()).collect();
        daemon.wait_for_line("cannot fork");
        assert!(is_silent(&waiting[0], A_WHILE));
        served.iter_mut().for_each(|client| echoes(client, b"all well"));
        assert_eq!(daemon.children().len(), 2);
        daemon.set_limit(libc::RLIMIT_NPROC, 100);
        waiting.iter_mut().for_each(is_answered);
        daemon.wait_for_line("fork works again");
        assert_eq!(daemon.children().len(), 5);
        assert_eq!(daemon.count_lines("cannot fork"), 1, "{:?}", daemon.log());
        assert_eq!(daemon.count_lines("fork works again"), 1);
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({}));
    }

    fn a_process_that_ends_makes_room_for_a_held_client(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = two_children_allowed("", way, 2);
        let mut waiting = daemon.asks();
        daemon.wait_for_line("cannot fork");
        served.pop();
        is_answered(&mut waiting);
        daemon.wait_for_line("fork works again");
        assert_eq!(daemon.children().len(), 2);
    }

    fn a_client_is_given_up_after_the_grace_time_and_the_next_served(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, served) = two_children_allowed("--grace 500ms", way, 4);
        let mut given_up = daemon.asks();
        let since = Instant::now();
        assert!(is_cut(&mut given_up));
        assert!(since.elapsed() >= Duration::from_millis(400));
        daemon.wait_for_line("gave up a connection");
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({"fork": 1}));
        let mut next = daemon.asks();
        drop(served);
        is_answered(&mut next);
        daemon.wait_for_line("fork works again");
    }
}

/// Sets the limit of open files so that the master can open no more than it has.
fn allow_no_more_descriptors(daemon: &Daemon) {
    daemon.set_limit(libc::RLIMIT_NOFILE, lowest_free(daemon.pid()));
}

/// What a service manager hears.
fn heard(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let receive = || {
        let n = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    };
    std::iter::from_fn(receive).collect()
}

#[test]
fn only_while_somebody_waits_for_a_fork_the_watchdog_is_not_fed() {
    if !need_root() {
        return;
    }
    let uid = 61_240;
    let base = Forkd::new("--grace 1s").uid(uid).limit(libc::RLIMIT_NPROC, 1);
    let path = base.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    // each 100 ms
    let base = base.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "200000");
    let daemon = base.start();
    let feeds = || heard(&manager).iter().filter(|state| *state == "WATCHDOG=1\n").count();
    eventually("an idle master feeds it", || feeds() > 0);
    let mut client = daemon.asks();
    daemon.wait_for_line("cannot fork");
    feeds();
    assert!(is_silent(&client, Duration::from_millis(700)));
    assert_eq!(feeds(), 0);
    // it is given up, and nobody else comes
    assert!(is_cut(&mut client));
    eventually("it is fed again", || feeds() > 0);
    assert_eq!(daemon.count_lines("fork works again"), 0);
}

/// The number that the next descriptor of a process would have.
fn lowest_free(pid: i32) -> u64 {
    let open: Vec<i32> = fds_of(pid).into_iter().map(|fd| fd.0).collect();
    (0..).find(|fd| !open.contains(fd)).unwrap() as u64
}

/// A daemon whose user may have three processes, and its two served clients.
fn two_children_allowed(args: &str, way: Way, nth: u32) -> (Daemon, Vec<Client>) {
    // a user of its own, as the limit is one of users
    let uid = 61_230 + nth + u32::from(way == Way::Portable);
    let daemon = Forkd::new(args).uid(uid).way(way).limit(libc::RLIMIT_NPROC, 3).start();
    let served = vec![daemon.served(), daemon.served()];
    assert_eq!(daemon.count_lines("cannot fork"), 0);
    (daemon, served)
}
