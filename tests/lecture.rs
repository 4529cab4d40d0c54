//! The lecture (docs/teach/lecture.md): its commands run, and its pictures are there, and are those of their records.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;

fn teach(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/teach").join(path)
}

fn page() -> String {
    fs::read_to_string(teach("lecture.md")).unwrap()
}

/// The lines of all blocks that are for a shell.
fn commands() -> Vec<String> {
    let page = page();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// What `forkd` is for the lines: itself, but for what takes its time and has tests of its own. An experiment must be on the
/// list; a comparison is as short as one may be.
const FORKD: &str = r#"#!/bin/sh
case $1 in
    lab) "$FORKD" lab | grep -q "^  $2 " || { echo "there is no experiment $2" >&2; exit 1; } ;;
    compare)
        case "$*" in *--slo*) ;; *) set -- "$@" --rounds 1 ;; esac
        exec "$FORKD" "$@" --duration 20ms --clients 200 ;;
    *) exec "$FORKD" "$@" ;;
esac
"#;

#[test]
fn each_command_of_the_lecture_runs() {
    let dir = tempfile::Builder::new().prefix("forkd-").tempdir().unwrap();
    let program = dir.path().join("forkd");
    fs::write(&program, FORKD).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let lines = commands();
    assert!(lines.len() >= 12, "{lines:?}");
    // a server in the background is there when its control socket is
    let ready = "for i in $(seq 300); do [ -S lecture.control ] && break; sleep 0.1; done\n";
    let lines = lines.iter().map(|line| format!("{line}\n{}", if line.ends_with('&') { ready } else { "" }));
    let script: String = lines.collect();
    let script = script.replace("7007", &free_port().to_string());
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    without_options(&mut command);
    // what a line leaves in the background goes with it
    let script = format!("set -eux\ntrap 'kill %1 2>/dev/null || true' EXIT\n{script}wait\n");
    command.args(["-c", &script]).current_dir(dir.path()).env("PATH", path).env("TMPDIR", dir.path());
    let ended = command.env("FORKD", env!("CARGO_BIN_EXE_forkd")).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&ended.stdout).contains("8 of 20 served"), "{said}");
}

#[test]
fn what_is_named_in_the_text_is_there() {
    let page = page();
    let listed = run(&["lab"]).stdout;
    for rest in page.split("forkd lab ").skip(1) {
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_lowercase() || "-10".contains(*c)).collect();
        assert!(name.is_empty() || listed.contains(&format!("  {name} ")), "there is no experiment {name:?}");
    }
    let mut pictures = 0;
    for rest in page.split("src=\"").skip(1) {
        let light = rest.split('"').next().unwrap();
        let dark = light.replace(".svg", "-dark.svg");
        assert!(page.contains(&format!("srcset=\"{dark}\"")), "{light} has no dark face on the page");
        [light, &dark].iter().for_each(|name| assert!(teach(name).is_file(), "{name} is not there"));
        pictures += 1;
    }
    assert_eq!(pictures, 7);
}

/// As `FORKD_BLESS=1 cargo test --test documents` does with others.
#[test]
fn pictures_are_those_of_their_records() {
    for name in ["models", "slo"] {
        let drawn = tempfile::tempdir().unwrap();
        let record = teach(&format!("lecture/{name}.json"));
        let mut command = forkd_command();
        command.env_remove("COLUMNS").env("LC_ALL", "C.UTF-8").args(["compare", "--from"]).arg(record);
        let ended = forkd(command.arg("--svg").arg(drawn.path()));
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        for face in ["", "-dark"] {
            let now = fs::read_to_string(drawn.path().join(format!("overview{face}.svg"))).unwrap();
            let kept = teach(&format!("lecture/{name}{face}.svg"));
            if std::env::var_os("FORKD_BLESS").is_some() {
                fs::write(&kept, &now).unwrap();
            }
            assert!(fs::read_to_string(&kept).unwrap() == now, "{} is out of date", kept.display());
        }
    }
}

/// The comparisons of the page are those whose figures stand there.
#[test]
fn figures_are_of_the_commands_beside_them() {
    let script = fs::read_to_string(teach("lecture/run")).unwrap();
    let compared =
        commands().into_iter().filter_map(|line| line.strip_prefix("forkd compare ").map(str::to_owned));
    let compared: Vec<String> = compared.collect();
    assert_eq!(compared.len(), 2);
    for options in compared {
        assert!(
            script.contains(&format!(" {options}\n")),
            "docs/teach/lecture/run has no comparison by {options}"
        );
    }
}
