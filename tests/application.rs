//! Workers that run a function of the application's own (`Server::run`): what it does wrong costs that worker, and what is
//! done to all of them costs no client.
//!
//! `FORKD_LONG=1` has a reload happen a hundred times under load, and not twenty.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

fn workers(args: &str) -> Daemon {
    let daemon = Forkd::example("test-workers", args).start();
    daemon.settles_at(2);
    daemon
}

/// Sends a worker a line; returns the line that it sends back, if it does.
fn says(client: &mut Client, line: &str) -> String {
    writeln!(client, "{line}").unwrap();
    let mut answer = String::new();
    // a worker that crashes resets its connections
    let _ = BufReader::new(client).read_line(&mut answer);
    answer.trim_end().to_owned()
}

#[track_caller]
fn asks(daemon: &Daemon, line: &str) -> String {
    says(&mut daemon.connect(), line)
}

/// The number, generation and pid of the worker that takes this client.
#[track_caller]
fn who(client: &mut Client) -> [u32; 3] {
    let answer = says(client, "who");
    let parsed: Vec<u32> = answer.split(' ').filter_map(|word| word.parse().ok()).collect();
    parsed.try_into().unwrap_or_else(|_| panic!("{answer:?}"))
}

/// Renews all workers, and waits until the last of the old ones has gone.
#[track_caller]
fn renew(daemon: &Daemon) {
    let old = daemon.children();
    daemon.signal(Signal::SIGHUP);
    eventually("new workers instead of all", || {
        let now = daemon.children();
        now.len() == old.len() && !now.iter().any(|pid| old.contains(pid))
    });
}

/// Offers it 200 clients a second while `change` is made; none may be lost.
#[track_caller]
fn loses_nothing(daemon: &Daemon, change: impl FnOnce()) {
    let (endpoint, over) = (daemon.endpoint(0), daemon.path("over"));
    let wait = format!("sh -c 'until [ -e {} ]; do sleep 0.02; done'", over.display());
    let loads = std::thread::spawn(move || {
        let mut command = forkd_command();
        command.args(["load", "-z", "200ms", "-c", "16", "--rate", "200", "--json", "-", "--during"]);
        command.arg(wait).arg(endpoint);
        forkd_within(&mut command, LIMIT * 40)
    });
    change();
    fs::write(&over, "").unwrap();
    let ended = loads.join().unwrap();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    let losses = report["during"]["losses"].as_array().expect("losses");
    assert!(losses.is_empty(), "{} lost: {:?}\n{:#?}", losses.len(), losses.first(), daemon.log());
    assert!(report["during"]["requests"].as_u64().is_none_or(|requests| requests > 0), "{report}");
}

fn times() -> usize {
    if std::env::var_os("FORKD_LONG").is_some_and(|value| value == "1") { 100 } else { 20 }
}

#[test]
fn no_client_is_lost_by_reloads_of_workers_with_a_runtime_of_tokio() {
    let daemon = Forkd::example("tokio_echo", "").start();
    daemon.settles_at(2);
    loses_nothing(&daemon, || (0..times()).for_each(|_| renew(&daemon)));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn no_client_is_lost_by_reloads_of_workers_with_threads() {
    let daemon = workers("everything tcp://127.0.0.1:0 udp://127.0.0.1:0 unix://{dir}/u unixgram://{dir}/g");
    loses_nothing(&daemon, || (0..times()).for_each(|_| renew(&daemon)));
}

#[test]
fn a_worker_that_ends_itself_is_replaced_under_its_number_and_the_other_goes_on() {
    for (word, sign) in [
        ("panic", "cause=panicked"),
        ("abort", "cause=SIGABRT"),
        ("segv", "cause=SIGSEGV"),
        ("exit", "cause=exit"),
        ("fail", "worker failed worker="),
        ("return", "worker has returned; another takes its place worker="),
    ] {
        let daemon = workers("obeys");
        let mut first = daemon.connect();
        let [number, generation, pid] = who(&mut first);
        // it serves one client at a time
        let mut other = daemon.connect();
        let [other_number, _, other_pid] = who(&mut other);
        assert_ne!(number, other_number);
        assert_eq!(says(&mut first, word), "", "{word}");
        daemon.wait_for_line(sign);
        let mut next = daemon.connect();
        let [next_number, next_generation, next_pid] = who(&mut next);
        assert_eq!((next_number, next_generation), (number, generation), "{word}");
        assert_ne!(next_pid, pid);
        assert_eq!(who(&mut other)[2], other_pid, "{word}: the other one goes on");
    }
}

#[test]
fn numbers_begin_at_0_and_the_generation_grows_with_each_reload() {
    let daemon = workers("obeys");
    for generation in 1..=3 {
        let mut clients = [daemon.connect(), daemon.connect()];
        let mut workers = clients.each_mut().map(who);
        workers.sort_unstable();
        let place = |worker: [u32; 3]| (worker[0], worker[1]);
        assert_eq!(workers.map(place), [(0, generation), (1, generation)]);
        drop(clients);
        renew(&daemon);
    }
}

#[test]
fn workers_that_cannot_start_end_the_server_with_the_reason() {
    for (how, line, sentence) in [
        ("fails", "worker failed worker=0", "cannot all start: giving up after 8 tries"),
        ("panics", "cause=panicked", "giving up after 8 tries"),
        (
            "returns",
            "worker has returned; another takes its place worker=0",
            "return at once, although none was told to",
        ),
        ("misses", "the server has no Unix socket: it is bound to tcp://127.0.0.1:", "giving up"),
        ("has-no-logger", "forkd-server: worker 0 of tcp://127.0.0.1:", "lines above say why"),
    ] {
        let ended = Forkd::example("test-workers", how).run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for what in [line, sentence] {
            assert!(ended.stderr.contains(what), "{how}: no {what}\n{}", ended.stderr);
        }
    }
    let several = Forkd::example("test-workers", "chooses tcp://127.0.0.1:0 tcp://127.0.0.1:0").run();
    assert!(several.stderr.contains("has several TCP sockets: tcp://127.0.0.1:"), "{several:?}");
    assert!(several.stderr.contains("Worker::sockets has them all"), "{several:?}");
}

#[test]
fn a_runtime_a_thread_or_a_model_before_the_fork_is_refused_with_what_to_do() {
    let later = "build the runtime and start threads in the function that Server::run is given";
    for (how, what) in [
        ("threads", ["this process has several threads", later]),
        ("tokio", ["this thread is in a runtime of tokio", later]),
        ("models", ["the model thread has no effect on workers that accept by themselves", "leave it out"]),
    ] {
        let ended = Forkd::example("test-workers", how).run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for what in what {
            assert!(ended.stderr.contains(what), "{how}: no {what}\n{}", ended.stderr);
        }
        assert_eq!(ended.stderr.lines().count(), 2, "no worker says anything:\n{}", ended.stderr);
    }
}

#[test]
fn all_kinds_of_sockets_are_served_by_each_worker() {
    let daemon = workers("everything tcp://127.0.0.1:0 udp://127.0.0.1:0 unix://{dir}/u unixgram://{dir}/g");
    for round in 0..2 {
        echoes(&mut daemon.connect(), b"by TCP");
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.set_read_timeout(Some(LIMIT)).unwrap();
        datagrams.send_to(b"by UDP", daemon.address("udp")).unwrap();
        let mut answer = [0; 64];
        let length = datagrams.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"by UDP");
        let mut stream = UnixStream::connect(daemon.path("u")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        writeln!(stream, "by a Unix socket").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "by a Unix socket\n");
        let unixgram = UnixDatagram::bind(daemon.path(&format!("client{round}"))).unwrap();
        unixgram.set_read_timeout(Some(LIMIT)).unwrap();
        unixgram.send_to(b"by a Unix datagram", daemon.path("g")).unwrap();
        let length = unixgram.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"by a Unix datagram");
        drop((datagrams, stream, unixgram));
        renew(&daemon);
    }
}

