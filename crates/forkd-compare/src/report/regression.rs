//! Whether a record is worse than an earlier one, by so much that a build shall fail (`--fail-on`).
//!
//! Invariant: noise fails no build. A figure has regressed only if its whole confidence interval is beyond the limit, and the
//! intervals of all figures together are wrong once in twenty times at most (Bonferroni): forty figures, each judged by itself,
//! would fail every other build in which nothing has changed.

use serde::Serialize;

use super::difference::changed;
use super::figures::{self, Figure, View};
use crate::record::Record;
use crate::stats::{Interval, LEVEL, needed_rounds, ratio_interval};
use forkd_load::text::thousands;

/// What is judged, and whether more of it is better. What else a record has follows from these, or is no matter of better and
/// worse; latencies of a closed loop are the rate again.
static JUDGED: [(&Figure, bool); 7] = [
    (&figures::CONN_PER_S, true),
    (&figures::REQ_PER_S, true),
    (&figures::MB_PER_S, true),
    (&figures::DATAGRAMS, true),
    (&figures::CPU, false),
    (&figures::MEMORY, false),
    (&figures::SERVED, true),
];

/// What is judged of an open loop, whose rates are asked for.
static JUDGED_PACED: [(&Figure, bool); 3] =
    [(&figures::P50, false), (&figures::P99, false), (&figures::CPU, false)];

/// What is said of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// It is worse by more than the limit, and that is no chance.
    Regressed,
    /// It may be worse by more than the limit, or not: the rounds vary too much.
    Unclear,
    /// It is not worse by more than the limit.
    Kept,
}

/// A figure of a server that was measured both times.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The server.
    pub model: String,
    /// The figure, as its column is called.
    pub figure: &'static str,
    /// Its median in the baseline.
    pub before: f64,
    /// Its median now.
    pub now: f64,
    /// How many times as much it is now.
    pub ratio: f64,
    /// The least that this ratio is likely to be.
    pub ratio_low: f64,
    /// The most that it is likely to be.
    pub ratio_high: f64,
    /// What that says.
    pub judgement: Judgement,
    #[serde(skip)]
    told: String,
}

/// All figures of a record against its baseline.
#[derive(Debug, Serialize)]
pub struct Regression {
    /// When the baseline was measured.
    pub baseline: String,
    /// From which share on a figure that is worse fails.
    pub fail_on: f64,
    /// The level of each confidence interval, so that all of them together are at 95 %.
    pub confidence: f64,
    /// Whether any figure has regressed.
    pub failed: bool,
    /// Each figure.
    pub figures: Vec<Judged>,
}

impl Regression {
    /// Judges a record.
    ///
    /// # Errors
    ///
    /// A sentence that says why one can't be judged by the other: other settings or another machine, nothing in common, or too
    /// few rounds.
    pub fn between(before: &Record, now: &Record, fail_on: f64) -> Result<Self, String> {
        comparable(before, now)?;
        let pairs = pairs(before, now);
        if pairs.is_empty() {
            return Err("the record and its baseline have no figure of the same server in common: name the same --models".into());
        }
        let level = LEVEL / pairs.len() as f64;
        let judged = pairs.iter().map(|pair| pair.judged(fail_on, level)).collect::<Option<Vec<_>>>();
        let figures = judged.ok_or_else(|| {
            format!(
                "{} figures can't be judged by so few rounds: take --rounds {} for both, or fewer --models or --phases",
                pairs.len(),
                needed_rounds(level)
            )
        })?;
        let failed = figures.iter().any(|figure| figure.judgement == Judgement::Regressed);
        Ok(Self { baseline: before.made_at.clone(), fail_on, confidence: 1.0 - level, failed, figures })
    }

