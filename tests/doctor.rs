//! `forkd doctor` finds limits that are really too low, and the commands that it prints mend them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;

/// Runs a shell script in which `$0` is forkd.
#[track_caller]
fn shell(script: &str) -> Ended {
    let forkd = forkd_command();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(forkd.get_program()).env("TERM", "dumb");
    without_options(&mut command);
    common::forkd(&mut command)
}

/// The script that asks, does as it is told about this limit, and asks again: the exit codes are 1 and 0.
fn mend(limit: &str, question: &str) -> String {
    // `forkd serve …` is no command to run here
    format!(
        r#""$0" doctor {question}; echo "first: $?"
        now=$("$0" doctor {question} | sed -n '/{limit}/,/now: /s/^ *now: //p' | head -n 1)
        echo "command: $now"; eval "$now"
        "$0" doctor {question} >/dev/null; echo "second: $?""#
    )
}

#[track_caller]
fn assert_mended(ended: &Ended, limit: &str, command: &str) {
    let line = |text: &str| ended.stdout.lines().any(|line| line.starts_with(text));
    assert!(line(&format!("LIMITS   {limit}")), "{limit}: {ended:?}");
    assert!(line("first: 1") && line(&format!("command: {command}")), "{limit}: {ended:?}");
    assert!(line("second: 0"), "{limit}: {ended:?}");
}

#[test]
fn without_a_question_it_says_what_the_machine_allows() {
    let ended = forkd(forkd_command().arg("doctor"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("; asked: nothing in particular (model fork)\n"), "{ended:?}");

    let ended = forkd(forkd_command().args(["doctor", "--json", "--connections", "1"]));
    let diagnosis: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let queue = findings.iter().find(|finding| finding["limit"] == "net.core.somaxconn").unwrap();
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    assert_eq!(queue["value"].as_str().unwrap().replace(',', ""), somaxconn.trim());
    let limiting = findings.iter().filter(|finding| finding["verdict"] == "limits").count();
    assert_eq!(ended.code, Some((limiting > 0).into()), "{ended:?}");
    assert_eq!(diagnosis["limiting"], limiting);
}

#[test]
fn a_mistake_in_the_configuration_is_told_as_by_check() {
    let ended = forkd(forkd_command().args(["doctor", "--config", "/nonexistent.toml"]));
    assert_eq!(ended.code, Some(78), "{ended:?}");
}

#[test]
fn too_few_open_files_are_found_and_mended() {
    let script = mend("open files", "--model thread --connections 1000 tcp://127.0.0.1:7");
    let ended = shell(&format!("ulimit -Sn 256\n{script}"));
    assert_mended(&ended, "open files (ulimit -n)", "ulimit -n 1270");
}

#[test]
fn a_short_queue_is_found_and_mended_as_the_daemon_warns() {
    if !need_root() || !need_tool("unshare") || !need_tool("sysctl") {
        return;
    }
    // a network of its own
    let lower = "echo 16 >/proc/sys/net/core/somaxconn";
    let script = format!(
        "unshare -n sh -ec '{lower}; \"$0\" check tcp://127.0.0.1:7 --backlog 500' \"$0\"\n\
         unshare -n sh -c \"$1\" \"$0\""
    );
    let question = "--backlog 500 tcp://127.0.0.1:7";
    let inner = format!("{lower}\n{}", mend("net.core.somaxconn", question));
    let forkd = forkd_command();
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(forkd.get_program()).arg(inner);
    without_options(&mut command);
    let ended = common::forkd(&mut command);
    assert_mended(&ended, "net.core.somaxconn", "sysctl -w net.core.somaxconn=\"500\"");
    let said = "16 connections wait at most until forkd accepts them; --backlog asks for 500.";
    assert!(ended.stdout.contains(&format!("# net.core.somaxconn is 16: {said}")), "{ended:?}");

    let within = ["unshare", "-n", "sh", "-c", &format!("ip link set lo up; {lower}; exec \"$0\" \"$@\"")];
    let daemon = Forkd::new("tcp://127.0.0.1:0 --backlog 500").within(&within).start();
    daemon.wait_for_line("backlog is capped by the kernel (net.core.somaxconn) asked=500 cap=16");
}

/// A control group of this test's own, which is gone at its end.
struct Group(PathBuf);

impl Group {
    /// `None` where there is none to be had.
    fn new() -> Option<Self> {
        let name = format!("forkd-doctor-{}", std::process::id());
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let directory = roots.iter().find(|root| root.join("cgroup.procs").exists())?.join(name);
        fs::create_dir(&directory).ok()?;
        let group = Self(directory);
        fs::write(group.0.join("pids.max"), "30").ok().map(|()| group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually("the group is empty", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn a_narrow_control_group_is_found_and_mended() {
    if !need_root() {
        return;
    }
    let group = Group::new();
    if !need(group.is_some(), "this machine gives us no control group that limits processes") {
        return;
    }
    let group = group.unwrap();
    let file = group.0.join("pids.max");
    let enter = format!("echo $$ >{}/cgroup.procs", group.0.display());
    let ended = shell(&format!("{enter}\n{}", mend("pids.max", "--connections 500 tcp://127.0.0.1:7")));
    // as many as are asked for, and those that ask
    assert_mended(&ended, "pids.max", "echo 57");
    assert!(ended.stdout.contains(&format!("> {}\n", file.display())), "{ended:?}");
    let now: u32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!((501..600).contains(&now), "{now}");
}

#[test]
fn a_filter_for_system_calls_is_seen_and_what_forkd_does_instead() {
    let mut forbidden = forkd_command();
    forbid(forbidden.args(["doctor", "--json"]), libc::SYS_clone3, libc::EPERM);
    let ended = forkd(&mut forbidden);
    let diagnosis: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let calls = findings.iter().find(|finding| finding["limit"] == "system calls").unwrap();
    assert_eq!((&calls["verdict"], &calls["value"]), (&"tight".into(), &"without clone3".into()));
    assert!(calls["meaning"].as_str().unwrap().contains("forkd forks by fork(2)"), "{calls}");
    assert_eq!(ended.code, Some(0));
}
