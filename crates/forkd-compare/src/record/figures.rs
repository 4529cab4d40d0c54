//! The figures of a phase: medians, and the rounds that they are the medians of.

use serde::{Deserialize, Serialize};

use crate::stats::median;

/// The median of some figures, what they were in each round, and all latencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured<T> {
    /// The median of each figure.
    #[serde(flatten)]
    pub median: T,
    /// Each round's.
    pub rounds: Vec<T>,
    /// Of all rounds together: which percentile, and its latency in microseconds; from small to large.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency_us: Vec<(f64, f64)>,
    /// The same for other programs: all latencies, as [`Latencies::encode`](forkd_load::Latencies::encode) writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latencies_hdr: Option<String>,
}

impl<T: Figures> Measured<T> {
    /// Puts rounds together; `None` if there are none.
    #[must_use]
    pub fn of(rounds: Vec<T>, latency_us: Vec<(f64, f64)>) -> Option<Self> {
        let median = T::median(&rounds)?;
        Some(Self { median, rounds, latency_us, latencies_hdr: None })
    }

    /// A figure of each round in which it could be measured.
    pub fn each(&self, figure: impl Fn(&T) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(figure).collect()
    }

    /// The least and the most that a figure was.
    pub fn range(&self, figure: impl Fn(&T) -> Option<f64>) -> Option<(f64, f64)> {
        let values = self.each(figure);
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.iter().copied().fold(least, f64::max)))
    }
}

/// Figures that have medians.
pub trait Figures: Sized {
    /// The median of each figure over those rounds that have it; `None` if there are no rounds.
    fn median(rounds: &[Self]) -> Option<Self>;

    /// Each figure with its name in the JSON.
    fn named(&self) -> Vec<(&'static str, Option<f64>)>;
}

/// A set of figures, each of which may be missing.
macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(default, serialize_with = "plain")] pub $field: Option<f64>,)*
        }

        impl Figures for $name {
            fn median(rounds: &[Self]) -> Option<Self> {
                if rounds.is_empty() {
                    return None;
                }
                Some(Self { $($field: median(rounds.iter().filter_map(|round| round.$field)),)* })
            }

            fn named(&self) -> Vec<(&'static str, Option<f64>)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    )*};
}

/// Writes 3 and not 3.0, and no more digits than a figure has.
fn plain<S: serde::Serializer>(figure: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    let Some(value) = *figure else { return to.serialize_none() };
    let value = if value.abs() < 1e12 { (value * 1000.0).round() / 1000.0 } else { value };
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => to.serialize_i64(value as i64),
        false => to.serialize_f64(value),
    }
}

figures! {
    /// A server without clients.
    Idle {
        /// Processes.
        processes,
        /// Threads of all of them.
        threads,
        /// Memory in KiB, where what is shared counts by its share.
        pss_kib,
        /// Memory in KiB that it does not share.
        uss_kib,
        /// KiB of page tables, which each process has for itself and no share counts.
        page_tables_kib,
    }

    /// Clients that connect, have one echo, and stay.
    Hold {
        /// Clients.
        clients,
        /// Those that were served while all others stayed.
        served,
        /// Those that were served once more at the end.
        still_served,
        /// Seconds until all that were served were.
        seconds,
        /// Processes, while all were held.
        processes,
        /// Threads.
        threads,
        /// KiB for each client that was served, above what the idle server had; shared memory by its share.
        pss_kib_per_conn,
        /// The same of memory that it does not share.
        uss_kib_per_conn,
        /// The same of page tables.
        page_tables_kib_per_conn,
        /// How evenly they are spread over workers of forkd that serve many each: Jain's index, 1 if each has as many, 1/N
        /// if one of N has all.
        spread,
        /// What failed.
        errors,
    }

    /// Clients that connect, have one echo, close, and do it again.
    Churn {
        /// Clients.
        clients,
        /// Those that were served at all.
        served,
        /// Connections that a forkd has turned away.
        refused,
        /// Connections per second.
        conn_per_s,
        /// Median of the time from connect(2) to the end of the connection, in microseconds.
        p50_us,
        /// 90th percentile.
        p90_us,
        /// 99th percentile.
        p99_us,
        /// 99.9th percentile.
        p999_us,
        /// The longest.
        max_us,
        /// What failed.
        errors,
        /// Processor time of the server for a connection.
        cpu_us_per_conn,
        /// Processor time of the client for a connection.
        client_cpu_us_per_conn,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
        /// Processes and threads that the server has started, for a connection: as forkd has counted them, else, and
        /// where threads are started, those of the machine, without what it does at rest.
        forks_per_conn,
        /// Context switches of the server for a connection; of one whose threads come and go those of the machine,
        /// without the client's and without what it does at rest.
        switches_per_conn,
        /// The most processes at once: as forkd or the control group has counted them, if there were more than in
        /// all phases before, else as they were seen.
        peak_processes,
    }

    /// Standing connections, each with a request when it has the last one's answer.
    PingPong {
        /// Clients.
        clients,
        /// Those that were served at all.
        served,
        /// Processes, while all served clients were connected.
        processes,
        /// Threads.
        threads,
        /// Requests per second.
        req_per_s,
        /// Median of the time from request to answer, in microseconds.
        p50_us,
        /// 90th percentile.
        p90_us,
        /// 99th percentile.
        p99_us,
        /// 99.9th percentile.
        p999_us,
        /// The longest.
        max_us,
        /// What failed.
        errors,
        /// Processor time of the server for a request.
        cpu_us_per_req,
        /// Processor time of the client for a request.
        client_cpu_us_per_req,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
        /// Context switches of the server for a request, as in [`Churn`].
        switches_per_req,
    }

    /// One connection, with as much as it can.
    Bulk {
        /// Megabytes (1,000,000 bytes) that came back per second.
        mb_per_s,
        /// Processor time of the server for a megabyte, in microseconds.
        cpu_us_per_mb,
        /// What failed.
        errors,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
    }

    /// Clients that send a datagram when they have the last one's answer, or have given it up.
    Datagrams {
        /// Clients.
        clients,
        /// Answers per second.
        datagrams_per_s,
        /// Those without an answer, in percent.
        lost_percent,
        /// Median of the time from datagram to answer, in microseconds.
        p50_us,
        /// 99th percentile.
        p99_us,
        /// 99.9th percentile.
        p999_us,
        /// What failed.
        errors,
        /// Processor time of the server for a datagram.
        cpu_us_per_datagram,
        /// The share of a processor that the busiest client thread had, from 0 to 1.
        client_busy,
    }
}
