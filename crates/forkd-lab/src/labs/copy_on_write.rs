//! What memory a forked child has.

use std::hint::black_box;
use std::io;

use forkd_compare::report::picture::{Bar, Picture};
use forkd_net::Error;

use crate::lab::{Claim, Experiment, Lab, Outcome};
use crate::look::{Memory, is_possible, memory_of, untold};
use crate::subject::{Board, Subject, fork_child};

pub(crate) const LAB: Lab = Lab {
    name: "copy-on-write",
    title: "what memory a forked child takes",
    story: "A parent has 64 MiB of memory with data in it, and forks four children. At first they only wait. Then each of \
            them reads all of it. Then each of them writes to a quarter of it. \
            What all five take is added up in two ways: by RSS, where each counts what it shares with others as its own, and by \
            PSS, where each counts only its share of that.",
    question: "How much memory do the parent and its four children take together after they have read all of it?",
    choices: &["64 MiB: they share it", "128 MiB: each reads a quarter", "320 MiB: each has its own copy"],
    answer: 0,
    why: "fork(2) copies the tables that say where memory is, and not the memory. Parent and child have the same pages, marked as \
          read-only, and the kernel copies a page when one of them writes to it. So a child costs what it writes. What ps and \
          top show as RSS or RES counts a shared page in each process that has it: added up it tells of memory that does not \
          exist. PSS divides a page by the number of processes that have it, so its sum is true (proc_pid_smaps(5)).",
    next: &[
        ("forkd compare --models fork,prefork,event", "the column PSS/conn: what a connection costs"),
        ("forkd lab fork-fat-parent", "what copying the tables costs"),
    ],
    run,
};

const MIB: usize = 1 << 20;
const PARENT: usize = 64 * MIB;
const CHILDREN: usize = 4;
/// No page is smaller.
const PAGE: usize = 4096;

// what a parent and its children tell, and are told
const PIDS: usize = 0;
const STEP: usize = CHILDREN;
const DONE: usize = CHILDREN + 1;

// the steps of the children
const READ: u64 = 1;
const WRITE: u64 = 2;

type Told = Board<{ CHILDREN + 2 }>;

/// The memory of the parent and its children, added up.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    resident: f64,
    proportional: f64,
}

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    is_possible()?;
    let board = Told::default();
    let parent = Subject::fork(|| life(&board))?;
    let mut sums = Vec::new();
    for (step, what) in
        [(0, "wait"), (READ, "have read all of it"), (WRITE, "have written to a quarter of it")]
    {
        board.set(STEP, step);
        experiment.until("the children have done their part", || {
            parent.is_well()?;
            // a child may be further than its parent, which has not written down its number yet
            let are_known = (0..CHILDREN).all(|number| board.get(PIDS + number) != 0);
            Ok(are_known && board.get(DONE) == CHILDREN as u64 * (step + 1))
        })?;
        let pids = (0..CHILDREN).map(|number| board.get(PIDS + number) as i32).chain([parent.pid]);
        let all: Option<Vec<Memory>> = pids.map(memory_of).collect();
        let all = all.ok_or_else(|| untold("the memory of processes (smaps_rollup)"))?;
        let sum = |of: fn(&Memory) -> u64| all.iter().map(of).sum::<u64>() as f64 / 1024.0;
        let sum =
            Sum { resident: sum(|memory| memory.resident), proportional: sum(|memory| memory.proportional) };
        experiment.tell(format!(
            "the children {what}: {:.0} MiB by PSS, {:.0} MiB by RSS",
            sum.proportional, sum.resident
        ));
        sums.push(sum);
    }
    Ok(judge(&sums))
}

fn life(board: &Told) -> io::Result<()> {
    let mut memory = vec![1_u8; PARENT];
    for number in 0..CHILDREN {
        let pid = fork_child(|| child_life(&mut memory, board))?;
        board.set(PIDS + number, pid as u64);
    }
    // until it is killed; its children go with it
    board.wait(STEP, u64::MAX);
    Ok(())
}

fn child_life(memory: &mut [u8], board: &Told) -> u8 {
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    board.add(DONE, 1);
    board.wait(STEP, READ);
    black_box(memory.iter().step_by(PAGE).map(|byte| u64::from(*byte)).sum::<u64>());
    board.add(DONE, 1);
    board.wait(STEP, WRITE);
    memory[..PARENT / 4].iter_mut().step_by(PAGE).for_each(|byte| *byte = black_box(2));
    board.add(DONE, 1);
    board.wait(STEP, u64::MAX);
    0
}

fn judge(sums: &[Sum]) -> Outcome {
    let mib = |value: f64| format!("{value:.0} MiB");
    let bars = ["forked", "all read", "a quarter written"].into_iter().zip(sums).flat_map(|(name, sum)| {
        [
            Bar::new(format!("{name}, by RSS"), sum.resident, mib(sum.resident)),
            Bar::new(format!("{name}, by PSS"), sum.proportional, mib(sum.proportional)),
        ]
    });
    let parent = (PARENT / MIB) as f64;
    let all = parent * (CHILDREN + 1) as f64;
    let about = |value: f64, expected: f64| (value - expected).abs() < parent / 8.0;
    let (forked, read, written) = (sums[0], sums[1], sums[2]);
    let expected = parent + (CHILDREN as f64) * parent / 4.0;
    Outcome {
        picture: Picture::of(
            "Memory of a parent and its four children, added up",
            &format!("the parent has {parent:.0} MiB"),
            bars.collect(),
        ),
        claims: vec![
            Claim::new(
                "four forks take no more memory",
                mib(forked.proportional),
                about(forked.proportional, parent),
            ),
            Claim::new("reading takes none", mib(read.proportional), about(read.proportional, parent)),
            Claim::new(
                format!("each child takes what it writes: {expected:.0} MiB in all"),
                mib(written.proportional),
                about(written.proportional, expected),
            ),
            Claim::new(
                format!("RSS counts shared memory in each: {all:.0} MiB, which do not exist"),
                mib(read.resident),
                read.resident > all * 0.9,
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_that_copies_disagrees() {
        let of = |values: [(f64, f64); 3]| {
            judge(&values.map(|(proportional, resident)| Sum { resident, proportional }))
        };
        assert!(of([(66.0, 325.0), (66.0, 325.0), (131.0, 325.0)]).agrees());
        let copied = of([(320.0, 325.0), (320.0, 325.0), (320.0, 325.0)]);
        assert_eq!(copied.claims.iter().filter(|claim| !claim.holds).count(), 3);
    }
}
