//! What was measured of a server: a figure's median, its rounds, and whether it is of all clients.

use std::fmt;

use super::slo;

use crate::record::{
    Bulk, Churn, Datagrams, Entry, Figures, Growth, Hold, Idle, Measured, Moment, PingPong, Sought,
};
use crate::stats::{Verdict, median, range, verdict};
use forkd_load::Phase;
use forkd_load::text::thousands;

/// The median of a figure, and each round that has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The median.
    pub median: f64,
    /// Each round.
    pub rounds: Vec<f64>,
    /// How many clients it is of, where that makes it another thing than the same of all of them.
    pub fewer: Option<Fewer>,
}

/// The clients that were served, where not all were. As text: "1 of 1,000".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fewer {
    /// Those that were.
    pub served: f64,
    /// All.
    pub clients: f64,
}

impl Fewer {
    fn of<T: Figures>(measured: &Measured<T>) -> Option<Self> {
        let figures = measured.median.named();
        let of = |name| figures.iter().find(|(key, _)| *key == name).and_then(|(_, figure)| *figure);
        let (served, clients) = (of("served")?, of("clients")?);
        (served < clients).then_some(Self { served, clients })
    }
}

impl fmt::Display for Fewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", thousands(self.served), thousands(self.clients))
    }
}

impl Value {
    /// What does not depend on how many clients were served.
    pub(super) fn of<T: Figures>(
        measured: Option<&Measured<T>>,
        figure: fn(&T) -> Option<f64>,
    ) -> Option<Self> {
        let measured = measured?;
        let median = figure(&measured.median).filter(|median| median.is_finite())?;
        let mut rounds = measured.each(figure);
        rounds.retain(|value| value.is_finite());
        Some(Self { median, rounds, fewer: None })
    }

    /// What is that of the clients that were served.
    pub(super) fn of_served<T: Figures>(
        measured: Option<&Measured<T>>,
        figure: fn(&T) -> Option<f64>,
    ) -> Option<Self> {
        Some(Self { fewer: Fewer::of(measured?), ..Self::of(measured, figure)? })
    }

    /// The same of a sum, whose median is not that of its parts.
    pub(super) fn of_sum<T: Figures>(
        measured: Option<&Measured<T>>,
        sum: fn(&T) -> Option<f64>,
    ) -> Option<Self> {
        let value = Self::of_served(measured, sum)?;
        Some(Self { median: median(value.rounds.iter().copied()).unwrap_or(value.median), ..value })
    }

    /// What runs at one rate have shown.
    pub(super) fn of_trials(rounds: Vec<f64>) -> Option<Self> {
        let rounds: Vec<f64> = rounds.into_iter().filter(|value| value.is_finite()).collect();
        Some(Self { median: median(rounds.iter().copied())?, rounds, fewer: None })
    }

    /// The least and the most that it was.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        range(&self.rounds).unwrap_or((self.median, self.median))
    }

    /// Whether more than chance makes one greater than the other: by a test where the rounds are enough for
    /// one, otherwise if no round of one lies among those of the other.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        match verdict(&self.rounds, &other.rounds) {
            Verdict::Real { .. } => true,
            Verdict::Chance { .. } => false,
            Verdict::TooFew { .. } => {
                let (one, other) = (self.range(), other.range());
                one.0 > other.1 || other.0 > one.1
            }
        }
    }
}

/// What was measured of a server, with one number of clients.
#[derive(Debug, Default)]
pub struct View<'a> {
    pub(super) idle: Option<&'a Measured<Idle>>,
    pub(super) hold: Option<&'a Measured<Hold>>,
    pub(super) churn: Option<&'a Measured<Churn>>,
    pub(super) pingpong: Option<&'a Measured<PingPong>>,
    pub(super) bulk: Option<&'a Measured<Bulk>>,
    pub(super) datagrams: Option<&'a Measured<Datagrams>>,
    pub(super) slo: Option<&'a Sought>,
    timeline: &'a [Moment],
}

impl<'a> From<&'a Entry> for View<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            idle: entry.idle.as_ref(),
            hold: entry.hold.as_ref(),
            churn: entry.churn.as_ref(),
            pingpong: entry.pingpong.as_ref(),
            bulk: entry.bulk.as_ref(),
            datagrams: entry.datagrams.as_ref(),
            slo: entry.slo.as_ref(),
            timeline: &entry.timeline,
        }
    }
}

impl<'a> From<&'a Growth> for View<'a> {
    fn from(growth: &'a Growth) -> Self {
        Self {
            hold: growth.hold.as_ref(),
            churn: growth.churn.as_ref(),
            pingpong: growth.pingpong.as_ref(),
            ..Self::default()
        }
    }
}

