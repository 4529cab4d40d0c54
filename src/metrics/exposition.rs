//! A sample as text: OpenMetrics 1.0, or Prometheus's older format 0.0.4.
//!
//! The names are a contract with dashboards and alerts (docs/grafana.json is one of them).

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use super::http::Format;
use forkd_server::supervise::{AcceptedBy, ListenerSample, STATES, Sample, WorkerActivity};
use forkd_server::supervise::{Bounds, CONNECTIONS, LIFETIMES, Lengths, Stage, State};

type Gauge = ConstGauge<i64>;
type Counter = ConstCounter<u64>;

/// Writes a sample down.
pub(super) fn text(started: SystemTime, sample: Sample, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposed { started, sample }));
    let mut text = String::new();
    // writing to a String does not fail
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    }
}

/// In the older format a counter's and an info's family has the name of its samples, an info is a gauge,
/// and units and the end are not said.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", ..] => help = line,
            ["#", "TYPE", name, kind] => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                let said = help.split_once(name).map_or("", |(_, said)| said);
                plain += &format!("# HELP {name}{suffix}{said}\n# TYPE {name}{suffix} {kind}\n");
            }
            ["#", ..] => {}
            _ => {
                plain.push_str(line);
                plain.push('\n');
            }
        }
    }
    plain
}

#[derive(Debug)]
struct Exposed {
    /// When the daemon started.
    started: SystemTime,
    sample: Sample,
}

impl Collector for Exposed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder, listeners: &self.sample.listeners };
        families.of_the_daemon(self.started, self.sample.stage)?;
        families.of_children()?;
        families.of_workers()?;
        families.of_connections()?;
        families.of_times()
    }
}

