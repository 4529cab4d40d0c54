//! What takes long, or says that it leaves: the master sleeps meanwhile, and is not deceived.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::*;

/// How often the master has given up the processor by itself, that is, how often it has slept.
fn sleeps(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Counts turns of the master's loop for a second.
fn turns_in_a_second(daemon: &Daemon) -> u64 {
    // a loop that does not sleep has turns by the thousand, and uses its second of the processor
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect();
        fields.iter().sum::<u64>()
    };
    let (slept, used, began) = (sleeps(daemon), ticks(), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(50));
    }
    (sleeps(daemon) - slept) + 100 * (ticks() - used)
}

#[test]
fn a_crash_loop_that_says_goodbye_is_a_crash_loop() {
    let worker = "systemd-notify STOPPING=1; echo goodbye; sleep 0.03; exit 1";
    if !need_tool("systemd-notify") {
        return;
    }
    let forkd = script("-w 2 --ready-after notify", worker);
    let ended = forkd_within(&mut forkd.command(), LIMIT * 2);
    assert_eq!(ended.code, Some(70), "{}", ended.stderr);
    assert!(ended.stderr.matches("goodbye").count() <= 2 * 8 + 1, "{}", ended.stderr);
}

#[test]
fn the_master_sleeps_while_workers_start_and_while_an_elastic_pool_leaves() {
    let text = "trap 'sleep 3; exit 0' TERM; touch {dir}/up.$FORKD_GENERATION; while :; do sleep 0.1; done";
    let daemon = script("-w 1..3 --max-worker-memory 1G --ready-after 300ms --grace 20s", text).start();
    becomes(&daemon, &format!("{text}\n"));
    // a reload with a worker that takes its time
    let slow = script("-w 1 --ready-after 5s --grace 1s", "exec sleep 1000").launch();
    eventually("it starts", || !workers(&slow).is_empty());
    std::thread::sleep(Duration::from_millis(1200));
    let turns = turns_in_a_second(&slow);
    assert!(turns < 900, "{turns} while a worker starts");
    slow.signal(Signal::SIGKILL);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_line("stopping");
    std::thread::sleep(Duration::from_millis(1200));
    let turns = turns_in_a_second(&daemon);
    assert!(turns < 900, "{turns} while workers leave");
    assert_eq!(daemon.wait_for(LIMIT).code(), Some(0));
}

#[test]
fn a_second_stop_signal_is_not_sent() {
    let text = "trap 'echo told >> {dir}/told; [ -e {dir}/twice ] || { sleep 1; exit 0; }' TERM; touch {dir}/up; \
                while :; do sleep 0.1; done";
    let daemon = script("-w 1 --grace 10s", text).start();
    eventually("it traps", || daemon.path("up").exists());
    reloads(&daemon);
    eventually("it is told", || told(&daemon.path("told")).len() == 1);
    assert_eq!(stops(&daemon), Some(0));
    assert_eq!(told(&daemon.path("told")).len(), 2, "one for each of two workers");
}
