//! `fork`, as a safe function.
//!
//! It is safe because it refuses wherever the child could not run ordinary code: in a process
//! with more than one thread (another thread may hold a lock that no thread of the child would
//! release), or with signals unblocked (a handler could run in the child before it is set up; the
//! [`Blocked`] guard is the proof). The child runs its closure and nothing after it: it never
//! returns into the caller's frames, and leaves by `_exit`, so no `atexit` work of the parent runs.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

mod apart;

use super::signal::Blocked;
use super::stack;

pub use apart::{ChildTask, Inherited, fork_apart};

/// The status of a child whose closure panicked (sysexits(3) `EX_SOFTWARE`).
pub const PANICKED: u8 = 70;

/// How the parent learns of a child's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It keeps no descriptor; the child announces its end itself.
    Nothing,
    /// By a descriptor that becomes readable at its death, see [`Child::watch`].
    Descriptor,
}

/// A forked child, as its parent sees it.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// Readable once the child is dead: a pidfd, or on the portable path the read end of a pipe
    /// whose write end only the child holds.
    pub watch: Option<OwnedFd>,
}

/// Where the child's pid is stored before either process goes on.
#[derive(Debug, Clone, Copy)]
pub struct PidCells<'a> {
    /// In the parent; may be memory that the child doesn't have.
    pub parent: &'a AtomicU32,
    /// In the child.
    pub child: Option<&'a AtomicU32>,
}

/// Forks; the child runs `child` and exits with the status that it returns.
///
/// # Errors
///
/// `EAGAIN` and `ENOMEM` as in fork(2); `Unsupported` if the process has several threads.
pub fn fork(
    _blocked: &Blocked,
    cells: PidCells<'_>,
    watch: Watch,
    child: impl FnOnce() -> u8,
) -> io::Result<Child> {
    require_single_thread()?;
    stack::lend_stack(|| {
        fork_in_place(cells, watch, || {
            stack::have_stack();
            child()
        })
    })
}

fn fork_in_place(cells: PidCells<'_>, watch: Watch, child: impl FnOnce() -> u8) -> io::Result<Child> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !super::portable() {
        // A seccomp filter may know nothing of clone3(2); then the child has not come to be, and its
        // closure is still there.
        let mut child = Some(child);
        let mut run_once = || child.take().map_or(PANICKED, |child| child());
        return match linux::fork(cells, watch, &mut run_once) {
            Err(error) if super::calls::is_forbidden_io(&error) => portable(cells, watch, run_once),
            forked => forked,
        };
    }
    portable(cells, watch, child)
}

/// Runs the child's closure and ends the process, come what may.
fn run(child: impl FnOnce() -> u8) -> ! {
    let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
    exit(status)
}

/// Ends this process at once, without running what the parent registered with `atexit`.
// a function of its own would be one more window of text for each child to fault in
#[inline(always)]
pub fn exit(status: u8) -> ! {
    #[cfg(target_os = "linux")]
    // SAFETY: exit_group(2) has no preconditions, and does not return.
    let _ = unsafe { super::raw::syscall4(libc::SYS_exit_group, status.into(), 0, 0, 0) };
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

fn portable(cells: PidCells<'_>, watch: Watch, child: impl FnOnce() -> u8) -> io::Result<Child> {
    let pipe = match watch {
        Watch::Descriptor => Some(super::fd::pipe()?),
        Watch::Nothing => None,
    };
    // SAFETY: the process has one thread and its signals are blocked (see the module's text), so
    // the child may run any code; it ends in `run`, which never returns here.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            cells.child.inspect(|cell| cell.store(std::process::id(), Ordering::Relaxed));
            let write_end = pipe.map(|(read_end, write_end)| {
                drop(read_end);
                super::fd::keep_until_death(&write_end);
                write_end
            });
            run(move || {
                let status = child();
                drop(write_end);
                status
            })
        }
        pid => {
            cells.parent.store(pid.cast_unsigned(), Ordering::Relaxed);
            Ok(Child { pid, watch: pipe.map(|(read_end, _)| read_end) })
        }
    }
}

/// Fails unless this process has exactly one thread.
///
/// # Errors
///
/// `Unsupported`, with a sentence.
pub fn require_single_thread() -> io::Result<()> {
    if thread_count_is_one() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this process has more than one thread, and a forked child could hang on a lock of another; \
         start threads in the children, or choose a model that does not fork",
    ))
}

