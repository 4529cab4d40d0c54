//! The figures that reports show: what each is called, how it is measured, and where a record has it.

use crate::compare::record::{
    Bulk, Churn, Datagrams, Entry, Figures, Growth, Hold, Idle, Measured, PingPong, Record,
};
use crate::compare::stats::range;
use crate::text::{micros, thousands, three_digits};

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
    of: fn(&View) -> Option<Value>,
}

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
    /// As in "8 of 100".
    Clients,
}

/// The median of a figure, and each round that has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The median.
    pub median: f64,
    /// Each round.
    pub rounds: Vec<f64>,
}

impl Value {
    fn of<T: Figures>(measured: Option<&Measured<T>>, figure: fn(&T) -> Option<f64>) -> Option<Self> {
        let measured = measured?;
        let median = figure(&measured.median).filter(|median| median.is_finite())?;
        let mut rounds = measured.each(figure);
        rounds.retain(|value| value.is_finite());
        Some(Self { median, rounds })
    }

    /// The least and the most that it was.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        range(&self.rounds).unwrap_or((self.median, self.median))
    }

    /// Whether the rounds of both overlap: then none can be said to be the greater one.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.range(), other.range());
        one.0 <= other.1 && other.0 <= one.1
    }
}

/// What was measured of a server, with one number of clients.
#[derive(Debug, Default)]
pub struct View<'a> {
    idle: Option<&'a Measured<Idle>>,
    hold: Option<&'a Measured<Hold>>,
    churn: Option<&'a Measured<Churn>>,
    pingpong: Option<&'a Measured<PingPong>>,
    bulk: Option<&'a Measured<Bulk>>,
    datagrams: Option<&'a Measured<Datagrams>>,
}

impl<'a> From<&'a Entry> for View<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            idle: entry.idle.as_ref(),
            hold: entry.hold.as_ref(),
            churn: entry.churn.as_ref(),
            pingpong: entry.pingpong.as_ref(),
            bulk: entry.bulk.as_ref(),
            datagrams: entry.datagrams.as_ref(),
        }
    }
}

impl<'a> From<&'a Growth> for View<'a> {
    fn from(growth: &'a Growth) -> Self {
        Self {
            hold: growth.hold.as_ref(),
            churn: growth.churn.as_ref(),
            pingpong: growth.pingpong.as_ref(),
            ..Self::default()
        }
    }
}

