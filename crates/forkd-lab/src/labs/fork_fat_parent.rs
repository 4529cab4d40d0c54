//! What a fork costs a parent that has much memory.

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use forkd_compare::report::picture::{Bar, Picture};
use forkd_load::text::micros;
use forkd_net::Error;
use forkd_sys::signal::restore_sigchld;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::lab::{Claim, Experiment, Lab, Outcome};
use crate::subject::{Board, Subject, fork_child};

pub(crate) const LAB: Lab = Lab {
    name: "fork-fat-parent",
    title: "what a fork costs a parent with much memory",
    story: "Parents with 1, 64 and 256 MiB of memory fork a child that exits at once, 21 times each; the shortest time of fork(2) in \
            the parent counts, as whatever else the machine does only adds to it. Then each starts a program by posix_spawn(3), which shares its memory with the child until that \
            executes the program.",
    question: "How does the time of fork(2) change from 1 MiB to 256 MiB?",
    choices: &[
        "not at all: memory is copied on write",
        "it grows with the memory",
        "it grows with the square of it",
    ],
    answer: 1,
    why: "The memory is not copied, and the tables that describe it are: 8 bytes for each page of 4 KiB, and a counter of each \
          page is touched. 256 MiB are 65,536 pages. While that goes on the parent does nothing else, and takes no client. So \
          a server forks before it loads much, keeps its master small, or starts programs by posix_spawn(3), which copies \
          nothing. Huge pages make the tables smaller. forkd's master is one, small process, and runs no code of services.",
    next: &[
        ("forkd lab copy-on-write", "what is copied afterwards"),
        ("forkd serve", "a master that is small"),
        (
            "grep -E 'VmRSS|VmPTE' /proc/$(pgrep -o -x forkd)/status",
            "in another terminal: its memory, and its tables",
        ),
    ],
    run,
};

const MIB: usize = 1 << 20;
const SIZES: [usize; 3] = [1, 64, 256];
const FORKS: usize = 21;

// what a parent tells
const DONE: usize = 0;
const FORK_NS: usize = 1;
const SPAWN_NS: usize = 2;

/// The shortest times in microseconds: what others do at the same time only adds to them.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    fork: f64,
    /// From the start of a program to its end, if there is one that does nothing.
    spawn: Option<f64>,
}

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let mut seen = Vec::new();
    for size in SIZES {
        let found = measure(experiment, size)?;
        experiment.tell(format!("a parent with {size} MiB forks within {}", micros(found.fork)));
        seen.push(found);
    }
    Ok(judge(&seen))
}

fn measure(experiment: &Experiment<'_>, mib: usize) -> Result<Seen, Error> {
    let board = Board::<3>::default();
    let parent = Subject::fork(|| life(mib, &board))?;
    experiment.until("a parent has forked all its children", || {
        parent.is_well()?;
        Ok(board.get(DONE) == 1)
    })?;
    let spawn = Some(board.get(SPAWN_NS)).filter(|ns| *ns > 0).map(|ns| ns as f64 / 1e3);
    Ok(Seen { fork: board.get(FORK_NS) as f64 / 1e3, spawn })
}

fn life(mib: usize, board: &Board<3>) -> io::Result<()> {
    restore_sigchld();
    // of small pages, whatever this machine makes of large areas
    let _ = nix::sys::prctl::set_thp_disable(true);
    let memory = vec![1_u8; mib * MIB];
    let forks: Vec<u64> = (0..FORKS).map(|_| fork_time()).collect::<io::Result<_>>()?;
    board.set(FORK_NS, shortest(forks));
    let spawns: Option<Vec<u64>> = (0..FORKS).map(|_| spawn_time()).collect();
    board.set(SPAWN_NS, spawns.map_or(0, shortest));
    std::hint::black_box(&memory);
    board.set(DONE, 1);
    Ok(())
}

/// How long fork(2) keeps the parent, in nanoseconds.
fn fork_time() -> io::Result<u64> {
    let began = Instant::now();
    let pid = fork_child(|| 0)?;
    let time = began.elapsed();
    waitpid(Pid::from_raw(pid), None)?;
    Ok(time.as_nanos() as u64)
}

/// How long the start of a program keeps the parent.
fn spawn_time() -> Option<u64> {
    let mut command = Command::new("true");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().ok()?;
    let time = began.elapsed();
    child.wait().ok()?;
    Some(time.as_nanos() as u64)
}

fn shortest(times: Vec<u64>) -> u64 {
    times.into_iter().min().unwrap_or(0)
}

fn judge(seen: &[Seen]) -> Outcome {
    let mut bars: Vec<Bar> = SIZES
        .iter()
        .zip(seen)
        .map(|(size, seen)| Bar::new(format!("fork, {size} MiB"), seen.fork, micros(seen.fork)))
        .collect();
    let (small, large) = (seen[0], seen[seen.len() - 1]);
    let mut claims = vec![Claim::new(
        "the time of fork(2) grows with the memory of the parent",
        format!("{} with {} MiB, {} with {} MiB", micros(small.fork), SIZES[0], micros(large.fork), SIZES[2]),
        large.fork > 3.0 * small.fork,
    )];
    if let Some((of_small, of_large)) = small.spawn.zip(large.spawn) {
        bars.push(Bar::new(format!("spawn, {} MiB", SIZES[0]), of_small, micros(of_small)));
        bars.push(Bar::new(format!("spawn, {} MiB", SIZES[2]), of_large, micros(of_large)));
        claims.push(Claim::new(
            "posix_spawn(3) copies no tables: it keeps a large parent for less time than fork(2) does",
            format!("{} with {} MiB", micros(of_large), SIZES[2]),
            of_large < large.fork / 2.0,
        ));
    }
    Outcome {
        picture: Picture::of("How long a fork keeps its parent", &format!("the shortest of {FORKS}"), bars),
        claims,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_that_costs_always_the_same_disagrees() {
        let of =
            |large: f64| judge(&[90.0, 500.0, large].map(|fork| Seen { fork, spawn: Some(400.0) })).agrees();
        assert!(of(1700.0));
        assert!(!of(95.0));
        let without = judge(&[90.0, 500.0, 1700.0].map(|fork| Seen { fork, spawn: None }));
        assert!(without.agrees() && without.claims.len() == 1);
    }
}
