//! What a server has used between two moments of a phase.
//!
//! Both moments have the count of what the clients had done, so what lies between them is divided by what was
//! done meanwhile, and it doesn't matter when exactly they were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use super::process::{clocks, switches};
use super::system::System;
use super::tree::Tree;
use forkd_load::Live;

/// Where fewer threads than this are started for an operation, none is started for each.
const FEW: f64 = 0.1;

/// A moment.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    at: Instant,
    done: u64,
    /// Processor time of the server's control group.
    group: Option<Duration>,
    /// Where there is none, of each of its processes.
    clocks: BTreeMap<u32, Duration>,
    /// The context switches of each of its threads, if those seem to stay.
    switches: BTreeMap<u32, u64>,
    system: Option<System>,
    /// Our own processor time and context switches.
    own: Option<(Duration, u64)>,
}

impl Mark {
    /// `idle`: how many threads there are without clients; if there are as many, they are likely to stay.
    pub(super) fn now(tree: &Tree, live: &Live, idle: Option<u32>) -> Self {
        let processes = tree.ids();
        let switches = idle.map(|threads| switches(&processes, threads)).unwrap_or_default();
        let group = tree.group().and_then(super::cgroup::Group::cpu);
        let clocks = if group.is_none() { clocks(&processes) } else { BTreeMap::new() };
        let (system, own) = (System::now(), own());
        Self { at: Instant::now(), done: live.done(), group, clocks, switches, system, own }
    }

    /// What was used since then, when at most `peak` processes were seen; of what only the machine counts, what
    /// it does by itself is left out.
    pub(super) fn until(&self, end: &Self, peak: u32, rest: &Rest) -> Usage {
        let seconds = (end.at - self.at).as_secs_f64();
        let both = |before: Option<Duration>, after: Option<Duration>| {
            Some(after?.saturating_sub(before?).as_secs_f64())
        };
        let system = self.system.zip(end.system);
        let busy = system.map(|(before, after)| after.busy.saturating_sub(before.busy).as_secs_f64());
        let stolen = system.map(|(before, after)| after.stolen.saturating_sub(before.stolen).as_secs_f64());
        let (own_before, own_after) = (self.own.unzip(), end.own.unzip());
        let own = both(own_before.0, own_after.0).unwrap_or(0.0);
        let group = both(self.group, end.group);
        let beside = busy.map(|busy| busy - own - rest.cpu * seconds).filter(|beside| *beside > 0.0);
        let known = group.or_else(|| self.by_clocks(end, peak));
        let switches = own_after.1.unwrap_or(0).saturating_sub(own_before.1.unwrap_or(0)) as f64;
        let beyond = |count: fn(&System) -> u64, less: f64| {
            system
                .map(|(before, after)| (count(&after).saturating_sub(count(&before)) as f64 - less).max(0.0))
        };
        let share = |spent: Option<f64>| {
            spent.map(|spent| if seconds > 0.0 { (spent / seconds).max(0.0) } else { 0.0 })
        };
        let done = end.done.saturating_sub(self.done) as f64;
        let forks = beyond(|system| system.forks, rest.forks * seconds);
        // those that came and went between two looks are in no thread's count
        let stay = forks.is_some_and(|forks| forks < done * FEW);
        Usage {
            done,
            cpu: known.or(beside),
            is_estimated: known.is_none(),
            switches: self
                .by_threads(end)
                .filter(|_| stay)
                .or_else(|| beyond(|system| system.switches, switches + rest.switches * seconds)),
            forks,
            others: share(group.and_then(|group| Some(busy? - own - group))),
            stolen: share(stolen),
        }
    }
}

impl Mark {
    /// By the counts of the threads, if those are the same.
    fn by_threads(&self, end: &Self) -> Option<f64> {
        let is_same = !self.switches.is_empty() && self.switches.keys().eq(end.switches.keys());
        let sum = |mark: &Self| mark.switches.values().sum::<u64>();
        is_same.then(|| sum(end).saturating_sub(sum(self)) as f64)
    }

    /// By the clocks of the processes, if those were always the same: the time of one that came and went is lost.
    fn by_clocks(&self, end: &Self, peak: u32) -> Option<f64> {
        let is_same = self.clocks.keys().eq(end.clocks.keys()) && peak <= self.clocks.len() as u32;
        let spent =
            |(process, before): (&u32, &Duration)| end.clocks[process].saturating_sub(*before).as_secs_f64();
        (is_same && !self.clocks.is_empty()).then(|| self.clocks.iter().map(spent).sum())
    }
}

/// What was used, and for how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// Operations of the clients.
    pub(super) done: f64,
    /// Processor seconds of the server.
    pub(super) cpu: Option<f64>,
    /// Whether that is only what the machine did beside the client.
    pub(super) is_estimated: bool,
    /// Context switches: of the server's threads if they stay, else of all but the client.
    pub(super) switches: Option<f64>,
    /// Processes and threads that were started.
    pub(super) forks: Option<f64>,
    /// The share of a processor that neither the server nor the client had; only known with a control group.
    pub(super) others: Option<f64>,
    /// The share of a processor that other machines on the same hardware had.
    pub(super) stolen: Option<f64>,
}

