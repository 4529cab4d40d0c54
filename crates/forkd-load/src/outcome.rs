//! What a phase has shown.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::fault::{Fault, Faults};
use super::latencies::Latencies;
use super::loss::Losses;
use super::meter::Part;
use super::{Phase, Plan};

/// From which share of a processor on a thread is taken to be the bottleneck.
const BUSY: f64 = 0.95;

/// Below which share of the rate that was asked for it counts as missed.
const MISSED: f64 = 0.95;

/// What one phase has measured. The warm-up is in none of the figures but the faults.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub phase: Phase,
    /// How many clients there were.
    pub clients: usize,
    /// How many of them had at least one echo.
    pub served: usize,
    /// When that began, by the clock on the wall; `None` where nothing was measured.
    pub began: Option<SystemTime>,
    /// How long was measured. Of [`Phase::Hold`]: until the last of those that were served had its echo.
    pub elapsed: Duration,
    /// How many operations succeeded: connections, requests, datagrams; of [`Phase::Bulk`] pieces.
    pub done: u64,
    /// How many bytes came back, and were the right ones.
    pub bytes: u64,
    /// How long operations took. With a rate that was asked for, each counts from when it was due, and one
    /// that was never sent with as long as it had waited. Of [`Phase::Bulk`] there are none.
    pub latencies: Latencies,
    /// What failed, by kind.
    pub faults: Faults,
    /// What came to nothing, whatever the reason, and when.
    pub losses: Losses,
    /// How many datagrams had no answer in time.
    pub lost: u64,
    /// How many answers came when they were given up, or came twice.
    pub late: u64,
    /// How many operations were due and not sent, since all clients were busy.
    pub unsent: u64,
    /// Of [`Phase::Hold`]: how many had another echo when they were released.
    pub still_served: Option<usize>,
    /// How much processor time the clients took, in user and kernel mode. On loopback that has a part of
    /// the network's work for the server in it.
    pub cpu: Duration,
    /// The share of a processor that the busiest thread took, from 0 to 1.
    pub busy: f64,
    /// The operations per second that were asked for.
    pub rate_asked: Option<f64>,
    /// Whether it was stopped before its end, so that what is missing is no fault of either side.
    pub is_cut: bool,
}

impl Outcome {
    /// Puts together what the threads of a phase have measured at the same time.
    pub(super) fn of(phase: Phase, plan: &Plan, served: usize, parts: Vec<Part>) -> Self {
        let mut outcome = Self {
            phase,
            clients: if phase == Phase::Bulk { 1 } else { plan.clients },
            served,
            began: parts.iter().filter_map(|part| part.began).min(),
            elapsed: parts.iter().map(|part| part.span).max().unwrap_or_default(),
            done: 0,
            bytes: 0,
            latencies: Latencies::default(),
            faults: Faults::default(),
            losses: Losses::default(),
            lost: 0,
            late: 0,
            unsent: 0,
            still_served: None,
            cpu: Duration::ZERO,
            busy: 0.0,
            rate_asked: plan.rate.filter(|_| phase.can_be_paced()),
            is_cut: false,
        };
        for part in &parts {
            outcome.done += part.done;
            outcome.bytes += part.bytes;
            outcome.latencies.add(&part.latencies);
            outcome.faults.add(&part.faults);
            outcome.losses.add(&part.losses);
            outcome.lost += part.lost;
            outcome.late += part.late;
            outcome.unsent += part.unsent;
            outcome.cpu += part.cpu;
            outcome.busy = outcome.busy.max(per(part.cpu.as_secs_f64(), part.span));
        }
        outcome
    }

    /// Returns how many operations succeeded per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        per(self.done as f64, self.elapsed)
    }

    /// How many were tried per second, also in vain.
    fn attempts(&self) -> f64 {
        per((self.done + self.faults.total() + self.lost) as f64, self.elapsed)
    }

    /// Returns how many megabytes (1,000,000 bytes) came back per second.
    #[must_use]
    pub fn megabytes_per_second(&self) -> f64 {
        per(self.bytes as f64 / 1e6, self.elapsed)
    }

    /// Returns which share of the datagrams had no answer, from 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.lost == 0 { 0.0 } else { self.lost as f64 / (self.done + self.lost) as f64 }
    }

    /// Adds another round of the same phase: counts and times add up, distributions merge, and of what can
    /// be good or bad the worse stays.
    pub fn merge(&mut self, round: &Self) {
        self.clients = self.clients.max(round.clients);
        self.served = self.served.min(round.served);
        self.began = self.began.into_iter().chain(round.began).min();
        self.elapsed += round.elapsed;
        self.done += round.done;
        self.bytes += round.bytes;
        self.latencies.add(&round.latencies);
        self.faults.add(&round.faults);
        self.losses.add(&round.losses);
        self.lost += round.lost;
        self.late += round.late;
        self.unsent += round.unsent;
        self.still_served = self.still_served.min(round.still_served);
        self.cpu += round.cpu;
        self.busy = self.busy.max(round.busy);
        self.is_cut |= round.is_cut;
    }

    /// Returns what must be known to read the figures right.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.busy >= BUSY {
            warnings.push(Warning::ClientBusy { busy: self.busy });
        }
        if let Some(asked) = self.rate_asked
            && !self.is_cut
            && (self.unsent > 0 || self.attempts() < asked * MISSED)
        {
            warnings.push(Warning::RateMissed { asked, got: self.rate(), unsent: self.unsent });
        }
        if self.served < self.clients && self.phase != Phase::Hold && !self.is_cut {
            warnings.push(Warning::NotAllServed { served: self.served, clients: self.clients });
        }
        let (ports, descriptors) = (self.faults.of(Fault::NoPort), self.faults.of(Fault::NoDescriptor));
        warnings.extend((ports > 0).then_some(Warning::NoPort { failed: ports }));
        warnings.extend((descriptors > 0).then_some(Warning::NoDescriptor { failed: descriptors }));
        warnings
    }
}

