//! An upgrade in place: what goes on, what is refused, and the way back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use nix::sys::signal::Signal;

/// A daemon whose program can be replaced: it is a link in the daemon's directory.
struct Upgradable {
    daemon: Daemon,
}

impl Upgradable {
    fn start(args: &str) -> Self {
        Self::launch(Forkd::new(args))
    }

    fn launch(forkd: Forkd) -> Self {
        let link = forkd.dir.path().join("forkd");
        symlink(env!("CARGO_BIN_EXE_forkd"), &link).unwrap();
        Self { daemon: forkd.called(link).start() }
    }

    /// The program that is there from now on.
    fn installs(&self, program: &Path) {
        let new = self.daemon.path("new");
        symlink(program, &new).unwrap();
        fs::rename(new, self.daemon.path("forkd")).unwrap();
    }

    /// The same, a shell script.
    fn installs_script(&self, script: &str) {
        let path = self.daemon.path("script");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.installs(&path);
    }

    fn asks(&self, options: &[&str]) -> Ended {
        let program = fs::canonicalize(self.daemon.path("forkd")).unwrap();
        let mut command = forkd_command();
        command.arg("upgrade").args(options).arg("--program").arg(program);
        forkd(command.arg("--control").arg(self.daemon.control()))
    }

    #[track_caller]
    fn upgrades(&self) {
        self.upgrades_with(&[]);
    }