    /// What is said to a person: what has regressed, and how many figures can't be told.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let of = |judgement| self.figures.iter().filter(move |figure| figure.judgement == judgement);
        let limit = percent(self.fail_on);
        let mut sentences: Vec<String> =
            of(Judgement::Regressed).map(|it| format!("regression: {}", it.told)).collect();
        let unclear: Vec<String> =
            of(Judgement::Unclear).map(|it| format!("{} of {}", it.figure, it.model)).collect();
        if !unclear.is_empty() {
            let names = forkd_load::text::listed(&unclear);
            sentences.push(format!("not told from noise: whether {names} may be worse by more than {limit}; more --rounds would tell"));
        }
        let kept = of(Judgement::Kept).count();
        sentences.push(format!(
            "{} of {} figures are not worse than on {} by more than {limit}.",
            thousands(kept as f64),
            thousands(self.figures.len() as f64),
            self.baseline
        ));
        sentences
    }

    /// Why a build fails, and what to do; `None` if it doesn't.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let mut all = self.figures.iter().filter(|figure| figure.judgement == Judgement::Regressed);
        let first = all.next()?;
        let more = match all.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!(
            "{}{more}: measure again while the machine does nothing else; if it stays, look for the change between the two, or \
             accept it with a new baseline",
            first.told
        ))
    }
}

/// Refuses what would compare one thing with another.
fn comparable(before: &Record, now: &Record) -> Result<(), String> {
    if before.interrupted || now.interrupted {
        return Err("one of the two was stopped before its end, so it is no measure of the other".into());
    }
    if !now.settings.slo.is_empty() {
        return Err("what --slo finds is an interval, and no set of rounds that could be judged".into());
    }
    // more rounds only tell more, and another forkd or kernel is what is to be judged
    let mut then = before.clone();
    then.settings.rounds = now.settings.rounds;
    (then.machine.forkd, then.machine.kernel) = (now.machine.forkd.clone(), now.machine.kernel.clone());
    (then.machine.memory_mib, then.machine.open_files) = (now.machine.memory_mib, now.machine.open_files);
    let mut doubts = changed(&then.settings, &now.settings, "the settings differ");
    doubts.extend(changed(&then.machine, &now.machine, "the machine differs"));
    match doubts.is_empty() {
        true => Ok(()),
        false => Err(format!("{}: measure a baseline as this was, and here", doubts.join("; "))),
    }
}

/// A figure of one server in both records.
struct Pair {
    model: String,
    figure: &'static Figure,
    is_more_better: bool,
    before: Vec<f64>,
    now: Vec<f64>,
}

