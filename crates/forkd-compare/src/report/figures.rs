//! The figures that reports show: what each is called, how it is measured, and where a record has it.

use super::slo;
pub use super::value::{Fewer, Value, View};
use crate::record::{Entry, Record};
use forkd_load::text::{micros, thousands, three_digits};

/// A figure of one server.
#[derive(Debug)]
pub struct Figure {
    /// Its name in the JSON, after its phase.
    pub key: &'static str,
    /// The head of its column.
    pub head: &'static str,
    /// What it is, for a title, with its unit.
    pub name: &'static str,
    /// How it is measured.
    pub how: &'static str,
    /// How its values are written.
    pub unit: Unit,
    pub(super) of: fn(&View) -> Option<Value>,
}

/// The least memory of all clients together that says something, in KiB: a few pages may not be
/// the clients'.
const LEAST_KIB: f64 = 64.0;

/// What stands behind a figure that is of fewer clients than were asked for; see [`notes`](super::table::notes).
pub const MARK: &str = "*";

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole numbers, often.
    Count,
    /// A time, as in "1.23 ms".
    Span,
    /// Microseconds, a bare number in a column that says so.
    Micros,
    /// A number with three digits.
    Plain,
    /// Memory, as in "112 KiB".
    Kib,
    /// A share.
    Percent,
    /// From 0 to 1.
    Index,
    /// As in "8 of 100".
    Clients,
}

impl Figure {
    /// The figure of this server, if it was measured.
    #[must_use]
    pub fn of(&self, view: &View) -> Option<Value> {
        (self.of)(view)
    }

    /// Whether any server has it.
    #[must_use]
    pub fn is_in(&self, record: &Record) -> bool {
        record.models.iter().any(|entry| self.of(&entry.into()).is_some())
    }

    /// Whether this is memory of a connection, and so little that it says nothing.
    #[must_use]
    pub fn is_too_little(&self, value: &Value, view: &View) -> bool {
        let served = view.hold.and_then(|hold| hold.median.served).unwrap_or(1.0);
        self.unit == Unit::Kib && value.median * served < LEAST_KIB
    }

    /// How many clients it is of, where that must be said beside it. Memory is that of each client that was
    /// served anyway, and how many these were stands in the same row.
    #[must_use]
    pub fn marked(&self, view: &View) -> Option<Fewer> {
        self.of(view)?.fewer.filter(|_| self.unit != Unit::Kib)
    }

    /// Its median, as it is written below its head in a table, with a [`MARK`] if it is of fewer clients than
    /// were asked for; "-" if it is missing.
    #[must_use]
    pub fn cell(&self, view: &View) -> String {
        match self.of(view).filter(|_| self.unit == Unit::Micros) {
            Some(value) => three_digits(value.median) + self.mark(view),
            None => self.cell_with_unit(view),
        }
    }

    /// The same where no head says the unit.
    #[must_use]
    pub fn cell_with_unit(&self, view: &View) -> String {
        let Some(value) = self.of(view) else { return "-".into() };
        match view.hold.and_then(|hold| hold.median.clients).filter(|_| self.unit == Unit::Clients) {
            Some(clients) => format!("{} of {}", self.text(value.median), thousands(clients)),
            None => self.text(value.median) + self.mark(view),
        }
    }

    fn mark(&self, view: &View) -> &'static str {
        if self.marked(view).is_some() { MARK } else { "" }
    }

    /// A value, as it is written in a sentence.
    #[must_use]
    pub fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Count | Unit::Clients if value.fract() != 0.0 && value.abs() < 100.0 => {
                format!("{value:.1}")
            }
            Unit::Count | Unit::Clients => thousands(value),
            Unit::Span | Unit::Micros => micros(value),
            Unit::Plain => three_digits(value),
            Unit::Kib if value.abs() >= 10_240.0 => format!("{} MiB", three_digits(value / 1024.0)),
            Unit::Kib => format!("{} KiB", three_digits(value)),
            Unit::Index => format!("{value:.2}"),
            Unit::Percent => format!("{} %", three_digits(value)),
        }
    }

    /// From the least to the most, with the unit said once; `None` if that is one and the same.
    #[must_use]
    pub fn span(&self, value: &Value) -> Option<String> {
        let (low, high) = value.range();
        let (low, high) = (self.text(low), self.text(high));
        if low == high {
            return None;
        }
        let (number, unit) = low.split_once(' ').unwrap_or((&low, ""));
        let low = if high.split_once(' ').is_some_and(|(_, other)| other == unit) { number } else { &low };
        Some(format!("{low}–{high}"))
    }
}

