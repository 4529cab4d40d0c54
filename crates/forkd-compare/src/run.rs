//! The whole comparison: servers take turns, round by round, so that what drifts drifts for all.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Ask;
use super::calibrate::Rounds;
use super::cgroup::Group;
use super::contestant::{Contestant, options};
use super::copy::Copy;
use super::machine::{machine, processors};
use super::plan::Plan;
use super::record::{Entry, Record, VERSION};
use super::server::Terms;
use super::tally::Tally;
use super::turn::{Found, take};
use super::usage::Rest;
use super::warnings::{Notes, warnings};
use forkd_load::{Live, Phase, allow_descriptors};
use forkd_net::{Error, Failure};

/// For how long the machine is looked at before it begins.
const REST: Duration = Duration::from_millis(200);

/// What a comparison is at.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which round, from 1.
    pub round: usize,
    /// Which server's turn, from 1, of all rounds; that of the next one while clients are calibrated.
    pub turn: usize,
    /// Which server has its turn; `None` for the null server, by which clients are calibrated.
    pub name: Option<String>,
    /// What the clients do.
    pub phase: Phase,
    /// How many there are.
    pub clients: usize,
    /// Where the highest rate is looked for: which one is tried. Then `round` counts the server's runs, and `turn` says
    /// which server it is.
    pub rate: Option<f64>,
}

/// Is told how a comparison goes.
pub trait Observer {
    /// A phase begins.
    fn begins(&mut self, step: &Step);

    /// A server has had its turn in a round: this is what there is so far.
    fn has(&mut self, name: &str, round: usize, record: &Record);
}

/// Carries out a plan; [`Live::stop`] ends it soon, and what there is then is returned. A forkd is asked by `ask` for its
/// counters.
///
/// It must be called by a thread that lives as long as the servers, such as the main one: they are killed with
/// the thread that has started them, so that none outlives this program.
///
/// # Errors
///
/// [`Error::Usage`] for a plan that can't be carried out, and
/// [`Error::Unavailable`] if no server could be measured at all.
pub fn compare(
    plan: &Plan,
    ask: Ask,
    live: &Arc<Live>,
    observer: &mut dyn Observer,
) -> Result<Record, Error> {
    let mut comparison = Comparison::new(plan, ask, live)?;
    comparison.notes.before = comparison.rest.cpu;
    match comparison.plan.slo.is_empty() {
        true => comparison.rounds(observer)?,
        false => comparison.seek(observer),
    }
    let record = comparison.record(live.is_stopped());
    match record.models.iter().find_map(|entry| entry.failure.clone()) {
        Some(why) if record.models.iter().all(|entry| entry.failure.is_some()) => {
            Err(Error::Unavailable(Failure::from(format!("{}: {why}", record.models[0].title()))))
        }
        _ => Ok(record),
    }
}

pub(super) struct Comparison {
    pub(super) plan: Plan,
    pub(super) ask: Ask,
    pub(super) live: Arc<Live>,
    record: Record,
    pub(super) tallies: Vec<Tally>,
    calibration: Rounds,
    pub(super) notes: Notes,
    /// Whether it is known of each turn so far what others did meanwhile.
    pub(super) is_seen: bool,
    pub(super) forkd: Copy,
    /// What the machine does by itself.
    pub(super) rest: Rest,
}

impl Comparison {
    fn new(plan: &Plan, ask: Ask, live: &Arc<Live>) -> Result<Self, Error> {
        let mut plan = plan.clone();
        let (mut notes, asked) = (Notes::default(), plan.clients.clone());
        plan.clients.retain(|clients| allow_descriptors(*clients).is_ok());
        if plan.clients.is_empty() {
            allow_descriptors(asked.first().copied().unwrap_or(1))?;
        }
        notes.left_out = asked.into_iter().filter(|clients| !plan.clients.contains(clients)).collect();
        let counts_by = Group::new().ok().map(|group| group.counts_by());
        let is_ours = |contestant: &Contestant| !matches!(contestant, Contestant::Running { .. });
        let whole = "clocks of processes that stay; else the whole machine, less the client and what it does by itself";
        let cpu_by = counts_by.filter(|_| plan.contestants.iter().any(is_ours)).unwrap_or(whole);
        let record = Record {
            version: VERSION,
            made_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: machine(cpu_by),
            settings: plan.settings(),
            calibration: None,
            models: Vec::new(),
            warnings: Vec::new(),
            disturbed: None,
            interrupted: true,
        };
        let tallies = plan.contestants.iter().map(|contestant| tally(contestant, &plan)).collect();
        let (calibration, forkd) = (Rounds::default(), Copy::new()?);
        let (live, rest) = (Arc::clone(live), Rest::over(REST));
        Ok(Self { plan, ask, live, record, tallies, calibration, notes, is_seen: true, forkd, rest })
    }

