//! `forkd compare`: what it finds of servers of which it is known, and that nothing is left of them.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A comparison takes its time, and machines may be busy.
const LONG: Duration = Duration::from_secs(120);

/// As little as shows something, also where others have the processors most of the time.
const QUICK: [&str; 9] =
    ["compare", "--duration", "300ms", "--rounds", "1", "--clients", "4", "--models", ""];

/// A comparison that runs, with a directory of its own for all that it makes.
struct Compare {
    child: Child,
    dir: tempfile::TempDir,
}

struct Found {
    code: Option<i32>,
    stderr: String,
    json: Value,
}

impl Compare {
    #[track_caller]
    fn start(args: &[&str]) -> Self {
        Self::start_as(None, args)
    }

    #[track_caller]
    fn start_as(uid: Option<u32>, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("forkd-").tempdir().unwrap();
        let mut command = forkd_command();
        if let Some(uid) = uid {
            command = Command::new(public_binary(dir.path()));
            without_options(&mut command);
            command.uid(uid).gid(uid);
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(uid)).unwrap();
        }
        command.args(args).arg("--json").arg(dir.path().join("json")).env("TMPDIR", dir.path());
        let stderr = fs::File::create(dir.path().join("stderr")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
        Self { child: command.spawn().unwrap(), dir }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// What is written so far.
    fn json(&self) -> Value {
        serde_json::from_str(&self.read("json")).unwrap_or(Value::Null)
    }

    /// Waits until a first server has had its turn.
    #[track_caller]
    fn has_begun(&self) {
        within(LONG, "a first result", || !self.json()["models"][0]["churn"].is_null());
    }

    /// Waits for its end, after which nothing may be left.
    #[track_caller]
    fn ends(mut self) -> Found {
        let mut status = None;
        within(LONG, "its end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.leaves_nothing();
        Found { code: status.unwrap().code(), stderr: self.read("stderr"), json: self.json() }
    }

    #[track_caller]
    fn leaves_nothing(&self) {
        assert_eq!(self.servers(), Vec::<i32>::new());
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> =
            entries.filter(|name| name.to_str().unwrap().starts_with("forkd-compare")).collect();
        assert!(left.is_empty(), "{left:?}");
        let groups =
            control_groups(Path::new("/sys/fs/cgroup"), &format!("forkd-compare-{}-", self.pid()), 0);
        assert!(groups.is_empty(), "{groups:?}");
    }

    /// The processes that have something of our directory on their command line.
    fn servers(&self) -> Vec<i32> {
        let ours = self.dir.path().to_str().unwrap();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != self.pid() && String::from_utf8_lossy(&line).contains(ours) && is_running(*pid)
        };
        pids.filter(is_ours).collect()
    }
}

impl Drop for Compare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        becomes_true(Duration::from_secs(5), || self.servers().is_empty());
    }
}

fn control_groups(dir: &Path, name: &str, depth: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map_while(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 6 {
            if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(entry.path());
            }
            found.extend(control_groups(&entry.path(), name, depth + 1));
        }
    }
    found
}

/// Compares these models, in all phases that count.
#[track_caller]
fn models(names: &str, more: &[&str]) -> Value {
    let mut args = QUICK.to_vec();
    args[8] = names;
    let phases = ["--phases", "hold,churn,pingpong"];
    let found = Compare::start(&[&args, more, &phases].concat()).ends();
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert_eq!((&found.json["version"], &found.json["interrupted"]), (&1.into(), &false.into()));
    // a line for each, where there is no terminal
    for name in names.split(',') {
        assert!(found.stderr.contains(&format!("round 1 of 1: {name}")), "{}", found.stderr);
    }
    found.json
}

#[track_caller]
fn entry<'a>(json: &'a Value, name: &str) -> &'a Value {
    let mut models = json["models"].as_array().expect("models").iter();
    models.find(|model| model["name"] == name).unwrap_or_else(|| panic!("{name} in {json}"))
}

#[track_caller]
fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name} in {figures}"))
}

