//! Each experiment of `forkd lab` is carried out, and this machine does what the book says; a student can make a
//! prediction, at a terminal and without one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use forkd_compare::report::picture::Picture;
use forkd_lab::{Claim, LABS, Outcome, Verdict};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How long an experiment may take beside all other tests.
const LONGEST: Duration = Duration::from_secs(120);

/// Carries out an experiment. What depends on times may differ once on a machine that other tests load.
#[track_caller]
fn agrees(name: &str) {
    let mut last = None;
    for _ in 0..3 {
        let ended = forkd_within(forkd_command().args(["lab", name, "--json"]), LONGEST);
        let result: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        assert_eq!(result["lab"], name);
        let claims = result["claims"].as_array().unwrap();
        assert!(!claims.is_empty() && result["picture"]["groups"][0]["bars"][0]["value"].is_number());
        let holds = claims.iter().all(|claim| claim["holds"] == true);
        let is_unknown = result["agrees"].is_null();
        let code = if holds {
            0
        } else if is_unknown {
            69
        } else {
            1
        };
        assert_eq!((result["agrees"] == true, ended.code), (holds, Some(code)), "{ended:?}");
        if holds {
            return;
        }
        last = Some(result);
    }
    panic!("{:#}", last.unwrap());
}

macro_rules! experiments {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { agrees($name); })*

        #[test]
        fn each_experiment_has_a_test() {
            assert_eq!(LABS.iter().map(|lab| lab.name).collect::<Vec<_>>(), [$($name),*]);
        }
    };
}

experiments! {
    zombie "zombie"
    slow_client "slow-client"
    crash "crash"
    copy_on_write "copy-on-write"
    fork_fat_parent "fork-fat-parent"
    backlog "backlog"
    thundering_herd "thundering-herd"
    lifo "lifo"
    stevens "stevens"
    c10k "c10k"
    udp_loop "loop"
}

#[test]
fn each_has_a_page_with_its_question_and_picture() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/teach/labs");
    let index = fs::read_to_string(directory.join("README.md")).unwrap();
    for lab in LABS {
        assert!(index.contains(&format!("| [{0}]({0}.md) | {1} |", lab.name, lab.title)), "{}", lab.name);
        let page = fs::read_to_string(directory.join(format!("{}.md", lab.name))).unwrap();
        let choices =
            lab.choices.iter().enumerate().map(|(number, choice)| format!("{}. {choice}", number + 1));
        let parts = [format!("# {}: {}\n", lab.name, lab.title), format!("**{}**", lab.question)];
        for part in parts.into_iter().chain(choices) {
            assert!(page.contains(&part), "{part:?} is not in the page of {}", lab.name);
        }
        for end in ["", "-dark"] {
            let picture = format!("{}{end}.svg", lab.name);
            assert!(page.contains(&format!("\"{picture}\"")), "{picture}");
            assert!(fs::read_to_string(directory.join(picture)).unwrap().starts_with("<svg "));
        }
    }
}

#[test]
fn they_are_listed_and_a_wrong_name_is_refused() {
    let listed = run(&["lab"]);
    assert_eq!((listed.code, listed.stderr.as_str()), (Some(0), ""));
    for lab in LABS {
        assert!(listed.stdout.contains(&format!("  {} ", lab.name)) && listed.stdout.contains(lab.title));
    }
    let unknown = run(&["lab", "zombies"]);
    assert_eq!(unknown.code, Some(64));
    assert!(
        unknown.stderr.contains("there is no experiment \"zombies\": take one of zombie, "),
        "{unknown:?}"
    );
    let beyond = run(&["lab", "zombie", "--predict", "4"]);
    assert_eq!((beyond.code, beyond.stdout.as_str()), (Some(64), ""));
    assert!(beyond.stderr.contains("the numbers 1 to 3"), "{beyond:?}");
}

