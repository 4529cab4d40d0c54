//! What becomes of a program that fails: in its start, while it serves, and when it is told to leave.

use std::io::{Read, Write};
use std::time::Instant;

use nix::sys::signal::Signal;

use super::*;

/// Runs a pool that cannot serve to its end; returns its exit code and what it has said.
#[track_caller]
fn gives_up(forkd: Forkd) -> (Option<i32>, String) {
    let ended = forkd_within(&mut forkd.command(), LIMIT * 2);
    (ended.code, ended.stderr)
}

#[test]
fn what_exits_at_once_ends_the_daemon_with_its_last_words() {
    for options in ["-w 2", "-w 2 --ready-after notify"] {
        let (code, said) = gives_up(script(options, "echo first; echo 'no database at db:5432' >&2; exit 3"));
        assert_eq!(code, Some(70), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.contains("giving up after 8 tries"), "{said}");
        assert!(last.contains("first | no database at db:5432"), "{said}");
        // no fork bomb: rounds of two at most, farther and farther apart
        assert!(said.matches("no database").count() <= 2 * 8 + 1, "{said}");
    }
}

#[test]
fn a_program_that_is_not_there_or_may_not_run_is_refused_at_once() {
    let (code, said) = gives_up(pool("", "/nowhere/app"));
    assert!(code == Some(69) && said.contains("/nowhere/app"), "{code:?} {said}");
    let (code, said) = gives_up(pool("", "{dir}/worker").with_file("worker", "#!/bin/sh\n"));
    assert!(code == Some(77) && said.contains("worker"), "{code:?} {said}");
}

#[test]
fn one_that_never_becomes_ready_is_killed_and_in_the_end_all_is_given_up() {
    let options = "-w 1 --ready-after notify --start-timeout 50ms";
    let (code, said) = gives_up(script(options, "echo waiting for the moon; sleep 1000"));
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("killing a worker, which has not become ready in time"), "{said}");
    assert!(said.lines().last().unwrap().contains("waiting for the moon"), "{said}");
}

