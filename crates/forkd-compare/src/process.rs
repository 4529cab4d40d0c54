//! A process, as /proc tells of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A process, from /proc/PID/stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: u32,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) threads: u32,
    /// When it started, in ticks since the system did: with the id it says which process it is.
    pub(super) started: u64,
    /// Whether it is dead, and only its parent has not taken note of that.
    pub(super) is_dead: bool,
}

impl Process {
    pub(super) fn of(id: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// The name may hold anything, also spaces and brackets.
    fn parse(stat: &str) -> Option<Self> {
        let (id, _) = stat.split_once(' ')?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // the first one here is the third of proc_pid_stat(5)
        let number = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
        Some(Self {
            id: id.parse().ok()?,
            parent: number(4)? as u32,
            group: number(5)? as u32,
            threads: number(20)? as u32,
            started: number(22)?,
            is_dead: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Its id, if it lives still.
    pub(super) fn alive(&self) -> Option<u32> {
        Self::of(self.id).filter(|now| now.started == self.started && !now.is_dead).map(|now| now.id)
    }
}

/// All processes that there are, also the dead.
pub(super) fn all_processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().map_while(Result::ok);
    entries.filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Returns the processor time of each of these processes that lives, by its id.
pub(super) fn clocks(processes: &[u32]) -> BTreeMap<u32, Duration> {
    processes.iter().filter_map(|process| Some((*process, clock_of(*process)?))).collect()
}

/// The processor time of a process: of all its threads, also of those that have ended, but of no children
/// (clock_getcpuclockid(3)).
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn clock_of(process: u32) -> Option<Duration> {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(process.cast_signed())).ok()?;
    Some(nix::time::clock_gettime(clock).ok()?.into())
}

/// Elsewhere a process has no clock that another one may read.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn clock_of(_: u32) -> Option<Duration> {
    None
}

/// How many threads a process has; 0 if it has gone.
pub(super) fn threads_of(process: u32) -> u64 {
    // a directory has two links, and here one more for each thread
    fs::metadata(format!("/proc/{process}/task")).map_or(0, |task| task.nlink().saturating_sub(2))
}

/// Returns the context switches of each thread of these processes, by its id; of none if there are others than so
/// many.
pub(super) fn switches(processes: &[u32], threads: u32) -> BTreeMap<u32, u64> {
    if processes.iter().copied().map(threads_of).sum::<u64>() != u64::from(threads) {
        return BTreeMap::new();
    }
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, switches_of(&status)?))
    };
    let tasks = |process: &u32| fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    processes.iter().flat_map(tasks).filter_map(of).collect()
}

/// Voluntary and involuntary ones, from what proc(5) has in `status` of a thread.
fn switches_of(status: &str) -> Option<u64> {
    let count = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse::<u64>().ok()
    };
    Some(count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "12 (a) b (c) S 11 10 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 4711 1 2 3";
        let expected = Process { id: 12, parent: 11, group: 10, threads: 3, started: 4711, is_dead: false };
        assert_eq!(Process::parse(stat), Some(expected));
        assert_eq!(Process::parse(""), None);
    }

    #[test]
    fn the_dead_are_told_from_the_living() {
        let stat = "7 (x) Z 1 7 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0";
        assert!(Process::parse(stat).unwrap().is_dead);
        assert!(!Process::parse(&stat.replace('Z', "S")).unwrap().is_dead);
    }

    #[test]
    fn switches_are_of_both_kinds() {
        assert_eq!(
            switches_of("Threads:\t1\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"),
            Some(42)
        );
        assert_eq!(switches_of("Threads:\t1\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_process_has_done_is_known_while_it_lives() {
        let us = std::process::id();
        assert!(clocks(&[us])[&us] > Duration::ZERO && threads_of(us) > 1);
        let mut sleep = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = sleep.id();
        assert_eq!(threads_of(id), 1);
        assert!(switches(&[id], 2).is_empty());
        let until = std::time::Instant::now() + Duration::from_secs(15);
        // it has to begin, and to sleep
        while switches(&[id], 1)[&id] == 0 {
            assert!(std::time::Instant::now() < until);
        }
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!((threads_of(id), clocks(&[id]).len()), (0, 0));
    }
}
