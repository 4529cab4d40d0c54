//! How many processes there are, that none is ever a zombie, and that the counters are right.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use nix::sys::signal::Signal;

/// The bit of SIGCHLD in the masks of /proc/PID/status.
const SIGCHLD: u64 = 1 << (Signal::SIGCHLD as i32 - 1);

fn mask(pid: i32, field: &str) -> u64 {
    u64::from_str_radix(&proc_status(pid, field), 16).unwrap()
}

both_ways! {
    fn fork_has_a_process_per_connection(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        let mut clients = Vec::new();
        for count in [0, 1, 10, 100] {
            clients.resize_with(count, || daemon.served());
            // each is served, by a process of its own: no more and no fewer
            assert_eq!(daemon.children().len(), count);
            assert_eq!(daemon.listener(0)["alive"], count);
        }
        drop(clients);
        daemon.settles_at(0);
    }

    fn prefork_has_as_many_processes_as_workers(way: Way) {
        let daemon = Forkd::new("-m prefork -w 4").way(way).start();
        let before = daemon.children();
        assert_eq!(before.len(), 4);
        for count in [1_usize, 10, 100] {
            let mut clients: Vec<Client> = (0..count).map(|_| daemon.connect()).collect();
            clients.iter_mut().take(4).for_each(|client| echoes(client, b"x"));
            assert_eq!(daemon.children(), before);
            // four at a time, in the order in which they came; those that waited are served too
            for mut client in clients {
                echoes(&mut client, b"y");
                assert_eq!(daemon.children().len(), 4);
            }
        }
        assert_eq!(daemon.children(), before);
        assert_eq!(daemon.listener(0)["forked"], 4);
    }

    fn sigchld_is_ignored(way: Way) {
        for args in ["", "-m prefork -w 1"] {
            let daemon = Forkd::new(args).way(way).start();
            let _client = daemon.served();
            let [child] = daemon.children()[..] else { panic!("not one child") };
            for pid in [daemon.pid(), child] {
                assert_ne!(mask(pid, "SigIgn") & SIGCHLD, 0, "{args} {pid}");
                assert_eq!(mask(pid, "SigCgt") & SIGCHLD, 0, "{args} {pid}");
            }
        }
    }

    fn there_is_never_a_zombie(way: Way) {
        const CLIENTS: usize = 4;
        const CONNECTIONS: usize = 5000;
        let daemon = Forkd::new("").way(way).start();
        let (address, clients) = (daemon.addr(), AtomicUsize::new(CLIENTS));
        let (mut samples, mut seen) = (0, 0);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let _done = Done(&clients);
                    (0..CONNECTIONS / CLIENTS).for_each(|_| short_connection(address, b"hello").unwrap());
                });
            }
            let children = Children::of(daemon.pid());
            while clients.load(Ordering::SeqCst) > 0 {
                let sample = children.sample();
                samples += 1;
                seen += sample.len();
                sample.into_iter().filter(|x| x.1 == Some('Z')).for_each(|x| assert_vanishes(x.0));
            }
        });
        assert!(samples > 100 && seen > 100, "{seen} children in {samples} samples prove nothing");
        daemon.settles_at(0);
        eventually("all are counted", || daemon.listener(0)["connections"] == CONNECTIONS);
    }

    fn nothing_is_lost_in_the_counters(way: Way) {
        for args in ["", "-m prefork -w 3 --max-connections-per-child 10"] {
            let daemon = Forkd::new(args).way(way).start();
            let mut sent = 0;
            let balance = |connections: u64, bytes: usize| {
                let mut l = serde_json::Value::Null;
                // a child counts what it has sent after it has sent it
                eventually("the counters are right", || {
                    l = daemon.listener(0);
                    l["connections"] == connections && l["bytes_in"] == bytes && l["bytes_out"] == bytes
                });
                let deaths: u64 = l["deaths"].as_object().unwrap().values().filter_map(|n| n.as_u64()).sum();
                assert_eq!(l["alive"].as_u64().unwrap() + deaths, l["forked"].as_u64().unwrap(), "{l}");
                assert_eq!(l["refused"], serde_json::json!({}));
                l
            };
            for length in 1..=50 {
                short_connection(daemon.addr(), &vec![b'x'; length * 100]).unwrap();
                sent += length * 100;
            }
            let mut held = [daemon.served(), daemon.served()];
            sent += 2 * b"are you there?".len();
            balance(52, sent);
            held.iter_mut().for_each(|client| echoes(client, b"more"));
            balance(52, sent + 8);
            // the counters of a child that is killed are kept as well
            signal(daemon.server_of(&held[0]), Signal::SIGKILL);
            eventually("the death is noticed", || daemon.deaths(0, "SIGKILL") == 1);
            eventually("all ends are noticed", || {
                daemon.listener(0)["alive"] == if args.is_empty() { 1 } else { 3 }
            });
            let l = balance(52, sent + 8);
            if args.is_empty() {
                assert_eq!(
                    (&l["forked"], &l["alive"], &l["deaths"]["done"]),
                    (&52.into(), &1.into(), &50.into())
                );
            } else {
                assert!(l["deaths"]["recycled"].as_u64() >= Some(2), "{l}");
            }
        }
    }
}

