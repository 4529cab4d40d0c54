//! Early drop: connections that have not completed their first exchange, under each model and over each transport.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Waits until the first listener has so many connections without a first exchange.
#[track_caller]
fn has_early(daemon: &Daemon, count: u64) {
    eventually("so many have no first exchange", || daemon.listener(0)["early"] == count);
}

/// Connects; the server may be so quick to refuse the client that it does not see that it was connected.
fn is_refused(daemon: &Daemon) -> bool {
    let heard = TcpStream::connect(daemon.addr()).and_then(|mut client| {
        client.set_read_timeout(Some(LIMIT))?;
        client.read(&mut [0])
    });
    matches!(heard, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

/// With a place for each client of a test, and one more.
fn with_room(model: &str) -> String {
    model.replace("-w 2", "-w 6").replace("--threads 2", "--threads 6")
}

// an iterative server takes no other client while one says nothing
under_models! { [fork spare prefork thread threads event coroutine]
    fn silent_connections_are_refused_beyond_the_limit_and_those_with_an_answer_do_not_count(model) {
        let daemon = Daemon::start(&format!("{} --early-drop 2:100:2", with_room(model)));
        let mut answered = [(); 3].map(|()| daemon.served());
        has_early(&daemon, 0);
        let mut silent = [(); 2].map(|()| daemon.connect());
        has_early(&daemon, 2);
        assert!(is_refused(&daemon) && is_refused(&daemon));
        daemon.has_refused(&[("early-drop", 2)]);
        assert!(daemon.wait_for_line("refused a client").contains(" cause=early-drop "));
        answered.iter_mut().for_each(|client| echoes(client, b"still here"));
        // one that says something makes room for another
        echoes(&mut silent[0], b"hello");
        has_early(&daemon, 1);
        drop(answered);
        let another = daemon.connect();
        has_early(&daemon, 2);
        assert!(is_refused(&daemon));
        // so does one that leaves
        drop((silent, another));
        has_early(&daemon, 0);
        daemon.served();
    }

    fn what_a_killed_process_had_counts_no_more(model) {
        let daemon = Daemon::start(&format!("{} --early-drop 2:100:2", with_room(model)));
        for _ in 0..3 {
            let silent = [(); 2].map(|()| daemon.connect());
            has_early(&daemon, 2);
            // one that counts may be about to be served
            eventually("none counts of those whose process was killed", || {
                let status = daemon.status();
                let children = status["children"].as_array().unwrap().iter();
                children.filter(|child| child["serving"].as_u64() > Some(0)).for_each(|child| {
                    _ = kill(Pid::from_raw(child["pid"].as_i64().unwrap() as i32), Signal::SIGKILL);
                });
                status["listeners"][0]["early"] == 0
            });
            silent.into_iter().for_each(|mut client| assert!(is_cut(&mut client)));
        }
        daemon.served();
    }

    fn the_header_of_a_proxy_is_no_exchange(model) {
        let options = format!("{} --early-drop 2:100:2 --proxy v1 --proxy-from 127.0.0.1", with_room(model));
        let daemon = Daemon::start(&options);
        let mut client = daemon.connect();
        client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n").unwrap();
        let without_header = daemon.connect();
        has_early(&daemon, 2);
        assert!(is_refused(&daemon));
        echoes(&mut client, b"hello");
        has_early(&daemon, 1);
        drop(without_header);
        has_early(&daemon, 0);
    }

    fn clients_of_a_unix_socket_are_refused_too(model) {
        let daemon = Daemon::start(&format!("{} --early-drop 1:100:1 unix://{{dir}}/s", with_room(model)));
        let connect = || {
            let client = UnixStream::connect(daemon.path("s")).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client
        };
        let mut silent = connect();
        has_early(&daemon, 1);
        assert_eq!(connect().read(&mut [0]).unwrap(), 0);
        daemon.has_refused(&[("early-drop", 1)]);
        echoes(&mut silent, b"hello");
        echoes(&mut connect(), b"hello");
    }

    fn what_discard_reads_is_an_exchange_as_it_never_answers(model) {
        let daemon = Daemon::start(&format!("{} --early-drop 1:100:1 --service discard", with_room(model)));
        let mut client = daemon.connect();
        has_early(&daemon, 1);
        assert!(is_refused(&daemon));
        client.write_all(b"hello").unwrap();
        has_early(&daemon, 0);
    }
}

under_models! { [fork spare prefork thread threads event coroutine]
    fn a_request_that_drips_is_no_exchange(model) {
        let daemon = Daemon::start(&format!("{} --early-drop 1:100:1 --service http", with_room(model)));
        let mut client = daemon.connect();
        client.write_all(b"GET /time HTTP/1.1\r\nHo").unwrap();
        has_early(&daemon, 1);
        // a client of http is accepted when it has sent something
        let mut second = daemon.connect();
        let _ = second.write_all(b"G");
        assert!(is_cut(&mut second));
        daemon.has_refused(&[("early-drop", 1)]);
        client.write_all(b"st: a\r\n\r\n").unwrap();
        assert!(client.read(&mut [0; 99]).unwrap() > 0);
        has_early(&daemon, 0);
    }
}

under_models! { [fork event]
    fn a_reload_changes_the_rule_and_forgets_no_connection(model) {
        let forkd = Forkd::new("--config {dir}/forkd.toml");
        let config = forkd.dir.path().join("forkd.toml");
        let write = |rule: &str| {
            let model = model.trim_start_matches("-m ");
            let text = format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = '{model}'\nearly-drop = '{rule}'\n");
            fs::write(&config, text).unwrap();
        };
        write("2:100:2");
        let daemon = forkd.start();
        let mut silent = [(); 2].map(|()| daemon.connect());
        has_early(&daemon, 2);
        assert!(is_refused(&daemon));
        for (rule, refuses) in [("3:100:3", false), ("2:100:2", true)] {
            write(rule);
            assert_eq!(run(&["reload", "--control", daemon.control().to_str().unwrap()]).code, Some(0));
            has_early(&daemon, 2);
            if refuses {
                assert!(is_refused(&daemon));
            } else {
                daemon.served();
            }
        }
        silent.iter_mut().for_each(|client| echoes(client, b"hello"));
        has_early(&daemon, 0);
    }
}

/// Some of those that say something come in, while the silent ones are many.
#[test]
fn between_the_two_numbers_some_come_in() {
    let daemon = Daemon::start("-m event --early-drop 1:50:1000000");
    let _silent = daemon.connect();
    has_early(&daemon, 1);
    let (mut served, mut refused) = (false, false);
    eventually("some are served, some refused", || {
        let answered = TcpStream::connect(daemon.addr()).and_then(|mut client| {
            client.set_read_timeout(Some(LIMIT))?;
            client.write_all(b"?")?;
            client.read_exact(&mut [0])
        });
        match answered {
            Ok(()) => served = true,
            Err(_) => refused = true,
        }
        served && refused
    });
}

#[test]
fn check_shows_the_rule_and_says_where_there_can_be_none() {
    let ended = run(&["check", "tcp://127.0.0.1:7", "--early-drop", "10:30:100"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let words = "# tcp://127.0.0.1:7: of new connections 30 % are refused where 10 have not completed their first exchange, and all \
                 where 100 have not";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
    // how many places there are is not known
    for options in ["-m event --early-drop 1:1:1000000", "-m prefork -w auto --early-drop 1:1:1000000"] {
        let words: Vec<&str> = options.split(' ').collect();
        assert_eq!(run(&[&["check", "tcp://127.0.0.1:7"], &*words].concat()).code, Some(0), "{options}");
    }
    for (options, why) in [
        (&["udp://127.0.0.1:7", "--early-drop", "10:30:100"][..], "datagrams have no first exchange"),
        (&["unixgram:///run/s", "--early-drop", "10:30:100"], "datagrams have no first exchange"),
        (
            &["tcp://127.0.0.1:7", "--early-drop", "10:30:100", "--exec", "cat"],
            "of another service than exec, whose program has them to itself",
        ),
        (&["tcp://127.0.0.1:7", "--early-drop", "10:30:1024"], "fork has 1024 places (--max-children)"),
        (
            &["tcp://127.0.0.1:7", "-m", "prefork", "-w", "2..9", "--early-drop", "3:9:9"],
            "has 9 places (--workers)",
        ),
        (
            &["tcp://127.0.0.1:7", "-m", "thread", "-w", "2", "--threads", "4", "--early-drop", "3:9:8"],
            "thread has 8 places (--threads): silent connections have all",
        ),
        (
            &[
                "tcp://127.0.0.1:7",
                "-m",
                "event",
                "-w",
                "2",
                "--max-connections",
                "50",
                "--early-drop",
                "3:9:200",
            ],
            "event has 100 places (--max-connections)",
        ),
        (&["--early-drop", "10:30"], "write FROM:PERCENT:FULL, like 10:30:100"),
    ] {
        let ended = run(&[&["check"], options].concat());
        assert_eq!(ended.code, Some(64), "{options:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{options:?}: {}", ended.stderr);
    }
}
