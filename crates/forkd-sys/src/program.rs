//! Programs that a process of ours runs and waits for.
//!
//! Each is in a process group of its own, and a slot in a list says which: so a signal handler by which
//! this process dies can end the groups first. The list needs no lock, as a handler may not wait for
//! one; slots are used again and never freed.

mod image;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::calls::{is_forbidden, is_forbidden_io};
use super::orphans::Orphans;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, Signal, getpid, kill_process_group, test_kill_process_group};

pub use image::{FIRST_SOCKET, Image, become_program};

/// Whether a program may gain privileges by its file (prctl(2), `PR_SET_NO_NEW_PRIVS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// As always.
    Keep,
    /// Neither it nor what it starts.
    Drop,
}

/// A running program; with its group it is killed when dropped, unless it has been waited for.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// Readable once it has ended.
    watch: OwnedFd,
    /// Where its group is written down, until it has been waited for.
    slot: Option<&'static GroupSlot>,
    orphans: Option<Orphans>,
}

impl Program {
    /// Starts a program with what this process was given by its caller: signals that are ignored or blocked, and
    /// limits. It has no descriptors but those of the command. It is killed when the thread that started it dies, where the
    /// system can do that (Linux, FreeBSD).
    ///
    /// # Errors
    ///
    /// As fork(2) and execve(2).
    pub fn start(command: &mut Command, privileges: Privileges) -> io::Result<Self> {
        Self::start_in(command, privileges, Vec::new())
    }

    /// Starts a program in control groups: it writes itself into these files, each a group's
    /// `cgroup.procs`, before it is a program of its own.
    pub fn start_in(command: &mut Command, privileges: Privileges, groups: Vec<OwnedFd>) -> io::Result<Self> {
        let parent = getpid();
        command.process_group(0);
        let prepare = move || {
            // 0 is the writer
            groups.iter().try_for_each(|group| rustix::io::write(group, b"0").map(|_| ()))?;
            prepare(parent, privileges)
        };
        // SAFETY: between fork and exec, maybe beside the locks of other threads, it makes system calls only.
        unsafe { command.pre_exec(prepare) };
        let start = || command.spawn().map(|child| (GroupSlot::take(child.id().cast_signed()), child));
        let (slot, mut child) = with_signals_blocked(start)?;
        match watch(slot.group()) {
            Ok(watch) => Ok(Self { child, watch, slot: Some(slot), orphans: Orphans::new() }),
            Err(error) => {
                slot.signal(Signal::KILL);
                slot.leave();
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended, if it has; it stays to be waited for.
    pub fn ended(&self) -> Option<ExitStatus> {
        let end = end_of(self.slot?.group(), libc::WNOHANG).ok().flatten()?;
        // SAFETY: waitid(2) fills this in of each child that has ended.
        let status = unsafe { end.si_status() };
        // as wait(2) writes it, on every system
        Some(ExitStatus::from_raw(match end.si_code {
            libc::CLD_EXITED => status << 8,
            libc::CLD_DUMPED => status | 0x80,
            _ => status,
        }))
    }

    /// Signals all of its group, but not once it has been waited for: the number may be another's then.
    pub fn signal(&self, signal: Signal) {
        if let Some(slot) = self.slot {
            slot.signal(signal);
        }
    }

    /// What tells of its orphans, which are to be [reaped](Self::reap) then; `None` if they are another process's.
    pub fn orphans(&self) -> Option<&Orphans> {
        self.orphans.as_ref()
    }

    /// Waits for its orphans that have ended.
    pub fn reap(&self) {
        if let Some(orphans) = &self.orphans {
            orphans.reap(self.id());
        }
    }

    /// Whether it has left a process behind; to be asked when it has been waited for. Of one that has left its group,
    /// too, only a process that adopts orphans knows.
    pub fn is_survived(&self) -> bool {
        if let Some(are_left) = super::orphans::are_left() {
            return are_left;
        }
        let group = Pid::from_raw(self.child.id().cast_signed());
        group.is_some_and(|group| test_kill_process_group(group) != Err(rustix::io::Errno::SRCH))
    }

    /// Waits for its end. What it leaves of its group goes on.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(slot) = self.slot.take() {
            slot.leave();
        }
        self.child.wait()
    }
}

impl AsFd for Program {
    /// Becomes readable when the program ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // std keeps the status of one that has been waited for
        let _ = self.wait();
    }
}

