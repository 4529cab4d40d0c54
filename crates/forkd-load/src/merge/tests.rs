//! What is put together, and what is not.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::meter::Part;
use crate::{Outcome, Plan};

const BEGAN: Duration = Duration::from_secs(1_000_000_000);

/// What a generator has measured in two seconds: these latencies, in microseconds.
fn part(micros: impl Iterator<Item = u64>) -> Part {
    let mut part = Part { began: Some(SystemTime::UNIX_EPOCH + BEGAN), lost: 3, ..Part::default() };
    (part.span, part.cpu) = (Duration::from_secs(2), Duration::from_millis(500));
    micros.for_each(|us| part.latencies.record(Duration::from_micros(us)));
    part.done = part.latencies.count();
    part.bytes = part.done * 64;
    part.faults.count(Fault::Reset);
    part
}

fn outcome(clients: usize, parts: Vec<Part>) -> Outcome {
    Outcome::of(Phase::PingPong, &Plan { clients, ..Plan::default() }, clients, parts)
}

fn report(clients: usize, parts: Vec<Part>) -> Report {
    let plan = Plan { clients, ..Plan::default() };
    Report::new(&"tcp://127.0.0.1:7".parse().unwrap(), &plan, &[outcome(clients, parts)], false)
}

fn one() -> Report {
    report(5, vec![part(1..=10_000)])
}

fn other() -> Report {
    report(3, vec![part((1..=500).map(|us| us * 1000))])
}

fn merged(reports: &[Report]) -> Result<Report, String> {
    let named: Vec<(String, Report)> =
        (1..).map(|n| format!("{n}.json")).zip(reports.iter().cloned()).collect();
    Report::merged(&named)
}

#[test]
fn a_report_of_two_is_that_of_one_run_over_both() {
    let both = merged(&[one(), other()]).unwrap();
    let expected = report(8, vec![part(1..=10_000), part((1..=500).map(|us| us * 1000))]);
    assert_eq!((both.generators, both.settings.clients, both.settings.threads), (2, 8, 2));
    let (got, expected) = (&both.phases[0], &expected.phases[0]);
    // all but the time in which they ran at once, and by which rates the sum comes about
    assert_eq!(got.together, Some(Together { began_unix_s: BEGAN.as_secs_f64(), seconds: 2.0 }));
    assert!((got.per_s - expected.per_s).abs() < 1e-6 && (got.mb_per_s - expected.mb_per_s).abs() < 1e-9);
    let Figures { per_s, mb_per_s, .. } = *expected;
    assert_eq!(Figures { together: None, per_s, mb_per_s, ..got.clone() }, expected.clone());
    assert_eq!((got.done, got.lost, got.errors["reset"]), (10_500, 6, 2));
}

#[test]
fn a_merged_report_can_be_merged_again() {
    let third = report(1, vec![part(20_000..=20_100)]);
    let at_once = merged(&[one(), other(), third.clone()]).unwrap();
    let text = serde_json::to_string(&merged(&[one(), other()]).unwrap()).unwrap();
    let stepwise = merged(&[serde_json::from_str(&text).unwrap(), third]).unwrap();
    assert_eq!(stepwise, at_once);
    assert_eq!((at_once.generators, at_once.phases[0].clients), (3, 9));
}

#[test]
fn of_generators_that_did_not_run_at_once_it_is_said() {
    let late = |by: f64| {
        let mut report = other();
        *report.phases[0].began_unix_s.as_mut().unwrap() += by;
        merged(&[one(), report]).unwrap().phases.remove(0)
    };
    assert!(late(0.1).warnings.is_empty());
    let figures = late(1.5);
    assert!((figures.together.unwrap().seconds - 0.5).abs() < 1e-6);
    assert!(figures.warnings[0].contains("ran at once for 500 ms of 2.00 s"), "{:?}", figures.warnings);
    assert!(late(10.0).warnings[0].contains("ran at once for 0.00 µs of 2.00 s"));
    let text = crate::table(&[late(0.1)]);
    assert!(text.contains("rates in pingpong are sums over generators, each in its own time; all ran at once for 1.90 s of 2.00 s"), "{text}");
}

#[test]
fn clients_that_stay_have_no_rate() {
    let [one, other] = [one(), other()].map(|mut report| {
        report.phases[0].phase = Phase::Hold;
        report
    });
    assert_eq!(merged(&[one, other]).unwrap().phases[0].together, None);
}