    #[track_caller]
    fn upgrades_with(&self, options: &[&str]) {
        let ended = self.asks(options);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{:#?}", self.daemon.log());
    }

    /// Asks for an upgrade in vain; returns why.
    #[track_caller]
    fn refuses(&self, code: i32) -> String {
        let ended = self.asks(&[]);
        assert_eq!(ended.code, Some(code), "{} {:#?}", ended.stderr, self.daemon.log());
        let why = ended.stderr.strip_prefix("forkd: error: the program is not replaced: ");
        let why = why.unwrap_or_else(|| panic!("{}", ended.stderr)).trim_end().to_owned();
        self.daemon.wait_for_line("upgrade refused, going on as before: ");
        why
    }

    fn connections(&self) -> u64 {
        self.daemon.status()["listeners"][0]["connections"].as_u64().unwrap()
    }
}

/// Asks and asks by new connections, until it is told to end; returns how many were answered.
fn short_connections(daemon: &Daemon, until: &AtomicBool) -> u64 {
    let mut count = 0;
    while !until.load(Ordering::Relaxed) {
        echoes(&mut daemon.connect(), b"one of many");
        count += 1;
    }
    count
}

under_models! {
    [fork spare prefork iterative thread threads event coroutine]

    fn no_client_notices(model) {
        let upgradable = Upgradable::start(&format!("{model} tcp://127.0.0.1:0"));
        let daemon = &upgradable.daemon;
        // an iterative server has one worker, which would wait for this client
        let mut held = (!model.contains("iterative")).then(|| daemon.served());
        let is_over = AtomicBool::new(false);
        let answered = std::thread::scope(|scope| {
            let clients = [(); 3].map(|()| scope.spawn(|| short_connections(daemon, &is_over)));
            for _ in 0..10 {
                upgradable.upgrades();
                held.iter_mut().for_each(|held| echoes(held, b"still there"));
                // generations that have no clients any more don't count, but the one with this client
                if let Some(held) = &mut held && daemon.count_lines("upgraded: ").is_multiple_of(3) {
                    *held = daemon.served();
                }
            }
            is_over.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
        });
        assert!(answered > 0 && is_running(daemon.pid()));
        daemon.wait_for_lines(10, "upgraded: ");
        drop(held);
        let whole = |status: &serde_json::Value| status["listeners"][0]["connections"].as_u64() >= Some(answered);
        eventually("all are counted", || whole(&daemon.status()));
        // what is left of children are those of this program
        if model == "-m fork" {
            daemon.settles_at(0);
        }
        signal(daemon.pid(), Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
    }

    fn a_source_has_no_more_connections_than_before(model) {
        let upgradable = Upgradable::start(&format!("{model} --max-per-source 2 tcp://127.0.0.1:0"));
        let daemon = &upgradable.daemon;
        if model.contains("iterative") {
            return;
        }
        let (first, _second) = (daemon.served(), daemon.served());
        upgradable.upgrades();
        let is_served = || {
            let answer = connect(daemon.addr()).and_then(|mut client| {
                client.write_all(b"?")?;
                client.read(&mut [0])
            });
            answer.is_ok_and(|n| n == 1)
        };
        assert!(!is_served(), "the third of its source");
        drop(first);
        eventually("there is room for another", is_served);
    }
}

#[test]
fn datagrams_and_socket_files_go_on() {
    for model in ["-m fork", "-m prefork", "-m thread", "-m event"] {
        let upgradable = Upgradable::start(&format!("{model} udp://127.0.0.1:0 unix://{{dir}}/stream"));
        let daemon = &upgradable.daemon;
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.connect(daemon.address("udp")).unwrap();
        datagrams.set_read_timeout(Some(LIMIT)).unwrap();
        let mut stream = UnixStream::connect(daemon.path("stream")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    datagrams.send(b"datagram").unwrap();
                    assert_eq!(datagrams.recv(&mut [0; 64]).expect("an answer"), 8, "{model}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            for _ in 0..3 {
                upgradable.upgrades();
                stream.write_all(b"hello").unwrap();
                stream.read_exact(&mut [0; 5]).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(count.load(Ordering::Relaxed) > 0);
        signal(daemon.pid(), Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(!daemon.path("stream").exists(), "the file is removed at the end");
    }
}

#[test]
fn what_was_counted_goes_on_and_the_dead_are_counted() {
    let upgradable = Upgradable::start("-m fork tcp://127.0.0.1:0");
    let daemon = &upgradable.daemon;
    (0..5).for_each(|_| drop(daemon.served()));
    let (held, bystander) = (daemon.served(), daemon.served());
    eventually("five are over", || upgradable.connections() == 7);
    upgradable.upgrades();
    assert_eq!(upgradable.connections(), 7);
    let victim = daemon.server_of(&held);
    assert_ne!(victim, daemon.server_of(&bystander));
    signal(victim, Signal::SIGSEGV);
    let line = daemon.wait_for_line("cause=SIGSEGV");
    assert!(line.contains(&format!("pid={victim}")), "{line}");
    eventually("its death is counted", || {
        daemon.status()["listeners"][0]["deaths"]["SIGSEGV"].as_u64() == Some(1)
    });
    assert_eq!(upgradable.connections(), 7);
}

#[test]
fn a_worker_of_the_program_before_that_is_killed_is_not_replaced_by_this_one() {
    let upgradable = Upgradable::start("-m prefork -w 2 tcp://127.0.0.1:0");
    let daemon = &upgradable.daemon;
    let held = daemon.served();
    upgradable.upgrades();
    daemon.settles_at(3);
    let old = daemon.server_of(&held);
    signal(old, Signal::SIGKILL);
    daemon.wait_for_line(&format!("pid={old}"));
    daemon.settles_at(2);
    drop(daemon.served());
}

fn check_programs_that_are_none(model: &str) {
    let upgradable = Upgradable::start(&format!("{model} tcp://127.0.0.1:0"));
    let daemon = &upgradable.daemon;
    let mut held = daemon.served();
    let mut check = |code: i32, reason: &str| {
        let why = upgradable.refuses(code);
        assert!(why.contains(reason), "{why}");
        echoes(&mut held, b"still there");
        // each talk holds a number of the master's, so one of the clients has that which the program had
        let mut talks = Vec::new();
        for _ in 0..4 {
            drop(daemon.served());
            talks.push(UnixStream::connect(daemon.control()).unwrap());
        }
    };
    let no_program = daemon.path("text");
    fs::write(&no_program, "this is no program").unwrap();
    upgradable.installs(&no_program);
    check(77, "cannot start the program for a trial: Permission denied");
    fs::set_permissions(&no_program, fs::Permissions::from_mode(0o777)).unwrap();
    check(77, "can be written by others than its owner");
    fs::set_permissions(&no_program, fs::Permissions::from_mode(0o755)).unwrap();
    // as a shell runs it
    check(69, "ended in its trial, or is no forkd that can take over");
    upgradable.installs(Path::new("/bin"));
    check(77, "is no file that has a name");
    upgradable.installs(Path::new("/bin/true"));
    check(69, "ended in its trial, or is no forkd that can take over; it said: nothing");
    upgradable.installs_script("kill -SEGV $$");
    check(69, "ended in its trial");
    upgradable.installs_script("echo \"error: unexpected argument '--trial' found\" >&2; exit 64");
    check(69, "it said: error: unexpected argument '--trial' found");
    upgradable.installs_script("echo '{\"refused\":{\"exit_code\":69,\"why\":\"format 7 is all I know\"}}'");
    check(69, "format 7 is all I know");
    upgradable.installs_script("exec sleep 1000");
    check(69, "did not say within 10s whether it could take over");
    upgradable.installs(env!("CARGO_BIN_EXE_forkd").as_ref());
    upgradable.upgrades();
}

/// Nor does it keep the master from its clients.
#[test]
fn a_trial_that_says_more_and_more_is_ended() {
    let upgradable = Upgradable::start("-m fork tcp://127.0.0.1:0");
    upgradable.installs_script("exec yes");
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| upgradable.refuses(69));
        upgradable.daemon.wait_for_line("upgrading: ");
        (0..20).for_each(|_| drop(upgradable.daemon.served()));
        assert!(refused.join().unwrap().contains("did not say within 10s whether it could take over"));
    });
    drop(upgradable.daemon.served());
}

#[test]
fn a_program_that_is_none_is_refused_and_the_old_one_goes_on() {
    std::thread::scope(|scope| {
        for model in ["-m fork", "-m prefork -w 4", "-m thread"] {
            scope.spawn(move || check_programs_that_are_none(model));
        }
    });
}

#[test]
fn a_configuration_that_cannot_be_had_is_refused_in_the_trial() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let write = |dir: &Path, text: &str| fs::write(dir.join("forkd.toml"), text).unwrap();
    write(forkd.dir.path(), "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']");
    let upgradable = Upgradable::launch(forkd);
    let daemon = &upgradable.daemon;
    write(&daemon.path(""), "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nmodel = 'spoon'");
    assert!(upgradable.refuses(78).contains("spoon"));
    write(&daemon.path(""), "[daemon]\npidfile = '/tmp/x'\n[[listen]]\nendpoints = ['tcp://127.0.0.1:0']");
    assert!(
        upgradable
            .refuses(78)
            .starts_with("pidfile is another one in the configuration, which needs a restart")
    );
    // what a reload can change an upgrade can change, too
    write(&daemon.path(""), "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nservice = 'chargen'");
    upgradable.upgrades();
    let mut client = daemon.connect();
    client.read_exact(&mut [0; 100]).unwrap();
}

/// The address is found out to be taken when the new program binds it.
#[test]
fn a_configuration_that_fails_after_the_change_brings_the_old_program_back() {
    for model in ["fork", "prefork", "event"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let forkd = Forkd::new("--config {dir}/forkd.toml");
        let one = format!("[[listen]]\nmodel = '{model}'\nendpoints = ['tcp://127.0.0.1:0']\n");
        let two = format!("{one}[[listen]]\nendpoints = ['tcp://{}']\n", taken.local_addr().unwrap());
        let path = forkd.dir.path().join("forkd.toml");
        fs::write(&path, &one).unwrap();
        let upgradable = Upgradable::launch(forkd);
        let daemon = &upgradable.daemon;
        let mut held = daemon.served();
        let before = upgradable.connections();
        fs::write(&path, two).unwrap();
        for _ in 0..2 {
            let why = upgradable.refuses(69);
            assert!(why.contains("cannot bind tcp://127.0.0.1:"), "{why}");
            echoes(&mut held, b"still there");
            drop(daemon.served());
        }
        assert!(upgradable.connections() >= before);
        // the file is as it was: it is not what the old program has in force
        assert_eq!(daemon.status()["listeners"].as_array().unwrap().len(), 1, "{model}");
        fs::write(&path, &one).unwrap();
        upgradable.upgrades();
        echoes(&mut held, b"still there");
    }
}

/// Between the trial and the change the file becomes wrong.
#[test]
fn a_program_that_fails_before_it_takes_anything_goes_back() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let path = forkd.dir.path().join("forkd.toml");
    fs::write(&path, "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n").unwrap();
    let upgradable = Upgradable::launch(forkd);
    let daemon = &upgradable.daemon;
    let mut held = daemon.served();
    let program = env!("CARGO_BIN_EXE_forkd");
    upgradable.installs_script(&format!(
        "case $2 in --trial) ;; *) echo spoon >{};; esac; exec {program} \"$@\"",
        path.display()
    ));
    assert!(upgradable.refuses(78).contains("spoon"));
    echoes(&mut held, b"still there");
    drop(daemon.served());
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", daemon.pid())).unwrap(), "forkd\n");
}

