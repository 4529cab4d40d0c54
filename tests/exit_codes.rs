//! Each way to fail has its exit code (sysexits(3)) and one sentence that names what is wrong.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Seek, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use common::*;

/// A failure: the code, parts of the one sentence, and nothing on the standard output.
#[track_caller]
fn assert_fails(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in {ended:?}");
    }
    if code != 64 {
        // other lines are of the log; exactly one says why
        let sentences = ended.stderr.lines().filter(|line| line.starts_with("forkd: error: "));
        assert_eq!(sentences.count(), 1, "{ended:?}");
    }
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn what_was_asked_for_is_no_failure() {
    for args in [&["--help"][..], &["--version"], &["serve", "--help"], &["check"]] {
        let ended = run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(!ended.stdout.is_empty());
    }
}

/// What each subcommand that ends by itself was asked for.
fn outputs(daemon: &Daemon) -> Vec<Vec<String>> {
    let control = daemon.control().to_str().unwrap();
    let load = format!("load {} --clients 1 --phases churn --duration 100ms", daemon.endpoint(0));
    let status = format!("status --control {control}");
    let lines = ["--help", "--version", "serve --help", "check", "serve --service list", &status, &load];
    lines.map(|line| line.split(' ').map(Into::into).collect()).into()
}

#[test]
fn output_that_can_not_be_written_is_71() {
    let daemon = Daemon::start("tcp://127.0.0.1:0");
    let dir = tempfile::tempdir().unwrap();
    for args in outputs(&daemon) {
        // a disk that is full, and a file that has reached its limit
        for (path, limit, why) in [
            ("/dev/full", libc::RLIM_INFINITY, "No space left on device"),
            (dir.path().join("f").to_str().unwrap(), 1, "File too large"),
        ] {
            let mut command = forkd_command();
            command.args(&args).stdout(std::fs::File::create(path).unwrap());
            // SAFETY: between fork and exec it makes a system call only.
            unsafe { command.pre_exec(move || set_limit(0, libc::RLIMIT_FSIZE, limit)) };
            let ended = command.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(71), "{args:?}: {said}");
            let sentence = format!("forkd: error: cannot write to standard output: {why}");
            assert!(said.contains(&sentence), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let daemon = Daemon::start("tcp://127.0.0.1:0");
    for args in outputs(&daemon) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = forkd_command().args(&args).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{args:?}: {said}");
        assert!(!said.contains("error: "), "{args:?}: {said}");
    }
}

#[test]
fn usage_is_64() {
    for (args, part) in [
        (&[][..], "Usage"),
        (&["serve", "--no-such-flag"], "--no-such-flag"),
        (&["serve", "tcp://127.0.0.1"], "has no port"),
        (
            &["serve", "--model", "fibres"],
            "possible values: fork, prefork, iterative, thread, event, coroutine",
        ),
        (&["serve", "--grace", "10"], "unit"),
        (&["serve", "--workers", "4..2", "-m", "prefork"], "4..2"),
        (&["serve", "--workers", "4"], "--workers"),
        (&["serve", "tcp://127.0.0.1:7", "tcp://127.0.0.1:7"], "twice"),
        (&["frobnicate"], "frobnicate"),
    ] {
        assert_fails(&run(args), 64, &[part]);
    }
}

#[test]
fn the_journal_hears_of_a_usage_error_as_an_error() {
    use std::os::unix::fs::MetadataExt;
    let (mut file, stdout) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let metadata = file.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    for (arg, code) in [("--no-such-flag", 64), ("tcp://127.0.0.1:7", 64), ("--help", 0)] {
        let mut command = forkd_command();
        command.args(["serve", "--backlog", "1", "--workers", "4", arg]).env("JOURNAL_STREAM", &stream);
        command.stderr(file.try_clone().unwrap()).stdout(stdout.try_clone().unwrap());
        assert_eq!(command.status().unwrap().code(), Some(code), "{arg}");
    }
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("<3>error: unexpected argument '--no-such-flag' found\n<3>"), "{text}");
    assert!(text.contains("\n<3>error: --workers "), "{text}");
    assert!(text.lines().all(|line| line.starts_with("<3>") && line.len() > 3), "{text}");
    // elsewhere it is said as clap does
    assert!(run(&["serve", "--no-such-flag"]).stderr.starts_with("error: unexpected argument"));
}

