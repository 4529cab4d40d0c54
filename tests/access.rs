//! Which clients are served, by where they come from: under each model, over each transport, and after a reload.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::sources::{bound, comes_in, connected, from, is_reset, tries};
use common::*;

/// A worker may have had both clients, and be gone already.
fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

under_models! { [fork spare prefork iterative thread threads event coroutine]
    fn a_denied_source_is_reset_counted_and_logged_and_others_are_served(model) {
        let daemon = Daemon::start(&format!("{model} --deny 127.0.0.2"));
        for count in 1..=3 {
            assert!(is_reset(tries(2, &daemon)));
            daemon.has_refused(&[("denied", count)]);
            echoes(&mut from(3, &daemon), b"hello");
        }
        daemon.wait_for_lines(3, "refused a client peer=127.0.0.2:");
        let line = daemon.wait_for_line("refused a client");
        assert!(line.contains(" cause=denied ") && line.contains(" suppressed=0"), "{line}");
    }

    fn only_an_allowed_network_is_served_but_for_what_is_denied_in_it(model) {
        let daemon = Daemon::start(&format!("{model} --allow 127.0.0.8/29 --deny 127.0.0.9"));
        echoes(&mut from(8, &daemon), b"hello");
        assert!(is_reset(tries(9, &daemon)));
        assert!(is_reset(tries(7, &daemon)));
        daemon.has_refused(&[("denied", 2)]);
    }

    fn a_datagram_of_a_denied_source_gets_no_answer(model) {
        let model = model.replace(" --spare 3", "");
        let daemon = Daemon::start(&format!("{model} --deny 127.0.0.2 udp://127.0.0.1:0"));
        let [denied, other] = [2, 3].map(|n| {
            let client = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, n), 0)).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.connect(daemon.address("udp")).unwrap();
            client
        });
        denied.send(b"hello").unwrap();
        daemon.has_refused(&[("denied", 1)]);
        other.send(b"hello").unwrap();
        assert_eq!(other.recv(&mut [0; 9]).unwrap(), 5);
        denied.set_nonblocking(true).unwrap();
        assert_eq!(denied.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn a_user_of_a_unix_socket_is_served_or_not(model) {
        let me = nix::unistd::geteuid();
        for (rule, is_served) in
            [(format!("--deny uid:{me}"), false), (format!("--allow uid:{me}"), true), ("--allow uid:12345".into(), false)]
        {
            let daemon = Daemon::start(&format!("{model} {rule} unix://{{dir}}/s"));
            let mut client = UnixStream::connect(daemon.path("s")).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            if is_served {
                echoes(&mut client, b"hello");
            } else {
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "{rule}");
                daemon.has_refused(&[("denied", 1)]);
            }
        }
    }
}

under_models! { [fork spare prefork thread threads event coroutine]
    fn a_source_has_as_many_connections_as_it_may_and_others_are_served(model) {
        let model = model.replace("-w 2", "-w 5").replace("--threads 2", "--threads 5");
        let daemon = Daemon::start(&format!("{model} --max-per-source 2"));
        let mut served = [2, 2].map(|n| from(n, &daemon));
        served.iter_mut().for_each(|client| echoes(client, b"hello"));
        assert!(is_reset(tries(2, &daemon)));
        daemon.has_refused(&[("source-limit", 1)]);
        let mut other = from(3, &daemon);
        echoes(&mut other, b"hello");
        // one that leaves makes room for another at once
        let [leaves, mut stays] = served;
        leaves.shutdown(Shutdown::Write).unwrap();
        assert!(is_cut(&mut leaves.try_clone().unwrap()));
        comes_in(2, &daemon);
        echoes(&mut stays, b"still here");
        assert!(daemon.wait_for_line("refused a client").contains(" cause=source-limit "));
    }

    fn what_a_killed_process_had_does_not_count_any_more(model) {
        let model = model.replace("-w 2", "-w 5").replace("--threads 2", "--threads 5");
        let daemon = Daemon::start(&format!("{model} --max-per-source 2"));
        for _ in 0..3 {
            let mut served = [2, 2].map(|n| comes_in(n, &daemon));
            served.iter().for_each(|client| {
                let status = daemon.status();
                let peer = client.local_addr().unwrap().to_string();
                let children = status["children"].as_array().unwrap();
                children
                    .iter()
                    .filter(|child| child["serving"].as_u64() > Some(0))
                    .filter(|child| child["peer"] == peer.as_str() || !model.contains("fork"))
                    .for_each(|child| kill(child["pid"].as_i64().unwrap() as i32));
            });
            served.iter_mut().for_each(|client| assert!(is_cut(client)));
        }
        comes_in(2, &daemon);
    }
}

