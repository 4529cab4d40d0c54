//! Nothing is lost while forkd is changed: `forkd load --during` offers each transport a fixed rate meanwhile.
//!
//! `FORKD_LONG=1` has each change happen a hundred times, and not ten.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use common::*;
use serde_json::Value;

const TRANSPORTS: [&str; 3] = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "unix://{dir}/stream"];

fn times() -> usize {
    if std::env::var_os("FORKD_LONG").is_some_and(|value| value == "1") { 100 } else { 10 }
}

/// Offers the nth listener of a daemon 200 clients or datagrams a second while a shell script runs, and returns what became
/// of them. The script finds forkd as `$forkd`, and asks this daemon.
#[track_caller]
fn load_during(daemon: &Daemon, n: usize, script: &str) -> Value {
    let path = daemon.path("script");
    let control = daemon.control().display();
    let program = env!("CARGO_BIN_EXE_forkd");
    fs::write(&path, format!("set -e\nforkd={program}\nexport FORKD_CONTROL={control}\n{script}\n")).unwrap();
    let mut command = forkd_command();
    command.args(["load", "-z", "200ms", "-c", "16", "--rate", "200", "--json", "-", "--during"]);
    command.arg(format!("sh {}", path.display())).arg(daemon.endpoint(n));
    let ended = forkd_within(&mut command, LIMIT * 20);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(report["during"]["exit_code"], 0, "{report}\n{}", ended.stderr);
    report
}

#[track_caller]
fn loses_nothing(daemon: &Daemon, script: &str) {
    for (n, transport) in TRANSPORTS.iter().enumerate() {
        let report = load_during(daemon, n, script);
        let losses = report["during"]["losses"].as_array().expect("losses");
        assert!(
            losses.is_empty(),
            "{transport}: {} lost: {:?}\n{:#?}",
            losses.len(),
            losses.first(),
            daemon.log()
        );
    }
}

fn start(model: &str) -> Daemon {
    Daemon::start(&format!("{model} {}", TRANSPORTS.join(" ")))
}

under_models! {
    [fork prefork thread event]

    fn by_upgrades(model) {
        let daemon = start(model);
        loses_nothing(&daemon, &format!("for i in $(seq {}); do $forkd upgrade; done", times()));
        assert_eq!(daemon.count_lines("upgraded: "), times() * TRANSPORTS.len());
    }

    fn by_reloads(model) {
        let forkd = Forkd::new("--config {dir}/forkd.toml");
        let endpoints: Vec<String> = TRANSPORTS
            .map(|transport| format!("'{}'", transport.replace("{dir}", forkd.dir.path().to_str().unwrap())))
            .into();
        let model = model.split(' ').nth(1).unwrap();
        let text = format!("[[listen]]\nmodel = '{model}'\nendpoints = [{}]\n", endpoints.join(", "));
        fs::write(forkd.dir.path().join("forkd.toml"), text).unwrap();
        let daemon = forkd.start();
        loses_nothing(&daemon, &format!("for i in $(seq {}); do $forkd reload; done", times()));
    }

    /// The clients of the killed ones aside: each has few at a time.
    fn by_workers_that_are_killed(model) {
        for transport in TRANSPORTS {
            let daemon = Daemon::start(&format!("{model} {transport}"));
            // Under fork there may be none at that moment. A worker that is killed before it has served a client is one that
            // has failed to start: in between there are twenty clients.
            let script = format!(
                "for i in $(seq {}); do kill -9 $(ps -o pid= --ppid {} | shuf -n 1) 2>/dev/null || true; sleep 0.1; done",
                times(),
                daemon.pid()
            );
            let report = load_during(&daemon, 0, &script);
            let losses = report["during"]["losses"].as_array().expect("losses");
            assert!(losses.len() <= 4 * times(), "{transport}: {} lost\n{:#?}", losses.len(), daemon.log());
        }
    }
}
