//! Those that die without a word, and many that die at once.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

fn sweep(board: &Scoreboard, is_child: impl Fn(u32) -> bool) -> Vec<(u32, Cause)> {
    let mut deaths = Vec::new();
    let next = board.sweep(
        0,
        usize::MAX,
        board.epoch,
        is_child,
        || KILLED,
        |_, death| deaths.push((death.slot, death.cause)),
    );
    assert_eq!(next, 0, "all have been looked at");
    deaths
}

#[test]
fn a_sweep_finds_those_that_died_without_a_word() {
    let board = board(&[4]);
    (10..14).for_each(|pid| _ = start(&board, 0, pid));
    board.announce(2, Cause::Done);
    // it was killed between its record and its place on the stack
    board.slot(3).record(Cause::Failed);
    board.slot(3).set_state(State::Ended);
    assert_eq!(sweep(&board, |pid| pid == 10), [(2, Cause::Done), (1, KILLED), (3, Cause::Failed)]);
    assert_eq!(sweep(&board, |pid| pid == 10), []);
    assert_eq!(board.children().map(|child| child.index).collect::<Vec<_>>(), [0]);
    assert_eq!(board.totals(0).alive.load(Ordering::Relaxed), 1);
    // all of it is there to be taken again
    assert_eq!((0..4).filter(|_| board.take(0, false, board.epoch).is_some()).count(), 3);
}

#[test]
fn of_several_slots_with_one_pid_only_the_last_is_alive() {
    let board = board(&[4]);
    let slots: Vec<u32> = [10, 10, 11, 10].into_iter().map(|pid| start(&board, 0, pid)).collect();
    assert!(board.record(slots[0]).is_superseded() && !board.record(slots[3]).is_superseded());
    assert_eq!(sweep(&board, |_| true), [(slots[0], KILLED), (slots[1], KILLED)]);
    assert_eq!(board.children().map(|child| child.index).collect::<Vec<_>>(), slots[2..]);
    // the slot serves again, and nothing of its past clings to it
    let again = start(&board, 0, 12);
    assert_eq!((again, sweep(&board, |_| true)), (slots[1], vec![]));
}

#[test]
fn a_pid_that_comes_again_after_an_ordinary_end_is_nothing_special() {
    let board = board(&[2]);
    board.announce(start(&board, 0, 10), Cause::Done);
    let other = start(&board, 0, 10);
    assert_eq!(sweep(&board, |_| true), [(0, Cause::Done)]);
    assert_eq!(board.children().map(|child| child.index).collect::<Vec<_>>(), [other]);
}

#[test]
fn a_sweep_in_slices_comes_round() {
    let board = board(&[3, 4]);
    for (listener, pid) in [(0, 10), (0, 11), (1, 12), (1, 13), (1, 14)] {
        start(&board, listener, pid);
    }
    let mut gone = Vec::new();
    let mut at = 0;
    let mut turns = Vec::new();
    for _ in 0..3 {
        at = board.sweep(
            at,
            2,
            board.epoch,
            |pid| pid.is_multiple_of(2),
            || KILLED,
            |_, death| gone.push(death.slot),
        );
        turns.push(at);
    }
    assert_eq!((turns, gone), (vec![2, 4, 0], vec![1, 3]));
}

#[test]
fn an_announcement_in_the_middle_of_a_sweep_is_not_lost() {
    let board = board(&[3]);
    (10..13).for_each(|pid| _ = start(&board, 0, pid));
    let announced = AtomicBool::new(false);
    let is_child = |pid| {
        if !announced.swap(true, Ordering::Relaxed) {
            // as the children do, while the master looks at the first of them
            board.announce(0, Cause::Panicked);
            board.announce(1, Cause::Done);
        }
        pid == 12
    };
    // each has its own cause, and none is reaped twice as "killed without a word"
    assert_eq!(sweep(&board, is_child), [(1, Cause::Done), (0, Cause::Panicked)]);
    assert_eq!(board.totals(0).alive.load(Ordering::Relaxed), 1);
    assert!(!board.has_dead());
}

#[test]
fn a_sweep_leaves_watched_ones_alone() {
    let board = board(&[2]);
    let watched = board.take(0, true, board.epoch).unwrap();
    has_pid(&board, watched, 10);
    board.born(watched);
    let unwatched = start(&board, 0, 10);
    assert_eq!(sweep(&board, |_| false), [(unwatched, KILLED)]);
    assert_eq!(board.slot(watched).state(), State::Starting);
    assert_eq!(board.totals(0).alive.load(Ordering::Relaxed), 1);
}

#[test]
fn every_announcement_of_many_at_once_is_reaped_exactly_once() {
    const THREADS: u32 = 4;
    const EACH: u32 = 500;
    let board = board(&[THREADS * EACH]);
    (0..THREADS * EACH).for_each(|i| _ = start(&board, 0, i + 1));
    let start = Barrier::new(THREADS as usize + 1);
    let mut reaped = vec![0_u32; (THREADS * EACH) as usize];
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (board, start) = (&board, &start);
            scope.spawn(move || {
                start.wait();
                for index in (number..THREADS * EACH).step_by(THREADS as usize) {
                    Traffic::add(&board.slot(index).traffic.connections, 1);
                    board.announce(index, if index.is_multiple_of(2) { Cause::Done } else { Cause::Failed });
                }
            });
        }
        start.wait();
        let until = Instant::now() + Duration::from_secs(20);
        let (mut count, mut turn) = (0, 0_u32);
        while count < THREADS * EACH && Instant::now() < until {
            turn += 1;
            let on = |_: &Child<'_>, death: Death| {
                reaped[death.slot as usize] += 1;
                count += 1;
                let expected = if death.slot.is_multiple_of(2) { Cause::Done } else { Cause::Failed };
                assert_eq!(death.cause, expected, "slot {}", death.slot);
            };
            // a sweep that takes all for alive must change nothing either
            if turn.is_multiple_of(2) {
                _ = board.sweep(0, usize::MAX, board.epoch, |_| true, || KILLED, on)
            } else {
                board.collect(board.epoch, on)
            }
        }
    });
    assert!(reaped.iter().all(|&times| times == 1), "{:?}", reaped.iter().position(|&times| times != 1));
    assert_eq!(board.totals(0).connections.load(Ordering::Relaxed), u64::from(THREADS * EACH));
    assert_eq!(board.totals(0).alive.load(Ordering::Relaxed), 0);
    assert!(!board.has_dead());
    let free = std::iter::from_fn(|| board.take(0, false, board.epoch));
    assert_eq!(free.collect::<BTreeSet<_>>().len(), (THREADS * EACH) as usize);
}

#[test]
fn those_that_left_their_score_to_the_master_count_until_it_is_raised_or_they_end() {
    let board = board(&[9]);
    let born = [1, 2, 3, 4].map(|pid| start(&board, 0, pid));
    born.iter().for_each(|&index| board.raise_later(index));
    assert_eq!(board.unraised(), 4);
    board.announce(born[0], Cause::Done);
    collect(&board);
    assert_eq!(board.unraised(), 3);
    board.put_back(born[1]);
    assert_eq!(board.unraised(), 2);
    let raised = |now| board.take_those_to_raise(0, 9, now).collect::<Vec<u32>>();
    assert_eq!(raised(board.epoch), []);
    let later = board.epoch + Duration::from_secs(2);
    assert_eq!((raised(later), board.unraised()), (vec![3, 4], 0));
    assert_eq!(raised(later), []);
    born[2..].iter().for_each(|&index| board.put_back(index));
    assert_eq!(board.unraised(), 0);
}
