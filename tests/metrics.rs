//! Metrics: what a scraper reads, and that no scraper is in a client's way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::Signal;

const METRICS: &str = "--metrics tcp://127.0.0.1:0";
/// With an endpoint to serve.
const HERE: &str = "--metrics tcp://127.0.0.1:0 tcp://127.0.0.1:0";
const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n";

/// Where its metrics are; the first such line.
#[track_caller]
fn address(daemon: &Daemon) -> SocketAddr {
    let line = daemon.wait_for_line("metrics at http://");
    let (_, address) = line.split_once("http://").unwrap();
    address.strip_suffix("/metrics").unwrap().parse().unwrap()
}

/// Sends this, and returns all that comes back.
#[track_caller]
fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address(daemon), LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// The metrics, without the head of the answer.
#[track_caller]
fn scrape(daemon: &Daemon) -> String {
    let answer = exchange(connect(daemon), &format!("{GET}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The sum of all samples with this name and these labels.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let is_it =
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
        is_it.then(|| value.parse::<f64>().unwrap())
    };
    text.lines().filter_map(of).sum()
}

/// Waits until a sum of samples is such.
#[track_caller]
fn becomes(daemon: &Daemon, name: &str, labels: &[&str], value: f64) -> String {
    let mut text = String::new();
    let reached = becomes_true(LIMIT, || {
        text = scrape(daemon);
        sum(&text, name, labels) == value
    });
    assert!(reached, "{name}{labels:?} is not {value} in\n{text}");
    text
}

/// The child that serves metrics, where there is no other.
#[track_caller]
fn server_of(daemon: &Daemon) -> i32 {
    daemon.settles_at(1);
    daemon.children()[0]
}

#[test]
fn connections_without_a_first_exchange_are_counted_while_they_are() {
    let daemon = Daemon::start(&format!("{HERE} -m event --early-drop 2:100:2"));
    let silent = [(); 2].map(|()| daemon.connect());
    becomes(&daemon, "forkd_connections_early", &[], 2.0);
    // it may be refused before it sees that it is connected
    let _ = TcpStream::connect(daemon.addr());
    let text = becomes(&daemon, "forkd_refusals_total", &["cause=\"early-drop\""], 1.0);
    assert_eq!(sum(&text, "forkd_connections_early", &[]), 2.0);
    drop(silent);
    becomes(&daemon, "forkd_connections_early", &[], 0.0);
}

both_ways! {
    fn what_happens_under_fork_is_counted(way: Way) {
        let daemon = Forkd::new(&format!("{HERE} --max-children 7")).way(way).start();
        let mut client = daemon.served();
        let text = becomes(&daemon, "forkd_children", &["state=\"serving\""], 1.0);
        assert_eq!(sum(&text, "forkd_connections_open", &[]), 1.0);
        assert_eq!(sum(&text, "forkd_children_limit", &[]), 7.0);
        // the child has nothing of what metrics are served with
        let sockets = fds_of(daemon.server_of(&client)).into_iter().filter(|(_, path)| path.starts_with("socket:"));
        assert_eq!(sockets.count(), 1);
        echoes(&mut client, b"12345");
        drop(client);
        let text = becomes(&daemon, "forkd_deaths_total", &["cause=\"done\""], 1.0);
        let endpoint = format!("listener=\"{}\",service=\"echo\",model=\"fork\"", daemon.endpoint(0));
        for (name, value) in [
            ("forkd_forks_total", 1.0),
            ("forkd_connections_total", 1.0),
            ("forkd_children", 0.0),
            ("forkd_connections_open", 0.0),
            ("forkd_connections_held", 0.0),
            ("forkd_failed_starts_total", 0.0),
            ("forkd_connections_queued", 0.0),
            ("forkd_received_bytes_total", 19.0),
            ("forkd_sent_bytes_total", 19.0),
            ("forkd_connection_duration_seconds_count", 1.0),
            ("forkd_fork_latency_seconds_count", 1.0),
            ("forkd_child_lifetime_seconds_count", 1.0),
        ] {
            assert_eq!(sum(&text, name, &[&endpoint]), value, "{name} in\n{text}");
        }
        let seconds = |name| sum(&text, name, &[]);
        assert!((1e-6..15.0).contains(&seconds("forkd_connection_duration_seconds_sum")), "{text}");
        assert!((1e-6..15.0).contains(&seconds("forkd_fork_latency_seconds_sum")), "{text}");
        // killed, it has lasted until it was missed
        let client = daemon.served();
        signal(daemon.server_of(&client), Signal::SIGKILL);
        let text = becomes(&daemon, "forkd_deaths_total", &["cause=\"SIGKILL\""], 1.0);
        assert_eq!(sum(&text, "forkd_connection_duration_seconds_count", &[]), 2.0);
    }

    fn what_happens_in_a_pool_is_counted(way: Way) {
        let daemon = Forkd::new(&format!("{HERE} -m prefork -w 2")).way(way).start();
        becomes(&daemon, "forkd_children_limit", &["model=\"prefork\""], 2.0);
        let clients = [daemon.served(), daemon.served()];
        becomes(&daemon, "forkd_workers", &["state=\"busy\""], 2.0);
        let waiting = daemon.connect();
        becomes(&daemon, "forkd_connections_queued", &[], 1.0);
        assert!(is_silent(&waiting, Duration::from_millis(300)));
        drop((clients, waiting));
        let text = becomes(&daemon, "forkd_connection_duration_seconds_count", &[], 3.0);
        assert_eq!(sum(&text, "forkd_connections_total", &["model=\"prefork\""]), 3.0);
        becomes(&daemon, "forkd_workers", &["state=\"idle\""], 2.0);
        assert_eq!(sum(&text, "forkd_accept_latency_seconds_count", &[]), 3.0);
        assert!((0.25..15.0).contains(&sum(&text, "forkd_accept_latency_seconds_sum", &[])), "{text}");
        // one more, one fewer, and one that dies
        assert_eq!(sum(&text, "forkd_child_lifetime_seconds_count", &[]), 0.0);
        daemon.signal(Signal::SIGTTIN);
        becomes(&daemon, "forkd_children_limit", &[], 3.0);
        daemon.signal(Signal::SIGTTOU);
        becomes(&daemon, "forkd_children_limit", &[], 2.0);
        let text = becomes(&daemon, "forkd_child_lifetime_seconds_count", &[], 1.0);
        assert!((0.25..60.0).contains(&sum(&text, "forkd_child_lifetime_seconds_sum", &[])), "{text}");
    }

    fn a_stop_is_said_while_it_lasts(way: Way) {
        let daemon = Forkd::new(HERE).way(way).start();
        let client = daemon.served();
        let is = |phase: &str, value: f64| {
            becomes(&daemon, "forkd_phase", &[&format!("phase=\"{phase}\"")], value);
        };
        is("running", 1.0);
        is("draining", 0.0);
        assert_eq!(daemon.status()["phase"], "running");
        daemon.signal(Signal::SIGTERM);
        is("draining", 1.0);
        is("running", 0.0);
        assert_eq!(daemon.status()["phase"], "draining");
        let table = run(&["status", "--control", daemon.control().to_str().unwrap()]).stdout;
        assert!(table.lines().next().unwrap().ends_with(", draining"), "{table}");
        drop(client);
        assert!(daemon.wait().success());
    }

    fn the_server_is_replaced_when_it_dies(way: Way) {
        let daemon = Forkd::new(HERE).way(way).start();
        let first = server_of(&daemon);
        scrape(&daemon);
        signal(first, Signal::SIGKILL);
        daemon.wait_for_line("metrics server ended; starting another");
        eventually("another one", || daemon.children().iter().any(|&pid| pid != first));
        scrape(&daemon);
        // and again and again, more and more patiently; clients notice nothing
        for _ in 0..5 {
            daemon.children().into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
            short_connection(daemon.addr(), b"x").unwrap();
            scrape(&daemon);
        }
    }

    fn a_stop_leaves_nothing(way: Way) {
        let daemon = Forkd::new(&format!("{HERE} -m prefork -w 2 --grace 1s")).way(way).start();
        let workers = daemon.status()["children"].as_array().unwrap().len();
        daemon.settles_at(workers + 1);
        let is_worker = |pid: i32| daemon.status()["children"].as_array().unwrap().iter().any(|c| c["pid"] == pid);
        let server = daemon.children().into_iter().find(|&pid| !is_worker(pid)).unwrap();
        // a scraper that never asks, and a server that can't even die by itself
        let _scraper = connect(&daemon);
        stopped(server);
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait().success());
        eventually("all are gone", || daemon.is_gone());
    }

    fn a_stop_can_be_watched(way: Way) {
        let daemon = Forkd::new(HERE).way(way).start();
        let client = daemon.served();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        assert_eq!(sum(&scrape(&daemon), "forkd_connections_open", &[]), 1.0);
        drop(client);
        assert!(daemon.wait().success());
        eventually("all are gone", || daemon.is_gone());
    }

    fn a_stop_of_the_whole_group_can_be_watched_as_well(way: Way) {
        let daemon = Forkd::new(&format!("{HERE} -m prefork -w 1")).way(way).start();
        let client = daemon.served();
        scrape(&daemon);
        let before = daemon.children();
        daemon.signal_group(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        assert_eq!(sum(&scrape(&daemon), "forkd_connections_open", &[]), 1.0);
        // the worker and the server, and no new one
        assert_eq!(daemon.children(), before);
        drop(client);
        assert!(daemon.wait().success());
        eventually("all are gone", || daemon.is_gone());
        assert_eq!(daemon.count_lines("metrics server"), 0);
    }

    fn the_server_does_not_outlive_the_master(way: Way) {
        let daemon = Forkd::new(HERE).way(way).start();
        let server = server_of(&daemon);
        scrape(&daemon);
        signal(daemon.pid(), Signal::SIGKILL);
        daemon.wait();
        eventually("it ends", || !is_running(server));
    }
}

#[test]
fn scrapers_that_dawdle_hold_up_no_other() {
    // so many listeners that the text does not fit into the socket's buffers
    let listeners = "tcp://127.0.0.1:0 ".repeat(300);
    let daemon = Daemon::start(&format!("{METRICS} {listeners}"));
    let dawdlers: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = connect(&daemon);
            // a third asks for nothing, a third for half, a third never reads
            let request = format!("{GET}\r\n");
            let part = [0, 10, request.len()][n % 3];
            stream.write_all(&request.as_bytes()[..part]).unwrap();
            stream
        })
        .collect();
    let text = scrape(&daemon);
    assert!(text.len() > 2_000_000, "{}", text.len());
    short_connection(daemon.addr(), b"x").unwrap();
    assert_eq!(daemon.status()["listeners"].as_array().unwrap().len(), 300);
    // they are given up, and their descriptors closed
    let server = server_of(&daemon);
    drop(dawdlers);
    let is_client = |path: &str| path.starts_with("socket:");
    let sockets = || fds_of(server).iter().filter(|(_, path)| is_client(path)).count();
    // those of clients, and that of scrapers
    eventually("only listeners are left", || sockets() == 300 + 1);
}

