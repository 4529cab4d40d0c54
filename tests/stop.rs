//! The way to the end: which clients may finish, which are cut, and that nothing is left.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::Signal;

const MODELS: [&str; 7] = [
    "",
    "--spare 3",
    "-m prefork -w 3",
    "-m thread",
    "-m thread --threads 3",
    "-m event -w 2",
    "-m coroutine",
];
/// What a stop may take that waits for no client: less than the usual grace time, which is ten seconds.
const SOON: Duration = Duration::from_secs(8);

/// The daemon ends with success, all its processes and its control socket gone.
#[track_caller]
fn ends_well(daemon: &Daemon, limit: Duration) {
    let status = daemon.wait_for(limit);
    assert_eq!(status.code(), Some(0), "{status}; {:?}", daemon.log());
    // a child has said its last word a moment before it is gone
    within(SOON, "no process is left", || daemon.is_gone());
    assert!(!daemon.control().exists());
    daemon.wait_for_line("stopped");
}

both_ways! {
    fn an_idle_daemon_stops_at_once(way: Way) {
        for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
            for args in MODELS {
                let daemon = Forkd::new(args).way(way).start();
                short_connection(daemon.addr(), b"x").unwrap();
                daemon.signal(which);
                ends_well(&daemon, SOON);
                assert!(daemon.wait_for_line("stopping").contains(&format!("signal={which}")));
                assert!(is_refused(daemon.addr()));
            }
        }
    }

    fn connections_may_finish_while_new_ones_are_refused(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let (mut first, mut second) = (daemon.served(), daemon.served());
            daemon.signal(Signal::SIGTERM);
            daemon.wait_for_line("stopping");
            within(SOON, "new connections are refused", || is_refused(daemon.addr()));
            echoes(&mut first, b"going on");
            first.shutdown(Shutdown::Write).unwrap();
            assert_eq!(first.read(&mut [0]).unwrap(), 0);
            echoes(&mut second, b"and on");
            assert!(daemon.ended().is_none());
            drop(second);
            ends_well(&daemon, SOON);
            assert!(daemon.wait_for_line("stopped").contains(" cut=0"));
        }
    }

    fn a_flood_of_datagrams_does_not_hold_up_a_stop(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(&format!("{args} udp://127.0.0.1:0 tcp://127.0.0.1:0")).way(way).start();
            let (address, over) = (daemon.address("udp"), AtomicBool::new(false));
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
                        let since = Instant::now();
                        while !over.load(Ordering::Relaxed) && since.elapsed() < LIMIT {
                            let _ = flood.send_to(b"x", address);
                        }
                    });
                }
                eventually("it is flooded", || daemon.listener(0)["connections"].as_u64() > Some(1000));
                daemon.signal(Signal::SIGTERM);
                let ended = becomes_true(SOON, || daemon.ended().is_some());
                over.store(true, Ordering::Relaxed);
                assert!(ended, "{:?}", daemon.log());
            });
            ends_well(&daemon, SOON);
            assert!(daemon.wait_for_line("stopped").contains(" cut=0"));
        }
    }

    fn connections_are_cut_after_the_grace_time(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).arg("--grace").arg("1s").way(way).start();
            let mut client = daemon.served();
            daemon.signal(Signal::SIGTERM);
            let since = Instant::now();
            daemon.wait_for_line("stopping");
            echoes(&mut client, b"going on");
            assert!(is_cut(&mut client));
            let after = since.elapsed();
            assert!((Duration::from_millis(900)..SOON).contains(&after), "cut after {after:?}");
            ends_well(&daemon, SOON);
            assert!(daemon.wait_for_line("stopped").contains("cut=1"));
        }
    }

    fn a_second_signal_hastens(way: Way) {
        for (args, which) in MODELS.into_iter().zip([Signal::SIGINT, Signal::SIGTERM].into_iter().cycle()) {
            let daemon = Forkd::new(args).arg("--grace").arg("60s").way(way).start();
            let mut client = daemon.served();
            daemon.signal(which);
            daemon.wait_for_line("stopping");
            echoes(&mut client, b"going on");
            daemon.signal(which);
            assert!(is_cut(&mut client));
            ends_well(&daemon, SOON);
        }
    }

    fn sigquit_cuts_at_once(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let mut clients = [daemon.served(), daemon.served()];
            daemon.signal(Signal::SIGQUIT);
            assert!(clients.iter_mut().all(is_cut));
            ends_well(&daemon, SOON);
            assert!(daemon.wait_for_line("stopped").contains("cut="));
        }
    }

    fn what_does_not_react_is_killed(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let mut client = daemon.served();
            stopped(daemon.server_of(&client));
            daemon.signal(Signal::SIGQUIT);
            assert!(is_cut(&mut client));
            ends_well(&daemon, SOON);
        }
    }

    fn ctrl_c_lets_connections_finish(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let mut clients = [daemon.served(), daemon.served()];
            daemon.signal_group(Signal::SIGINT);
            daemon.wait_for_line("stopping");
            for _ in 0..10 {
                clients.iter_mut().for_each(|client| echoes(client, b"going on"));
            }
            drop(clients);
            ends_well(&daemon, SOON);
            assert!(daemon.wait_for_line("stopped").contains(" cut=0"));
        }
    }

    fn the_backlog_is_served_first(way: Way) {
        for args in [
            "--max-children 1",
            "-m prefork --max-connections-per-child 1 -w 1",
            "-m prefork -w 1",
            "-m prefork -w 2",
            "-m thread --max-threads 1",
            "-m thread --max-threads 2",
            "-m thread --threads 1",
            "-m thread --threads 2",
            "-m event --max-connections 1",
        ] {
            let daemon = Forkd::new(args).way(way).start();
            let mut busy: Vec<Client> = vec![daemon.served()];
            if args.ends_with('2') {
                busy.push(daemon.served());
            }
            let mut waiting: Vec<Client> = (0..5).map(|_| daemon.connect()).collect();
            waiting.iter_mut().for_each(|client| client.write_all(b"?").unwrap());
            daemon.signal(Signal::SIGTERM);
            daemon.wait_for_line("stopping");
            assert!(is_silent(&waiting[0], Duration::from_millis(300)));
            busy.iter_mut().for_each(|client| echoes(client, b"going on"));
            drop(busy);
            for (number, mut client) in waiting.into_iter().enumerate() {
                let mut answer = [0];
                client.read_exact(&mut answer).unwrap_or_else(|e| panic!("{args}: number {number}: {e}"));
                echoes(&mut client, b"thanks");
            }
            ends_well(&daemon, SOON);
            let count = if args.ends_with('2') { 7 } else { 6 };
            let line = daemon.wait_for_line("stopped");
            assert!(line.contains(&format!("connections={count} cut=0")), "{line}");
        }
    }
}