    fn rounds(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        for round in 1..=self.plan.rounds {
            self.round(round, observer)?;
            if self.live.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    fn round(&mut self, round: usize, observer: &mut dyn Observer) -> Result<(), Error> {
        let (live, rest) = (&Arc::clone(&self.live), &self.rest);
        let count = self.plan.contestants.len();
        let before = (round - 1) * count;
        let step = |turn, name: Option<String>, phase, clients| Step {
            round,
            turn,
            name,
            phase,
            clients,
            rate: None,
        };
        // in an open loop the null server would do what is asked for, too
        if self.plan.rate.is_none() {
            let mut says = |phase, clients| observer.begins(&step(before + 1, None, phase, clients));
            match self.calibration.measure(&self.plan, live, &mut says) {
                Err(_) if live.is_stopped() => return Ok(()),
                measured => measured?,
            }
        }
        for turn in 0..count {
            // no server is always first
            let which = (turn + round - 1) % count;
            if live.is_stopped() {
                return Ok(());
            }
            let (contestant, tally) = (&self.plan.contestants[which], &mut self.tallies[which]);
            if tally.failure.is_some() {
                continue;
            }
            let name = contestant.name();
            let terms = Terms { plan: &self.plan, live, rest, ask: self.ask, forkd: self.forkd.path() };
            let mut says = |phase, clients| {
                observer.begins(&step(before + turn + 1, Some(name.clone()), phase, clients));
            };
            match take(&terms, contestant, tally, &mut says) {
                Ok(Found { others, stolen }) => {
                    let others = others.get();
                    let stolen = stolen.get().unwrap_or(0.0);
                    self.notes.during = self.notes.during.max(others.unwrap_or(0.0));
                    self.notes.stolen = self.notes.stolen.max(stolen);
                    self.is_seen &= others.is_some();
                }
                Err(_) if live.is_stopped() => {}
                Err(error) => tally.failure = Some(error.sentence()),
            }
            observer.has(&name, round, &self.record(true));
        }
        Ok(())
    }

    pub(super) fn record(&self, is_interrupted: bool) -> Record {
        let mut record = self.record.clone();
        record.calibration = self.calibration.calibration();
        record.models = self.tallies.iter().map(|tally| tally.entry(&self.plan.clients)).collect();
        record.disturbed = self.is_seen.then(|| self.notes.during.max(self.notes.stolen));
        record.interrupted = is_interrupted;
        let missed = self.tallies.iter().zip(&record.models);
        let missed = missed.filter_map(|(tally, entry)| Some((entry.title(), tally.missed?)));
        let estimated = self.tallies.iter().zip(&record.models).filter(|(tally, _)| tally.is_estimated);
        // one that ran already was started by no command
        let (started, targets) =
            estimated.map(|(_, entry)| entry).partition::<Vec<_>, _>(|entry| entry.command.is_some());
        let titles = |entries: Vec<&Entry>| entries.into_iter().map(Entry::title).collect();
        let notes = Notes {
            missed: missed.collect(),
            estimated: titles(started),
            estimated_targets: titles(targets),
            ..self.notes.clone()
        };
        record.warnings = warnings(&record, &notes);
        record
    }
}

fn tally(contestant: &Contestant, plan: &Plan) -> Tally {
    let workers = contestant.workers(plan.workers, processors());
    let command = match contestant {
        Contestant::Model(name) => {
            Some(format!("forkd serve {}", options(name, workers, plan.most_clients()).join(" ")))
        }
        Contestant::Command { command, .. } => Some(command.clone()),
        Contestant::Running { .. } => None,
    };
    Tally::new(contestant.name(), workers, command)
}
