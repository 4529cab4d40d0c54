//! `forkd load`: what it says of forkd, and of servers whose faults are known.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "load/fake.rs"]
mod fake;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use forkd_load::{Live, Load, Phase, Plan, Reach, Target};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Runs `forkd load --json -` with these options; returns its exit code, its JSON, and its complaint.
#[track_caller]
fn load(options: &str, endpoint: &str) -> (Option<i32>, Value, String) {
    let args: Vec<&str> = ["load", "--json", "-"].into_iter().chain(options.split_whitespace()).collect();
    let ended = run(&[&args[..], &[endpoint]].concat());
    let json = serde_json::from_str(&ended.stdout).unwrap_or(Value::Null);
    (ended.code, json, ended.stderr)
}

/// The same for one phase that must be measured; returns its figures.
#[track_caller]
fn phase(options: &str, endpoint: &str) -> Value {
    let (code, json, stderr) = load(options, endpoint);
    assert_eq!(code, Some(0), "{stderr}\n{json}");
    json["phases"][0].clone()
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name} in {figures}"))
}

/// That figures are complete and agree with each other.
#[track_caller]
fn is_sound(figures: &Value, clients: u64) {
    assert_eq!(figures["errors"], serde_json::json!({}), "{figures}");
    assert_eq!(figures["served"], clients, "{figures}");
    assert!(number(figures, "done") > 0.0 && number(figures, "client_cpu_s") > 0.0, "{figures}");
    let expected = number(figures, "done") / number(figures, "seconds");
    assert!((number(figures, "per_s") / expected - 1.0).abs() < 1e-6, "{figures}");
    if figures["phase"] == "bulk" {
        assert!(figures["p50_us"].is_null() && number(figures, "mb_per_s") > 0.0, "{figures}");
        return;
    }
    // those that enough operations are beyond
    let names = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
    let percentiles: Vec<f64> = names.iter().filter_map(|name| figures[name].as_f64()).collect();
    assert!(percentiles.is_sorted() && percentiles.iter().all(|percentile| *percentile > 0.0), "{figures}");
    assert!(number(figures, "max_us") > 0.0, "{figures}");
}

const SERVER: &str = "-m prefork -w 4 tcp://127.0.0.1:0 tcp://[::1]:0 unix://{dir}/s udp://127.0.0.1:0 \
    udp://[::1]:0 unixgram://{dir}/g";

#[test]
fn every_phase_over_every_transport() {
    let daemon = Daemon::start(SERVER);
    for endpoint in daemon.endpoints() {
        let is_stream = endpoint.starts_with("tcp") || endpoint.starts_with("unix:");
        // so many, and not for so long: the machine may be busy with something else
        let stream: &[_] = &[("churn,pingpong,bulk", "--operations 500"), ("hold", "--duration 400ms")];
        for (names, extent) in if is_stream { stream } else { &[("datagrams", "--operations 500")] } {
            let (code, json, stderr) = load(&format!("--phases {names} --clients 4 {extent}"), &endpoint);
            assert_eq!((code, &*stderr), (Some(0), ""), "{json}");
            assert_eq!((&json["version"], &json["interrupted"]), (&1.into(), &false.into()));
            assert_eq!(json["endpoint"], *endpoint);
            let phases = json["phases"].as_array().unwrap();
            let measured: Vec<&str> = phases.iter().map(|p| p["phase"].as_str().unwrap()).collect();
            assert_eq!(measured.join(","), *names);
            for figures in phases {
                is_sound(figures, if figures["phase"] == "bulk" { 1 } else { 4 });
            }
        }
    }
}

#[test]
fn what_the_client_counts_the_server_counts_too() {
    let daemon = Daemon::start("-m fork");
    let churn = phase("--phases churn --clients 3 --duration 500ms", &daemon.endpoint(0));
    let done = churn["done"].as_u64().unwrap();
    eventually("all are reaped", || daemon.children().is_empty());
    // the server saw the warm-up as well, which is a tenth as long
    let connections = daemon.listener(0)["connections"].as_u64().unwrap();
    assert!((done..done * 2 + 100).contains(&connections), "{connections} {churn}");
}

