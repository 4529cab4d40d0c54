//! From what both sides have shown in a phase to its figures.

use super::Counters;
use super::record::{Bulk, Churn, Datagrams, PingPong};
use super::tally::errors;
use super::tree::Count;
use super::usage::Usage;
use forkd_load::Outcome;

/// What a phase has shown from both sides.
pub(super) struct Shown {
    pub(super) outcome: Outcome,
    pub(super) usage: Option<Usage>,
    pub(super) counted: Option<(Counters, Counters)>,
    /// The processes when the warm-up was over.
    pub(super) count: Option<Count>,
    /// The most threads in the server's control group, before the phase and after it.
    pub(super) peaks: Option<(u32, u32)>,
}

/// `starts_threads`: for each connection, so that its own count of children is not all; `is_single`: each of
/// its processes has one thread; `seen`: the most processes that were seen.
pub(super) fn churn(shown: &Shown, starts_threads: bool, is_single: bool, seen: u32) -> Churn {
    let Shown { outcome, usage, counted, peaks, .. } = shown;
    let percentile = |percent| micros(outcome, percent);
    let by_itself = counted.filter(|_| !starts_threads).and_then(|(before, after)| {
        let connections = after.connections.saturating_sub(before.connections);
        let forked = after.forked.saturating_sub(before.forked);
        (connections > 0).then(|| forked as f64 / connections as f64)
    });
    // a peak of earlier phases says nothing of this one; the master is not among its children, and where
    // each process has one thread, threads are processes
    let of_master = counted.map(|(before, after)| (before.peak + 1, after.peak + 1));
    let highest = of_master.or(peaks.filter(|_| is_single));
    let risen = highest.filter(|(before, after)| after > before).map_or(0, |(_, after)| after);
    let peak = Some(seen.max(risen)).filter(|peak| *peak > 0);
    Churn {
        clients: Some(outcome.clients as f64),
        served: Some(outcome.served as f64),
        refused: counted.map(|(before, after)| after.refused.saturating_sub(before.refused) as f64),
        conn_per_s: Some(outcome.rate()),
        p50_us: percentile(50.0),
        p90_us: percentile(90.0),
        p99_us: percentile(99.0),
        p999_us: percentile(99.9),
        max_us: percentile(100.0),
        errors: Some(errors(outcome)),
        cpu_us_per_conn: usage.and_then(|usage| usage.cpu_us()),
        client_cpu_us_per_conn: client_cpu(outcome),
        client_busy: Some(outcome.busy),
        forks_per_conn: by_itself.or_else(|| usage.and_then(|usage| usage.each(usage.forks))),
        switches_per_conn: usage.and_then(|usage| usage.each(usage.switches)),
        peak_processes: peak.map(f64::from),
    }
}

pub(super) fn pingpong(shown: &Shown) -> PingPong {
    let Shown { outcome, usage, count, .. } = shown;
    let percentile = |percent| micros(outcome, percent);
    PingPong {
        clients: Some(outcome.clients as f64),
        served: Some(outcome.served as f64),
        processes: count.map(|count| count.processes.into()),
        threads: count.map(|count| count.threads.into()),
        req_per_s: Some(outcome.rate()),
        p50_us: percentile(50.0),
        p90_us: percentile(90.0),
        p99_us: percentile(99.0),
        p999_us: percentile(99.9),
        max_us: percentile(100.0),
        errors: Some(errors(outcome)),
        cpu_us_per_req: usage.and_then(|usage| usage.cpu_us()),
        client_cpu_us_per_req: client_cpu(outcome),
        client_busy: Some(outcome.busy),
        switches_per_req: usage.and_then(|usage| usage.each(usage.switches)),
    }
}

pub(super) fn bulk(shown: &Shown, piece: usize) -> Bulk {
    let Shown { outcome, usage, .. } = shown;
    let each = usage.and_then(|usage| usage.cpu_us());
    Bulk {
        mb_per_s: Some(outcome.megabytes_per_second()),
        cpu_us_per_mb: each.map(|micros| micros * 1e6 / piece as f64),
        errors: Some(errors(outcome)),
        client_busy: Some(outcome.busy),
    }
}

pub(super) fn datagrams(shown: &Shown) -> Datagrams {
    let Shown { outcome, usage, .. } = shown;
    Datagrams {
        clients: Some(outcome.clients as f64),
        datagrams_per_s: Some(outcome.rate()),
        lost_percent: Some(outcome.loss() * 100.0),
        p50_us: micros(outcome, 50.0),
        p99_us: micros(outcome, 99.0),
        p999_us: micros(outcome, 99.9),
        errors: Some(errors(outcome)),
        cpu_us_per_datagram: usage.and_then(|usage| usage.cpu_us()),
        client_busy: Some(outcome.busy),
    }
}

/// A percentile, where operations enough took longer; of 100 the longest, which one is enough for.
fn micros(outcome: &Outcome, percent: f64) -> Option<f64> {
    let latencies = &outcome.latencies;
    let is_most = percent == 100.0 && latencies.count() > 0;
    let span = if is_most { Some(latencies.max()) } else { latencies.told(percent) };
    span.map(|span| span.as_nanos() as f64 / 1000.0)
}

fn client_cpu(outcome: &Outcome) -> Option<f64> {
    (outcome.done > 0).then(|| outcome.cpu.as_secs_f64() * 1e6 / outcome.done as f64)
}
