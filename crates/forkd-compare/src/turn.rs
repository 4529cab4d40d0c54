//! A server's turn in a round: started anew, measured phase by phase, stopped.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::Counters;
use super::cgroup::Group;
use super::contestant::Contestant;
use super::figures::{Shown, bulk, churn, datagrams, pingpong};
use super::record::{Hold, Idle};
use super::server::{Server, Terms};
use super::tally::{Tally, errors};
use super::tree::Memory;
use super::usage::Mark;
use super::watch::Watch;
use forkd_load::{self as load, Live, Load, Phase};
use forkd_net::Error;

/// How long the processes of connections that are over may take to go, before it goes on without them.
const LEAVE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);

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
        if let Err(cause) = std::thread::Builder::new().spawn_scoped(scope, move || eyes.run(&over)) {
            result = Err(Error::os("cannot start a thread", cause));
            return;
        }
        let mut turn = Turn {
            terms,
            contestant,
            server: &server,
            watch: &watch,
            tally,
            found: &mut found,
            places: None,
            children: 0,
        };
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

/// What was noticed about the machine meanwhile: shares of a processor, one for each time it was measured. The
/// mean counts: a phase is short, and the system's clock of processor time goes by hundredths of a second.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Of other programs.
    pub(super) others: Mean,
    /// Of other machines.
    pub(super) stolen: Mean,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn push(&mut self, value: f64) {
        (self.sum, self.count) = (self.sum + value, self.count + 1);
    }

    /// `None` if nothing was measured.
    pub(super) fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

struct Turn<'a> {
    terms: &'a Terms<'a>,
    contestant: &'a Contestant,
    server: &'a Server,
    watch: &'a Watch<'a>,
    tally: &'a mut Tally,
    found: &'a mut Found,
    /// How many it was found to serve at once, if that isn't all.
    places: Option<usize>,
    /// The children that it has without clients.
    children: u32,
}

impl Turn<'_> {
    fn run(&mut self, says: &mut dyn FnMut(Phase, usize)) -> Result<(), Error> {
        // first, as what a master needs to answer is in its memory then, and would count as its clients'
        self.children = self.server.counters(self.terms.ask).map_or(0, |counters| counters.alive);
        let idle = self.watch.look();
        let memory = self.server.tree.memory();
        self.tally.idle.push(Idle {
            processes: idle.map(|count| count.processes.into()),
            threads: idle.map(|count| count.threads.into()),
            pss_kib: memory.map(|memory| memory.pss),
            uss_kib: memory.map(|memory| memory.uss),
            page_tables_kib: memory.map(|memory| memory.page_tables),
        });
        let threads = idle.map(|count| count.threads);
        let plan = self.terms.plan;
        for &clients in &plan.clients {
            self.places = None;
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
        // what the last phase has just found out need not take its time again
        let places = self.places.filter(|_| phase == Phase::PingPong);
        Load::new(target.clone(), load::Plan { places, ..self.terms.plan.load(clients) })
    }

    fn hold(&mut self, clients: usize, idle: Option<Memory>) -> Result<(), Error> {
        let load = self.load(Phase::Hold, clients)?;
        let held = load.hold(self.terms.live)?;
        let (count, memory) = (self.watch.look(), self.server.tree.memory());
        let spread = self.server.counters(self.terms.ask).and_then(|counters| counters.spread);
        let outcome = held.release()?;
        if self.terms.live.is_stopped() {
            return Ok(());
        }
        // it may well serve more than all
        self.places = Some(outcome.served).filter(|served| *served < clients);
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
                page_tables_kib_per_conn: each(|memory| memory.page_tables),
                spread,
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
            usage.others.into_iter().for_each(|share| self.found.others.push(share));
            self.tally.is_estimated |= usage.is_estimated && usage.cpu.is_some();
            usage.stolen.into_iter().for_each(|share| self.found.stolen.push(share));
        }
        self.tally.count(&shown.outcome);
        match phase {
            Phase::Churn => {
                let starts_threads = self.contestant.starts_threads();
                let figures = churn(&shown, starts_threads, self.watch.is_single(), self.watch.peak());
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
        let (live, tree, watch) = (self.terms.live, &self.server.tree, self.watch);
        let most = || tree.group().and_then(Group::peak);
        let (before, peak) = (self.counters(), most());
        // or the marker would see what the phase before has done
        live.begin();
        let (outcome, start) = std::thread::scope(|scope| {
            let (held, over) = channel::<()>();
            let warm_up = load.plan().warm_up;
            let marker = scope.spawn(move || {
                begun(live, warm_up, &over).then(|| {
                    let (mark, count) = (Mark::now(tree, live, idle), watch.look());
                    // those that have just hung up are none that stand
                    (count.filter(|_| goes_on(&over, Duration::ZERO)), mark)
                })
            });
            let outcome = load.run(phase, live);
            drop(held);
            (outcome, marker.join().ok().flatten())
        });
        let (count, start) = start.unzip();
        let outcome = outcome?;
        if watch.peak() == 0 {
            // no client was served, or not for long
            watch.look();
        }
        if phase == Phase::Churn {
            // the end of a child belongs to its connection
            self.leave(idle);
        }
        let usage = start
            .filter(|_| tree.is_known())
            .map(|start| start.until(&Mark::now(tree, live, idle), watch.peak(), self.terms.rest));
        let (counted, peaks) = (before.zip(self.counters()), peak.zip(most()));
        Ok(Shown { outcome, usage, counted, count: count.flatten(), peaks })
    }

    /// What the server has counted, once the children of connections that are over are counted as gone: until then
    /// it knows of more children than of connections.
    fn counters(&self) -> Option<Counters> {
        last(|| self.server.counters(self.terms.ask), |counters| counters.alive <= self.children)
    }

    /// Waits until there are no more threads than before the clients came.
    fn leave(&self, threads: Option<u32>) {
        let Some(threads) = threads else { return };
        last(|| self.server.tree.count(), |count| count.threads <= threads);
    }
}

/// Asks again and again until the answer will do, or none comes, or time is up; returns the last one.
pub(super) fn last<T>(ask: impl Fn() -> Option<T>, will_do: impl Fn(&T) -> bool) -> Option<T> {
    let until = Instant::now() + LEAVE;
    loop {
        let answer = ask();
        if answer.as_ref().is_none_or(&will_do) || Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until clients are served and the warm-up is over; false if the phase is over before.
fn begun(live: &Live, warm_up: Duration, over: &Receiver<()>) -> bool {
    while live.done() == 0 {
        if !goes_on(over, LOOK) {
            return false;
        }
    }
    goes_on(over, warm_up)
}

fn goes_on(over: &Receiver<()>, span: Duration) -> bool {
    over.recv_timeout(span) == Err(RecvTimeoutError::Timeout)
}
