//! Children and masters that die or stop, and clients that misbehave: which are harmed, and which are not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "faults/memory.rs"]
mod memory;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::Signal;

const MODELS: [&str; 5] = ["", "--spare 3", "-m prefork -w 3", "-m event -w 2", "-m coroutine -w 2"];
/// Those of which each process has one client.
const ONE_EACH: [&str; 3] = ["", "--spare 2", "-m prefork -w 3"];

both_ways! {
    fn a_killed_child_costs_its_own_connection_only(way: Way) {
        for args in ONE_EACH {
            let daemon = Forkd::new(args).way(way).start();
            let mut bystander = daemon.served();
            for (number, which) in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT].into_iter().enumerate()
            {
                let mut victim = daemon.served();
                let (pid, peer) = (daemon.server_of(&victim), victim.local_addr().unwrap());
                signal(pid, which);
                assert!(is_cut(&mut victim));
                echoes(&mut bystander, b"still here");
                let line = daemon.wait_for_lines(1, &format!(" pid={pid} ")).remove(0);
                assert!(line.contains(&format!(" cause={which} ")), "{line}");
                assert!(line.contains(&format!(" peer={peer} ")), "{line}");
                let is_error = line.starts_with("forkd: error: ");
                assert_eq!(is_error, which != Signal::SIGKILL, "{line}");
                assert_eq!(daemon.deaths(0, which.as_str()), 1);
                assert_eq!(
                    daemon.deaths(0, "SIGKILL") + daemon.deaths(0, "SIGSEGV") + daemon.deaths(0, "SIGABRT"),
                    number as u64 + 1
                );
                // a pool is as large as before, without the dead one; a child is not replaced
                daemon.settles_at(if args.is_empty() { 1 } else { 3 });
                assert!(!daemon.children().contains(&pid));
                echoes(&mut daemon.served(), b"and others are served");
            }
            echoes(&mut bystander, b"to the end");
        }
    }

    fn a_stopped_master_harms_no_client(way: Way) {
        for args in ONE_EACH {
            let daemon = Forkd::new(args).way(way).start();
            let (mut stays, leaves) = (daemon.served(), daemon.served());
            let gone = daemon.server_of(&leaves);
            let before = daemon.children().len();
            stopped(daemon.pid());
            if args.is_empty() {
                drop(leaves);
            } else {
                signal(gone, Signal::SIGKILL);
            }
            let mut waits = daemon.connect();
            waits.write_all(b"hello").unwrap();
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(1) {
                echoes(&mut stays, b"tick");
                let left = Children::of(daemon.pid()).sample();
                assert!(left.iter().all(|x| x.1 != Some('Z')), "a zombie: {left:?}");
            }
            assert!(!is_running(gone));
            assert_eq!(daemon.children().len(), before - 1);
            signal(daemon.pid(), Signal::SIGCONT);
            // in the backlog of a fork daemon, or served by another worker long ago
            let mut back = [0; 5];
            waits.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"hello");
            eventually("the death is counted", || daemon.deaths(0, "") == 1);
            daemon.settles_at(before);
            let l = daemon.listener(0);
            assert_eq!(l["alive"], before);
            assert_eq!(l["connections"], 3);
            echoes(&mut stays, b"tock");
        }
    }

    fn children_outlive_a_killed_master_by_the_grace_time(way: Way) {
        for args in ONE_EACH {
            let daemon = Forkd::new(args).arg("--grace").arg("1s").way(way).start();
            let address = daemon.addr();
            let (mut finishes, mut stays) = (daemon.served(), daemon.served());
            let (first, second) = (daemon.server_of(&finishes), daemon.server_of(&stays));
            let children = daemon.children();
            let since = Instant::now();
            signal(daemon.pid(), Signal::SIGKILL);
            daemon.wait();
            // they have a second; one for whom this test's process comes too late proves nothing
            let is_soon = || since.elapsed() < Duration::from_millis(700);
            let goes_on = |client: &mut Client| {
                let echoed = client.write_all(b"going on").and_then(|()| client.read_exact(&mut [0; 8]));
                assert!(echoed.is_ok() || !is_soon(), "{echoed:?}");
            };
            goes_on(&mut finishes);
            let end = finishes.shutdown(Shutdown::Write).and_then(|()| finishes.read(&mut [0]));
            assert!(end.as_ref().is_ok_and(|length| *length == 0) || !is_soon(), "{end:?}");
            goes_on(&mut stays);
            if args.is_empty() {
                eventually("a child whose client has finished goes", || !is_running(first));
                assert!(is_running(second) || !is_soon());
                // only the master had the listener
                let heir = Forkd::new(&format!("tcp://{address}")).way(way).start();
                heir.served();
                goes_on(&mut stays);
            }
            assert!(is_cut(&mut stays));
            assert!(!is_soon(), "cut after {:?}", since.elapsed());
            eventually("all are gone", || !children.iter().any(|&pid| is_running(pid)));
            eventually("no process is left", || daemon.is_gone());
        }
    }

    fn a_client_that_does_not_read_makes_no_process_grow(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            does_not_read(&daemon);
        }
    }
}