#[test]
fn threads_share_the_clients_and_the_rate() {
    let daemon = Daemon::start(SERVER);
    for options in ["--phases pingpong", "--phases churn", "--phases churn --rate 100", "--phases hold"] {
        let figures =
            phase(&format!("{options} --clients 4 --threads 3 --duration 500ms"), &daemon.endpoint(0));
        is_sound(&figures, 4);
        if options.contains("rate") {
            // those at 50 ms, when the warm-up is over, to 540 ms
            assert_eq!(number(&figures, "done") + number(&figures, "unsent"), 50.0, "{figures}");
        }
    }
}

#[test]
fn messages_of_any_size_come_back() {
    let daemon = Daemon::start(SERVER);
    for size in [1, 13, 70_000, 1_048_576] {
        for kind in ["churn", "pingpong", "bulk"] {
            let options = format!("--phases {kind} --size {size} --clients 2 --operations 50");
            is_sound(&phase(&options, &daemon.endpoint(0)), if kind == "bulk" { 1 } else { 2 });
        }
    }
    for size in [12, 1472, 65_507] {
        let options = format!("--size {size} --clients 2 --operations 50");
        is_sound(&phase(&options, &daemon.endpoint(3)), 2);
    }
}

#[test]
fn a_known_delay_is_measured() {
    const DELAY: Duration = Duration::from_millis(20);
    let took = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&took);
    let endpoint = fake::echo(move |_, message| {
        let begun = Instant::now();
        std::thread::sleep(DELAY);
        seen.lock().unwrap().push(begun.elapsed().as_secs_f64() * 1e6);
        Some(message)
    });
    for options in ["--phases pingpong", "--phases churn", "--phases pingpong --rate 40"] {
        took.lock().unwrap().clear();
        let figures = phase(&format!("{options} --clients 4 --duration 1s"), &endpoint);
        is_sound(&figures, 4);
        // a busy machine sleeps longer, so it is the server's own figure that must be found again
        let mut took = took.lock().unwrap().clone();
        took.sort_by(f64::total_cmp);
        let (p50, median, delay) =
            (number(&figures, "p50_us"), took[took.len() / 2], DELAY.as_micros() as f64);
        assert!(p50 >= delay * 0.999, "{p50} is less than the delay");
        assert!(p50 < median * 1.5 + 5_000.0, "{p50} instead of {median}");
        // four clients can't do more
        assert!(number(&figures, "per_s") <= 4.0 * 1e6 / delay * 1.05, "{figures}");
    }
}

#[test]
fn a_stall_is_felt_by_all_that_were_due_meanwhile() {
    const STALL: Duration = Duration::from_millis(600);
    let stalling = || {
        let begun = Mutex::new(None);
        fake::echo(move |count, message| {
            // messages wait at the lock, too
            let mut begun = begun.lock().unwrap();
            let since = *begun.get_or_insert_with(Instant::now);
            if count > 0 && since.elapsed() > Duration::from_millis(800) && since.elapsed().as_secs() < 100 {
                std::thread::sleep(STALL);
                *begun = Instant::now().checked_add(Duration::from_secs(1000));
            }
            Some(message)
        })
    };
    let options = "--phases pingpong --clients 1 --duration 2s";
    let open = phase(&format!("{options} --rate 100"), &stalling());
    let stall = STALL.as_micros() as f64;
    assert!(number(&open, "max_us") >= stall * 0.95, "{open}");
    // 60 of 200 were due while it stalled, and waited for half of it on average
    assert!(number(&open, "p90_us") >= stall / 3.0, "{open}");
    assert_eq!(number(&open, "done") + number(&open, "unsent"), 200.0, "{open}");
    // a closed loop sends nothing meanwhile, and the stall is one request among thousands
    let closed = phase(options, &stalling());
    assert!(number(&closed, "max_us") >= stall * 0.95, "{closed}");
    assert!(number(&closed, "p90_us") < stall / 6.0, "{closed}");
}

