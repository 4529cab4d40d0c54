//! Workers that are any program (`--worker-exec`): what a program finds, how it is changed for another, and what becomes of
//! one that fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod failures;
mod languages;
mod patience;
mod surroundings;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::*;

/// The asyncio program that serves all of its sockets.
const ECHO: &str = include_str!("workers/echo.py");

/// A pool whose workers are this shell script, on tcp://127.0.0.1:0 unless the options name an endpoint. They count as ready
/// at once.
fn script(options: &str, text: &str) -> Forkd {
    let ready = if options.contains("--ready-after") { "" } else { "--ready-after 1ms" };
    pool(&format!("{ready} {options}"), "sh {dir}/worker").with_file("worker", text)
}

/// The same, of [`ECHO`], whose workers say when they are ready.
fn echo(options: &str) -> Forkd {
    let options = format!("--ready-after notify {options}");
    pool(&options, "python3 {dir}/worker {dir}/told").with_file("worker", ECHO)
}

fn pool(options: &str, program: &str) -> Forkd {
    let endpoint =
        if options.contains("://") || options.contains("--config") { "" } else { "tcp://127.0.0.1:0" };
    let forkd = Forkd::new(&format!("{options} {endpoint} --worker-exec {program}"));
    // where programs say how they are, also when the daemon is killed at the end of a test
    let own = forkd.dir.path().to_str().unwrap().to_owned();
    forkd.env("RUNTIME_DIRECTORY", "").env("XDG_RUNTIME_DIR", "").env("TMPDIR", &own)
}

/// Has the next workers be another script. A shell reads the one that it runs bit by bit.
fn becomes(daemon: &Daemon, text: &str) {
    let text = text.replace("{dir}", daemon.path("").to_str().unwrap().trim_end_matches('/'));
    fs::write(daemon.path("next"), text).unwrap();
    fs::rename(daemon.path("next"), daemon.path("worker")).unwrap();
}

fn reload(daemon: &Daemon) -> Ended {
    let mut command = forkd_command();
    forkd_within(command.arg("reload").arg("--control").arg(daemon.control()), LIMIT * 4)
}

#[track_caller]
fn reloads(daemon: &Daemon) {
    let ended = reload(daemon);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{:#?}", daemon.log());
}

/// Ends a daemon as an operator does; returns its exit code.
#[track_caller]
fn stops(daemon: &Daemon) -> Option<i32> {
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait_for(LIMIT).code()
}

/// A variable in the environment that a process was started with.
fn variable(pid: i32, name: &str) -> Option<String> {
    environment(pid).into_iter().find_map(|(its, value)| (its == name).then_some(value))
}

fn environment(pid: i32) -> Vec<(String, String)> {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split('\0').filter_map(pair).collect()
}

/// The lines of a file that workers write.
fn told(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The workers that have executed their program, by their numbers.
fn workers(daemon: &Daemon) -> Vec<i32> {
    let number = |pid: i32| variable(pid, "FORKD_WORKER")?.parse::<u32>().ok().map(|number| (number, pid));
    let mut workers: Vec<_> = daemon.children().into_iter().filter_map(number).collect();
    workers.sort_unstable();
    workers.into_iter().map(|(_, pid)| pid).collect()
}

/// Waits until there are so many, and returns them.
#[track_caller]
fn has_workers(daemon: &Daemon, count: usize) -> Vec<i32> {
    let mut found = Vec::new();
    eventually("there are as many workers", || {
        found = workers(daemon);
        found.len() == count
    });
    found
}

/// Rather longer than a worker has to leave in these tests.
const GRACE: Duration = Duration::from_millis(300);