/// The figure of a field: `of!(churn.conn_per_s)`.
macro_rules! of {
    ($phase:ident.$field:ident) => {
        |view| Value::of(view.$phase, |it| it.$field)
    };
    ($phase:ident.$field:ident, or $other:ident, or $seen:ident) => {
        |view| {
            Value::of(view.$phase, |it| it.$field)
                .or_else(|| Value::of(view.$other, |it| it.$field))
                .or_else(|| view.seen(|moment| moment.$seen))
        }
    };
}

/// The figure of a field that is that of the clients that were served; and of two that are added.
macro_rules! of_served {
    ($phase:ident.$field:ident) => {
        |view| Value::of_served(view.$phase, |it| it.$field)
    };
    ($phase:ident.$field:ident + $other:ident) => {
        |view| Value::of_sum(view.$phase, |it| Some(it.$field? + it.$other?))
    };
}

macro_rules! catalogue {
    ($($name:ident: $unit:ident, $key:literal, $head:literal, $title:literal, $of:expr, $how:literal;)*) => {
        $(#[doc = $title] pub static $name: Figure = Figure {
            key: $key, head: $head, name: $title, how: $how, unit: Unit::$unit, of: $of
        };)*
        /// All of them, in the order in which they are shown.
        pub static ALL: [&Figure; [$($key),*].len()] = [$(&$name),*];
    };
}

catalogue! {
    PROCESSES: Count, "processes", "processes", "Processes", of!(hold.processes, or pingpong, or processes),
        "all processes of the server, its master among them, while all clients are held (if none were, while those that were served stood in the ping-pong; under datagrams alone, the most that were seen at one moment)";
    THREADS: Count, "threads", "threads", "Threads", of!(hold.threads, or pingpong, or threads),
        "the threads of all these processes; each process has at least one";
    PEAK: Count, "peak_processes", "peak processes", "Most processes in the churn", of!(churn.peak_processes),
        "the most processes that were seen at one moment of the churn";
    CONN_PER_S: Count, "conn_per_s", "conn/s", "Connections per second", of!(churn.conn_per_s),
        "clients connect, have one message echoed, close, and do it again; each waits for its echo";
    P50: Span, "p50_us", "p50", "Median time of a connection", of_served!(churn.p50_us),
        "half of the connections took no longer, from connect(2) to the end";
    P99: Span, "p99_us", "p99", "99th percentile of the time of a connection", of_served!(churn.p99_us),
        "99 of 100 connections took no longer";
    CHURN_P999: Span, "p999_us", "p99.9", "99.9th percentile of the time of a connection", of_served!(churn.p999_us),
        "999 of 1,000 connections took no longer";
    REQ_PER_S: Count, "req_per_s", "req/s", "Requests per second", of_served!(pingpong.req_per_s),
        "clients stay connected, and each sends a message when it has the last one's echo";
    REQ_P50: Span, "p50_us", "request p50", "Median time of a request", of_served!(pingpong.p50_us),
        "half of the requests had their echo sooner";
    REQ_P99: Span, "p99_us", "request p99", "99th percentile of the time of a request", of_served!(pingpong.p99_us),
        "99 of 100 requests had their echo sooner";
    REQ_CPU: Micros, "cpu_us_per_req", "CPU µs/req", "Processor time for a request", of_served!(pingpong.cpu_us_per_req),
        "processor time of the server for each request of the ping-pong";
    CPU: Micros, "cpu_us_per_conn", "CPU µs/conn", "Processor time for a connection", of!(churn.cpu_us_per_conn),
        "processor time of the server alone, in user mode and in the kernel, for each connection of the churn";
    PSS: Kib, "pss_kib_per_conn", "PSS/conn", "PSS for a held connection", of_served!(hold.pss_kib_per_conn),
        "memory of the server's processes above what they have when idle, for each client that was served; shared memory counts by its share (PSS of proc(5)); page tables, sockets and the kernel's stacks are not in it";
    PAGE_TABLES: Kib, "page_tables_kib_per_conn", "tables/conn", "Page tables for a held connection", of_served!(hold.page_tables_kib_per_conn),
        "what the kernel keeps to find the memory of a process (VmPTE of proc(5)), likewise; a child has its own, threads share theirs, and PSS counts none";
    MEMORY: Kib, "memory_kib_per_conn", "memory/conn", "Memory for a held connection", of_served!(hold.pss_kib_per_conn + page_tables_kib_per_conn),
        "PSS and page tables together; what else the kernel keeps for sockets, processes and threads, such as buffers and stacks, is not in it";
    SERVED: Clients, "served", "served at once", "Clients served at once", of!(hold.served),
        "clients that had their echo while all others stayed connected";
    SPREAD: Index, "spread", "spread", "Spread of held connections over workers", of!(hold.spread),
        "Jain's index of the connections of the workers while all clients are held, where a worker serves many: 1 if each has as many, 1/N if one of N has all";
    MB_PER_S: Plain, "mb_per_s", "MB/s", "Megabytes per second of one stream", of!(bulk.mb_per_s),
        "one connection sends and receives as much as it can; 1 MB is 1,000,000 bytes";
    MB_CPU: Micros, "cpu_us_per_mb", "CPU µs/MB", "Processor time for a megabyte", of!(bulk.cpu_us_per_mb),
        "processor time of the server for each megabyte of the stream that came back";
    DATAGRAMS: Count, "datagrams_per_s", "datagrams/s", "Answered datagrams per second", of!(datagrams.datagrams_per_s),
        "clients send a datagram when they have the last one's answer, or have given it up";
    LOST: Percent, "lost_percent", "lost", "Datagrams without an answer", of!(datagrams.lost_percent),
        "the share of datagrams that had no answer within 250 ms";
    DATAGRAM_P50: Span, "p50_us", "datagram p50", "Median time of a datagram", of!(datagrams.p50_us),
        "half of the datagrams that were answered had their answer sooner";
    DATAGRAM_P99: Span, "p99_us", "datagram p99", "99th percentile of the time of a datagram", of!(datagrams.p99_us),
        "99 of 100 datagrams that were answered had their answer sooner";
    DATAGRAM_CPU: Micros, "cpu_us_per_datagram", "CPU µs/datagram", "Processor time for a datagram", of!(datagrams.cpu_us_per_datagram),
        "processor time of the server for each datagram that was answered";
    USS: Kib, "uss_kib_per_conn", "USS/conn", "Memory of its own for a held connection", of_served!(hold.uss_kib_per_conn),
        "as PSS, of memory that is shared with no other process";
    FORKS: Plain, "forks_per_conn", "forks/conn", "Processes and threads started for a connection", of!(churn.forks_per_conn),
        "what forkd has counted in the churn, for each connection; of other servers, and of threads, what the whole machine has started, without what it does at rest";
    SWITCHES: Plain, "switches_per_conn", "switches/conn", "Context switches for a connection", of!(churn.switches_per_conn),
        "voluntary and involuntary ones of the server's threads, in the churn; where threads come and go, those of the whole machine without the client's and what it does at rest";
}

