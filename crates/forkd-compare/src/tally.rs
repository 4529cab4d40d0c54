//! What the rounds of one server come to.

use std::collections::BTreeMap;

use super::record::{
    Bulk, Churn, Datagrams, Entry, Figures, Growth, Hold, Idle, Measured, Moment, PingPong, Sought,
};
use forkd_load::{Fault, Latencies, Outcome, Phase};

/// Of which percentiles the latencies are kept, for a chart of the distribution.
const PERCENTILES: [f64; 21] = [
    0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 98.0, 99.0, 99.5,
    99.9, 99.99, 100.0,
];

/// Rounds of one phase with one number of clients.
#[derive(Debug, Default)]
struct Rounds<T> {
    figures: Vec<T>,
    latencies: Latencies,
}

impl<T: Figures + Clone> Rounds<T> {
    fn add(&mut self, figures: T, outcome: Option<&Outcome>) {
        self.figures.push(figures);
        if let Some(outcome) = outcome {
            self.latencies.add(&outcome.latencies);
        }
    }

    fn measured(&self) -> Option<Measured<T>> {
        let micros = |percent: f64| (percent, self.latencies.percentile(percent).as_nanos() as f64 / 1000.0);
        let has_any = self.latencies.count() > 0;
        let latency_us = PERCENTILES.iter().filter(|_| has_any).map(|percent| micros(*percent)).collect();
        let measured = Measured::of(self.figures.clone(), latency_us)?;
        Some(Measured { latencies_hdr: has_any.then(|| self.latencies.encode()), ..measured })
    }
}

/// One server's rounds so far.
#[derive(Debug)]
pub(super) struct Tally {
    name: String,
    workers: Option<u32>,
    pub(super) command: Option<String>,
    pub(super) idle: Vec<Idle>,
    hold: BTreeMap<usize, Rounds<Hold>>,
    churn: BTreeMap<usize, Rounds<Churn>>,
    pingpong: BTreeMap<usize, Rounds<PingPong>>,
    bulk: Rounds<Bulk>,
    datagrams: Rounds<Datagrams>,
    pub(super) timeline: Vec<Moment>,
    faults: BTreeMap<String, u64>,
    pub(super) failure: Option<String>,
    /// The search for the highest rate.
    pub(super) slo: Option<Sought>,
    /// Of an open loop: what was asked for and what was done in the phase that fell behind most.
    pub(super) missed: Option<(Phase, f64)>,
    /// Whether its processor time is only what the machine did beside the client.
    pub(super) is_estimated: bool,
}

impl Tally {
    pub(super) fn new(name: String, workers: Option<u32>, command: Option<String>) -> Self {
        Self {
            name,
            workers,
            command,
            idle: Vec::new(),
            hold: BTreeMap::new(),
            churn: BTreeMap::new(),
            pingpong: BTreeMap::new(),
            bulk: Rounds { figures: Vec::new(), latencies: Latencies::default() },
            datagrams: Rounds { figures: Vec::new(), latencies: Latencies::default() },
            timeline: Vec::new(),
            faults: BTreeMap::new(),
            failure: None,
            slo: None,
            missed: None,
            is_estimated: false,
        }
    }

    pub(super) fn hold(&mut self, clients: usize, figures: Hold) {
        self.hold.entry(clients).or_insert_with(empty).add(figures, None);
    }

    pub(super) fn churn(&mut self, clients: usize, figures: Churn, outcome: &Outcome) {
        self.churn.entry(clients).or_insert_with(empty).add(figures, Some(outcome));
    }

    pub(super) fn pingpong(&mut self, clients: usize, figures: PingPong, outcome: &Outcome) {
        self.pingpong.entry(clients).or_insert_with(empty).add(figures, Some(outcome));
    }

    pub(super) fn bulk(&mut self, figures: Bulk) {
        self.bulk.add(figures, None);
    }

    pub(super) fn datagrams(&mut self, figures: Datagrams, outcome: &Outcome) {
        self.datagrams.add(figures, Some(outcome));
    }

    /// Counts what failed, and whether the server kept up with what was asked for.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        for (fault, count) in faults(outcome) {
            *self.faults.entry(fault.key()).or_default() += count;
        }
        if let Some(asked) = outcome.rate_asked {
            let share = outcome.rate() / asked;
            if share < 0.95 && self.missed.is_none_or(|(_, least)| share < least) {
                self.missed = Some((outcome.phase, share));
            }
        }
    }

    pub(super) fn entry(&self, clients: &[usize]) -> Entry {
        let last = clients.last().copied().unwrap_or(1);
        let growth = clients.iter().map(|clients| Growth {
            clients: *clients,
            hold: self.hold.get(clients).and_then(Rounds::measured),
            churn: self.churn.get(clients).and_then(Rounds::measured),
            pingpong: self.pingpong.get(clients).and_then(Rounds::measured),
        });
        Entry {
            name: self.name.clone(),
            workers: self.workers,
            command: self.command.clone(),
            idle: Measured::of(self.idle.clone(), Vec::new()),
            hold: self.hold.get(&last).and_then(Rounds::measured),
            churn: self.churn.get(&last).and_then(Rounds::measured),
            pingpong: self.pingpong.get(&last).and_then(Rounds::measured),
            bulk: self.bulk.measured(),
            datagrams: self.datagrams.measured(),
            slo: self.slo.clone(),
            growth: growth.filter(|_| clients.len() > 1).collect(),
            timeline: self.timeline.clone(),
            faults: self.faults.clone(),
            failure: self.failure.clone(),
        }
    }
}

fn empty<T>() -> Rounds<T> {
    Rounds { figures: Vec::new(), latencies: Latencies::default() }
}

/// What failed. That a client which was to stay waited in vain is told by how many were served, and is no
/// failure beside that.
pub(super) fn faults(outcome: &Outcome) -> impl Iterator<Item = (Fault, u64)> {
    let stays = matches!(outcome.phase, Phase::Hold | Phase::PingPong);
    let in_vain = if stays { outcome.clients.saturating_sub(outcome.served) as u64 } else { 0 };
    let count = move |(fault, count): (Fault, u64)| match fault {
        Fault::TimedOut => (fault, count.saturating_sub(in_vain)),
        _ => (fault, count),
    };
    outcome.faults.iter().map(count).filter(|(_, count)| *count > 0)
}

/// How many failed.
pub(super) fn errors(outcome: &Outcome) -> f64 {
    faults(outcome).map(|(_, count)| count).sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_shows_how_cost_grows() {
        let mut tally = Tally::new("x".into(), Some(2), None);
        let hold = |served: f64| Hold { served: Some(served), ..Hold::default() };
        for (clients, served) in [(1, 1.0), (10, 8.0), (1, 1.0), (10, 10.0), (10, 9.0)] {
            tally.hold(clients, hold(served));
        }
        let entry = tally.entry(&[1, 10]);
        assert_eq!(entry.title(), "x ×2");
        let most = entry.hold.unwrap();
        assert_eq!((most.median.served, most.rounds.len()), (Some(9.0), 3));
        assert_eq!(entry.growth.len(), 2);
        assert_eq!(entry.growth[0].hold.as_ref().unwrap().rounds.len(), 2);
        // nothing grows where there is one number
        assert!(tally.entry(&[10]).growth.is_empty());
        assert!(entry.churn.is_none() && entry.idle.is_none());
    }
}