#[test]
fn a_crash_is_told_and_another_takes_its_place() {
    // the first in each place dies as it is told to
    let text = "mkdir {dir}/$FORKD_WORKER 2>/dev/null || exec sleep 1000; sleep 0.2; kill -SEGV $$";
    let daemon = script("-w 2", text).start();
    let lines = daemon.wait_for_lines(2, "worker crashed");
    assert!(lines.iter().all(|line| line.contains("cause=SIGSEGV")), "{lines:?}");
    has_workers(&daemon, 2);
    assert_eq!(daemon.deaths(0, "SIGSEGV"), 2);
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn the_others_serve_on_while_one_fails() {
    if !need_tool("python3") {
        return;
    }
    let daemon = echo("-w 2").start();
    let pids = has_workers(&daemon, 2);
    for signal_by in [Signal::SIGKILL, Signal::SIGABRT, Signal::SIGSEGV] {
        signal(workers(&daemon)[0], signal_by);
        echoes(&mut daemon.connect(), b"hello");
        has_workers(&daemon, 2);
    }
    assert!(!is_running(pids[0]));
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn one_that_ends_by_itself_is_replaced() {
    let daemon = script(
        "-w 1",
        "echo run >> {dir}/told; [ $(wc -l < {dir}/told) -gt 2 ] && exec sleep 1000; sleep 1.1",
    )
    .start();
    eventually("the third stays", || told(&daemon.path("told")).len() == 3);
    has_workers(&daemon, 1);
    assert_eq!(daemon.count_lines("worker failed") + daemon.count_lines("worker crashed"), 0);
}

#[test]
fn one_that_ends_with_an_error_is_told_of_and_replaced() {
    let text = "mkdir {dir}/first 2>/dev/null || exec sleep 1000; sleep 1.1; echo cannot go on; exit 5";
    let daemon = script("-w 1", text).start();
    assert!(daemon.wait_for_line("worker ended by itself").contains("status=5"));
    daemon.wait_for_line("cannot go on");
    has_workers(&daemon, 1);
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn what_ignores_its_order_is_killed_after_the_grace_time() {
    let text = "trap '' TERM; echo \"$FORKD_GENERATION\"; while :; do sleep 1000; done";
    let daemon = script("-w 2 --grace 300ms", text).start();
    let old = has_workers(&daemon, 2);
    reloads(&daemon);
    eventually("they are killed", || old.iter().all(|&pid| !is_running(pid)));
    daemon.wait_for_lines(2, "killing a worker, which has not left in time");
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    // that it had to be done is nothing special at a stop
    assert!(daemon.wait().code().is_some());
    assert!(start.elapsed() >= GRACE && daemon.is_gone());
}

#[test]
fn nothing_is_left_of_a_process_group() {
    // the first dies, and leaves children that ignore everything
    let text = "sh -c \"trap '' TERM INT QUIT; sleep 1000\" & trap 'exit 0' TERM; wait";
    let daemon = script("-w 2", text).start();
    let groups = |pids: &[i32]| pids.iter().map(|&pid| group_of(pid).len()).sum::<usize>();
    let pids = has_workers(&daemon, 2);
    eventually("each has children", || groups(&pids) >= 4);
    signal(pids[0], Signal::SIGKILL);
    eventually("one group is gone", || groups(&pids[..1]) == 0);
    eventually("another takes its place", || {
        workers(&daemon).iter().all(|pid| *pid != pids[0]) && workers(&daemon).len() == 2
    });
    let pids = workers(&daemon);
    assert_eq!(stops(&daemon), Some(0));
    eventually("all are gone", || groups(&pids) == 0);
}

#[test]
fn a_listener_that_one_closes_is_open_for_the_others() {
    if !need_tool("python3") {
        return;
    }
    let closes = "import os,time\nif os.environ['FORKD_WORKER'] == '0':\n    os.close(3); time.sleep(1000)\n";
    let daemon = pool("-w 2 --ready-after 1ms", "python3 {dir}/worker")
        .with_file("worker", &format!("{closes}{ECHO}"))
        .start();
    (0..5).for_each(|_| echoes(&mut daemon.connect(), b"hello"));
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn what_prints_without_end_takes_bounded_room() {
    let megabytes =
        "head -c 20000000 /dev/zero | tr '\\0' x; echo; yes yes | head -n 300000; echo done; exec sleep 1000";
    let start = Instant::now();
    let daemon = script("-w 1", megabytes).start();
    let pid = has_workers(&daemon, 1)[0];
    let before = Usage::of(daemon.pid()).unwrap().anonymous;
    let mut most = 0;
    eventually("it has printed all", || {
        most = most.max(Usage::of(daemon.pid()).unwrap().anonymous);
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("sleep"))
    });
    assert!(most < before + 1024, "{before} KiB before, then {most}");
    // 200 at once, and 100 a second
    let most = 210 + start.elapsed().as_millis() / 10;
    let lines = daemon.log().len();
    assert!(lines as u128 <= most, "{lines} lines, and not {most}");
    assert!(daemon.log().iter().all(|line| line.len() < 2300));
    // what was left out is counted
    signal(pid, Signal::SIGKILL);
    daemon.wait_for_line("left_out=");
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn one_that_no_more_says_that_it_lives_is_ended_by_sigabrt() {
    if !need_tool("systemd-notify") {
        return;
    }
    // what it says counts only while it says it
    let text = "systemd-notify --no-block READY=1 WATCHDOG=1; exec sleep 1000";
    let daemon = script("-w 1 --ready-after notify --worker-watchdog 500ms", text).start();
    let first = has_workers(&daemon, 1)[0];
    let line = daemon.wait_for_line("cause=SIGABRT");
    assert!(line.contains(&format!("pid={first}")), "{line}");
    daemon.wait_for_line("killing a worker, which has not said in time that it is alive");
    eventually("another takes its place", || workers(&daemon).iter().any(|pid| *pid != first));
}

#[test]
fn one_that_says_that_it_lives_stays() {
    if !need_tool("systemd-notify") {
        return;
    }
    let text = "systemd-notify --no-block READY=1; while :; do systemd-notify --no-block WATCHDOG=1; sleep 0.1; echo alive; done";
    let daemon = script("-w 1 --ready-after notify --worker-watchdog 2s", text).start();
    let pid = has_workers(&daemon, 1)[0];
    daemon.wait_for_lines(30, "alive");
    assert_eq!(workers(&daemon), [pid]);
    // or it says that it does not
    let failed = script(
        "-w 1 --worker-watchdog 10m",
        "sleep 0.2; systemd-notify --no-block WATCHDOG=trigger; sleep 1000",
    );
    failed.start().wait_for_line("cause=SIGABRT");
}

#[test]
fn a_stop_in_its_start_ends_it() {
    let daemon = script("-w 2 --ready-after notify", "echo started; exec sleep 1000").launch();
    daemon.wait_for_lines(2, "started");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(daemon.is_gone());
}

#[test]
fn clients_of_a_killed_one_are_cut_and_no_others() {
    if !need_tool("python3") {
        return;
    }
    let daemon = echo("-w 2").start();
    let victim = has_workers(&daemon, 2)[0];
    let before = fds_of(victim).len();
    let mut clients: Vec<Client> = (0..8).map(|_| daemon.served()).collect();
    // which worker takes a client is the kernel's choice
    let its = fds_of(victim).len() - before;
    signal(victim, Signal::SIGKILL);
    eventually("another takes its place", || {
        let now = workers(&daemon);
        now.len() == 2 && !now.contains(&victim)
    });
    let is_served = |client: &mut Client| {
        let answer = client.write_all(b"x").and_then(|()| client.read(&mut [0]));
        answer.is_ok_and(|length| length == 1)
    };
    assert_eq!(clients.iter_mut().map(is_served).filter(|served| *served).count(), 8 - its);
    echoes(&mut daemon.connect(), b"hello");
}

#[test]
fn one_that_says_that_it_leaves_is_replaced_while_it_finishes() {
    if !need_tool("systemd-notify") {
        return;
    }
    let text = "mkdir {dir}/first || exec sleep 1000; systemd-notify --no-block STOPPING=1; trap '' TERM; sleep 1000";
    let daemon = script("-w 1 --grace 2s", text).start();
    let pids = has_workers(&daemon, 2);
    daemon.wait_for_line("killing a worker, which has not left in time");
    eventually("one is left", || workers(&daemon).len() == 1);
    assert!(pids.contains(&workers(&daemon)[0]));
    assert_eq!(stops(&daemon), Some(0));
}
