//! What clients met: a limit of their own, a server that had no room for them, and what failed.

use crate::record::{Calibration, Churn, Entry, Record};
use crate::stats::median;
use forkd_load::text::{listed, thousands};

/// From which share of what the clients can do at all they are taken to be the bottleneck.
const BOUND: f64 = 0.9;
/// From which share of a processor on a client's thread had no time left.
const BUSY: f64 = 0.95;

pub(super) fn warnings(record: &Record) -> Vec<String> {
    let mut all: Vec<String> = PHASES.iter().filter_map(|phase| client_bound(record, phase)).collect();
    all.extend(search_bound(record));
    all.extend(too_short(record));
    all.extend(record.models.iter().filter_map(refused));
    all.extend(starved(record));
    all.extend(not_served(record));
    all.extend(record.models.iter().filter_map(failed));
    all
}

/// Of a sweep only the most clients are looked at, and that is said.
fn with_clients(record: &Record) -> String {
    match &record.settings.clients[..] {
        [_, .., most] => format!(" with {} clients", thousands(*most as f64)),
        _ => String::new(),
    }
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

/// Where the search for the highest rate has found how much the clients can ask for.
fn search_bound(record: &Record) -> Option<String> {
    let is_bound = |entry: &&Entry| {
        let Some(sought) = &entry.slo else { return false };
        let at_end = sought.trials.iter().filter(|trial| Some(trial.rate) == sought.broken);
        median(at_end.map(|trial| trial.client_busy)).is_some_and(|busy| busy >= BUSY)
    };
    let names: Vec<String> = record.models.iter().filter(is_bound).map(Entry::title).collect();
    (!names.is_empty()).then(|| {
        format!(
            "above the highest rate the client had no processor time left for {}: these can do more than is shown",
            listed(&names)
        )
    })
}

fn client_bound(record: &Record, phase: &Bound) -> Option<String> {
    // in an open loop it is the reader who says how much there is to do
    if record.settings.rate.is_some() {
        return None;
    }
    let most = record.calibration.as_ref().and_then(phase.most);
    let is_bound = |entry: &&Entry| {
        // clients that wait in vain may be busy, too
        let rate = (phase.rate)(entry).filter(|rate| *rate > 0.0);
        let near = most.zip(rate).is_some_and(|(most, rate)| rate >= most * BOUND);
        near || (rate.is_some() && (phase.busy)(entry).is_some_and(|busy| busy >= BUSY))
    };
    let names: Vec<String> = record.models.iter().filter(is_bound).map(Entry::title).collect();
    (!names.is_empty()).then(|| {
        format!(
            "in {}{} the client was the bottleneck for {}, as it is for a server that does nothing: they may be able \
             to do more; compare their processor time, or measure where there are more processors",
            phase.name,
            // of one stream it is always one
            if phase.name == "bulk" { String::new() } else { with_clients(record) },
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
        churn.is_some_and(|figures| !is_starving(figures) && few(figures.conn_per_s, figures.clients))
            || pingpong.is_some_and(|figures| few(figures.req_per_s, figures.served))
    };
    let names: Vec<String> = record.models.iter().filter(is_short).map(Entry::title).collect();
    (!names.is_empty() && record.settings.rate.is_none()).then(|| {
        format!(
            "{seconds} s were not enough for each client of {}{} to be done once: take a longer --duration, or fewer \
             --clients",
            listed(&names),
            with_clients(record)
        )
    })
}

/// Whether some clients had no connection at all, so that it is unknown how long they would have waited.
fn is_starving(churn: &Churn) -> bool {
    churn.served.zip(churn.clients).is_some_and(|(served, clients)| served < clients)
}

fn starved(record: &Record) -> Option<String> {
    let shy = |entry: &Entry| {
        let churn = entry.churn.as_ref().map(|churn| &churn.median).filter(|churn| is_starving(churn))?;
        Some(format!("{} ({:.0} of {:.0})", entry.title(), churn.served?, churn.clients?))
    };
    let names: Vec<String> = record.models.iter().filter_map(shy).collect();
    // where few come due, not all have something to do
    (!names.is_empty() && record.settings.rate.is_none()).then(|| {
        format!(
            "in churn not all clients were served by {} in {} s, and how long the others would have waited is in no \
             figure: take a longer --duration or fewer --clients, unless a limit such as that of processes (ulimit -u) \
             stops it",
            listed(&names),
            record.settings.duration_s
        )
    })
}

/// Those that a forkd has turned away: it has places enough, so it is the system that has no more.
fn refused(entry: &Entry) -> Option<String> {
    let churn = &entry.churn.as_ref()?.median;
    let refused = churn.refused.filter(|refused| *refused > 0.0)?;
    Some(format!(
        "{} refused {} connections in churn of {} clients: it met a limit of the system, such as that of processes \
         (ulimit -u); raise it, or take fewer --clients",
        entry.title(),
        thousands(refused),
        thousands(churn.clients?)
    ))
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
