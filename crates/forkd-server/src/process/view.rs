//! What a master shows of itself: to its log, and to its [companions](super::companion::Companion).

mod socket;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::info;

pub use socket::{AcceptedBy, Socket};
pub use worker::WorkerActivity;

use super::context::Context;
use super::idle_exit::Sight;
use super::listeners::Listeners;
use super::sample::spread;
use super::station::{Acceptor, Life, Station};
use crate::access::AccessSpec;
use crate::access::listing::{self, Listing};
use crate::access::rules::Rule;
use crate::model::listener_context::ListenerContext;
use crate::scoreboard::{Stage, State, Sums};
use crate::sys::clock::monotonic_us;
use crate::sys::fd::wait_readable;
use crate::sys::usage::Usage;
use crate::transport::{Arrivals, Peer};

/// The master as it is now; it can be read, and its set of descriptors changed.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) cx: &'a Context,
    pub(super) listeners: &'a Listeners,
}

/// A listening socket, and what its children have done, living and dead.
#[derive(Debug)]
pub struct Activity {
    /// The socket.
    pub socket: Socket,
    /// Children alive now.
    pub alive: u32,
    /// The most that were alive at once.
    pub peak: u32,
    /// Children forked so far.
    pub forked: u64,
    /// What they have done.
    pub sums: Sums,
    /// Connections that have not completed their first exchange, where that is limited.
    pub early: u32,
    /// Clients turned away, by cause.
    pub refused: BTreeMap<String, u64>,
    /// Connections that a limit of time has ended, by that limit.
    pub timed_out: BTreeMap<String, u64>,
    /// Children that have ended, by cause.
    pub deaths: BTreeMap<String, u64>,
    /// Workers that have ended though nothing has told them to.
    pub restarts: u64,
    /// How evenly connections are spread over workers that serve many each: Jain's index.
    pub spread: Option<f64>,
}

/// A living child, as it says itself.
#[derive(Debug)]
pub struct ChildActivity {
    /// Its process id.
    pub pid: u32,
    /// Its line of the scoreboard.
    pub slot: u32,
    /// The number of its listening socket.
    pub socket: usize,
    /// What it is doing.
    pub state: State,
    /// How many connections it serves.
    pub serving: u32,
    /// How many threads it has, without those that a handler starts.
    pub threads: u32,
    /// The client that it serves, or served last.
    pub peer: Peer,
    /// How long ago it was forked.
    pub age: Duration,
    /// What it has done.
    pub sums: Sums,
    /// What else is known of it, if it is a worker that accepts by itself.
    pub worker: Option<WorkerActivity>,
}

impl<'a> View<'a> {
    /// When this turn of the master's loop began.
    pub fn now(&self) -> Instant {
        self.cx.now
    }

    /// Whether the first workers are up.
    pub fn is_ready(&self) -> bool {
        self.cx.is_ready
    }

    /// Whether it serves, and has not been told to stop.
    pub fn is_running(&self) -> bool {
        self.cx.lifecycle.is_running()
    }

    /// Whether workers accept, whose connections don't wake the master.
    pub fn has_pool(&self) -> bool {
        self.listeners.iter().any(|station| matches!(station.acceptor, Acceptor::Pooling(_)))
    }

    /// How long ago the master started.
    pub fn uptime(&self) -> Duration {
        Duration::from_millis(self.cx.board.millis(self.cx.now))
    }

    /// Where it is on its way from the start to the end.
    pub fn stage(&self) -> Stage {
        self.cx.board.stage()
    }

    /// Has children close this descriptor.
    pub fn keep_from_children(&self, fd: RawFd) {
        self.cx.descriptors.add([fd]);
    }

    /// The descriptor has been closed: its number may soon be that of a client.
    pub fn forget(&self, fd: RawFd) {
        self.cx.descriptors.remove(fd);
    }

