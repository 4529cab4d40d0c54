//! One reading of the scoreboard, by a process that is not the master, and of what /proc says of workers that accept by
//! themselves.
//!
//! The master reaps children meanwhile, which moves a child's counters from its slot to the totals.
//! Totals are read first (see `Scoreboard::sums`), so a child that is reaped in between may be missed, and
//! is never counted twice; and as no counter is said to be lower than it was said before, which a
//! scraper would take for a restart, it is only late.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::view::{AcceptedBy, Socket, WorkerActivity};
use crate::model::spread::index;
use crate::scoreboard::{Cause, Child, Lengths, Place, Scoreboard, Stage, State, Sums};
use crate::sys::procfs::kept;
use crate::sys::usage::Usage;
use crate::transport::arrivals::Arrivals;
use crate::transport::refusal::Refusal;
use crate::transport::timed_out::TimedOut;

/// The states that a child can be seen in.
pub const STATES: [State; 6] =
    [State::Starting, State::Idle, State::Serving, State::Leaving, State::Ended, State::Ready];

/// What is known of all listening sockets.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Where it is on its way from the start to the end.
    pub stage: Stage,
    /// How long the turn of the master's loop is overdue.
    pub overdue: Duration,
    /// One for each listening socket.
    pub listeners: Vec<ListenerSample>,
}

/// What is known of one listening socket and its children.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListenerSample {
    /// Its number on the scoreboard.
    pub number: usize,
    /// What it is bound to.
    pub endpoint: String,
    /// What is served.
    pub service: String,
    /// Which processes serve it.
    pub model: String,
    /// Whether workers accept.
    pub has_pool: bool,
    /// Which processes those are.
    pub accepted_by: AcceptedBy,
    /// Workers that accept by themselves; of two with one place in their pool, the one that came later.
    pub workers: Vec<WorkerActivity>,
    /// Workers that have ended though nothing has told them to.
    pub restarts: u64,
    /// Children in each of [`STATES`].
    pub states: [u32; STATES.len()],
    /// The most children that were alive at once.
    pub peak: u32,
    /// The most children at once; of a pool, workers that have not been told to leave.
    pub limit: u32,
    /// Children forked so far.
    pub forked: u64,
    /// Over children dead and alive.
    pub sums: Sums,
    /// Threads of all children.
    pub threads: u32,
    /// How many connections each child serves at once; `None` where there are none.
    pub connections_each: Option<u32>,
    /// Connections that are being served.
    pub serving: u32,
    /// How evenly they are spread over workers that serve many each: Jain's index.
    pub spread: Option<f64>,
    /// Clients that wait for a child or a thread that the system refuses to start.
    pub held: u32,
    /// How often it has refused to start a process, and a thread.
    pub failed_starts: [u64; 2],
    /// Connections that have not completed their first exchange, where an early drop counts them.
    pub early: u32,
    /// Clients that the kernel holds, or has dropped.
    pub arrivals: Arrivals,
    /// Clients turned away, by cause.
    pub refused: Vec<(Refusal, u64)>,
    /// Connections that a limit of time has ended, by that limit.
    pub timed_out: Vec<(TimedOut, u64)>,
    /// Children that have ended, by cause.
    pub deaths: Vec<(Cause, u64)>,
    /// How long connections have lasted.
    pub durations: Lengths,
    /// How long clients waited in the queue until they were accepted.
    pub accept_latencies: Lengths,
    /// How long accepted clients waited for a child of their own.
    pub fork_latencies: Lengths,
    /// How long workers have lived.
    pub lifetimes: Lengths,
}

