//! The service http, under each model: what its clients get, and what strangers don't.
//!
//! What a dialogue comes to is tested without a socket in `src/service/http/tests.rs`; here are the programs that
//! people use, the files of a real directory, time, and hostile clients.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::OnceLock;

use common::wire::noise;
use common::*;
use nix::sys::signal::Signal;

/// Larger than any buffer on the way.
const LARGE: usize = 20_000_000;

fn large() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| noise(7, LARGE))
}

const SECRET: &str = "nobody but the operator";

mod clients;
mod configuration;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod kernel;
mod strangers;

/// Fills the directory `root` in `dir`, beside a secret, and with ways to that.
fn fill(dir: &Path) {
    let root = dir.join("root");
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::create_dir_all(root.join("bare")).unwrap();
    fs::write(dir.join("secret"), SECRET).unwrap();
    let page = "<!doctype html><title>front</title><link rel=stylesheet href=style.css><a href=sub/>sub</a>\
        <p id=said>nothing</p><script src=script.js></script>";
    for (name, content) in [
        ("index.html", page),
        ("style.css", "p { color: green }"),
        (
            "script.js",
            "fetch('hello').then(r => r.text()).then(t => document.getElementById('said').textContent = t + '!')",
        ),
        ("sub/index.html", "<!doctype html><title>sub</title><a href=deep/page.html>deep</a>"),
        ("sub/deep/page.html", "<!doctype html><title>deep</title>"),
        ("digits.txt", "0123456789"),
        (".hidden", SECRET),
        ("sub/.hidden", SECRET),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    fs::write(root.join("large.bin"), large()).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink(dir.join("secret"), root.join("absolute")).unwrap();
    symlink("../..", root.join("sub/up")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

fn forkd_http(options: &str) -> Forkd {
    let forkd = Forkd::new(&format!("{options} --service http --root {{dir}}/root --route /hello=Hello"));
    fill(forkd.dir.path());
    forkd
}

/// With each request in the log.
fn serve(model: &str) -> Daemon {
    forkd_http(&format!("{model} --log-level debug")).start()
}

/// Sends this, and no more; returns all that comes.
#[track_caller]
fn ask(daemon: &Daemon, says: &str) -> String {
    let mut client = daemon.connect();
    client.write_all(says.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap_or_else(|error| panic!("{error} after {says:?}"));
    String::from_utf8_lossy(&heard).into_owned()
}

fn get(daemon: &Daemon, target: &str) -> String {
    ask(daemon, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// The status of an answer; 0 if there is none.
fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).into_owned()
}

/// The kibibytes of its heap that a process has to itself.
#[cfg(target_os = "linux")]
fn heap_of_its_own(pid: i32) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let heap = smaps.lines().skip_while(|line| !line.ends_with("[heap]"));
    let of_heap = heap.take_while(|line| !line.starts_with("VmFlags:"));
    let private = of_heap.filter_map(|line| line.strip_prefix("Private_Dirty:")?.trim().strip_suffix(" kB"));
    private.map(|kib| kib.parse::<u64>().unwrap()).sum()
}

/// malloc(3) would look for room all over the heap, and each page where it does is copied for the child.
#[cfg(target_os = "linux")]
#[test]
fn a_child_that_answers_has_few_pages_of_the_heap_copied() {
    let daemon = forkd_http("").start();
    let mut client = daemon.connect();
    for _ in 0..3 {
        client.write_all(b"GET /digits.txt HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"0123456789") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            heard.push(byte[0]);
        }
    }
    let [child] = daemon.children()[..] else { panic!("one child") };
    let copied = heap_of_its_own(child);
    assert!(copied <= 16, "{copied} KiB of the heap were copied");
}