/// That it has so many processes and threads without clients and with all of them, and serves so many.
#[track_caller]
fn has(json: &Value, name: &str, idle: [u32; 2], held: [u32; 2], served: f64) {
    let model = entry(json, name);
    assert_eq!(model["failure"], Value::Null, "{model}");
    for (figures, [processes, threads]) in [(&model["idle"], idle), (&model["hold"], held)] {
        assert_eq!(
            (number(figures, "processes"), number(figures, "threads")),
            (f64::from(processes), f64::from(threads)),
            "{name}"
        );
    }
    let hold = &model["hold"];
    assert_eq!((number(hold, "served"), number(hold, "still_served")), (served, served), "{hold}");
    assert_eq!((number(hold, "clients"), number(hold, "errors")), (4.0, 0.0), "{hold}");
    let (churn, pingpong) = (&model["churn"], &model["pingpong"]);
    for (figures, rate, cpu) in
        [(churn, "conn_per_s", "cpu_us_per_conn"), (pingpong, "req_per_s", "cpu_us_per_req")]
    {
        assert!(number(figures, rate) > 0.0 && number(figures, "errors") == 0.0, "{figures}");
        // those that enough operations are beyond
        let names = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
        let percentiles: Vec<f64> = names.iter().filter_map(|name| figures[name].as_f64()).collect();
        assert!(percentiles.is_sorted() && percentiles.iter().all(|it| *it > 0.0), "{figures}");
        assert!(number(figures, "max_us") > 0.0, "{figures}");
        assert!((0.1..1e6).contains(&number(figures, cpu)), "{figures}");
        assert_eq!(figures["rounds"].as_array().unwrap().len(), 1);
        assert!(figures["latency_us"].as_array().unwrap().len() > 10, "{figures}");
    }
    assert_eq!(number(pingpong, "served"), served, "{pingpong}");
    let counts = ["processes", "threads"].map(|name| number(pingpong, name));
    assert_eq!(counts, held.map(f64::from), "{pingpong}");
    assert_eq!((number(churn, "served"), number(churn, "refused")), (4.0, 0.0), "{churn}");
    assert!(number(churn, "peak_processes") >= f64::from(idle[0]), "{churn}");
    assert!(model["timeline"].as_array().unwrap().len() > 1, "{model}");
}

/// How many processes each connection costs, as the server itself has counted.
#[track_caller]
fn forks(json: &Value, name: &str) -> f64 {
    number(&entry(json, name)["churn"], "forks_per_conn")
}

#[test]
fn processes_of_models_that_fork() {
    let json = models("iterative,fork,spare,prefork", &["--workers", "3"]);
    has(&json, "iterative", [2, 2], [2, 2], 1.0);
    has(&json, "fork", [1, 1], [5, 5], 4.0);
    // beside the four clients' up to three wait, and others may just be forked
    let spare = entry(&json, "spare");
    assert_eq!(
        (number(&spare["idle"], "processes"), number(&spare["hold"], "served")),
        (4.0, 4.0),
        "{spare}"
    );
    assert!((5.0..=8.0).contains(&number(&spare["hold"], "processes")), "{spare}");
    has(&json, "prefork", [4, 4], [4, 4], 3.0);
    assert_eq!(["iterative", "fork", "prefork"].map(|name| forks(&json, name)), [0.0, 1.0, 0.0]);
    assert_eq!(entry(&json, "prefork")["workers"], 3);
    assert!(number(&entry(&json, "fork")["churn"], "peak_processes") > 1.0);
    // those that are there for all clients are told from those of a connection
    let memory = |name: &str| number(&entry(&json, name)["hold"], "pss_kib_per_conn");
    assert!(memory("fork") < 4000.0, "{}", memory("fork"));
    assert!(number(&entry(&json, "fork")["idle"], "pss_kib") > 100.0);
    assert!(
        number(&json["calibration"], "conn_per_s") > 0.0 && number(&json["calibration"], "req_per_s") > 0.0
    );
    let warnings = json["warnings"].to_string();
    assert!(warnings.contains("iterative (1 of 4) and prefork ×3 (3 of 4)"), "{warnings}");
}

