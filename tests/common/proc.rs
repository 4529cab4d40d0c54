//! What /proc says.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The children of a process, zombies too.
pub fn children_of(pid: i32) -> Vec<i32> {
    processes().into_iter().filter(|p| p.parent == pid).map(|p| p.pid).collect()
}

/// The living processes of a process group.
pub fn group_of(group: i32) -> Vec<i32> {
    processes().into_iter().filter(|p| p.group == group && !"ZX".contains(p.state)).map(|p| p.pid).collect()
}

struct Process {
    pid: i32,
    state: char,
    parent: i32,
    group: i32,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// From /proc/PID/stat; what stands after the name, which may hold anything.
fn process(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Process { pid, state, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// A sampler of one process's children that is quicker than [`children_of`]: it reads the kernel's own
/// list, which may miss a child while others die, but is good for many samples.
pub struct Children(String);

impl Children {
    pub fn of(pid: i32) -> Self {
        Self(format!("/proc/{pid}/task/{pid}/children"))
    }

    /// Each child there is now with its state (`None` if it went away meanwhile).
    pub fn sample(&self) -> Vec<(i32, Option<char>)> {
        let list = fs::read_to_string(&self.0).expect("a kernel with CONFIG_PROC_CHILDREN");
        list.split_whitespace().map(|pid| pid.parse().unwrap()).map(|pid| (pid, state_of(pid))).collect()
    }
}

/// The state letter, such as 'S', 'T' or 'Z'.
pub fn state_of(pid: i32) -> Option<char> {
    process(pid).map(|process| process.state)
}

/// Whether the process is there and no zombie.
pub fn is_running(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| !"ZX".contains(state))
}

/// A field of /proc/PID/status, such as `SigIgn` or `Uid`.
pub fn proc_status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The open descriptors of a process: number and what it is.
pub fn fds_of(pid: i32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let fd = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
    };
    entries.map_while(Result::ok).filter_map(fd).collect()
}

/// The names of a process's threads, the main thread's among them.
pub fn threads_of(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
    entries.map_while(Result::ok).filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

/// Memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub rss: u64,
    /// What is no file's: how many others run the same program makes no difference to it.
    pub anonymous: u64,
    /// The part of that which is its own: of a page that three processes share, a third.
    pub part: u64,
}

impl Usage {
    pub fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps_rollup")).ok()?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        Some(Self { rss: field("Rss:")?, anonymous: field("Anonymous:")?, part: field("Pss_Anon:")? })
    }
}

#[track_caller]
pub fn signal(pid: i32, which: Signal) {
    assert!(pid > 1, "{pid} is no process to signal");
    kill(Pid::from_raw(pid), which).unwrap_or_else(|error| panic!("cannot send {which} to {pid}: {error}"));
}

/// Stops a process, and waits until it has stopped.
#[track_caller]
pub fn stopped(pid: i32) {
    signal(pid, Signal::SIGSTOP);
    super::eventually("the process stops", || state_of(pid) == Some('T'));
}
