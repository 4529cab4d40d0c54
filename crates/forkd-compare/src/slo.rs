//! The highest rate at which each server keeps an objective, and the workers that it takes.
//!
//! Servers take turns: in each, a server is started anew, and one rate is decided. Afterwards each pool is started with
//! the number of workers that Little's law asks for, and with half of them.

mod little;

use std::time::{Duration, Instant};

use super::contestant::Contestant;
use super::machine::processors;
use super::objective::Objective;
use super::plan::Plan;
use super::record::{Check, Sought, Trial};
use super::run::{Comparison, Observer, Step};
use super::search::{Ballot, End, RUNS, Search};
use super::server::{Server, Terms};
use super::tally::errors;
use super::turn::last;
use super::usage::{Mark, Usage};
use forkd_load::{self as load, Load, Outcome, Phase};
use forkd_net::Error;

/// What starting and stopping a server takes of each of its runs, at most.
const BESIDES: Duration = Duration::from_millis(500);

/// No more connections than these come due in a second, whatever a server could do.
const MOST: f64 = 1e6;

/// Below which share of what came due a server has not kept up.
const SERVED: f64 = 0.95;

impl Plan {
    /// How long the search takes for each server, at most, and how many runs that are.
    #[must_use]
    pub fn search_limit(&self) -> (usize, Duration) {
        let run = self.duration + load::Plan::usual_warm_up(self.duration) + BESIDES;
        (RUNS, run * RUNS as u32)
    }

    /// Says why the clients can't ask for as much as the search needs.
    ///
    /// # Errors
    ///
    /// A sentence with what would do.
    pub fn check_search(&self) -> Result<(), String> {
        let (lowest, highest) = (self.lowest_rate(), self.highest_rate());
        if lowest <= highest {
            return Ok(());
        }
        Err(format!(
            "{} clients that stay can't ask for {lowest} connections per second, the least that a run of {} can tell: take more \
             --clients, or a longer --duration",
            self.most_clients(),
            humantime::format_duration(self.duration)
        ))
    }

    /// The lowest rate at which a run has the operations that its percentiles need.
    fn lowest_rate(&self) -> f64 {
        let needed = self.slo.iter().map(Objective::operations).fold(1.0, f64::max);
        (needed / self.duration.as_secs_f64()).ceil()
    }

    /// The highest rate at which clients that stay are not all taken.
    fn highest_rate(&self) -> f64 {
        match self.stay.is_zero() {
            true => MOST,
            false => (self.most_clients() as f64 / self.stay.as_secs_f64() / 2.0).floor().min(MOST),
        }
    }
}

/// One server's search.
struct Seeker {
    which: usize,
    search: Search,
    end: Option<End>,
    spent: Duration,
    runs: usize,
}

impl Comparison {
    /// Finds each server's highest rate, and checks what that says of pools.
    pub(super) fn seek(&mut self, observer: &mut dyn Observer) {
        let search = Search::new(self.plan.lowest_rate(), self.plan.highest_rate());
        let mut seekers: Vec<Seeker> = (0..self.tallies.len())
            .map(|which| Seeker { which, search: search.clone(), end: None, spent: Duration::ZERO, runs: 0 })
            .collect();
        self.tallies.iter_mut().for_each(|tally| tally.slo = Some(Sought::default()));
        while seekers.iter().any(|seeker| self.goes_on(seeker)) {
            for seeker in &mut seekers {
                if self.goes_on(seeker) {
                    self.decide(seeker, observer);
                }
            }
        }
        for which in 0..self.tallies.len() {
            self.check(which, observer);
        }
    }

    fn goes_on(&self, seeker: &Seeker) -> bool {
        seeker.end.is_none() && self.tallies[seeker.which].failure.is_none() && !self.live.is_stopped()
    }

    /// A server's turn: one rate.
    fn decide(&mut self, seeker: &mut Seeker, observer: &mut dyn Observer) {
        let begun = Instant::now();
        let out_of_time = seeker.spent >= self.plan.search_limit().1;
        let rate = match seeker.search.next() {
            Ok(rate) if !out_of_time => rate,
            over => {
                seeker.end = Some(over.err().unwrap_or(End::OutOfRuns));
                return self.end(seeker, seeker.end.unwrap_or(End::OutOfRuns));
            }
        };
        let (search, runs) = (&mut seeker.search, &mut seeker.runs);
        let tried = self.runs(seeker.which, rate, self.plan.workers, runs, observer, &mut |trial| {
            search.tell(trial.kept)
        });
        seeker.spent += begun.elapsed();
        let (kept, broken) = (seeker.search.kept(), seeker.search.broken());
        if let Some(sought) = &mut self.tallies[seeker.which].slo {
            sought.trials.extend(tried);
            (sought.rate, sought.broken) = (kept, broken);
        }
        self.tell(seeker.which, seeker.runs, observer);
    }

