//! What each number looks like, in both formats.

use super::*;
use forkd_server::supervise::{Arrivals, Cause, Refusal, Sums, TimedOut};
use std::time::Duration;

fn sample() -> Sample {
    let mut durations = Lengths { sum: Duration::from_micros(2_500), ..Lengths::default() };
    (durations.counts[3], durations.counts[17]) = (2, 1);
    let listener = ListenerSample {
        endpoint: "unix:///a\"b\\c".into(),
        service: "echo".into(),
        model: "prefork".into(),
        has_pool: true,
        states: [0, 3, 2, 1, 0, 0],
        forked: 6,
        sums: Sums { connections: 7, bytes_in: 80, bytes_out: 90, failed: 3 },
        threads: 9,
        early: 6,
        spread: Some(0.75),
        arrivals: Arrivals { queued: Some(5), queue_limit: Some(128), dropped: Some(2744) },
        refused: vec![(Refusal::Limit, 2)],
        timed_out: vec![(TimedOut::Lifetime, 4)],
        deaths: vec![(Cause::Signal(11), 1)],
        durations,
        lifetimes: durations,
        limit: 8,
        ..ListenerSample::default()
    };
    Sample { stage: Stage::Draining, listeners: vec![listener], ..Sample::default() }
}

/// The text of a sample of a daemon that has started at that time.
fn text(sample: Sample, format: Format) -> String {
    super::text(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500), sample, format)
}

const OF: &str = r#"listener="unix:///a\"b\\c",service="echo",model="prefork""#;

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "{line:?} is not in\n{text}");
}

#[test]
fn each_number_has_its_line() {
    let text = text(sample(), Format::OpenMetrics);
    has(&text, &format!(r#"forkd_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION")));
    has(&text, "forkd_start_time_seconds 1.5");
    has(&text, "forkd_phase{phase=\"running\"} 0");
    has(&text, "forkd_phase{phase=\"draining\"} 1");
    for line in [
        "forkd_children{OF,state=\"serving\"} 2",
        "forkd_children_limit{OF} 8",
        "forkd_workers{OF,state=\"busy\"} 3",
        "forkd_workers{OF,state=\"idle\"} 3",
        "forkd_forks_total{OF} 6",
        "forkd_deaths_total{OF,cause=\"SIGSEGV\"} 1",
        "forkd_connections_total{OF} 7",
        "forkd_connections_failed_total{OF} 3",
        "forkd_connections_early{OF} 6",
        "forkd_connections_queued{OF} 5",
        "forkd_connections_spread{OF} 0.75",
        "forkd_connections_queue_limit{OF} 128",
        "forkd_kernel_drops_total{OF} 2744",
        "forkd_threads{OF} 9",
        "forkd_refusals_total{OF,cause=\"limit\"} 2",
        "forkd_connections_timed_out_total{OF,cause=\"lifetime\"} 4",
        "forkd_received_bytes_total{OF} 80",
        "forkd_sent_bytes_total{OF} 90",
        "forkd_connection_duration_seconds_sum{OF} 0.0025",
        "forkd_connection_duration_seconds_count{OF} 3",
    ] {
        has(&text, &line.replace("OF", OF));
    }
    // the crate puts the bound first
    for (bound, count) in [("0.0003", 0), ("0.001", 2), ("3000.0", 2), ("+Inf", 3)] {
        has(&text, &format!("forkd_connection_duration_seconds_bucket{{le=\"{bound}\",{OF}}} {count}"));
    }
    for (bound, count) in [("0.3", 0), ("1.0", 2), ("3000000.0", 2), ("+Inf", 3)] {
        has(&text, &format!("forkd_child_lifetime_seconds_bucket{{le=\"{bound}\",{OF}}} {count}"));
    }
    assert!(!text.contains("forkd_fork_latency_seconds_count{"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_older_format_names_families_by_their_samples() {
    let (new, old) = (text(sample(), Format::OpenMetrics), text(sample(), Format::Plain));
    has(&new, "# TYPE forkd_received_bytes counter");
    has(&new, "# UNIT forkd_received_bytes bytes");
    has(&old, "# HELP forkd_received_bytes_total Bytes received from clients");
    has(&old, "# TYPE forkd_received_bytes_total counter");
    has(&old, "# TYPE forkd_build_info gauge");
    has(&old, "# TYPE forkd_connection_duration_seconds histogram");
    assert!(!old.contains("# UNIT") && !old.contains("# EOF"), "{old}");
    let samples =
        |text: &str| text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(samples(&new), samples(&old));
}
