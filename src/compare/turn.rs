//! A server's turn in a round: started anew, measured phase by phase, stopped.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::cgroup::Group;
use super::contestant::Contestant;
use super::counters::Counters;
use super::plan::Plan;
use super::record::{Bulk, Churn, Datagrams, Hold, Idle, PingPong};
use super::server::Server;
use super::tally::{Tally, errors};
use super::tree::Memory;
use super::usage::{Mark, Rest, Usage};
use super::watch::Watch;
use crate::Error;
use crate::load::{Live, Load, Outcome, Phase};

/// How long the processes of connections that are over may take to go, before it goes on without them.
const LEAVE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);

/// What the turns of a round have in common.
pub(super) struct Terms<'a> {
    pub(super) plan: &'a Plan,
    pub(super) live: &'a Arc<Live>,
    pub(super) rest: &'a Rest,
    /// The program that forkd's models are.
    pub(super) forkd: &'a Path,
}

/// Has a server its turn; what is found is in the tally also if the server fails.
pub(super) fn take(
    terms: &Terms<'_>,
    contestant: &Contestant,
    tally: &mut Tally,
    says: &mut dyn FnMut(Phase, usize),
) -> Result<Found, Error> {
    let server = Server::start(contestant, terms)?;
    let watch = Watch::new(&server.tree, terms.live);
    let is_first = tally.idle.is_empty();
    let (mut found, mut result) = (Found::default(), Ok(()));
    std::thread::scope(|scope| {
        let (held, over) = channel::<()>();
        let eyes = &watch;
        scope.spawn(move || eyes.run(&over));
        let mut turn = Turn { terms, contestant, server: &server, watch: &watch, tally, found: &mut found };
        result = turn.run(says);
        drop(held);
    });
    let moments = watch.moments();
    if is_first {
        tally.timeline = moments;
    }
    server.stop();
    result.map(|()| found)
}

/// What was noticed about the machine meanwhile: shares of a processor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// Somebody else's, at worst.
    pub(super) others: f64,
    /// Other machines', at worst.
    pub(super) stolen: f64,
}

struct Turn<'a> {
    terms: &'a Terms<'a>,
    contestant: &'a Contestant,
    server: &'a Server,
    watch: &'a Watch<'a>,
    tally: &'a mut Tally,
    found: &'a mut Found,
}

/// What a phase has shown from both sides.
struct Shown {
    outcome: Outcome,
    usage: Option<Usage>,
    counted: Option<(Counters, Counters)>,
    /// The most threads in the server's control group, before the phase and after it.
    peaks: Option<(u32, u32)>,
}

