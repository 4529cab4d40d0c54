//! What must be known to read the figures right, and what to do about it.

mod clients;

use super::record::{DISTURBED, Record};
use forkd_load::Phase;
use forkd_load::text::listed;

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
    /// Whose processor time could only be estimated: servers that were started, and those that ran already.
    pub(super) estimated: Vec<String>,
    pub(super) estimated_targets: Vec<String>,
    /// Which servers did not keep up with the rate that was asked for: in which phase, and which share was done.
    pub(super) missed: Vec<(String, (Phase, f64))>,
}

/// Says all that there is to say of a comparison.
pub(super) fn warnings(record: &Record, notes: &Notes) -> Vec<String> {
    let mut all = Vec::new();
    if cfg!(debug_assertions) {
        all.push("this forkd is a debug build, which is slow: measure with `cargo build --release`".into());
    }
    all.extend(of_the_machine(record, notes));
    all.extend(clients::warnings(record));
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
    if record.settings.rounds < ROUNDS && record.settings.slo.is_empty() {
        all.push("fewer than 3 rounds do not show how far figures scatter: take --rounds 3 or more".into());
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
    let way_out = match nix::unistd::geteuid().is_root() {
        true => "none can be made here: measure where /sys/fs/cgroup can be written to",
        false => "run it as root, or with `systemd-run --user --scope -p Delegate=yes`",
    };
    all.extend(estimated(&notes.estimated, way_out));
    all.extend(estimated(
        &notes.estimated_targets,
        "one that runs already is in none of ours, so have it started with --against",
    ));
    all
}

fn estimated(names: &[String], way_out: &str) -> Option<String> {
    (!names.is_empty()).then(|| {
        format!(
            "the processor time of {}, whose processes come and go, is what the whole machine did beside the client, so \
             others are counted, too; a control group counts exactly: {way_out}",
            listed(names)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::{Calibration, Churn, Entry, Machine, Measured, PingPong, Settings};
    use super::*;

    fn entry(name: &str, rate: f64, busy: f64) -> Entry {
        let churn = Churn { conn_per_s: Some(rate), client_busy: Some(busy), ..Churn::default() };
        Entry { name: name.into(), churn: Measured::of(vec![churn], Vec::new()), ..Entry::default() }
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
            disturbed: None,
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
    fn clients_that_were_not_served_are_told() {
        let mut slow = entry("slow", 10.0, 0.1);
        let churn = &mut slow.churn.as_mut().unwrap().median;
        (churn.served, churn.clients) = (Some(30.0), Some(100.0));
        let mut full = entry("full", 900.0, 0.1);
        let churn = &mut full.churn.as_mut().unwrap().median;
        (churn.served, churn.clients, churn.refused) = (Some(100.0), Some(100.0), Some(1234.0));
        let mut record = record(vec![slow, full]);
        record.calibration = None;
        record.settings.duration_s = 1.0;
        let limit = "full refused 1,234 connections in churn of 100 clients: it met a limit of the system";
        says(
            &record,
            &Notes::default(),
            &[limit, "in churn not all clients were served by slow (30 of 100) in 1 s"],
        );
        record.settings.rate = Some(1.0);
        says(&record, &Notes::default(), &[limit]);
    }

    #[test]
    fn of_a_sweep_it_is_said_which_clients_are_meant() {
        let (mut event, mut dead) = (entry("event", 950.0, 0.1), entry("dead", 0.0, 0.99));
        event.churn.as_mut().unwrap().median.clients = Some(1000.0);
        dead.churn.as_mut().unwrap().median.clients = Some(0.0);
        let mut record = record(vec![event, dead]);
        record.settings.duration_s = 1.0;
        record.settings.clients = vec![10, 1000];
        says(
            &record,
            &Notes::default(),
            &[
                "in churn with 1,000 clients the client was the bottleneck for event,",
                "1 s were not enough for each client of event with 1,000 clients to be done once",
            ],
        );
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
        let notes = Notes { estimated_targets: vec!["tcp://a:1".into()], ..Notes::default() };
        says(&record, &notes, &["have it started with --against"]);
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
