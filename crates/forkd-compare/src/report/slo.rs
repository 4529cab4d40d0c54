//! What a search for the highest rate has found: its figures, and what they say.

use super::figures::{Figure, Unit, Value, View};
use crate::record::{Check, End, Entry, Record, Sought};
use forkd_load::text::{listed, micros, thousands, three_digits};

const fn figure(
    unit: Unit,
    (key, head): (&'static str, &'static str),
    (name, how): (&'static str, &'static str),
    of: fn(&View) -> Option<Value>,
) -> Figure {
    Figure { key, head, name, how, unit, of }
}

/// The figure of one objective: `latency!("p99", "99th percentile")`.
macro_rules! latency {
    ($key:literal, $name:literal) => {
        figure(
            Unit::Span,
            ($key, concat!($key, " there")),
            (
                concat!($name, " of the time of a connection at the highest rate"),
                "from when a connection was due to its echo; where no rate was kept, at the lowest that was tried",
            ),
            |view| Value::of_trials(view.slo?.each(|trial| trial.latency_us.get($key).copied())),
        )
    };
}

fn one(view: &View, of: fn(&Sought) -> Option<f64>) -> Option<Value> {
    Value::of_trials(of(view.slo?).into_iter().collect())
}

/// All of them, in the order in which they are shown; the first is what is looked for.
pub(super) static FIGURES: [Figure; 12] = [
    figure(
        Unit::Count,
        ("rate", "highest rate"),
        (
            "Connections per second that keep it",
            "so many connections came due per second whatever the server did, and two runs of three at most kept the objective",
        ),
        |view| one(view, |sought| sought.rate),
    ),
    latency!("p50", "Median"),
    latency!("p90", "90th percentile"),
    latency!("p95", "95th percentile"),
    latency!("p99", "99th percentile"),
    latency!("p99.9", "99.9th percentile"),
    latency!("max", "Longest"),
    figure(
        Unit::Count,
        ("errors", "errors"),
        (
            "Connections that failed at the highest rate",
            "in one run; where no rate was kept, at the lowest that was tried",
        ),
        |view| Value::of_trials(view.slo?.each(|trial| Some(trial.errors as f64))),
    ),
    figure(
        Unit::Span,
        ("service_us", "service time"),
        (
            "How long a connection keeps a child or worker",
            "the mean at the highest rate, as forkd counts it: from when a child or worker has the connection until it closes it",
        ),
        |view| one(view, |sought| sought.service_us),
    ),
    figure(
        Unit::Plain,
        ("at_once", "in service"),
        (
            "Connections that are served at the same time, on average",
            "by Little's law the highest rate times the service time; those that wait in the queue are not in it",
        ),
        |view| one(view, |sought| sought.at_once),
    ),
    figure(
        Unit::Count,
        ("workers_asked", "workers asked"),
        (
            "Workers that Little's law asks for",
            "of a pool whose workers serve one client each: as many as are busy on average, rounded up",
        ),
        |view| one(view, |sought| Some(f64::from(sought.workers_asked?))),
    ),
    figure(
        Unit::Micros,
        ("cpu_us_per_conn", "CPU µs/conn"),
        ("Processor time for a connection at the highest rate", "processor time of the server alone"),
        |view| {
            // of a rate that was not kept it says nothing
            let sought = view.slo.filter(|sought| sought.rate.is_some())?;
            Value::of_trials(sought.each(|trial| trial.cpu_us_per_conn))
        },
    ),
];

/// Which of them are in the picture of the whole, each with the two lines above its column.
pub(super) static OVERVIEW: [(usize, &str, &str); 4] = [
    (0, "highest rate", "connections per second"),
    (8, "service time", "of a connection"),
    (9, "in service", "connections at once"),
    (11, "CPU time", "per connection"),
];