impl Sample {
    /// Reads everything; no counter is lower than it was in the `last` sample.
    pub fn read(board: &Scoreboard, sockets: &[Socket], last: &Self) -> Self {
        let mut listeners: Vec<ListenerSample> =
            sockets.iter().map(|socket| ListenerSample::of_totals(board, socket)).collect();
        let read_at = Instant::now();
        let now = board.millis(read_at);
        // what is kept open is the master's, and this process has closed it
        let usage = |pid| if kept().is_none() { Usage::of(pid) } else { None };
        // a worker may have the place of one that leaves
        let mut newest: BTreeMap<(usize, Place), Child<'_>> = BTreeMap::new();
        for child in board.children() {
            let number = child.listener();
            let Some(listener) = listeners.iter_mut().find(|listener| listener.number == number) else {
                continue;
            };
            let state = child.slot.state();
            if let Some(at) = STATES.iter().position(|&known| known == state) {
                listener.states[at] += 1;
            }
            listener.threads = listener.threads.saturating_add(child.slot.threads());
            listener.serving = listener.serving.saturating_add(child.serving());
            listener.held = listener.held.saturating_add(child.held());
            listener.sums = listener.sums.and(child.carried(now));
            if let Some(place) = child.place() {
                let newest = newest.entry((number, place)).or_insert(child);
                if newest.started_ms() < child.started_ms() {
                    *newest = child;
                }
            }
        }
        for ((number, _), child) in newest {
            let of = listeners.iter_mut().find(|listener| listener.number == number);
            of.into_iter().for_each(|of| of.workers.extend(WorkerActivity::of(&child, None, usage)));
        }
        for listener in &mut listeners {
            if listener.accepted_by.is_application() && listener.sums.connections == 0 {
                listener.idle_are_ready();
            }
            if let Some(last) = last.listeners.iter().find(|last| last.number == listener.number) {
                listener.sums = listener.sums.at_least(&last.sums);
            }
        }
        Self { stage: board.stage(), overdue: board.overdue(read_at), listeners }
    }
}

impl ListenerSample {
    /// None of its workers has told of a client: those that have said nothing may have any number.
    fn idle_are_ready(&mut self) {
        let place = |state| STATES.iter().position(|&known| known == state);
        if let (Some(idle), Some(ready)) = (place(State::Idle), place(State::Ready)) {
            self.states[ready] = std::mem::take(&mut self.states[idle]);
        }
    }

    /// Whether its workers say when they have a client and when they wait for one.
    #[must_use]
    pub fn tells_who_is_busy(&self) -> bool {
        let have_told = !self.accepted_by.is_application() || self.sums.connections > 0;
        self.has_pool && self.accepted_by.may_tell() && have_told
    }

    /// What is known without looking at children.
    fn of_totals(board: &Scoreboard, socket: &Socket) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let (totals, tally) = (board.totals(socket.number), board.tally(socket.number));
        let refused = Refusal::ALL.map(|why| (why, 0)).into_iter();
        let timed_out = TimedOut::ALL.map(|limit| (limit, 0)).into_iter();
        let deaths = Cause::NAMED.map(|cause| (cause, 0)).into_iter();
        Self {
            number: socket.number,
            endpoint: socket.endpoint.clone(),
            service: socket.service.clone(),
            model: socket.model.to_string(),
            has_pool: socket.model.has_pool(),
            accepted_by: socket.accepted_by.clone(),
            restarts: totals.restarts(),
            connections_each: socket.connections_each,
            peak: totals.peak.load(Relaxed),
            limit: totals.limit(),
            forked: totals.forked.load(Relaxed),
            held: totals.held(),
            early: tally.early.load(Relaxed),
            failed_starts: [totals.failed_forks(), tally.failed_threads()],
            sums: board.sums(socket.number),
            spread: spread(board, socket),
            arrivals: socket.listener.as_ref().map_or(socket.arrivals, |listener| listener.arrivals()),
            refused: with_counts(refused, tally.refused()),
            timed_out: with_counts(timed_out, tally.timed_out()),
            deaths: with_counts(deaths, totals.deaths()),
            durations: totals.durations.read().and(&tally.durations.read()),
            accept_latencies: tally.accept_latencies.read(),
            fork_latencies: totals.fork_latencies.read(),
            lifetimes: totals.lifetimes.read(),
            ..Self::default()
        }
    }
}

/// How evenly connections are spread over the workers that take clients, where each serves many.
pub(super) fn spread(board: &Scoreboard, socket: &Socket) -> Option<f64> {
    if !socket.model.has_pool() || socket.model.serves_one_at_a_time() {
        return None;
    }
    let takes = |child: &Child<'_>| {
        child.listener() == socket.number && matches!(child.slot.state(), State::Idle | State::Serving)
    };
    index(board.children().filter(takes).map(|child| child.serving()))
}