impl Turn<'_> {
    fn run(&mut self, says: &mut dyn FnMut(Phase, usize)) -> Result<(), Error> {
        let idle = self.watch.look();
        let memory = self.server.tree.memory();
        self.tally.idle.push(Idle {
            processes: idle.map(|count| count.processes.into()),
            threads: idle.map(|count| count.threads.into()),
            pss_kib: memory.map(|memory| memory.pss),
            uss_kib: memory.map(|memory| memory.uss),
        });
        let threads = idle.map(|count| count.threads);
        let plan = self.terms.plan;
        for &clients in &plan.clients {
            for &phase in &plan.phases {
                let is_once = matches!(phase, Phase::Bulk | Phase::Datagrams);
                if (is_once && clients != plan.most_clients()) || !self.contestant.has(phase) {
                    continue;
                }
                if self.terms.live.is_stopped() {
                    return Ok(());
                }
                says(phase, clients);
                self.watch.enter(Some(phase));
                let done = match phase {
                    Phase::Hold => self.hold(clients, memory),
                    _ => self.timed(phase, clients, threads),
                };
                self.watch.enter(None);
                if let Some(why) = self.server.failure() {
                    return Err(Error::Unavailable(format!("{why}, in {}", phase.name()).into()));
                }
                done?;
                self.leave(threads);
            }
        }
        Ok(())
    }

    fn load(&self, phase: Phase, clients: usize) -> Result<Load, Error> {
        let target = self.server.target(phase).ok_or_else(|| {
            Error::Internal(format!("{} has no socket for {}", self.contestant.name(), phase.name()))
        })?;
        Load::new(target.clone(), self.terms.plan.load(clients))
    }

    fn hold(&mut self, clients: usize, idle: Option<Memory>) -> Result<(), Error> {
        let load = self.load(Phase::Hold, clients)?;
        let held = load.hold(self.terms.live)?;
        let (count, memory) = (self.watch.look(), self.server.tree.memory());
        let outcome = held.release()?;
        if self.terms.live.is_stopped() {
            return Ok(());
        }
        let served = outcome.served as f64;
        let each = |of: fn(&Memory) -> f64| {
            let (held, idle) = (of(memory.as_ref()?), of(idle.as_ref()?));
            (served > 0.0).then(|| ((held - idle) / served).max(0.0))
        };
        self.tally.count(&outcome);
        self.tally.hold(
            clients,
            Hold {
                clients: Some(clients as f64),
                served: Some(served),
                still_served: outcome.still_served.map(|served| served as f64),
                seconds: Some(outcome.elapsed.as_secs_f64()),
                processes: count.map(|count| count.processes.into()),
                threads: count.map(|count| count.threads.into()),
                pss_kib_per_conn: each(|memory| memory.pss),
                uss_kib_per_conn: each(|memory| memory.uss),
                errors: Some(errors(&outcome)),
            },
        );
        Ok(())
    }

    fn timed(&mut self, phase: Phase, clients: usize, idle: Option<u32>) -> Result<(), Error> {
        let shown = self.observe(phase, clients, idle)?;
        // what was cut short is no round
        if self.terms.live.is_stopped() {
            return Ok(());
        }
        if let Some(usage) = shown.usage {
            self.found.others = self.found.others.max(usage.others.unwrap_or(0.0));
            self.found.stolen = self.found.stolen.max(usage.stolen.unwrap_or(0.0));
        }
        self.tally.count(&shown.outcome);
        match phase {
            Phase::Churn => {
                let figures = self.churn(&shown, clients);
                self.tally.churn(clients, figures, &shown.outcome);
            }
            Phase::PingPong => self.tally.pingpong(clients, pingpong(&shown), &shown.outcome),
            Phase::Bulk => self.tally.bulk(bulk(&shown, self.terms.plan.load(1).piece)),
            Phase::Datagrams => self.tally.datagrams(datagrams(&shown), &shown.outcome),
            Phase::Hold => {}
        }
        Ok(())
    }

    /// Carries out a phase between two marks.
    fn observe(&self, phase: Phase, clients: usize, idle: Option<u32>) -> Result<Shown, Error> {
        let load = self.load(phase, clients)?;
        let (live, tree) = (self.terms.live, &self.server.tree);
        let most = || tree.group().and_then(Group::peak);
        let (before, peak) = (self.server.counters(), most());
        // or the marker would see what the phase before has done
        live.begin();
        let (outcome, start) = std::thread::scope(|scope| {
            let (held, over) = channel::<()>();
            let warm_up = load.plan().warm_up;
            let marker = scope.spawn(move || begun(live, warm_up, &over).then(|| Mark::now(tree, live)));
            let outcome = load.run(phase, live);
            drop(held);
            (outcome, marker.join().ok().flatten())
        });
        let outcome = outcome?;
        if phase == Phase::Churn {
            // the end of a child belongs to its connection
            self.leave(idle);
        }
        let usage = start.map(|start| start.until(&Mark::now(tree, live), self.terms.rest));
        Ok(Shown { outcome, usage, counted: before.zip(self.server.counters()), peaks: peak.zip(most()) })
    }

    /// Waits until there are no more threads than before the clients came.
    fn leave(&self, threads: Option<u32>) {
        let Some(threads) = threads else { return };
        let until = Instant::now() + LEAVE;
        while self.server.tree.count().is_some_and(|count| count.threads > threads) && Instant::now() < until
        {
            std::thread::sleep(LOOK);
        }
    }

    fn churn(&self, shown: &Shown, clients: usize) -> Churn {
        let Shown { outcome, usage, counted, peaks } = shown;
        let percentile = |percent| micros(outcome, percent);
        let by_itself = counted.filter(|_| !self.contestant.starts_threads()).and_then(|(before, after)| {
            let connections = after.connections.saturating_sub(before.connections);
            let forked = after.forked.saturating_sub(before.forked);
            (connections > 0).then(|| forked as f64 / connections as f64)
        });
        // a peak of earlier phases says nothing of this one; the master is not among its children, and where
        // each process has one thread, threads are processes
        let idle = self.tally.idle.last();
        let has_threads = idle.is_none_or(|idle| idle.processes != idle.threads);
        let of_master = counted.map(|(before, after)| (before.peak + 1, after.peak + 1));
        let highest = of_master.or(peaks.filter(|_| !has_threads));
        let risen = highest.filter(|(before, after)| after > before).map_or(0, |(_, after)| after);
        let peak = Some(self.watch.peak().max(risen)).filter(|peak| *peak > 0);
        Churn {
            clients: Some(clients as f64),
            conn_per_s: Some(outcome.rate()),
            p50_us: percentile(50.0),
            p90_us: percentile(90.0),
            p99_us: percentile(99.0),
            p999_us: percentile(99.9),
            max_us: percentile(100.0),
            errors: Some(errors(outcome)),
            cpu_us_per_conn: usage.and_then(|usage| usage.cpu_us()),
            client_cpu_us_per_conn: client_cpu(outcome),
            client_busy: Some(outcome.busy),
            forks_per_conn: by_itself.or_else(|| usage.and_then(|usage| usage.each(usage.forks))),
            switches_per_conn: usage.and_then(|usage| usage.each(usage.switches)),
            peak_processes: peak.map(f64::from),
        }
    }
}