fn per(count: f64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count / span.as_secs_f64() }
}

/// What must be known to read an [`Outcome`] right; displayed with what to do about it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// A client's thread took (nearly) all of a processor: the server may be able to do more.
    ClientBusy {
        /// The share that it took, from 0 to 1.
        busy: f64,
    },
    /// The operations did not come at the rate that was asked for.
    RateMissed {
        /// What was asked for, per second.
        asked: f64,
        /// What succeeded, per second.
        got: f64,
        /// How many were due and not sent.
        unsent: u64,
    },
    /// Some clients never had an echo.
    NotAllServed {
        /// How many had.
        served: usize,
        /// How many there were.
        clients: usize,
    },
    /// Connections could not be made, as this machine had no port left for them.
    NoPort {
        /// How many.
        failed: u64,
    },
    /// Connections could not be made, as this process had no descriptor left for them.
    NoDescriptor {
        /// How many.
        failed: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientBusy { busy } => write!(
                f,
                "the client was the bottleneck ({:.0} % of a processor): the server may be able to do more; \
                 try --threads",
                busy * 100.0
            ),
            Self::RateMissed { asked, got, unsent } => write!(
                f,
                "{got:.0} of {asked:.0} per second were done, and {unsent} that were due were never sent: \
                 ask for less, or for more --clients"
            ),
            Self::NotAllServed { served, clients } => {
                write!(f, "only {served} of {clients} clients were served: the figures are theirs alone")
            }
            Self::NoPort { failed } => write!(
                f,
                "{failed} connections found no local port: the system keeps the port of an ended connection for a \
                 minute; give it more (sysctl net.ipv4.ip_local_port_range=\"1024 65535\"), try a lower --rate or \
                 fewer --clients, or load the server at 127.0.0.1, where 64 source addresses are used"
            ),
            Self::NoDescriptor { failed } => write!(
                f,
                "{failed} connections found no descriptor: raise the limit of open files (ulimit -n), or try fewer \
                 --clients"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(done: u64, millis: u64, cpu: u64) -> Part {
        let mut part = Part { done, bytes: done * 64, ..Part::default() };
        (part.span, part.cpu) = (Duration::from_millis(millis), Duration::from_millis(cpu));
        (1..=done).for_each(|ms| part.latencies.record(Duration::from_millis(ms)));
        part.faults.count(Fault::Reset);
        part
    }

    fn outcome(plan: &Plan) -> Outcome {
        Outcome::of(Phase::Churn, plan, plan.clients, vec![part(100, 1000, 100), part(300, 1000, 990)])
    }

    #[test]
    fn threads_add_up_and_share_the_time() {
        let both = outcome(&Plan::default());
        assert_eq!((both.done, both.rate(), both.faults.total()), (400, 400.0, 2));
        assert_eq!((both.latencies.count(), both.latencies.max().as_millis()), (400, 300));
        assert_eq!(both.cpu, Duration::from_millis(1090));
        // one thread alone was busy
        assert_eq!(both.warnings(), [Warning::ClientBusy { busy: 0.99 }]);
    }

    #[test]
    fn rounds_follow_each_other() {
        let one = outcome(&Plan::default());
        let mut two = one.clone();
        two.merge(&Outcome { served: 3, ..one.clone() });
        assert_eq!((two.done, two.rate(), two.served), (800, 400.0, 3));
        assert_eq!(two.latencies.percentile(50.0), one.latencies.percentile(50.0));
    }

    #[test]
    fn a_missed_rate_is_told() {
        let asked = |rate| Plan { rate: Some(rate), ..Plan::default() };
        assert_eq!(outcome(&asked(400.0)).warnings().len(), 1);
        let warnings = outcome(&asked(500.0)).warnings();
        assert_eq!(warnings[1], Warning::RateMissed { asked: 500.0, got: 400.0, unsent: 0 });
        assert!(warnings[1].to_string().starts_with("400 of 500 per second"), "{}", warnings[1]);
        // it was the user who ended it, and no rate is missed
        let cut = Outcome { is_cut: true, served: 1, ..outcome(&asked(500.0)) };
        assert_eq!(cut.warnings(), [Warning::ClientBusy { busy: 0.99 }]);
    }

    #[test]
    fn a_machine_without_ports_is_told_apart_from_the_server() {
        let mut short = outcome(&Plan::default());
        (0..3).for_each(|_| short.faults.count(Fault::NoPort));
        short.faults.count(Fault::NoDescriptor);
        let [_, ports, descriptors] = &short.warnings()[..] else { panic!("{:?}", short.warnings()) };
        assert_eq!(
            (ports, descriptors),
            (&Warning::NoPort { failed: 3 }, &Warning::NoDescriptor { failed: 1 })
        );
        assert!(ports.to_string().contains("net.ipv4.ip_local_port_range"), "{ports}");
    }

    #[test]
    fn nothing_is_no_division_by_zero() {
        let none = Outcome::of(Phase::Datagrams, &Plan::default(), 0, Vec::new());
        assert_eq!((none.rate(), none.megabytes_per_second(), none.loss()), (0.0, 0.0, 0.0));
        let warnings = none.warnings();
        assert_eq!(warnings, [Warning::NotAllServed { served: 0, clients: none.clients }]);
    }
}
