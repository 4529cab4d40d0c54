//! The daemon as a service of a real systemd: the scripts of `tests/system/`, each in a throw-away
//! system of its own (`tests/system/boot.sh`), where it may do as it likes.
//!
//! There, `/test` has the scripts, the binary under test, the units and the load generator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{need, need_root, need_tool};

/// What the scripts and `boot.sh` call.
const TOOLS: [&str; 10] =
    ["systemd-nspawn", "systemd-analyze", "unshare", "setpriv", "nc", "ncat", "socat", "rsyslogd", "ss", "jq"];

fn boot() -> Command {
    // a system must not outlive the test
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/boot.sh")]);
    command.stdin(Stdio::null());
    command
}

fn can_boot() -> bool {
    let boots = || {
        let output = boot().args(["--", "true"]).output().unwrap();
        need(output.status.success(), String::from_utf8_lossy(&output.stderr).trim())
    };
    need_root() && TOOLS.iter().all(|tool| need_tool(tool)) && boots()
}

/// The files of this machine that a system gets, and where it has them.
fn files() -> [(PathBuf, &'static str); 4] {
    let binary = Path::new(env!("CARGO_BIN_EXE_forkd"));
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    [
        (binary.to_owned(), "/test/forkd"),
        (project.join("systemd"), "/test/systemd"),
        (project.join("tests/system"), "/test"),
        // `cargo test` builds the examples beside the binary
        (binary.with_file_name("examples").join("test-load"), "/test/load"),
    ]
}

fn passes(script: &str) {
    if !can_boot() {
        return;
    }
    let files = files().map(|(from, to)| format!("{}:{to}", from.display()));
    let output = boot().args(files).args(["--", &format!("/test/{script}.sh")]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}.sh: {}", output.status);
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                passes(stringify!($name));
            }
        )*

        /// A script that nobody runs proves nothing.
        #[test]
        fn each_script_is_a_test() {
            let mut known = vec!["boot", "lib", $(stringify!($name)),*];
            known.sort_unstable();
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system");
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut found: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".sh")?.to_owned())).collect();
            found.sort_unstable();
            assert_eq!(found, known);
        }
    };
}

scripts! { sysv }