/// The objectives, as in "p50=1ms and p99=10ms".
fn objectives(record: &Record) -> String {
    listed(&record.settings.slo.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// What the picture is of; `None` for a record of another kind.
pub(super) fn title(record: &Record) -> Option<String> {
    (!record.settings.slo.is_empty()).then(|| format!("The highest rate that keeps {}", objectives(record)))
}

/// What stands below the table.
pub(super) fn notes(record: &Record) -> Vec<String> {
    if record.settings.slo.is_empty() {
        return Vec::new();
    }
    let stay = record.settings.stay_s.map_or(String::new(), |stay| {
        format!(
            "; each client stays for {} after its echo, which is in the service time and in no latency",
            micros(stay * 1e6)
        )
    });
    vec![
        format!("highest rate: connections per second that come due (open loop), at which {} is kept{stay}", objectives(record)),
        "in service: Little's law, highest rate × service time; workers asked: that many are busy on average, rounded up".into(),
    ]
}

/// A sentence or two on each server.
pub(super) fn sentences(record: &Record) -> Vec<String> {
    record.models.iter().filter_map(|entry| Some(sentence(record, entry, entry.slo.as_ref()?))).collect()
}

fn sentence(record: &Record, entry: &Entry, sought: &Sought) -> String {
    let (title, kept) = (entry.title(), objectives(record));
    let at_lowest = |rate: f64| {
        let latencies: Vec<String> = record
            .settings
            .slo
            .iter()
            .filter_map(|objective| {
                let is = sought.median(|trial| trial.latency_us.get(objective.name()).copied())?;
                Some(format!("{} {}", objective.name(), micros(is)))
            })
            .collect();
        format!(
            "{title} does not keep {kept} even at {} connections per second, the lowest rate that runs of {} s can tell: {}.",
            thousands(rate),
            record.settings.duration_s,
            listed(&latencies)
        )
    };
    let found = match (sought.rate, sought.broken, sought.end) {
        (None, Some(broken), Some(End::NotAtLowest)) => return at_lowest(broken),
        (None, ..) => return format!("{title}: the search was over before a rate was decided."),
        (Some(rate), _, Some(End::AtHighest)) => format!(
            "{title} keeps {kept} at {} connections per second, the most that these clients can ask for: take more --clients",
            thousands(rate)
        ),
        (Some(rate), Some(broken), _) => {
            format!(
                "{title} keeps {kept} at {} connections per second, and not at {}",
                thousands(rate),
                thousands(broken)
            )
        }
        (Some(rate), None, _) => {
            format!(
                "{title} keeps {kept} at {} connections per second; the search was over before it was too high",
                thousands(rate)
            )
        }
    };
    let little = sought.at_once.zip(sought.service_us).map(|(at_once, us)| {
        let each = format!("each keeps a {} for {}", keeper(entry), micros(us));
        let asked = sought.workers_asked.map_or(String::new(), |asked| {
            let has = entry.workers.map_or(String::new(), |workers| format!(" of {workers}"));
            format!(", so Little's law asks for {asked}{has}")
        });
        format!("; {each}, and {} are served at a time{asked}", three_digits(at_once))
    });
    format!("{found}{}.{}", little.unwrap_or_default(), checks(sought, entry.workers))
}

/// What a connection keeps.
fn keeper(entry: &Entry) -> &'static str {
    match &*entry.name {
        "fork" | "spare" => "child",
        "thread" | "prethread" => "thread",
        "event" | "coroutine" => "place in a worker",
        _ => "worker",
    }
}

/// What was seen with other numbers of workers.
fn checks(sought: &Sought, has: Option<u32>) -> String {
    let Some(asked) = sought.workers_asked.filter(|_| !sought.checks.is_empty()) else {
        return String::new();
    };
    let told = |check: &Check| {
        let verb = if check.kept { "kept it" } else { "did not" };
        format!("{} {verb}{}", check.workers, latencies(check))
    };
    let list: Vec<String> = sought.checks.iter().map(told).collect();
    let enough = sought
        .checks
        .iter()
        .filter(|check| check.workers >= asked && check.kept)
        .map(|check| check.workers)
        .min();
    let few = sought.checks.iter().find(|check| check.workers < asked).map(|check| check.kept);
    let verdict = match (enough, few) {
        (None, _) if has.is_some_and(|has| has <= asked.saturating_add(2)) => {
            "though as many as it has kept it before: others were busy meanwhile, so measure again".to_owned()
        }
        (None, _) => "so the law's number is not enough here: arrivals and times that vary need more than the mean".to_owned(),
        (Some(enough), _) if enough > asked => {
            format!("the law's number is the mean, so that all are busy nearly always, and {enough} are enough")
        }
        (_, Some(false)) => "as the law says".to_owned(),
        (_, Some(true)) => "so fewer do, too: a part of the service time was waiting for a processor, which more workers only \
             lengthen"
            .to_owned(),
        (_, None) => "fewer than one there can't be".to_owned(),
    };
    format!(" Checked at that rate by workers: {}; {verdict}.", listed(&list))
}

/// Its latencies.
fn latencies(check: &Check) -> String {
    let names = check.trials.first().map(|trial| trial.latency_us.keys().cloned().collect::<Vec<_>>());
    let all: Vec<String> = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| {
            let each = check.trials.iter().filter_map(|trial| trial.latency_us.get(name).copied());
            Some(format!("{name} {}", micros(crate::stats::median(each)?)))
        })
        .collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Settings, Trial};
    use crate::report::{chart, csv, markdown, sample, svg, table};

    fn trial(rate: f64, p99: f64, kept: bool) -> Trial {
        Trial { rate, latency_us: [("p99".into(), p99)].into(), kept, ..Trial::default() }
    }

    fn check(workers: u32, p99: f64, kept: bool) -> Check {
        Check { workers, kept, trials: vec![trial(4000.0, p99, kept)] }
    }

    fn entry(name: &str, workers: Option<u32>, sought: Sought) -> Entry {
        Entry { name: name.into(), workers, slo: Some(sought), ..Entry::default() }
    }

    fn record(models: Vec<Entry>) -> Record {
        let slo = vec!["p99=10ms".parse().unwrap()];
        let settings = Settings {
            slo,
            duration_s: 1.0,
            clients: vec![1000],
            stay_s: Some(0.002),
            ..Settings::default()
        };
        Record { models, settings, ..sample::empty() }
    }

    fn pool(asked: u32, checks: Vec<Check>) -> Record {
        let sought = Sought {
            rate: Some(4000.0),
            broken: Some(4160.0),
            end: Some(End::Found),
            trials: vec![
                trial(4000.0, 900.0, true),
                trial(4000.0, 1100.0, true),
                trial(4160.0, 90_000.0, false),
            ],
            service_us: Some(2000.0),
            at_once: Some(8.0),
            workers_asked: Some(asked),
            checks,
        };
        record(vec![entry("prefork", Some(8), sought)])
    }

    #[test]
    fn what_was_found_is_said_with_the_check() {
        let said = sentences(&pool(8, vec![check(8, 1000.0, true), check(4, 500_000.0, false)]));
        assert_eq!(
            said,
            [
                "prefork ×8 keeps p99=10ms at 4,000 connections per second, and not at 4,160; each keeps a worker for 2.00 ms, \
              and 8.00 are served at a time, so Little's law asks for 8 of 8. Checked at that rate by workers: 8 kept it (p99 \
              1.00 ms) and 4 did not (p99 500 ms); as the law says."
            ]
        );
        for (asked, checks, verdict) in [
            (
                2,
                vec![check(2, 1.0, true), check(1, 1.0, true)],
                "so fewer do, too: a part of the service time",
            ),
            (1, vec![check(1, 1.0, true)], "fewer than one there can't be"),
            (
                8,
                vec![check(8, 1.0, false), check(9, 1.0, true), check(4, 1.0, false)],
                "nearly always, and 9 are enough",
            ),
            (5, vec![check(5, 1.0, false), check(6, 1.0, false)], "the law's number is not enough here"),
            (8, vec![check(8, 1.0, false), check(9, 1.0, false)], "as many as it has kept it before"),
        ] {
            let said = sentences(&pool(asked, checks));
            assert!(said[0].contains(verdict), "{said:?}");
        }
    }

    #[test]
    fn a_search_that_found_nothing_says_so() {
        let none = Sought {
            broken: Some(1000.0),
            end: Some(End::NotAtLowest),
            trials: vec![trial(1000.0, 35_000.0, false)],
            ..Sought::default()
        };
        let most = Sought { rate: Some(500.0), end: Some(End::AtHighest), ..Sought::default() };
        let said = sentences(&record(vec![
            entry("a", None, none),
            entry("b", None, most),
            entry("c", None, Sought::default()),
        ]));
        assert!(
            said[0].starts_with("a does not keep p99=10ms even at 1,000 connections per second"),
            "{said:?}"
        );
        assert!(said[0].ends_with("can tell: p99 35.0 ms."), "{said:?}");
        assert!(said[1].contains("take more --clients"), "{said:?}");
        assert!(said[2].contains("over before a rate was decided"), "{said:?}");
    }

    #[test]
    fn each_report_has_it() {
        let record = pool(8, vec![check(8, 1000.0, true)]);
        let text = table::tables(&record, None);
        assert!(
            text.starts_with(
                "model       highest rate  p99 there  errors  service time  in service  workers asked\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "prefork ×8         4,000    1.00 ms       0       2.00 ms        8.00              8\n"
            ),
            "{text}"
        );
        assert!(text.contains("each client stays for 2.00 ms"), "{text}");
        assert!(chart::charts(&record, None).starts_with("Connections per second that keep it"));
        let page = markdown::markdown(&record);
        assert!(page.contains("--slo 'p99=10ms'") || page.contains("--slo p99=10ms"), "{page}");
        assert!(
            !page.contains("--rounds") && !page.contains("--phases") && page.contains("--stay 2ms"),
            "{page}"
        );
        assert!(csv::csv(&record).contains("prefork,8,1000,slo,rate,4000,4000,4000,1\n"));
        let files: Vec<String> = svg::files(&record).into_iter().map(|(name, _)| name).collect();
        assert_eq!(files, ["overview.svg", "highest-rate.svg", "overview-dark.svg"]);
    }
}