/// In the new process, which has blocked all signals: the last steps before exec.
fn prepare(parent: Pid, privileges: Privileges) -> io::Result<()> {
    if privileges == Privileges::Drop {
        match super::sandbox::refuse_new_privileges() {
            // a filter forbids it: then it is done already, as to put on a filter takes it or a privilege
            Err(error) if is_forbidden_io(&error) => {}
            outcome => outcome?,
        }
    }
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        match rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
            // then it outlives us where we are killed
            Err(errno) if is_forbidden(errno) => {}
            outcome => outcome?,
        }
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let _ = parent;
    super::fd::close_others_at_exec();
    super::limits::hand_down()?;
    Ok(super::disposition::caller::hand_down()?)
}

/// Starts a short helper of this process: a program in its process group, with no signal ignored or blocked. Where SIGCHLD is
/// ignored the kernel waits for it, and keeps no status.
///
/// # Errors
///
/// As fork(2) and execve(2).
pub fn spawn_helper(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec, maybe beside the locks of other threads, it makes system calls only.
    unsafe { command.pre_exec(expect_nothing_of_signals) };
    // std forks for it
    with_signals_blocked(|| super::stack::lend_stack(|| with_children_kept(|| command.spawn())))
}

/// Starts a program by `start`, by std, which waits for a child that could not execute one, and takes it for a mistake of its
/// own if the kernel has done that already. Other children that die in this moment are waited for afterwards.
fn with_children_kept<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if super::disposition::action_of(libc::SIGCHLD) != Some(libc::SIG_IGN) {
        return start();
    }
    super::disposition::set_unchecked(libc::SIGCHLD, libc::SIG_DFL);
    let started = start();
    super::disposition::set_unchecked(libc::SIGCHLD, libc::SIG_IGN);
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    started
}

/// Starts a program by `start`. In the new process a handler of ours could run before exec, and speak for this one.
fn with_signals_blocked<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}

/// In the new process: no signal is ignored or blocked.
fn expect_nothing_of_signals() -> io::Result<()> {
    super::disposition::reset_all();
    Ok(SigSet::empty().thread_set_mask()?)
}

/// A descriptor that becomes readable when our child ends, which must not have been waited for.
fn watch(pid: i32) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    if !super::portable()
        && let Some(pid) = Pid::from_raw(pid)
    {
        match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            Err(errno) if is_forbidden(errno) => {}
            opened => return Ok(opened?),
        }
    }
    let (ended, held) = super::fd::pipe()?;
    let wait = move || {
        while !has_ended(pid, 0) {}
        drop(held);
    };
    std::thread::Builder::new().name("exec".into()).spawn(wait)?;
    Ok(ended)
}

/// Whether our child has ended, which stays to be waited for, or is none of ours. Async-signal-safe.
fn has_ended(pid: i32, options: libc::c_int) -> bool {
    end_of(pid, options).map_or_else(|errno| errno != Errno::EINTR, |end| end.is_some())
}

/// What waitid(2) tells of our child that has ended, which stays to be waited for, so that its number stays its own.
/// Async-signal-safe.
fn end_of(pid: i32, options: libc::c_int) -> nix::Result<Option<libc::siginfo_t>> {
    // SAFETY: zeroed, it is a value: siginfo_t consists of integers, and pointers that may be null.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = options | libc::WEXITED | libc::WNOWAIT;
    // SAFETY: the kernel writes to `info`.
    Errno::result(unsafe { libc::waitid(libc::P_PID, pid as _, &raw mut info, options) })?;
    // with WNOHANG, there is no signal of one that lives
    Ok((info.si_signo != 0).then_some(info))
}

