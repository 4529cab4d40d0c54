//! Programs that people have, in their own languages and with their own servers.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use super::*;

/// What an HTTP server answers.
fn ask(daemon: &Daemon) -> String {
    let mut client = daemon.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

/// Each worker of an HTTP server answers, and a reload changes all of them.
#[track_caller]
fn serves_http(forkd: Forkd, name: &str) {
    let daemon = forkd.start();
    let before = has_workers(&daemon, 2);
    let mut seen = [false; 2];
    eventually("each has answered", || {
        let answer = ask(&daemon);
        (0..2).for_each(|worker| seen[worker] |= answer.ends_with(&format!("{name} {worker}")));
        seen == [true; 2]
    });
    reloads(&daemon);
    eventually("all are new", || {
        let now = workers(&daemon);
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
    ask(&daemon);
    assert_eq!(stops(&daemon), Some(0), "{:#?}", daemon.log());
    assert_eq!(daemon.count_lines("warning"), 0, "{:#?}", daemon.log());
}

#[test]
fn node() {
    if need_tool("node") {
        let forkd = pool("-w 2", "node {dir}/http.js");
        serves_http(forkd.with_file("http.js", include_str!("workers/http.js")), "node");
    }
}

/// Built once; `None` without a compiler.
static GO: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let go = tool("go")?;
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http-in-go");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/workers/http.go");
    let mut command = Command::new(go);
    command.args(["build", "-o"]).arg(&program).arg(source).env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    command.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"));
    let ended = forkd_within(&mut command, LIMIT * 20);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Some(program)
});

#[test]
fn go() {
    if need_tool("go") {
        serves_http(pool("-w 2", GO.as_ref().unwrap().to_str().unwrap()), "go");
    }
}

#[test]
fn uvicorn() {
    if !need_tool("python3") {
        return;
    }
    if need_tool("uvicorn") {
        let program = "uvicorn --fd 3 --app-dir {dir} --log-level warning app:app";
        serves_http(pool("-w 2", program).with_file("app.py", include_str!("workers/app.py")), "uvicorn");
    }
}

#[test]
fn axum() {
    let program = example("test-axum");
    serves_http(pool("-w 2 --ready-after notify", program.to_str().unwrap()), "axum");
}

#[test]
fn asyncio() {
    if !need_tool("python3") {
        return;
    }
    let daemon = echo("-w 2").start();
    echoes(&mut daemon.connect(), b"hello");
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn a_script_by_systemd_notify() {
    if need_tool("systemd-notify") {
        let text = "sleep 0.1; echo ready now; systemd-notify --ready --status='in a shell'; exec sleep 1000";
        let daemon = script("-w 2 --ready-after notify", text).start();
        let at = |pattern: &str| daemon.log().iter().rposition(|line| line.contains(pattern));
        assert!(at("ready pid=") > at("ready now"), "{:#?}", daemon.log());
        has_workers(&daemon, 2);
        assert_eq!(stops(&daemon), Some(0));
    }
}