/// Waits until clients are served and the warm-up is over; false if the phase is over before.
fn begun(live: &Live, warm_up: Duration, over: &Receiver<()>) -> bool {
    let goes_on = |span| over.recv_timeout(span) == Err(RecvTimeoutError::Timeout);
    while live.done() == 0 {
        if !goes_on(LOOK) {
            return false;
        }
    }
    goes_on(warm_up)
}

fn pingpong(shown: &Shown) -> PingPong {
    let Shown { outcome, usage, .. } = shown;
    let percentile = |percent| micros(outcome, percent);
    PingPong {
        clients: Some(outcome.clients as f64),
        served: Some(outcome.served as f64),
        req_per_s: Some(outcome.rate()),
        p50_us: percentile(50.0),
        p90_us: percentile(90.0),
        p99_us: percentile(99.0),
        p999_us: percentile(99.9),
        max_us: percentile(100.0),
        errors: Some(errors(outcome)),
        cpu_us_per_req: usage.and_then(|usage| usage.cpu_us()),
        client_cpu_us_per_req: client_cpu(outcome),
        client_busy: Some(outcome.busy),
        switches_per_req: usage.and_then(|usage| usage.each(usage.switches)),
    }
}

fn bulk(shown: &Shown, piece: usize) -> Bulk {
    let Shown { outcome, usage, .. } = shown;
    let each = usage.and_then(|usage| usage.cpu_us());
    Bulk {
        mb_per_s: Some(outcome.megabytes_per_second()),
        cpu_us_per_mb: each.map(|micros| micros * 1e6 / piece as f64),
        errors: Some(errors(outcome)),
        client_busy: Some(outcome.busy),
    }
}

fn datagrams(shown: &Shown) -> Datagrams {
    let Shown { outcome, usage, .. } = shown;
    Datagrams {
        clients: Some(outcome.clients as f64),
        datagrams_per_s: Some(outcome.rate()),
        lost_percent: Some(outcome.loss() * 100.0),
        p50_us: micros(outcome, 50.0),
        p99_us: micros(outcome, 99.0),
        p999_us: micros(outcome, 99.9),
        errors: Some(errors(outcome)),
        cpu_us_per_datagram: usage.and_then(|usage| usage.cpu_us()),
        client_busy: Some(outcome.busy),
    }
}

fn micros(outcome: &Outcome, percent: f64) -> Option<f64> {
    let latencies = &outcome.latencies;
    (latencies.count() > 0).then(|| latencies.percentile(percent).as_nanos() as f64 / 1000.0)
}

fn client_cpu(outcome: &Outcome) -> Option<f64> {
    (outcome.done > 0).then(|| outcome.cpu.as_secs_f64() * 1e6 / outcome.done as f64)
}