#[test]
fn a_prediction_is_compared_and_a_picture_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("a/b");
    let ended = run(&["lab", "zombie", "--predict", "3", "--svg", pictures.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.contains("\nYou predicted 3. The answer is 2, 19: "), "{}", ended.stdout);
    let lines = ended.stdout.lines();
    assert!(lines.clone().all(|line| line.chars().count() <= 80), "{}", ended.stdout);
    let order =
        ["How many zombies", "  1  none", "20 of 20 children", "  agrees ", "You predicted", "Why", "Go on"];
    let at = order.map(|part| ended.stdout.find(part).unwrap_or_else(|| panic!("{part}: {}", ended.stdout)));
    assert!(at.is_sorted(), "{}", ended.stdout);
    let kept =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/teach/labs/zombie.svg")).unwrap();
    let [light, dark] = ["zombie.svg", "zombie-dark.svg"].map(|name| {
        let text = fs::read_to_string(pictures.join(name)).unwrap();
        assert!(
            roxmltree::Document::parse(&text).is_ok_and(|svg| svg.root_element().tag_name().name() == "svg")
        );
        text
    });
    assert_ne!(light, dark);
    assert_eq!(light, kept, "docs/teach/labs/run draws it anew");
}

#[test]
fn a_picture_that_cannot_be_written_does_not_cost_the_result() {
    let ended = run(&["lab", "zombie", "--svg", "/dev/null/pictures"]);
    assert_eq!(ended.code, Some(71), "{ended:?}");
    assert!(ended.stdout.contains("\nGo on\n"), "{}", ended.stdout);
    assert!(ended.stderr.contains("cannot write /dev/null/pictures: "), "{}", ended.stderr);
}

#[test]
fn at_a_terminal_it_asks_first() {
    let terminal = Pty::open(80, 24);
    let mut command = forkd_command();
    let mut lab = terminal.start(command.args(["lab", "zombie"]));
    terminal.shows("Your prediction (1 to 3, or Enter for none): ");
    assert!(
        !terminal.seen().contains("zombies\r\n"),
        "nothing is told before the answer: {}",
        terminal.seen()
    );
    terminal.types(b"7\n");
    terminal.shows("7\r\nType one of the numbers, and press Enter.\r\nYour prediction");
    terminal.types(b"2\n");
    terminal.shows("You predicted it: 2, 19");
    terminal.shows("Go on");
    assert_eq!(lab.wait().unwrap().code(), Some(0));
}

/// Processes with this directory for temporary files, those of a lab among them.
fn using(dir: &Path) -> Vec<i32> {
    let mark = format!("TMPDIR={}", dir.display());
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let uses = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    pids.filter(uses).collect()
}