/// What the table shows.
static MAIN: [&Figure; 15] = [
    &PROCESSES,
    &THREADS,
    &CONN_PER_S,
    &P50,
    &P99,
    &REQ_PER_S,
    &CPU,
    &MEMORY,
    &SERVED,
    &MB_PER_S,
    &DATAGRAMS,
    &LOST,
    &DATAGRAM_P50,
    &DATAGRAM_P99,
    &DATAGRAM_CPU,
];

/// The figures of the table, of those that some server has. Where processes were not counted under a steady
/// load, it is the most of the churn; where there was no churn, requests have the place of connections; and records without
/// page tables have the PSS alone. Of a search for the highest rate there is what that has found.
#[must_use]
pub fn main(record: &Record) -> Vec<&'static Figure> {
    if !record.settings.slo.is_empty() {
        return slo::FIGURES.iter().filter(|figure| figure.is_in(record)).collect();
    }
    let instead = |figure: &'static Figure| match figure.head {
        "processes" if !figure.is_in(record) => &PEAK,
        "p50" if !figure.is_in(record) => &REQ_P50,
        "p99" if !figure.is_in(record) => &REQ_P99,
        "memory/conn" => memory(record),
        _ => figure,
    };
    MAIN.iter().map(|figure| instead(figure)).filter(|figure| figure.is_in(record)).collect()
}

/// What a server can be the best in, the first that there is.
static RATES: [&Figure; 4] = [&CONN_PER_S, &REQ_PER_S, &DATAGRAMS, &MB_PER_S];

/// A column that shows each server's rate as a share of the best: which rate that is, and its cells. There is none where one
/// rate was asked of all.
#[must_use]
pub fn relative(record: &Record) -> Option<(&'static Figure, Vec<String>)> {
    let rate = RATES.into_iter().find(|figure| figure.is_in(record) && record.settings.rate.is_none())?;
    // what a part of the clients had is no rate of all
    let of = |entry: &Entry| {
        rate.of(&entry.into()).filter(|value| value.fewer.is_none()).map(|value| value.median)
    };
    let best = record.models.iter().filter_map(of).reduce(f64::max).filter(|best| *best > 0.0)?;
    let cell = |entry: &Entry| of(entry).map_or_else(|| "-".into(), |value| format!("{:.2} ×", value / best));
    Some((rate, record.models.iter().map(cell).collect()))
}