impl View<'_> {
    /// Calls this with the name of each phase that was measured, and all its figures.
    pub fn each(&self, mut told: impl FnMut(&'static str, Vec<(&'static str, Value)>)) {
        fn all<T: Figures>(measured: &Measured<T>) -> Vec<(&'static str, Value)> {
            let rounds: Vec<_> = measured.rounds.iter().map(Figures::named).collect();
            let value = |(k, (name, median)): (usize, (&'static str, Option<f64>))| {
                let rounds = rounds.iter().filter_map(|round| round[k].1).filter(|v| v.is_finite()).collect();
                Some((name, Value { median: median.filter(|median| median.is_finite())?, rounds }))
            };
            measured.median.named().into_iter().enumerate().filter_map(value).collect()
        }
        self.idle.iter().for_each(|it| told("idle", all(it)));
        self.hold.iter().for_each(|it| told("hold", all(it)));
        self.churn.iter().for_each(|it| told("churn", all(it)));
        self.pingpong.iter().for_each(|it| told("pingpong", all(it)));
        self.bulk.iter().for_each(|it| told("bulk", all(it)));
        self.datagrams.iter().for_each(|it| told("datagrams", all(it)));
    }

    /// How many clients were held.
    fn held(&self) -> Option<f64> {
        self.hold?.median.clients
    }
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

    /// Its median, as it is written in a table; "-" if it is missing.
    #[must_use]
    pub fn cell(&self, view: &View) -> String {
        let Some(value) = self.of(view) else { return "-".into() };
        match (self.unit, view.held()) {
            (Unit::Clients, Some(clients)) => {
                format!("{} of {}", self.text(value.median), thousands(clients))
            }
            (Unit::Micros, _) => three_digits(value.median),
            _ => self.text(value.median),
        }
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
    ($phase:ident.$field:ident, or $other:ident.$same:ident) => {
        |view| Value::of(view.$phase, |it| it.$field).or_else(|| Value::of(view.$other, |it| it.$same))
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
    PROCESSES: Count, "processes", "processes", "Processes", of!(hold.processes, or idle.processes),
        "all processes of the server, its master among them, while all clients are held (of the idle server if none were)";
    THREADS: Count, "threads", "threads", "Threads", of!(hold.threads, or idle.threads),
        "the threads of all these processes; each process has at least one";
    CONN_PER_S: Count, "conn_per_s", "conn/s", "Connections per second", of!(churn.conn_per_s),
        "clients connect, have one message echoed, close, and do it again; each waits for its echo";
    P50: Span, "p50_us", "p50", "Median time of a connection", of!(churn.p50_us, or pingpong.p50_us),
        "half of the connections took no longer, from connect(2) to the end (of requests, if there was no churn)";
    P99: Span, "p99_us", "p99", "99th percentile of the time of a connection", of!(churn.p99_us, or pingpong.p99_us),
        "99 of 100 took no longer";
    REQ_PER_S: Count, "req_per_s", "req/s", "Requests per second", of!(pingpong.req_per_s),
        "clients stay connected, and each sends a message when it has the last one's echo";
    CPU: Micros, "cpu_us_per_conn", "CPU µs/conn", "Processor time for a connection", of!(churn.cpu_us_per_conn),
        "processor time of the server alone, in user mode and in the kernel, for each connection of the churn";
    PSS: Kib, "pss_kib_per_conn", "PSS/conn", "Memory for a held connection", of!(hold.pss_kib_per_conn),
        "what the server has above the idle server, for each client that was served; shared memory counts by its share (PSS of proc(5))";
    SERVED: Clients, "served", "served at once", "Clients served at once", of!(hold.served),
        "clients that had their echo while all others stayed connected";
    MB_PER_S: Plain, "mb_per_s", "MB/s", "Megabytes per second of one stream", of!(bulk.mb_per_s),
        "one connection sends and receives as much as it can; 1 MB is 1,000,000 bytes";
    DATAGRAMS: Count, "datagrams_per_s", "datagrams/s", "Answered datagrams per second", of!(datagrams.datagrams_per_s),
        "clients send a datagram when they have the last one's answer, or have given it up";
    LOST: Percent, "lost_percent", "lost", "Datagrams without an answer", of!(datagrams.lost_percent),
        "the share of datagrams that had no answer within 250 ms";
    USS: Kib, "uss_kib_per_conn", "USS/conn", "Memory of its own for a held connection", of!(hold.uss_kib_per_conn),
        "as PSS, of memory that is shared with no other process";
    PAGE_TABLES: Kib, "page_tables_kib_per_conn", "page tables/conn", "Page tables for a held connection", of!(hold.page_tables_kib_per_conn),
        "what the kernel keeps to find the memory of a process (VmPTE of proc(5)); a child has its own, threads share theirs, and PSS counts none";
    FORKS: Plain, "forks_per_conn", "forks/conn", "Processes and threads started for a connection", of!(churn.forks_per_conn),
        "what forkd has counted in the churn, for each connection; of other servers, and of threads, what the whole machine has started, without what it does at rest";
    SWITCHES: Plain, "switches_per_conn", "switches/conn", "Context switches for a connection", of!(churn.switches_per_conn),
        "voluntary and involuntary ones of the server's threads, in the churn; where threads come and go, those of the whole machine without the client's and what it does at rest";
    PEAK: Count, "peak_processes", "peak processes", "Most processes in the churn", of!(churn.peak_processes),
        "the most processes that were seen at one moment of the churn";
    CHURN_P999: Span, "p999_us", "p99.9", "99.9th percentile of the time of a connection", of!(churn.p999_us),
        "999 of 1,000 connections took no longer";
    REQ_P50: Span, "p50_us", "request p50", "Median time of a request", of!(pingpong.p50_us),
        "half of the requests had their echo sooner";
    REQ_P99: Span, "p99_us", "request p99", "99th percentile of the time of a request", of!(pingpong.p99_us),
        "99 of 100 requests had their echo sooner";
    REQ_CPU: Micros, "cpu_us_per_req", "CPU µs/req", "Processor time for a request", of!(pingpong.cpu_us_per_req),
        "processor time of the server for each request of the ping-pong";
}

/// How many of [`ALL`] stand in the table; the others are in the HTML report and the CSV.
pub const MAIN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::sample;

    #[test]
    fn values_are_written_with_their_unit_said_once() {
        let span = |figure: &Figure, rounds: &[f64]| {
            figure.span(&Value { median: rounds[0], rounds: rounds.to_vec() })
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
        for figure in ALL.iter().filter(|figure| figure.of(&view).is_some()) {
            assert!(names.contains(&figure.key), "{} {names:?}", figure.key);
        }
        assert_eq!(SERVED.cell(&view), "100 of 100");
        assert_eq!(SERVED.cell(&View::default()), "-");
    }
}
