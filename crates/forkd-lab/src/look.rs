//! What the kernel tells of processes (proc_pid_stat(5), proc_pid_smaps(5), proc_pid_status(5)).

use std::fs;

use forkd_net::Error;

use crate::lab::missing;

/// An error where the kernel tells nothing of processes.
pub(crate) fn is_possible() -> Result<(), Error> {
    let us = std::process::id();
    let is_ours = |text: String| text.split_once(' ').is_some_and(|(pid, _)| pid == us.to_string());
    match fs::read_to_string("/proc/self/stat").is_ok_and(is_ours) {
        true => Ok(()),
        false => Err(untold("processes")),
    }
}

/// The kernel does not tell something of processes.
pub(crate) fn untold(what: &str) -> Error {
    missing(format!(
        "/proc tells nothing of {what}: it is not mounted, or is that of another process namespace, or the kernel has no such \
         file; mount -t proc proc /proc"
    ))
}

/// A process in the list of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) parent: i32,
    /// Its state as a letter: R runs, S sleeps, Z is dead and has not been waited for.
    pub(crate) state: char,
}

/// Those that have this parent.
pub(crate) fn children_of(parent: i32) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().map_while(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all = pids.filter_map(|pid| parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?));
    all.filter(|process| process.parent == parent).collect()
}

/// A line of /proc/PID/stat; the name in it may have blanks and parentheses.
fn parse_stat(line: &str) -> Option<Process> {
    let mut fields = line.rsplit_once(") ")?.1.split(' ');
    Some(Process { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All that it has mapped and that is there: what is shared counts in each that shares it.
    pub(crate) resident: u64,
    /// What is shared counts by its share.
    pub(crate) proportional: u64,
}

pub(crate) fn memory_of(pid: i32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Memory { resident: field(&text, "Rss:")?, proportional: field(&text, "Pss:")? })
}

/// Whether a process waits for something.
pub(crate) fn sleeps(pid: i32) -> Option<bool> {
    Some(parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.state == 'S')
}

/// How often a process has given up the processor to wait.
pub(crate) fn waits_of(pid: i32) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "voluntary_ctxt_switches:")
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let expected = Some(Process { parent: 12, state: 'Z' });
        assert_eq!(parse_stat("4711 (a) S 1 (b) Z 12 4711 0\n"), expected);
        assert_eq!(parse_stat("4711 (forkd"), None);
    }

    #[test]
    fn a_field_is_named_by_all_of_its_name() {
        let text = "Rss:  20 kB\nPss:  10 kB\nPss_Anon: 5 kB\nnonvoluntary_ctxt_switches:\t3\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!((field(text, "Pss:"), field(text, "voluntary_ctxt_switches:")), (Some(10), Some(7)));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id() as i32;
        assert!(memory_of(pid).is_some_and(|memory| memory.resident >= memory.proportional));
        assert!(waits_of(pid).is_some());
        assert!(!children_of(rustix::process::getppid().unwrap().as_raw_nonzero().get()).is_empty());
    }
}