    /// The listening sockets, each once.
    pub(crate) fn sockets(self) -> impl Iterator<Item = Socket> + 'a {
        Socket::all(self.listeners)
    }

    /// What has happened at each listening socket.
    pub fn activities(self) -> Vec<Activity> {
        let mut activities: Vec<_> = self.sockets().map(|socket| self.activity(socket)).collect();
        let now = self.cx.board.millis(self.cx.now);
        for child in self.cx.board.children() {
            let socket = child.listener();
            if let Some(of) = activities.iter_mut().find(|activity| activity.socket.number == socket) {
                of.sums = of.sums.and(child.carried(now));
            }
        }
        activities
    }

    /// Logs what has happened, a line for each listening socket, and for each worker that accepts by itself.
    pub(super) fn log(self) {
        let known = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let counts = |map: &BTreeMap<String, u64>| -> String {
            let all: Vec<String> = map.iter().map(|(cause, n)| format!("{cause}:{n}")).collect();
            if all.is_empty() { "-".to_owned() } else { all.join(",") }
        };
        let uptime_s = self.uptime().as_millis() as f64 / 1000.0;
        for activity in self.activities() {
            let Activity { socket, alive, peak, forked, sums, refused, timed_out, deaths, .. } = activity;
            let Activity { restarts, spread, .. } = activity;
            let Socket { endpoint, accepted_by, arrivals: Arrivals { queued, dropped, .. }, .. } = socket;
            // what is not known is left out
            let [connections, failed, bytes_in, bytes_out] =
                [sums.connections, sums.failed, sums.bytes_in, sums.bytes_out]
                    .map(|n| accepted_by.may_tell().then_some(n));
            info!(
                endpoint:%, alive, peak, forked, connections, bytes_in, bytes_out, failed, queued:% = known(queued), dropped:% = known(dropped),
                refused:% = counts(&refused), timed_out:% = counts(&timed_out), deaths:% = counts(&deaths), restarts,
                spread:% = spread.map_or_else(|| "-".to_owned(), |index| format!("{index:.2}")), uptime_s; "status of {endpoint}"
            );
        }
        for child in self.child_activities() {
            let ChildActivity { pid, state, age, worker: Some(activity), .. } = child else { continue };
            let WorkerActivity { number: worker, generation, status, cpu, rss: rss_bytes } = activity;
            let (state, age_s, cpu_s) = (state.name(), age.as_secs_f64(), cpu.map(|cpu| cpu.as_secs_f64()));
            info!(worker, generation, pid, state, age_s, cpu_s, rss_bytes, status; "status of a worker");
        }
    }

    fn activity(&self, socket: Socket) -> Activity {
        let (totals, tally) = (self.cx.board.totals(socket.number), self.cx.board.tally(socket.number));
        Activity {
            alive: totals.alive.load(Ordering::Relaxed),
            peak: totals.peak.load(Ordering::Relaxed),
            forked: totals.forked.load(Ordering::Relaxed),
            sums: totals.sums(),
            early: tally.early.load(Ordering::Relaxed),
            refused: tally.refused().map(|(why, n)| (why.to_string(), n)).collect(),
            timed_out: tally.timed_out().map(|(limit, n)| (limit.name().to_owned(), n)).collect(),
            deaths: totals.deaths().map(|(cause, n)| (cause.to_string(), n)).collect(),
            restarts: totals.restarts(),
            spread: spread(self.cx.board, &socket),
            socket,
        }
    }

    /// What the listening sockets are bound to, by their numbers.
    pub fn endpoints(self) -> HashMap<usize, String> {
        let stations = self.listeners.current();
        stations.map(|station| (station.number(), station.endpoint().to_string())).collect()
    }

    /// What is known of sources: of `most` at most, the worst.
    pub fn sources(self, most: usize) -> Listing {
        let policies = self.policies();
        let policy = |number: usize| policies.get(number).copied().flatten();
        listing::list(self.cx.board.sources(), policy, most, monotonic_us())
    }

    /// Forgets what the sources have done that fit a rule; tells which of them would be refused still.
    pub fn pardon(self, rule: Rule, most: usize) -> Listing {
        let policies = self.policies();
        let policy = |number: usize| policies.get(number).copied().flatten();
        listing::pardon(self.cx.board.sources(), policy, rule, most, monotonic_us())
    }

    /// How clients are let in at the listening sockets, by their numbers.
    fn policies(self) -> Vec<Option<&'a AccessSpec>> {
        let mut policies = Vec::new();
        for station in self.listeners.current() {
            let number = station.number();
            policies.resize(policies.len().max(number + 1), None);
            policies[number] = station.context().and_then(ListenerContext::policy);
        }
        policies
    }

    /// What each living child does. Of each worker that accepts by itself two files of /proc are read.
    pub fn child_activities(self) -> impl Iterator<Item = ChildActivity> + 'a {
        let board = self.cx.board;
        let (now, telling, statuses) = (board.millis(self.cx.now), self.telling(), self.statuses());
        board.children().map(move |child| ChildActivity {
            pid: child.pid(),
            slot: child.index,
            socket: child.listener(),
            state: match child.slot.state() {
                State::Idle if child.place().is_some() && !telling.contains(&child.listener()) => {
                    State::Ready
                }
                state => state,
            },
            serving: child.serving(),
            threads: child.slot.threads(),
            peer: child.slot.peer(),
            age: self.cx.age(&child),
            sums: child.carried(now),
            worker: WorkerActivity::of(&child, statuses.get(&child.index).copied(), Usage::of),
        })
    }

    /// The numbers of the listening sockets whose children have told of a client.
    fn telling(self) -> HashSet<usize> {
        let board = self.cx.board;
        let dead = self.listeners.current().map(Station::number);
        let dead = dead.filter(|&number| board.totals(number).sums().connections > 0);
        let now = board.millis(self.cx.now);
        let alive = board.children().filter(|child| child.carried(now).connections > 0);
        dead.chain(alive.map(|child| child.listener())).collect()
    }

    /// What workers say of themselves, by their slots.
    fn statuses(self) -> HashMap<u32, &'a str> {
        let of = |station: &'a Station| match &station.acceptor {
            Acceptor::Pooling(pooling) => Some(pooling.statuses()),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        };
        self.listeners.iter().filter_map(of).flatten().collect()
    }

    /// How many children there are.
    pub fn children(&self) -> u32 {
        self.listeners.current().map(|station| station.alive(self.cx)).sum()
    }

    /// What tells whether there is nothing to do.
    pub(super) fn sight(self, is_upgrading: bool) -> Sight {
        let is_changing = is_upgrading
            || !self.is_ready()
            // a stop that was announced takes clients until it begins
            || !self.cx.lifecycle.is_running()
            || self.listeners.in_life(Life::Starting).next().is_some();
        let queued = |station: &Station| {
            station.listener().is_some_and(|listener| wait_readable(listener, Duration::ZERO))
        };
        Sight {
            is_busy: is_changing || self.cx.board.children().any(|child| child.serving() > 0),
            clients: self.connections(),
            children: self.children(),
            is_queued: self.listeners.in_life(Life::Live).any(queued),
        }
    }

    /// How many connections and datagrams there have been, of children dead or alive.
    pub fn connections(&self) -> u64 {
        let board = self.cx.board;
        let ended = self.listeners.current().map(|station| board.totals(station.number()).sums().connections);
        let now = board.millis(self.cx.now);
        let going_on = board.children().map(|child| child.carried(now).connections);
        ended.chain(going_on).fold(self.listeners.past_connections(), u64::saturating_add)
    }

    /// What the system refuses to start, why, and how many clients wait for that reason.
    pub fn shortage(&self) -> Option<String> {
        let board = self.cx.board;
        let by_master = self.listeners.current().map(|station| board.totals(station.number()).held());
        let held: u32 = by_master.chain(board.children().map(|child| child.held())).sum();
        let holding = if held > 0 { format!(", holding {held}") } else { String::new() };
        let cannot = |what: &str, errno| format!("{what}: {}{holding}", io::Error::from_raw_os_error(errno));
        if self.cx.shortage.retry_at().is_some() {
            return Some(cannot("cannot fork", self.cx.fork_errno));
        }
        if let Some(errno) = self.listeners.iter().find_map(Station::cannot_fork_workers) {
            return Some(cannot("cannot fork all workers", errno));
        }
        (held > 0).then(|| format!("cannot start threads{holding}"))
    }
}
