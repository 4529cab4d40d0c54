//! What a process uses, by proc(5): processor time and memory. Linux only; elsewhere nothing is known.
//!
//! A number says nothing of a process that is not a child of this one: another may have it by now.

use std::ffi::CString;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::procfs;

/// What a process has used and has; it costs two short files of /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The processor time of all of its threads so far, in the program and in the kernel; without that of its children.
    pub cpu: Duration,
    /// The bytes of memory that it has, those that it shares with others included.
    pub rss: u64,
}

impl Usage {
    /// That of the process with this number; `None` if there is none, or if /proc can't be read.
    pub fn of(pid: u32) -> Option<Self> {
        let per_second = unit(SysconfVar::CLK_TCK)?;
        let cpu = cpu(&read(pid, "stat")?, per_second)?;
        Some(Self { cpu, rss: rss(&read(pid, "statm")?, unit(SysconfVar::PAGE_SIZE)?)? })
    }
}

/// The bytes of memory that the process with this number has, of which those that it shares with others are divided among
/// them. The kernel looks at each of its pages (milliseconds for some hundred MB). `None` if there is no such process, or
/// if this one may not know (proc(5), `PTRACE_MODE_READ`).
pub fn pss(pid: u32) -> Option<u64> {
    pss_in(&read(pid, "smaps_rollup")?)
}

/// Whether that process is now the parent of this one, which also tells that both numbers are of the caller's namespace.
pub fn is_child_of(pid: u32, parent: u32) -> bool {
    read(pid, "stat").and_then(|stat| parent_in(&stat)) == Some(parent)
}

fn read(pid: u32, file: &str) -> Option<String> {
    procfs::read(&CString::new(format!("/proc/{pid}/{file}")).ok()?).ok()
}

fn unit(name: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(name).ok().flatten()?).ok().filter(|&unit| unit > 0)
}

/// Of `stat`: the field 4.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Of `stat`: the fields 14 and 15, in clock ticks. The second one is a name in brackets, which may contain anything.
fn cpu(stat: &str, per_second: u64) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let [user, system]: [u64; 2] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
    let ticks = user.checked_add(system)?;
    let nanoseconds = (ticks % per_second) * 1_000_000_000 / per_second;
    Some(Duration::from_secs(ticks / per_second) + Duration::from_nanos(nanoseconds))
}

/// Of `statm`: the second field, in pages.
fn rss(statm: &str, page: u64) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page)
}

/// Of `smaps_rollup`: the line "Pss:", in kB.
fn pss_in(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        for name in ["sh", "a b", ") R 1 2 3 (", "\n", "", "\u{fffd}"] {
            let stat = format!("77 ({name}) S 1 77 77 0 -1 4194560 2 0 0 0 150 25 9 9 20 0 1 0 55 1 1\n");
            assert_eq!(cpu(&stat, 100), Some(Duration::from_millis(1750)), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_such_file_has_no_values() {
        let many = format!("1 (x) S {} {} {}", "0 ".repeat(10), u64::MAX, u64::MAX);
        for text in ["", "77", "77 (sh)", "77 (sh) S 1", "x y z", &many] {
            assert_eq!(cpu(text, 100), None, "{text:?}");
        }
        for text in ["", "5", "a b", &format!("1 {}", u64::MAX)] {
            assert_eq!(rss(text, 4096), None, "{text:?}");
        }
        for text in ["", "Pss:", "Pss: 5", "Pss: x kB", "Pss_Anon: 5 kB"] {
            assert_eq!(pss_in(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!(rss("2000 300 200 1 0 100 0\n", 4096), Some(300 * 4096));
        let rollup =
            "00400000-7ffd [rollup]\nRss:      900 kB\nPss:                 120 kB\nPss_Dirty:  60 kB\n";
        assert_eq!(pss_in(rollup), Some(120 * 1024));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_what_it_uses() {
        use std::hint::black_box;
        let ours = std::process::id();
        let before = Usage::of(ours).expect("usage");
        assert!(before.rss > 0);
        let memory = vec![1_u8; 32 << 20];
        let mut last = before;
        while last.cpu < before.cpu + Duration::from_millis(50) {
            black_box(memory.iter().map(|&byte| u64::from(byte)).sum::<u64>());
            last = Usage::of(ours).expect("usage");
        }
        let (rss, pss) = (last.rss, pss(ours).expect("pss"));
        // other tests of this process have given some back, maybe
        assert!(rss >= 32 << 20 && pss >= 32 << 20, "{rss} {pss}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_the_child_of_its_parent_alone() {
        let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
        assert!(is_child_of(own, parent));
        assert!(!is_child_of(own, own) && !is_child_of(0, parent));
    }

    #[test]
    fn of_no_process_nothing_is_known() {
        for pid in [0, u32::MAX] {
            assert_eq!((Usage::of(pid), pss(pid)), (None, None));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_whose_name_is_no_text_is_known() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::process::CommandExt;
        let directory = tempfile::tempdir().expect("directory");
        let link = directory.path().join(OsStr::from_bytes(b"\xff) Z \n"));
        std::os::unix::fs::symlink("/bin/sleep", &link).expect("link");
        // one file may be many programs, by the name that it is given
        let mut command = std::process::Command::new(&link);
        let mut child = command.arg0("sleep").arg("1000").spawn().expect("spawn");
        let usage = Usage::of(child.id());
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(usage.is_some_and(|usage| usage.rss > 0));
    }
}