#[test]
fn a_signal_asks_for_it_and_no_other_signal_is_lost() {
    for _ in 0..5 {
        let upgradable = Upgradable::start("-m prefork -w 2 tcp://127.0.0.1:0");
        let daemon = &upgradable.daemon;
        upgradable.installs_script("exit 1");
        signal(daemon.pid(), Signal::SIGUSR2);
        daemon.wait_for_line("/forkd ended in its trial, or is no forkd that can take over");
        upgradable.installs(env!("CARGO_BIN_EXE_forkd").as_ref());
        signal(daemon.pid(), Signal::SIGUSR2);
        daemon.wait_for_line("upgraded: this program has replaced the one before");
        signal(daemon.pid(), Signal::SIGUSR2);
        daemon.wait_for_lines(3, "upgrading: ");
        // it comes in the trial, at the change, or after it
        signal(daemon.pid(), Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0), "{:#?}", daemon.log());
    }
}

#[test]
fn the_children_of_older_programs_may_be_ended_after_a_while() {
    for model in ["-m fork", "-m prefork -w 2", "-m event"] {
        let upgradable = Upgradable::start(&format!("{model} tcp://127.0.0.1:0"));
        let daemon = &upgradable.daemon;
        let mut old = daemon.served();
        let before = daemon.children();
        upgradable.upgrades_with(&["--finish-within", "50ms"]);
        // a worker of the old program that is in accept(2) may take it yet; under fork it has a child of the new one
        let _new = daemon.asks();
        let others = || daemon.children().into_iter().filter(|pid| !before.contains(pid)).collect::<Vec<_>>();
        eventually("the new program has children", || !others().is_empty());
        let others = others();
        assert!(is_cut(&mut old), "{model}");
        daemon.wait_for_line("ending children of older programs");
        eventually("they are gone", || !before.iter().any(|&pid| is_running(pid)));
        assert!(others.iter().all(|&pid| is_running(pid)), "{model}");
        drop(daemon.served());
    }
}