impl Usage {
    /// For one operation.
    pub(super) fn each(&self, what: Option<f64>) -> Option<f64> {
        what.filter(|_| self.done > 0.0).map(|what| what / self.done)
    }

    /// Processor microseconds for one operation.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        self.each(self.cpu).map(|seconds| seconds * 1e6)
    }
}

/// What the machine does each second while nothing is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rest {
    /// Processor seconds.
    pub(super) cpu: f64,
    switches: f64,
    forks: f64,
}

impl Rest {
    /// Looks at the machine for a while.
    pub(super) fn over(span: Duration) -> Self {
        let (none, live) = (Tree::unknown(), Live::default());
        let before = Mark::now(&none, &live, None);
        std::thread::sleep(span);
        let after = Mark::now(&none, &live, None);
        let seconds = (after.at - before.at).as_secs_f64();
        let usage = before.until(&after, 0, &Self::default());
        let rate = |count: Option<f64>| count.unwrap_or(0.0) / seconds;
        Self { cpu: rate(usage.cpu), switches: rate(usage.switches), forks: rate(usage.forks) }
    }
}

fn own() -> Option<(Duration, u64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let span = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    Some((span(usage.user_time()) + span(usage.system_time()), switches.unsigned_abs() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(
        at: Instant,
        millis: u64,
        done: u64,
        group: Option<u64>,
        busy: u64,
        count: u64,
        own: u64,
    ) -> Mark {
        let span = Duration::from_millis;
        let system = System { busy: span(busy), stolen: span(busy / 10), switches: count * 10, forks: count };
        Mark {
            at: at + span(millis),
            done,
            group: group.map(span),
            clocks: BTreeMap::from([(7, span(own / 2)), (8, span(own / 2))]),
            switches: BTreeMap::new(),
            system: Some(system),
            own: Some((span(own), own)),
        }
    }

    #[test]
    fn a_control_group_tells_the_server_from_the_others() {
        let at = Instant::now();
        let before = mark(at, 0, 100, Some(50), 1000, 5, 10);
        let after = mark(at, 1000, 300, Some(450), 2000, 105, 310);
        let usage = before.until(&after, 9, &Rest::default());
        assert_eq!((usage.done, usage.cpu), (200.0, Some(0.4)));
        assert_eq!(usage.cpu_us().map(f64::round), Some(2000.0));
        // 1 s of work, of which 0.3 were the client's and 0.4 the server's
        assert_eq!(usage.others.map(|share| (share * 10.0).round()), Some(3.0));
        assert_eq!((usage.forks, usage.switches, usage.stolen), (Some(100.0), Some(700.0), Some(0.1)));
    }

    #[test]
    fn without_one_it_is_what_the_machine_did_beyond_its_rest() {
        let at = Instant::now();
        let rest = Rest { cpu: 0.2, switches: 100.0, forks: 40.0 };
        let usage = mark(at, 0, 0, None, 0, 0, 0).until(&mark(at, 1000, 100, None, 1000, 100, 300), 9, &rest);
        assert_eq!(usage.cpu.map(|cpu| (cpu * 100.0).round()), Some(50.0));
        assert_eq!((usage.forks, usage.switches, usage.others), (Some(60.0), Some(600.0), None));
    }

    #[test]
    fn without_one_processes_that_stay_have_clocks() {
        let at = Instant::now();
        let (before, mut after) = (mark(at, 0, 0, None, 0, 0, 0), mark(at, 1000, 100, None, 1000, 100, 300));
        let usage = before.until(&after, 2, &Rest::default());
        assert_eq!((usage.cpu.map(|cpu| (cpu * 100.0).round()), usage.is_estimated), (Some(30.0), false));
        // a third one was seen, or another one is there at the end
        assert!(before.until(&after, 3, &Rest::default()).is_estimated);
        after.clocks.remove(&7);
        assert!(before.until(&after, 2, &Rest::default()).is_estimated);
        // the machine's counters say nothing
        after.system = before.system;
        assert_eq!(before.until(&after, 2, &Rest::default()).cpu, None);
    }

    #[test]
    fn threads_that_stay_count_their_switches_themselves() {
        let at = Instant::now();
        let (mut before, mut after) =
            (mark(at, 0, 0, None, 0, 0, 0), mark(at, 1000, 1001, None, 1000, 100, 300));
        (before.switches, after.switches) =
            (BTreeMap::from([(7, 10), (8, 0)]), BTreeMap::from([(7, 30), (8, 5)]));
        let switches = |before: &Mark, after: &Mark| before.until(after, 2, &Rest::default()).switches;
        assert_eq!(switches(&before, &after), Some(25.0));
        // one for every tenth operation may have been another one each time
        after.done = 1000;
        assert_eq!(switches(&before, &after), Some(700.0));
        after.done = 1001;
        after.switches.remove(&8);
        assert_eq!(switches(&before, &after), Some(700.0));
    }

    #[test]
    fn nothing_done_costs_nothing() {
        let at = Instant::now();
        let one = mark(at, 0, 7, Some(1), 1, 1, 1);
        let usage = one.until(&one, 9, &Rest::default());
        assert_eq!((usage.cpu_us(), usage.each(usage.forks)), (None, None));
    }
}