#[test]
fn an_answer_that_is_none_is_65() {
    for answer in ["", "hello\n", "{}\n", "{\"pid\": \"x\"}"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            let _ = client.read(&mut [0; 64]);
            client.write_all(answer.as_bytes()).unwrap();
        });
        let ended = run(&["status", "--json", "--control", path.to_str().unwrap()]);
        assert_fails(&ended, 65, &[path.to_str().unwrap(), "is no forkd"]);
        server.join().unwrap();
    }
}

#[test]
fn a_taken_address_is_69_and_named() {
    let daemon = Daemon::start("tcp://127.0.0.1:0 udp://127.0.0.1:0");
    for endpoint in daemon.endpoints() {
        assert_fails(&run(&["serve", &endpoint]), 69, &[&endpoint, "in use"]);
    }
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    for endpoint in
        [format!("tcp://{}", tcp.local_addr().unwrap()), format!("udp://{}", udp.local_addr().unwrap())]
    {
        assert_fails(&run(&["serve", "-m", "prefork", &endpoint]), 69, &[&endpoint, "in use"]);
    }
    // the first one is unharmed
    short_connection(daemon.addr(), b"x").unwrap();
    daemon.status();
}

#[test]
fn an_address_that_was_bound_a_moment_ago_is_named_with_a_way_out() {
    for scheme in ["tcp", "udp"] {
        for (hosts, way_out) in [
            (["0.0.0.0", "[::]"], "give --v6only"),
            (["[::]", "0.0.0.0"], "give --v6only"),
            (["[::]", "127.0.0.1"], "give --v6only"),
            (["[::]", "[::1]"], "leave one out"),
            (["127.0.0.1", "0.0.0.0"], "leave one out"),
            (["127.0.0.1", "localhost"], "leave one out"),
        ] {
            let port = free_port();
            let [first, second] = hosts.map(|host| format!("{scheme}://{host}:{port}"));
            let ended = run(&["serve", &first, &second]);
            assert_fails(&ended, 69, &["in use", &format!("this forkd has bound {first} already"), way_out]);
        }
    }
    let port = free_port();
    let both = Daemon::start(&format!("--v6only tcp://0.0.0.0:{port} tcp://[::]:{port}"));
    assert_eq!(both.endpoints().len(), 2);
    // the other one is not this forkd
    let ended = run(&["serve", "tcp://127.0.0.1:0", &both.endpoint(0)]);
    assert_fails(&ended, 69, &["in use", "another forkd"]);
}

#[test]
fn an_absent_address_or_name_is_69() {
    assert_fails(&run(&["serve", "tcp://192.0.2.1:0"]), 69, &["tcp://192.0.2.1:0", "no such address"]);
    assert_fails(&run(&["serve", "tcp://no-such-host.invalid:0"]), 69, &["no-such-host.invalid"]);
}

#[test]
fn a_daemon_that_may_not_be_asked_is_77() {
    if !need_root() {
        return;
    }
    let daemon = Forkd::new("tcp://127.0.0.1:0").uid(61_271).start();
    let closed = tempfile::tempdir().unwrap();
    let control = daemon.control().to_owned();
    let behind = closed.path().join("control.sock");
    let _listener = UnixListener::bind(&behind).unwrap();
    // the socket's own mode, and a directory's on the way
    for path in [&control, &behind] {
        for command in ["status", "reload"] {
            // anyone may run this copy
            let mut asked = std::process::Command::new(control.with_file_name("forkd"));
            asked.args([command, "--control", path.to_str().unwrap()]).uid(61_272).gid(61_272);
            let ended = forkd(&mut asked);
            let parts = ["cannot ask the daemon at ", path.to_str().unwrap(), "as root", "Permission denied"];
            assert_fails(&ended, 77, &parts);
        }
    }
}