/// A label beside those that all have.
type Label = Option<(&'static str, String)>;

struct Families<'e, 'l> {
    encoder: DescriptorEncoder<'e>,
    listeners: &'l [ListenerSample],
}

impl Families<'_, '_> {
    fn of_the_daemon(&mut self, started: SystemTime, stage: Stage) -> fmt::Result {
        let mut build = self.encoder.encode_descriptor(
            "forkd_build",
            "What this forkd was built from",
            None,
            MetricType::Info,
        )?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When the daemon started, in seconds since 1970";
        let (name, unit) = ("forkd_start_time", Some(&Unit::Seconds));
        let mut start = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        start.encode_gauge(&started.as_secs_f64())?;
        let help = "Where the daemon is on its way to the end: 1 for the phase that it is in";
        let mut phase = self.encoder.encode_descriptor("forkd_phase", help, None, MetricType::Gauge)?;
        for one in Stage::ALL {
            let is_it = Gauge::new(i64::from(one == stage));
            is_it.encode(phase.encode_family(&[("phase", one.name())])?)?;
        }
        Ok(())
    }

    fn of_children(&mut self) -> fmt::Result {
        let states = |l: &ListenerSample| {
            let count = |(state, &n): (&State, &u32)| (Some(("state", state.name().to_owned())), n.into());
            STATES.iter().zip(&l.states).map(count).collect()
        };
        self.gauges("forkd_children", "Children alive, by what they do; ended: not yet reaped", states)?;
        let threads = |l: &ListenerSample| only(!l.accepted_by.is_application(), l.threads.into());
        self.gauges("forkd_threads", "Threads of the children alive", threads)?;
        let peak = |l: &ListenerSample| vec![(None, l.peak.into())];
        self.gauges("forkd_children_peak", "The most children that were alive at once", peak)?;
        let limit = |l: &ListenerSample| vec![(None, l.limit.into())];
        let help =
            "The most children that may be alive at once; of a pool, the workers beside those that leave";
        self.gauges("forkd_children_limit", help, limit)?;
        let workers = |l: &ListenerSample| {
            let count = |of: &[State]| -> u32 {
                STATES.iter().zip(&l.states).filter(|(state, _)| of.contains(state)).map(|(_, n)| n).sum()
            };
            let busy = count(&[State::Serving, State::Leaving]);
            let all = [("busy", busy), ("idle", count(&[State::Idle]))];
            let all = all.map(|(state, n)| (Some(("state", state.to_owned())), n.into()));
            if l.tells_who_is_busy() { all.to_vec() } else { Vec::new() }
        };
        self.gauges(
            "forkd_workers",
            "Workers of a pool that serve a client, and that wait for one",
            workers,
        )?;
        self.counters("forkd_forks", "Children forked", None, |l| vec![(None, l.forked)])?;
        let help = "Times that the system refused to start a process or a thread";
        let failed = |l: &ListenerSample| {
            let whats = ["process", "thread"].map(|what| Some(("what", what.to_owned())));
            whats.into_iter().zip(l.failed_starts).collect()
        };
        self.counters("forkd_failed_starts", help, None, failed)?;
        let deaths = |l: &ListenerSample| {
            l.deaths.iter().map(|(cause, n)| (Some(("cause", cause.to_string())), *n)).collect()
        };
        self.counters("forkd_deaths", "Children that have ended, by cause", None, deaths)
    }

    /// What a worker uses that accepts by itself is told of each: one that takes the number of another begins at 0, as a
    /// counter may, where a sum over those that live would fall at each death.
    fn of_workers(&mut self) -> fmt::Result {
        let restarts = |l: &ListenerSample| {
            only(l.has_pool && !matches!(l.accepted_by, AcceptedBy::WorkersOf(_)), l.restarts)
        };
        let help = "Workers of a pool that have ended though nothing had told them to";
        self.counters("forkd_worker_restarts", help, None, restarts)?;
        let help = "Processor time that a worker has used which accepts by itself (Linux)";
        let cpu = |w: &WorkerActivity| w.cpu.map(|cpu| ConstCounter::new(cpu.as_secs_f64()));
        self.each_worker("forkd_worker_cpu", help, &Unit::Seconds, cpu)?;
        let help = "Memory of a worker that accepts by itself, with what it shares with others (Linux)";
        let rss = |w: &WorkerActivity| w.rss.map(|rss| Gauge::new(rss.try_into().unwrap_or(i64::MAX)));
        self.each_worker("forkd_worker_resident_memory", help, &Unit::Bytes, rss)
    }

    fn of_connections(&mut self) -> fmt::Result {
        // workers that accept by themselves tell how many there are at most
        let seen = |l: &ListenerSample, n| only(!l.accepted_by.is_application(), n);
        let connections = |l: &ListenerSample| only(l.accepted_by.may_tell(), l.sums.connections);
        self.counters("forkd_connections", "Connections, or datagrams, that were served", None, connections)?;
        let failed = |l: &ListenerSample| seen(l, l.sums.failed);
        let help = "Connections, or datagrams, whose handler has failed or panicked";
        self.counters("forkd_connections_failed", help, None, failed)?;
        let serving = |l: &ListenerSample| only(l.accepted_by.may_tell(), l.serving.into());
        self.gauges("forkd_connections_open", "Connections that are being served", serving)?;
        let spread =
            |l: &ListenerSample| l.spread.iter().map(|&index| (None, ConstGauge::new(index))).collect();
        let help = "How evenly connections are spread over workers that serve many each: Jain's index, 1 if each has as \
             many, 1/N if one of N has all";
        self.family::<ConstGauge<f64>>("forkd_connections_spread", help, None, spread)?;
        let held = |l: &ListenerSample| vec![(None, l.held.into())];
        let help =
            "Clients that were accepted and wait, since the system refuses to start a process or a thread";
        self.gauges("forkd_connections_held", help, held)?;
        let early = |l: &ListenerSample| vec![(None, l.early.into())];
        let help = "Connections that have not completed their first exchange (early-drop; 0 without it)";
        self.gauges("forkd_connections_early", help, early)?;
        let some = |n: Option<u32>| n.iter().map(|&n| (None, n.into())).collect::<Vec<_>>();
        let help = "Connections that wait to be accepted (TCP on Linux)";
        self.gauges("forkd_connections_queued", help, |l| some(l.arrivals.queued))?;
        let help = "Connections that may wait to be accepted (TCP on Linux)";
        self.gauges("forkd_connections_queue_limit", help, |l| some(l.arrivals.queue_limit))?;
        let help = "What the kernel has dropped since the socket was made: datagrams that had no room in its buffer \
             (UDP), packets of new connections that had none in its queue, each time that a client tried (TCP; Linux)";
        let dropped = |l: &ListenerSample| l.arrivals.dropped.iter().map(|&n| (None, n.into())).collect();
        self.counters("forkd_kernel_drops", help, None, dropped)?;
        let refused = |l: &ListenerSample| {
            l.refused.iter().map(|(why, n)| (Some(("cause", why.to_string())), *n)).collect()
        };
        self.counters(
            "forkd_refusals",
            "Clients and datagrams that were turned away, by cause",
            None,
            refused,
        )?;
        let timed_out = |l: &ListenerSample| {
            l.timed_out.iter().map(|(limit, n)| (Some(("cause", limit.name().to_owned())), *n)).collect()
        };
        let help = "Connections that were ended because the client was silent for too long (idle), read nothing of what \
             it was sent (unread), or because they lasted too long (lifetime)";
        self.counters("forkd_connections_timed_out", help, None, timed_out)?;
        let bytes = Some(&Unit::Bytes);
        self.counters("forkd_received", "Bytes received from clients", bytes, |l| seen(l, l.sums.bytes_in))?;
        self.counters("forkd_sent", "Bytes sent to clients", bytes, |l| seen(l, l.sums.bytes_out))
    }

    fn of_times(&mut self) -> fmt::Result {
        let help = "How long connections lasted that have ended, from when a child began to serve them; under the \
             model fork also datagrams; without those whose worker was killed";
        let is_seen = |l: &ListenerSample| !l.accepted_by.is_application();
        self.histograms("forkd_connection_duration", help, &CONNECTIONS, |l| {
            is_seen(l).then_some(&l.durations)
        })?;
        let help = "How long clients were queued until they were accepted, from the end of the handshake (TCP on \
             Linux, where it is known to a tick of the kernel, 1 to 10 ms)";
        let is_known = |l: &ListenerSample| is_seen(l) && l.arrivals.queued.is_some();
        self.histograms("forkd_accept_latency", help, &CONNECTIONS, |l| {
            is_known(l).then_some(&l.accept_latencies)
        })?;
        let help = "How long clients that got a child of their own (model fork) waited for it: from accept(2) in the \
             master until the child was ready to read";
        self.histograms("forkd_fork_latency", help, &CONNECTIONS, |l| {
            (!l.has_pool).then_some(&l.fork_latencies)
        })?;
        let help = "How long children and workers lived that have ended, from fork(2) on";
        self.histograms("forkd_child_lifetime", help, &LIFETIMES, |l| Some(&l.lifetimes))
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Fn(&ListenerSample) -> Vec<(Label, i64)>,
    ) -> fmt::Result {
        self.family(name, help, None, |l| {
            rows(l).into_iter().map(|(label, n)| (label, Gauge::new(n))).collect()
        })
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl Fn(&ListenerSample) -> Vec<(Label, u64)>,
    ) -> fmt::Result {
        self.family(name, help, unit, |l| {
            rows(l).into_iter().map(|(label, n)| (label, Counter::new(n))).collect()
        })
    }

    fn family<M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl Fn(&ListenerSample) -> Vec<(Label, M)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, M::TYPE)?;
        for listener in self.listeners {
            for (label, value) in rows(listener) {
                value.encode(metric.encode_family(&labels(listener, label))?)?;
            }
        }
        Ok(())
    }

    fn each_worker<M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        of: impl Fn(&WorkerActivity) -> Option<M>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, Some(unit), M::TYPE)?;
        for listener in self.listeners {
            for worker in &listener.workers {
                let Some(value) = of(worker) else { continue };
                let which = [("worker", worker.number), ("generation", worker.generation)];
                let which = which.map(|(label, number)| (label, number.to_string()));
                let labels: Vec<_> = labels(listener, None).into_iter().chain(which).collect();
                value.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        bounds: &Bounds,
        row: impl Fn(&ListenerSample) -> Option<&Lengths>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for listener in self.listeners {
            let Some(Lengths { counts, sum }) = row(listener) else { continue };
            let bounds = bounds.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            metric.encode_family(&labels(listener, None))?.encode_histogram::<NoLabelSet>(
                sum.as_secs_f64(),
                counts.iter().sum(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

/// A count without a label of its own, where it is known.
fn only<N>(is_known: bool, count: N) -> Vec<(Label, N)> {
    is_known.then_some((None, count)).into_iter().collect()
}

fn labels(listener: &ListenerSample, label: Label) -> Vec<(&'static str, String)> {
    let ListenerSample { endpoint, service, model, .. } = listener;
    let common = [("listener", endpoint), ("service", service), ("model", model)];
    common.map(|(key, value)| (key, value.clone())).into_iter().chain(label).collect()
}

#[cfg(test)]
mod tests;