under_models! { [fork spare prefork iterative thread threads event coroutine]
    fn a_source_that_comes_too_often_is_refused_and_others_are_served(model) {
        let daemon = Daemon::start(&format!("{model} --rate-per-source 1/h:3"));
        for _ in 0..3 {
            echoes(&mut from(2, &daemon), b"hello");
        }
        assert!(is_reset(tries(2, &daemon)));
        assert!(is_reset(tries(2, &daemon)));
        daemon.has_refused(&[("source-rate", 2)]);
        echoes(&mut from(3, &daemon), b"hello");
        assert!(daemon.wait_for_line("refused a client").contains(" cause=source-rate "));
    }

    fn clients_beyond_the_rate_are_refused_where_that_is_asked_for(model) {
        let daemon = Daemon::start(&format!("{model} --rate 1/h:3 --overflow reject"));
        for n in 2..5 {
            echoes(&mut from(n, &daemon), b"hello");
        }
        assert!(is_reset(tries(5, &daemon)));
        daemon.has_refused(&[("rate", 1)]);
    }

    fn clients_beyond_the_rate_come_in_later(model) {
        let daemon = Daemon::start(&format!("{model} --rate 20/s:1"));
        for n in 2..8 {
            echoes(&mut from(n, &daemon), b"hello");
        }
        assert_eq!(daemon.listener(0)["refused"].as_object().unwrap().len(), 0);
    }

    fn of_a_source_that_bounces_datagrams_as_many_are_answered_as_may_be(model) {
        let model = model.replace(" --spare 3", "");
        let daemon = Daemon::start(&format!("{model} --rate-per-source 1/h:5 udp://127.0.0.1:0"));
        let other_server = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
        other_server.connect(daemon.address("udp")).unwrap();
        other_server.set_read_timeout(Some(LIMIT)).unwrap();
        // with a fresh hop limit each time
        for _ in 0..5 {
            other_server.send(b"hello").unwrap();
            assert_eq!(other_server.recv(&mut [0; 9]).unwrap(), 5);
        }
        other_server.send(b"hello").unwrap();
        daemon.has_refused(&[("source-rate", 1)]);
        other_server.set_nonblocking(true).unwrap();
        assert_eq!(other_server.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// The first two clients are served, and the third one at the stop.
fn one_beyond_the_rate_waits_for_the_stop(options: &str) {
    let daemon = Daemon::start(options);
    for n in 2..4 {
        echoes(&mut from(n, &daemon), b"hello");
    }
    let mut waits = from(4, &daemon);
    waits.write_all(b"?").unwrap();
    assert!(is_silent(&waits, Duration::from_millis(300)));
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    is_answered(&mut waits);
    drop(waits);
    assert_eq!(daemon.wait().code(), Some(0));
}

// of the others, each process that waits in accept(2) may get one more
under_models! { [fork prefork iterative thread event coroutine]
    fn clients_beyond_the_rate_wait_and_are_served_at_a_stop(model) {
        one_beyond_the_rate_waits_for_the_stop(&format!("{} --rate 1/h:2", model.replace("-w 2", "-w 1")));
    }
}

/// The child that waits until the next client may come is called off, and the master serves those that are queued.
#[test]
fn a_spare_child_that_must_not_accept_yet_leaves_at_a_stop() {
    one_beyond_the_rate_waits_for_the_stop("--spare 1 --rate 1/h:2");
}

#[test]
fn a_reload_changes_a_rate_and_forgets_no_client() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let config = forkd.dir.path().join("forkd.toml");
    let write = |rate: &str| {
        let text =
            "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = 'event'\nworkers = 1\nrate-per-source = ";
        fs::write(&config, format!("{text}'{rate}'\n")).unwrap();
    };
    write("1/h:3");
    let daemon = forkd.start();
    (0..3).for_each(|_| echoes(&mut from(2, &daemon), b"hello"));
    assert!(is_reset(tries(2, &daemon)));
    write("1/h:4");
    assert_eq!(run(&["reload", "--control", daemon.control().to_str().unwrap()]).code, Some(0));
    echoes(&mut from(2, &daemon), b"hello");
    assert!(is_reset(tries(2, &daemon)));
}

#[test]
fn a_reload_changes_the_limit_of_a_source_and_forgets_no_client() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let config = forkd.dir.path().join("forkd.toml");
    let write = |most: u32| {
        let text = "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmax-per-source = ";
        fs::write(&config, format!("{text}{most}\n")).unwrap();
    };
    write(3);
    let daemon = forkd.start();
    let mut served = [2, 2, 2].map(|n| from(n, &daemon));
    served.iter_mut().for_each(|client| echoes(client, b"hello"));
    assert!(is_reset(tries(2, &daemon)));
    write(4);
    assert_eq!(run(&["reload", "--control", daemon.control().to_str().unwrap()]).code, Some(0));
    echoes(&mut from(2, &daemon), b"hello");
    write(1);
    assert_eq!(run(&["reload", "--control", daemon.control().to_str().unwrap()]).code, Some(0));
    assert!(is_reset(tries(2, &daemon)));
    served.iter_mut().for_each(|client| echoes(client, b"still here"));
    drop(served);
    comes_in(2, &daemon);
}

#[test]
fn a_source_can_be_a_network_or_a_user() {
    let daemon = Daemon::start("--max-per-source 1 --source-prefix 24/64");
    let mut served = from(2, &daemon);
    echoes(&mut served, b"hello");
    assert!(is_reset(tries(3, &daemon)));
    drop(served);
    comes_in(4, &daemon);
    let daemon = Daemon::start("-m prefork --max-per-source 1 unix://{dir}/s");
    let mut served = UnixStream::connect(daemon.path("s")).unwrap();
    served.set_read_timeout(Some(LIMIT)).unwrap();
    echoes(&mut served, b"hello");
    let mut second = UnixStream::connect(daemon.path("s")).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    daemon.has_refused(&[("source-limit", 1)]);
}

/// A thousand connections of one source leave room for others, under each model.
#[test]
fn a_source_with_a_thousand_connections_locks_no_other_out() {
    for model in ["fork", "prefork", "thread", "threads", "event", "coroutine"] {
        let daemon = Daemon::start(&format!("{} --max-per-source 1", options_of(model)));
        let greedy: Vec<Client> = (0..1000).filter_map(|_| tries(2, &daemon).ok()).collect();
        let mut other = from(3, &daemon);
        echoes(&mut other, b"hello");
        drop(greedy);
    }
}

under_models! { [fork prefork thread threads event coroutine]
    fn a_datagram_that_is_answered_does_not_count(model) {
        for service in ["echo", "daytime --allow-amplification"] {
            let options = format!("{model} --max-per-source 1 --service {service} udp://127.0.0.1:0");
            let daemon = Daemon::start(&options);
            let client = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.connect(daemon.address("udp")).unwrap();
            for _ in 0..100 {
                client.send(b"hello").unwrap();
                assert!(client.recv(&mut [0; 99]).unwrap() >= 5, "{service}");
            }
            assert_eq!(daemon.listener(0)["refused"].as_object().unwrap().len(), 0, "{service}");
        }
    }
}

#[test]
fn a_group_of_a_unix_socket_is_known() {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let daemon = Daemon::start(&format!("--allow gid:{gid} unix://{{dir}}/s"));
    let mut client = UnixStream::connect(daemon.path("s")).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    echoes(&mut client, b"hello");
    let daemon = Daemon::start(&format!("--allow gid:{gid} --deny uid:{uid} unix://{{dir}}/s"));
    let _client = UnixStream::connect(daemon.path("s")).unwrap();
    daemon.has_refused(&[("denied", 1)]);
}

#[test]
fn a_list_is_read_again_at_a_reload_and_one_with_a_mistake_leaves_the_old_in_force() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let [list, config] = ["deny", "forkd.toml"].map(|name| forkd.dir.path().join(name));
    fs::write(&list, "127.0.0.2 # not this one\n").unwrap();
    let text = "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\ndeny = ['LIST']\n";
    fs::write(config, text.replace("LIST", list.to_str().unwrap())).unwrap();
    let daemon = forkd.start();
    assert!(is_reset(tries(2, &daemon)));
    echoes(&mut from(3, &daemon), b"hello");

    let reload = || run(&["reload", "--control", daemon.control().to_str().unwrap()]);
    fs::write(&list, "127.0.0.3\n").unwrap();
    assert_eq!(reload().code, Some(0));
    assert!(is_reset(tries(3, &daemon)));
    echoes(&mut from(2, &daemon), b"hello");

    fs::write(&list, "127.0.0.2\nlocalhost\n").unwrap();
    let ended = reload();
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("deny:2: \"localhost\" is no network"), "{}", ended.stderr);
    assert!(is_reset(tries(3, &daemon)));
    echoes(&mut from(2, &daemon), b"hello");
}

