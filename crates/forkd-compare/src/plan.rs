//! What shall be compared, and how.

use std::time::Duration;

use super::contestant::Contestant;
use super::machine::processors;
use super::objective::Objective;
use super::record::Settings;
use forkd_load::{self as load, Phase};

/// How long a client may wait for its first echo, where it is to stay; no less than it takes a slow server to
/// fork for a whole crowd, and no more than a reader likes to wait for those that have no place left.
const HOLD_TIMEOUT: Duration = Duration::from_millis(500);

/// A comparison to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The servers that take part.
    pub contestants: Vec<Contestant>,
    /// What the clients do, one after the other.
    pub phases: Vec<Phase>,
    /// How many clients there are at the same time: ascending, each once.
    pub clients: Vec<usize>,
    /// How long each phase is measured, in each round.
    pub duration: Duration,
    /// How often each has its turn.
    pub rounds: usize,
    /// The workers of each pool; `None` for what is usual.
    pub workers: Option<u32>,
    /// Bytes in a message.
    pub size: usize,
    /// Whether clients connect over Unix sockets, and not TCP.
    pub is_unix: bool,
    /// Operations per second that come due.
    pub rate: Option<f64>,
    /// What messages are made of.
    pub seed: u64,
    /// How long a client that is to stay waits for its first echo.
    pub patience: Duration,
    /// How long each client of the churn stays connected after its echo.
    pub stay: Duration,
    /// What latencies shall keep to: then the highest rate is looked for that does, in place of phases.
    pub slo: Vec<Objective>,
}

impl Default for Plan {
    /// Every model, 100 clients, rounds enough that another run with as many can be told from chance.
    fn default() -> Self {
        Self {
            contestants: super::contestant::MODELS.into_iter().map(Contestant::Model).collect(),
            phases: vec![Phase::Hold, Phase::Churn, Phase::PingPong, Phase::Bulk],
            clients: vec![100],
            duration: Duration::from_millis(180),
            rounds: 4,
            workers: None,
            size: load::Plan::default().size,
            is_unix: false,
            rate: None,
            seed: 1,
            patience: HOLD_TIMEOUT,
            stay: Duration::ZERO,
            slo: Vec::new(),
        }
    }
}

impl Plan {
    /// What is usual where the highest rate is looked for: runs of a second, and clients enough that they are not what
    /// limits it.
    #[must_use]
    pub fn search() -> Self {
        let (phases, duration) = (vec![Phase::Churn], Duration::from_secs(1));
        Self { phases, duration, clients: vec![1000], rounds: 1, ..Self::default() }
    }

    /// Returns the most clients that there are at once.
    #[must_use]
    pub fn most_clients(&self) -> usize {
        self.clients.last().copied().unwrap_or(1)
    }

    /// Returns what `clients` clients do.
    #[must_use]
    pub fn load(&self, clients: usize) -> load::Plan {
        load::Plan {
            clients,
            duration: self.duration,
            warm_up: load::Plan::usual_warm_up(self.duration),
            rate: self.rate,
            size: self.size,
            seed: self.seed,
            stay: self.stay,
            timeout: self.timeout(),
            patience: self.patience,
            threads: client_threads(),
            ..load::Plan::default()
        }
    }

    /// How long an operation may take. One that is far beyond its objective need not be waited for.
    fn timeout(&self) -> Duration {
        let longest = self.slo.iter().map(|objective| objective.limit() * 4).max();
        longest.map_or(load::Plan::default().timeout, |longest| longest.max(Duration::from_secs(1)))
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            phases: self.phases.clone(),
            clients: self.clients.clone(),
            duration_s: self.duration.as_secs_f64(),
            rounds: self.rounds,
            workers: self.workers,
            service: "echo".into(),
            size: self.size,
            transport: if self.is_unix { "unix" } else { "tcp" }.into(),
            rate: self.rate,
            seed: self.seed,
            slo: self.slo.clone(),
            stay_s: (!self.stay.is_zero()).then_some(self.stay.as_secs_f64()),
        }
    }
}

/// One thread moves what a server on one or two processors can answer; where there are more, the server is to
/// have most of them.
fn client_threads() -> usize {
    (processors() / 4).clamp(1, 8)
}