#[test]
fn threads_of_models_that_do_not() {
    let json = models("thread,prethread,event,coroutine", &["--workers", "3"]);
    has(&json, "thread", [4, 4], [4, 8], 4.0);
    has(&json, "prethread", [2, 5], [2, 5], 3.0);
    has(&json, "event", [4, 4], [4, 4], 4.0);
    has(&json, "coroutine", [4, 4], [4, 4], 4.0);
    assert_eq!(["prethread", "event", "coroutine"].map(|name| forks(&json, name)), [0.0; 3]);
    for name in ["thread", "event", "coroutine"] {
        let spread = number(&entry(&json, name)["hold"], "spread");
        assert!((0.33..=1.0).contains(&spread), "{name}: {spread}");
    }
    assert_eq!(entry(&json, "prethread")["hold"]["spread"], Value::Null);
}

#[test]
fn without_a_control_group_there_are_clocks() {
    if !need_root() {
        return;
    }
    let args = [&QUICK[..7], &["--models", "fork,prefork", "--phases", "hold,churn,pingpong"]].concat();
    let found = Compare::start_as(Some(65534), &args).ends();
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert!(found.json["machine"]["cpu_by"].as_str().unwrap().starts_with("clocks"), "{}", found.json);
    for (name, idle, held) in [("fork", 1.0, 5.0), ("prefork", 9.0, 9.0)] {
        let model = entry(&found.json, name);
        assert_eq!(number(&model["idle"], "processes"), idle);
        assert_eq!((number(&model["hold"], "processes"), number(&model["hold"], "served")), (held, 4.0));
    }
    let churn = &entry(&found.json, "prefork")["churn"];
    assert!((0.1..1e4).contains(&number(churn, "cpu_us_per_conn")), "{churn}");
    assert!(!found.json["warnings"].to_string().contains("of prefork ×8, whose"), "{}", found.json);
}

#[test]
fn a_sweep_has_all_phases_over_either_transport() {
    for transport in ["tcp", "unix"] {
        let args =
            ["compare", "--models", "fork,event", "--clients", "2,1", "--rounds", "2", "--duration", "40ms"];
        let more =
            ["--transport", transport, "--phases", "hold,churn,pingpong,bulk,datagrams", "--size", "100"];
        let found = Compare::start(&[&args[..], &more].concat()).ends();
        assert_eq!(found.code, Some(0), "{}", found.stderr);
        assert_eq!(found.json["settings"]["clients"], serde_json::json!([1, 2]));
        for name in ["fork", "event"] {
            let model = entry(&found.json, name);
            let growth = model["growth"].as_array().unwrap();
            for (growth, clients) in growth.iter().zip([1.0, 2.0]) {
                for phase in ["hold", "churn", "pingpong"] {
                    assert_eq!(number(&growth[phase], "clients"), clients, "{growth}");
                    assert_eq!(growth[phase]["rounds"].as_array().unwrap().len(), 2);
                }
            }
            assert!(
                number(&model["bulk"], "mb_per_s") > 0.0 && number(&model["bulk"], "cpu_us_per_mb") > 0.0
            );
            assert!(number(&model["datagrams"], "datagrams_per_s") > 0.0, "{model}");
            assert_eq!(number(&model["hold"], "clients"), 2.0);
        }
    }
}

#[test]
fn a_server_that_runs_is_watched_and_left_alone() {
    let daemon = Daemon::start("-m fork");
    let (over, pid) = (AtomicBool::new(false), daemon.pid().to_string());
    let (endpoint, mut most) = (daemon.endpoint(0), 0);
    let found = std::thread::scope(|scope| {
        let eyes = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(daemon.children().len());
            }
            most
        });
        let args = ["compare", "--models", "", "--target", &endpoint, "--pid", &pid, "--clients", "6"];
        let found = Compare::start(&[&args[..], &["--phases", "hold", "--rounds", "3"]].concat()).ends();
        over.store(true, Ordering::Relaxed);
        most = eyes.join().unwrap();
        found
    });
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let model = entry(&found.json, &endpoint);
    assert_eq!((number(&model["idle"], "processes"), number(&model["hold"], "served")), (1.0, 6.0));
    // what the test has seen in /proc, and the master
    assert_eq!((number(&model["hold"], "processes"), most), (7.0, 6), "{model}");
    // without its pid there is nothing to be seen of it
    let args = [
        "compare",
        "--models",
        "",
        "--target",
        &endpoint,
        "--clients",
        "2",
        "--phases",
        "churn",
        "--rounds",
        "1",
    ];
    let found = Compare::start(&args).ends();
    let churn = &entry(&found.json, &endpoint)["churn"];
    assert!(number(churn, "conn_per_s") > 0.0, "{churn}");
    for unknown in ["cpu_us_per_conn", "forks_per_conn", "switches_per_conn", "peak_processes"] {
        assert_eq!(churn[unknown], Value::Null, "{churn}");
    }
    daemon.served();
}

