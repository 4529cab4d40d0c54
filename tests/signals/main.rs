//! What signals do that do not end the daemon, and what they don't do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod early;
mod table;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MODELS: [&str; 4] = ["", "-m prefork -w 3", "-m event -w 2", "-m coroutine"];

both_ways! {
    fn a_pool_that_is_not_there_can_not_be_resized_and_that_is_said(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        for which in [Signal::SIGTTIN, Signal::SIGTTOU] {
            daemon.signal(which);
            let line = daemon.wait_for_line(&format!("signal={which}"));
            assert!(line.starts_with("forkd: warning: there is no pool"), "{line}");
        }
        short_connection(daemon.addr(), b"x").unwrap();
    }

    fn sigusr1_writes_the_status_to_the_log(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let mut client = daemon.served();
            echoes(&mut client, b"0123456789");
            eventually("all is counted", || daemon.listener(0)["bytes_out"] == 24);
            daemon.signal(Signal::SIGUSR1);
            let line = daemon.wait_for_line(&format!("status of {}", daemon.endpoint(0)));
            let alive = daemon.children().len();
            let expected =
                format!(" alive={alive} peak={alive} forked={alive} connections=1 bytes_in=24 bytes_out=24 ");
            assert!(line.contains(&expected), "{line}");
            echoes(&mut client, b"all well");
        }
    }

    fn a_signal_to_a_child_is_none_to_the_master(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let mut client = daemon.served();
            let children = daemon.children();
            let all = [
                Signal::SIGHUP,
                Signal::SIGINT,
                Signal::SIGUSR1,
                Signal::SIGUSR2,
                Signal::SIGTTIN,
                Signal::SIGTTOU,
            ];
            for &child in &children {
                // blocked, so that no handler of the master's can ever run in a child
                let blocked = u64::from_str_radix(&proc_status(child, "SigBlk"), 16).unwrap();
                for which in all {
                    assert_ne!(blocked & 1 << (which as i32 - 1), 0, "{which} is not blocked: {blocked:x}");
                    signal(child, which);
                }
            }
            echoes(&mut client, b"all well");
            // the master answers one signal of its own, and nothing else was said before
            daemon.signal(Signal::SIGUSR1);
            daemon.wait_for_line("status of");
            let others: Vec<String> = daemon
                .log()
                .into_iter()
                .filter(|line| {
                    !line.contains("listening on")
                        && !line.contains("ready pid=")
                        && !line.contains("status of")
                })
                .collect();
            assert!(others.is_empty(), "{others:?}");
            assert_eq!(daemon.count_lines("status of"), 1);
            assert_eq!(daemon.children(), children);
            assert!(daemon.ended().is_none());
        }
    }

    /// A handler of the master's that ran in a child would write to a descriptor that has another use
    /// there by now, such as the pipe of a bulk echo.
    fn signals_to_a_child_spoil_no_byte(way: Way) {
        for args in MODELS {
            let daemon = Forkd::new(args).way(way).start();
            let mut client = daemon.served();
            let child = daemon.server_of(&client);
            let data: Vec<u8> = (0..4_u32 << 20).map(|n| (n / 251) as u8).collect();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let mut writer = client.try_clone().unwrap();
                let bytes = &data;
                scope.spawn(move || {
                    writer.write_all(bytes).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        for which in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
                            // a child is gone at the end of its connection
                            let _ = kill(Pid::from_raw(child), which);
                        }
                        std::thread::yield_now();
                    }
                });
                let mut back = Vec::new();
                let result = client.read_to_end(&mut back);
                done.store(true, Ordering::Relaxed);
                result.unwrap();
                assert_eq!(back.len(), data.len());
                assert!(back == data, "other bytes came back");
            });
            assert_eq!(daemon.count_lines("stopping") + daemon.count_lines("status of"), 0);
        }
    }

    fn sigterm_to_a_child_ends_that_child_only(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        let (mut client, mut other) = (daemon.served(), daemon.served());
        let child = daemon.server_of(&client);
        signal(child, Signal::SIGTERM);
        assert!(is_cut(&mut client));
        daemon.wait_for_line(&format!(" pid={child} cause=SIGTERM peer={}", client.local_addr().unwrap()));
        echoes(&mut other, b"all well");
        assert_eq!(daemon.deaths(0, "SIGTERM"), 1);
        assert_eq!(daemon.count_lines("stopping"), 0);
        short_connection(daemon.addr(), b"x").unwrap();
    }

    fn sigterm_to_a_worker_lets_it_finish_and_it_is_replaced(way: Way) {
        for args in ["-m prefork -w 2", "-m thread -w 2", "-m thread -w 2 --threads 2"] {
            let daemon = Forkd::new(args).way(way).start();
            let mut client = daemon.served();
            let worker = daemon.server_of(&client);
            signal(worker, Signal::SIGTERM);
            echoes(&mut client, b"going on");
            drop(client);
            eventually("another takes its place", || {
                let children = daemon.children();
                children.len() == 2 && !children.contains(&worker)
            });
            eventually("it is counted", || daemon.deaths(0, "retired") == 1);
            assert_eq!(daemon.count_lines("stopping"), 0);
            short_connection(daemon.addr(), b"x").unwrap();
        }
    }
}

under_models! {
    [fork spare prefork iterative thread event coroutine]

    /// The kernel sends SIGXFSZ to a process that writes beyond the limit on the size of files.
    fn a_log_file_at_its_limit_loses_lines_only(model) {
        const LIMIT: u64 = 400;
        let log = ["sh", "-c", "exec \"$@\" 2>{dir}/log", "sh"];
        let forkd = Forkd::new(&format!("{model} --log-level debug unix://{{dir}}/s"));
        let daemon = forkd.limit(libc::RLIMIT_FSIZE, LIMIT).within(&log).launch();
        let connect = || UnixStream::connect(daemon.path("s"));
        eventually("it serves", || connect().is_ok());
        for _ in 0..20 {
            let mut client = connect().unwrap();
            client.set_read_timeout(Some(common::LIMIT)).unwrap();
            client.write_all(b"hello").unwrap();
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
        }
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(std::fs::metadata(daemon.path("log")).unwrap().len(), LIMIT);
    }
}
