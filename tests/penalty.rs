//! Sources that are refused for what their clients have done: for each cause, under each model, until they are pardoned.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::sources::{comes_in, from, is_reset, tries};
use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Waits until a source is penalised, which its server may not know yet when it ends the connection; its next client is
/// refused.
#[track_caller]
fn is_penalised(source: &str, cause: &str, daemon: &Daemon) {
    let line = format!("refusing a source for a while source={source} cause={cause} lasts=1h endpoint=");
    let line = daemon.wait_for_line(&line);
    assert!(line.contains(" suppressed=0"), "{line}");
}

/// The same of 127.0.0.2.
#[track_caller]
fn the_next_is_refused(cause: &str, daemon: &Daemon) {
    is_penalised("127.0.0.2", cause, daemon);
    let before = refused(daemon, "penalty");
    assert!(is_reset(tries(2, daemon)));
    assert_eq!(refused(daemon, "penalty"), before + 1);
}

/// Waits until the clients of some other source are served; each source has one try, as it may be penalised, too.
#[track_caller]
fn others_are_served(daemon: &Daemon) {
    let mut sources = (100..=250).cycle();
    eventually("others are served", || {
        let Ok(mut client) = tries(sources.next().unwrap(), daemon) else { return false };
        client.write_all(b"hello").is_ok() && client.read_exact(&mut [0; 5]).is_ok()
    });
}

