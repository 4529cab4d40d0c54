//! The processes of a server: by its control group where it has one, else by whose child is whose.

use std::collections::{HashMap, HashSet};
use std::fs;

use super::cgroup::Group;
use super::orphans::Orphans;
use super::process::{Process, all_processes, threads_of};

/// How many processes there are, and threads in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) processes: u32,
    pub(super) threads: u32,
}

/// Memory of all processes, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Memory {
    /// What is shared counts by its share.
    pub(super) pss: f64,
    /// What it does not share.
    pub(super) uss: f64,
    /// What the kernel keeps to find it: a process that forks has its own, threads share theirs.
    pub(super) page_tables: f64,
}

impl Memory {
    /// From what proc(5) has in `smaps_rollup` and `status` of a process.
    fn parse(rollup: &str, status: &str) -> Option<Self> {
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let private = |name| field(rollup, name);
        let huge = private("Private_Hugetlb").unwrap_or(0.0);
        Some(Self {
            pss: field(rollup, "Pss")?,
            uss: private("Private_Clean")? + private("Private_Dirty")? + huge,
            page_tables: field(status, "VmPTE")?,
        })
    }

    fn of(process: u32) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).ok();
        Self::parse(&text("smaps_rollup")?, &text("status")?)
    }
}

/// A server's processes.
#[derive(Debug)]
pub(super) struct Tree {
    /// The first one, if it is known.
    root: Option<u32>,
    group: Option<Group>,
    /// Of one of ours that has no group.
    orphans: Option<Orphans>,
}

impl Tree {
    pub(super) fn new(root: u32, group: Option<Group>, orphans: Option<Orphans>) -> Self {
        Self { root: Some(root), group, orphans }
    }

    /// Of a server of which only its address is known.
    pub(super) fn unknown() -> Self {
        Self { root: None, group: None, orphans: None }
    }

    /// Tells whether anything can be seen of it: it may be on another machine.
    pub(super) fn is_known(&self) -> bool {
        self.root.is_some()
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Counts; `None` if no process is left, or where there is no /proc.
    pub(super) fn count(&self) -> Option<Count> {
        let count = match &self.group {
            Some(group) => {
                let processes = group.processes()?.len() as u32;
                Count { processes, threads: group.threads()?.max(processes) }
            }
            None => {
                let members = self.members();
                let threads = members.iter().map(|process| process.threads).sum();
                Count { processes: members.len() as u32, threads }
            }
        };
        (count.processes > 0).then_some(count)
    }

    /// Tells whether any process has more than one thread. (Counts don't: the group's count of threads has the dead.)
    pub(super) fn has_threads(&self) -> bool {
        self.ids().into_iter().any(|id| threads_of(id) > 1)
    }

    /// The ids of the processes.
    pub(super) fn ids(&self) -> Vec<u32> {
        match &self.group {
            Some(group) => group.processes().unwrap_or_default(),
            None => self.members().iter().map(|process| process.id).collect(),
        }
    }

    /// Adds up what each process has, which costs the kernel a walk through each one's pages; `None` if
    /// that may not be known of one, or there is none.
    pub(super) fn memory(&self) -> Option<Memory> {
        let mut sum = None;
        for id in self.ids() {
            let Some(one) = Memory::of(id) else {
                // one that has gone meanwhile has none
                if Process::of(id).is_some_and(|process| !process.is_dead) {
                    return None;
                }
                continue;
            };
            let Memory { pss, uss, page_tables } = sum.unwrap_or_default();
            sum = Some(Memory {
                pss: pss + one.pss,
                uss: uss + one.uss,
                page_tables: page_tables + one.page_tables,
            });
        }
        sum
    }

    /// Those that live, by whose child is whose; they can be found again after the server's end.
    pub(super) fn members(&self) -> Vec<Process> {
        if self.root.is_none() {
            return Vec::new();
        }
        let (dead, alive): (Vec<_>, Vec<_>) =
            all_processes().into_iter().partition(|process| process.is_dead);
        if let Some(orphans) = &self.orphans {
            dead.iter().filter(|process| orphans.has(process)).for_each(Orphans::reap);
        }
        descendants(&alive, |process| self.has(process)).into_iter().cloned().collect()
    }

    /// Whether it is the first process, or in its process group, if it is the leader of that, or an orphan:
    /// a process that has lost its parent is still a part of the server.
    fn has(&self, process: &Process) -> bool {
        let root = self.root.is_some_and(|root| process.id == root || process.group == root);
        root || self.orphans.as_ref().is_some_and(|orphans| orphans.has(process))
    }
}

/// Those for which `is_first` holds, their children, and theirs.
fn descendants(all: &[Process], is_first: impl Fn(&Process) -> bool) -> Vec<&Process> {
    let mut children: HashMap<u32, Vec<&Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<&Process> = all.iter().filter(|process| is_first(process)).collect();
    let mut seen: HashSet<u32> = found.iter().map(|process| process.id).collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        next += 1;
        for child in children.get(&process.id).into_iter().flatten() {
            if seen.insert(child.id) {
                found.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: u32, parent: u32, group: u32, threads: u32) -> Process {
        Process { id, parent, group, threads, started: 4711, is_dead: false }
    }

    #[test]
    fn a_server_is_its_first_process_and_what_came_of_it() {
        let all = [
            process(1, 0, 1, 1),
            process(10, 1, 10, 1),
            // a child in a group of its own, with a thread and a grandchild
            process(11, 10, 11, 2),
            process(12, 11, 11, 1),
            // its parent has gone
            process(13, 1, 10, 1),
            // another program's
            process(20, 1, 20, 5),
            process(21, 20, 20, 1),
        ];
        let of = |root: u32| {
            let tree = Tree::new(root, None, None);
            let mut ids: Vec<u32> =
                descendants(&all, |process| tree.has(process)).iter().map(|process| process.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(of(10), [10, 11, 12, 13]);
        assert!(of(99).is_empty());
    }

    #[test]
    fn memory_is_read_from_the_roll_up() {
        let text = "5641a4266000-7fffb49e2000 ---p 00000000 00:00 0   [rollup]\nRss:      1752 kB\nPss:       \
                    246 kB\nPss_Dirty:   112 kB\nPrivate_Clean:    4 kB\nPrivate_Dirty:  16 kB\n";
        let status = "Name:\tforkd\nVmPTE:\t      44 kB\n";
        let memory = Memory { pss: 246.0, uss: 20.0, page_tables: 44.0 };
        assert_eq!(Memory::parse(text, status), Some(memory));
        assert_eq!((Memory::parse("", status), Memory::parse(text, "")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn counts_this_process() {
        let tree = Tree::new(std::process::id(), None, None);
        let count = tree.count().unwrap();
        assert!(count.processes >= 1 && count.threads > count.processes, "{count:?}");
        assert!(tree.memory().unwrap().uss > 100.0);
        assert!(tree.has_threads());
        assert!(tree.members().iter().all(|process| process.alive().is_some()));
    }
}
