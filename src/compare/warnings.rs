//! What must be known to read the figures right, and what to do about it.

use super::record::{Calibration, Entry, Record};
use crate::load::Phase;
use crate::text::listed;

/// From which share of what the clients can do at all they are taken to be the bottleneck.
const BOUND: f64 = 0.9;
/// From which share of a processor on a client's thread had no time left.
const BUSY: f64 = 0.95;
/// From which share of a processor on others disturb.
const DISTURBED: f64 = 0.2;
/// With fewer rounds there is no range to speak of.
const ROUNDS: usize = 3;

/// What was noticed beside the figures.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// The share of a processor that others had before it began, and at worst while it was measured.
    pub(super) before: f64,
    pub(super) during: f64,
    /// What other machines on the same hardware had, at worst.
    pub(super) stolen: f64,
    /// Numbers of clients that were asked for and not had, for want of descriptors.
    pub(super) left_out: Vec<usize>,
    /// Of whom processor time could only be estimated.
    pub(super) estimated: Vec<String>,
    /// Who did not keep up with the rate that was asked for: in which phase, and which share was done.
    pub(super) missed: Vec<(String, (Phase, f64))>,
}

/// Says all that there is to say of a comparison.
pub(super) fn warnings(record: &Record, notes: &Notes) -> Vec<String> {
    let mut all = Vec::new();
    if cfg!(debug_assertions) {
        all.push("this forkd is a debug build, which is slow: measure with `cargo build --release`".into());
    }
    all.extend(of_the_machine(record, notes));
    all.extend(PHASES.iter().filter_map(|phase| client_bound(record, phase)));
    all.extend(too_short(record));
    all.extend(not_served(record));
    all.extend(record.models.iter().filter_map(failed));
    if let Some(rate) = record.settings.rate {
        all.extend(notes.missed.iter().map(|(title, (phase, share))| {
            let percent = share * 100.0;
            format!(
                "{title} did {percent:.0} % of the {rate} operations per second that came due in {}: ask for less, \
                 or take more --clients",
                phase.name()
            )
        }));
    }
    if record.settings.rounds < ROUNDS {
        all.push(
            "with fewer than 3 rounds nobody knows how far figures scatter: take --rounds 3 or more".into(),
        );
    }
    all
}

fn of_the_machine(record: &Record, notes: &Notes) -> Vec<String> {
    let mut all = Vec::new();
    if !notes.left_out.is_empty() {
        let (clients, limit) = (
            listed(&notes.left_out.iter().map(usize::to_string).collect::<Vec<_>>()),
            record.machine.open_files,
        );
        all.push(format!(
            "{clients} clients were left out: a process may have {limit} open files here; raise the limit (ulimit -Hn)"
        ));
    }
    let share = |share: f64| format!("{:.0} % of a processor", share * 100.0);
    let way_out = "end other programs, or take more --rounds and a longer --duration";
    if notes.before > DISTURBED {
        all.push(format!("the machine was busy before it began ({}): {way_out}", share(notes.before)));
    }
    if notes.during > DISTURBED.max(notes.before * 1.5) {
        all.push(format!(
            "others were busy while it was measured (up to {}): {way_out}",
            share(notes.during)
        ));
    }
    if notes.stolen > DISTURBED {
        all.push(format!(
            "other machines on the same hardware took up to {}: measure when they are idle",
            share(notes.stolen)
        ));
    }
    if !notes.estimated.is_empty() {
        let names = listed(&notes.estimated);
        all.push(format!(
            "the processor time of {names}, whose processes come and go, is what the whole machine did beside the \
             client, so others are counted, too; a control group counts exactly: run it as root, or with \
             `systemd-run --user --scope -p Delegate=yes`"
        ));
    }
    all
}

/// A phase, what the clients can do in it at all, and what a server did and how busy the client was.
struct Bound {
    name: &'static str,
    most: fn(&Calibration) -> Option<f64>,
    rate: fn(&Entry) -> Option<f64>,
    busy: fn(&Entry) -> Option<f64>,
}