/// A stop that comes while the new program arrives is a stop.
#[test]
fn no_stop_is_lost() {
    for turn in 0..8 {
        let upgradable = Upgradable::start("-m event -w 4 --drain-delay 100ms tcp://127.0.0.1:0");
        let daemon = &upgradable.daemon;
        signal(daemon.pid(), Signal::SIGUSR2);
        let pattern = ["upgrading: ", "reloading the configuration"][turn % 2];
        daemon.wait_for_line(pattern);
        signal(daemon.pid(), Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0), "{:#?}", daemon.log());
    }
}

/// What an upgrade was to end goes on where there is none.
#[test]
fn an_upgrade_that_fails_ends_no_connection() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let one = "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n".to_owned();
    let path = forkd.dir.path().join("forkd.toml");
    fs::write(&path, &one).unwrap();
    let upgradable = Upgradable::launch(forkd);
    let daemon = &upgradable.daemon;
    let mut held = daemon.served();
    fs::write(&path, format!("{one}[[listen]]\nendpoints = ['tcp://{}']\n", taken.local_addr().unwrap()))
        .unwrap();
    let ended = upgradable.asks(&["--finish-within", "1ms"]);
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    echoes(&mut held, b"still there");
    fs::write(&path, &one).unwrap();
    upgradable.upgrades();
    echoes(&mut held, b"still there");
    assert_eq!(daemon.count_lines("ending children of older programs"), 0);
}

