//! The pages of the textbook programs (docs/teach/examples) show what the programs print.
//!
//! A block that has `^C` runs until another one listens where it does, or until the page ends; the others are commands that
//! end by themselves.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use common::*;
use nix::sys::signal::Signal;
use tempfile::TempDir;

fn pages() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/teach/examples");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let pages = named.filter(|(name, _)| name != "README.md");
    pages.map(|(name, path)| (name, fs::read_to_string(path).unwrap())).collect()
}

/// A command of a page, with the lines that it prints; of a server, those before and after it is stopped.
struct Shown<'a> {
    command: &'a str,
    prints: Vec<&'a str>,
    at_stop: Option<Vec<&'a str>>,
}

impl<'a> Shown<'a> {
    /// Where a server listens; a client does not say.
    fn endpoint(&self) -> Option<&'a str> {
        self.prints[0].split(' ').find(|word| word.contains("://"))
    }
}

fn shown(page: &str) -> Vec<Shown<'_>> {
    let mut shown: Vec<Shown<'_>> = Vec::new();
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), shown.last_mut()) {
            (Some(command), _) => shown.push(Shown { command, prints: Vec::new(), at_stop: None }),
            (None, Some(last)) if line == "^C" => last.at_stop = Some(Vec::new()),
            (None, Some(last)) => last.at_stop.as_mut().unwrap_or(&mut last.prints).push(line),
            (None, None) => panic!("{line:?} has no command"),
        }
    }
    shown
}

/// A line without what is another one in each run: processes, ports, times and lengths.
fn masked(line: &str) -> String {
    let (mut masked, mut rest) = (String::new(), line);
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        masked += &rest[..at];
        let number = &rest[at..];
        let (number, after) =
            number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
        let signs = ["process ", "PROCESS ", "tick ", "pid=", "\"seconds\": ", "127.0.0.1:", "127.0.0.1 "];
        let varies = signs.iter().any(|sign| masked.ends_with(sign))
            || [" ms", " bytes"].iter().any(|unit| after.starts_with(unit));
        masked += if varies { "N" } else { number };
        rest = after;
    }
    masked + rest
}

fn all_masked<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    lines.into_iter().map(masked).collect()
}

/// What the commands of a page run in: `cargo run` is the example that this build has made.
const CARGO: &str = r#"#!/bin/sh
[ "$1 $2 $3" = "run -q --example" ] || exit 64
example=$EXAMPLES/$4
shift 4
exec "$example" "$@"
"#;

struct Room(TempDir);

impl Room {
    fn new() -> Self {
        let room = tempfile::Builder::new().prefix("forkd-").tempdir().unwrap();
        let cargo = room.path().join("cargo");
        fs::write(&cargo, CARGO).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        Self(room)
    }

    fn command(&self, line: &str) -> Command {
        let forkd = Path::new(env!("CARGO_BIN_EXE_forkd")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", self.0.path().display(), forkd.display());
        let mut command = Command::new("sh");
        without_options(&mut command);
        command
            .args(["-c", line])
            .current_dir(&self.0)
            .env("PATH", path)
            .env("EXAMPLES", forkd.join("examples"));
        command.env("XDG_RUNTIME_DIR", self.0.path()).stdin(Stdio::null()).process_group(0);
        command
    }
}

/// A server of a page, or a client that stays: it is stopped as by Ctrl-C.
struct Server<'a> {
    shown: Shown<'a>,
    child: Child,
    log: PathBuf,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl<'a> Server<'a> {
    /// Starts it, and waits until it listens, or has begun to print.
    fn start(room: &Room, shown: Shown<'a>) -> Self {
        let (to, log) = tempfile::NamedTempFile::new_in(&room.0).unwrap().keep().unwrap();
        // an example is told its endpoint last
        let is_example = shown.prints[0].starts_with("listening on ");
        let endpoint = shown.endpoint().filter(|_| is_example).unwrap_or_default();
        let mut command = room.command(&format!("exec {} {endpoint}", shown.command));
        let child = command.stdout(to.try_clone().unwrap()).stderr(to).spawn().unwrap();
        let server = Self { shown, child, log };
        let starts = |line: &&&str| line.starts_with("listening on ") || line.starts_with("forkd: ");
        server.prints(server.shown.prints.iter().take_while(starts).count().max(1));
        server
    }

    fn lines(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has printed so many lines.
    fn prints(&self, count: usize) {
        let has = becomes_true(LIMIT, || self.lines().matches('\n').count() >= count);
        assert!(has, "{} has printed {:?}", self.shown.command, self.lines());
    }

    /// Stops it, and compares what it has printed.
    fn stop(mut self) {
        self.prints(self.shown.prints.len());
        signal(self.child.id() as i32, Signal::SIGINT);
        eventually("the server ends", || self.child.try_wait().unwrap().is_some());
        let expected = self.shown.prints.iter().chain(self.shown.at_stop.iter().flatten());
        assert_eq!(all_masked(self.lines().lines()), all_masked(expected.copied()), "{}", self.shown.command);
    }
}

fn runs(page: &str) {
    let room = Room::new();
    let mut running: Vec<Server> = Vec::new();
    for shown in shown(page) {
        if shown.at_stop.is_some() {
            let there =
                |other: &Server| other.shown.endpoint().is_some_and(|it| shown.endpoint() == Some(it));
            if let Some(at) = running.iter().position(there) {
                running.remove(at).stop();
            }
            running.push(Server::start(&room, shown));
        } else {
            let ended = forkd(&mut room.command(shown.command));
            let printed = ended.stdout + &ended.stderr;
            assert_eq!(all_masked(printed.lines()), all_masked(shown.prints), "{}", shown.command);
        }
    }
    // clients before their server
    running.into_iter().rev().for_each(Server::stop);
}

#[test]
fn each_page_shows_what_its_commands_print() {
    if !need_tool("nc") || !need_tool("curl") {
        return;
    }
    let pages = pages();
    assert!(pages.len() >= 17, "{pages:?}");
    thread::scope(|threads| {
        for (name, mut page) in pages {
            assert!(!shown(&page).is_empty(), "{name} shows no command");
            for usual in 7007..7020 {
                let names = [':', ' '].map(|sign| format!("127.0.0.1{sign}{usual}"));
                if names.iter().any(|name| page.contains(name)) {
                    let own = format!("{}", free_port());
                    for name in names {
                        page = page.replace(&name, &name.replace(&format!("{usual}"), &own));
                    }
                }
            }
            let named = thread::Builder::new().name(name);
            named.spawn_scoped(threads, move || runs(&page)).unwrap();
        }
    });
}

#[test]
fn what_is_another_one_in_each_run_is_left_out_and_nothing_else() {
    let line = "process 12 serves 127.0.0.1:80 in 3 ms, 12 56 HTTP/1.1 404: 127.0.0.1 7007 and 220 bytes";
    let known = "process N serves 127.0.0.1:N in N ms, 12 56 HTTP/1.1 404: 127.0.0.1 N and N bytes";
    assert_eq!(masked(line), known);
}

/// mdBook goes on without a file that it can't find.
#[test]
fn each_program_that_a_page_includes_is_there() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/teach/examples");
    for (name, page) in pages() {
        let included: Vec<&str> =
            page.split("{{#include ").skip(1).map(|rest| rest.split("}}").next().unwrap()).collect();
        assert!(!included.is_empty(), "{name} has no program");
        for path in included {
            assert!(directory.join(path).is_file(), "{name}: {path}");
            assert!(
                page.contains(&format!("blob/main/{})", path.trim_start_matches("../"))),
                "{name} has no link to {path}"
            );
        }
    }
}
