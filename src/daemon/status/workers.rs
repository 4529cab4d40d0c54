//! Workers that accept by themselves, as a table for people.

use std::fmt;

use super::table::{short, table};
use super::{ChildStatus, WorkerStatus};
use crate::daemon::rates::Rates;

/// The columns from the most important one on.
const ORDER: [&str; 13] = [
    "WORKER",
    "STATE",
    "PID",
    "%CPU",
    "RSS",
    "PSS",
    "AGE",
    "CPU",
    "SERVING",
    "CONNECTIONS",
    "GEN",
    "STATUS",
    "LISTENER",
];

/// A worker, and how much of a processor it uses.
struct Line<'a> {
    child: &'a ChildStatus,
    worker: &'a WorkerStatus,
    share: f64,
}

/// What stands in a column.
type Cell = fn(&Line<'_>) -> String;

/// Writes a line for each of them; with the share of a processor, if rates are known, and without columns in which nothing
/// would stand.
pub(super) fn write(
    f: &mut fmt::Formatter<'_>,
    children: &[ChildStatus],
    rates: Option<&Rates>,
    width: Option<usize>,
) -> fmt::Result {
    let mut lines = Vec::new();
    for (at, child) in children.iter().enumerate() {
        let rate = rates.and_then(|rates| rates.children.get(at));
        let share = rate.map_or(0.0, |rate| rate.cpu);
        lines.extend(child.worker.as_ref().map(|worker| Line { child, worker, share }));
    }
    lines.sort_by_key(|Line { child, worker, .. }| (&child.endpoint, worker.generation, worker.number));
    let any = |of: fn(&Line<'_>) -> bool| lines.iter().any(of);
    let tell = any(|l| l.child.tells_of_clients());
    let columns: [(&str, bool, Cell); 13] = [
        ("WORKER", true, |l| l.worker.number.to_string()),
        ("GEN", true, |l| l.worker.generation.to_string()),
        ("PID", true, |l| l.child.pid.to_string()),
        ("STATE", true, |l| l.child.state.clone()),
        ("AGE", true, |l| format!("{:.1}s", l.child.age_s)),
        ("CPU", true, |l| l.worker.cpu_s.map_or_else(|| "-".into(), |cpu| format!("{cpu:.2}s"))),
        ("%CPU", rates.is_some(), |l| format!("{:.1}", l.share * 100.0)),
        ("RSS", true, |l| bytes(l.worker.rss_bytes)),
        ("PSS", any(|l| l.worker.pss_bytes.is_some()), |l| bytes(l.worker.pss_bytes)),
        ("SERVING", tell, |l| l.child.serving.to_string()),
        ("CONNECTIONS", tell, |l| l.child.connections.to_string()),
        ("LISTENER", true, |l| l.child.endpoint.clone()),
        ("STATUS", any(|l| l.worker.status.is_some()), |l| l.worker.status.clone().unwrap_or_default()),
    ];
    let shown = || columns.iter().filter(|(_, is_shown, _)| *is_shown);
    let mut rows = vec![shown().map(|(head, ..)| (*head).to_owned()).collect::<Vec<_>>()];
    rows.extend(lines.iter().map(|line| shown().map(|(_, _, cell)| cell(line)).collect()));
    if lines.is_empty() { Ok(()) } else { table(f, &rows, &ORDER, width) }
}

/// Memory, if it is known.
pub(crate) fn bytes(count: Option<u64>) -> String {
    count.map_or_else(|| "-".into(), |count| short(count as f64))
}