#[test]
fn a_rate_that_the_server_cannot_do_is_told() {
    let endpoint = fake::echo(|_, message| {
        std::thread::sleep(Duration::from_millis(20));
        Some(message)
    });
    let figures = phase("--phases pingpong --clients 2 --rate 1000 --duration 1s", &endpoint);
    let unsent = figures["unsent"].as_u64().unwrap();
    assert!(unsent > 500 && figures["done"].as_u64().unwrap() + unsent == 1000, "{figures}");
    let warning = figures["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("of 1000 per second were done") && warning.contains("more --clients"),
        "{warning}"
    );
    // those that waited to the end are among the percentiles
    assert!(number(&figures, "p90_us") > 500_000.0, "{figures}");
}

#[test]
fn a_wrong_byte_is_an_error_of_its_own() {
    let endpoint = fake::echo(|count, mut message| {
        message[40] ^= u8::from(count % 10 == 9);
        Some(message)
    });
    for kind in ["churn", "pingpong"] {
        let (code, json, stderr) = load(&format!("--phases {kind} --clients 2 --duration 500ms"), &endpoint);
        assert_eq!(code, Some(65), "{stderr}");
        assert!(stderr.contains("sent back something else") && stderr.contains(&endpoint), "{stderr}");
        let figures = &json["phases"][0];
        assert!(figures["errors"]["wrong-bytes"].as_u64() > Some(0), "{figures}");
        assert_eq!(figures["errors"].as_object().unwrap().len(), 1, "{figures}");
        assert!(number(figures, "done") > 0.0, "{figures}");
    }
}

#[test]
fn the_answer_to_another_is_wrong() {
    let before = Mutex::new([0; fake::SIZE]);
    let endpoint =
        fake::echo(move |_, message| Some(std::mem::replace(&mut *before.lock().unwrap(), message)));
    let (code, json, _) = load("--phases churn --clients 2 --duration 200ms", &endpoint);
    assert_eq!((code, &json["phases"][0]["done"]), (Some(65), &0.into()), "{json}");
}

/// Loads a server that serves no client; returns the errors by kind, and the complaint.
#[track_caller]
fn in_vain(options: &str, endpoint: &str) -> (Value, String) {
    let (code, json, stderr) = load(&format!("--clients 2 {options}"), endpoint);
    assert_eq!(code, Some(69), "{stderr}\n{json}");
    assert!(stderr.contains("no echo came from") && stderr.contains(endpoint), "{stderr}");
    assert_eq!(json["phases"][0]["done"], 0);
    (json["phases"][0]["errors"].clone(), stderr)
}

#[test]
fn a_server_that_closes_early_is_counted() {
    let (errors, stderr) = in_vain("--phases churn --duration 300ms", &fake::echo(|_, _| None));
    assert!(errors["closed-early"].as_u64() > Some(0), "{errors}");
    assert!(stderr.contains("(closed early)"), "{stderr}");
    let served = AtomicU64::new(0);
    let (_, json, _) = load(
        "--phases pingpong --clients 2 --duration 500ms",
        &fake::echo(move |_, message| (served.fetch_add(1, Ordering::Relaxed) % 20 != 19).then_some(message)),
    );
    let figures = &json["phases"][0];
    // clients come back
    assert!(figures["errors"]["closed-early"].as_u64() > Some(2), "{figures}");
    assert!(figures["done"].as_u64() > Some(20), "{figures}");
}

#[test]
fn a_reset_is_counted() {
    let (errors, _) = in_vain("--phases churn --duration 300ms", &fake::server(reset));
    assert!(errors["reset"].as_u64() > Some(0), "{errors}");
}

#[test]
fn without_a_listener_it_does_not_take_long() {
    let begun = Instant::now();
    let (tcp, udp, _theirs) = fake::silent();
    let (errors, stderr) = in_vain("--phases churn --duration 60s", &tcp);
    assert!(errors["refused"].as_u64() > Some(0), "{errors}");
    assert!(stderr.contains("(connection refused)"), "{stderr}");
    for endpoint in [&*udp, "unix:///no/such/socket", "unixgram:///no/such/socket"] {
        let (errors, _) = in_vain("--duration 60s", endpoint);
        assert!(errors["refused"].as_u64() > Some(0), "{errors}");
    }
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
}

