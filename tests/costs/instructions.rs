//! Counts the instructions of a worker for an operation in user mode by callgrind, whose count is the same on each machine.

use std::fs;

use nix::sys::signal::Signal;

use super::common::*;

/// How many operations there are in one run and in the other: what lies between the counts is theirs alone.
const FEW: usize = 10;
const MANY: usize = 30;

/// The instructions of an operation in the worker. `ask` does so many operations, and calls its last argument before each
/// step.
pub(crate) fn instructions(options: &str, ask: fn(&Daemon, usize, &dyn Fn())) -> f64 {
    let [few, many] = [FEW, MANY].map(|count| run(options, |daemon, rests| ask(daemon, count, rests)));
    (many as f64 - few as f64) / (MANY - FEW) as f64
}

/// The instructions of the worker from its start to its end.
fn run(options: &str, ask: impl Fn(&Daemon, &dyn Fn())) -> u64 {
    let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file={dir}/callgrind.%p"];
    let daemon = Forkd::new(options).program_of_the_environment().within(&valgrind).start();
    daemon.settles_at(1);
    let worker = daemon.children()[0];
    // one that is asleep has nothing more to do; so what it does does not depend on who is quicker
    let rests = || eventually("it rests", || rests(worker) && rests(worker));
    rests();
    ask(&daemon, &rests);
    rests();
    signal(worker, Signal::SIGTERM);
    let path = daemon.dir.path().join(format!("callgrind.{worker}"));
    let mut total = None;
    eventually("it has written its count", || {
        total = fs::read_to_string(&path).ok().and_then(|text| {
            text.lines().rev().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
        });
        total.is_some()
    });
    total.unwrap()
}

fn rests(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
    })
}