/// Where a group is written down.
#[derive(Debug)]
struct GroupSlot {
    /// Its number, which is that of its first process; 0: the slot is free.
    group: AtomicI32,
    next: OnceLock<Box<GroupSlot>>,
}

static GROUPS: GroupSlot = GroupSlot::new();

impl GroupSlot {
    const fn new() -> Self {
        Self { group: AtomicI32::new(0), next: OnceLock::new() }
    }

    fn take(group: i32) -> &'static Self {
        let mut slot = &GROUPS;
        while slot.group.compare_exchange(0, group, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            slot = slot.next.get_or_init(|| Box::new(Self::new()));
        }
        slot
    }

    fn taken() -> impl Iterator<Item = &'static Self> {
        let slots = std::iter::successors(Some(&GROUPS), |slot| slot.next.get().map(|next| &**next));
        slots.filter(|slot| slot.group() != 0)
    }

    fn group(&self) -> i32 {
        self.group.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        self.group.store(0, Ordering::Relaxed);
    }

    fn signal(&self, signal: Signal) {
        // 0 would be our own group
        if let Some(group) = Pid::from_raw(self.group()).filter(|group| !group.is_init()) {
            let _ = kill_process_group(group, signal);
        }
    }
}

/// How long programs have to end by themselves before this process dies of a signal: less than the
/// master waits before it kills.
const END_TIMEOUT: Duration = Duration::from_millis(250);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// Ends the programs that this process has, and their groups, in a handler by which it will die.
/// Async-signal-safe.
pub fn end_all() {
    if GroupSlot::taken().next().is_none() {
        return;
    }
    GroupSlot::taken().for_each(|slot| slot.signal(Signal::TERM));
    let pause = rustix::thread::Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos() as _ };
    // by the clock: while the system is busy, a pause may last for long
    let since = Instant::now();
    while since.elapsed() < END_TIMEOUT
        && !GroupSlot::taken().all(|slot| has_ended(slot.group(), libc::WNOHANG))
    {
        let _ = rustix::thread::nanosleep(&pause);
    }
    GroupSlot::taken().for_each(|slot| slot.signal(Signal::KILL));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::super::fd::wait_readable;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    #[test]
    fn a_program_is_told_from_one_that_has_ended() {
        let mut program =
            Program::start(Command::new("cat").stdin(Stdio::piped()), Privileges::Keep).expect("cat");
        let pid = program.slot.expect("a slot").group();
        assert!(!wait_readable(&program, Duration::ZERO) && !has_ended(pid, libc::WNOHANG));
        assert!(program.ended().is_none());
        program.child.stdin.take();
        assert!(wait_readable(&program, LIMIT) && has_ended(pid, libc::WNOHANG));
        assert_eq!(program.ended().expect("ended").code(), Some(0));
        // asking has not waited for it
        assert!(program.wait().expect("wait").success());
        assert!(GroupSlot::taken().all(|slot| slot.group() != pid));
    }

    #[test]
    fn what_is_dropped_is_killed_with_its_group() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        let mut program = Program::start(&mut command, Privileges::Keep).expect("sh");
        let mut line = String::new();
        let stdout = program.child.stdout.take().expect("stdout");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a pid");
        let sleeper = std::path::PathBuf::from(format!("/proc/{}/stat", line.trim()));
        assert!(sleeper.exists());
        drop(program);
        let until = Instant::now() + LIMIT;
        while std::fs::read_to_string(&sleeper).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < until);
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_signal_goes_to_the_group() {
        let mut program = Program::start(Command::new("sleep").arg("1000"), Privileges::Keep).expect("sleep");
        program.signal(Signal::TERM);
        assert_eq!(program.wait().expect("wait").signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn one_that_is_not_there_is_an_error_and_takes_no_slot() {
        let error =
            Program::start(&mut Command::new("/nowhere/program"), Privileges::Keep).expect_err("absent");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