#[test]
fn a_silent_server_is_given_up() {
    let silent =
        || fake::server(|stream| std::thread::sleep(stream.read_timeout().unwrap().unwrap_or(LIMIT)));
    for kind in ["churn", "pingpong", "bulk", "hold"] {
        let options = format!("--phases {kind} --timeout 200ms --duration 500ms");
        let (errors, _) = in_vain(&options, &silent());
        assert!(errors["timed-out"].as_u64() > Some(0), "{kind}: {errors}");
    }
    let (errors, _) = in_vain("--duration 600ms", &fake::datagrams(|_| 0));
    assert_eq!(errors, serde_json::json!({}));
}

#[test]
fn datagrams_are_lost_and_doubled() {
    for options in ["", "--rate 500"] {
        let options = format!("{options} --clients 4 --duration 1s --timeout 20ms");
        let figures = phase(&options, &fake::datagrams(|count| usize::from(count % 4 > 0)));
        let (lost, done) = (number(&figures, "lost"), number(&figures, "done"));
        assert!((0.1..0.5).contains(&(lost / (lost + done))), "{figures}");
        if options.contains("rate") {
            // each of them has met an end
            assert_eq!(lost + done + number(&figures, "unsent"), 500.0, "{figures}");
        }
        let figures = phase(&options, &fake::datagrams(|_| 2));
        assert!(figures["late"].as_u64() > Some(0), "{figures}");
        assert_eq!(figures["errors"], serde_json::json!({}), "{figures}");
    }
}

#[test]
fn hold_tells_how_many_are_served_at_once() {
    let daemon = Daemon::start("-m prefork -w 2");
    let held = phase("--phases hold --clients 5 --timeout 500ms --duration 100ms", &daemon.endpoint(0));
    assert_eq!((&held["served"], &held["still_served"]), (&2.into(), &2.into()), "{held}");
    assert_eq!(held["errors"], serde_json::json!({"timed-out": 3}), "{held}");
    for clients in [5, 150] {
        let options = format!("--phases pingpong --clients {clients} --timeout 500ms --duration 400ms");
        let figures = phase(&options, &daemon.endpoint(0));
        let expected = format!("only 2 of {clients} clients were served");
        assert!(figures["warnings"][0].as_str().unwrap().starts_with(&expected), "{figures}");
        assert!(number(&figures, "per_s") > 0.0, "{figures}");
    }
}

#[test]
fn held_clients_stay_until_they_are_let_go() {
    let daemon = Daemon::start("-m fork");
    let target = Target::new(&daemon.endpoint(0).parse().unwrap(), Reach::Loopback).unwrap();
    let load = Load::new(target, Plan { clients: 40, threads: 2, ..Plan::default() }).unwrap();
    let held = load.hold(&Arc::new(Live::default())).unwrap();
    assert_eq!((held.outcome().served, daemon.children().len()), (40, 40));
    // one is gone in the meantime
    signal(daemon.children()[0], Signal::SIGKILL);
    daemon.settles_at(39);
    let outcome = held.release().unwrap();
    assert_eq!((outcome.served, outcome.still_served, outcome.faults.total()), (40, Some(39), 1));
    daemon.settles_at(0);
}

#[test]
fn rounds_of_a_phase_can_be_put_together() {
    let daemon = Daemon::start("-m prefork -w 2");
    let target = Target::new(&daemon.endpoint(0).parse().unwrap(), Reach::Loopback).unwrap();
    let plan = Plan { clients: 2, duration: Duration::from_millis(100), ..Plan::default() };
    let (load, live) = (Load::new(target, plan).unwrap(), Arc::new(Live::default()));
    let mut first = load.run(Phase::Churn, &live).unwrap();
    let second = load.run(Phase::Churn, &live).unwrap();
    let both = first.done + second.done;
    first.merge(&second);
    assert_eq!((first.done, first.latencies.count(), first.bytes), (both, both, both * 64));
}

