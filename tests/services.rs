//! The services, over each transport and under each model, as their RFCs and the textbook have them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::*;

/// What a client gets that sends this and then no more.
fn dialogue(client: &mut UnixStream, says: &[u8]) -> Vec<u8> {
    client.write_all(says).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    heard
}

/// A client of the service with these options, over TCP and over a Unix socket, under this model.
fn each_stream(model: &str, options: &str, check: impl Fn(&mut UnixStream)) {
    for endpoint in ["tcp://127.0.0.1:0", "unix://{dir}/s"] {
        let daemon = Daemon::start(&format!("{model} {options} {endpoint}"));
        // twice: a worker serves one client after the other
        check(&mut wire::stream(&daemon));
        check(&mut wire::stream(&daemon));
    }
}

fn answer(daemon: &Daemon, request: &[u8]) -> Option<Vec<u8>> {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(daemon.address("udp")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client.send(request).unwrap();
    let mut buffer = vec![0; 65_536];
    client.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec())
}

fn datagrams(model: &str, options: &str) -> Daemon {
    // some options need connections, too
    Daemon::start(&format!("{model} {options} udp://127.0.0.1:0 tcp://127.0.0.1:0"))
}

under_models! {
    [fork spare prefork iterative thread threads event coroutine]

    fn discard_says_nothing(model) {
        each_stream(model, "--service discard", |client| {
            assert_eq!(dialogue(client, &[b'x'; 100_000]), b"");
        });
        assert_eq!(answer(&datagrams(model, "--service discard"), b"hello"), None);
    }

    fn chargen_goes_on_until_the_client_goes(model) {
        each_stream(model, "--service chargen", |client| {
            client.write_all(b"thrown away").unwrap();
            let mut heard = vec![0; 1_000_000];
            client.read_exact(&mut heard).unwrap();
            let lines: Vec<&[u8]> = heard.chunks_exact(74).collect();
            assert!(lines[0].starts_with(b" !\"#$%&'()") && lines[1].starts_with(b"!\"#$%&'()*"));
            assert!(lines.iter().all(|line| line.ends_with(b"\r\n")));
            assert_eq!(lines[0], lines[95]);
        });
        let daemon = datagrams(model, "--service chargen --allow-amplification");
        let lengths: Vec<usize> = (0..8).map(|_| answer(&daemon, b"").unwrap().len()).collect();
        assert!(lengths.iter().all(|&length| length <= 512), "{lengths:?}");
    }

    fn daytime_is_a_line(model) {
        let is_a_line = |line: &[u8]| {
            let text = std::str::from_utf8(line).unwrap();
            let words: Vec<&str> = text.strip_suffix("\r\n").unwrap().split_whitespace().collect();
            assert_eq!(words.len(), 5, "{text}");
            assert!(words[4].parse::<u32>().unwrap() >= 2024, "{text}");
        };
        each_stream(model, "--service daytime", |client| is_a_line(&dialogue(client, b"")));
        is_a_line(&answer(&datagrams(model, "--service daytime --allow-amplification"), b"").unwrap());
    }

    fn time_is_four_bytes(model) {
        let is_now = |bytes: &[u8]| {
            let seconds = u32::from_be_bytes(bytes.try_into().unwrap());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2_208_988_800;
            assert!((now as u32).wrapping_sub(seconds) < 20, "{seconds} at {now}");
        };
        each_stream(model, "--service time", |client| is_now(&dialogue(client, b"")));
        is_now(&answer(&datagrams(model, "--service time --allow-amplification"), b"").unwrap());
    }

    fn ack_answers_each_message(model) {
        each_stream(model, "--service ack --framing line --reply ok", |client| {
            assert_eq!(dialogue(client, b"one\ntwo\nthree"), b"okokok");
        });
        each_stream(model, "--service ack", |client| {
            for _ in 0..3 {
                client.write_all(b"hello").unwrap();
                let mut heard = [0; 2];
                client.read_exact(&mut heard).unwrap();
                assert_eq!(&heard, b"OK");
            }
        });
        assert_eq!(answer(&datagrams(model, "--service ack"), b"hello, server").unwrap(), b"OK");
    }
}

