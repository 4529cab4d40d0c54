//! The command line and the configuration file, by what the real binary makes of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{Daemon, Ended, Forkd, forkd, forkd_command, is_refused, need, run, short_connection};

/// What `forkd check` prints for these arguments.
#[track_caller]
fn check(args: &str) -> String {
    let args: Vec<&str> = ["check"].into_iter().chain(args.split_whitespace()).collect();
    let ended = run(&args);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    ended.stdout
}

/// The exit code and message of a mistake.
#[track_caller]
fn mistake(args: &[&str]) -> (Option<i32>, String) {
    let ended = run(args);
    assert_eq!(ended.stdout, "", "{args:?}");
    (ended.code, ended.stderr)
}

fn file(dir: &tempfile::TempDir, text: &str) -> String {
    let path = dir.path().join("forkd.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn value<'a>(toml: &'a str, key: &str) -> Vec<&'a str> {
    toml.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).collect()
}

#[test]
fn what_check_prints_means_the_same_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        "",
        "--max-children 3 --overflow reject --backlog 9 --idle-timeout 1500ms --max-lifetime 1h --keepalive 3m tcp://[::]:7 \
         --v6only",
        "-m prefork -w 2..5 --min-spare 1 --max-spare 3 --max-connections-per-child 99 udp://localhost:7007 \
         --receive-buffer 9",
        "-m thread -w 2 --max-threads 9 --keepalive off tcp://localhost:7007",
        "-m thread --threads 9 tcp://localhost:7007",
        "-m event -w 2 --max-connections 9 --max-connections-per-child 99 --idle-timeout 1m tcp://localhost:7007",
        "-m prefork -w 3 unix:///tmp/a unixgram:///tmp/b --socket-mode 0640 --grace 1m30s",
        "--log syslog --log-level debug --log-format json --daemon --pidfile /run/p --user nobody \
         --group nogroup --chroot /srv --umask 027 --control /run/c",
    ] {
        let printed = check(args);
        let again = check(&format!("--config {}", file(&dir, &printed)));
        assert_eq!(printed, again, "forkd check {args}");
        // nothing that was asked for is missing
        for option in args.split_whitespace().filter_map(|arg| arg.strip_prefix("--")) {
            assert_eq!(value(&printed, option).len(), 1, "{option} in\n{printed}");
        }
    }
}

#[test]
fn the_command_line_beats_the_file_and_the_file_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[daemon]\ngrace = '1s'\nlog-level = 'warn'\n[[listen]]\nendpoints = ['tcp://127.0.0.1:1']\n\
        backlog = 5\nmax-children = 6\n";
    let path = file(&dir, text);
    let printed = check(&format!("--config {path} --grace 2s --backlog 7"));
    for (key, expected) in [
        ("grace", "\"2s\""),
        ("log-level", "\"warn\""),
        ("log-format", "\"text\""),
        ("endpoints", "[\"tcp://127.0.0.1:1\"]"),
        ("backlog", "7"),
        ("max-children", "6"),
        ("overflow", "\"wait\""),
    ] {
        assert_eq!(value(&printed, key), [expected], "{key} in\n{printed}");
    }
    let printed = check(&format!("--config {path} unix:///tmp/x"));
    assert_eq!(value(&printed, "endpoints"), ["[\"unix:///tmp/x\"]"]);
    assert_eq!(value(&printed, "backlog"), ["4096"], "endpoints replace the file's groups");
}

/// Runs forkd with these arguments and variables.
#[track_caller]
fn run_in(env: &[(&str, &str)], args: &str) -> Ended {
    forkd(forkd_command().args(args.split_whitespace()).envs(env.iter().copied()))
}

