//! Records for tests.

use crate::record::*;
use forkd_load::Phase;

/// One of nothing.
pub(crate) fn empty() -> Record {
    Record {
        version: VERSION,
        made_at: "2026-01-02T03:04:05Z".into(),
        machine: Machine::default(),
        settings: Settings::default(),
        calibration: None,
        models: Vec::new(),
        warnings: Vec::new(),
        disturbed: None,
        interrupted: false,
    }
}

/// Three rounds of a figure: 5 % below, the figure, 5 % above.
pub(crate) fn rounds<T: Figures>(make: impl Fn(f64) -> T) -> Option<Measured<T>> {
    Measured::of([0.95, 1.0, 1.05].map(make).into(), vec![(50.0, 100.0), (99.0, 900.0), (99.9, 2_000.0)])
}

/// An entry with processes, connections per second, processor time for one, and memory.
pub(crate) fn entry(name: &str, processes: f64, served: f64, rate: f64, cpu: f64, pss: f64) -> Entry {
    let moment = |t: f64, processes: f64| Moment {
        t_s: t,
        phase: (processes > 2.0).then_some(Phase::Hold),
        processes: processes as u32,
        threads: processes as u32,
        done: 0,
    };
    Entry {
        name: name.into(),
        workers: None,
        command: None,
        idle: rounds(|_| Idle { processes: Some(2.0), threads: Some(2.0), ..Idle::default() }),
        hold: rounds(|k| Hold {
            clients: Some(100.0),
            served: Some(served),
            processes: Some(processes),
            threads: Some(processes),
            pss_kib_per_conn: Some(pss * k),
            page_tables_kib_per_conn: Some(if processes > 100.0 { 60.0 } else { 0.0 }),
            ..Hold::default()
        }),
        churn: rounds(|k| Churn {
            clients: Some(100.0),
            conn_per_s: Some(rate * k),
            p50_us: Some(1e8 / rate * k),
            p99_us: Some(3e8 / rate * k),
            cpu_us_per_conn: Some(cpu * k),
            errors: Some(0.0),
            ..Churn::default()
        }),
        pingpong: rounds(|k| PingPong {
            clients: Some(100.0),
            req_per_s: Some(rate * 5.0 * k),
            ..PingPong::default()
        }),
        bulk: rounds(|k| Bulk { mb_per_s: Some(1_500.0 * k), ..Bulk::default() }),
        datagrams: None,
        slo: None,
        growth: Vec::new(),
        timeline: vec![moment(0.0, 2.0), moment(0.5, processes), moment(1.0, 2.0)],
        faults: Default::default(),
        failure: None,
    }
}

/// A pool of two workers which have a share of the held clients each.
pub(crate) fn pool(name: &str, spread: f64) -> Entry {
    let mut entry = Entry { workers: Some(2), ..entry(name, 3.0, 100.0, 20_000.0, 30.0, 2.0) };
    entry.hold = rounds(|k| Hold {
        clients: Some(100.0),
        served: Some(100.0),
        spread: Some((spread * k).min(1.0)),
        ..Hold::default()
    });
    entry
}

/// Four models that differ.
pub(crate) fn record() -> Record {
    let prefork = Entry { workers: Some(8), ..entry("prefork", 9.0, 8.0, 12_000.0, 46.0, 0.9) };
    Record {
        settings: Settings {
            phases: vec![Phase::Hold, Phase::Churn, Phase::PingPong, Phase::Bulk],
            clients: vec![100],
            duration_s: 0.3,
            rounds: 3,
            workers: Some(8),
            service: "echo".into(),
            size: 64,
            transport: "tcp".into(),
            rate: None,
            seed: 1,
            ..Settings::default()
        },
        models: vec![
            entry("iterative", 2.0, 1.0, 12_200.0, 44.0, 4.0),
            entry("fork", 101.0, 100.0, 5_000.0, 110.0, 112.0),
            prefork,
            entry("event", 2.0, 100.0, 20_000.0, 30.0, 2.0),
        ],
        ..empty()
    }
}
