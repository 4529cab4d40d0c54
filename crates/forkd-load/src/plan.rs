//! What shall be done, and whether that is possible.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::message::STAMPED;
use super::target::Target;
use forkd_net::{Error, Failure};

const MAX_CLIENTS: usize = 100_000;
const MAX_SIZE: usize = 1 << 20;
/// The longest that UDP carries over IPv4.
const MAX_DATAGRAM: usize = 65_507;
const MAX_RATE: f64 = 1e7;

/// Descriptors that this process needs besides those of its clients.
const OTHERS: u64 = 64;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// All connect, echo once, and stay.
    Hold,
    /// Each connects, echoes once, closes, and does it again.
    Churn,
    /// All are connected, and each sends a message when it has the last one's echo.
    PingPong,
    /// One connection sends and receives as much as it can.
    Bulk,
    /// Each sends a datagram when it has the last one's answer, or has given it up.
    Datagrams,
}

impl Phase {
    /// All that there are.
    pub const ALL: [Self; 5] = [Self::Hold, Self::Churn, Self::PingPong, Self::Bulk, Self::Datagrams];

    /// Returns its name as it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Churn => "churn",
            Self::PingPong => "pingpong",
            Self::Bulk => "bulk",
            Self::Datagrams => "datagrams",
        }
    }

    /// Returns what the phase's operations are, as in "conn/s".
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Hold | Self::Churn => "conn",
            Self::PingPong => "req",
            Self::Bulk => "pieces",
            Self::Datagrams => "datagrams",
        }
    }

    /// Returns the default phases for a target.
    #[must_use]
    pub fn usual(target: &Target) -> Vec<Self> {
        match target.endpoint().is_datagram() {
            true => vec![Self::Datagrams],
            false => vec![Self::Churn, Self::PingPong],
        }
    }

    pub(super) fn can_be_paced(self) -> bool {
        matches!(self, Self::Churn | Self::PingPong | Self::Datagrams)
    }

    /// Says why it can't be had.
    pub(super) fn check(self, plan: &Plan, target: &Target) -> Result<(), String> {
        let endpoint = target.endpoint();
        match (self == Self::Datagrams, endpoint.is_datagram()) {
            (true, false) => Err(format!("the phase datagrams needs a datagram socket, and not {endpoint}")),
            (false, true) => Err(format!("the phase {} needs connections, and not {endpoint}", self.name())),
            (true, true) if !(STAMPED..=MAX_DATAGRAM).contains(&plan.size) => Err(format!(
                "a datagram of {} bytes can't be sent and told from others: from {STAMPED} to {MAX_DATAGRAM} it can",
                plan.size
            )),
            _ => Ok(()),
        }
    }
}

/// How a [`Load`](super::Load) is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How many clients there are at the same time; [`Phase::Bulk`] has one.
    pub clients: usize,
    /// For how long is measured; with `operations`, how long [`Phase::Hold`] holds.
    pub duration: Duration,
    /// How many operations a phase begins in a closed loop, in place of a duration; `None` for as many as there is
    /// time for.
    pub operations: Option<u64>,
    /// For how long the load lasts before that, so that what is cold at first does not count.
    pub warm_up: Duration,
    /// How many operations come due per second, evenly spread; `None` for as many as the server can do. For
    /// churn, pingpong and datagrams.
    pub rate: Option<f64>,
    /// The bytes in a message or datagram.
    pub size: usize,
    /// The bytes that [`Phase::Bulk`] writes at once.
    pub piece: usize,
    /// What messages are made of: the same seed, the same messages.
    pub seed: u64,
    /// How long each client of [`Phase::Churn`] stays connected after its echo, which is no part of the time that its
    /// connection took.
    pub stay: Duration,
    /// How long one operation may take. A datagram is given up after 250 ms, or after this if it is
    /// shorter.
    pub timeout: Duration,
    /// How long a client that is to stay may wait for its first echo: in [`Phase::Hold`] and
    /// [`Phase::PingPong`].
    pub patience: Duration,
    /// How many clients the server is known to serve at once, at most: when these are served, the phase does
    /// not wait for the others. `None` if that isn't known.
    pub places: Option<usize>,
    /// How many threads the clients are spread over.
    pub threads: usize,
}