#[test]
fn several_services_in_one_daemon_as_in_inetd() {
    let forkd = Forkd::new("--config {dir}/f.toml");
    let group =
        |service: &str| format!("[[listen]]\nservice = '{service}'\nendpoints = ['tcp://127.0.0.1:0']\n");
    let toml: String = ["echo", "daytime", "discard"].map(group).concat();
    std::fs::write(forkd.dir.path().join("f.toml"), toml).unwrap();
    let daemon = forkd.start();
    let names: Vec<String> =
        (0..3).map(|n| daemon.listener(n)["service"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["echo", "daytime", "discard"]);
    echoes(&mut daemon.connect(), b"the first is echo");
    // another service under the same socket
    let toml: String = ["discard", "daytime", "echo"].map(group).concat();
    std::fs::write(daemon.path("f.toml"), toml).unwrap();
    assert_eq!(
        forkd_command().arg("reload").arg("--control").arg(daemon.control()).status().unwrap().code(),
        Some(0)
    );
    assert!(is_mute(&daemon));
}

#[test]
fn a_weapon_is_not_handed_out_unasked() {
    for service in ["chargen", "daytime", "time"] {
        let ended = run(&["serve", "--service", service, "udp://127.0.0.1:0"]);
        assert_eq!(ended.code, Some(64));
        assert!(ended.stderr.contains("could have it flood others"), "{}", ended.stderr);
        assert!(ended.stderr.contains("allow-amplification"), "{}", ended.stderr);
    }
    let ended = run(&["serve", "--service", "http", "udp://127.0.0.1:0"]);
    assert!(ended.code == Some(64) && ended.stderr.contains("needs a connection"), "{}", ended.stderr);
}

#[test]
fn a_socket_that_is_handed_over_is_no_way_round_that() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (service, why) in [("chargen", "could have it flood others"), ("http", "needs a connection")] {
        let ended = Forkd::new(&format!("--service {service} systemd:x")).handed("x", &socket).run();
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
    let daemon = Forkd::new("--service daytime --allow-amplification systemd:x").handed("x", &socket).start();
    assert!(answer(&daemon, b"").unwrap().ends_with(b"\r\n"));
}

#[test]
fn where_no_endpoint_is_named_it_is_served_where_it_fits() {
    let endpoints = |options: &str| {
        let args: Vec<&str> = ["check"].into_iter().chain(options.split_whitespace()).collect();
        let printed = run(&args);
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        printed.stdout.lines().find(|line| line.starts_with("endpoints")).unwrap().to_owned()
    };
    assert!(endpoints("").contains("udp://"));
    assert!(endpoints("--service daytime --allow-amplification").contains("udp://"));
    for options in ["--service daytime", "--service http", "--exec cat"] {
        assert_eq!(endpoints(options), "endpoints = [\"tcp://127.0.0.1:7007\"]", "{options}");
    }
}

#[test]
fn the_services_are_listed_and_their_options_refused_elsewhere() {
    let ended = run(&["serve", "--service", "list"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for name in ["echo", "discard", "chargen", "daytime", "time", "ack", "http", "exec"] {
        assert!(ended.stdout.lines().any(|line| line.starts_with(&format!("{name} "))), "{}", ended.stdout);
    }
    for (option, service) in [("--reply", "ack"), ("--root", "http")] {
        let ended = run(&["check", option, "x"]);
        let expected = format!("{option} needs the service {service}");
        assert!(ended.code == Some(64) && ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}

/// Whether what is sent to its first endpoint gets no answer.
fn is_mute(daemon: &Daemon) -> bool {
    let mut client = daemon.connect();
    client.write_all(b"hello").unwrap();
    is_silent(&client, Duration::from_millis(100))
}