#[test]
fn a_scraper_waits_for_a_hundred_that_never_ask_but_not_for_long() {
    let daemon = Daemon::start(HERE);
    scrape(&daemon);
    let began = Instant::now();
    let dawdlers: Vec<TcpStream> = (0..100).map(|_| connect(&daemon)).collect();
    scrape(&daemon);
    // they are many, and not too many to be there at once
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    drop(dawdlers);
}

#[test]
fn one_at_a_time_and_many_at_once_are_answered() {
    let daemon = Daemon::start(HERE);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                (0..20).for_each(|_| assert!(scrape(&daemon).contains("forkd_start_time_seconds ")))
            });
        }
    });
}

#[test]
fn what_is_no_scrape_gets_an_answer_that_says_why() {
    let daemon = Daemon::start(HERE);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "404 Not Found"),
        ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request"),
        (
            format!(
                "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{}",
                "x".repeat(100_000)
            ),
            "405 ",
        ),
        ("hello\r\n\r\n".to_owned(), "400 Bad Request"),
        (format!("GET /{}", "x".repeat(20_000)), "414 "),
        (format!("{GET}{}\r\n", "a: b\r\n".repeat(200)), "431 "),
    ] {
        let answer = exchange(connect(&daemon), &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("\r\nDate: "), "{answer}");
    }
    // and what is one, in whichever form
    for request in [
        format!("{GET}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        "GET http://x:9/metrics HTTP/1.1\r\nHost: y\r\n\r\n".to_owned(),
        "GET /metrics HTTP/1.3\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let answer = exchange(connect(&daemon), &request);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{request}: {answer}");
    }
    // a client that waits to be told to go on
    let mut patient = connect(&daemon);
    patient.write_all(format!("{GET}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n").as_bytes()).unwrap();
    let mut told = [0; 25];
    patient.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(exchange(patient, "abc").starts_with("HTTP/1.1 200 OK\r\n"));
    let head = exchange(connect(&daemon), "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let open = exchange(connect(&daemon), &format!("{GET}Accept: application/openmetrics-text\r\n\r\n"));
    assert!(open.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert_eq!(daemon.count_lines("metrics server ended"), 0);
}

#[test]
fn a_reload_brings_the_new_names() {
    let forkd = Forkd::new(&format!("{METRICS} --config {{dir}}/forkd.toml"));
    let path = forkd.dir.path().join("forkd.toml");
    let unix = forkd.dir.path().join("s").display().to_string();
    let old = format!("127.0.0.1:{}", free_port());
    let group = |endpoint: &str, rest: &str| format!("[[listen]]\nendpoints = ['{endpoint}']\n{rest}\n");
    std::fs::write(&path, group(&format!("tcp://{old}"), "")).unwrap();
    let daemon = forkd.start();
    let first = server_of(&daemon);
    // a scraper that is in the middle of asking gets an answer
    let mut scraper = connect(&daemon);
    scraper.write_all(GET.as_bytes()).unwrap();
    scrape(&daemon);
    std::fs::write(&path, group(&format!("unix://{unix}"), "model = 'prefork'\nservice = 'discard'"))
        .unwrap();
    let control = daemon.control().to_str().unwrap().to_owned();
    assert_eq!(run(&["reload", "--control", &control]).code, Some(0));
    let labels = format!("listener=\"unix://{unix}\",service=\"discard\",model=\"prefork\"");
    becomes(&daemon, "forkd_workers", &[&labels, "state=\"idle\""], 8.0);
    assert!(exchange(scraper, "\r\n").starts_with("HTTP/1.1 200 OK"));
    eventually("the old one leaves", || !is_running(first));
    let text = scrape(&daemon);
    assert!(!text.contains(&old), "{text}");
    // no process holds the old socket any more
    TcpListener::bind(old).unwrap();
    assert_eq!(daemon.count_lines("metrics server ended"), 0);

    std::fs::write(&path, format!("[daemon]\ngrace = '2s'\n{}", group(&format!("unix://{unix}"), "")))
        .unwrap();
    assert_eq!(run(&["reload", "--control", &control]).code, Some(0));
    // the same socket, whose counters go on
    becomes(&daemon, "forkd_forks_total", &["service=\"echo\",model=\"fork\""], 8.0);
}

#[test]
fn where_metrics_are_needs_a_restart() {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let path = forkd.dir.path().join("forkd.toml");
    let toml =
        |metrics: &str| format!("[daemon]\n{metrics}\n[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n");
    std::fs::write(&path, toml("metrics = 'tcp://127.0.0.1:0'")).unwrap();
    let daemon = forkd.start();
    std::fs::write(&path, toml("")).unwrap();
    let refusal = run(&["reload", "--control", daemon.control().to_str().unwrap()]);
    assert_eq!(refusal.code, Some(78));
    assert!(refusal.stderr.contains("metrics is another one"), "{}", refusal.stderr);
    std::fs::write(&path, toml("metrics = 'tcp://127.0.0.1:1'")).unwrap();
    assert_eq!(run(&["reload", "--control", daemon.control().to_str().unwrap()]).code, Some(78));
    scrape(&daemon);
}

#[test]
fn a_socket_file_and_a_socket_that_was_handed_over_will_do() {
    let daemon = Daemon::start("--metrics unix://{dir}/m tcp://127.0.0.1:0");
    let stream = UnixStream::connect(daemon.path("m")).unwrap();
    assert!(exchange(stream, &format!("{GET}\r\n")).contains("\nforkd_forks_total{"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    assert!(!daemon.path("m").exists());

    let (clients, scrapers) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let forkd = Forkd::new("--metrics systemd:metrics systemd:echo");
    let daemon = forkd.handed("echo", &clients).handed("metrics", &scrapers).start();
    assert_eq!(address(&daemon), scrapers.local_addr().unwrap());
    scrape(&daemon);
    assert_eq!(daemon.count_lines("no endpoint asks for them"), 0);
}

#[test]
fn the_server_has_no_more_rights_than_the_daemon() {
    if !need_root() {
        return;
    }
    let daemon = Daemon::start(&format!("{HERE} --user nobody --chroot {{dir}}"));
    let (master, server) = (proc_status(daemon.pid(), "Uid"), proc_status(server_of(&daemon), "Uid"));
    assert!(master == server && !server.starts_with("0"), "{master} {server}");
    scrape(&daemon);
}

#[test]
fn what_can_not_be_is_refused_with_a_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = taken.local_addr().unwrap();
    let refused = |args: &str, code: i32, why: &str| {
        let ended = Forkd::new(args).run();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    };
    refused(&format!("--metrics tcp://{here} tcp://127.0.0.1:0"), 69, &format!("cannot bind tcp://{here}"));
    refused("--metrics udp://127.0.0.1:9", 64, "has no connections, which HTTP needs");
    refused("--metrics tcp://127.0.0.1:9 tcp://127.0.0.1:9", 64, "--metrics names tcp://127.0.0.1:9");
}

#[test]
fn a_socket_that_was_not_handed_over_is_an_error_and_not_the_end() {
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    for (forkd, why) in [
        (
            Forkd::new("--metrics systemd:m systemd:echo").handed("echo", &clients),
            "handed over are named echo",
        ),
        (Forkd::new("--metrics systemd:m tcp://127.0.0.1:0"), "no sockets were handed over"),
    ] {
        let daemon = forkd.start();
        let line = daemon.wait_for_line("serving without metrics until the next start");
        assert!(line.contains("cannot serve systemd:m: ") && line.contains(why), "{line}");
        daemon.served();
        let control = daemon.control();
        let status = run(&["status", "--control", control.to_str().unwrap()]);
        assert!(status.stdout.contains("no metrics: cannot serve systemd:m: "), "{}", status.stdout);
        let reload = run(&["reload", "--control", control.to_str().unwrap()]);
        assert_eq!(reload.code, Some(0), "{}", reload.stderr);
        daemon.served();
    }
}

/// The names of metrics in the expressions of the dashboard.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    words.filter(|word| word.starts_with("forkd_")).map(str::to_owned).collect()
}

#[test]
fn of_workers_that_accept_by_themselves_it_is_told_what_they_use() {
    let args = "-w 2 tcp://127.0.0.1:0 udp://127.0.0.1:0 --worker-exec sleep 1000";
    let daemon = Daemon::start(&format!("{METRICS} {args}"));
    let text = becomes(&daemon, "forkd_children", &["state=\"ready\""], 2.0);
    for worker in ["worker=\"0\",generation=\"1\"", "worker=\"1\",generation=\"1\""] {
        assert!(sum(&text, "forkd_worker_resident_memory_bytes", &[worker]) > 100_000.0, "{text}");
        let is_its =
            |line: &str| line.starts_with("forkd_worker_cpu_seconds_total{") && line.contains(worker);
        assert_eq!(text.lines().filter(|line| is_its(line)).count(), 1, "{text}");
    }
    // nothing is said that is not known
    for name in ["workers", "threads", "connections_total", "connections_open", "received_bytes_total"] {
        assert!(!text.contains(&format!("\nforkd_{name}{{")), "{name} in\n{text}");
    }
    assert!(exchange(connect(&daemon), "GET /readyz HTTP/1.0\r\n\r\n").ends_with("ready\n"));
    assert_eq!(exchange(connect(&daemon), "agent\n"), "ready up 100%\n");
    let pid = daemon.status()["children"][0]["pid"].as_i64().unwrap() as i32;
    signal(pid, Signal::SIGKILL);
    let text = becomes(&daemon, "forkd_worker_restarts_total", &[], 1.0);
    assert_eq!(sum(&text, "forkd_deaths_total", &["cause=\"SIGKILL\""]), 1.0);
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let pool = Daemon::start(&format!("{HERE} -m event -w 2"));
    let _held = pool.served();
    let forks = Daemon::start(HERE);
    drop(forks.served());
    let programs = Daemon::start(&format!("{HERE} -w 1 --worker-exec sleep 1000"));
    let text = becomes(&forks, "forkd_connections_total", &[], 1.0)
        + &becomes(&programs, "forkd_children", &["state=\"ready\""], 1.0)
        + &becomes(&pool, "forkd_connections_spread", &[], 0.5);
    let there_is: BTreeSet<&str> = text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let asked: BTreeSet<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .flat_map(|target| names_in(target["expr"].as_str().unwrap()))
        .collect();
    for name in &asked {
        assert!(there_is.contains(&**name), "{name} is not in\n{text}");
    }
    // and it shows all that there is
    let is_shown = |name: &str| {
        let base = name.strip_suffix("_sum").or(name.strip_suffix("_count")).unwrap_or(name);
        asked.iter().any(|asked| asked == name || *asked == format!("{base}_bucket"))
    };
    for name in there_is.into_iter().filter(|name| name.starts_with("forkd_")) {
        assert!(is_shown(name), "no panel shows {name}");
    }
}

/// Lost silently: they are counted by the kernel alone.
#[cfg(target_os = "linux")]
#[test]
fn datagrams_that_the_kernel_drops_are_counted_and_stay_so() {
    const SENT: u64 = 3000;
    let forkd = Forkd::new(&format!("--config {{dir}}/forkd.toml {METRICS}"));
    let file = forkd.dir.path().join("forkd.toml");
    let write = |workers: u32| {
        let listen = format!(
            "[[listen]]\nendpoints = ['udp://127.0.0.1:0']\nmodel = 'prefork'\nworkers = {workers}\n"
        );
        std::fs::write(&file, listen).unwrap();
    };
    write(1);
    let daemon = forkd.start();
    let status = daemon.status();
    assert_eq!(
        (&status["listeners"][0]["dropped"], &status["listeners"][0]["queued"]),
        (&0.into(), &serde_json::Value::Null)
    );
    let worker = status["children"][0]["pid"].as_i64().unwrap() as i32;
    signal(worker, Signal::SIGSTOP);
    eventually("it is stopped", || state_of(worker) == Some('T'));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..SENT {
        client.send_to(&[0; 1000], daemon.address("udp")).unwrap();
    }
    let dropped = || daemon.listener(0)["dropped"].as_u64().unwrap();
    let lost = dropped();
    assert!((1..SENT).contains(&lost), "{lost}");
    signal(worker, Signal::SIGCONT);
    // each one is either served or dropped
    eventually("all are counted", || daemon.listener(0)["connections"].as_u64().unwrap() + dropped() == SENT);
    let text = becomes(&daemon, "forkd_kernel_drops_total", &["listener=\"udp://"], dropped() as f64);
    assert!(!text.contains("forkd_connections_queued{"), "{text}");
    let table = run(&["status", "--control", daemon.control().to_str().unwrap()]).stdout;
    assert!(table.contains(&format!("{} dropped by the kernel: {lost}\n", daemon.endpoint(0))), "{table}");
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_line(&format!(" dropped={lost} "));
    // it is the same socket
    write(2);
    let reloaded = run(&["reload", "--control", daemon.control().to_str().unwrap()]);
    assert_eq!((reloaded.code, dropped()), (Some(0), lost), "{}", reloaded.stderr);
    becomes(&daemon, "forkd_kernel_drops_total", &[], lost as f64);
}

#[cfg(target_os = "linux")]
#[test]
fn connections_that_the_kernel_drops_are_counted_and_so_are_those_that_wait() {
    let daemon = Daemon::start(&format!("{HERE} -m prefork -w 1 --backlog 2"));
    let _served = daemon.served();
    let address = daemon.addr();
    // one more than the limit waits, and so each of the others is dropped
    let clients: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || TcpStream::connect_timeout(&address, Duration::from_millis(500))))
        .collect();
    let clients: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap().ok()).collect();
    let (mut seen, mut last) = (String::new(), 0);
    // a client may take itself for connected whose last segment was dropped: it is sent again, and dropped again
    let agree = becomes_true(LIMIT, || {
        let listener = daemon.listener(0);
        let [queued, limit, dropped] =
            ["queued", "queue_limit", "dropped"].map(|name| listener[name].as_u64().unwrap());
        let (full, known) = (queued == limit + 1 && limit == 2, queued <= clients.len() as u64);
        assert!(full && known && dropped > 0 && dropped >= last, "{listener}");
        last = dropped;
        let text = scrape(&daemon);
        let metrics = [
            ("forkd_connections_queued", queued),
            ("forkd_connections_queue_limit", limit),
            ("forkd_kernel_drops_total", dropped),
        ];
        let table = run(&["status", "--control", daemon.control().to_str().unwrap()]).stdout;
        seen = format!("{listener}\n{text}\n{table}");
        metrics.iter().all(|(name, value)| sum(&text, name, &[]) == *value as f64)
            && table.contains(&format!(" {queued}/2 "))
            && table.contains(&format!("kernel: {dropped}\n"))
    });
    assert!(agree, "{seen}");
}