#[test]
fn no_daemon_to_ask_is_69() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let asked = || run(&["status", "--control", path.to_str().unwrap()]);
    assert_fails(&asked(), 69, &["no daemon answers", path.to_str().unwrap()]);
    drop(UnixListener::bind(&path).unwrap());
    assert_fails(&asked(), 69, &["no daemon answers", path.to_str().unwrap()]);
    // by the variable, too
    let mut command = forkd_command();
    command.arg("status").env("XDG_RUNTIME_DIR", dir.path());
    assert_fails(&forkd(&mut command), 69, &[dir.path().join("forkd.sock").to_str().unwrap()]);
}

#[test]
fn a_daemon_that_does_not_answer_is_69() {
    let daemon = Daemon::start("");
    stopped(daemon.pid());
    let ended = run(&["status", "--control", daemon.control().to_str().unwrap()]);
    assert_fails(&ended, 69, &["does not answer", daemon.control().to_str().unwrap()]);
}

#[test]
fn no_process_for_the_first_worker_is_71() {
    if !need_root() {
        return;
    }
    for way in [Way::Native, Way::Portable] {
        let forkd = Forkd::new("-m prefork -w 2").uid(own_user()).way(way).limit(libc::RLIMIT_NPROC, 1);
        assert_fails(&forkd.run(), 71, &["cannot fork the workers of tcp://127.0.0.1:"]);
    }
}

#[test]
fn processes_for_some_workers_are_served_by_those() {
    if !need_root() {
        return;
    }
    for way in [Way::Native, Way::Portable] {
        // a master and two workers
        let forkd = Forkd::new("-m prefork -w 4").uid(own_user()).way(way).limit(libc::RLIMIT_NPROC, 3);
        let daemon = forkd.start();
        daemon.wait_for_line("cannot fork a worker; trying again");
        let clients = [daemon.served(), daemon.served()];
        assert_eq!(daemon.children().len(), clients.len());
    }
}

#[test]
fn what_can_t_be_created_is_73() {
    let nowhere = "/nonexistent-directory/file";
    assert_fails(&run(&["serve", &format!("unix://{nowhere}")]), 73, &[nowhere]);
    assert_fails(&run(&["serve", &format!("unixgram://{nowhere}")]), 73, &[nowhere]);
    for option in ["--pidfile", "--control"] {
        assert_fails(&run(&["serve", option, nowhere, "tcp://127.0.0.1:0"]), 73, &[nowhere]);
    }
    // a path longer than sun_path of unix(7) has: an endpoint is checked with the rest of the line
    let long = format!("/tmp/{}", "x".repeat(200));
    assert_fails(&run(&["serve", &format!("unix://{long}")]), 64, &[&long, "107 bytes"]);
    assert_fails(&run(&["serve", "--control", &long, "tcp://127.0.0.1:0"]), 73, &[&long]);
}

#[test]
fn the_advice_names_the_ports_that_take_a_right_here() {
    if !need_root() || !need_tool("unshare") || !need_tool("setpriv") {
        return;
    }
    // 30000 is the first port in a network of its own
    let script = "echo 30000 >/proc/sys/net/ipv4/ip_unprivileged_port_start
        exec setpriv --reuid 61256 --regid 61256 --clear-groups \"$0\" \"$@\"";
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = public_binary(dir.path());
    for endpoint in ["tcp://127.0.0.1:22497", "udp://127.0.0.1:22497"] {
        let forkd = Forkd::script(program.clone(), &format!("serve {endpoint}"));
        let ended = forkd.within(&["unshare", "-n", "sh", "-c", script]).run();
        assert_fails(&ended, 77, &[endpoint, "ports below 30000 need root or CAP_NET_BIND_SERVICE"]);
    }
}