const PHASES: [Bound; 4] = [
    Bound {
        name: "churn",
        most: |most| most.conn_per_s,
        rate: |entry| entry.churn.as_ref()?.median.conn_per_s,
        busy: |entry| entry.churn.as_ref()?.median.client_busy,
    },
    Bound {
        name: "pingpong",
        most: |most| most.req_per_s,
        // a few clients do not ask as much as many
        rate: |entry| {
            let figures = &entry.pingpong.as_ref()?.median;
            figures.req_per_s.filter(|_| figures.served >= figures.clients)
        },
        busy: |entry| entry.pingpong.as_ref()?.median.client_busy,
    },
    Bound {
        name: "bulk",
        most: |most| most.mb_per_s,
        rate: |entry| entry.bulk.as_ref()?.median.mb_per_s,
        busy: |entry| entry.bulk.as_ref()?.median.client_busy,
    },
    Bound {
        name: "datagrams",
        most: |most| most.datagrams_per_s,
        rate: |entry| entry.datagrams.as_ref()?.median.datagrams_per_s,
        busy: |entry| entry.datagrams.as_ref()?.median.client_busy,
    },
];

fn client_bound(record: &Record, phase: &Bound) -> Option<String> {
    // in an open loop it is the reader who says how much there is to do
    if record.settings.rate.is_some() {
        return None;
    }
    let most = record.calibration.as_ref().and_then(phase.most);
    let is_bound = |entry: &&Entry| {
        let near = most.zip((phase.rate)(entry)).is_some_and(|(most, rate)| rate >= most * BOUND);
        near || (phase.busy)(entry).is_some_and(|busy| busy >= BUSY)
    };
    let names: Vec<String> = record.models.iter().filter(is_bound).map(Entry::title).collect();
    (!names.is_empty()).then(|| {
        format!(
            "in {} the client was the bottleneck for {}, as it is for a server that does nothing: they may be able to \
             do more; compare their processor time, or measure where there are more processors",
            phase.name,
            listed(&names)
        )
    })
}

/// Where clients have not even been done once, a rate is that of the beginning.
fn too_short(record: &Record) -> Option<String> {
    let seconds = record.settings.duration_s;
    let few = |rate: Option<f64>, clients: Option<f64>| {
        rate.zip(clients).is_some_and(|(rate, clients)| rate * seconds < clients)
    };
    let is_short = |entry: &&Entry| {
        let churn = entry.churn.as_ref().map(|churn| &churn.median);
        let pingpong = entry.pingpong.as_ref().map(|pingpong| &pingpong.median);
        churn.is_some_and(|figures| few(figures.conn_per_s, figures.clients))
            || pingpong.is_some_and(|figures| few(figures.req_per_s, figures.served))
    };
    let names: Vec<String> = record.models.iter().filter(is_short).map(Entry::title).collect();
    (!names.is_empty() && record.settings.rate.is_none()).then(|| {
        format!(
            "{seconds} s were not enough for each client of {} to be done once: take a longer --duration, or fewer \
             --clients",
            listed(&names)
        )
    })
}

/// Requests are those of the clients that a server has room for.
fn not_served(record: &Record) -> Option<String> {
    let shy = |entry: &Entry| {
        let figures = &entry.pingpong.as_ref()?.median;
        let (served, clients) = (figures.served?, figures.clients?);
        (served < clients).then(|| format!("{} ({served:.0} of {clients:.0})", entry.title()))
    };
    let names: Vec<String> = record.models.iter().filter_map(shy).collect();
    (!names.is_empty()).then(|| {
        format!(
            "in pingpong not all clients were served by {}: the figures are those of the clients that were; more \
             --workers serve more, and fewer --clients make it even",
            listed(&names)
        )
    })
}

