//! Each experiment of `forkd lab` is carried out, and this machine does what the book says; a student can make a
//! prediction, at a terminal and without one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use forkd_lab::LABS;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Carries out an experiment. What depends on times may differ once on a machine that other tests load.
#[track_caller]
fn agrees(name: &str) {
    let mut last = None;
    for _ in 0..3 {
        let ended = run(&["lab", name, "--json"]);
        let result: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        assert_eq!(result["lab"], name);
        let claims = result["claims"].as_array().unwrap();
        assert!(!claims.is_empty() && result["picture"]["groups"][0]["bars"][0]["value"].is_number());
        let holds = claims.iter().all(|claim| claim["holds"] == true);
        assert_eq!((result["agrees"] == true, ended.code), (holds, Some(i32::from(!holds))), "{ended:?}");
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
    assert!(lines.clone().all(|line| line.chars().count() <= 88), "{}", ended.stdout);
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
    terminal.shows("Your prediction (1 to 3, or Enter for none): 7\r\nYour prediction");
    terminal.types(b"2\n");
    terminal.shows("You predicted it: 2, 19");
    terminal.shows("Go on");
    assert_eq!(lab.wait().unwrap().code(), Some(0));
}

#[test]
fn nothing_is_left_when_it_is_interrupted() {
    let mut lab = forkd_command();
    let mut lab = lab.args(["lab", "slow-client"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = lab.id() as i32;
    eventually("it has started a server", || !children_of(pid).is_empty());
    let servers = children_of(pid);
    signal(pid, Signal::SIGINT);
    assert!(!lab.wait().unwrap().success());
    eventually("its server has gone", || !servers.iter().any(|server| is_running(*server)));
}