/// Ends an experiment by a signal when it has begun, and looks what is left.
#[track_caller]
fn leaves_nothing(name: &str, which: Signal) {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = forkd_command();
    lab.args(["lab", name]).env("TMPDIR", dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut lab = lab.stderr(Stdio::piped()).spawn().unwrap();
    let pid = lab.id() as i32;
    // it has children, or says what it does
    let mut lines = BufReader::new(lab.stdout.take().unwrap()).lines().map_while(Result::ok);
    match name {
        "backlog" => assert!(lines.any(|line| line.contains("the server has accepted none"))),
        _ => eventually("it has begun", || !children_of(pid).is_empty() || !is_running(pid)),
    }
    signal(pid, which);
    std::thread::spawn(move || lines.for_each(drop));
    let began = Instant::now();
    let ended = lab.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let code = ended.status.code();
    // one that lasts for less may have come to its end
    let is_long = ["slow-client", "stevens", "c10k"].contains(&name);
    match code {
        Some(0) if !is_long => {}
        _ => {
            assert_eq!(code, Some(128 + which as i32), "{name}: {said}");
            assert!(said.contains(&format!("{which} ended it before there was a result")), "{said}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
    eventually("its processes have gone", || using(dir.path()).is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{name}");
}

#[test]
fn nothing_is_left_of_one_that_a_signal_ends() {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    for (lab, which) in LABS.iter().zip(signals.into_iter().cycle()) {
        leaves_nothing(lab.name, which);
    }
}

#[test]
fn ctrl_c_ends_it_at_a_terminal() {
    // a signal comes from the terminal of one's session only
    if !need_tool("setsid") {
        return;
    }
    let terminal = Pty::open(80, 24);
    let mut command = Command::new("setsid");
    without_options(command.args(["--ctty", "--wait"]).arg(forkd_command().get_program()));
    let before = terminal.modes();
    let mut lab = terminal.start(command.args(["lab", "slow-client", "--predict", "2"]));
    terminal.shows("iterative does not answer");
    terminal.types(b"\x03");
    assert_eq!(lab.wait().unwrap().code(), Some(130), "{}", terminal.seen());
    assert_eq!(terminal.modes(), before);
}

/// Carries an experiment out by a script, which has the program as $0: it can't be, and says why.
#[track_caller]
fn is_impossible(script: &str, name: &str, reasons: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let program = public_binary(dir.path());
    let mut command = Command::new("sh");
    without_options(&mut command);
    let ended = forkd_within(
        command.args(["-c", &format!("{script} \"$0\" lab {name} --json")]).arg(program),
        LONGEST,
    );
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""), "{name}: {ended:?}");
    let says = format!("{name} can't be carried out here: ");
    assert!([says.as_str()].iter().chain(reasons).all(|part| ended.stderr.contains(part)), "{ended:?}");
}

#[test]
fn a_limit_of_descriptors_is_no_finding() {
    let few = "ulimit -n 12; exec";
    for name in ["slow-client", "backlog", "stevens", "c10k", "loop"] {
        is_impossible(few, name, &["12", "ulimit -"]);
    }
}

#[test]
fn a_limit_of_processes_is_no_finding() {
    // it does not hold for root
    let few = match nix::unistd::geteuid().is_root() {
        true if !need_tool("setpriv") => return,
        true => "exec prlimit --nproc=4:4 setpriv --reuid 61257 --regid 61257 --clear-groups",
        false => "exec prlimit --nproc=4:4",
    };
    if !need_tool("prlimit") {
        return;
    }
    for name in ["zombie", "copy-on-write", "fork-fat-parent", "thundering-herd", "stevens", "c10k"] {
        is_impossible(few, name, &["(ulimit -u) is 4 (raise it: ulimit -u "]);
    }
}

#[test]
fn what_the_system_does_not_tell_or_give_is_no_finding() {
    if !need_root() || !need_tool("unshare") {
        return;
    }
    let may = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !need(may, "unshare -m fails here") {
        return;
    }
    let in_namespace = |script: &str| format!("exec unshare -m -n sh -ec '{script}; exec \"$0\" \"$@\"'");
    // only the program is found, so that it can start others
    let untold =
        in_namespace("p=$0; mount -t tmpfs none /proc; mkdir /proc/self; ln -s \"$p\" /proc/self/exe");
    for name in ["zombie", "copy-on-write", "thundering-herd", "lifo"] {
        is_impossible(&untold, name, &["/proc tells nothing of processes", "mount -t proc"]);
    }
    for name in ["backlog", "slow-client", "lifo", "loop", "stevens"] {
        is_impossible(&in_namespace("true"), name, &["Network is unreachable"]);
    }
    let full = in_namespace(
        "mount -t tmpfs -o size=4k none /mnt; cat /dev/zero >/mnt/full || true; export TMPDIR=/mnt",
    );
    is_impossible(&full, "crash", &["No space left on device", "TMPDIR"]);
}

#[test]
fn what_differs_on_a_busy_machine_is_no_finding() {
    let claims = vec![Claim { book: "a".into(), seen: "b".into(), holds: true }];
    let mut outcome = Outcome { picture: Picture::of("a", "b", Vec::new()), claims };
    assert_eq!(outcome.verdict(), Verdict::Agrees);
    outcome.claims[0].holds = false;
    let count = 2 * std::thread::available_parallelism().unwrap().get();
    let start = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let mut others: Vec<Child> = (0..count).map(|_| start()).collect();
    let verdict = outcome.verdict();
    for other in &mut others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    assert!(matches!(verdict, Verdict::Busy { share } if share < 0.85), "{verdict:?}");
}
