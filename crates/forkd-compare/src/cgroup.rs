//! A control group for a server, where the machine gives one: cgroups(7).
//!
//! It counts what nothing else does: the processor time of children that lived for a moment and were reaped
//! by the kernel itself, since their parent ignores SIGCHLD; their times are added to no other process's. It
//! also knows all processes, of any parent.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a group may take to become empty, once all in it have been killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// What our groups' names begin with; the process id follows.
const PREFIX: &str = "forkd-compare-";

/// What a hierarchy can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// cgroup v2: processes and processor time, and `pids.*` where that controller is there.
    Unified,
    /// cgroup v1: processor time.
    Cpuacct,
    /// cgroup v1: processes and threads.
    Pids,
}

/// A directory of a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    kind: Kind,
    dir: PathBuf,
}

/// A group of our own, in each hierarchy that has something to tell. The processes in it are killed
/// when it is dropped.
#[derive(Debug)]
pub(super) struct Group {
    hierarchies: Vec<Hierarchy>,
}

impl Group {
    /// Makes one below our own.
    ///
    /// # Errors
    ///
    /// If we may not, or there is none that counts processor time.
    pub(super) fn new() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let [own, mounts] = ["/proc/self/cgroup", "/proc/self/mountinfo"].map(fs::read_to_string);
        let mut group = Self { hierarchies: Vec::new() };
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for mut hierarchy in hierarchies(&own?, &mounts?) {
            // one hierarchy that counts time is enough
            if hierarchy.kind == Kind::Cpuacct && group.find("cpu.stat").is_some() {
                continue;
            }
            if number == 0 {
                remove_stale(&hierarchy.dir);
            }
            hierarchy.dir.push(&name);
            match fs::create_dir(&hierarchy.dir).and_then(|()| door(&hierarchy.dir)) {
                Ok(_) => group.hierarchies.push(hierarchy),
                Err(error) => {
                    let _ = fs::remove_dir(&hierarchy.dir);
                    failure = error;
                }
            }
        }
        match group.cpu() {
            Some(_) => Ok(group),
            None => Err(failure),
        }
    }

    /// Returns the files to which a process writes itself to enter.
    pub(super) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        self.hierarchies.iter().map(|hierarchy| door(&hierarchy.dir)).collect()
    }

    /// Returns what counts the processor time.
    pub(super) fn counts_by(&self) -> &'static str {
        if self.find("cpu.stat").is_some() { "control group (cpu.stat)" } else { "control group (cpuacct)" }
    }

    /// Returns the processor time of all that were ever in it.
    pub(super) fn cpu(&self) -> Option<Duration> {
        if let Some(path) = self.find("cpu.stat") {
            let text = fs::read_to_string(path).ok()?;
            let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            return micros.parse().ok().map(Duration::from_micros);
        }
        number(&self.find("cpuacct.usage")?).map(Duration::from_nanos)
    }

    /// Returns the ids of its processes.
    pub(super) fn processes(&self) -> Option<Vec<u32>> {
        let text = fs::read_to_string(self.find("cgroup.procs")?).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Returns how many threads there are in all processes.
    pub(super) fn threads(&self) -> Option<u32> {
        if let Some(threads) = self.current() {
            return Some(threads);
        }
        let path = self.find("cgroup.threads").or_else(|| self.find("tasks"))?;
        Some(fs::read_to_string(path).ok()?.lines().count() as u32)
    }

    /// The same by the controller alone, which is quick: it keeps the count.
    pub(super) fn current(&self) -> Option<u32> {
        number(&self.find("pids.current")?).map(|number| number as u32)
    }

    /// Returns the most threads that there ever were.
    pub(super) fn peak(&self) -> Option<u32> {
        number(&self.find("pids.peak")?).map(|number| number as u32)
    }

    fn find(&self, file: &str) -> Option<PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.dir.join(file)).find(|path| path.exists())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let until = Instant::now() + END_TIMEOUT;
        loop {
            for process in self.processes().into_iter().flatten() {
                super::kill(process);
            }
            self.hierarchies.retain(|hierarchy| match fs::remove_dir(&hierarchy.dir) {
                Ok(()) => false,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            });
            if self.hierarchies.is_empty() || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Removes the empty groups of comparisons that were killed.
fn remove_stale(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().map_while(Result::ok) {
        let name = entry.file_name();
        let whose = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if whose.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn door(dir: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?.into())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Where our own groups are: from /proc/self/cgroup and /proc/self/mountinfo.
fn hierarchies(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut hierarchies: Vec<Hierarchy> = own.lines().filter_map(|line| hierarchy(line, mounts)).collect();
    hierarchies.sort_by_key(|hierarchy| hierarchy.kind);
    hierarchies.dedup_by(|one, other| one.dir == other.dir);
    hierarchies
}

/// A line is number, controllers and path: `0::/user.slice` or `4:cpu,cpuacct:/`.
fn hierarchy(line: &str, mounts: &str) -> Option<Hierarchy> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let has = |name: &str| controllers.split(',').any(|controller| controller == name);
    let kind = match controllers {
        "" => Kind::Unified,
        _ if has("cpuacct") => Kind::Cpuacct,
        _ if has("pids") => Kind::Pids,
        _ => return None,
    };
    mounts.lines().find_map(|mount| {
        let (point, system) = mount.split_once(" - ")?;
        let mut system = system.split(' ');
        let options = (system.next()?, system.nth(1)?);
        let is_it = match options {
            ("cgroup2", _) => kind == Kind::Unified,
            ("cgroup", options) => {
                options.split(',').any(|option| controllers.split(',').any(|c| c == option))
            }
            _ => false,
        };
        let mut point = point.split(' ').skip(3);
        let (root, dir) = (point.next()?, point.next()?);
        let below = Path::new(path).strip_prefix(root).ok().filter(|_| is_it)?;
        // join would append a slash for an empty path
        let dir = if below.as_os_str().is_empty() { dir.into() } else { Path::new(dir).join(below) };
        Some(Hierarchy { kind, dir })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn found(own: &str, mounts: &str) -> Vec<(Kind, String)> {
        hierarchies(own, mounts)
            .into_iter()
            .map(|hierarchy| (hierarchy.kind, hierarchy.dir.display().to_string()))
            .collect()
    }

    #[test]
    fn finds_its_own_groups() {
        let own = "0::/user.slice/user-1000.slice/session-2.scope\n";
        let dir = "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope";
        assert_eq!(found(own, UNIFIED), [(Kind::Unified, dir.into())]);
        let own = "8:pids:/a\n4:cpu,cpuacct:/\n1:name=systemd:/x\n0::/\n";
        assert_eq!(
            found(own, HYBRID),
            [
                (Kind::Unified, "/sys/fs/cgroup/unified".into()),
                (Kind::Cpuacct, "/sys/fs/cgroup/cpu,cpuacct".into()),
                (Kind::Pids, "/sys/fs/cgroup/pids/a".into()),
            ]
        );
    }

    #[test]
    fn of_a_container_only_a_part_may_be_mounted() {
        let mounts = "9 8 0:1 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(found("0::/docker/abc/x\n", mounts), [(Kind::Unified, "/sys/fs/cgroup/x".into())]);
        assert_eq!(found("0::/elsewhere\n", mounts), []);
        assert_eq!(found("", ""), []);
    }

    #[test]
    fn a_group_counts_its_processes_and_goes() {
        use forkd_sys::program::{Privileges, Program};
        use std::process::{Command, Stdio};
        let group = Group::new();
        if !crate::skips::need(group.is_ok(), "this machine gives us no control group") {
            return;
        }
        let group = group.unwrap();
        let dirs: Vec<PathBuf> = group.hierarchies.iter().map(|hierarchy| hierarchy.dir.clone()).collect();
        let mut command = Command::new("sh");
        // what a child of the child does is counted, and one process stays
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000"]);
        command.stdin(Stdio::null());
        let program = Program::start_in(&mut command, Privileges::Keep, group.doors().unwrap()).unwrap();
        let until = Instant::now() + Duration::from_secs(15);
        while group.processes().unwrap().len() < 2 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(group.threads(), Some(2));
        assert!(group.peak().is_none_or(|peak| peak >= 2));
        assert!(group.processes().unwrap().contains(&program.id()));
        assert!(group.cpu().unwrap() > Duration::from_millis(1), "{:?}", group.cpu());
        drop((program, group));
        assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    }
}