#[test]
fn ctrl_c_ends_it_and_shows_what_there_is() {
    let daemon = Daemon::start("-m prefork -w 2");
    let mut command = forkd_command();
    command.args(["load", "--json", "-", "--duration", "1h", "--clients", "2", "--rate", "100"]);
    command.arg(daemon.endpoint(0));
    command.stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id() as i32;
    eventually("it is past its warm-up", || daemon.listener(0)["connections"].as_u64() > Some(5));
    std::thread::sleep(Duration::from_millis(700));
    signal(pid, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["interrupted"], true, "{json}");
    let phases = json["phases"].as_array().unwrap();
    // the second one was not begun
    assert_eq!(phases.len(), 1, "{json}");
    let warnings = phases[0]["warnings"].to_string();
    assert!(!warnings.contains("ask for less"), "{warnings}");
    assert!(number(&phases[0], "seconds") < 60.0, "{json}");
}

/// Runs `forkd load --during`; returns its exit code, what it says of the command, and its complaint.
#[track_caller]
fn during(command: &str, options: &str, endpoint: &str) -> (Option<i32>, Value, String) {
    let options = options.split_whitespace();
    let args = ["load", "-z", "200ms", "-c", "4", "--json", "-", "--during", command, endpoint];
    let ended = run(&args.into_iter().chain(options).collect::<Vec<_>>());
    let json: Value = serde_json::from_str(&ended.stdout).unwrap_or(Value::Null);
    (ended.code, json["during"].clone(), ended.stderr)
}

#[test]
fn a_command_that_no_client_notices() {
    let daemon = Daemon::start(SERVER);
    for (at, options) in [(0, ""), (0, "--phases pingpong"), (2, "--threads 2")] {
        let (code, cost, stderr) = during("echo this is not json; exit 0", options, &daemon.endpoint(at));
        assert_eq!(code, Some(0), "{at} {options}: {stderr} {cost}");
        assert_eq!((&cost["lost"], &cost["exit_code"]), (&0.into(), &0.into()), "{cost}");
        assert!(stderr.contains("this is not json"), "{stderr}");
    }
    let (code, cost, stderr) = during("exit 3", "", &daemon.endpoint(0));
    assert_eq!((code, &cost["exit_code"]), (Some(1), &3.into()), "{cost}");
    assert!(stderr.contains("nothing was lost, but \"exit 3\" ended with exit code 3"), "{stderr} {cost}");
}

#[test]
fn what_a_command_costs_is_told_one_by_one() {
    for at in [0, 2, 3] {
        let daemon = Daemon::start(SERVER);
        let (code, cost, stderr) =
            during(&format!("kill -9 {}; sleep 1", daemon.pid()), "", &daemon.endpoint(at));
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("operations lost with"), "{stderr}");
        let losses = cost["losses"].as_array().unwrap();
        assert_eq!(cost["lost"].as_u64(), Some(losses.len() as u64), "{cost}");
        let parts = |name| losses.iter().filter(|loss| loss["part"] == name).collect::<Vec<_>>();
        assert!(!parts("during").is_empty() && !parts("after").is_empty(), "{cost}");
        let took = cost["took_s"].as_f64().unwrap();
        assert!(took >= 1.0, "{cost}");
        let offset = |loss: &Value| loss["offset_s"].as_f64().unwrap();
        assert!(losses.iter().map(offset).is_sorted(), "{cost}");
        assert!(parts("during").into_iter().all(|loss| (0.0..=took).contains(&offset(loss))), "{cost}");
        let kinds = ["refused", "reset", "closed-early", "unanswered", "unsent"];
        assert!(losses.iter().all(|loss| kinds.iter().any(|kind| loss["kind"] == *kind)), "{cost}");
    }
}

#[test]
fn nothing_is_done_to_a_server_that_serves_no_client() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let (tcp, _udp, _theirs) = fake::silent();
    for options in ["", "--phases pingpong"] {
        let (code, cost, stderr) = during(&format!("touch {}", mark.display()), options, &tcp);
        assert_eq!((code, cost), (Some(69), Value::Null), "{stderr}");
        assert!(stderr.contains("was not run") && !mark.exists(), "{stderr}");
    }
    let (code, _, stderr) = during("true", "--phases hold", "tcp://127.0.0.1:1");
    assert!(code == Some(64) && stderr.contains("give --phases churn, pingpong or datagrams"), "{stderr}");
}