impl View<'_> {
    /// Calls this with the name of each phase that was measured, and all its figures.
    pub fn each(&self, mut told: impl FnMut(&'static str, Vec<(&'static str, Value)>)) {
        fn all<T: Figures>(measured: &Measured<T>) -> Vec<(&'static str, Value)> {
            let rounds: Vec<_> = measured.rounds.iter().map(Figures::named).collect();
            let value = |(k, (name, median)): (usize, (&'static str, Option<f64>))| {
                let median = median.filter(|median| median.is_finite())?;
                let rounds = rounds.iter().filter_map(|round| round[k].1).filter(|v| v.is_finite()).collect();
                Some((name, Value { median, rounds, fewer: None }))
            };
            measured.median.named().into_iter().enumerate().filter_map(value).collect()
        }
        self.idle.iter().for_each(|it| told("idle", all(it)));
        self.hold.iter().for_each(|it| told("hold", all(it)));
        self.churn.iter().for_each(|it| told("churn", all(it)));
        self.pingpong.iter().for_each(|it| told("pingpong", all(it)));
        self.bulk.iter().for_each(|it| told("bulk", all(it)));
        self.datagrams.iter().for_each(|it| told("datagrams", all(it)));
        let sought = slo::FIGURES.iter().filter_map(|figure| Some((figure.key, figure.of(self)?)));
        let sought: Vec<_> = sought.collect();
        if !sought.is_empty() {
            told("slo", sought);
        }
    }

    /// How many clients were served in a phase, if not all were.
    #[must_use]
    pub fn fewer(&self, phase: Phase) -> Option<Fewer> {
        match phase {
            Phase::Hold => Fewer::of(self.hold?),
            Phase::Churn => Fewer::of(self.churn?),
            Phase::PingPong => Fewer::of(self.pingpong?),
            Phase::Bulk | Phase::Datagrams => None,
        }
    }

    /// The most that were seen at one moment while clients were there, the last time that they were; where
    /// none were held, that is all that is known.
    pub(super) fn seen(&self, count: fn(&Moment) -> u32) -> Option<Value> {
        let last = |phase: Phase| {
            let moments = self.timeline.iter().rev().skip_while(move |moment| moment.phase != Some(phase));
            moments.take_while(move |moment| moment.phase == Some(phase)).map(count).max()
        };
        let most = last(Phase::PingPong).or_else(|| last(Phase::Datagrams)).filter(|most| *most > 0)?;
        Some(Value { median: most.into(), rounds: vec![most.into()], fewer: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn value(rounds: &[f64]) -> Value {
        Value { median: rounds[0], rounds: rounds.to_vec(), fewer: None }
    }

    #[test]
    fn a_test_tells_where_it_can_and_the_ranges_where_not() {
        let differs = |one: &[f64], other: &[f64]| value(one).differs(&value(other));
        assert!(differs(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]));
        assert!(!differs(&[1.0, 2.0, 4.0], &[4.0, 5.0, 6.0]));
        // one round that went astray makes ranges overlap, and no difference go away
        let calm = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert!(differs(&calm, &[3.5, 11.0, 12.0, 13.0, 14.0, 15.0]));
        assert!(!differs(&calm, &[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]));
    }

    #[test]
    fn a_figure_of_few_clients_says_so() {
        let mut record = sample::record();
        let pingpong = record.models[2].pingpong.as_mut().unwrap();
        pingpong.median.clients = Some(1_000.0);
        pingpong.median.served = Some(8.0);
        let view = View::from(&record.models[2]);
        assert_eq!(view.fewer(Phase::PingPong).map(|fewer| fewer.to_string()).as_deref(), Some("8 of 1,000"));
        assert_eq!(view.fewer(Phase::Hold).map(|fewer| fewer.to_string()).as_deref(), Some("8 of 100"));
        assert_eq!(View::from(&record.models[1]).fewer(Phase::Hold), None);
        assert_eq!(view.fewer(Phase::Churn), None);
    }

    #[test]
    fn a_sum_has_a_median_of_its_own() {
        let of = |pss, tables| Hold {
            pss_kib_per_conn: Some(pss),
            page_tables_kib_per_conn: Some(tables),
            ..Hold::default()
        };
        let hold = Measured::of(vec![of(0.0, 5.0), of(5.0, 0.0), of(5.0, 5.0)], Vec::new());
        let sum = |it: &Hold| Some(it.pss_kib_per_conn? + it.page_tables_kib_per_conn?);
        assert_eq!(Value::of_sum(hold.as_ref(), sum).unwrap().median, 5.0);
        let old = Measured::of(vec![Hold { page_tables_kib_per_conn: None, ..of(1.0, 1.0) }], Vec::new());
        assert_eq!(Value::of_sum(old.as_ref(), sum), None);
    }

    #[test]
    fn what_was_seen_is_that_of_the_last_time() {
        let moment = |phase, processes| Moment { t_s: 0.0, phase, processes, threads: 1, done: 0 };
        let phase = Some(Phase::PingPong);
        let timeline =
            [moment(phase, 9), moment(None, 7), moment(phase, 3), moment(phase, 5), moment(None, 8)];
        let view = View { timeline: &timeline, ..View::default() };
        assert_eq!(view.seen(|moment| moment.processes).unwrap().median, 5.0);
        assert_eq!(View { timeline: &timeline[..0], ..View::default() }.seen(|it| it.processes), None);
        let idle = View { timeline: &timeline[1..2], ..View::default() };
        assert_eq!(idle.seen(|it| it.processes), None, "there was no server");
    }
}
