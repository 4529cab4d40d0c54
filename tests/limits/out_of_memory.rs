//! Memory that a control group allows no more of: the kernel ends a process, and that is never the master.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A control group whose memory is limited; it is gone when this is dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where there can be none.
    fn limited_to(bytes: u64) -> Option<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("forkd-test-{}-{number}", std::process::id());
        let limits = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let made = limits.into_iter().find_map(|(mount, limit)| {
            let group = Self(PathBuf::from(mount).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), bytes.to_string()).is_ok().then_some(group)
        });
        need(made.is_some(), "this test makes a control group with limited memory");
        made
    }

    /// The words before a command that is to be in it.
    fn enters(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        becomes_true(LIMIT, || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn where_memory_is_short_clients_wait_and_a_child_is_the_one_that_dies() {
    if !need(may_open(4096), "this test opens many connections") {
        return;
    }
    for args in ["--max-children 4096", "--max-children 4096 --chroot {dir}"] {
        let Some(group) = Group::limited_to(24 << 20) else { return };
        let words = group.enters();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let daemon = Forkd::new(args).within(&words).start();
        fills_its_memory(&daemon);
        meets_a_process_that_takes_all(&daemon, &words);
    }
}

/// Clients that find no memory wait, and no process is killed for them.
fn fills_its_memory(daemon: &Daemon) {
    let mut clients = Vec::new();
    eventually("memory is short", || {
        clients.extend((0..20).map(|_| daemon.asks()));
        daemon.count_lines("cannot fork") > 0
    });
    let line = daemon.wait_for_line("cannot fork");
    assert!(line.contains("Cannot allocate memory"), "{line}");
    clients.extend((0..20).map(|_| daemon.asks()));
    assert!(is_silent(&clients[clients.len() - 1], A_WHILE));
    assert_eq!(daemon.deaths(0, "oom"), 0);
    let mut last = clients.split_off(clients.len() - 20);
    // those that have gone make room
    drop(clients);
    last.iter_mut().for_each(is_answered);
    daemon.wait_for_line("fork works again");
    drop(last);
    eventually("all have gone", || daemon.listener(0)["alive"] == 0);
}

/// Another process of the control group takes all memory: children are killed, then that process, and never the master.
fn meets_a_process_that_takes_all(daemon: &Daemon, within: &[&str]) {
    let clients: Vec<Client> = (0..30).map(|_| daemon.served()).collect();
    let mut hog = std::process::Command::new(within[0]);
    hog.args(&within[1..]).args(["tail", "/dev/zero"]).stdout(std::process::Stdio::null());
    assert!(!hog.status().unwrap().success());
    eventually("children were killed", || daemon.deaths(0, "oom") >= 20);
    assert!(daemon.ended().is_none());
    let line = daemon.wait_for_line(" cause=oom ");
    for part in ["child was killed: out of memory", "peer=127.0.0.1:", "age=", "bytes_in=", "bytes_out="] {
        assert!(line.contains(part), "{part} in {line}");
    }
    drop(clients);
    eventually("all have gone", || daemon.listener(0)["alive"] == 0);
    assert!(daemon.count_lines(" cause=oom ") < 20, "the lines are limited");
    assert_eq!(daemon.deaths(0, "SIGKILL"), 0, "{:?}", daemon.listener(0));
    echoes(&mut daemon.served(), b"and the service is there");
}

#[test]
fn a_worker_that_accepts_by_itself_and_fills_the_memory_is_replaced() {
    let Some(group) = Group::limited_to(64 << 20) else { return };
    let words = group.enters();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // the first one is as large as it may be, the next ones wait
    let script = "#!/bin/sh\nif mkdir {dir}/first; then exec tail /dev/zero; fi\nexec sleep 1000\n";
    let forkd =
        Forkd::new("-w 1 tcp://127.0.0.1:0 --worker-exec sh {dir}/worker").with_file("worker", script);
    let daemon = forkd.within(&words).launch();
    let line = daemon.wait_for_line("worker was killed: out of memory worker=0 pid=");
    assert!(line.contains(" cause=oom "), "{line}");
    daemon.wait_for_line("ready pid=");
    assert_eq!((daemon.deaths(0, "oom"), &daemon.listener(0)["restarts"]), (1, &1.into()));
}

#[test]
fn a_killed_child_is_said_to_be_killed_where_memory_is_not_short() {
    for args in ["", "-m prefork -w 1"] {
        let Some(group) = Group::limited_to(1 << 30) else { return };
        let words = group.enters();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let daemon = Forkd::new(args).within(&words).start();
        let client = daemon.served();
        signal(daemon.server_of(&client), Signal::SIGKILL);
        eventually("the death is counted", || daemon.deaths(0, "SIGKILL") == 1);
        assert_eq!(daemon.deaths(0, "oom"), 0);
    }
}

/// `oom_score_adj` of a process.
fn score(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    // a second read, which looks for the end of the file, finds the rest of a longer number if it was raised meanwhile
    text.lines().next().unwrap().parse().unwrap()
}

#[test]
fn the_kernel_would_rather_take_a_child_than_the_master() {
    let exec = "tcp://127.0.0.1:0 --exec cat";
    for args in ["-m prefork -w 2", "-m event -w 1", "-m thread -w 1", "-m coroutine -w 1", exec] {
        let daemon = Daemon::start(args);
        let client = daemon.served();
        let child = daemon.server_of(&client);
        assert!(score(child) > score(daemon.pid()), "{args}");
        if args == exec {
            let programs = common::children_of(child);
            assert!(programs.iter().all(|&pid| score(pid) > score(daemon.pid())), "{programs:?}");
        }
    }
}

#[test]
fn the_kernel_would_rather_take_a_child_of_a_connection_too() {
    let as_root = ["--user nobody", "--chroot {dir}", "--user nobody --chroot {dir}"];
    let all = [""].into_iter().chain(as_root.into_iter().filter(|_| need_root()));
    for (args, count) in all.flat_map(|args| [(args, 1), (args, 80)]) {
        let daemon = Daemon::start(&format!("--max-children 100 {args}"));
        let clients: Vec<Client> = (0..count).map(|_| daemon.served()).collect();
        let children: Vec<i32> = clients.iter().map(|client| daemon.server_of(client)).collect();
        let own = score(daemon.pid());
        let is_raised = || children.iter().all(|&child| score(child) > own);
        eventually(&format!("all {count} are raised {args}"), is_raised);
    }
}

#[test]
fn a_process_that_has_changed_its_user_is_as_expendable_and_still_not_dumpable() {
    if !need_root() {
        return;
    }
    for args in ["--user nobody -m prefork -w 2", "--user nobody -m prefork -w 2 --chroot {dir}"] {
        let daemon = Daemon::start(args);
        let client = daemon.served();
        let child = daemon.server_of(&client);
        assert!(score(child) > score(daemon.pid()), "{args}");
        for pid in [daemon.pid(), child] {
            // the files of a process that is not dumpable are root's
            let file = fs::metadata(format!("/proc/{pid}/oom_score_adj")).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), 0);
            assert_ne!(proc_status(pid, "Uid").split_whitespace().next(), Some("0"));
        }
    }
}
