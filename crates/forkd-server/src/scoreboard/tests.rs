//! The scoreboard without any child: what the master and a child write is called directly.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::transport::Traffic;

mod model;
mod sweep;
mod wild;

const KILLED: Cause = Cause::Signal(libc::SIGKILL as u8);

/// A scoreboard whose listeners may have these numbers of children.
fn board(limits: &[u32]) -> Scoreboard {
    let board = Scoreboard::new().unwrap();
    for (listener, &limit) in limits.iter().enumerate() {
        board.totals(listener).set_limit(limit);
    }
    board
}

/// A child of `listener` is born, with this pid.
fn start(board: &Scoreboard, listener: usize, pid: u32) -> u32 {
    birth_at(board, listener, pid, board.epoch)
}

fn birth_at(board: &Scoreboard, listener: usize, pid: u32, now: Instant) -> u32 {
    let index = board.take(listener, false, now).expect("a free slot");
    has_pid(board, index, pid);
    board.slot(index).set_state(State::Serving);
    board.born(index);
    index
}

/// What the kernel does during fork.
fn has_pid(board: &Scoreboard, index: u32, pid: u32) {
    board.record(index).pid.store(pid, Ordering::Relaxed);
    board.slot(index).pid.store(pid, Ordering::Relaxed);
}

fn collect(board: &Scoreboard) -> Vec<Death> {
    let mut deaths = Vec::new();
    board.collect(board.epoch, |_, death| deaths.push(death));
    deaths
}

fn slots(deaths: &[Death]) -> Vec<u32> {
    deaths.iter().map(|death| death.slot).collect()
}