    fn end(&mut self, seeker: &Seeker, end: End) {
        let contestant = &self.plan.contestants[seeker.which];
        let workers = contestant.workers(self.plan.workers, processors()).filter(|_| contestant.is_pool());
        let Some(sought) = &mut self.tallies[seeker.which].slo else { return };
        sought.end = Some(end);
        sought.service_us = sought.rate.and_then(|_| sought.median(|trial| trial.service_us));
        let at_once = sought.rate.zip(sought.service_us).map(|(rate, us)| little::at_once(rate, us));
        // a worker of a pool serves one at a time
        sought.at_once = at_once.map(|count| workers.map_or(count, |workers| count.min(workers.into())));
        sought.workers_asked = sought.at_once.filter(|_| workers.is_some()).map(little::workers);
    }

    /// Has a pool as many workers as Little's law asks for, and too few.
    fn check(&mut self, which: usize, observer: &mut dyn Observer) {
        let sought = self.tallies[which].slo.as_ref();
        let Some((rate, asked)) = sought.and_then(|sought| sought.rate.zip(sought.workers_asked)) else {
            return;
        };
        for more in little::ENOUGH {
            if self.check_with(which, rate, asked + more, observer) != Some(false) {
                break;
            }
        }
        if let Some(few) = little::too_few(asked) {
            self.check_with(which, rate, few, observer);
        }
    }

    /// Tells whether so many workers keep the objective at this rate; `None` if that was not to be found out.
    fn check_with(
        &mut self,
        which: usize,
        rate: f64,
        workers: u32,
        observer: &mut dyn Observer,
    ) -> Option<bool> {
        let (mut ballot, mut decided, mut runs) = (Ballot::default(), None, 0);
        let trials = self.runs(which, rate, Some(workers), &mut runs, observer, &mut |trial| {
            decided = ballot.count(trial.kept);
            decided.is_some()
        });
        let kept = decided?;
        self.tallies[which].slo.as_mut()?.checks.push(Check { workers, kept, trials });
        self.tell(which, runs, observer);
        Some(kept)
    }

    /// Runs at one rate, on a server of its own, until they have decided.
    fn runs(
        &mut self,
        which: usize,
        rate: f64,
        workers: Option<u32>,
        runs: &mut usize,
        observer: &mut dyn Observer,
        decides: &mut dyn FnMut(&Trial) -> bool,
    ) -> Vec<Trial> {
        let (contestant, mut tried) = (self.plan.contestants[which].clone(), Vec::new());
        if self.live.is_stopped() {
            return tried;
        }
        let plan = Plan { rate: Some(rate), workers, ..self.plan.clone() };
        let (live, rest) = (std::sync::Arc::clone(&self.live), self.rest);
        let terms = Terms { plan: &plan, live: &live, rest: &rest, ask: self.ask, forkd: self.forkd.path() };
        let made = Server::start(&contestant, &terms).and_then(|server| {
            loop {
                *runs += 1;
                observer.begins(&Step {
                    round: *runs,
                    turn: which + 1,
                    name: Some(contestant.name()),
                    phase: Phase::Churn,
                    clients: plan.most_clients(),
                    rate: Some(rate),
                });
                let (trial, usage) = match run(&terms, &contestant, &server) {
                    Ok(shown) => shown,
                    Err(error) => break Err(error),
                };
                if live.is_stopped() {
                    break Ok(());
                }
                if let Some(why) = server.failure() {
                    break Err(Error::Unavailable(format!("{why}, at {rate} connections per second").into()));
                }
                self.notes.stolen = self.notes.stolen.max(usage.stolen.unwrap_or(0.0));
                self.notes.during = self.notes.during.max(usage.others.unwrap_or(0.0));
                self.is_seen &= usage.others.is_some();
                self.tallies[which].is_estimated |= usage.is_estimated && trial.cpu_us_per_conn.is_some();
                let is_over = decides(&trial);
                tried.push(trial);
                if is_over {
                    server.stop();
                    break Ok(());
                }
            }
        });
        match made {
            Err(error) if !self.live.is_stopped() => self.tallies[which].failure = Some(error.sentence()),
            _ => {}
        }
        tried
    }

    fn tell(&self, which: usize, runs: usize, observer: &mut dyn Observer) {
        observer.has(&self.plan.contestants[which].name(), runs, &self.record(true));
    }
}