#[cfg(target_os = "linux")]
#[inline]
fn thread_count_is_one() -> bool {
    #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
    if libc_knows_of_one() {
        return true;
    }
    kernel_counts_one()
}

/// Whether glibc is sure that this process has one thread: by `__libc_single_threaded` (glibc 2.32, sys/single_threaded.h),
/// which every start of a thread clears. It can't know of a thread that was made without it, by clone(2), which could hold
/// no lock of the C library or of Rust's.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[inline(always)]
fn libc_knows_of_one() -> bool {
    let flag: *const u8;
    // SAFETY: reads the address of a symbol from the linker's table; the symbol is weak, so where there is none that is null.
    unsafe {
        std::arch::asm!(
            ".weak __libc_single_threaded",
            "mov {flag}, [rip + __libc_single_threaded@GOTPCREL]",
            flag = out(reg) flag,
            options(nostack, readonly, preserves_flags)
        );
    }
    // SAFETY: it is a `char`, which other threads may clear only if there are some, and then this one need not see it.
    !flag.is_null() && unsafe { flag.read_volatile() } != 0
}

#[cfg(target_os = "linux")]
#[cold]
fn kernel_counts_one() -> bool {
    use nix::errno::Errno;
    use nix::sched::{CloneFlags, unshare};
    // unshare(2): CLONE_THREAD is a no-op for a single-threaded process and EINVAL for any other.
    // It is the cheapest question the kernel answers (no file is opened).
    match unshare(CloneFlags::CLONE_THREAD) {
        Ok(()) => true,
        Err(Errno::EINVAL) => false,
        // a seccomp filter may forbid it
        Err(_) => super::procfs::threads().is_ok_and(|threads| threads == 1),
    }
}

/// POSIX has no way to count threads; here the caller's word (`Server::serve_forever`) must do.
#[cfg(not(target_os = "linux"))]
fn thread_count_is_one() -> bool {
    true
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linux {
    use std::os::fd::FromRawFd;

    use super::super::raw;
    use super::*;

    /// What clone3(2) takes for a child like that of fork(2), whose pid goes into these cells.
    #[inline(always)]
    pub(super) fn clone_args(cells: PidCells<'_>) -> libc::clone_args {
        // SAFETY: all fields of clone_args are integers, for which zero is "not used".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = libc::CLONE_PARENT_SETTID as u64;
        args.parent_tid = cells.parent.as_ptr().addr() as u64;
        if let Some(cell) = cells.child {
            args.flags |= libc::CLONE_CHILD_SETTID as u64;
            args.child_tid = cell.as_ptr().addr() as u64;
        }
        args.exit_signal = libc::SIGCHLD as u64;
        args
    }

    /// fork by clone3(2): no atfork handlers, the pid in cells of ours, and a pidfd that can't
    /// miss the child (pidfd_open after fork may find it gone already).
    pub(super) fn fork(cells: PidCells<'_>, watch: Watch, child: impl FnMut() -> u8) -> io::Result<Child> {
        let mut pidfd: i32 = -1;
        let mut args = clone_args(cells);
        if watch == Watch::Descriptor {
            args.flags |= libc::CLONE_PIDFD as u64;
        }
        args.pidfd = (&raw mut pidfd).addr() as u64;
        // SAFETY: `args` lives through the call, and the addresses in it are of live cells.
        // Without CLONE_VM the child has a copy of this thread's stack and goes on from here. The
        // process has one thread and its signals are blocked, so no lock is held by anyone else
        // and no handler runs; libc's own bookkeeping in fork(3) is for atfork handlers (forkd
        // has none) and for the main thread's cached id, which stays that of the master's: libc compares
        // it with those of this process's other threads, of which none is the same.
        let pid = unsafe {
            raw::syscall4(libc::SYS_clone3, (&raw mut args).addr(), size_of::<libc::clone_args>(), 0, 0)
        };
        match pid? {
            0 => run(child),
            pid => Ok(Child {
                pid: pid as i32,
                // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor that has no other owner.
                watch: (watch == Watch::Descriptor).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) }),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_may_not_fork() {
        // the test harness itself has several threads
        let blocked = Blocked::all();
        let cells = PidCells { parent: &AtomicU32::new(0), child: None };
        let error = fork(&blocked, cells, Watch::Nothing, || 0).expect_err("threads");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("more than one thread"));
    }
}