/// The head of that column.
pub const RELATIVE: &str = "relative";

/// All other figures that some server has.
#[must_use]
pub fn more(record: &Record) -> Vec<&'static Figure> {
    let main = main(record);
    let is_in_main = |figure: &Figure| main.iter().any(|other| std::ptr::eq(figure, *other));
    ALL.into_iter().filter(|figure| figure.is_in(record) && !is_in_main(figure)).collect()
}

/// What a held connection takes: all of its memory that was measured. Old records have no page tables; then
/// it is PSS, and is called so.
#[must_use]
pub fn memory(record: &Record) -> &'static Figure {
    if MEMORY.is_in(record) { &MEMORY } else { &PSS }
}

/// The figures that show how cost grows with the clients, each with the name of its chart's file.
#[must_use]
pub fn growth(record: &Record) -> Vec<(&'static Figure, &'static str)> {
    let latency = if P99.is_in(record) { &P99 } else { &REQ_P99 };
    vec![
        (&CONN_PER_S, "growth-connections"),
        (latency, "growth-latency"),
        (&CPU, "growth-processor"),
        (&REQ_PER_S, "growth-requests"),
        (&PROCESSES, "growth-processes"),
        (memory(record), "growth-memory"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn values_are_written_with_their_unit_said_once() {
        let span = |figure: &Figure, rounds: &[f64]| {
            figure.span(&Value { median: rounds[0], rounds: rounds.to_vec(), fewer: None })
        };
        assert_eq!(span(&P50, &[2_400.0, 2_210.0]).as_deref(), Some("2.21–2.40 ms"));
        assert_eq!(span(&P50, &[900.0, 2_210.0]).as_deref(), Some("900 µs–2.21 ms"));
        assert_eq!(span(&CONN_PER_S, &[30_100.0, 32_400.0]).as_deref(), Some("30,100–32,400"));
        assert_eq!(span(&CONN_PER_S, &[30_100.0]), None);
        assert_eq!([1.0, 112.04, 20_480.0].map(|kib| PSS.text(kib)), ["1.00 KiB", "112 KiB", "20.0 MiB"]);
        assert_eq!([101.0, 2.5].map(|count| PROCESSES.text(count)), ["101", "2.5"]);
    }

    #[test]
    fn a_figure_is_found_by_its_name_in_the_json() {
        let record = sample::record();
        let view = View::from(&record.models[1]);
        let mut names = Vec::new();
        view.each(|_, figures| names.extend(figures.into_iter().map(|(name, _)| name)));
        for figure in ALL.iter().filter(|figure| figure.of(&view).is_some() && figure.key != MEMORY.key) {
            assert!(names.contains(&figure.key), "{} {names:?}", figure.key);
        }
        assert_eq!(SERVED.cell(&view), "100 of 100");
        assert_eq!(SERVED.cell(&View::default()), "-");
    }

    #[test]
    fn each_figure_is_shown_once_and_under_its_own_name() {
        let mut record = sample::record();
        let heads = |figures: Vec<&Figure>| figures.into_iter().map(|figure| figure.head).collect::<Vec<_>>();
        let usual = heads(main(&record));
        assert_eq!(usual[..5], ["processes", "threads", "conn/s", "p50", "p99"]);
        let mut all = [usual, heads(more(&record))].concat();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count, "{all:?}");
        for entry in &mut record.models {
            (entry.hold, entry.churn) = (None, None);
            if let Some(pingpong) = &mut entry.pingpong {
                pingpong.median.p99_us = Some(7.0);
            }
            entry.timeline.clear();
        }
        assert_eq!(heads(main(&record)), ["request p99", "req/s", "MB/s"]);
        assert_eq!(growth(&record)[1].0.name, REQ_P99.name);
    }

    #[test]
    fn memory_is_called_what_it_is() {
        let mut record = sample::record();
        assert_eq!(memory(&record).head, "memory/conn");
        let view = View::from(&record.models[1]);
        let value = MEMORY.of(&view).unwrap();
        assert_eq!(MEMORY.text(value.median), "172 KiB");
        assert!(!MEMORY.is_too_little(&value, &view));
        assert!(MEMORY.is_too_little(&Value { median: 0.63, ..value }, &view));
        for hold in record.models.iter_mut().filter_map(|entry| entry.hold.as_mut()) {
            hold.median.page_tables_kib_per_conn = None;
            hold.rounds.iter_mut().for_each(|round| round.page_tables_kib_per_conn = None);
        }
        assert_eq!(memory(&record).head, "PSS/conn");
    }
}