/// One run.
fn run(terms: &Terms<'_>, contestant: &Contestant, server: &Server) -> Result<(Trial, Usage), Error> {
    let (plan, live) = (terms.plan, terms.live);
    let target = server
        .target(Phase::Churn)
        .ok_or_else(|| Error::Internal(format!("{} has no socket for connections", contestant.name())))?;
    let load = Load::new(target.clone(), plan.load(plan.most_clients()))?;
    // what the last run has left behind is over
    let settled = || {
        last(
            || Some((server.counters(terms.ask)?.connections, server.served()?)),
            |(begun, served)| served.connections >= *begun,
        )
        .map(|(_, served)| served)
    };
    let before = settled();
    live.begin();
    let start = Mark::now(&server.tree, live, None);
    let outcome = load.run(Phase::Churn, live)?;
    let after = settled();
    let usage = start.until(&Mark::now(&server.tree, live, None), u32::MAX, terms.rest);
    let service_us = before.zip(after).and_then(|(before, after)| after.mean_us_since(&before));
    let cpu_us_per_conn = usage.cpu_us().filter(|_| server.tree.is_known());
    Ok((Trial { service_us, cpu_us_per_conn, ..trial(&outcome, plan) }, usage))
}

/// What the clients have seen of a run, and whether that keeps the objectives.
fn trial(outcome: &Outcome, plan: &Plan) -> Trial {
    let micros = |span: Duration| span.as_nanos() as f64 / 1000.0;
    let rate = plan.rate.unwrap_or_default();
    let latency = |objective: &Objective| outcome.latencies.percentile(objective.percent());
    let is_kept = |objective: &Objective| latency(objective) <= objective.limit();
    let errors = errors(outcome) as u64;
    let keeps_up = outcome.rate() >= rate * SERVED;
    Trial {
        rate,
        served_per_s: outcome.rate(),
        latency_us: plan.slo.iter().map(|one| (one.name().to_owned(), micros(latency(one)))).collect(),
        mean_us: micros(outcome.latencies.mean()),
        errors,
        unsent: outcome.unsent,
        service_us: None,
        cpu_us_per_conn: None,
        client_busy: outcome.busy,
        kept: keeps_up && errors == 0 && outcome.unsent == 0 && plan.slo.iter().all(is_kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(done: u64, millis: u64, unsent: u64) -> Trial {
        let plan = Plan {
            rate: Some(100.0),
            slo: vec!["p50=10ms".parse().unwrap(), "max=20ms".parse().unwrap()],
            ..Plan::search()
        };
        let mut latencies = load::Latencies::default();
        (0..done).for_each(|_| latencies.record(Duration::from_millis(1)));
        latencies.record(Duration::from_millis(millis));
        let outcome = Outcome {
            phase: Phase::Churn,
            clients: 8,
            served: 8,
            began: None,
            elapsed: Duration::from_secs(1),
            done: done + 1,
            bytes: 0,
            latencies,
            faults: load::Faults::default(),
            losses: load::Losses::default(),
            lost: 0,
            late: 0,
            unsent,
            still_served: None,
            cpu: Duration::ZERO,
            busy: 0.0,
            rate_asked: plan.rate,
            is_cut: false,
        };
        trial(&outcome, &plan)
    }

    #[test]
    fn a_run_keeps_all_objectives_and_the_rate_or_it_does_not() {
        let kept = judged(99, 19, 0);
        assert!(kept.kept, "{kept:?}");
        assert!(kept.latency_us["p50"] < 1_100.0 && kept.latency_us["max"] > 18_000.0, "{kept:?}");
        for (broken, why) in [
            (judged(99, 21, 0), "one took too long"),
            (judged(90, 19, 0), "it was too slow"),
            (judged(99, 19, 1), "one was never begun"),
        ] {
            assert!(!broken.kept, "{why}: {broken:?}");
        }
    }

    #[test]
    fn rates_are_those_that_runs_can_tell_and_clients_can_ask_for() {
        let plan = |slo: &str, stay: u64| Plan {
            slo: slo.split(',').map(|text| text.parse().unwrap()).collect(),
            stay: Duration::from_millis(stay),
            ..Plan::search()
        };
        assert_eq!(plan("p99=1s", 0).lowest_rate(), 1000.0);
        assert_eq!(plan("p50=1ms,p99.9=1s", 0).lowest_rate(), 10_000.0);
        assert_eq!((plan("p50=1s", 0).highest_rate(), plan("p50=1s", 2).highest_rate()), (1e6, 250_000.0));
        plan("p99=1s", 100).check_search().unwrap();
        let why = plan("p99=1s", 1000).check_search().unwrap_err();
        assert!(why.starts_with("1000 clients that stay can't ask for 1000 connections per second"), "{why}");
        let (runs, limit) = plan("p99=1s", 0).search_limit();
        assert_eq!((runs, limit.as_secs()), (30, 48));
    }
}
