//! Counts the instructions of a worker for an operation in user mode by callgrind, whose count is the same on each machine.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// After a fork valgrind (3.19) keeps the signal blocked by which it learns that a stack is to grow: a worker dies whose
/// stack reaches a page that its master's has not reached. Where pages begin depends on the length of the environment, so
/// several are tried, the one that did last before the others.
const PADDINGS: usize = 16;
static GOOD: AtomicUsize = AtomicUsize::new(0);

/// The instructions of the worker from its start to its end.
fn run(options: &str, ask: impl Fn(&Daemon, &dyn Fn())) -> u64 {
    let good = GOOD.load(Ordering::Relaxed);
    let counts = (0..PADDINGS).map(|nth| (good + nth) % PADDINGS).find_map(|nth| {
        let padding = nth * 4096 / PADDINGS;
        let counted = catch_unwind(AssertUnwindSafe(|| run_padded(options, padding, &ask)));
        let died = |_: &_| eprintln!("{options}: its worker has died, with {padding} bytes more");
        counted.inspect_err(died).inspect(|_| GOOD.store(nth, Ordering::Relaxed)).ok()
    });
    counts.expect("a worker that lives under valgrind")
}

fn run_padded(options: &str, padding: usize, ask: impl Fn(&Daemon, &dyn Fn())) -> u64 {
    let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file={dir}/callgrind.%p"];
    // the worker writes what was counted to a file
    let options = format!("{options} --sandbox off");
    let forkd = Forkd::new(&options).program_of_the_environment().within(&valgrind);
    let daemon = forkd.env("PADDING", &"x".repeat(padding)).start();
    eventually("it has a worker", || daemon.children().len() == 1 || daemon.ended().is_some());
    let worker = daemon.children()[0];
    // one that is asleep has nothing more to do; so what it does does not depend on who is quicker
    let rests = || {
        eventually("it rests", || rests(worker) && rests(worker));
        assert!(is_running(worker));
    };
    rests();
    ask(&daemon, &rests);
    rests();
    signal(worker, Signal::SIGTERM);
    let path = daemon.dir.path().join(format!("callgrind.{worker}"));
    let mut total = None;
    eventually("it has written its count", || {
        // in full: it may be in the middle of a number
        let text = fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        total = text.and_then(|text| {
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