/// A server in Python: `serve` has a connection, and the number of those before it.
fn script(dir: &Path, serve: &str) -> Option<String> {
    if !need_tool("python3") {
        return None;
    }
    let path = dir.join("server.py");
    let text = format!(
        "import os, socket, sys, threading\n\
         def serve(c, n):\n  {serve}\n\
         s = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=100)\n\
         n = 0\n\
         while True:\n  c, _ = s.accept()\n  threading.Thread(target=serve, args=(c, n), daemon=True).start()\n  n += 1\n"
    );
    fs::write(&path, text).unwrap();
    Some(format!("mine=python3 {} {{port}}", path.display()))
}

const ECHO: &str = "while (b := c.recv(65536)): c.sendall(b)\n  c.close()";

/// Runs it beside forkd, which has to be measured whatever comes of it; the exit code tells whether it failed.
#[track_caller]
fn against(serve: &str, code: i32) -> Option<Found> {
    let dir = tempfile::tempdir().unwrap();
    let command = script(dir.path(), serve)?;
    let args =
        [&QUICK[..7], &["--models", "event", "--phases", "hold,churn", "--against", &command]].concat();
    let found = Compare::start(&args).ends();
    assert_eq!(found.code, Some(code), "{}", found.stderr);
    assert!(number(&entry(&found.json, "event")["churn"], "conn_per_s") > 0.0);
    Some(found)
}

#[test]
fn any_server_can_be_compared_with() {
    // the machine counts them, without what it had done before, and others may have done a lot then
    let is_counted = (0..5).any(|_| {
        let Some(found) = against(ECHO, 0) else { return true };
        let model = entry(&found.json, "mine");
        assert_eq!(model["failure"], Value::Null, "{model}");
        // a thread for each
        assert_eq!((number(&model["hold"], "processes"), number(&model["hold"], "threads")), (1.0, 5.0));
        assert!(number(&model["churn"], "conn_per_s") > 0.0);
        number(&model["churn"], "forks_per_conn") > 0.7
    });
    assert!(is_counted);
}

#[test]
fn a_server_that_dies_half_way_is_told_and_others_go_on() {
    // five come before churn
    let serve = format!("if n > 8: print('no more', file=sys.stderr, flush=True); os._exit(3)\n  {ECHO}");
    let Some(found) = against(&serve, 69) else { return };
    assert!(found.stderr.contains("error: mine: it has ended with status 3"), "{}", found.stderr);
    let model = entry(&found.json, "mine");
    let why = model["failure"].as_str().unwrap();
    assert!(why.contains("with status 3; its last words: no more") && why.contains("in churn"), "{why}");
    assert_eq!(number(&model["hold"], "served"), 4.0);
}

#[test]
fn a_server_that_answers_something_else_is_told() {
    let Some(found) = against(&ECHO.replace("sendall(b)", "sendall(b[::-1])"), 0) else { return };
    assert!(entry(&found.json, "mine")["faults"]["wrong-bytes"].as_u64() > Some(0), "{}", found.json);
    assert!(found.json["warnings"].to_string().contains("mine sent back something else"), "{}", found.json);
}

#[test]
fn a_server_that_never_listens_is_told_and_ended() {
    let args = [&QUICK[..7], &["--models", "", "--phases", "hold"]].concat();
    for (command, why) in [
        (
            "a=sh -c 'echo no thanks {port} >&2; exit 3'",
            "it has ended with status 3; its last words: no thanks",
        ),
        ("a=/nowhere/program {port}", "cannot start /nowhere/program: No such file"),
        // it heeds no request to end, and leaves a child behind
        ("a=sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000; : {port}'", "was not ready after 10 s"),
    ] {
        let found = Compare::start(&[&args[..], &["--against", command]].concat()).ends();
        assert_eq!(found.code, Some(69), "{}", found.stderr);
        assert!(found.stderr.contains(why), "{command}: {}", found.stderr);
        assert!(found.json["models"][0]["failure"].as_str().unwrap().contains(why), "{}", found.json);
    }
}