#[test]
fn the_environment_beats_the_file_and_the_command_line_beats_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[daemon]\ngrace = '1s'\nlog-level = 'warn'\n[[listen]]\nendpoints = ['tcp://127.0.0.1:1']\n\
        backlog = 5\nmax-children = 6\n";
    let path = file(&dir, text);
    let env =
        [("FORKD_CONFIG", &*path), ("FORKD_GRACE", "2s"), ("FORKD_BACKLOG", "7"), ("FORKD_LOG_LEVEL", "")];
    let checked = run_in(&env, "check --grace 3s");
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    for (key, expected) in [
        ("grace", "\"3s\""),
        ("log-level", "\"warn\""),
        ("endpoints", "[\"tcp://127.0.0.1:1\"]"),
        ("backlog", "7"),
        ("max-children", "6"),
    ] {
        assert_eq!(value(&checked.stdout, key), [expected], "{key} in\n{}", checked.stdout);
    }
    let env = [env[0], ("FORKD_ENDPOINTS", "unix:///tmp/x udp://127.0.0.1:1"), ("FORKD_MODEL", "prefork")];
    let printed = run_in(&env, "check").stdout;
    assert_eq!(value(&printed, "endpoints"), ["[\"unix:///tmp/x\", \"udp://127.0.0.1:1\"]"]);
    assert_eq!((value(&printed, "model"), value(&printed, "min-spare")), (vec!["\"prefork\""], vec![]));
    // what holds is a file that needs no environment
    assert_eq!(check(&format!("--config {}", file(&dir, &printed))), printed);
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    for (variable, value, expected) in [
        ("FORKD_GRACE", "10", "forkd: error: FORKD_GRACE: 10 has no unit; add a unit: 10s, 10ms or 10m\n"),
        (
            "FORKD_MODEL",
            "fibres",
            "FORKD_MODEL: invalid value 'fibres' [possible values: fork, prefork, iterative, thread, event, coroutine]",
        ),
        ("FORKD_ENDPOINTS", "tcp://a", "FORKD_ENDPOINTS: endpoint \"tcp://a\" has no port"),
        ("FORKD_DAEMON", "maybe", "FORKD_DAEMON: \"maybe\" is neither true nor false"),
        (
            "FORKD_WORKERS",
            "3",
            "FORKD_WORKERS needs a pool (any model but fork), and tcp://127.0.0.1:7007 has none; give FORKD_MODEL \
             prefork, or leave this out",
        ),
        ("FORKD_MAX_CHILDREN", "0", "FORKD_MAX_CHILDREN is 0; choose 1 to 65536"),
    ] {
        for command in ["check", "serve"] {
            let ended = run_in(&[(variable, value)], command);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{ended:?}");
            assert!(ended.stderr.contains(expected), "{ended:?}");
        }
    }
    let ended = run_in(&[("FORKD_CONFIG", "/nowhere/forkd.toml")], "check");
    assert_eq!(ended.code, Some(78), "{ended:?}");
    // with the command line it has an effect
    assert_eq!(run_in(&[("FORKD_WORKERS", "3")], "check -m event").code, Some(0));
    // and commands that are not told by it do not look
    assert_eq!(run_in(&[("FORKD_GRACE", "10")], "--version").code, Some(0));
}

#[test]
fn a_variable_that_no_option_has_is_told_and_those_of_kubernetes_are_not() {
    let said =
        "no option has the variable FORKD_MAX_CHILDERN (is FORKD_MAX_CHILDREN meant?), so it has no effect";
    let env =
        [("FORKD_MAX_CHILDERN", "3"), ("FORKD_PORT", "tcp://10.0.0.1:7"), ("FORKD_SERVICE_HOST", "10.0.0.1")];
    let checked = run_in(&env, "check");
    assert_eq!((checked.code, checked.stderr), (Some(0), format!("forkd: warning: {said}\n")));
    let daemon = Forkd::new("tcp://127.0.0.1:0").env(env[0].0, env[0].1).start();
    daemon.wait_for_line(said);
}