/// Those that are always named, as one that appears with its first count has no rate; and those that happened.
fn with_counts<K: PartialEq>(
    named: impl Iterator<Item = (K, u64)>,
    happened: impl Iterator<Item = (K, u64)>,
) -> Vec<(K, u64)> {
    let mut counts: Vec<(K, u64)> = named.collect();
    for (key, n) in happened {
        match counts.iter_mut().find(|(other, _)| *other == key) {
            Some(count) => count.1 = n,
            None => counts.push((key, n)),
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::transport::Traffic;
    use std::sync::atomic::Ordering;

    fn face(number: usize, model: Model) -> Socket {
        Socket {
            number,
            endpoint: format!("tcp://x:{number}"),
            service: "echo".into(),
            model,
            accepted_by: AcceptedBy::Model,
            connections_each: Some(1),
            listener: None,
            arrivals: Arrivals::default(),
        }
    }

    fn read(board: &Scoreboard, last: &Sample) -> Sample {
        Sample::read(board, &[face(0, Model::Fork), face(1, Model::Prefork)], last)
    }

    #[test]
    fn adds_the_living_to_the_dead() {
        let board = Scoreboard::new().unwrap();
        board.totals(0).set_limit(9);
        let slots = [(0, false), (0, false), (1, true)].map(|(listener, watched)| {
            let index = board.take(listener, watched, Instant::now()).unwrap();
            board.slot(index).set_state(State::Serving);
            board.born(index);
            Traffic::add(&board.slot(index).traffic.connections, 1);
            Traffic::add(&board.slot(index).traffic.bytes_in, 10);
            Traffic::add(&board.slot(index).traffic.failed, 1);
            board.slot(index).threads.store(4, Ordering::Relaxed);
            index
        });
        board.reap(slots[0], Cause::Done, Instant::now());
        let Sample { listeners, .. } = read(&board, &Sample::default());
        let [fork, pool] = &listeners[..] else { panic!("{listeners:?}") };
        assert_eq!(
            (fork.sums, fork.states),
            (Sums { connections: 2, bytes_in: 20, bytes_out: 0, failed: 2 }, [0, 0, 1, 0, 0, 0])
        );
        assert_eq!((fork.forked, fork.peak, fork.limit, fork.serving), (2, 2, 9, 1));
        assert_eq!((fork.threads, pool.threads), (4, 4));
        assert_eq!((pool.sums.connections, pool.limit, pool.has_pool), (1, 0, true));
        let died = |cause| fork.deaths.iter().find(|(other, _)| *other == cause).map(|(_, n)| *n);
        assert_eq!(
            (died(Cause::Done), died(Cause::Failed), died(Cause::Signal(9))),
            (Some(1), Some(0), None)
        );
    }

    #[test]
    fn a_child_that_is_missed_does_not_turn_a_counter_back() {
        let board = Scoreboard::new().unwrap();
        board.totals(0).set_limit(9);
        let index = board.take(0, false, Instant::now()).unwrap();
        board.slot(index).set_state(State::Serving);
        Traffic::add(&board.slot(index).traffic.connections, 1);
        let last = read(&board, &Sample::default());
        // as a reader sees it that has read the totals before the count, and the slots after it
        board.put_back(index);
        assert_eq!(read(&board, &Sample::default()).listeners[0].sums.connections, 0);
        assert_eq!(read(&board, &last).listeners[0].sums.connections, 1);
    }

    #[test]
    fn times_are_measured_where_that_is_asked_for() {
        let board = Scoreboard::new().unwrap();
        board.totals(0).set_limit(9);
        let live = || {
            let index = board.take(0, false, Instant::now()).unwrap();
            let slot = board.slot(index);
            board.clock_us().into_iter().for_each(|now| board.record(index).set_accepted(now - 50));
            board.clock_us().into_iter().for_each(|now| slot.set_began(now));
            slot.set_state(State::Serving);
            board.announce(index, Cause::Done);
            board.collect(Instant::now(), |_, _| {});
            let listener = read(&board, &Sample::default()).listeners.swap_remove(0);
            let count = |lengths: Lengths| lengths.counts.iter().sum::<u64>();
            let counts = [listener.fork_latencies, listener.durations, listener.lifetimes].map(count);
            (counts, listener.fork_latencies.sum, listener.lifetimes.sum)
        };
        assert_eq!(live().0, [0; 3]);
        board.measure();
        let (counts, waited, lived) = live();
        assert_eq!(counts, [1; 3]);
        assert!(waited.as_micros() >= 50 && lived >= waited, "{waited:?} {lived:?}");
        // of a worker it is not known when its client came
        let then = Instant::now();
        let worker = board.take(0, true, then).unwrap();
        board.reap(worker, Cause::Retired, then + std::time::Duration::from_secs(3600));
        let lifetimes = read(&board, &Sample::default()).listeners[0].lifetimes;
        assert_eq!(lifetimes.sum, lived + std::time::Duration::from_secs(3600));
    }
}
