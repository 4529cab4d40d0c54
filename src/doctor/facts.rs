//! What the system says about itself: numbers from /proc, /sys and the control group.
//!
//! Invariant: nothing is changed, and what cannot be read is unknown, with the reason. All files are read below a root
//! directory, which is `/` but in tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::group::Group;
use super::kernel::Kernel;

/// What is known of something, or why it is not.
pub type Fact<T> = Result<T, String>;

/// What this system has to offer.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its name and version.
    pub system: String,
    /// Descriptors of one process (RLIMIT_NOFILE).
    pub open_files: Fact<Limit>,
    /// The most that this limit can be raised to (fs.nr_open).
    pub most_open_files: Fact<u64>,
    /// Open files of all processes (fs.file-max).
    pub all_open_files: Fact<Room>,
    /// Processes and threads of one user (RLIMIT_NPROC).
    pub processes: Fact<Limit>,
    /// That limit doesn't hold for this process.
    pub is_root: bool,
    /// Processes and threads of all users, by their numbers (kernel.pid_max).
    pub pid_max: Fact<Room>,
    /// The same by the memory that they take (kernel.threads-max).
    pub threads_max: Fact<Room>,
    /// The control group.
    pub group: Group,
    /// Connections that a listener queues at most (net.core.somaxconn).
    pub listen_queue: Fact<u64>,
    /// Connections that are half open at most (tcp_max_syn_backlog), and whether cookies take over then.
    pub half_open: Fact<(u64, bool)>,
    /// Bytes of a receive buffer where nothing is said, and at most (net.core.rmem_default, rmem_max).
    pub receive_buffer: Fact<(u64, u64)>,
    /// Connections that the firewall follows; `None` where it follows none.
    pub tracked: Fact<Option<Room>>,
    /// The first and the last local port of clients.
    pub ports: Fact<(u64, u64)>,
    /// How early the port of an ended connection is used again (net.ipv4.tcp_tw_reuse).
    pub reuses_ports: Fact<u64>,
    /// Memory mappings of one process (vm.max_map_count).
    pub mappings: Fact<u64>,
    /// Whether memory is promised that may not be there (vm.overcommit_memory).
    pub overcommit: Fact<u64>,
    /// Which memory has pages of 2 MiB: always, madvise or never.
    pub huge_pages: Fact<String>,
    /// Bytes of memory that programs can still have.
    pub memory: Fact<u64>,
    /// Processors, in words.
    pub processors: String,
    /// System calls and confinement.
    pub kernel: Kernel,
}

/// A limit that a process can raise for itself, from soft to hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// A limit for many, of which some is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How much there is in all.
    pub most: u64,
    /// How much of it is used.
    pub used: u64,
}

impl Room {
    /// What is left.
    pub fn left(self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

impl Facts {
    /// Reads what the files below this directory say; `kernel` was asked before.
    pub fn read(root: &Path, kernel: Kernel) -> Self {
        let files = Files(root);
        let running = files.field("proc/loadavg", |text| number(text.split(['/', ' ']).nth(4)?));
        let of_all = |most: Fact<u64>| Ok(Room { most: most?, used: running.clone()? });
        Self {
            system: system(&files),
            open_files: files.limit("Max open files"),
            most_open_files: files.number("fs/nr_open"),
            all_open_files: files.field("proc/sys/fs/file-nr", |text| {
                let mut numbers = text.split_whitespace().map(number);
                let used = numbers.next()??;
                Some(Room { most: numbers.nth(1)??, used })
            }),
            processes: files.limit("Max processes"),
            is_root: nix::unistd::geteuid().is_root(),
            pid_max: of_all(files.number("kernel/pid_max")),
            threads_max: of_all(files.number("kernel/threads-max")),
            group: Group::read(&files),
            listen_queue: files.number("net/core/somaxconn"),
            half_open: files.number("net/ipv4/tcp_max_syn_backlog").map(|most| {
                // where it can't be told they are on, as they are by default
                (most, files.number("net/ipv4/tcp_syncookies") != Ok(0))
            }),
            receive_buffer: files
                .number("net/core/rmem_default")
                .and_then(|default| Ok((default, files.number("net/core/rmem_max")?))),
            tracked: tracked(&files),
            ports: files.field("proc/sys/net/ipv4/ip_local_port_range", |text| {
                let mut numbers = text.split_whitespace().map(number);
                Some((numbers.next()??, numbers.next()??))
            }),
            reuses_ports: files.number("net/ipv4/tcp_tw_reuse"),
            mappings: files.number("vm/max_map_count"),
            overcommit: files.number("vm/overcommit_memory"),
            huge_pages: files.field("sys/kernel/mm/transparent_hugepage/enabled", |text| {
                Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
            }),
            memory: files.field("proc/meminfo", |text| {
                let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
                number(line.trim().strip_suffix("kB")?).map(|kib| kib * 1024)
            }),
            processors: forkd_server::supervise::Processors::here().to_string(),
            kernel,
        }
    }

    /// Asks this system.
    pub fn here() -> Self {
        let facts = Self::read(Path::new("/"), Kernel::here());
        // a system without /proc has these limits, too
        let [open_files, processes] = super::kernel::limits();
        Self {
            open_files: facts.open_files.or(open_files),
            processes: facts.processes.or(processes),
            ..facts
        }
    }
}

fn system(files: &Files<'_>) -> String {
    match files.text("proc/sys/kernel/osrelease") {
        Ok(release) => format!("Linux {}", release.trim()),
        Err(_) => nix::sys::utsname::uname().map_or_else(
            |_| "an unknown system".into(),
            |name| format!("{} {}", name.sysname().display(), name.release().display()),
        ),
    }
}

/// The files of the module are there if it is loaded, of which any rule that asks for a connection's state sees to.
fn tracked(files: &Files<'_>) -> Fact<Option<Room>> {
    let most = match files.number("net/netfilter/nf_conntrack_max") {
        Err(_) if files.has("proc/sys/net") && !files.has("proc/sys/net/netfilter/nf_conntrack_max") => {
            return Ok(None);
        }
        most => most?,
    };
    Ok(Some(Room { most, used: files.number("net/netfilter/nf_conntrack_count")? }))
}

/// The files of the system, below a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a>(&'a Path);

impl Files<'_> {
    /// The whole text of one.
    pub(super) fn text(&self, path: &str) -> Fact<String> {
        fs::read_to_string(self.path(path)).map_err(|error| match self.has("proc/self") {
            false => "this system has no /proc".into(),
            true => format!("/{path} cannot be read: {error}"),
        })
    }

    /// What of its text counts.
    pub(super) fn field<T>(&self, path: &str, of: impl FnOnce(&str) -> Option<T>) -> Fact<T> {
        of(&self.text(path)?).ok_or_else(|| format!("/{path} says something else than usual"))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// The number that a setting of sysctl(8) has.
    fn number(&self, setting: &str) -> Fact<u64> {
        self.field(&format!("proc/sys/{setting}"), number)
    }

    /// A line of proc_pid_limits(5).
    fn limit(&self, name: &str) -> Fact<Limit> {
        let of = |word: Option<&str>| match word? {
            "unlimited" => Some(u64::MAX),
            word => number(word),
        };
        self.field("proc/self/limits", |text| {
            let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
            Some(Limit { soft: of(words.next())?, hard: of(words.next())? })
        })
    }
}

/// A number that stands alone.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}