const ENDLESS: [&str; 9] =
    ["compare", "--duration", "50ms", "--rounds", "1000", "--clients", "4", "--models", "fork,prefork"];

#[test]
fn an_interrupt_loses_nothing_and_leaves_nothing() {
    for which in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let compare = Compare::start(&ENDLESS);
        compare.has_begun();
        signal(compare.pid(), which);
        let found = compare.ends();
        assert_eq!(found.code, Some(128 + which as i32), "{}", found.stderr);
        assert!(found.stderr.contains(&format!("{} ended it early", which.as_str())), "{}", found.stderr);
        assert_eq!(found.json["interrupted"], true);
        // where others have the processors, none may have come in so short a round
        assert!(number(&found.json["models"][0]["churn"], "conn_per_s") >= 0.0);
    }
}

#[test]
fn what_was_not_measured_is_not_shown() {
    let args = [&QUICK[..], &["--against", "a=sh -c 'sleep 1000; : {port}'"]].concat();
    let compare = Compare::start(&args);
    // its child is there when signals are caught
    let children = format!("/proc/{0}/task/{0}/children", compare.pid());
    eventually("a server", || fs::read_to_string(&children).is_ok_and(|children| !children.is_empty()));
    signal(compare.pid(), Signal::SIGINT);
    let found = compare.ends();
    assert_eq!(found.code, Some(130), "{}", found.stderr);
    assert_eq!(found.stderr, "forkd: error: SIGINT ended it before anything was measured\n");
    assert_eq!(found.json, Value::Null);
}

#[test]
fn what_cannot_be_written_is_shown() {
    let args = [&QUICK[..7], &["--models", "event", "--phases", "hold", "--json", "/dev/full"]].concat();
    let ended = run(&args);
    assert_eq!(ended.code, Some(73), "{}", ended.stderr);
    assert!(ended.stdout.contains("4 of 4"), "{}", ended.stdout);
    assert!(ended.stderr.contains("cannot write /dev/full: No space left on device"), "{}", ended.stderr);
}

#[test]
fn without_a_control_group_no_process_is_left_either() {
    if !need_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (binary, sleep) = (public_binary(dir.path()), dir.path().join("sleep"));
    std::os::unix::fs::symlink("/bin/sleep", &sleep).unwrap();
    let sleep = sleep.to_str().unwrap();
    // one that leaves its session and its parent, and whose child does the same
    let leaver = format!("(setsid sh -c \"(setsid {sleep} 1000 &); exec {sleep} 1001\" &)");
    let server =
        format!("mine=sh -c '{leaver}; exec {} serve -m fork tcp://127.0.0.1:{{port}}'", binary.display());
    let args = [&QUICK[..], &["--phases", "hold", "--against", &server]].concat();
    let found = Compare::start_as(Some(65534), &args).ends();
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    // they are a part of the server
    assert_eq!(number(&entry(&found.json, "mine")["idle"], "processes"), 3.0, "{}", found.json);
    let is_left = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(sleep) && is_running(*pid)
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let left: Vec<i32> = pids.filter(is_left).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_second_interrupt_does_not_wait_for_a_server_that_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(command) = script(dir.path(), ECHO) else { return };
    let stubborn = fs::read_to_string(dir.path().join("server.py")).unwrap();
    let stubborn = format!("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{stubborn}");
    fs::write(dir.path().join("server.py"), stubborn).unwrap();
    let args = [&ENDLESS[..8], &["", "--phases", "churn", "--against", &command]].concat();
    let compare = Compare::start(&args);
    compare.has_begun();
    signal(compare.pid(), Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(100));
    signal(compare.pid(), Signal::SIGINT);
    compare.ends();
}

#[test]
fn no_server_outlives_it() {
    let mut compare = Compare::start(&ENDLESS);
    compare.has_begun();
    eventually("a server", || !compare.servers().is_empty());
    compare.child.kill().unwrap();
    compare.child.wait().unwrap();
    eventually("all have gone", || compare.servers().is_empty());
    // its control group is the next one's to remove
    Compare::start(&[&QUICK[..7], &["--models", "event", "--phases", "hold"]].concat()).ends();
    let name = format!("forkd-compare-{}-", compare.pid());
    assert_eq!(control_groups(Path::new("/sys/fs/cgroup"), &name, 0), Vec::<PathBuf>::new());
}