#[test]
fn the_environment_stays_in_force_at_a_reload_and_goes_to_each_group_that_it_can_change() {
    let forkd =
        Forkd::new("--config {dir}/forkd.toml").env("FORKD_WORKERS", "2").env("FORKD_IDLE_TIMEOUT", "5m");
    let socket = |name: &str| forkd.dir.path().join(name).display().to_string();
    let (one, two) = (socket("one"), socket("two"));
    let text = |last: &str| {
        format!(
            "[[listen]]\nendpoints = ['unix://{one}']\n[[listen]]\nendpoints = ['unix://{two}']\n\
             model = 'prefork'\nworkers = 3\n{last}"
        )
    };
    file(&forkd.dir, &text(""));
    let daemon = forkd.start();
    daemon.settles_at(2);
    file(&daemon.dir, &text("max-connections-per-child = 9\n"));
    // the same variable says where a daemon answers, and where it is asked
    let reloaded = run_in(&[("FORKD_CONTROL", daemon.control().to_str().unwrap())], "reload");
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    daemon.settles_at(2);
}

#[test]
fn one_daemon_serves_several_groups_each_in_its_own_way() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let text = "[daemon]\nlog-level = 'info'\n\
        [[listen]]\nendpoints = ['tcp://127.0.0.1:0', 'udp://127.0.0.1:0']\n\
        [[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = 'prefork'\nworkers = 3\n\
        [[listen]]\nendpoints = ['unix://SOCKET']\nmodel = 'prefork'\nworkers = 2\n";
    let socket = forkd.dir.path().join("echo");
    file(&forkd.dir, &text.replace("SOCKET", socket.to_str().unwrap()));
    let daemon = forkd.start();
    assert_eq!(daemon.endpoints().len(), 4);
    let lines = ["service=echo model=fork", "model=prefork workers=3", "model=prefork workers=2"];
    assert_eq!(lines.map(|line| daemon.count_lines(line)), [2, 1, 1]);
    // the workers of both pools, and a child for the client of the first group
    daemon.settles_at(5);
    let client = daemon.served();
    daemon.settles_at(6);
    let mut second = tcp(&daemon.endpoint(2));
    common::echoes(&mut second, b"to a worker");
    common::echoes(&mut std::os::unix::net::UnixStream::connect(socket).unwrap(), b"to another");
    assert_eq!(daemon.children().len(), 6);
    let status = daemon.status();
    let of = |key: &str| -> Vec<String> {
        status["listeners"].as_array().unwrap().iter().map(|listener| listener[key].to_string()).collect()
    };
    assert_eq!(of("model"), ["\"fork\"", "\"fork\"", "\"prefork\"", "\"prefork\""]);
    assert_eq!(of("alive"), ["1", "0", "3", "2"]);
    assert_eq!(of("connections"), ["1", "0", "1", "1"]);
    drop(client);
}

#[track_caller]
fn tcp(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(common::LIMIT)).unwrap();
    stream
}

#[test]
fn a_mistake_in_the_file_is_shown_with_its_place_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    for (text, place, expected) in [
        ("[daemon]\n  pidfle = '/x'\n", "2:3", &["unknown field `pidfle`", "`pidfile`"][..]),
        ("[[listen]]\nmodel = 'fibres'\n", "2:9", &["`fibres`", "`fork`, `prefork`"]),
        ("# first\n\n[daemon]\ngrace = 10\n", "4:9", &["10 has no unit", "10s"]),
        ("[[listen]]\nendpoints = ['tcp://a']\n", "2:14", &["has no port", "tcp://HOST:PORT"]),
        ("[[listen]]\nworkers = 3\n", "2:11", &["needs a pool (any model but fork)"]),
        ("[[listen]]\nbacklog = 0\n", "2:11", &["choose 1 to"]),
        ("[listn]\n", "1:2", &["unknown field `listn`", "`listen`"]),
        ("[daemon\n", "1:8", &["unclosed table"]),
    ] {
        let path = file(&dir, text);
        for command in ["check", "serve"] {
            let (code, message) = mistake(&[command, "--config", &path]);
            let line = text.lines().nth(place.split(':').next().unwrap().parse::<usize>().unwrap() - 1);
            assert_eq!(code, Some(78), "{message}");
            assert!(message.starts_with(&format!("forkd: error: {path}:{place}: ")), "{message}");
            assert!(expected.iter().all(|part| message.contains(part)), "{message}");
            assert!(message.contains(&format!(" | {}\n", line.unwrap())), "an excerpt: {message}");
        }
    }
    let (code, message) = mistake(&["check", "--config", "/nowhere/forkd.toml"]);
    assert_eq!(code, Some(78));
    assert!(message.contains("/nowhere/forkd.toml: No such file"), "{message}");
}