#[test]
fn who_comes_after_a_stop_has_begun_is_refused_although_all_are_busy_and_who_was_queued_is_served() {
    for args in ONE_PLACE {
        for endpoint in ["tcp://127.0.0.1:0", "unix://{dir}/s"] {
            let daemon = Forkd::new(&format!("{args} --grace 60s {endpoint}")).start();
            let connect = || match endpoint.starts_with("tcp") {
                true => {
                    std::net::TcpStream::connect(daemon.addr()).map(|stream| OwnedFd::from(stream).into())
                }
                false => UnixStream::connect(daemon.path("s")),
            };
            let ask = || {
                let mut stream = connect().unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.write_all(b"?").unwrap();
                stream
            };
            let mut busy = ask();
            is_answered(&mut busy);
            let mut queued = [ask(), ask()];
            daemon.signal(Signal::SIGTERM);
            daemon.wait_for_line("stopping");
            within(SOON, "a new client is refused", || connect().is_err());
            echoes(&mut busy, b"going on");
            drop(busy);
            queued.iter_mut().for_each(|client| {
                is_answered(client);
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "{args} {endpoint}");
            });
            ends_well(&daemon, SOON);
            // one that asks whether it is refused may be a moment too early for that
            assert!(daemon.wait_for_line("stopped").contains(" cut=0"), "{args} {endpoint}");
        }
    }
}

