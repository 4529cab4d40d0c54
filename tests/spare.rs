//! Spare children: forked before their client comes, one for each client, and called off without harm to one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn idle(daemon: &Daemon) -> usize {
    let status = daemon.status();
    status["children"].as_array().unwrap().iter().filter(|child| child["state"] == "idle").count()
}

/// How few are left when others are forked, of so many.
fn few(spare: usize) -> usize {
    spare / 2
}

both_ways! {
    fn a_client_is_served_by_a_child_that_was_there_and_ends_with_it(way: Way) {
        let daemon = Forkd::new("--spare 4").way(way).start();
        eventually("they wait", || idle(&daemon) == 4);
        let before = daemon.children();
        let mut client = daemon.served();
        let server = daemon.server_of(&client);
        assert!(before.contains(&server));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        eventually("its child has ended", || !is_running(server));
        assert_eq!(daemon.deaths(0, "done"), 1);

        // each has one client, however many come
        let mut servers = BTreeSet::new();
        let clients: Vec<Client> = (0..40).map(|_| daemon.served()).collect();
        servers.extend(clients.iter().map(|client| daemon.server_of(client)));
        assert_eq!(servers.len(), clients.len());
        eventually("more than a few wait", || idle(&daemon) > few(4));
        assert!(idle(&daemon) <= 4);
        drop(clients);
        eventually("the others have ended", || daemon.children().len() == idle(&daemon));
        let l = daemon.listener(0);
        assert_eq!((&l["connections"], &l["failed"]), (&41.into(), &0.into()), "{l}");
    }

    fn they_count_as_children_and_at_the_limit_clients_wait(way: Way) {
        let daemon = Forkd::new("--spare 4 --max-children 6").way(way).start();
        let mut clients: Vec<Client> = (0..6).map(|_| daemon.served()).collect();
        assert_eq!(daemon.children().len(), 6);
        let mut waits = daemon.asks();
        assert!(is_silent(&waits, Duration::from_millis(200)));
        daemon.wait_for_line("child limit reached");
        clients.pop();
        is_answered(&mut waits);
        daemon.settles_at(6);
    }

    fn at_the_limit_clients_are_rejected_where_that_is_asked_for(way: Way) {
        let daemon = Forkd::new("--spare 2 --max-children 3 --overflow reject").way(way).start();
        let mut clients: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        eventually("it is refused", || short_connection(daemon.addr(), b"x").is_err());
        clients.iter_mut().for_each(|client| echoes(client, b"still here"));
        clients.pop();
        eventually("there is room", || short_connection(daemon.addr(), b"x").is_ok());
    }

    fn one_that_is_killed_is_replaced(way: Way) {
        let daemon = Forkd::new("--spare 2").way(way).start();
        eventually("they wait", || idle(&daemon) == 2);
        daemon.children().into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
        eventually("others wait", || idle(&daemon) == 2);
        drop(daemon.served());
        assert_eq!(daemon.deaths(0, "SIGKILL"), 2);
    }

    fn those_that_end_at_once_are_forked_after_longer_and_longer_pauses(way: Way) {
        const SPARE: u64 = 4;
        const PAUSES: u32 = 6;
        let daemon = Forkd::new(&format!("--spare {SPARE}")).way(way).start();
        eventually("they wait", || idle(&daemon) == 4);
        let since = Instant::now();
        // those that are there, as many that are forked at once, and one after each pause
        eventually("they are killed", || {
            daemon.children().into_iter().for_each(|pid| _ = kill(Pid::from_raw(pid), Signal::SIGTERM));
            daemon.deaths(0, "SIGTERM") >= 2 * SPARE + u64::from(PAUSES)
        });
        let least = Duration::from_millis(10 * ((1 << PAUSES) - 1));
        assert!(since.elapsed() >= least, "{:?}", since.elapsed());
        daemon.wait_for_line("spare children end before they have a client");
        short_connection(daemon.addr(), b"x").unwrap();
        daemon.wait_for_line("spare children wait for clients again");
        eventually("they wait again", || idle(&daemon) == 4);
    }

    fn those_that_wait_leave_with_their_master(way: Way) {
        let daemon = Forkd::new("--spare 3 --grace 60s").way(way).start();
        eventually("they wait", || idle(&daemon) == 3);
        let mut client = daemon.served();
        let server = daemon.server_of(&client);
        let others: Vec<i32> = daemon.children().into_iter().filter(|&pid| pid != server).collect();
        assert!(others.len() >= 2);
        daemon.signal(Signal::SIGKILL);
        eventually("they have left", || !others.iter().any(|&pid| is_running(pid)));
        // and the address is free
        assert!(TcpListener::bind(daemon.addr()).is_ok());
        echoes(&mut client, b"for a while");
        drop(client);
        eventually("it has ended", || !is_running(server));
    }

    fn one_that_serves_is_not_called_off(way: Way) {
        let daemon = Forkd::new("--spare 1 --grace 0s").way(way).start();
        let mut client = daemon.served();
        let server = daemon.server_of(&client);
        for _ in 0..3 {
            signal(server, Signal::SIGALRM);
            echoes(&mut client, b"still here");
        }
    }

    /// One that is stopped takes no client, and says nothing of that.
    fn one_that_is_stopped_keeps_no_client_waiting(way: Way) {
        let daemon = Forkd::new("--spare 1").way(way).start();
        eventually("it waits", || idle(&daemon) == 1);
        let [child] = daemon.children()[..] else { panic!("{:?}", daemon.children()) };
        stopped(child);
        // they come one by one
        (0..3).for_each(|_| drop(daemon.served()));
        signal(child, Signal::SIGKILL);
    }

    fn one_that_serves_has_no_listener(way: Way) {
        let daemon = Forkd::new("--spare 2 tcp://127.0.0.1:0 unix://{dir}/s").way(way).start();
        let client = daemon.served();
        let server = daemon.server_of(&client);
        let is_socket = |target: &str| target.starts_with("socket:");
        let sockets = fds_of(server).into_iter().filter(|(_, target)| is_socket(target)).count();
        // its connection, as the log is no socket here
        assert_eq!(sockets, 1, "{:?}", fds_of(server));
        let waiting = daemon.children().into_iter().find(|&pid| pid != server).unwrap();
        let sockets = fds_of(waiting).into_iter().filter(|(_, target)| is_socket(target)).count();
        assert_eq!(sockets, 1, "{:?}", fds_of(waiting));
    }

    fn reloads_lose_no_client(way: Way) {
        let daemon = Forkd::new("--config {dir}/forkd.toml").way(way);
        let path = daemon.dir.path().join("forkd.toml");
        let write = |options: &str| {
            let table = format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n{options}\n");
            std::fs::write(&path, table).unwrap();
        };
        write("spare = 3");
        let daemon = daemon.start();
        let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        short_connection(daemon.addr(), b"hello").unwrap();
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let _over = Over(&over);
            for options in ["spare = 8", "", "spare = 1", "model = 'prefork'", "spare = 3"].repeat(4) {
                write(options);
                let before = served.load(Ordering::Relaxed);
                eventually("clients come", || served.load(Ordering::Relaxed) > before + 50);
                let ended = forkd(forkd_command().arg("reload").arg("--control").arg(daemon.control()));
                assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{:?}", daemon.log());
            }
        });
        eventually("only spare children are left", || {
            let count = daemon.children().len();
            count <= 3 && count == idle(&daemon)
        });
        assert_eq!(daemon.listener(0)["connections"].as_u64(), Some(served.load(Ordering::Relaxed) as u64));
    }

    fn the_flags_of_an_inherited_socket_stay_as_they_are(way: Way) {
        for nonblocking in [false, true] {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(nonblocking).unwrap();
            let flags = || nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_GETFL).unwrap();
            let before = flags();
            let daemon = Forkd::new("--spare 3 --max-children 4 systemd:a").handed("a", &socket).way(way).start();
            let mut clients: Vec<Client> = (0..4).map(|_| daemon.served()).collect();
            clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
            assert_eq!(flags(), before);
            drop(clients);
            eventually("some wait", || idle(&daemon) > 0);
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.wait().code(), Some(0));
            assert_eq!(flags(), before);
        }
    }
}

/// Ends the clients, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