/// The way back leads to a program that can't serve at that moment: it waits until it can.
#[test]
fn a_program_that_is_back_tries_until_it_can_go_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let (path, root) = (forkd.dir.path().join("forkd.toml"), forkd.dir.path().join("root"));
    fs::create_dir(&root).unwrap();
    let http = format!(
        "[[listen]]\nmodel = 'prefork'\nendpoints = ['tcp://127.0.0.1:0']\nservice = 'http'\nroot = '{}'\n",
        root.display()
    );
    fs::write(&path, &http).unwrap();
    let upgradable = Upgradable::launch(forkd);
    let daemon = &upgradable.daemon;
    let answers = |client: &mut Client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut head = [0; 8];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1");
    };
    let address = taken.local_addr().unwrap();
    fs::write(&path, format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0', 'tcp://{address}']\n")).unwrap();
    fs::rename(&root, daemon.path("elsewhere")).unwrap();
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| upgradable.asks(&[]));
        daemon.wait_for_line("root");
        // the workers that were there are there still
        answers(&mut daemon.connect());
        fs::rename(daemon.path("elsewhere"), &root).unwrap();
        let ended = upgrade.join().unwrap();
        assert_eq!(ended.code, Some(69), "{}", ended.stderr);
        assert!(ended.stderr.contains("cannot bind tcp://127.0.0.1:"), "{}", ended.stderr);
    });
    answers(&mut daemon.connect());
}

#[test]
fn a_request_for_another_program_is_refused_while_an_upgrade_goes_on() {
    let upgradable = Upgradable::start("tcp://127.0.0.1:0");
    let (go, program) = (upgradable.daemon.path("go"), env!("CARGO_BIN_EXE_forkd"));
    upgradable.installs_script(&format!(
        "until [ -e {} ]; do sleep 0.01; done; exec {program} \"$@\"",
        go.display()
    ));
    let is_refused = || {
        let mut other = forkd_command();
        other.args(["upgrade", "--program", "/bin/true", "--control"]).arg(upgradable.daemon.control());
        let other = forkd(&mut other);
        assert_eq!(other.code, Some(69));
        assert!(other.stderr.contains("another upgrade goes on"), "{}", other.stderr);
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| upgradable.asks(&[]));
        upgradable.daemon.wait_for_line("upgrading: ");
        is_refused();
        fs::write(&go, "").unwrap();
        let first = first.join().unwrap();
        assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    });
    // nor is it taken for the one that a signal has asked for
    fs::remove_file(&go).unwrap();
    signal(upgradable.daemon.pid(), Signal::SIGUSR2);
    upgradable.daemon.wait_for_lines(2, "upgrading: ");
    is_refused();
    fs::write(&go, "").unwrap();
    upgradable.daemon.wait_for_lines(2, "upgraded: ");
}

/// It comes while the new program arrives, which has workers to wait for: the clients of fork are served all the same.
#[test]
fn a_stop_that_overtakes_an_upgrade_serves_those_that_are_queued() {
    for _ in 0..5 {
        let upgradable = Upgradable::launch(
            Forkd::new("--config {dir}/forkd.toml").env("FORKD_DRAIN_DELAY", "20s").with_file(
                "forkd.toml",
                "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n[[listen]]\nendpoints = ['unix://{dir}/s']\nmodel = 'prefork'\nworkers = 16\n",
            ),
        );
        let daemon = &upgradable.daemon;
        signal(daemon.pid(), Signal::SIGUSR2);
        daemon.wait_for_line("reloading the configuration");
        let mut client = daemon.connect();
        client.write_all(b"hello").unwrap();
        signal(daemon.pid(), Signal::SIGTERM);
        client.read_exact(&mut [0; 5]).unwrap();
        drop(client);
        signal(daemon.pid(), Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0), "{:#?}", daemon.log());
    }
}

