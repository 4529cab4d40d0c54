//! Tests that are skipped, and why: said at the end of each test program, and of all that one `cargo test` runs.
//!
//! The programs of a run have one parent, cargo, and share a file that is named after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Which tests this program has skipped, by the reason.
static SKIPPED: LazyLock<Mutex<Skips>> = LazyLock::new(|| {
    // SAFETY: the function is called at exit(3), when it can do what any function can.
    unsafe { libc::atexit(say_at_exit) };
    Mutex::default()
});

/// Tests by the reason that they are skipped for.
#[derive(Debug, Default)]
pub struct Skips(BTreeMap<String, BTreeSet<String>>);

impl Skips {
    /// What all programs of this run have skipped so far; and forgets it.
    pub fn take_all() -> Self {
        let (record, mut all) = (record(), Self::default());
        for line in fs::read_to_string(&record).unwrap_or_default().lines() {
            if let Some((test, reason)) = line.split_once('\t') {
                all.add(test, reason);
            }
        }
        let _ = fs::remove_file(record);
        remove_old();
        all
    }

    fn add(&mut self, test: &str, reason: &str) {
        self.0.entry(reason.into()).or_default().insert(test.into());
    }

    /// How many tests, and for want of what.
    pub fn summary(&self) -> String {
        let tests: BTreeSet<&String> = self.0.values().flatten().collect();
        let reasons: String =
            self.0.iter().map(|(why, tests)| format!("\n  {:3}  {why}", tests.len())).collect();
        match tests.len() {
            0 => "no test was skipped".into(),
            1 => format!("1 test was skipped:{reasons}"),
            n => format!("{n} tests were skipped:{reasons}"),
        }
    }
}

/// Whether what a test needs is there; if not, says loudly that it is skipped, and takes it down for the summary.
/// Where the system must have everything (`FORKD_REQUIRE_SYSTEM=1`, as in CI), a skip is a failure.
pub fn need(met: bool, reason: &str) -> bool {
    if !met {
        let required = std::env::var_os("FORKD_REQUIRE_SYSTEM").is_some_and(|v| v == "1");
        assert!(!required, "FORKD_REQUIRE_SYSTEM=1, but {reason}");
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        say(&format!("\nSKIPPED: {test}: {reason}\n"));
        SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).add(&test, reason);
        if let Err(error) = take_down(&format!("{} {test}\t{reason}\n", program())) {
            panic!("cannot write {}: {error}", record().display());
        }
    }
    met
}

/// Adds a line to the record of this run, in one write: others may do so at the same time.
fn take_down(line: &str) -> io::Result<()> {
    fs::create_dir_all(records())?;
    OpenOptions::new().append(true).create(true).open(record())?.write_all(line.as_bytes())
}

/// Says it past the test harness, which would keep it to itself.
pub fn say(text: &str) {
    let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
}

extern "C" fn say_at_exit() {
    let summary = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).summary();
    say(&format!("{}: {summary}\n\n", program()));
}

fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    // cargo appends a hash
    name.rsplit_once('-').map_or(&*name, |(name, _)| name).to_owned()
}

/// Beside the programs, in a directory of its own.
fn records() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(2).unwrap_or(Path::new("/")).join("skipped-tests")
}

/// The file of this run.
fn record() -> PathBuf {
    let parent = std::os::unix::process::parent_id();
    records().join(format!("{parent}-{}", started(parent)))
}

/// When a process was started: with its number, that stands for one process. See proc_pid_stat(5).
fn started(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after_name.split_whitespace().nth(19).unwrap_or("0").to_owned()
}

/// Removes what runs have left that are over, such as those of a single program.
fn remove_old() {
    for entry in fs::read_dir(records()).into_iter().flatten().map_while(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_over = name.split_once('-').and_then(|(pid, start)| Some(started(pid.parse().ok()?) != start));
        if is_over.unwrap_or(true) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