fn ask(daemon: &Daemon, args: &[&str]) -> String {
    let ended = run(&[args, &["--control", daemon.control().to_str().unwrap()]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.stdout
}

fn sources_of(daemon: &Daemon) -> Value {
    serde_json::from_str(&ask(daemon, &["status", "--sources", "--json"])).unwrap()
}

/// How many clients were refused for this cause.
fn refused(daemon: &Daemon, cause: &str) -> u64 {
    daemon.listener(0)["refused"][cause].as_u64().unwrap_or(0)
}

under_models! { [fork spare prefork iterative thread threads event coroutine]
    fn a_silent_client_has_its_source_refused(model) {
        let daemon = Daemon::start(&format!("{model} --idle-timeout 100ms --penalty timeout=1h"));
        assert!(is_cut(&mut from(2, &daemon)));
        the_next_is_refused("timeout", &daemon);
        others_are_served(&daemon);
        assert!(daemon.wait_for_line("refused a client peer=127.0.0.2:").contains(" cause=penalty "));
    }

    fn a_client_that_stays_for_too_long_has_its_source_refused(model) {
        let daemon = Daemon::start(&format!("{model} --max-lifetime 100ms --penalty timeout=1h"));
        assert!(is_cut(&mut from(2, &daemon)));
        the_next_is_refused("timeout", &daemon);
    }

    fn a_client_that_does_not_read_has_its_source_refused(model) {
        let daemon = Daemon::start(&format!("{model} --service chargen --idle-timeout 100ms --penalty unread=1h"));
        let _does_not_read = from(2, &daemon);
        the_next_is_refused("unread", &daemon);
        assert_eq!(sources_of(&daemon)["sources"][0]["offence"], "unread");
        assert!(from(3, &daemon).read(&mut [0]).is_ok());
    }

    fn a_client_that_breaks_the_protocol_has_its_source_refused(model) {
        let daemon = Daemon::start(&format!("{model} --service http --route /a=a --penalty protocol=1h"));
        let says = |n: u8, text: &str| {
            let mut client = from(n, &daemon);
            client.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        };
        // what isn't there is no breach
        assert!(says(2, "GET /b HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(says(2, "what?\r\n\r\n").starts_with("HTTP/1.1 400 "));
        the_next_is_refused("protocol", &daemon);
        assert!(says(3, "GET /a HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }

    fn a_source_that_comes_too_often_is_refused_for_longer(model) {
        let daemon = Daemon::start(&format!("{model} --rate-per-source 1/h:1 --penalty rate=1h"));
        echoes(&mut from(2, &daemon), b"hello");
        assert!(is_reset(tries(2, &daemon)));
        assert!(is_reset(tries(2, &daemon)));
        daemon.has_refused(&[("source-rate", 1), ("penalty", 1)]);
        echoes(&mut from(3, &daemon), b"hello");
        is_penalised("127.0.0.2", "rate", &daemon);
    }

    fn an_exempt_network_is_not_refused(model) {
        let options = "--rate-per-source 1/h:1 --penalty rate=1h --penalty-exempt 127.0.0.2/31";
        let daemon = Daemon::start(&format!("{model} {options}"));
        echoes(&mut from(2, &daemon), b"hello");
        (0..3).for_each(|_| assert!(is_reset(tries(2, &daemon))));
        daemon.has_refused(&[("source-rate", 3)]);
        assert_eq!(daemon.count_lines("refusing a source"), 0);
    }
}

under_models! { [fork spare prefork iterative]
    fn a_client_whose_process_crashes_has_its_source_refused(model) {
        let daemon = Daemon::start(&format!("{model} --penalty crash=1h"));
        let mut client = from(2, &daemon);
        echoes(&mut client, b"hello");
        signal(daemon.server_of(&client), Signal::SIGSEGV);
        assert!(is_cut(&mut client));
        the_next_is_refused("crash", &daemon);
        others_are_served(&daemon);
        // which was not its doing
        let mut client = from(4, &daemon);
        echoes(&mut client, b"hello");
        signal(daemon.server_of(&client), Signal::SIGKILL);
        assert!(is_cut(&mut client));
        daemon.wait_for_line("was killed");
        comes_in(4, &daemon);
    }
}

under_models! { [thread threads event coroutine]
    fn one_client_of_many_does_not_pay_for_a_crash(model) {
        let daemon = Daemon::start(&format!("{model} --penalty crash=1h"));
        let mut client = from(2, &daemon);
        echoes(&mut client, b"hello");
        daemon.children().into_iter().for_each(|pid| signal(pid, Signal::SIGSEGV));
        assert!(is_cut(&mut client));
        daemon.wait_for_line("worker crashed");
        comes_in(2, &daemon);
    }
}

under_models! { [fork prefork event coroutine]
    fn a_client_pays_for_itself_and_not_its_proxy(model) {
        let options = "--proxy v1 --proxy-from 127.0.0.1 --service http --route /a=a --penalty protocol=1h";
        let daemon = Daemon::start(&format!("{model} {options}"));
        let says = |client: u8, text: &str| {
            let mut proxy = from(1, &daemon);
            let header = format!("PROXY TCP4 192.0.2.{client} 192.0.2.100 4711 80\r\n");
            proxy.write_all(format!("{header}{text}\r\n\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            proxy.read_to_string(&mut answer).map(|_| answer)
        };
        assert!(says(7, "what?").unwrap().starts_with("HTTP/1.1 400 "));
        is_penalised("192.0.2.7", "protocol", &daemon);
        assert!(says(7, "GET /a HTTP/1.0").is_err());
        assert!(says(8, "GET /a HTTP/1.0").unwrap().starts_with("HTTP/1.1 200 "));
        assert_eq!(sources_of(&daemon)["sources"][0]["source"], "192.0.2.7");
        // without a header
        let mut proxy = from(1, &daemon);
        proxy.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
        assert!(is_cut(&mut proxy));
        assert!(says(8, "GET /a HTTP/1.0").unwrap().starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_user_of_a_unix_socket_is_refused_and_pardoned() {
    let me = nix::unistd::geteuid();
    let daemon = Daemon::start("--rate-per-source 1/h:1 --penalty rate=1h unix://{dir}/s");
    let connect = || {
        let client = UnixStream::connect(daemon.path("s")).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    };
    echoes(&mut connect(), b"hello");
    assert_eq!(connect().read(&mut [0]).unwrap(), 0);
    daemon.has_refused(&[("source-rate", 1)]);
    assert_eq!(sources_of(&daemon)["sources"][0]["source"], format!("uid:{me}"));
    assert!(ask(&daemon, &["pardon", &format!("uid:{me}")]).contains(": penalty (rate)\n"));
    echoes(&mut connect(), b"hello");
}

#[test]
fn an_operator_sees_who_is_refused_and_pardons() {
    let daemon = Daemon::start("--max-per-source 2 --rate-per-source 1/h:2 --penalty rate=1h");
    let mut served = [from(2, &daemon), from(3, &daemon), from(3, &daemon)];
    served.iter_mut().for_each(|client| echoes(client, b"hello"));
    assert!(is_reset(tries(3, &daemon)));

    let all = sources_of(&daemon);
    assert_eq!((all["left_out"].as_u64(), all["sources"].as_array().unwrap().len()), (Some(0), 2));
    let [worst, other] = [0, 1].map(|at| all["sources"][at].clone());
    assert_eq!(
        (&worst["source"], &worst["clients"], &worst["refused"]),
        (&"127.0.0.3".into(), &2.into(), &"penalty".into())
    );
    assert_eq!((&worst["offence"], &worst["endpoint"]), (&"rate".into(), &daemon.endpoint(0).into()));
    let left = worst["left_s"].as_f64().unwrap();
    assert!(left > 3600.0 - LIMIT.as_secs_f64() && left <= 3600.0, "{left}");
    assert_eq!(
        (&other["source"], &other["clients"], &other["refused"]),
        (&"127.0.0.2".into(), &1.into(), &Value::Null)
    );

    let table = ask(&daemon, &["status", "--sources"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["SOURCE", "CLIENTS", "REFUSED", "FOR", "LISTENER"]);
    assert_eq!(
        (&lines[1][..4], &lines[2][..3]),
        (&["127.0.0.3", "2", "penalty", "(rate)"][..], &["127.0.0.2", "1", "-"][..])
    );

    let none = ask(&daemon, &["pardon", "127.0.0.2"]);
    assert_eq!(none, "127.0.0.2 was not refused, so there was nothing to pardon\n");
    let pardoned = ask(&daemon, &["pardon", "127.0.0.0/8"]);
    let expected = format!("pardoned 127.0.0.3 at {}, which refused it for another ", daemon.endpoint(0));
    assert!(pardoned.starts_with(&expected) && pardoned.ends_with(": penalty (rate)\n"), "{pardoned}");
    daemon.wait_for_line("pardoned a source source=127.0.0.0/8");
    assert_eq!(daemon.count_lines("pardoned a source"), 1);
    // it has as many as it may
    assert!(is_reset(tries(3, &daemon)));
    daemon.has_refused(&[("source-limit", 2)]);
    drop(served);
    let have_left =
        || sources_of(&daemon)["sources"].as_array().unwrap().iter().all(|source| source["clients"] == 0);
    eventually("all have left", have_left);
    ask(&daemon, &["pardon", "127.0.0.3"]);
    echoes(&mut from(3, &daemon), b"hello");
}

#[test]
fn a_reload_keeps_penalties_and_ends_those_that_are_no_longer_asked_for() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let config = forkd.dir.path().join("forkd.toml");
    let write = |more: &str| {
        let text = "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = 'event'\nworkers = 1\nrate-per-source = '1/h:2'\n";
        fs::write(&config, format!("{text}{more}\n")).unwrap();
    };
    write("penalty = ['rate=1h']");
    let daemon = forkd.start();
    (0..2).for_each(|_| echoes(&mut from(2, &daemon), b"hello"));
    assert!(is_reset(tries(2, &daemon)));
    daemon.has_refused(&[("source-rate", 1)]);
    write("penalty = ['rate=30m']");
    ask(&daemon, &["reload"]);
    assert!(is_reset(tries(2, &daemon)));
    daemon.has_refused(&[("source-rate", 1), ("penalty", 1)]);
    let left = sources_of(&daemon)["sources"][0]["left_s"].as_f64().unwrap();
    assert!(left <= 1800.0, "{left}");
    write("penalty = ['rate=30m']\npenalty-exempt = ['127.0.0.2']");
    ask(&daemon, &["reload"]);
    assert_eq!(sources_of(&daemon)["sources"][0]["refused"], "source-rate");
    assert!(is_reset(tries(2, &daemon)));
    daemon.has_refused(&[("source-rate", 2), ("penalty", 1)]);
}

#[test]
fn check_says_what_is_penalised_and_which_source_never_is() {
    let options = ["check", "tcp://127.0.0.1:7", "--penalty", "crash=1m", "--penalty-exempt", "10.0.0.0/8"];
    let ended = run(&options);
    assert!(
        ended.stdout.contains("is refused for a while after crash=1m, and up to 16 times as long"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("never penalised is what fits one of the rules of penalty-exempt (1)"),
        "{}",
        ended.stdout
    );
    let verdict = |source: &str| run(&[&options[..], &["--source", source]].concat()).stdout;
    assert_eq!(verdict("11.0.0.1"), "tcp://127.0.0.1:7: served (no rule denies it)\n");
    let exempt =
        "tcp://127.0.0.1:7: served (no rule denies it), and never penalised (penalty-exempt 10.0.0.0/8)\n";
    assert_eq!(verdict("10.0.0.1"), exempt);
    for (penalty, why) in [("late=1m", "is no penalty; write a cause"), ("crash", "is no penalty")] {
        let ended = run(&["check", "--penalty", penalty]);
        assert_eq!(ended.code, Some(64));
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
}

#[test]
fn what_is_no_source_is_not_pardoned_and_without_a_daemon_nothing_is() {
    for source in ["eth0", "gid:7", ""] {
        assert_eq!(run(&["pardon", source]).code, Some(64), "{source}");
    }
    let ended = run(&["pardon", "192.0.2.1", "--control", "/nowhere/forkd.sock"]);
    assert_eq!(ended.code, Some(69));
    assert!(ended.stderr.contains("no daemon answers at /nowhere/forkd.sock"), "{}", ended.stderr);
}
