//! Signals that come before the daemon is ready, while it waits for the name service.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use super::common::*;

/// Says which process asked it, answers once there is a file `go`, and ends with that process.
const GETENT: &str = "#!/bin/sh
grep '^Sig...:' /proc/self/status > {dir}/masks
echo $PPID > {dir}/asked.new
mv {dir}/asked.new {dir}/asked
until [ -e {dir}/go ]; do
    kill -0 $PPID 2>/dev/null || exit 3
    sleep 0.01
done
echo '127.0.0.1 STREAM slow'
";

/// With a name service that keeps it waiting.
fn slow(args: &str) -> Forkd {
    let forkd = Forkd::new(args);
    let bin = forkd.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let getent = bin.join("getent");
    fs::write(&getent, GETENT.replace("{dir}", forkd.dir.path().to_str().unwrap())).unwrap();
    fs::set_permissions(&getent, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    forkd.env("PATH", &path)
}

/// The process that waits for the name service.
#[track_caller]
fn asks(daemon: &Daemon) -> i32 {
    let asked = daemon.path("asked");
    eventually("the name service is asked", || asked.exists());
    fs::read_to_string(asked).unwrap().trim().parse().unwrap()
}

/// Nothing but what [`slow`] has made, and its script.
#[track_caller]
fn left_no_file(daemon: &Daemon) {
    let entries = fs::read_dir(daemon.dir.path()).unwrap().map_while(Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["asked", "bin", "masks"]);
}

/// Of lines of /proc/PID/status: no signal is blocked, and none ignored.
#[track_caller]
pub(super) fn expects_nothing(masks: &str) {
    for field in ["SigBlk", "SigIgn"] {
        assert!(masks.contains(&format!("{field}:\t0000000000000000\n")), "{masks}");
    }
}

const STOPS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// With everything that a start may leave behind.
const FILES: &str = "--pidfile {dir}/pid --metrics unix://{dir}/metrics unix://{dir}/s";

both_ways! {
    fn what_comes_before_it_is_ready_is_obeyed_then(way: Way) {
        let daemon = slow("-m prefork -w 2 --log-level debug tcp://slow:0").way(way).launch();
        let pid = asks(&daemon);
        assert_eq!(pid, daemon.pid());
        // once getent is started, all but those of crashes
        eventually("signals are blocked", || proc_status(pid, "SigBlk") == "fffffffe3ffbfa07");
        use Signal::*;
        for which in [SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTSTP, SIGALRM, SIGXCPU, SIGPWR, SIGIO, SIGVTALRM] {
            daemon.signal(which);
        }
        fs::write(daemon.path("go"), "").unwrap();
        daemon.wait_for_line("ready pid=");
        // of an upgrade there is one, whether it can be had or not
        for line in ["status of", "upgrad", "configuration"] {
            daemon.wait_for_line(line);
        }
        short_connection(daemon.addr(), b"x").unwrap();
        expects_nothing(&fs::read_to_string(daemon.path("masks")).unwrap());
        daemon.signal(SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
    }

    fn a_stop_before_it_is_ready_ends_it_soon_and_leaves_no_file(way: Way) {
        for (stop, more) in STOPS.into_iter().zip(["tcp://slow:0", "tcp://slow:0", "--user slow"]) {
            let daemon = slow(&format!("{FILES} {more}")).way(way).launch();
            asks(&daemon);
            daemon.signal(stop);
            // and the name service never answers
            assert_eq!(daemon.wait().code(), Some(0));
            daemon.wait_for_line(&format!("forkd: stopped before it was ready signal={stop}"));
            assert_eq!(daemon.count_lines("listening on") + daemon.count_lines("ready pid="), 0);
            left_no_file(&daemon);
        }
    }

    fn a_stop_before_it_is_ready_is_told_to_the_process_that_waits_for_the_daemon(way: Way) {
        for stop in STOPS {
            for to_invoker in [false, true] {
                let invoker = slow(&format!("--daemon {FILES} tcp://slow:0")).way(way).launch();
                let pid = asks(&invoker);
                assert_ne!(pid, invoker.pid());
                signal(if to_invoker { invoker.pid() } else { pid }, stop);
                assert_eq!(invoker.wait().code(), Some(128 + stop as i32), "{:?}", invoker.log());
                invoker.wait_for_line(&format!("error: {stop} ended the daemon before it was ready"));
                eventually("the daemon ends", || !is_running(pid));
                left_no_file(&invoker);
            }
        }
    }
}

/// Where the default action of a signal is nothing: pid_namespaces(7).
#[test]
fn a_stop_of_process_1_before_it_is_ready_is_not_lost() {
    let own_namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !need_root() || !need_tool("unshare") {
        return;
    }
    let works = std::process::Command::new(own_namespace[0]).args(&own_namespace[1..]).arg("true").status();
    if !need(works.is_ok_and(|status| status.success()), "no process namespace can be had here") {
        return;
    }
    let unshare = slow(&format!("{FILES} tcp://slow:0")).within(&own_namespace).launch();
    assert_eq!(asks(&unshare), 1);
    signal(unshare.children()[0], Signal::SIGTERM);
    assert_eq!(unshare.wait().code(), Some(0));
    left_no_file(&unshare);
}
