//! Runs of the binary that end by themselves.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::LIMIT;

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs forkd with these arguments to its end; panics if that does not come.
#[track_caller]
pub fn run(args: &[&str]) -> Ended {
    forkd(forkd_command().args(args))
}

/// A command for forkd that inherits no configuration.
pub fn forkd_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkd"));
    for name in ["JOURNAL_STREAM", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    without_options(&mut command);
    command
}

/// Takes from a command all that a variable of this environment tells forkd.
pub fn without_options(command: &mut Command) {
    let names = std::env::vars_os().map(|(name, _)| name);
    let ours = names.filter(|name| name.as_encoded_bytes().starts_with(b"FORKD_"));
    ours.for_each(|name| _ = command.env_remove(name));
}

/// Runs a command until it has ended **and** closed its output; kills it and panics after [`LIMIT`].
#[track_caller]
pub fn forkd(command: &mut Command) -> Ended {
    forkd_within(command, LIMIT)
}

/// As [`forkd`], for what takes longer.
#[track_caller]
pub fn forkd_within(command: &mut Command, limit: Duration) -> Ended {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    let (sender, results) = mpsc::channel();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::spawn(move || {
        let other = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        let _ = sender.send((bytes, other.join().unwrap()));
    });
    let result = results.recv_timeout(limit);
    if result.is_err() {
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
    let status = child.wait().unwrap();
    let (stdout, stderr) =
        result.unwrap_or_else(|_| panic!("{command:?} does not end, or keeps its output open"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: status.code(), signal: status.signal(), stdout: text(stdout), stderr: text(stderr) }
}

/// Puts a copy of the binary, which any user may run, into a directory.
pub fn public_binary(dir: &Path) -> PathBuf {
    let copy = dir.join("forkd");
    // By install(1): a descriptor of ours that is open for writing could leak into a child that another
    // thread starts at this moment, and the copy would be "busy" as long as it is open there.
    let install = Command::new("install").arg("-m755").arg(env!("CARGO_BIN_EXE_forkd")).arg(&copy).status();
    assert!(install.unwrap().success());
    copy
}