impl Default for Plan {
    /// Eight clients for five seconds on one thread, with messages of 64 bytes.
    fn default() -> Self {
        let duration = Duration::from_secs(5);
        Self {
            clients: 8,
            duration,
            operations: None,
            warm_up: Self::usual_warm_up(duration),
            rate: None,
            size: 64,
            piece: 64 * 1024,
            seed: 1,
            stay: Duration::ZERO,
            timeout: Duration::from_secs(5),
            patience: Duration::from_secs(5),
            places: None,
            threads: 1,
        }
    }
}

impl Plan {
    /// Returns the warm-up that fits a duration: a tenth of it, at most half a second.
    #[must_use]
    pub fn usual_warm_up(duration: Duration) -> Duration {
        (duration / 10).min(Duration::from_millis(500))
    }

    /// After how long a datagram without an answer is taken to be lost.
    pub(super) fn loss_after(&self) -> Duration {
        self.timeout.min(Duration::from_millis(250))
    }

    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        let out = |what: &str, value: &dyn std::fmt::Display, range: &str| {
            Err(format!("{what} can't be {value}: {range}"))
        };
        match self {
            Self { clients, .. } if !(1..=MAX_CLIENTS).contains(clients) => {
                out("the number of clients", clients, "from 1 to 100000 there may be")
            }
            Self { threads: threads @ (0 | 1025..), .. } => {
                out("the number of threads", threads, "from 1 to 1024 there may be")
            }
            Self { size, piece, .. } if !(1..=MAX_SIZE).contains(size) || !(1..=MAX_SIZE).contains(piece) => {
                out("the size of a message", size, "from 1 to 1048576 bytes it may have")
            }
            Self { operations: Some(0), .. } => {
                Err("the number of operations can't be 0: nothing would be measured".into())
            }
            Self { rate: Some(rate), .. } if !(rate.is_finite() && *rate > 0.0 && *rate <= MAX_RATE) => {
                out("the rate", rate, "above 0 and at most 10000000 a second it may be")
            }
            Self { duration: Duration::ZERO, .. }
            | Self { timeout: Duration::ZERO, .. }
            | Self { patience: Duration::ZERO, .. } => {
                Err("a duration or time limit of nothing leaves no time to measure".into())
            }
            _ => Ok(()),
        }
    }
}

/// Raises the limit of open files as far as `clients` clients need, and as the system lets us.
pub fn allow_descriptors(clients: usize) -> Result<(), Error> {
    let needed = clients as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    // root may raise the hard limit, too
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|cause| {
        let most = limit.maximum.unwrap_or(0).saturating_sub(OTHERS);
        let what = format!(
            "{clients} clients need {needed} open files, and the limit lets this process have enough for {most}: \
             take fewer, or raise the limit (ulimit -Hn)"
        );
        Error::Os(Failure::new(what, cause.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reach;

    #[test]
    fn a_plan_that_makes_no_sense_is_refused_with_its_value() {
        let plan = Plan::default;
        for (plan, expected) in [
            (Plan { clients: 0, ..plan() }, "clients can't be 0"),
            (Plan { threads: 0, ..plan() }, "threads can't be 0"),
            (Plan { operations: Some(0), ..plan() }, "operations can't be 0"),
            (Plan { size: 0, ..plan() }, "size of a message can't be 0"),
            (Plan { size: MAX_SIZE + 1, ..plan() }, "can't be 1048577"),
            (Plan { rate: Some(0.0), ..plan() }, "rate can't be 0"),
            (Plan { rate: Some(f64::NAN), ..plan() }, "rate can't be NaN"),
            (Plan { duration: Duration::ZERO, ..plan() }, "no time to measure"),
        ] {
            let why = plan.check().unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        plan().check().unwrap();
    }

    #[test]
    fn a_phase_fits_its_transport() {
        let target = |endpoint: &str| Target::new(&endpoint.parse().unwrap(), Reach::Loopback).unwrap();
        let (tcp, udp) = (target("tcp://127.0.0.1:7"), target("udp://127.0.0.1:7"));
        for (target, fits) in [(&tcp, true), (&udp, false)] {
            assert_eq!(Phase::Churn.check(&Plan::default(), target).is_ok(), fits);
            assert_eq!(Phase::Datagrams.check(&Plan::default(), target).is_ok(), !fits);
            Phase::usual(target).into_iter().for_each(|phase| phase.check(&Plan::default(), target).unwrap());
        }
        let small = Plan { size: 11, ..Plan::default() };
        assert!(Phase::Datagrams.check(&small, &udp).unwrap_err().contains("from 12 to 65507"));
    }
}