#[test]
fn a_warning_has_the_name_of_the_report_that_it_is_of() {
    let mut busy = one();
    busy.phases[0].warnings = vec!["busy".to_owned()];
    assert_eq!(merged(&[other(), busy.clone()]).unwrap().phases[0].warnings, ["2.json: busy"]);
    assert_eq!(merged(&[busy]).unwrap().phases[0].warnings, ["busy"]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    type Change = fn(&mut Report);
    let changed = |change: Change| {
        let mut report = other();
        change(&mut report);
        merged(&[one(), report]).unwrap_err()
    };
    let reasons: [(Change, &str); 14] = [
        (
            |r| r.endpoint = "tcp://127.0.0.1:8".parse().unwrap(),
            "2.json is no part of what 1.json is: its server is tcp://127.0.0.1:8, and not tcp://127.0.0.1:7",
        ),
        (|r| r.phases[0].phase = Phase::Churn, "its list of phases is churn, and not pingpong"),
        (|r| r.settings.rate = Some(5.0), "its loop is open (--rate), and not closed"),
        (|r| r.settings.size = 9, "its message size is 9, and not 64"),
        (|r| r.settings.piece = 9, "its piece size is 9"),
        (|r| r.settings.timeout_s = 9.0, "its time-out is 9, and not 5"),
        (|r| r.version = 2, "2.json: its format has version 2, and this forkd knows 1"),
        (|r| r.phases.clear(), "nothing was measured"),
        (
            |r| r.phases[0].latencies_hdr = None,
            "it has no histogram of pingpong, as it was written by a forkd that kept none",
        ),
        (|r| r.phases[0].done += 1, "has 500 operations, and its figures have another number"),
        (|r| r.settings.duration_s = 1e300, "its settings are none that can be"),
        (|r| r.phases[0].seconds = -1.0, "none that can be measured"),
        (
            |r| _ = r.phases[0].errors.insert("odd".into(), 1),
            "a kind of error in pingpong that this forkd does not know: odd",
        ),
        (|r| r.phases[0].lost = u64::MAX, "its counts are too large"),
    ];
    for (change, reason) in reasons {
        let why = changed(change);
        assert!(why.contains(reason), "{why}");
    }
    assert_eq!(merged(&[one(), other(), one()]).unwrap_err(), "1.json and 3.json are the same report");
    assert!(merged(&[]).is_err());
}

#[test]
fn a_report_of_an_older_forkd_is_told_to_be_one() {
    let mut value = serde_json::to_value(one()).unwrap();
    let figures = value["phases"][0].as_object_mut().unwrap();
    figures.remove("latencies_hdr");
    figures.remove("began_unix_s");
    let old: Report = serde_json::from_value(value).unwrap();
    assert!(merged(&[old, other()]).unwrap_err().contains("1.json: it has no histogram of pingpong"));
}

proptest! {
    /// Whatever stands in a report: there is a sum that is a report as well, or a reason.
    #[test]
    fn a_number_that_was_made_up_is_added_or_refused(
        path in prop::sample::select(vec![
            "/generators", "/settings/clients", "/settings/rate", "/settings/operations", "/settings/duration_s", "/phases/0/clients",
            "/phases/0/served", "/phases/0/still_served", "/phases/0/began_unix_s", "/phases/0/seconds", "/phases/0/per_s",
            "/phases/0/mb_per_s", "/phases/0/done", "/phases/0/lost", "/phases/0/unsent", "/phases/0/client_cpu_s",
            "/phases/0/client_busy", "/phases/0/errors/reset", "/phases/0/latencies_hdr", "/phases/0/warnings",
        ]),
        value in prop_oneof![
            prop::sample::select(vec![0, 1, u64::MAX, u64::MAX - 1]).prop_map(serde_json::Value::from),
            prop::sample::select(vec![-1.0, 1e300, -1e300, 1e-300]).prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
            "[A-Za-z0-9+/=\u{1b}]{0,40}".prop_map(serde_json::Value::from),
        ],
    ) {
        let mut json = serde_json::to_value(one()).unwrap();
        *json.pointer_mut(path).unwrap() = value;
        if let Ok(report) = serde_json::from_value::<Report>(json)
            && let Ok(sum) = merged(&[report, other()])
        {
            let text = serde_json::to_string(&sum).unwrap();
            prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap().phases.len(), 1);
            prop_assert!(!crate::table(&sum.phases).contains("NaN"));
        }
    }
}
