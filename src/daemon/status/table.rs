//! A status as tables for people.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use super::{ListenerStatus, Status, workers};
use crate::daemon::rates::{Rate, Rates};

/// The table of `forkd status`.
impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, Columns::Counts, None)
    }
}

/// The table of `forkd status --watch`: what happens per second, too, once that is known.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// What the daemon says now.
    pub status: &'a Status,
    /// The difference to what it said before.
    pub rates: Option<&'a Rates>,
    /// How wide the tables may be: columns that don't fit are left out, the least important first.
    pub width: Option<usize>,
}

impl Display for Watched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.write(f, Columns::Rates(self.rates), self.width)
    }
}

/// How many columns there are between two cells.
const SPACING: usize = 2;

/// The columns of listeners from the most important one on.
const OF_LISTENERS: [&str; 15] = [
    "LISTENER",
    "ALIVE",
    "CONN/S",
    "IN/S",
    "OUT/S",
    "FORKS/S",
    "QUEUED",
    "PEAK",
    "CONNECTIONS",
    "FAILED",
    "FORKED",
    "MODEL",
    "SERVICE",
    "IN",
    "OUT",
];

/// The columns of children from the most important one on.
const OF_CHILDREN: [&str; 14] = [
    "PID",
    "STATE",
    "PEER",
    "AGE",
    "IN/S",
    "OUT/S",
    "CONN/S",
    "SERVING",
    "CONNECTIONS",
    "THREADS",
    "IN",
    "OUT",
    "SLOT",
    "LISTENER",
];

/// Which columns the tables have.
#[derive(Clone, Copy)]
enum Columns<'a> {
    Counts,
    /// What happens per second, too.
    Rates(Option<&'a Rates>),
}

impl Columns<'_> {
    /// The heads of the further columns, without the `skipped` first ones.
    fn heads(self, skipped: usize) -> Vec<String> {
        match self {
            Self::Counts => Vec::new(),
            Self::Rates(_) => row(["FORKS/S", "CONN/S", "IN/S", "OUT/S"]).split_off(skipped),
        }
    }

    fn rates(&self) -> Option<&Rates> {
        match self {
            Self::Counts => None,
            Self::Rates(rates) => *rates,
        }
    }

    /// The cells below them; `of` picks a line's rate.
    fn cells(self, skipped: usize, of: impl Fn(&Rates) -> Option<&Rate>) -> Vec<String> {
        match self {
            Self::Counts => Vec::new(),
            Self::Rates(rates) => match rates.and_then(of) {
                None => row(["-"; 4]).split_off(skipped),
                Some(rate) => {
                    let Rate { connections, forks, bytes_in, bytes_out, .. } = rate;
                    let few = [forks, connections].map(|n| format!("{n:.1}"));
                    few.into_iter()
                        .chain([bytes_in, bytes_out].map(|n| format!("{n:.0}")))
                        .skip(skipped)
                        .collect()
                }
            },
        }
    }
}

impl Status {
    fn write(&self, f: &mut fmt::Formatter<'_>, columns: Columns<'_>, width: Option<usize>) -> fmt::Result {
        let uptime = humantime::format_duration(Duration::from_secs(self.uptime_s as u64));
        let phase = if self.phase.is_empty() { String::new() } else { format!(", {}", self.phase) };
        writeln!(f, "forkd pid {}, up {uptime}{phase}", self.pid)?;
        if let Some(why) = &self.metrics_error {
            writeln!(f, "no metrics: {why}")?;
        }
        writeln!(f)?;
        self.write_listeners(f, columns, width)?;
        let mut states: BTreeMap<&str, u32> = BTreeMap::new();
        self.children.iter().for_each(|child| *states.entry(&child.state).or_default() += 1);
        let states: Vec<String> = states.iter().map(|(state, n)| format!("{state}={n}")).collect();
        writeln!(
            f,
            "\n{} children{}{}",
            self.children.len(),
            if states.is_empty() { "" } else { ": " },
            states.join(" ")
        )?;
        if self.children.iter().any(|child| child.worker.is_none()) {
            self.write_children(f, columns, width)?;
        }
        workers::write(f, &self.children, columns.rates(), width)
    }

    fn write_children(
        &self,
        f: &mut fmt::Formatter<'_>,
        columns: Columns<'_>,
        width: Option<usize>,
    ) -> fmt::Result {
        let head = ["PID", "SLOT", "STATE", "SERVING", "THREADS", "AGE", "CONNECTIONS", "IN", "OUT"];
        // a child does not fork
        let mut rows = vec![[row(head), columns.heads(1), row(["PEER", "LISTENER"])].concat()];
        for (at, c) in self.children.iter().enumerate().filter(|(_, c)| c.worker.is_none()) {
            let numbers = [c.connections, c.bytes_in, c.bytes_out].map(|n| n.to_string());
            let who = [c.pid.to_string(), c.slot.to_string(), c.state.clone()];
            let now = [c.serving.to_string(), c.threads.to_string(), format!("{:.1}s", c.age_s)];
            let rates = columns.cells(1, |rates| rates.children.get(at));
            rows.push([&who[..], &now, &numbers, &rates, &[c.peer.clone(), c.endpoint.clone()]].concat());
        }
        table(f, &rows, &OF_CHILDREN, width)
    }