#[test]
fn others_machines_are_not_loaded() {
    let ended = run(&["compare", "--models", "", "--target", "tcp://192.0.2.1:7"]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("--i-own-this-host"), "{}", ended.stderr);
}

#[test]
fn the_null_server_is_not_for_users() {
    let help = run(&["--help"]);
    assert!(!help.stdout.contains("null"), "{}", help.stdout);
    // it needs sockets, and says so
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkd"));
    let ended = forkd(command.arg("null-server"));
    assert_eq!(ended.code, Some(71), "{}", ended.stderr);
}

/// By script(1), which gives it a terminal.
#[test]
fn on_a_terminal_the_figures_grow_while_it_measures() {
    if !need_tool("script") {
        return;
    }
    let program = env!("CARGO_BIN_EXE_forkd");
    let options = "--models fork,event --rounds 2 --duration 100ms --clients 4 --phases churn,pingpong";
    let mut script = Command::new("script");
    let typed = format!("stty rows 40 cols 120; {program} compare {options}");
    script.args(["-qec", &typed, "/dev/null"]).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    let seen = forkd(&mut script).stdout;
    // what was shown is replaced: the cursor goes up by the table's lines
    let (live, _) = seen.rsplit_once("\r\x1b[4A\x1b[J").unwrap_or_else(|| panic!("{seen}"));
    assert!(live.contains("turn 3 of 4: ") && live.contains(" s left"), "{seen}");
    assert!(live.contains("  model") && live.contains("conn/s  relative"), "{seen}");
    assert!(live.contains("\r\n> fork") || live.contains("\n> event"), "{seen}");
}

/// The highest rate: what is certain of it, also where a machine is busy.
#[test]
fn a_search_has_each_run_and_what_littles_law_says_of_it() {
    // no limit that anything could miss, nor one that anything could keep
    for (slo, is_possible) in [("max=10s", true), ("max=1us", false)] {
        let args =
            "compare --models prefork,event --workers 10 --clients 10 --duration 100ms --stay 20ms --slo";
        let args: Vec<&str> = args.split(' ').chain([slo]).collect();
        let found = Compare::start(&args).ends();
        assert_eq!(found.code, Some(0), "{}", found.stderr);
        let announced = format!(
            "looking for the highest rate that keeps {slo}: at most 30 runs of 100ms for each of 2 servers, 36s in all"
        );
        assert!(found.stderr.contains(&announced), "{}", found.stderr);
        assert_eq!(found.json["settings"]["slo"], serde_json::json!([slo]));
        for (at, name) in ["prefork", "event"].into_iter().enumerate() {
            let (model, sought) = (&found.json["models"][at], &found.json["models"][at]["slo"]);
            assert_eq!(model["name"], name);
            assert_eq!(sought["end"] != "not-at-lowest", is_possible, "{sought}");
            let rates: Vec<f64> =
                sought["trials"].as_array().unwrap().iter().map(|it| it["rate"].as_f64().unwrap()).collect();
            if !is_possible {
                // ten operations in a run are the least
                assert_eq!((rates, sought["rate"].is_null()), (vec![100.0; 2], true), "{sought}");
                continue;
            }
            let (rate, us) = (sought["rate"].as_f64().unwrap(), sought["service_us"].as_f64().unwrap());
            assert!(rates.contains(&rate) && (100.0..=250.0).contains(&rate), "{sought}");
            assert!(us >= 19_900.0, "they stay for 20 ms: {sought}");
            let at_once = sought["at_once"].as_f64().unwrap();
            assert!((at_once - rate * us / 1e6).abs() < 0.1, "Little's law: {sought}");
            let is_pool = name == "prefork";
            let (asked, checks) = (&sought["workers_asked"], sought["checks"].as_array().unwrap());
            assert_eq!(asked.as_f64(), is_pool.then(|| at_once.ceil()), "{sought}");
            assert!(checks.first().is_none_or(|check| check["workers"] == *asked), "{sought}");
            assert_eq!(checks.is_empty(), !is_pool, "{sought}");
        }
    }
}