fn does_not_read(daemon: &Daemon) {
    const TOTAL: usize = 64 << 20;
    const MAY_GROW_KIB: u64 = 2048;
    let mut other = daemon.served();
    let mut client = daemon.served();
    let pids = [daemon.pid(), daemon.server_of(&client)];
    let before = pids.map(|pid| Usage::of(pid).unwrap());

    // 64 MiB in which no two blocks are equal
    let mut data = vec![b'x'; TOTAL];
    for (number, block) in data.chunks_exact_mut(512).enumerate() {
        block[..8].copy_from_slice(&number.to_le_bytes());
    }
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < TOTAL {
        match client.write(&data[sent..]) {
            Ok(n) => sent += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(sent > 64 << 10 && sent < TOTAL, "no back-pressure after {sent} bytes");
    for (before, pid) in before.iter().zip(pids) {
        let now = Usage::of(pid).unwrap();
        let grown = now.rss.saturating_sub(before.rss);
        assert!(grown < MAY_GROW_KIB, "{pid} has grown from {before:?} to {now:?} KiB");
    }
    echoes(&mut other, b"not my problem");
    short_connection(daemon.addr(), b"nor mine").unwrap();

    client.set_write_timeout(Some(LIMIT)).unwrap();
    let mut writer = client.try_clone().unwrap();
    let rest = &data[sent..];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(rest).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::with_capacity(TOTAL);
        client.read_to_end(&mut back).unwrap();
        assert_eq!(back.len(), data.len());
        assert!(back == data, "the bytes that came back are others");
    });
    eventually("the bytes are counted", || daemon.listener(0)["bytes_out"].as_u64() >= Some(TOTAL as u64));
}

#[test]
fn a_reset_in_the_backlog_concerns_no_other() {
    for args in MODELS {
        let daemon = Daemon::start(args);
        let before = daemon.served();
        let workers = daemon.children();
        let stop = |which| workers.iter().for_each(|&pid| signal(pid, which));
        if args.is_empty() {
            stopped(daemon.pid())
        } else {
            workers.iter().for_each(|&pid| stopped(pid))
        }
        let mut good = Vec::new();
        for _ in 0..20 {
            reset(daemon.connect());
            let mut client = daemon.connect();
            client.write_all(b"ping").unwrap();
            reset(client);
            good.push(daemon.connect());
        }
        if args.is_empty() {
            signal(daemon.pid(), Signal::SIGCONT)
        } else {
            stop(Signal::SIGCONT)
        }
        drop(before);
        // one by one: the pool has fewer workers than these are
        good.into_iter().for_each(|mut client| echoes(&mut client, b"pong"));
        let l = daemon.listener(0);
        assert!(l["deaths"].as_object().unwrap().keys().all(|cause| cause == "done"), "{l}");
        assert_eq!(daemon.count_lines("warning") + daemon.count_lines("error"), 0, "{:?}", daemon.log());
        assert!(daemon.ended().is_none());
    }
}

#[test]
fn a_client_that_has_vanished_gives_its_place_back() {
    for args in ONE_PLACE {
        let daemon = Forkd::new(args).arg("--keepalive").arg("2s").start();
        let silent = daemon.served();
        vanishes(&silent);
        short_connection(daemon.addr(), b"my turn").unwrap_or_else(|error| panic!("{args}: {error}"));
        // it is no failure of the handler's
        assert_eq!(daemon.count_lines("failed") + daemon.count_lines("error"), 0, "{:?}", daemon.log());
    }
}

#[test]
fn a_client_that_has_vanished_while_bytes_wait_gives_its_place_back() {
    for args in ONE_PLACE {
        let daemon = Forkd::new(args).arg("--service").arg("chargen").arg("--keepalive").arg("2s").start();
        let mut reads = daemon.connect();
        reads.read_exact(&mut [0; 100]).unwrap();
        vanishes(&reads);
        let mut next = daemon.connect();
        next.read_exact(&mut [0; 100]).unwrap_or_else(|error| panic!("{args}: {error}"));
    }
}

#[test]
fn the_kernel_looks_after_every_connection_whichever_socket_it_came_by() {
    let is_half_of = |due: Option<Duration>, limit: u64| {
        due.is_some_and(|due| {
            due > Duration::from_secs(limit / 2 - LIMIT.as_secs()) && due.as_secs() <= limit / 2
        })
    };
    for args in ONE_PLACE {
        for host in ["127.0.0.1", "[::1]"] {
            let started = |more: &str| Forkd::new(&format!("{args} {more} tcp://{host}:0")).start();
            assert!(is_half_of(keepalive_due(&started("").served()), 120), "{args} {host}");
            assert!(is_half_of(keepalive_due(&started("--keepalive 10m").served()), 600), "{args} {host}");
            assert_eq!(keepalive_due(&started("--keepalive off").served()), None, "{args} {host}");
        }
        // the options of a socket that is handed over are its owner's
        let owner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let daemon = Forkd::new(&format!("{args} systemd:echo")).handed("echo", &owner).start();
        assert!(is_half_of(keepalive_due(&daemon.served()), 120), "{args}");
        assert_eq!(keeps_alive(&owner), Ok(false), "{args}");
    }
}