#[test]
fn of_nothing_there_is_no_table() {
    let (came, comes) = std::sync::mpsc::channel();
    let endpoint = fake::server(move |_| {
        came.send(()).unwrap();
        std::thread::sleep(LIMIT);
    });
    let mut command = forkd_command();
    command.args(["load", "--duration", "1h", "--timeout", "1h", "--clients", "1", &endpoint]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    comes.recv_timeout(LIMIT).unwrap();
    signal(child.id() as i32, Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(143), Vec::new()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "forkd: error: SIGTERM ended it before anything was measured\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let daemon = Daemon::start("-m prefork -w 1");
    for (trap, code) in [("trap '' HUP; ", 0), ("", 129)] {
        let program = env!("CARGO_BIN_EXE_forkd");
        let line = format!("{trap}exec {program} load --clients 1 --duration 1s {}", daemon.endpoint(0));
        let before = daemon.listener(0)["connections"].as_u64().unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        eventually("it has begun", || daemon.listener(0)["connections"].as_u64().unwrap() > before);
        signal(child.id() as i32, Signal::SIGHUP);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{line}");
    }
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let sent = |seed: u64| {
        let first = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&first);
        let endpoint = fake::echo(move |_, message| {
            seen.lock().unwrap().get_or_insert(message);
            Some(message)
        });
        let _ = load(&format!("--phases churn --clients 1 --duration 50ms --seed {seed}"), &endpoint);
        first.lock().unwrap().unwrap()
    };
    assert_eq!(sent(7), sent(7));
    assert_ne!(sent(7), sent(8));
    assert!(sent(7).ends_with(b"\n"));
}

#[test]
fn what_is_out_of_reach_or_makes_no_sense_is_refused() {
    for (options, endpoint, expected) in [
        ("", "tcp://192.0.2.1:7", "say --i-own-this-host"),
        ("", "systemd:echo", "nothing to connect to"),
        ("--phases datagrams", "tcp://127.0.0.1:7", "needs a datagram socket"),
        ("--phases churn,bulk", "udp://127.0.0.1:7", "churn needs connections"),
        ("--clients 0", "tcp://127.0.0.1:7", "can't be 0"),
        ("--rate -1", "tcp://127.0.0.1:7", "can't be -1"),
        ("--rate 0/s", "tcp://127.0.0.1:7", "can't be 0"),
    ] {
        let (code, json, stderr) = load(options, endpoint);
        assert_eq!((code, json), (Some(64), Value::Null), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

fn fails_half_the_time() -> String {
    fake::echo(|count, message| (count % 2 == 0).then_some(message))
}

#[test]
fn a_number_of_operations_is_done_exactly() {
    let daemon = Daemon::start(SERVER);
    for (options, endpoint) in [
        ("--phases churn -c 1", 0),
        ("--phases churn -c 4", 2),
        ("--phases pingpong -c 1", 0),
        ("--phases pingpong -c 4 --threads 3", 0),
        ("-c 1", 3),
        ("-c 4 --threads 2", 5),
    ] {
        let figures = phase(&format!("-n 300 {options}"), &daemon.endpoint(endpoint));
        // a datagram may be lost
        assert_eq!(number(&figures, "done") + number(&figures, "lost"), 300.0, "{options}: {figures}");
    }
    for count in [1, 7] {
        let figures = phase(&format!("-n {count} --phases bulk"), &daemon.endpoint(0));
        assert_eq!(number(&figures, "done"), f64::from(count), "{figures}");
    }
    // what fails has had its turn, too
    let (_, json, _) = load("-n 20 -c 2 --phases churn", &fails_half_the_time());
    let figures = &json["phases"][0];
    assert_eq!((&figures["done"], &figures["errors"]["closed-early"]), (&10.into(), &10.into()), "{figures}");
}

#[test]
fn a_percentile_is_told_where_ten_operations_took_longer() {
    let daemon = Daemon::start(SERVER);
    for (count, told) in [(15, 0), (30, 1), (150, 2), (1_500, 3)] {
        let figures = phase(&format!("-n {count} -c 1 --phases churn"), &daemon.endpoint(0));
        let percentiles = ["p50_us", "p90_us", "p99_us", "p999_us"].map(|name| figures[name].is_number());
        assert_eq!(percentiles.map(usize::from).iter().sum::<usize>(), told, "{figures}");
        assert!(percentiles.is_sorted_by(|one, other| one >= other), "{figures}");
        assert!(number(&figures, "max_us") > 0.0, "{figures}");
    }
}

#[test]
fn a_table_is_plain_without_a_terminal_and_json_goes_to_its_file() {
    let (daemon, broken) = (Daemon::start("-m prefork -w 1"), fake::echo(|_, _| None));
    let file = daemon.path("load.json");
    let json = file.display().to_string();
    let ended = run(&["load", "-c", "1", "-z", "400ms", "--json", &json, &daemon.endpoint(0)]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[0], format!("{}: 1 clients, 64 bytes, 400ms per phase", daemon.endpoint(0)));
    assert!(lines[2].starts_with("phase") && lines[2].ends_with("errors  client CPU"), "{}", ended.stdout);
    assert!(lines[3].starts_with("churn ") && lines[3].contains(" conn/s  "), "{}", ended.stdout);
    assert!(lines[4].starts_with("pingpong ") && lines[4].contains(" req/s  "), "{}", ended.stdout);
    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(json["phases"].as_array().unwrap().len(), 2);
    let ended = run(&["load", "--phases", "churn", "-c", "1", "-z", "100ms", &broken]);
    assert_eq!((ended.code, &*ended.stdout), (Some(69), ""), "{}", ended.stderr);
    let ended = run(&["load", "--phases", "churn", "-c", "1", "-z", "100ms", &fails_half_the_time()]);
    assert!(ended.stdout.contains("\nerrors in churn: "), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\x1b') && !ended.stderr.contains('\x1b'), "{ended:?}");
    let ended = run(&["load", "--json", "/no/such/directory/f", &broken]);
    assert_eq!(ended.code, Some(73), "{}", ended.stderr);
}

#[test]
fn on_a_terminal_a_line_tells_how_it_goes() {
    if !need_tool("script") {
        return;
    }
    let broken = fails_half_the_time();
    let program = env!("CARGO_BIN_EXE_forkd");
    let typed = format!("{program} load --phases churn --duration 700ms {broken}");
    let seen = |no_colour: &str| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &typed, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", no_colour);
        forkd(&mut script).stdout
    };
    let colours = seen("");
    assert!(colours.contains("\rchurn: 0.") && colours.contains(" conn/s, "), "{colours}");
    assert!(colours.contains("\x1b[31merrors in churn"), "{colours}");
    let plain = seen("1");
    assert!(plain.contains("\rchurn: 0.") && !plain.contains("\x1b[31m"), "{plain}");
}

/// Runs `forkd load --merge` with these words after it.
#[track_caller]
fn merge(words: &[&str]) -> Ended {
    run(&[&["load", "--merge"], words].concat())
}

#[test]
fn reports_of_several_generators_are_put_together() {
    let daemon = Daemon::start(SERVER);
    let endpoints = daemon.endpoints();
    let (stream, datagram) = (&endpoints[0], &endpoints[3]);
    let path = |name: &str| daemon.path(name).to_str().unwrap().to_owned();
    let measure = |name: &str, options: &str, endpoint: &str| {
        let (path, options) = (path(name), format!("load {options} {endpoint} --json"));
        let ended = run(&options.split(' ').chain([path.as_str()]).collect::<Vec<_>>());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        path
    };
    for (phases, endpoint) in [("hold,churn,pingpong,bulk", stream), ("datagrams", datagram)] {
        let of = |name: &str, clients: u32, operations: u32| {
            let options = format!("--phases {phases} -c {clients} -n {operations}");
            measure(name, &options, endpoint)
        };
        let (a, b, c) = (of("a", 2, 300), of("b", 1, 500), of("c", 1, 200));
        let read = |path: &str| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
        let both = path("both");
        let ended = merge(&[&a, &b, "--json", &both]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let headline = format!("{endpoint}: 2 generators, 3 clients, 64 bytes, 800 operations per phase\n");
        assert!(ended.stdout.starts_with(&headline), "{}", ended.stdout);
        // and again
        let all = merge(&[&both, &c, "--json", "-"]);
        assert_eq!(all.code, Some(0), "{}", all.stderr);
        let all: Value = serde_json::from_str(&all.stdout).unwrap();
        assert_eq!((&all["generators"], &all["settings"]["clients"]), (&3.into(), &4.into()));
        let parts = [read(&a), read(&b), read(&c)];
        for (at, figures) in all["phases"].as_array().unwrap().iter().enumerate() {
            for name in ["done", "clients", "served", "per_s", "client_cpu_s"] {
                let sum: f64 = parts.iter().map(|part| number(&part["phases"][at], name)).sum();
                assert!(
                    (number(figures, name) - sum).abs() <= sum * 1e-9,
                    "{name} is not {sum} in {figures}"
                );
            }
            if figures["phase"] != "bulk" {
                let most = parts.iter().map(|part| number(&part["phases"][at], "max_us")).fold(0.0, f64::max);
                assert!((number(figures, "max_us") - most).abs() < 1e-3, "{figures}");
                assert!(figures["latencies_hdr"].as_str().unwrap().starts_with("HISTFAAA"), "{figures}");
            }
        }
    }
}

#[test]
fn what_can_t_be_put_together_is_refused_with_the_reason() {
    let daemon = Daemon::start(SERVER);
    let path = |name: &str| daemon.path(name).to_str().unwrap().to_owned();
    let report = |options: &str, nth: usize| -> Value {
        let (code, json, stderr) =
            load(&format!("--phases pingpong -c 2 -n 50 {options}"), &daemon.endpoint(nth));
        assert_eq!(code, Some(0), "{stderr}");
        json
    };
    let write = |name: &str, text: &str| {
        std::fs::write(path(name), text).unwrap();
        path(name)
    };
    let one = report("", 0);
    let (first, again) = (write("first", &one.to_string()), write("again", &one.to_string()));
    let mut old = report("", 0);
    old["phases"][0]
        .as_object_mut()
        .unwrap()
        .retain(|key, _| key != "latencies_hdr" && key != "began_unix_s");
    let mut broken = report("", 0);
    broken["phases"][0]["latencies_hdr"] = "HISTFAAAA".into();
    let cut = one.to_string();
    for (name, text, code, why) in [
        ("elsewhere", report("", 2).to_string(), 65, "its server is unix:"),
        ("larger", report("--size 65", 0).to_string(), 65, "its message size is 65, and not 64"),
        (
            "old",
            old.to_string(),
            65,
            "it has no histogram of pingpong, as it was written by a forkd that kept none",
        ),
        ("broken", broken.to_string(), 65, "its histogram is broken"),
        (
            "cut",
            cut[..cut.len() / 2].to_owned(),
            65,
            "is not what forkd load --json has written, or not all of it",
        ),
        ("empty", String::new(), 65, "is not what forkd load --json has written, or not all of it"),
    ] {
        let ended = merge(&[&first, &write(name, &text)]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(&path(name)) && ended.stderr.contains(why), "{name}: {}", ended.stderr);
    }
    let ended = merge(&[&first, &again]);
    assert!(ended.code == Some(65) && ended.stderr.contains("are the same report"), "{}", ended.stderr);
    let ended = merge(&[&first, &path("nowhere")]);
    assert!(ended.code == Some(69) && ended.stderr.contains("cannot read"), "{}", ended.stderr);
}

#[test]
fn a_report_is_found_in_the_log_of_a_container() {
    let daemon = Daemon::start(SERVER);
    let written = |name: &str| {
        let (_, json, stderr) = load("--phases churn -n 50", &daemon.endpoint(0));
        assert!(json.is_object(), "{stderr}");
        let log = format!(
            "churn: 5.0 s, 20 conn, 4 conn/s, 0 errors\n{}\nforkd: error: so it ended\n",
            serde_json::to_string_pretty(&json).unwrap()
        );
        std::fs::write(daemon.path(name), log).unwrap();
        daemon.path(name).to_str().unwrap().to_owned()
    };
    let ended = merge(&[&written("pod-1"), &written("pod-2")]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("2 generators, 16 clients"), "{}", ended.stdout);
}