#[test]
fn queued_clients_wait_while_a_stop_finds_no_descriptors_and_are_served_after() {
    for args in ONE_PLACE {
        let daemon = Forkd::new(&format!("{args} --grace 60s")).start();
        let busy = daemon.served();
        let mut queued: Vec<Client> = (0..2).map(|_| daemon.asks()).collect();
        // fork: the master accepts, whose ppoll(2) needs as many as it waits for
        let (acceptor, few) =
            if args == "--max-children 1" { (daemon.pid(), 5) } else { (daemon.children()[0], 3) };
        set_limit(acceptor, libc::RLIMIT_NOFILE, few).unwrap();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        drop(busy);
        daemon.wait_for_line("cannot accept");
        // several times it tries again
        assert!(is_silent(&queued[0], Duration::from_millis(500)), "{args}");
        set_limit(acceptor, libc::RLIMIT_NOFILE, 256).unwrap();
        for mut client in queued.drain(..) {
            is_answered(&mut client);
        }
        ends_well(&daemon, SOON);
        assert!(daemon.wait_for_line("stopped").contains("connections=3 cut=0"), "{args}");
    }
}

/// Clients that connect while the signal comes are served or refused: none is connected and then lost.
#[test]
fn a_stop_under_load_loses_no_client() {
    for args in MODELS {
        for endpoint in ["tcp://127.0.0.1:0", "unix://{dir}/s"].repeat(3) {
            let daemon = Forkd::new(&format!("{args} {endpoint}")).start();
            let is_tcp = endpoint.starts_with("tcp");
            let connect = || match is_tcp {
                true => connect(daemon.addr()).map(|client| UnixStream::from(OwnedFd::from(client))),
                false => UnixStream::connect(daemon.path("s")),
            };
            let serve_all = || {
                let mut served = 0;
                while let Ok(mut client) = connect() {
                    client.set_read_timeout(Some(LIMIT)).unwrap();
                    let mut answer = [0; 5];
                    let asked = client.write_all(b"hello").and_then(|()| client.read_exact(&mut answer));
                    asked.unwrap_or_else(|error| panic!("{args} {endpoint}: after {served}: {error}"));
                    served += 1;
                }
            };
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..6).map(|_| scope.spawn(serve_all)).collect();
                eventually("there is load", || daemon.listener(0)["connections"].as_u64() > Some(50));
                daemon.signal(Signal::SIGTERM);
                clients.into_iter().for_each(|client| client.join().unwrap());
            });
            ends_well(&daemon, LIMIT);
        }
    }
}

#[test]
fn a_worker_that_dies_at_a_stop_is_replaced_for_clients_in_the_queue() {
    let full = ["-m prefork -w 1", "-m thread -w 1 --threads 1", "-m event -w 1 --max-connections 1"];
    for args in full.into_iter().chain(["-m prefork -w 2"]) {
        let daemon = Forkd::new(args).start();
        let workers = daemon.children();
        let busy: Vec<Client> = workers.iter().map(|_| daemon.served()).collect();
        let mut queued: Vec<Client> = (0..3).map(|_| daemon.asks()).collect();
        eventually("they are queued", || daemon.listener(0)["queued"] == 3);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        signal(daemon.server_of(&busy[0]), Signal::SIGKILL);
        for mut client in queued.drain(..) {
            is_answered(&mut client);
        }
        drop(busy);
        ends_well(&daemon, SOON);
    }
}