#[test]
fn a_flood_of_refused_clients_does_not_fill_the_log() {
    let daemon = Daemon::start("--deny 127.0.0.2");
    let start = std::time::Instant::now();
    for _ in 0..100 {
        assert!(is_reset(tries(2, &daemon)));
    }
    daemon.has_left_out("refused a client", 100, start, || {
        let (client, address) = bound(2);
        assert!(is_reset(connected(client, &daemon)));
        address
    });
}

#[test]
fn a_list_that_allows_nothing_is_refused_and_does_not_let_all_in() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("allow");
    fs::write(&list, "# none yet\n\n").unwrap();
    let list = list.to_str().unwrap();
    for options in [&["--allow", list][..], &["--proxy", "v2", "--proxy-from", list]] {
        let ended = run(&[&["check"], options].concat());
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("names no source"), "{}", ended.stderr);
    }
    assert_eq!(run(&["check", "--deny", list]).code, Some(0));
}

/// Such rules would refuse all, and the client would never hear of it.
#[test]
fn a_list_with_users_is_refused_where_datagrams_do_not_tell_them() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("allow");
    fs::write(&list, "uid:7\n").unwrap();
    let (list, socket) = (list.to_str().unwrap(), format!("unixgram://{}/s", dir.path().display()));
    for command in ["check", "serve"] {
        let ended = run(&[command, &socket, "--allow", list]);
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("does not tell its user"), "{}", ended.stderr);
    }
    assert_eq!(run(&["check", "unix:///run/s", "--allow", list]).code, Some(0));
    let ended = run(&["check", &socket, "--proxy", "v2", "--proxy-from", "uid:7"]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("does not tell its user"), "{}", ended.stderr);
}