fn failed(entry: &Entry) -> Option<String> {
    let title = entry.title();
    if entry.faults.contains_key("wrong-bytes") {
        return Some(format!("{title} sent back something else than it was sent: is it an echo server?"));
    }
    let what = |(key, count): (&String, &u64)| format!("{count} {key}");
    let kinds: Vec<String> = entry.faults.iter().map(what).collect();
    (!kinds.is_empty()).then(|| {
        format!("clients of {title} failed ({}): its figures are of those that did not", listed(&kinds))
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::{Churn, Machine, Measured, PingPong, Settings};
    use super::*;

    fn entry(name: &str, rate: f64, busy: f64) -> Entry {
        let churn = Churn { conn_per_s: Some(rate), client_busy: Some(busy), ..Churn::default() };
        Entry {
            name: name.into(),
            workers: None,
            command: None,
            idle: None,
            hold: None,
            churn: Measured::of(vec![churn], Vec::new()),
            pingpong: None,
            bulk: None,
            datagrams: None,
            growth: Vec::new(),
            timeline: Vec::new(),
            faults: Default::default(),
            failure: None,
        }
    }

    fn record(models: Vec<Entry>) -> Record {
        Record {
            version: 1,
            made_at: String::new(),
            machine: Machine { open_files: 1024, ..Machine::default() },
            settings: Settings { rounds: 3, ..Settings::default() },
            calibration: Some(Calibration { conn_per_s: Some(1000.0), ..Calibration::default() }),
            models,
            warnings: Vec::new(),
            interrupted: false,
        }
    }

    /// Without that of a debug build.
    fn said(record: &Record, notes: &Notes) -> Vec<String> {
        warnings(record, notes).into_iter().filter(|warning| !warning.contains("debug build")).collect()
    }

    #[track_caller]
    fn says(record: &Record, notes: &Notes, expected: &[&str]) {
        let said = said(record, notes);
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said}\n{expected}");
        }
    }

    #[test]
    fn who_has_nothing_to_warn_of_says_nothing() {
        says(&record(vec![entry("fork", 500.0, 0.6)]), &Notes::default(), &[]);
    }

    #[test]
    fn the_client_may_be_the_bottleneck() {
        let all = vec![entry("fork", 899.0, 0.9), entry("event", 901.0, 0.9), entry("thread", 500.0, 0.96)];
        let mut record = record(all);
        says(&record, &Notes::default(), &["in churn the client was the bottleneck for event and thread, "]);
        record.settings.rate = Some(10.0);
        says(&record, &Notes::default(), &[]);
        let notes = Notes { missed: vec![("fork".into(), (Phase::Churn, 0.5))], ..Notes::default() };
        says(&record, &notes, &["fork did 50 % of the 10 operations per second that came due in churn"]);
    }

    #[test]
    fn a_phase_may_be_too_short_for_its_clients() {
        let mut slow = entry("fork", 100.0, 0.1);
        slow.churn.as_mut().unwrap().median.clients = Some(51.0);
        let mut record = record(vec![slow]);
        record.settings.duration_s = 0.5;
        says(&record, &Notes::default(), &["0.5 s were not enough for each client of fork"]);
        record.settings.duration_s = 0.52;
        says(&record, &Notes::default(), &[]);
    }

    #[test]
    fn a_busy_machine_is_told() {
        let record = record(vec![entry("a", 1.0, 0.1), entry("b", 1.0, 0.1)]);
        let notes = Notes { before: 0.5, during: 0.6, stolen: 0.3, ..Notes::default() };
        says(&record, &notes, &["busy before it began (50 % of a processor)", "other machines"]);
        let notes = Notes { during: 0.3, ..Notes::default() };
        says(&record, &notes, &["others were busy while it was measured (up to 30 %"]);
        let notes = Notes { estimated: vec!["a".into()], left_out: vec![2000, 9000], ..Notes::default() };
        says(
            &record,
            &notes,
            &["2000 and 9000 clients were left out: a process may have 1024", "time of a, whose"],
        );
    }

    #[test]
    fn clients_that_fail_are_told() {
        let mut bad = entry("bad", 1.0, 0.1);
        bad.faults.insert("wrong-bytes".into(), 3);
        let mut cut = entry("cut", 1.0, 0.1);
        cut.faults.insert("reset".into(), 7);
        let some = PingPong { served: Some(8.0), clients: Some(100.0), ..PingPong::default() };
        cut.pingpong = Measured::of(vec![some], Vec::new());
        let mut record = record(vec![bad, cut]);
        record.settings.rounds = 1;
        says(
            &record,
            &Notes::default(),
            &[
                "served by cut (8 of 100)",
                "is it an echo server",
                "clients of cut failed (7 reset)",
                "--rounds 3",
            ],
        );
    }
}