fn pairs(before: &Record, now: &Record) -> Vec<Pair> {
    let judged: &[(&'static Figure, bool)] =
        if now.settings.rate.is_some() { &JUDGED_PACED } else { &JUDGED };
    let mut pairs = Vec::new();
    for entry in &now.models {
        let Some(old) = before.models.iter().find(|old| old.title() == entry.title()) else { continue };
        let (then, view) = (View::from(old), View::from(entry));
        for &(figure, is_more_better) in judged {
            let (Some(mut was), Some(mut is)) = (figure.of(&then), figure.of(&view)) else { continue };
            // no comparison has more
            [&mut was, &mut is].into_iter().for_each(|value| value.rounds.truncate(1000));
            let has_ratios = was.rounds.iter().chain(&is.rounds).all(|value| *value > 0.0);
            if has_ratios && !figure.is_too_little(&was, &then) {
                pairs.push(Pair {
                    model: entry.title(),
                    figure,
                    is_more_better,
                    before: was.rounds,
                    now: is.rounds,
                });
            }
        }
    }
    pairs
}

impl Pair {
    /// `None` if that can't be told from so few rounds.
    fn judged(&self, fail_on: f64, level: f64) -> Option<Judged> {
        let Interval { low, middle: ratio, high } = ratio_interval(&self.before, &self.now, level)?;
        let median = |rounds: &[f64]| crate::stats::median(rounds.iter().copied());
        let (before, now) = (median(&self.before)?, median(&self.now)?);
        // at its worst and at its best
        let (worst, best, limit) = match self.is_more_better {
            true => (low, high, 1.0 - fail_on),
            false => (high, low, 1.0 + fail_on),
        };
        let is_beyond = |ratio: f64| if self.is_more_better { ratio < limit } else { ratio > limit };
        let judgement = match (is_beyond(worst), is_beyond(best)) {
            (true, true) => Judgement::Regressed,
            (true, false) => Judgement::Unclear,
            _ => Judgement::Kept,
        };
        let change = |ratio: f64| percent((ratio - 1.0).abs());
        let told = format!(
            "{} of {} is {} {}, and at least {}: {} after {}",
            self.figure.head,
            self.model,
            change(ratio),
            if self.is_more_better { "less" } else { "more" },
            change(best),
            self.figure.text(now),
            self.figure.text(before)
        );
        let model = self.model.clone();
        Some(Judged {
            model,
            figure: self.figure.head,
            before,
            now,
            ratio,
            ratio_low: low,
            ratio_high: high,
            judgement,
            told,
        })
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 10.0 || percent.fract() == 0.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Churn, Measured};
    use crate::report::sample;

    /// A record of one server, of which each round's rate and processor time are known.
    fn record(rates: &[f64], cpu: &[f64]) -> Record {
        let mut entry = sample::entry("fork", 101.0, 100.0, 1.0, 1.0, 1.0);
        let churn = rates.iter().zip(cpu).map(|(rate, cpu)| Churn {
            conn_per_s: Some(*rate),
            cpu_us_per_conn: Some(*cpu),
            ..Churn::default()
        });
        (entry.churn, entry.hold, entry.pingpong, entry.bulk) =
            (Measured::of(churn.collect(), Vec::new()), None, None, None);
        Record { models: vec![entry], ..sample::record() }
    }

    const CPU: [f64; 6] = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0];
    const RATES: [f64; 6] = [1000.0, 1010.0, 1020.0, 1030.0, 1040.0, 1050.0];

    fn judged(rates: &[f64], cpu: &[f64]) -> Regression {
        Regression::between(&record(&RATES, &CPU), &record(rates, cpu), 0.05).unwrap()
    }

    #[test]
    fn what_is_clearly_worse_fails() {
        let slower = judged(&RATES.map(|rate| rate * 0.8), &CPU);
        assert!(slower.failed, "{slower:?}");
        let why = slower.why().unwrap();
        assert!(
            why.starts_with("conn/s of fork is 20 % less, and at least 18 %: 820 after 1,025: measure again"),
            "{why}"
        );
        let dearer = judged(&RATES, &CPU.map(|cpu| cpu * 1.5));
        assert!(
            dearer.why().unwrap().starts_with("CPU µs/conn of fork is 50 % more, and at least"),
            "{dearer:?}"
        );
    }

    #[test]
    fn noise_and_what_is_better_fail_nothing() {
        // the median is a tenth lower, but the rounds are all over the place
        let noisy = judged(&[500.0, 700.0, 900.0, 945.0, 1500.0, 2000.0], &CPU);
        assert!(!noisy.failed, "{noisy:?}");
        assert_eq!(noisy.figures[0].judgement, Judgement::Unclear);
        assert!(
            noisy.sentences()[0].starts_with("not told from noise: whether conn/s of fork may be worse"),
            "{noisy:?}"
        );
        let faster = judged(&RATES.map(|rate| rate * 2.0), &CPU.map(|cpu| cpu / 2.0));
        assert!(!faster.failed && faster.why().is_none(), "{faster:?}");
        assert!(faster.figures.iter().all(|figure| figure.judgement == Judgement::Kept), "{faster:?}");
        // worse beyond doubt, and by less than the limit
        assert!(!judged(&RATES.map(|rate| rate * 0.99), &CPU).failed);
        assert_eq!(judged(&RATES, &CPU).sentences().len(), 1, "nothing but the count");
    }

    #[test]
    fn what_can_not_be_judged_is_refused_with_what_would() {
        let now = record(&RATES, &CPU);
        let why = |before: &Record| Regression::between(before, &now, 0.05).unwrap_err();
        let few = record(&RATES[..2], &CPU[..2]);
        assert!(
            why(&few).contains("2 figures can't be judged by so few rounds: take --rounds 5 for both"),
            "{}",
            why(&few)
        );
        let mut other = now.clone();
        other.machine.processors = 64;
        assert!(why(&other).starts_with("the machine differs: processors 64, now 0"), "{}", why(&other));
        let mut other = now.clone();
        other.settings.clients = vec![7];
        assert!(why(&other).starts_with("the settings differ: clients [7], now [100]"), "{}", why(&other));
        let mut other = now.clone();
        other.models[0].name = "socat".into();
        assert!(why(&other).contains("no figure of the same server in common"), "{}", why(&other));
        // another version is what is to be judged, and rounds only tell more
        let mut other = now.clone();
        (other.machine.forkd, other.settings.rounds) = ("0.0.9".into(), 60);
        assert!(Regression::between(&other, &now, 0.05).is_ok());
    }
}