/// Says that a client is done, also when it has panicked.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The kernel itself passes through EXIT_ZOMBIE on the way to EXIT_DEAD, under a lock that readers of
/// /proc don't take (exit_notify in kernel/exit.c). One that waits for its parent is still there
/// after a moment.
fn assert_vanishes(pid: i32) {
    let gone = (0..50).any(|_| state_of(pid) != Some('Z'));
    assert!(gone, "{pid} is a zombie");
}

/// What it listens on, of this scheme.
fn ports(daemon: &Daemon, scheme: &str) -> Vec<u16> {
    let of = |endpoint: String| endpoint.strip_prefix(scheme)?.rsplit_once(':')?.1.parse().ok();
    daemon.endpoints().into_iter().filter_map(of).collect()
}

/// getent(1) is a program that a static forkd runs; here it knows a host with two addresses.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
#[test]
fn port_0_of_a_host_with_several_addresses_is_one_port() {
    use std::os::unix::fs::PermissionsExt;
    let room = tempfile::tempdir().unwrap();
    let script = room.path().join("getent");
    let text = "#!/bin/sh\nprintf '127.0.0.3 STREAM dual\\n127.0.0.1 STREAM\\n127.0.0.2 STREAM\\n'\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", room.path().display(), std::env::var("PATH").unwrap());
    for endpoints in
        ["tcp://dual:0", "udp://dual:0", "tcp://dual:0 udp://dual:0", "udp://dual:0 tcp://dual:0"]
    {
        let daemon = Forkd::new(endpoints).env("PATH", &path).start();
        let all = [ports(&daemon, "tcp"), ports(&daemon, "udp")].concat();
        assert_eq!(all.len(), 3 * endpoints.split(' ').count());
        assert!(all.iter().all(|port| *port == all[0]), "{endpoints}: {all:?}");
    }
    // over a reload, too: then the master of children that are forked without its stack runs it
    let file = room.path().join("forkd.toml");
    let write =
        |endpoint: &str| std::fs::write(&file, format!("[[listen]]\nendpoints = ['{endpoint}']\n")).unwrap();
    write("tcp://127.0.0.1:0");
    let daemon = Forkd::new(&format!("--config {}", file.display())).env("PATH", &path).start();
    drop(daemon.served());
    write("tcp://dual:0");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("listening on tcp://127.0.0.3:");
    daemon.wait_for_line("is in force");
}

#[test]
fn port_0_of_tcp_and_udp_in_one_group_is_one_port() {
    let daemon = Daemon::start("tcp://127.0.0.1:0 udp://127.0.0.1:0 udp://127.0.0.1:0 tcp://127.0.0.1:0");
    let (tcp, mut udp) = (ports(&daemon, "tcp"), ports(&daemon, "udp"));
    assert!(tcp[0] == udp[0] && tcp[1] == udp[1] && tcp[0] != tcp[1], "{tcp:?} {udp:?}");
    // over a reload, too, that adds the other one
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forkd.toml");
    let write =
        |endpoints: &str| std::fs::write(&file, format!("[[listen]]\nendpoints = [{endpoints}]\n")).unwrap();
    write("'tcp://127.0.0.1:0'");
    let daemon = Forkd::new(&format!("--config {}", file.display())).start();
    write("'udp://127.0.0.1:0', 'tcp://127.0.0.1:0'");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("is in force");
    udp = ports(&daemon, "udp");
    assert_eq!(ports(&daemon, "tcp"), udp);
}

#[test]
fn a_port_is_looked_for_until_one_is_free_for_all() {
    if !need_root() || !need_tool("unshare") || !need_tool("ip") {
        return;
    }
    // a network of its own, whose kernel has four ports to choose from
    let script =
        "ip link set lo up; echo 30000 30003 >/proc/sys/net/ipv4/ip_local_port_range; exec \"$0\" \"$@\"";
    let within = ["unshare", "-n", "sh", "-c", script];
    let taken = "udp://127.0.0.1:30000 udp://127.0.0.1:30001 udp://127.0.0.1:30003";
    for _ in 0..3 {
        let daemon =
            Forkd::new(&format!("{taken} tcp://127.0.0.1:0 udp://127.0.0.1:0")).within(&within).start();
        assert_eq!(
            (ports(&daemon, "tcp"), ports(&daemon, "udp")),
            (vec![30002], vec![30000, 30001, 30003, 30002])
        );
    }
    let all = format!("{taken} udp://127.0.0.1:30002 tcp://127.0.0.1:0 udp://127.0.0.1:0");
    let ended = Forkd::new(&all).within(&within).run();
    assert!(ended.code == Some(69) && ended.stderr.contains("cannot bind "), "{ended:?}");
}
