//! Children that write what isn't so, into their own slots and those of others.

use std::process::{Child as Process, Command};

use super::super::ledger::EXIT_TIMEOUT_MS;
use super::*;
use crate::sys::pidfd::is_our_child;

/// A process that lives until it is dropped, in the role of a child.
struct Living(Process);

impl Living {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("sleep(1)"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn alive(board: &Scoreboard) -> u32 {
    board.totals(0).alive.load(Ordering::Relaxed)
}

fn deaths(board: &Scoreboard) -> u64 {
    board.totals(0).deaths().map(|(_, n)| n).sum()
}

fn sweep_at(board: &Scoreboard, ms: u64) -> Vec<u32> {
    let mut reaped = Vec::new();
    let now = board.epoch + Duration::from_millis(ms);
    board.sweep(0, usize::MAX, now, is_our_child, || KILLED, |_, death| reaped.push(death.slot));
    reaped
}

#[test]
fn a_child_that_says_it_ends_and_lives_keeps_its_slot_and_counts_again() {
    let board = board(&[1]);
    let pretender = Living::new();
    let index = start(&board, 0, pretender.pid());
    board.announce(index, Cause::Done);
    assert_eq!(slots(&collect(&board)), [index]);
    assert_eq!((alive(&board), deaths(&board)), (0, 1));
    // its place is free at once, and its slot is not
    let next = Living::new();
    let other = start(&board, 0, next.pid());
    assert_ne!(other, index);
    assert_eq!(sweep_at(&board, EXIT_TIMEOUT_MS - 1), [0; 0]);
    assert_eq!(alive(&board), 1);
    assert_eq!(sweep_at(&board, EXIT_TIMEOUT_MS), [0; 0]);
    assert_eq!((alive(&board), deaths(&board)), (2, 1));
    // what it says from now on changes nothing, but its death does, and is no second one
    board.announce(index, Cause::Failed);
    assert_eq!(collect(&board), []);
    assert_eq!(alive(&board), 2);
    drop(pretender);
    assert_eq!(sweep_at(&board, EXIT_TIMEOUT_MS), [0; 0]);
    assert_eq!((alive(&board), deaths(&board)), (1, 1));
    drop(next);
    assert_eq!(sweep_at(&board, EXIT_TIMEOUT_MS), [other]);
    assert_eq!((alive(&board), deaths(&board), board.unwatched()), (0, 2, 0));
    assert_eq!([0; 2].map(|_| board.take(0, false, board.epoch)), [Some(other), None]);
}

#[test]
fn one_child_can_t_have_another_s_slot_given_away_twice() {
    let board = board(&[8]);
    let living: Vec<Living> = (0..4).map(|_| Living::new()).collect();
    let victims: Vec<u32> = living.iter().map(|child| start(&board, 0, child.pid())).collect();
    for _ in 0..3 {
        // all at once are said to be dead
        victims.iter().for_each(|&index| board.announce(index, Cause::Done));
        collect(&board);
    }
    assert_eq!((alive(&board), deaths(&board)), (0, 4));
    let given: Vec<u32> = std::iter::from_fn(|| board.take(0, false, board.epoch)).collect();
    assert_eq!(given.len(), 8);
    assert!(given.iter().all(|index| !victims.contains(index)), "{given:?}");
}

#[test]
fn a_stack_that_goes_round_in_circles_has_an_end() {
    let board = board(&[4]);
    let living: Vec<Living> = (0..3).map(|_| Living::new()).collect();
    let [a, b, c] = [0, 1, 2].map(|i| start(&board, 0, living[i].pid()));
    board.announce(a, Cause::Done);
    collect(&board);
    // it counts again
    sweep_at(&board, EXIT_TIMEOUT_MS);
    for index in [a, b, c] {
        board.announce(index, Cause::Done);
    }
    board.slot(a).next.store(c + 1, Ordering::Relaxed);
    assert_eq!(slots(&collect(&board)), [c, b]);
    board.announce(a, Cause::Done);
    board.slot(a).next.store(a + 1, Ordering::Relaxed);
    assert_eq!(collect(&board), []);
}

#[test]
fn what_no_child_can_have_carried_is_not_counted() {
    let board = board(&[4]);
    let index = start(&board, 0, 10);
    let Traffic { connections, bytes_in, bytes_out, failed } = &board.slot(index).traffic;
    for cell in [connections, bytes_in, failed] {
        cell.store(u64::MAX / 3, Ordering::Relaxed);
    }
    bytes_out.store(7, Ordering::Relaxed);
    let shown = Sums { bytes_out: 7, ..Sums::default() };
    assert_eq!(board.child(index).carried(1000), shown);
    board.announce(index, Cause::Done);
    collect(&board);
    assert_eq!(board.sums(0), shown);
}

#[test]
fn nonsense_in_a_slot_is_shown_as_something() {
    let board = board(&[4]);
    let index = start(&board, 0, 10);
    let slot = board.slot(index);
    for word in [0, 1, 4, 7, 0x8000_0000, u32::MAX] {
        slot.write_everywhere(word);
        let child = board.child(index);
        assert!(slot.recorded().is_none_or(|cause| cause.index() < Cause::COUNT));
        assert!(child.serving() <= 1, "a child of its own has one client");
        assert_eq!((child.pid(), child.is_watched()), (10, false));
    }
}