#[test]
fn a_worker_may_start_threads_and_programs() {
    let daemon = workers("obeys");
    assert_eq!(asks(&daemon, "child"), "a child Some(0)");
    let mut client = daemon.connect();
    let [_, _, pid] = who(&mut client);
    assert_eq!(says(&mut client, "threads"), "10");
    assert_eq!(threads_of(pid as i32).len(), 11);
    drop(client);
    renew(&daemon);
    assert!(!is_running(pid as i32), "its threads don't keep it");
}

#[test]
fn a_worker_that_leaks_descriptors_is_replaced_and_its_master_has_none_of_them() {
    let daemon = Forkd::example("test-workers", "obeys").limit(libc::RLIMIT_NOFILE, 64).start();
    daemon.settles_at(2);
    let before = fds_of(daemon.pid()).len();
    let mut client = daemon.connect();
    let [number, ..] = who(&mut client);
    let mut other = daemon.connect();
    who(&mut other);
    assert_eq!(says(&mut client, "leak"), "leaking");
    drop(client);
    let mut next = daemon.connect();
    daemon.wait_for_line("worker failed worker=");
    assert_eq!(who(&mut next)[0], number, "by that which takes its place");
    eventually("the master to have as many as before", || fds_of(daemon.pid()).len() <= before);
}

#[test]
fn the_server_can_be_ended_by_a_worker() {
    let daemon = workers("obeys");
    assert_eq!(asks(&daemon, "stop"), "stopped");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(daemon.is_gone());
}

#[test]
fn a_worker_that_ignores_the_shutdown_is_killed_after_grace() {
    let daemon = workers("deaf");
    let workers = daemon.children();
    let start = std::time::Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(1), "it had its grace");
    assert!(workers.iter().all(|&pid| !is_running(pid)));
}

#[test]
fn a_worker_that_is_renewed_and_ignores_it_is_killed_after_grace() {
    let daemon = workers("deaf");
    renew(&daemon);
    assert_eq!(
        daemon.count_lines("killing a worker, which has not left in time worker="),
        2,
        "{:#?}",
        daemon.log()
    );
}

#[test]
fn a_generation_that_hangs_in_its_start_is_given_up_and_the_one_before_goes_on() {
    let daemon = workers("hangs");
    let old = daemon.children();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("killing a worker, which has not become ready in time worker=0");
    within(LIMIT * 4, "the reload to be given up", || daemon.count_lines("reload failed, ") > 0);
    daemon.settles_at(2);
    assert_eq!(daemon.children(), old);
    assert_eq!(who(&mut daemon.connect())[1], 1);
}

#[test]
fn the_master_knows_which_workers_are_busy_and_how_many_clients_they_have_had() {
    let daemon = workers("obeys");
    for clients in 1..=2 {
        let mut client = daemon.connect();
        let [_, _, busy] = who(&mut client);
        // one worker fewer: an idle one goes
        daemon.signal(Signal::SIGTTOU);
        daemon.settles_at(1);
        assert_eq!(daemon.children(), [busy as i32]);
        assert_eq!(who(&mut client)[2], busy);
        drop(client);
        daemon.signal(Signal::SIGUSR1);
        daemon.wait_for_line(&format!(" connections={clients} "));
        daemon.signal(Signal::SIGTTIN);
        daemon.settles_at(2);
    }
}