#[test]
fn where_a_port_takes_no_right_none_is_advised() {
    for port in [0, 40_417] {
        let forkd = Forkd::new(&format!("tcp://127.0.0.1:{port}"));
        let ended = forkd.forbid(libc::SYS_bind, libc::EACCES).run();
        assert_fails(&ended, 77, &[&format!("tcp://127.0.0.1:{port} (a security policy or a filter")]);
        assert!(!ended.stderr.contains("CAP_NET"), "{ended:?}");
    }
}

#[test]
fn a_missing_right_is_77() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let restricted = first_free.trim().parse::<u16>().unwrap() > 7;
    if !need_root() || !need(restricted, "here any user may bind port 7") {
        return;
    }
    let refused = |args: &str| Forkd::new(args).uid(own_user()).run();
    assert_fails(&refused("tcp://127.0.0.1:7"), 77, &["tcp://127.0.0.1:7", "CAP_NET_BIND_SERVICE"]);
    assert_fails(&refused("udp://127.0.0.1:7"), 77, &["udp://127.0.0.1:7", "CAP_NET_BIND_SERVICE"]);
    assert_fails(&refused("--user nobody"), 77, &["only root may"]);
    assert_fails(&refused("--chroot {dir}"), 77, &["only root may"]);
}

#[test]
fn a_wrong_configuration_is_78_and_pointed_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forkd.toml");
    let file = path.to_str().unwrap();
    for (text, place, part) in [
        (
            "[[listen]]\nmodel = \"fibres\"\n",
            "2:9",
            "expected one of `fork`, `prefork`, `iterative`, `thread`, `event`, `coroutine`",
        ),
        ("[daemon]\n  pidfle = \"x\"\n", "2:3", "unknown field `pidfle`"),
        ("[daemon]\ngrace = 10\n", "2:9", "unit"),
        ("[[listen]]\n\nendpoints = [\"tcp://a\"]\n", "3:", "has no port"),
        ("[daemon\n", "1:8", "unclosed table"),
    ] {
        std::fs::write(&path, text).unwrap();
        for command in ["serve", "check"] {
            let ended = run(&[command, "--config", file]);
            assert_fails(&ended, 78, &[&format!("{file}:{place}"), part]);
        }
    }
    assert_fails(&run(&["serve", "--config", "/nonexistent.toml"]), 78, &["/nonexistent.toml"]);
    assert_fails(
        &run(&["serve", "--user", "no-such-user-here", "tcp://127.0.0.1:0"]),
        78,
        &["no-such-user-here"],
    );
    assert_fails(&run(&["serve", "--group", "no-such-group", "tcp://127.0.0.1:0"]), 78, &["no-such-group"]);
    assert_fails(&run(&["check", "--user", "no-such-user-here"]), 78, &["no-such-user-here"]);
    assert_fails(&run(&["check", "--group", "no-such-group"]), 78, &["no-such-group"]);
    for root in ["/nonexistent-directory", file] {
        assert_fails(&run(&["serve", "--chroot", root, "tcp://127.0.0.1:0"]), 78, &[root, "that directory"]);
        assert_fails(&run(&["check", "--chroot", root]), 78, &[root, "that directory"]);
    }
}

#[test]
fn a_figure_that_is_worse_than_its_baseline_is_1() {
    let kept = |name: &str| format!("{}/tests/compare/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let judged = |now: &str, before: &str| {
        run(&[
            "compare",
            "--from",
            &kept(now),
            "--baseline",
            &kept(before),
            "--models",
            "fork",
            "--fail-on",
            "5%",
        ])
    };
    let worse = judged("before", "after");
    assert_eq!(worse.code, Some(1), "{worse:?}");
    assert!(worse.stderr.starts_with("forkd: error: conn/s of fork is "), "{worse:?}");
    assert_eq!(judged("after", "before").code, Some(0));
}
