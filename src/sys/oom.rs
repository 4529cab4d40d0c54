//! Which process the kernel's OOM killer takes first, and whether it has taken one.
//!
//! A process may always raise its own `oom_score_adj` (proc_pid_oom_score_adj(5)). The files of a process that
//! is not dumpable, as one that has changed its user is not, belong to root; so such a process is dumpable for the
//! moment in which it opens its file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use super::procfs;

/// By how much a child's score is higher, in thousandths of all memory that there is: its parent is larger by some
/// MiB, which is much of a small limit.
const MORE: i32 = 500;

/// A score with which a process dies rather than the one that made this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expendable {
    text: [u8; 8],
    length: usize,
}

impl Expendable {
    /// `None` where the system has no such thing.
    pub(crate) fn rather_than_us() -> Option<Self> {
        let own: i32 = procfs::read(c"/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
        let number = (own + MORE).min(1000).to_string();
        let mut text = [0; 8];
        text.get_mut(..number.len())?.copy_from_slice(number.as_bytes());
        Some(Self { text, length: number.len() })
    }

    /// This process dies rather than the one that made the score, and what it starts does, too.
    #[cfg(target_os = "linux")]
    pub(crate) fn become_so(&self) {
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
    pub(crate) fn become_so(&self) {}

    /// A child of this process dies rather than the one that made the score, if this process
    /// [may do that](may_raise_children).
    #[cfg(target_os = "linux")]
    pub(crate) fn make_so(&self, child: u32) {
        let path = std::ffi::CString::new(format!("/proc/{child}/oom_score_adj"));
        let Some(file) = path.ok().and_then(|path| procfs::open(&path, OFlags::WRONLY).ok()) else { return };
        // It is asked only now: the file stays that of the process that had this pid when it was opened.
        if super::pidfd::is_our_child(child) {
            let _ = rustix::io::write(&file, &self.text[..self.length]);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn make_so(&self, _child: u32) {}
}

/// Whether this process may make its children [expendable](Expendable::make_so): their files belong to whom its own
/// belongs to.
pub(crate) fn may_raise_children() -> bool {
    cfg!(target_os = "linux") && open_own().is_ok()
}

fn open_own() -> std::io::Result<std::os::fd::OwnedFd> {
    procfs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY)
}

/// The files that count the processes of our control group that the OOM killer has taken.
pub(crate) fn counters() -> Vec<File> {
    let groups = procfs::read(c"/proc/self/cgroup").unwrap_or_default();
    let open = |path: &String| File::open(path).ok().filter(|file| kills_by(file).is_some());
    groups.lines().filter_map(counters_of).filter_map(|paths| paths.iter().find_map(open)).collect()
}

/// How many those are so far; `None` where that can't be known.
pub(crate) fn kills(counters: &[File]) -> Option<u64> {
    counters.iter().filter_map(kills_by).max()
}

/// What one of these files says now: it may be read again and again.
fn kills_by(file: &File) -> Option<u64> {
    let mut text = [0; 512];
    let length = file.read_at(&mut text, 0).ok()?;
    kills_in(std::str::from_utf8(text.get(..length)?).ok()?)
}

/// The files that may count them, for a line of `/proc/PID/cgroup` (cgroups(7)): in a container its own group may be
/// where others have the root.
fn counters_of(line: &str) -> Option<[String; 2]> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_end_matches('/'));
    let (mount, name) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.events"),
        names if names.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        }
        _ => return None,
    };
    Some([format!("{mount}{path}/{name}"), format!("{mount}/{name}")])
}

fn kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_count() {
        let of = |line: &str| counters_of(line).map(|files| files[0].clone());
        assert_eq!(of("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b/memory.events"));
        assert_eq!(of("0::/").as_deref(), Some("/sys/fs/cgroup/memory.events"));
        let v1 = Some("/sys/fs/cgroup/memory/x:y/memory.oom_control");
        assert_eq!(of("9:memory:/x:y").as_deref(), v1);
        assert_eq!(of("9:cpu,memory:/x:y").as_deref(), v1);
        assert_eq!([of("3:cpu,cpuacct:/x"), of("nonsense")], [None, None]);
        assert_eq!(kills_in("low 0\nhigh 0\nmax 3\noom 2\noom_kill 17\noom_group_kill 0\n"), Some(17));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_score_is_higher_than_ours() {
        let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        let Expendable { text, length } = Expendable::rather_than_us().unwrap();
        let higher: i32 = std::str::from_utf8(&text[..length]).unwrap().parse().unwrap();
        assert_eq!(higher, (own + MORE).min(1000));
    }
}