fn notified(board: &Scoreboard) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(board.wake().as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn the_lowest_slots_are_taken_first_up_to_the_limit_of_each_listener() {
    let board = board(&[3, 2]);
    let take = |listener| board.take(listener, false, Instant::now());
    assert_eq!([take(0), take(1), take(0), take(0)], [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(take(0), None);
    assert_eq!([take(1), take(1)], [Some(4), None]);
    assert_eq!([0, 1, 3, 4].map(|index| board.listener_of(index)), [0, 1, 0, 1]);
    // a lower limit ends no child, and lets no client in
    board.totals(0).set_limit(1);
    board.put_back(0);
    assert_eq!(take(0), None);
    board.put_back(2);
    board.put_back(3);
    assert_eq!([take(0), take(0)], [Some(3), None]);
}

#[test]
fn a_slot_that_is_put_back_is_the_next_to_be_taken() {
    let board = board(&[2]);
    let totals = board.totals(0);
    let take = || board.take(0, false, Instant::now());
    assert_eq!((take(), take()), (Some(0), Some(1)));
    assert!(!totals.has_room());
    board.put_back(0);
    assert!(totals.has_room());
    assert_eq!(board.children().map(|child| child.index).collect::<Vec<_>>(), [1]);
    assert_eq!((take(), take()), (Some(0), None));
    // neither was a start or an end
    assert_eq!(totals.forked.load(Ordering::Relaxed) + totals.deaths().count() as u64, 0);
}

#[test]
fn a_listener_without_any_place_has_no_room() {
    let board = board(&[0, 1]);
    assert!(!board.totals(0).has_room());
    assert_eq!(board.take(0, false, Instant::now()), None);
    assert_eq!(board.take(1, false, Instant::now()), Some(0));
}

#[test]
fn a_new_child_finds_nothing_of_the_one_before() {
    let board = board(&[1]);
    let index = start(&board, 0, 41);
    let slot = board.slot(index);
    slot.set_peer(crate::transport::Peer::Unix { pid: 1, uid: 2, gid: 3 });
    Traffic::add(&slot.traffic.bytes_in, 5);
    board.announce(index, Cause::Panicked);
    collect(&board);
    let later = board.epoch + Duration::from_millis(250);
    assert_eq!(board.take(0, true, later), Some(index));
    let child = board.child(index);
    assert_eq!((child.pid(), slot.recorded(), child.started_ms()), (0, None, 250));
    assert_eq!((slot.peer(), slot.state()), (crate::transport::Peer::None, State::Starting));
    assert_eq!(slot.traffic.bytes_in.load(Ordering::Relaxed), 0);
    assert!(child.is_watched() && slot.is_worker());
}

#[test]
fn the_last_to_announce_its_end_is_the_first_to_be_reaped() {
    let board = board(&[2, 2]);
    let children = [(0, 10), (1, 11), (0, 12)].map(|(listener, pid)| start(&board, listener, pid));
    assert_eq!(children, [0, 1, 2]);
    assert!(!board.has_dead());
    for (index, cause) in children.into_iter().zip([Cause::Done, Cause::Failed, Cause::Panicked]) {
        board.announce(index, cause);
    }
    assert!(board.has_dead());
    let death = |slot, listener, cause| Death { slot, listener, cause };
    assert_eq!(
        collect(&board),
        [death(2, 0, Cause::Panicked), death(1, 1, Cause::Failed), death(0, 0, Cause::Done)]
    );
    assert!(!board.has_dead());
    assert_eq!(collect(&board), []);
    assert_eq!(board.children().count(), 0);
}

#[test]
fn a_dead_child_s_counters_live_on_in_the_totals() {
    let board = board(&[4, 1]);
    for (pid, bytes) in [(10, 100), (11, 20), (12, 3)] {
        let slot = board.slot(start(&board, 0, pid));
        Traffic::add(&slot.traffic.connections, 1);
        Traffic::add(&slot.traffic.bytes_in, bytes);
        Traffic::add(&slot.traffic.bytes_out, bytes * 2);
    }
    start(&board, 1, 13);
    board.announce(0, Cause::Done);
    board.announce(2, Cause::Done);
    collect(&board);
    board.reap(1, Cause::Signal(libc::SIGSEGV as u8), board.epoch);
    let totals = board.totals(0);
    let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!([&totals.connections, &totals.bytes_in, &totals.bytes_out].map(sum), [3, 123, 246]);
    assert_eq!((totals.alive.load(Ordering::Relaxed), totals.peak.load(Ordering::Relaxed)), (0, 3));
    assert_eq!(sum(&totals.forked), 3);
    let deaths: Vec<_> = totals.deaths().map(|(cause, n)| format!("{cause}={n}")).collect();
    assert_eq!(deaths, ["done=2", "SIGSEGV=1"]);
    assert_eq!(board.totals(1).alive.load(Ordering::Relaxed), 1);
}

#[test]
fn the_peak_is_of_those_alive_at_once() {
    let board = board(&[8]);
    for pid in 0..5 {
        for index in [start(&board, 0, pid + 10), start(&board, 0, pid + 20)] {
            board.reap(index, Cause::Done, board.epoch);
        }
    }
    let totals = board.totals(0);
    assert_eq!((totals.peak.load(Ordering::Relaxed), totals.forked.load(Ordering::Relaxed)), (2, 10));
}

#[test]
fn the_first_record_of_an_end_stays() {
    let board = board(&[1]);
    let index = start(&board, 0, 10);
    board.slot(index).record(Cause::Signal(libc::SIGABRT as u8));
    board.announce(index, Cause::Done);
    assert_eq!(collect(&board)[0].cause, Cause::Signal(libc::SIGABRT as u8));
}

#[test]
fn only_a_master_that_waits_is_woken() {
    let board = board(&[2]);
    board.announce(start(&board, 0, 10), Cause::Done);
    assert!(!notified(&board));
    board.set_waiting(true);
    board.announce(start(&board, 0, 11), Cause::Done);
    assert!(notified(&board));
    board.wake().drain();
    assert!(!notified(&board));
    board.set_waiting(false);
    assert_eq!(slots(&collect(&board)), [1, 0]);
    board.announce(start(&board, 0, 12), Cause::Done);
    assert!(!notified(&board));
}

#[test]
fn a_crash_is_recorded_by_pid_alone() {
    let board = board(&[4]);
    let signal = libc::SIGSEGV as u8;
    let first = start(&board, 0, 10);
    let second = start(&board, 0, 11);
    let watched = board.take(0, true, board.epoch).unwrap();
    has_pid(&board, watched, 12);
    board.record_end(99, Cause::Signal(signal));
    assert!(!board.has_dead() && !notified(&board));
    board.record_end(11, Cause::Signal(signal));
    assert!(notified(&board), "a crash wakes the master in any case");
    let death = Death { slot: second, listener: 0, cause: Cause::Signal(signal) };
    assert_eq!(collect(&board), [death]);
    // the worker's descriptor will tell the master
    board.record_end(12, Cause::Signal(signal));
    assert_eq!(board.slot(watched).recorded(), Some(Cause::Signal(signal)));
    assert!(!board.has_dead());
    // a second crash while it dies does not put it on the stack twice
    board.record_end(10, Cause::Signal(signal));
    board.record_end(10, Cause::Signal(libc::SIGABRT as u8));
    assert_eq!(collect(&board), [Death { slot: first, listener: 0, cause: Cause::Signal(signal) }]);
    // the slot is free now: a process that has its pid is none of ours
    board.record_end(10, Cause::Signal(signal));
    assert!(!board.has_dead());
    // nor is that of one that was killed in the middle of its work
    let killed = start(&board, 0, 13);
    board.reap(killed, KILLED, board.epoch);
    board.record_end(13, Cause::Signal(signal));
    assert!(!board.has_dead());
}

#[test]
fn a_crash_is_recorded_whatever_the_hint_says() {
    let board = board(&[4]);
    let cause = Cause::Signal(libc::SIGTERM as u8);
    // before the master has noted its birth
    let unborn = board.take(0, false, board.epoch).unwrap();
    has_pid(&board, unborn, 10);
    board.record_end(10, cause);
    assert_eq!(board.slot(unborn).recorded(), Some(cause));
    // another child's pid has the same place
    let [older, newer] = [11, 11 + PIDS as u32].map(|pid| start(&board, 0, pid));
    board.record_end(11, cause);
    board.record_end(11 + PIDS as u32, cause);
    assert_eq!(slots(&collect(&board)), [newer, older, unborn]);
    // one that went wild has written there
    for hint in [0, 1, u32::MAX] {
        let index = start(&board, 0, 12);
        board.finder_of(12).store(hint, Ordering::Relaxed);
        board.record_end(12, cause);
        assert_eq!(slots(&collect(&board)), [index]);
    }
}

#[test]
fn refusals_are_counted_by_cause_and_listener() {
    let board = board(&[1, 1]);
    board.refuse(1, Refusal::HopLimit);
    board.refuse(1, Refusal::HopLimit);
    board.refuse(1, Refusal::Limit);
    let shown =
        |listener| board.tally(listener).refused().map(|(why, n)| format!("{why}={n}")).collect::<Vec<_>>();
    assert_eq!(shown(1), ["limit=1", "hop-limit=2"]);
    assert_eq!(shown(0), [""; 0]);
}

#[test]
fn an_elastic_pool_s_worker_tells_when_too_few_are_idle() {
    let board = board(&[4]);
    board.totals(0).set_wanted_idle(1);
    (0..3).for_each(|_| board.tally(0).one_more_idle());
    let wakes = [(); 4].map(|()| {
        board.one_fewer_idle(0);
        let notified = notified(&board);
        board.wake().drain();
        notified
    });
    assert_eq!(wakes, [false, false, true, true]);
    // a count that went wrong stays at none
    assert_eq!(board.tally(0).idle.load(Ordering::Relaxed), 0);
}

#[test]
fn a_child_that_went_wild_in_its_slot_is_reaped_like_any_other() {
    let board = board(&[1, 2]);
    let before = start(&board, 1, 10);
    Traffic::add(&board.slot(before).traffic.bytes_in, 5);
    board.announce(before, Cause::Done);
    collect(&board);
    let wild = start(&board, 1, 11);
    let slot = board.slot(wild);
    [&slot.pid, &slot.next].iter().for_each(|cell| cell.store(u32::MAX, Ordering::Relaxed));
    let Traffic { connections, bytes_in, bytes_out, failed } = &slot.traffic;
    [connections, bytes_in, bytes_out, failed]
        .iter()
        .for_each(|cell| cell.store(u64::MAX, Ordering::Relaxed));
    let mut deaths = Vec::new();
    board.sweep(0, usize::MAX, board.epoch, |_| false, || KILLED, |_, death| deaths.push(death));
    let death = Death { slot: wild, listener: 1, cause: Cause::Signal(libc::SIGKILL as u8) };
    assert_eq!(deaths, [death]);
    assert_eq!(start(&board, 1, 12), wild);
}

#[test]
fn a_stack_that_a_child_has_tangled_harms_no_other() {
    for tangle in [0, 1, 2, u32::MAX] {
        let board = board(&[4]);
        let living = start(&board, 0, 10);
        let wild = start(&board, 0, 11);
        board.announce(wild, Cause::Done);
        // to the living one, to itself, to one that was never used, to nowhere
        board.slot(wild).next.store(tangle.wrapping_add(1), Ordering::Relaxed);
        assert_eq!(slots(&collect(&board)), [wild]);
        assert_eq!(board.slot(living).state(), State::Serving);
        // each slot is given once
        let mut given: Vec<u32> = (0..9).filter_map(|_| board.take(0, false, board.epoch)).collect();
        given.sort_unstable();
        assert_eq!(given, [1, 2, 3]);
    }
}

#[test]
fn a_worker_serves_as_long_as_it_has_connections() {
    let board = board(&[]);
    let slot = board.slot(board.take(0, true, board.epoch).unwrap());
    slot.set_state(State::Idle);
    assert_eq!((slot.state(), slot.serving()), (State::Idle, 0));
    slot.open.store(2, Ordering::Relaxed);
    assert_eq!((slot.state(), slot.serving()), (State::Serving, 2));
    slot.set_state(State::Leaving);
    assert_eq!((slot.state(), slot.serving()), (State::Leaving, 2));
}

#[test]
fn a_child_that_panicked_has_a_connection_that_failed() {
    let board = board(&[3]);
    for (pid, cause) in [(1, Cause::Done), (2, Cause::Failed), (3, Cause::Panicked)] {
        let index = start(&board, 0, pid);
        // as its handler's error is counted, by the child
        Traffic::add(&board.slot(index).traffic.failed, u64::from(cause == Cause::Failed));
        board.reap(index, cause, board.epoch);
    }
    assert_eq!(board.totals(0).failed.load(Ordering::Relaxed), 2);
}

#[test]
fn a_spare_child_wakes_the_master_if_it_was_told_to_in_time() {
    let board = board(&[9]);
    let [early, late, other] = [1, 2, 3].map(|pid| {
        let index = start(&board, 0, pid);
        board.slot(index).set_state(State::Idle);
        board.slot(index)
    });
    assert!(early.will_wake() && early.begin_to_serve());
    assert!(!late.begin_to_serve() && !late.will_wake());
    assert!(!other.begin_to_serve());
}