    fn write_listeners(
        &self,
        f: &mut fmt::Formatter<'_>,
        columns: Columns<'_>,
        width: Option<usize>,
    ) -> fmt::Result {
        let names = ["LISTENER", "SERVICE", "MODEL"];
        let counts = ["ALIVE", "PEAK", "QUEUED", "FORKED", "CONNECTIONS", "FAILED", "IN", "OUT"];
        let mut rows = vec![[row(names), row(counts), columns.heads(0)].concat()];
        for (at, l) in self.listeners.iter().enumerate() {
            let names = [l.endpoint.clone(), l.service.clone(), l.model.clone()];
            let [alive, peak] = [l.alive, l.peak].map(|n| known(l.workers_of.is_none(), n));
            let processes = [alive, peak, queue(l), known(l.workers_of.is_none(), l.forked)];
            let numbers = [l.connections, l.failed, l.bytes_in, l.bytes_out];
            let numbers = numbers.map(|n| known(l.knows_clients, n));
            let mut rates = columns.cells(0, |rates| rates.listeners.get(at));
            if !l.knows_clients {
                let of_clients = usize::from(l.workers_of.is_none());
                rates.iter_mut().skip(of_clients).for_each(|cell| *cell = "-".into());
            }
            rows.push([&names[..], &processes, &numbers, &rates].concat());
        }
        table(f, &rows, &OF_LISTENERS, width)?;
        for (at, l) in self.listeners.iter().enumerate() {
            let rate = columns.rates().and_then(|rates| rates.listeners.get(at));
            if let Some(first) = &l.workers_of {
                writeln!(f, "{} is served by the workers of {first}", l.endpoint)?;
            }
            if let Some(text) = dropped(l, rate) {
                writeln!(f, "{} {text}", l.endpoint)?;
            }
            if let Some(text) = spread(l) {
                writeln!(f, "{} {text}", l.endpoint)?;
            }
            if l.early > 0 {
                writeln!(f, "{} without a first exchange: connections={}", l.endpoint, l.early)?;
            }
            for (what, counts) in
                [("refused", &l.refused), ("timed out", &l.timed_out), ("deaths", &l.deaths)]
            {
                if !counts.is_empty() {
                    let counts: Vec<String> =
                        counts.iter().map(|(cause, n)| format!("{cause}={n}")).collect();
                    writeln!(f, "{} {what}: {}", l.endpoint, counts.join(" "))?;
                }
            }
            if let Some(text) = restarts(l) {
                writeln!(f, "{} {text}", l.endpoint)?;
            }
        }
        Ok(())
    }
}

/// How many wait to be accepted, and how many may.
pub(crate) fn queue(l: &ListenerStatus) -> String {
    match (l.queued, l.queue_limit) {
        (Some(queued), Some(limit)) => format!("{queued}/{limit}"),
        _ => "-".into(),
    }
}

/// What the kernel has dropped, if it has.
pub(crate) fn dropped(l: &ListenerStatus, rate: Option<&Rate>) -> Option<String> {
    let count = l.dropped.filter(|count| *count > 0)?;
    let rate = rate.map(|rate| format!(" ({:.1}/s)", rate.dropped)).unwrap_or_default();
    Some(format!("dropped by the kernel: {count}{rate}"))
}

/// How evenly connections are spread over its workers, if that says something.
pub(crate) fn spread(l: &ListenerStatus) -> Option<String> {
    l.spread.map(|index| format!("workers: spread={index:.2}"))
}

/// How many workers have ended by themselves, if some have.
pub(crate) fn restarts(l: &ListenerStatus) -> Option<String> {
    (l.restarts > 0).then(|| format!("restarts: workers={}", l.restarts))
}

/// A count, where it is known.
pub(crate) fn known(is_known: bool, count: impl Display) -> String {
    if is_known { count.to_string() } else { "-".into() }
}

/// Bytes in a few characters: `12`, `3.4K`, `5.6M`; a K is 1024.
pub(crate) fn short(n: f64) -> String {
    let mut n = n;
    for unit in ["", "K", "M", "G", "T"] {
        if n < 999.5 {
            let is_round = unit.is_empty() && n.fract() == 0.0 || n >= 99.95;
            return if is_round { format!("{n:.0}{unit}") } else { format!("{n:.1}{unit}") };
        }
        n /= 1024.0;
    }
    format!("{n:.0}P")
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Left-aligned columns, two spaces apart; as many as fit, in the order of their importance.
pub(super) fn table(
    f: &mut fmt::Formatter<'_>,
    rows: &[Vec<String>],
    order: &[&str],
    room: Option<usize>,
) -> fmt::Result {
    let heads = rows.first().map_or(&[][..], |heads| heads);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut left = room.map_or(usize::MAX, |room| room + SPACING);
    let fits = |column: &usize| {
        let rest = left.checked_sub(widths[*column] + SPACING);
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let of = |head: &&str| heads.iter().position(|other| other == head);
    let mut shown: Vec<usize> = order.iter().filter_map(of).take_while(fits).collect();
    // the first of them at any rate: whose line it is
    if shown.is_empty() {
        shown.extend(order.first().and_then(of));
    }
    shown.sort_unstable();
    for row in rows {
        let line: Vec<String> =
            shown.iter().map(|&column| format!("{:width$}", row[column], width = widths[column])).collect();
        writeln!(f, "{}", line.join(&" ".repeat(SPACING)).trim_end())?;
    }
    Ok(())
}
