//! Counts the system calls and the page faults of a daemon and all that it starts, by ptrace(2), which needs no other
//! program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// For how long nothing must happen, once the clients are done.
const QUIET: Duration = Duration::from_millis(50);

/// The stop that a task reports when it is traced anew, or interrupted.
const EVENT_STOP: i32 = 128;

/// What all processes of a daemon have done meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By number, see syscall(2).
    pub(crate) calls: BTreeMap<u64, usize>,
    pub(crate) faults: u64,
    /// Processes that were started, and threads.
    pub(crate) started: usize,
}

impl Counts {
    pub(crate) fn all_calls(&self) -> usize {
        self.calls.values().sum()
    }
}

/// Traces these processes, and all that they start, while `clients` do what they do; `None` if this machine lets no process be
/// traced. It must be called by a thread that ends thereafter, which ends the tracing.
pub(crate) fn trace(processes: &[i32], clients: impl FnOnce() + Send) -> Option<Counts> {
    let mut tracer = Tracer { alive: BTreeSet::new(), before: BTreeMap::new(), counts: Counts::default() };
    for pid in processes {
        for task in tasks(*pid) {
            match tracer.seize(task) {
                Err(Errno::EPERM | Errno::ENOSYS) => return None,
                // it has just ended
                Err(Errno::ESRCH | Errno::ECHILD) => {}
                seized => seized.unwrap(),
            }
        }
    }
    tracer.before = processes.iter().filter_map(|pid| Some((*pid, faults_of(*pid)?))).collect();
    tracer.alive.iter().for_each(|task| ptrace::syscall(*task, None).unwrap());
    std::thread::scope(|scope| {
        let clients = scope.spawn(clients);
        let mut last = Instant::now();
        while !clients.is_finished() || last.elapsed() < QUIET {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG)) {
                // the second: all have ended
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {
                    std::thread::sleep(Duration::from_micros(20))
                }
                Ok(status) => {
                    tracer.stopped(status);
                    last = Instant::now();
                }
                Err(Errno::EINTR) => {}
                Err(error) => panic!("waitpid: {error}"),
            }
        }
    });
    // of those that have ended they were counted then
    let alive = processes.iter().filter(|pid| tracer.alive.contains(&Pid::from_raw(**pid)));
    let alive: Vec<i32> = alive.copied().collect();
    alive.into_iter().for_each(|pid| tracer.count_faults(pid));
    Some(tracer.counts)
}

struct Tracer {
    alive: BTreeSet<Pid>,
    /// How many page faults those had when it began that were there already.
    before: BTreeMap<i32, u64>,
    counts: Counts,
}

impl Tracer {
    fn seize(&mut self, task: i32) -> Result<(), Errno> {
        let task = Pid::from_raw(task);
        let births =
            Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
        ptrace::seize(task, births | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXIT)?;
        ptrace::interrupt(task)?;
        waitpid(task, Some(WaitPidFlag::__WALL))?;
        self.alive.insert(task);
        Ok(())
    }

    fn stopped(&mut self, status: WaitStatus) {
        let (task, signal) = match status {
            WaitStatus::PtraceSyscall(task) => {
                self.call(task);
                (task, None)
            }
            WaitStatus::PtraceEvent(task, _, event) => {
                if event == libc::PTRACE_EVENT_EXIT && is_process(task) {
                    self.count_faults(task.as_raw());
                }
                self.counts.started += usize::from(event == EVENT_STOP && self.alive.insert(task));
                (task, None)
            }
            WaitStatus::Stopped(task, signal) => {
                (task, Some(signal).filter(|signal| *signal != Signal::SIGTRAP))
            }
            WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                self.alive.remove(&task);
                return;
            }
            other => panic!("{other:?}"),
        };
        // one that was killed meanwhile goes on by itself
        let _ = ptrace::syscall(task, signal);
    }

    fn count_faults(&mut self, pid: i32) {
        let before = self.before.get(&pid).copied().unwrap_or(0);
        self.counts.faults += faults_of(pid).unwrap_or(before).saturating_sub(before);
    }

    fn call(&mut self, task: Pid) {
        let Ok(info) = ptrace::syscall_info(task) else { return };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: at an entry, the kernel has written this part of the union.
            let number = unsafe { info.u.entry.nr };
            *self.counts.calls.entry(number).or_default() += 1;
        }
    }
}

fn tasks(pid: i32) -> Vec<i32> {
    // none, if it has just ended
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Whether it is a process of its own, and no thread of one that goes on.
fn is_process(task: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Tgid:").is_some_and(|id| id.trim() == task.to_string()))
}

/// Minor page faults of a process, all its threads together (proc_pid_stat(5)).
fn faults_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name, in brackets, may have anything in it
    stat.rsplit_once(") ")?.1.split(' ').nth(7)?.parse().ok()
}
