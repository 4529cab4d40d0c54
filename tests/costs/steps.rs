//! Counts the instructions of a child in user mode, from its first to its last, by single steps of ptrace(2): callgrind's count
//! of a child begins with its parent's, which depends on the moment.

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The instructions of the one child that a master forks while `client` does what it does; `None` if this machine lets no
/// process be traced. It must be called by a thread that ends thereafter, which ends the tracing.
pub(crate) fn steps(master: i32, client: impl FnOnce() + Send) -> Option<usize> {
    let births = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    match ptrace::seize(Pid::from_raw(master), births) {
        Err(Errno::EPERM | Errno::ENOSYS) => return None,
        seized => seized.unwrap(),
    }
    let mut steps = 0;
    std::thread::scope(|scope| {
        scope.spawn(client);
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap();
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
                WaitStatus::PtraceEvent(task, ..) if task.as_raw() == master => {
                    ptrace::cont(task, None).unwrap()
                }
                WaitStatus::PtraceEvent(task, ..) => ptrace::step(task, None).unwrap(),
                WaitStatus::Stopped(task, Signal::SIGTRAP) => {
                    steps += 1;
                    ptrace::step(task, None).unwrap();
                }
                WaitStatus::Stopped(task, signal) => ptrace::step(task, signal).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    });
    Some(steps)
}
