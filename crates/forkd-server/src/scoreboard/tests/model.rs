//! What is lock-free, in every order in which processes can take its steps (loom).
//!
//! The files are compiled once more here, with atomics that loom watches: it runs each model again and again, with
//! another interleaving each time, and with each value that a load may return by the rules of the memory model. At most
//! three times is a process stopped in the middle of something, which keeps this to seconds.

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering, fence};
}
/// Here the structs are in no shared memory.
macro_rules! plain {
    ($($struct:item)+) => { $($struct)+ };
}
use plain;

#[allow(clippy::duplicate_mod)]
#[path = "../counts.rs"]
mod counts;
#[allow(clippy::duplicate_mod)]
#[path = "../sequence.rs"]
mod sequence;
#[allow(clippy::duplicate_mod)]
#[path = "../stack.rs"]
mod stack;

use std::time::Duration;

use atomic::{AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;
use stack::Stack;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_duration = Some(Duration::from_secs(20));
    builder.check(model);
}

/// The parts of a slot that matter here, without which loom can't tell whether what a child wrote is seen.
#[derive(Default)]
struct Line {
    next: AtomicU32,
    carried: AtomicU32,
}

#[derive(Default)]
struct Board {
    dead: Stack,
    lines: [Line; 2],
}

impl Board {
    fn end(&self, index: u32) -> bool {
        self.lines[index as usize].carried.store(7, Ordering::Relaxed);
        self.dead.push(index, &self.lines[index as usize].next)
    }

    /// Takes all that is there, and counts how often each was found.
    fn collect(&self, found: &mut [u32; 2]) {
        let mut top = self.dead.take();
        while let Some(index) = top.checked_sub(1) {
            let line = &self.lines[index as usize];
            assert_eq!(line.carried.load(Ordering::Relaxed), 7, "what a child wrote before is seen");
            found[index as usize] += 1;
            top = line.next.load(Ordering::Relaxed);
        }
    }
}

#[test]
fn each_child_that_pushes_is_taken_once() {
    check(|| {
        let board = Arc::new(Board::default());
        let children = [0, 1].map(|index| {
            let board = Arc::clone(&board);
            thread::spawn(move || board.end(index))
        });
        let mut found = [0; 2];
        board.collect(&mut found);
        children.into_iter().for_each(|child| _ = child.join().unwrap());
        board.collect(&mut found);
        assert_eq!(found, [1, 1]);
    });
}

#[test]
fn a_child_is_seen_or_wakes_the_master_that_waits() {
    check(|| {
        let board = Arc::new(Board::default());
        let child = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.end(0))
        };
        // the order of `Master::timeout`: first it says that it waits, then it looks
        board.dead.set_awaited(true);
        let is_seen = !board.dead.is_empty();
        let wakes = child.join().unwrap();
        assert!(is_seen || wakes, "the master would sleep");
    });
}

#[test]
fn sums_that_are_read_belong_together() {
    #[derive(Default)]
    struct Sums {
        reaping: sequence::Sequence,
        totals: [AtomicU32; 2],
    }
    check(|| {
        let sums = Arc::new(Sums::default());
        let master = {
            let sums = Arc::clone(&sums);
            thread::spawn(move || {
                for n in 1..=2 {
                    sums.reaping
                        .change(|| sums.totals.iter().for_each(|sum| sum.store(n, Ordering::Relaxed)));
                }
            })
        };
        let read = || sums.totals.each_ref().map(|sum| sum.load(Ordering::Relaxed));
        if let Some([one, other]) = sums.reaping.read(read) {
            assert_eq!(one, other);
        }
        master.join().unwrap();
        assert_eq!(sums.reaping.read(read), Some([2, 2]));
    });
}

#[test]
fn counts_of_several_lose_nothing_and_keep_their_bounds() {
    check(|| {
        let counts: Arc<[AtomicU32; 3]> = Arc::new([1, 0, 1].map(AtomicU32::new));
        let one = |counts: &[AtomicU32; 3]| {
            let [queued, leaving, idle] = counts;
            (counts::take_one(queued), counts::add_one(leaving, 1), counts::subtract_one(idle))
        };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || one(&counts))
        };
        let (mine, theirs) = (one(&counts), other.join().unwrap());
        assert!(mine.0 != theirs.0 && mine.1 != theirs.1, "{mine:?} {theirs:?}");
        assert_eq!(mine.2 + theirs.2, 1);
        assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [0, 1, 0]);
    });
}