#[test]
fn a_mistake_on_the_command_line_is_named() {
    for (args, expected) in [
        (&["serve", "tcp://a"][..], "endpoint \"tcp://a\" has no port"),
        (
            &["serve", "--model", "fibres"],
            "[possible values: fork, prefork, iterative, thread, event, coroutine]",
        ),
        (&["serve", "--workers", "3"], "--workers needs a pool (any model but fork)"),
        (&["serve", "--workers", "3"], "; give --model prefork, or leave this out"),
        (&["check", "--grace", "10"], "10 has no unit"),
        (&["serve", "tcp://127.0.0.1:1", "tcp://127.0.0.1:1"], "names tcp://127.0.0.1:1 twice"),
        (&["serve", "--bogus"], "--bogus"),
        (&["bogus"], "bogus"),
        (&[], "Usage: forkd <COMMAND>"),
    ] {
        let (code, message) = mistake(args);
        assert_eq!(code, Some(64), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn each_help_has_examples_and_they_parse() {
    for name in ["", "serve", "check", "status"] {
        let args: Vec<&str> = [name, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
        let ended = run(&args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let (_, examples) = ended.stdout.split_once("\nExamples:\n").expect("examples");
        let mut lines = examples.lines().filter_map(|line| line.strip_prefix("  forkd ")).peekable();
        assert!(lines.peek().is_some(), "{examples}");
        // `serve` would serve: `check` says whether the options are right
        for line in lines.filter_map(|line| line.strip_prefix("serve ").or(line.strip_prefix("check "))) {
            let options = line.split(['>']).next().unwrap().split("  ").next().unwrap();
            // a file and a unit that need not be here
            if !options.contains("--config") && !options.contains("--unit") {
                check(options);
            }
        }
    }
    let ended = run(&["--version"]);
    assert_eq!(ended.stdout, format!("forkd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_an_endpoint_it_says_these_lines() {
    let free = TcpListener::bind("127.0.0.1:7007").is_ok() && UdpSocket::bind("127.0.0.1:7007").is_ok();
    if !need(free, "port 7007 is taken") {
        return;
    }
    let daemon = Forkd::bare().start();
    // this one may come between where net.core.somaxconn is below 4096
    let mut said = daemon.log();
    said.retain(|line| !line.contains("backlog is capped"));
    assert_eq!(
        said,
        [
            "forkd: listening on tcp://127.0.0.1:7007 service=echo model=fork".to_owned(),
            "forkd: listening on udp://127.0.0.1:7007 service=echo model=fork".to_owned(),
            format!("forkd: ready pid={} (try: nc -N 127.0.0.1 7007)", daemon.pid()),
        ]
    );
    short_connection("127.0.0.1:7007".parse().unwrap(), b"hello").unwrap();
}

#[test]
fn without_a_control_socket_it_says_so_and_the_way_out() {
    let forkd = Forkd::script(env!("CARGO_BIN_EXE_forkd").into(), "serve");
    let daemon = forkd.env("XDG_RUNTIME_DIR", "").env("RUNTIME_DIRECTORY", "").launch();
    let ready = daemon.wait_for_line("ready pid=");
    assert!(ready.ends_with("; no control socket, so no `forkd status`: give --control PATH)"), "{ready}");
    let asked = run(&["status"]);
    assert!(asked.stderr.contains("says if it has no control socket"), "{asked:?}");
}

/// Whether a TCP client at this address is served.
fn serves(address: SocketAddr) -> bool {
    short_connection(address, b"hello").is_ok()
}

fn at(host: &str, daemon: &Daemon) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), daemon.addr().port())
}

#[test]
fn port_0_is_shown_as_the_port_that_it_became() {
    let daemon = Daemon::start("tcp://127.0.0.1:0 tcp://127.0.0.1:0");
    let ports: Vec<u16> =
        daemon.endpoints().iter().map(|endpoint| tcp(endpoint).peer_addr().unwrap().port()).collect();
    assert!(ports.len() == 2 && ports[0] != ports[1] && !ports.contains(&0), "{ports:?}");
    daemon.wait_for_line(&format!("(try: nc -N 127.0.0.1 {})", ports[0]));
    assert!(ports.into_iter().all(|port| serves(([127, 0, 0, 1], port).into())));
}

#[test]
fn a_dual_stack_serves_v4_and_v6_and_v6only_does_not() {
    for model in ["fork", "prefork"] {
        let daemon = Daemon::start(&format!("-m {model} tcp://[::]:0"));
        assert!(serves(at("::1", &daemon)) && serves(at("127.0.0.1", &daemon)), "{model}");
        let mut v4 = TcpStream::connect(at("127.0.0.1", &daemon)).unwrap();
        v4.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        common::echoes(&mut v4, b"who am I?");
        // its address is shown as what it is, and not as a v4-mapped one
        let me = v4.local_addr().unwrap().to_string();
        let children = daemon.status()["children"].clone();
        assert!(children.as_array().unwrap().iter().any(|child| child["peer"] == me), "{me} in {children}");

        let daemon = Daemon::start(&format!("-m {model} --v6only tcp://[::]:0"));
        assert!(serves(at("::1", &daemon)), "{model}");
        assert!(is_refused(at("127.0.0.1", &daemon)), "{model}");
    }
}

#[test]
fn a_host_name_is_bound_at_each_of_its_addresses() {
    let daemon = Daemon::start("tcp://localhost:0");
    let endpoints = daemon.endpoints();
    assert!(!endpoints.is_empty());
    for endpoint in endpoints {
        let address: SocketAddr = endpoint.strip_prefix("tcp://").unwrap().parse().unwrap();
        assert!(address.ip().is_loopback() && serves(address), "{endpoint}");
    }
    let (code, message) = mistake(&["serve", "tcp://no-such-host.invalid:0"]);
    assert_eq!(code, Some(69));
    assert!(message.contains("cannot bind tcp://no-such-host.invalid:0"), "{message}");
}

#[test]
fn an_interface_belongs_to_a_link_local_address() {
    let (code, message) = mistake(&["serve", "tcp://[fe80::1]:0"]);
    assert_eq!(code, Some(71));
    assert!(message.contains("tcp://[fe80::1]:0 (a link-local address needs its interface"), "{message}");
    let (code, message) = mistake(&["serve", "tcp://[fe80::1%no-such-if]:0"]);
    assert_eq!(code, Some(69));
    assert!(message.contains("no network interface is called \"no-such-if\""), "{message}");

    let name = if cfg!(target_os = "linux") { "lo" } else { "lo0" };
    let daemon = Daemon::start(&format!("tcp://[::1%{name}]:0"));
    let endpoint = daemon.endpoints().remove(0);
    assert!(endpoint.starts_with(&format!("tcp://[::1%{name}]:")), "{endpoint}");
    let port = endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(serves(SocketAddr::new("::1".parse().unwrap(), port)));
}
