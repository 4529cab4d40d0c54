//! A pool of programs is changed for another: by a reload, by an upgrade of forkd, and by hand. `FORKD_LONG=1` has this happen
//! a hundred and ten times under load, and not ten and three times.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::*;

#[test]
fn a_broken_program_is_taken_back_and_the_old_workers_serve_on() {
    if !need_tool("python3") {
        return;
    }
    let daemon = echo("-w 2").start();
    let before = has_workers(&daemon, 2);
    let mut held = daemon.served();
    becomes(
        &daemon,
        "import sys\nprint('preparing')\nsys.exit('ModuleNotFoundError: no module named app')\n",
    );
    let ended = reload(&daemon);
    assert_eq!(ended.code, Some(70), "{}", ended.stderr);
    for part in [
        "reload failed, the old configuration stays in force",
        "preparing | ModuleNotFoundError: no module named app",
    ] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(workers(&daemon), before);
    echoes(&mut held, b"still there");
    echoes(&mut daemon.connect(), b"and for others");
    // the next one is better
    becomes(&daemon, ECHO);
    reloads(&daemon);
    drop(held);
    eventually("all are new", || workers(&daemon).iter().filter(|pid| !before.contains(pid)).count() == 2);
    echoes(&mut daemon.connect(), b"hello");
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn one_that_hangs_in_its_start_is_taken_back_too() {
    if !need_tool("systemd-notify") {
        return;
    }
    let options = "-w 2 --ready-after notify --start-timeout 500ms";
    let daemon = script(options, "systemd-notify --no-block --ready; exec sleep 1000").start();
    let before = has_workers(&daemon, 2);
    becomes(&daemon, "echo thinking; exec sleep 1000");
    let ended = reload(&daemon);
    assert!(ended.code == Some(70) && ended.stderr.contains("thinking"), "{ended:?}");
    assert_eq!(workers(&daemon), before);
    assert_eq!(stops(&daemon), Some(0));
}

/// What the workers of [`ECHO`] have told, with the generation of each.
fn steps(daemon: &Daemon) -> Vec<(String, u32)> {
    let step = |line: String| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    told(&daemon.path("told")).into_iter().filter_map(step).collect()
}

#[test]
fn new_workers_are_ready_before_as_many_old_ones_are_told_to_leave() {
    if !need_tool("python3") {
        return;
    }
    for (rolling, workers) in [(1, 3), (2, 3), (8, 2)] {
        let daemon = echo(&format!("-w {workers} --rolling {rolling}")).start();
        reloads(&daemon);
        eventually("the old ones have left", || {
            steps(&daemon).iter().filter(|(what, _)| what == "term").count() == workers
        });
        let (mut starting, mut up) = (0, 0);
        for (at, (what, generation)) in steps(&daemon).iter().enumerate() {
            match what.as_str() {
                "start" => starting += 1,
                "ready" => (starting, up) = (starting - 1, up + 1),
                _ => up -= 1,
            }
            assert_eq!(*generation == 1, what == "term" || at < 2 * workers, "{:?}", steps(&daemon));
            if *generation == 2 || what == "term" {
                assert!(up >= workers && starting <= rolling, "{rolling}: {:?}", steps(&daemon));
            }
        }
        assert_eq!(stops(&daemon), Some(0));
    }
}

#[test]
fn a_generation_that_is_taken_back_serves_until_the_last_one_is_up_again() {
    if !need_tool("python3") {
        return;
    }
    let config = "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nworkers = 2\nready-after = 'notify'\n\
                  worker-exec = ['python3', '{dir}/worker', '{dir}/told']\n\
                  [[listen]]\nendpoints = ['unix://{dir}/b.sock']\nworkers = 1\nready-after = '300ms'\n\
                  worker-exec = ['sh', '{dir}/b']\n";
    let forkd = Forkd::new("--config {dir}/forkd.toml").with_file("forkd.toml", config);
    let daemon = forkd.with_file("worker", ECHO).with_file("b", "exec sleep 1000").start();
    fs::write(daemon.path("next"), "echo no b; exit 3").unwrap();
    fs::rename(daemon.path("next"), daemon.path("b")).unwrap();
    let ended = reload(&daemon);
    assert!(ended.code != Some(0) && ended.stderr.contains("no b"), "{ended:?}");
    let count = |what: &str, generation: u32| {
        steps(&daemon).iter().filter(|(its, of)| its == what && *of == generation).count()
    };
    eventually("the workers of the new generation have left", || count("term", 2) == 2);
    assert_eq!((count("ready", 1), count("term", 1)), (4, 2), "{:?}", steps(&daemon));
    let mut up = 0;
    for (at, (what, _)) in steps(&daemon).iter().enumerate() {
        match what.as_str() {
            "ready" => up += 1,
            "term" => up -= 1,
            _ => {}
        }
        assert!(up >= 2 || at < 4, "{at}: {:?}", steps(&daemon));
    }
    echoes(&mut daemon.connect(), b"hello");
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn they_leave_by_the_signal_that_they_expect() {
    let text = "trap 'echo left by QUIT; exit 0' QUIT; trap 'echo TERM' TERM; while :; do sleep 0.05; done";
    let daemon = script("-w 2 --stop-signal QUIT", text).start();
    has_workers(&daemon, 2);
    reloads(&daemon);
    daemon.wait_for_lines(2, "left by QUIT");
    assert_eq!(stops(&daemon), Some(0));
    assert_eq!((daemon.count_lines("left by QUIT"), daemon.count_lines(" TERM")), (4, 0));
}

#[test]
fn to_leave_by_the_signal_itself_is_no_failure() {
    for text in ["exec sleep 1000", "trap 'exit 143' TERM; sleep 1000 & wait"] {
        let daemon = script("-w 2", text).start();
        has_workers(&daemon, 2);
        reloads(&daemon);
        eventually("the old ones have left", || daemon.deaths(0, "retired") == 2);
        assert_eq!(daemon.count_lines("warning") + daemon.count_lines("error"), 0, "{:#?}", daemon.log());
        assert_eq!(stops(&daemon), Some(0));
    }
}

#[test]
fn there_are_pools_of_programs_without_what_only_linux_has() {
    if !need_tool("python3") {
        return;
    }
    let daemon = echo("-w 2").portable(true).start();
    let before = has_workers(&daemon, 2);
    echoes(&mut daemon.connect(), b"hello");
    signal(before[0], Signal::SIGSEGV);
    daemon.wait_for_line("worker failed");
    eventually("another takes its place", || {
        !workers(&daemon).contains(&before[0]) && workers(&daemon).len() == 2
    });
    reloads(&daemon);
    eventually("the others have left", || daemon.deaths(0, "retired") == 2);
    echoes(&mut daemon.connect(), b"hello");
    assert_eq!(daemon.count_lines("worker failed"), 1, "{:#?}", daemon.log());
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn the_number_of_workers_and_the_command_may_change() {
    let config = |workers: u32, word: &str| {
        format!(
            "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nworkers = {workers}\nready-after = '1ms'\n\
             worker-exec = ['sh', '-c', 'echo $0; exec sleep 1000', '{word}']\n"
        )
    };
    let daemon = Forkd::new("--config {dir}/forkd.toml").with_file("forkd.toml", &config(2, "one")).start();
    has_workers(&daemon, 2);
    for (count, word) in [(4, "two"), (1, "three")] {
        fs::write(daemon.path("forkd.toml"), config(count, word)).unwrap();
        reloads(&daemon);
        daemon.wait_for_lines(count as usize, word);
        has_workers(&daemon, count as usize);
    }
    daemon.signal(Signal::SIGTTIN);
    has_workers(&daemon, 2);
    daemon.signal(Signal::SIGTTOU);
    has_workers(&daemon, 1);
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn a_worker_is_heard_after_an_upgrade_of_forkd() {
    if !need_tool("systemd-notify") {
        return;
    }
    // it prints and says that it leaves when it is told to
    let text = "trap 'echo a last line of $FORKD_GENERATION; systemd-notify --no-block STOPPING=1 && echo was heard; exit 0' TERM\n\
                while :; do sleep 0.05; done";
    let daemon = script("-w 2", text).start();
    let before = has_workers(&daemon, 2);
    let socket = variable(before[0], "NOTIFY_SOCKET").unwrap();
    let mut command = forkd_command();
    let ended = forkd(command.arg("upgrade").arg("--control").arg(daemon.control()));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{:#?}", daemon.log());
    daemon.wait_for_lines(2, "a last line of 1");
    daemon.wait_for_lines(2, "was heard");
    eventually("all are new", || workers(&daemon).iter().filter(|pid| !before.contains(pid)).count() == 2);
    let directory = Path::new(&socket).parent().unwrap();
    eventually("their sockets are gone", || fs::read_dir(directory).unwrap().count() == 2);
    assert_eq!(stops(&daemon), Some(0));
    assert!(!directory.exists());
}

/// Changes the daemon by these commands while each transport is offered load; nothing may be lost.
#[track_caller]
fn loses_nothing(daemon: &Daemon, script: &str) {
    let path = daemon.path("script");
    let (program, control) = (env!("CARGO_BIN_EXE_forkd"), daemon.control().display());
    fs::write(&path, format!("set -e\nforkd={program}\nexport FORKD_CONTROL={control}\n{script}\n")).unwrap();
    for endpoint in daemon.endpoints() {
        let mut command = forkd_command();
        command.args(["load", "-z", "200ms", "-c", "16", "--rate", "100", "--json", "-", "--during"]);
        command.arg(format!("sh {}", path.display())).arg(&endpoint);
        let ended = forkd_within(&mut command, LIMIT * 60);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        assert_eq!(report["during"]["exit_code"], 0, "{report}\n{}", ended.stderr);
        let losses = report["during"]["losses"].as_array().expect("losses");
        assert!(
            losses.is_empty(),
            "{endpoint}: {} lost: {:?}\n{:#?}",
            losses.len(),
            losses.first(),
            daemon.log()
        );
    }
}

#[test]
fn nothing_is_lost_by_reloads_and_upgrades() {
    if !need_tool("python3") {
        return;
    }
    let is_long = std::env::var_os("FORKD_LONG").is_some_and(|value| value == "1");
    let (reloads, upgrades) = if is_long { (100, 10) } else { (10, 3) };
    let daemon = echo("-w 2 tcp://127.0.0.1:0 unix://{dir}/s udp://127.0.0.1:0").start();
    loses_nothing(&daemon, &format!("for i in $(seq {reloads}); do $forkd reload; done"));
    loses_nothing(&daemon, &format!("for i in $(seq {upgrades}); do $forkd upgrade; done"));
    let generations = steps(&daemon).iter().map(|(_, generation)| *generation).max().unwrap();
    assert!(generations as usize > 3 * reloads, "{generations}");
    assert_eq!(stops(&daemon), Some(0));
}