/// Neither the program nor the trial is anything that children have.
#[test]
fn no_child_has_a_descriptor_of_an_upgrade() {
    let upgradable = Upgradable::start("-m fork tcp://127.0.0.1:0");
    let daemon = &upgradable.daemon;
    let open_in = |client: &Client| -> Vec<String> {
        let mut open: Vec<_> = fds_of(daemon.server_of(client)).into_iter().map(|(_, what)| what).collect();
        open.retain(|what| !what.starts_with("socket:"));
        open
    };
    let before = open_in(&daemon.served());
    let (go, program) = (daemon.path("go"), env!("CARGO_BIN_EXE_forkd"));
    upgradable.installs_script(&format!(
        "until [ -e {} ]; do sleep 0.01; done; exec {program} \"$@\"",
        go.display()
    ));
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| upgradable.asks(&[]));
        daemon.wait_for_line("upgrading: ");
        assert_eq!(open_in(&daemon.served()), before, "in the trial");
        fs::write(&go, "").unwrap();
        assert_eq!(upgrade.join().unwrap().code, Some(0));
    });
    assert_eq!(open_in(&daemon.served()), before, "after the upgrade");
    upgradable.installs(Path::new("/bin/true"));
    upgradable.refuses(69);
    assert_eq!(open_in(&daemon.served()), before, "after one that failed");
}

#[test]
fn no_more_older_programs_have_connections_than_may() {
    let upgradable = Upgradable::start("-m fork --max-generations 2 tcp://127.0.0.1:0");
    let daemon = &upgradable.daemon;
    let first = daemon.served();
    upgradable.upgrades();
    let second = daemon.served();
    upgradable.upgrades();
    let why = upgradable.refuses(69);
    assert!(why.starts_with("2 programs before this one still have connections, and 2 may"), "{why}");
    // they have not for long
    upgradable.upgrades_with(&["--finish-within", "1h"]);
    let _third = daemon.served();
    upgradable.refuses(69);
    drop(first);
    eventually("one of them has none any more", || upgradable.asks(&[]).code == Some(0));
    drop(second);
}

#[test]
fn a_reload_and_an_upgrade_follow_each_other() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let path = forkd.dir.path().join("forkd.toml");
    let text = |service: &str| {
        format!("[[listen]]\nmodel = 'event'\nendpoints = ['tcp://127.0.0.1:0']\nservice = '{service}'\n")
    };
    fs::write(&path, text("echo")).unwrap();
    let upgradable = Upgradable::launch(forkd);
    let daemon = &upgradable.daemon;
    let mut held = daemon.served();
    for service in ["chargen", "echo", "chargen"] {
        upgradable.upgrades();
        fs::write(&path, text(service)).unwrap();
        let ended = forkd_command_on(daemon, "reload");
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let mut client = daemon.connect();
        client.write_all(b"?").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    echoes(&mut held, b"still there");
}

fn forkd_command_on(daemon: &Daemon, command: &str) -> Ended {
    forkd(forkd_command().arg(command).arg("--control").arg(daemon.control()))
}

#[test]
fn programs_of_exec_find_signals_as_before() {
    let upgradable = Upgradable::start("tcp://127.0.0.1:0 --exec grep Sig[BI] /proc/self/status");
    let ask = || {
        let mut signals = String::new();
        upgradable.daemon.connect().read_to_string(&mut signals).unwrap();
        signals
    };
    let before = ask();
    assert!(before.contains("SigIgn:"), "{before}");
    upgradable.upgrades();
    assert_eq!(ask(), before);
}

#[test]
fn sockets_that_were_handed_over_go_on() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let upgradable = Upgradable::launch(Forkd::new("systemd:echo").handed("echo", &socket));
    let mut held = connect(address).unwrap();
    echoes(&mut held, b"before");
    for _ in 0..2 {
        upgradable.upgrades();
        echoes(&mut held, b"after");
        echoes(&mut connect(address).unwrap(), b"after");
    }
}

#[test]
fn it_ends_for_want_of_clients_as_before() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    // for whom it is started, and can't end yet
    let mut held = connect(socket.local_addr().unwrap()).unwrap();
    let idle = Forkd::new("-m prefork -w 2 --exit-idle 100ms systemd:echo").handed("echo", &socket);
    let upgradable = Upgradable::launch(idle);
    echoes(&mut held, b"before");
    upgradable.upgrades();
    echoes(&mut held, b"after");
    drop(held);
    assert_eq!(upgradable.daemon.wait().code(), Some(0));
    upgradable.daemon.wait_for_line("stopping signal=idle");
}

