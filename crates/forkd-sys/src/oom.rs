//! Which process the kernel's OOM killer takes first, and whether it has taken one.
//!
//! A process may always raise its own `oom_score_adj` (proc_pid_oom_score_adj(5)). The files of a process that
//! is not dumpable, as one that has changed its user is not, belong to root; so such a process is dumpable for the
//! moment in which it opens its file.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use super::procfs;

/// A score with which a process dies rather than the one that made this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expendable {
    text: [u8; 8],
    length: usize,
}

impl Expendable {
    /// A score that is higher than ours by `more` thousandths of all memory; `None` where the system has no
    /// such thing.
    pub fn rather_than_us(more: i32) -> Option<Self> {
        let own: i32 = procfs::read(c"/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
        let number = (own + more).min(1000).to_string();
        let mut text = [0; 8];
        text.get_mut(..number.len())?.copy_from_slice(number.as_bytes());
        Some(Self { text, length: number.len() })
    }

    /// This process dies rather than the one that made the score, and what it starts does, too.
    #[cfg(target_os = "linux")]
    pub fn become_so(&self) {
        use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
        let file = open_own().or_else(|error| {
            if error.raw_os_error() != Some(libc::EACCES)
                || dumpable_behavior().ok() == Some(DumpableBehavior::Dumpable)
            {
                return Err(error);
            }
            set_dumpable_behavior(DumpableBehavior::Dumpable)?;
            let file = open_own();
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
            file
        });
        if let Ok(file) = file {
            let _ = rustix::io::write(&file, &self.text[..self.length]);
            super::fd::close(file);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn become_so(&self) {}

    /// A child of this process dies rather than the one that made the score, if this process
    /// [may do that](may_raise_children).
    #[cfg(target_os = "linux")]
    pub fn make_so(&self, child: u32) {
        let path = std::ffi::CString::new(format!("/proc/{child}/oom_score_adj"));
        let Some(file) = path.ok().and_then(|path| procfs::open(&path, OFlags::WRONLY).ok()) else { return };
        // It is asked only now: the file stays that of the process that had this pid when it was opened.
        if super::pidfd::is_our_child(child) {
            let _ = rustix::io::write(&file, &self.text[..self.length]);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn make_so(&self, _child: u32) {}
}

/// The memory of the machine, in bytes; 0 where that is not known.
pub fn machine_memory() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let info = rustix::system::sysinfo();
        info.totalram.saturating_mul(info.mem_unit.into())
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// Whether this process may make its children [expendable](Expendable::make_so): their files have the owner
/// that its own has.
pub fn may_raise_children() -> bool {
    cfg!(target_os = "linux") && open_own().is_ok()
}

fn open_own() -> std::io::Result<std::os::fd::OwnedFd> {
    procfs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY)
}

/// The files that tell of the memory of our control group.
#[derive(Debug)]
pub struct Group {
    /// They count the processes that the OOM killer has taken.
    counters: Vec<File>,
    /// The group and all that it is part of.
    levels: Vec<Level>,
}

impl Group {
    /// Opens what there is.
    pub fn open() -> Self {
        let groups = procfs::read(c"/proc/self/cgroup").unwrap_or_default();
        let groups: Vec<GroupPath<'_>> = groups.lines().filter_map(GroupPath::of_line).collect();
        let counts = |file: &File| said_by(file, kills_in).is_some();
        let open = |path: String| File::open(path).ok();
        let counters = groups.iter().filter_map(|group| group.counters().filter_map(open).find(counts));
        let counters = counters.collect();
        Self { counters, levels: groups.iter().flat_map(GroupPath::levels).collect() }
    }

    /// Their descriptors.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.counters.iter().chain(self.levels.iter().flat_map(Level::files)).map(AsRawFd::as_raw_fd)
    }

    /// How many processes the OOM killer has taken; `None` where that can't be known.
    pub fn kills(&self) -> Option<u64> {
        self.counters.iter().filter_map(|file| said_by(file, kills_in)).max()
    }

    /// Reads how much memory the group may have, in bytes; `None` where nothing limits that.
    pub fn read_limit(&mut self) -> Option<u64> {
        self.levels.iter_mut().filter_map(Level::read_limit).min()
    }

    /// Whether there is memory left for another process, as of the limit that was read last.
    ///
    /// The memory of processes that have ended comes back after a moment. If the limit is met before, and no other
    /// process is left, the OOM killer takes the one that forks.
    pub fn has_room(&self) -> bool {
        self.levels.iter().all(Level::has_room)
    }
}

/// A control group that may have a limit.
#[derive(Debug)]
struct Level {
    max: File,
    usage: File,
    stat: File,
    /// What `max` said last.
    limit: Option<u64>,
}

impl Level {
    fn files(&self) -> [&File; 3] {
        [&self.max, &self.usage, &self.stat]
    }

    fn read_limit(&mut self) -> Option<u64> {
        self.limit = number_by(&self.max).filter(|&limit| limit < UNLIMITED);
        self.limit
    }

    fn has_room(&self) -> bool {
        let Some((limit, usage)) = self.limit.zip(number_by(&self.usage)) else { return true };
        let most = limit.saturating_sub((limit / 8).clamp(LEAST_ROOM, MOST_ROOM));
        // the cache of files gives way
        usage <= most || usage - said_by(&self.stat, reclaimable_in).unwrap_or(usage).min(usage) <= most
    }
}

/// More memory than any limit of version 1 that is one.
const UNLIMITED: u64 = 1 << 62;

/// What must be left for another process, at least and at most: those forked just now take theirs in the next moment.
const LEAST_ROOM: u64 = 2 << 20;
const MOST_ROOM: u64 = 32 << 20;

/// Where a control group is that has to do with memory (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GroupPath<'a> {
    is_v2: bool,
    path: &'a str,
}

impl<'a> GroupPath<'a> {
    /// By a line of `/proc/PID/cgroup`.
    fn of_line(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_end_matches('/'));
        let is_v2 = controllers.is_empty();
        (is_v2 || controllers.split(',').any(|name| name == "memory")).then_some(Self { is_v2, path })
    }

    /// Where the files are of the group with this path.
    fn directory(&self, path: &str) -> String {
        let mount = if self.is_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        format!("{mount}{path}")
    }

    /// The file that counts is one of these: in a container its own group may be where others have the root.
    fn counters(&self) -> impl Iterator<Item = String> {
        let name = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        [self.path, ""].map(|path| format!("{}/{name}", self.directory(path))).into_iter()
    }

    /// The group itself and those that it is part of, as far as they have these files.
    fn levels(&self) -> impl Iterator<Item = Level> {
        let parent = |path: &&'a str| path.rfind('/').map(|end| &path[..end]);
        std::iter::successors(Some(self.path), parent).filter_map(|path| self.level(path))
    }

    fn level(&self, path: &str) -> Option<Level> {
        let open = |name: &str| File::open(format!("{}/{name}", self.directory(path))).ok();
        let [max, usage] = match self.is_v2 {
            true => ["memory.max", "memory.current"],
            false => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
        };
        Some(Level { max: open(max)?, usage: open(usage)?, stat: open("memory.stat")?, limit: None })
    }
}

/// What one of these files says now: it may be read again and again.
fn said_by(file: &File, find: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let mut text = [0; 4096];
    let length = file.read_at(&mut text, 0).ok()?;
    find(std::str::from_utf8(text.get(..length)?).ok()?)
}

fn kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// What the kernel can take back at once, of `memory.stat` of either version.
fn reclaimable_in(text: &str) -> Option<u64> {
    let is_v1 = text.contains("total_inactive_file ");
    let prefix = if is_v1 { "total_" } else { "" };
    let names = ["inactive_file ", "active_file ", "slab_reclaimable "];
    let of = |line: &str| {
        let line = line.strip_prefix(prefix)?;
        names.iter().find_map(|name| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Some(text.lines().filter_map(of).sum())
}

/// The number that such a file consists of. A long buffer would be a page that a fork has to copy.
fn number_by(file: &File) -> Option<u64> {
    let mut text = [0; 32];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_count() {
        let counter =
            |line: &str| GroupPath::of_line(line).and_then(|group| group.counters().next()).unwrap();
        assert_eq!(counter("0::/a/b"), "/sys/fs/cgroup/a/b/memory.events");
        assert_eq!(counter("0::/"), "/sys/fs/cgroup/memory.events");
        for line in ["9:memory:/x:y", "9:cpu,memory:/x:y"] {
            assert_eq!(counter(line), "/sys/fs/cgroup/memory/x:y/memory.oom_control");
        }
        assert_eq!([GroupPath::of_line("3:cpu,cpuacct:/x"), GroupPath::of_line("nonsense")], [None, None]);
        let v1 = "cache 9\ninactive_file 1\nactive_file 1\ntotal_inactive_file 30\ntotal_active_file 4\n";
        let v2 = "file 9\ninactive_file 30\nactive_file 4\nslab_reclaimable 5\nslab_unreclaimable 7\n";
        assert_eq!([v1, v2].map(reclaimable_in), [Some(34), Some(39)]);
        assert_eq!(kills_in("low 0\nhigh 0\nmax 3\noom 2\noom_kill 17\noom_group_kill 0\n"), Some(17));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn room_is_left_below_the_limit_and_files_give_way() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            File::open(dir.path().join(name)).unwrap()
        };
        let has_room = |limit: &str, usage: u64, cached: u64| {
            let stat = file("stat", &format!("inactive_file {cached}\n"));
            let (max, usage) = (file("max", limit), file("usage", &format!("{usage}\n")));
            let mut level = Level { max, usage, stat, limit: None };
            level.read_limit();
            level.has_room()
        };
        let mib = |n: u64| n << 20;
        assert!(has_room("max\n", mib(900), 0) && has_room("9223372036854771712\n", mib(900), 0));
        let limit = mib(8).to_string();
        assert!(has_room(&limit, mib(6), 0));
        assert!(!has_room(&limit, mib(6) + 1, 0));
        assert!(has_room(&limit, mib(8), mib(2)));
        assert!(!has_room(&limit, mib(8), mib(2) - 1));
        assert!(has_room(&mib(1024).to_string(), mib(992), 0));
        assert!(!has_room("0\n", mib(1), mib(1) / 2));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_score_is_higher_than_ours() {
        let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        let Expendable { text, length } = Expendable::rather_than_us(300).unwrap();
        let higher: i32 = std::str::from_utf8(&text[..length]).unwrap().parse().unwrap();
        assert_eq!(higher, (own + 300).min(1000));
    }
}