under_models! { [fork spare prefork iterative thread threads event coroutine]
    fn promtool_finds_nothing_to_complain_about(model) {
        if !need_tool("promtool") {
            return;
        }
        let daemon = Daemon::start(&format!("{HERE} {model} unix://{{dir}}/s udp://127.0.0.1:0"));
        drop(daemon.served());
        becomes(&daemon, "forkd_connection_duration_seconds_count", &[], 1.0);
        let mut promtool = Command::new(tool("promtool").unwrap());
        let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut check = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(scrape(&daemon).as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }

    fn each_connection_is_counted_and_timed(model) {
        let daemon = Daemon::start(&format!("{HERE} {model}"));
        let client = daemon.served();
        let text = becomes(&daemon, "forkd_connections_open", &[], 1.0);
        // its own one of two threads, or the one of three that it has; a worker that waits is one, too
        let threads = [("-m thread --threads 2", 3.0), ("-m thread", 2.0), ("-m prefork -w 2", 2.0)];
        let threads = threads.iter().find(|(with, _)| *with == model).map_or(1.0, |(_, threads)| *threads);
        let status = daemon.status();
        let workers = status["children"].as_array().unwrap();
        // how many spare children wait depends on the moment
        let has_spares = model.contains("--spare");
        if !has_spares {
            assert_eq!(sum(&text, "forkd_threads", &[]), threads, "{text}");
            let pids = workers.iter().map(|child| child["pid"].as_i64().unwrap() as i32);
            let counted = pids.map(|pid| threads_of(pid).len()).sum::<usize>();
            assert_eq!(counted as f64, threads, "as the kernel counts");
        }
        drop(client);
        let text = becomes(&daemon, "forkd_connection_duration_seconds_count", &[], 1.0);
        assert_eq!(sum(&text, "forkd_connections_total", &[]), 1.0);
        assert_eq!(sum(&text, "forkd_connections_failed_total", &[]), 0.0);
        assert_eq!(sum(&text, "forkd_accept_latency_seconds_count", &[]), 1.0);
        let has_pool = !model.starts_with("-m fork");
        assert_eq!(text.contains("forkd_fork_latency_seconds_count"), !has_pool, "{text}");
        let idle = if has_pool { workers.len() } else { 0 };
        becomes(&daemon, "forkd_workers", &["state=\"idle\""], idle as f64);
        if !has_spares {
            becomes(&daemon, "forkd_children", &["state=\"idle\""], idle as f64);
        }
        becomes(&daemon, "forkd_connections_open", &[], 0.0);
    }
}