#[test]
fn pidfile_and_metrics_go_on() {
    let upgradable =
        Upgradable::start("--pidfile {dir}/pid --metrics unix://{dir}/metrics tcp://127.0.0.1:0");
    let daemon = &upgradable.daemon;
    let get = |path: &str| {
        let mut stream = UnixStream::connect(daemon.path("metrics")).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let started = || {
        let text = get("/metrics");
        let line = text.lines().find(|line| line.starts_with("forkd_start_time_seconds ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let before = started();
    drop(daemon.served());
    upgradable.upgrades();
    drop(daemon.served());
    assert!((started() - before).abs() < 1.0, "the daemon is the same");
    assert!(get("/readyz").starts_with("HTTP/1.1 200 "), "{}", get("/readyz"));
    assert_eq!(daemon.status()["phase"], "running");
    assert_eq!(fs::read_to_string(daemon.path("pid")).unwrap(), format!("{}\n", daemon.pid()));
    let second =
        forkd(forkd_command().args(["serve", "tcp://127.0.0.1:0", "--pidfile"]).arg(daemon.path("pid")));
    assert_eq!(second.code, Some(69));
    assert!(second.stderr.contains("already running"), "{}", second.stderr);
    signal(daemon.pid(), Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!daemon.path("pid").exists() && !daemon.path("metrics").exists() && !daemon.control().exists());
}

#[test]
fn one_with_another_user_goes_on_and_one_with_another_root_is_refused() {
    if !need(nix::unistd::geteuid().is_root(), "only root can change the user") {
        return;
    }
    let upgradable = Upgradable::start("--user nobody --group nogroup tcp://127.0.0.1:0");
    fs::set_permissions(upgradable.daemon.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut held = upgradable.daemon.served();
    upgradable.upgrades();
    echoes(&mut held, b"still there");
    drop(upgradable.daemon.served());

    let upgradable = Upgradable::start("--chroot {dir} tcp://127.0.0.1:0");
    let why = upgradable.refuses(78);
    assert!(
        why.starts_with("the next program is out of reach, as the root directory has been changed"),
        "{why}"
    );
    drop(upgradable.daemon.served());
}

#[test]
fn without_memory_that_a_successor_could_have_it_is_refused() {
    let upgradable = Upgradable::launch(Forkd::new("tcp://127.0.0.1:0").portable(true));
    let why = upgradable.refuses(69);
    assert!(why.contains("has no memory that a successor could have"), "{why}");
    drop(upgradable.daemon.served());
}

/// Of a program with another format and another layout of shared memory, which CI builds.
#[test]
fn two_builds_replace_each_other() {
    let next = std::env::var_os("FORKD_NEXT").map(PathBuf::from);
    if !need(next.is_some(), "there is no second build (FORKD_NEXT)") {
        return;
    }
    let next = next.unwrap();
    for model in ["-m fork", "-m prefork -w 2", "-m event"] {
        let upgradable = Upgradable::start(&format!("{model} tcp://127.0.0.1:0"));
        let daemon = &upgradable.daemon;
        let mut held = daemon.served();
        for (turn, program) in
            [&next, &PathBuf::from(env!("CARGO_BIN_EXE_forkd")), &next].into_iter().enumerate()
        {
            upgradable.installs(program);
            upgradable.upgrades();
            echoes(&mut held, b"still there");
            drop(daemon.served());
            assert!(upgradable.connections() > turn as u64, "{model}");
        }
        drop(held);
        // those that write to memory of another layout are counted as dead, too
        eventually("the first child's death is counted", || {
            let status = daemon.status();
            let children = status["children"].as_array().unwrap();
            children.iter().all(|child| child["serving"].as_u64() == Some(0))
        });
        signal(daemon.pid(), Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0), "{:#?}", daemon.log());
    }
}

#[test]
fn a_second_request_is_answered_by_the_same_upgrade() {
    let upgradable = Upgradable::start("-m prefork -w 2 tcp://127.0.0.1:0");
    // those after the first find any stage of it: the trial, the next program's start, its end
    let asks = || [(); 5].map(|()| upgradable.asks(&[]));
    std::thread::scope(|scope| {
        let all = [(); 4].map(|()| scope.spawn(asks));
        for ended in all.into_iter().flat_map(|asked| asked.join().unwrap()) {
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        }
    });
}