fn keeps_alive(listener: &std::net::TcpListener) -> nix::Result<bool> {
    nix::sys::socket::getsockopt(listener, nix::sys::socket::sockopt::KeepAlive)
}

#[test]
fn a_slow_client_delays_no_other() {
    for (args, slow_ones) in [("", 10), ("-m prefork -w 2", 1), ("-m event", 50), ("-m coroutine", 50)] {
        let daemon = Daemon::start(args);
        let mut slow: Vec<Client> = (0..slow_ones).map(|_| daemon.served()).collect();
        let mut quick = daemon.served();
        for byte in b"slowly" {
            slow.iter_mut().for_each(|client| client.write_all(&[*byte]).unwrap());
            (0..20).for_each(|_| echoes(&mut quick, b"quickly"));
            quick.shutdown(Shutdown::Both).unwrap();
            quick = daemon.served();
        }
        for client in &mut slow {
            let mut back = [0; 6];
            client.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"slowly");
        }
    }
}

#[test]
fn a_full_pool_makes_clients_wait_and_not_fail() {
    let daemon = Daemon::start("-m prefork -w 2");
    let (first, mut second) = (daemon.served(), daemon.served());
    let mut third = daemon.connect();
    third.write_all(b"x").unwrap();
    assert!(is_silent(&third, Duration::from_millis(300)));
    drop(first);
    assert_eq!(third.read(&mut [0]).unwrap(), 1);
    echoes(&mut second, b"y");
    assert_eq!(daemon.children().len(), 2);
}

#[test]
fn a_flood_of_datagrams_delays_a_connection_by_a_few_forks() {
    const DATAGRAMS: usize = 200;
    const CONNECTIONS: usize = 12;
    let daemon = Forkd::new("--log-level debug udp://127.0.0.1:0 tcp://127.0.0.1:0").start();
    let flooder = UdpSocket::bind("127.0.0.1:0").unwrap();
    stopped(daemon.pid());
    for _ in 0..DATAGRAMS {
        flooder.send_to(b"x", daemon.address("udp")).unwrap();
    }
    let clients: Vec<Client> = (0..CONNECTIONS).map(|_| daemon.connect()).collect();
    signal(daemon.pid(), Signal::SIGCONT);
    let order = || -> Vec<bool> {
        let log = daemon.log();
        let accepted = log.iter().filter(|line| line.contains("connection accepted"));
        accepted.map(|line| line.contains("endpoint=udp")).collect()
    };
    eventually("all are served", || order().len() == DATAGRAMS + CONNECTIONS);
    let order = order();
    let between = order.split(|is_datagram| !is_datagram).take(CONNECTIONS);
    let most = between.map(<[bool]>::len).max().unwrap();
    assert!(most <= 8, "{most} datagrams before a connection: {order:?}");
    drop(clients);
}

#[test]
fn connections_that_are_reset_in_the_backlog_start_nothing() {
    for args in ["-m fork", "-m thread"] {
        let daemon = Forkd::new(args).start();
        let held = daemon.served();
        let accepts = if args == "-m fork" { daemon.pid() } else { daemon.server_of(&held) };
        stopped(accepts);
        for round in 0..100 {
            let mut client = daemon.connect();
            if round % 2 == 0 {
                client.write_all(b"never mind").unwrap();
            }
            reset(client);
        }
        let mut good = daemon.connect();
        signal(accepts, Signal::SIGCONT);
        echoes(&mut good, b"I am still here");
        let served = daemon.listener(0)["connections"].as_u64().unwrap();
        assert!(served <= 2 + 4, "{args}: {served} were served");
    }
}

#[test]
fn a_client_that_does_not_read_has_little_taken_from_it() {
    const MOST: u64 = 2 << 20;
    for args in ["-m fork", "-m prefork", "-m thread", "-m event", "-m coroutine"] {
        let daemon = Daemon::start(args);
        let mut client = daemon.served();
        let before = daemon.listener(0)["bytes_in"].as_u64().unwrap();
        let taken = || daemon.listener(0)["bytes_in"].as_u64().unwrap() - before;
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        while client.write(&[b'x'; 65_536]).is_ok() {}
        eventually("something was read", || taken() >= 65_536);
        assert!(taken() < MOST, "{args}: {} bytes were taken", taken());
    }
}