#[test]
fn check_says_what_would_happen_to_a_source_and_by_which_rule() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("deny");
    fs::write(&list, "# bad ones\n10.1.0.0/16\n").unwrap();
    let list = list.to_str().unwrap();
    let options = ["check", "tcp://127.0.0.1:7", "unix:///run/s", "--allow", "10.0.0.0/8", "--deny", list];
    for (source, first, second) in [
        ("10.2.3.4", "served (allow 10.0.0.0/8)".to_owned(), "has no such clients, but users (uid:N)"),
        (
            "10.1.3.4",
            format!("refused (deny 10.1.0.0/16, {list}:2)"),
            "has no such clients, but users (uid:N)",
        ),
        ("::1", "refused (no rule allows it)".to_owned(), "has no such clients, but users (uid:N)"),
        ("uid:7", "has no such clients, but addresses".to_owned(), "served (no rule denies it)"),
    ] {
        let ended = run(&[&options[..], &["--source", source]].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{source}");
        assert_eq!(
            ended.stdout,
            format!("tcp://127.0.0.1:7: {first}\nunix:///run/s: {second}\n"),
            "{source}"
        );
    }
    let ended = run(&options);
    let words = "# tcp://127.0.0.1:7, unix:///run/s: only addresses that 1 rules allow are served, and 1 rules deny some";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
    let ended = run(&[&options[..], &["--source", "eth0"]].concat());
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("\"eth0\" is no source; write an address"), "{}", ended.stderr);
}
