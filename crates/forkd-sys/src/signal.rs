//! The handlers that children inherit; the masks are in `mask`.
//!
//! The master keeps all signals blocked that it does not act on, and lets in most others only while it
//! waits in `ppoll`; a child keeps both kinds blocked for good. The rest, by which a child dies, have
//! handlers that are right in either process, from the first instruction on; all are installed once, in
//! the master, and inherited. So a fork needs no masking, and a child no system call to set up its signals.

mod mask;

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigHandler, Signal};
use rustix::process::{Resource, Rlimit, getpid, setrlimit};

use super::call_off::call_off;
use super::disposition::{replace, set, set_unchecked};
use super::shutdown_fd::ShutdownFd;

pub use super::disposition::caller::{Caller, adopt as adopt_caller, caller};
pub use mask::{Blocked, StopsHeld, TermHeld, pending_stop};

/// SIGCHLD as every program expects it: for helpers that are waited for at the start, and for what
/// a handler in a child runs.
#[inline(always)]
pub fn restore_sigchld() {
    set_unchecked(libc::SIGCHLD, libc::SIG_DFL);
}

/// Ignores SIGCHLD: the kernel reaps each child at its death, and there is never a zombie.
pub fn ignore_sigchld() -> io::Result<()> {
    set(Signal::SIGCHLD, SigHandler::SigIgn, SaFlags::empty())
}

/// Ignores SIGXFSZ, as the Rust runtime ignores SIGPIPE: a write beyond the limit on the size of files fails with
/// EFBIG, and the writer deals with that.
pub fn ignore_file_size_limit() -> io::Result<()> {
    set(Signal::SIGXFSZ, SigHandler::SigIgn, SaFlags::empty())
}

/// Notes that this process ends by a signal, or (`None`) by exit(3). It runs in a signal handler.
pub type Recorder = dyn Fn(Option<u8>) + Sync;

/// A thin pointer to the (fat) pointer to the recorder; null before there is one.
static RECORDER: AtomicPtr<&'static Recorder> = AtomicPtr::new(ptr::null_mut());

/// The signals of a process that has gone wrong.
const CRASHES: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// The signals that only the master acts on, while it waits.
const HANDLED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTTIN, Signal::SIGTTOU];

/// The signals that end a child, and ask the master to stop.
const DEADLY: [Signal; 2] = [Signal::SIGTERM, Signal::SIGQUIT];

/// Ends a call that waits in the kernel (`accept`). By default it is ignored, so one from outside does no harm.
pub(super) const NUDGE: Signal = Signal::SIGURG;

/// Has a call that waits in the kernel begin anew (`thread`). By default it is ignored, too. It is another one, as a signal
/// has one handler, which says whether calls are restarted.
pub(super) const POKE: Signal = Signal::SIGWINCH;

/// The process whose children the handlers below tell from itself.
static MASTER: AtomicU32 = AtomicU32::new(0);

/// Makes the calling process the master, as far as the handlers of this module are concerned.
pub fn become_master() {
    MASTER.store(std::process::id(), Ordering::Relaxed);
}

fn is_master() -> bool {
    getpid().as_raw_pid().cast_unsigned() == MASTER.load(Ordering::Relaxed)
}

/// What the master itself does at those of [`DEADLY`].
static OF_THE_MASTER: [OnceLock<SigHandler>; DEADLY.len()] = [const { OnceLock::new() }; DEADLY.len()];

/// Has children die by SIGTERM and SIGQUIT, with the programs that they run, after a word to the recorder; in the master
/// that happens which would have happened without this.
///
/// A stop ends thousands of children by this handler, and each window of text that it runs and page that it writes to is
/// a page fault for each of them. So it is short, it makes system calls without the C library where it can, and
/// `child.ld` has it beside what a child has run before.
pub fn have_children_die() -> io::Result<()> {
    for (signal, of_the_master) in DEADLY.into_iter().zip(&OF_THE_MASTER) {
        let before = replace(signal, SigHandler::SigAction(on_deadly), SaFlags::SA_RESTART)?;
        // the first time only: a second server of this process finds the handler itself there
        let _ = of_the_master.set(before);
    }
    Ok(())
}

extern "C" fn on_deadly(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !is_master() {
        super::program::end_all();
        record(Some(signal as u8));
        die(signal);
        return;
    }
    let number = DEADLY.into_iter().position(|deadly| deadly as i32 == signal);
    match number.and_then(|number| OF_THE_MASTER[number].get()) {
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        Some(SigHandler::Handler(handler)) => handler(signal),
        _ => {}
    }
}

/// Ends this process by `signal`, from within a handler in which it is blocked.
fn die(signal: i32) {
    // a stop is no reason for a core file, which SIGQUIT would leave
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    set_unchecked(signal, libc::SIG_DFL);
    // SAFETY: kill(2) and sigprocmask(2) are async-signal-safe; `set` is a local.
    unsafe {
        libc::kill(getpid().as_raw_pid(), signal);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Has `recorder` called before a process of ours dies by one of the signals of a crash, and before a child
/// leaves by exit(3), which is not forkd's way.
///
/// `recorder` must be async-signal-safe: atomics and write(2), no allocation, no locks.
pub fn record_crashes(recorder: &'static Recorder) -> io::Result<()> {
    RECORDER.store(Box::into_raw(Box::new(recorder)), Ordering::Release);
    extern "C" fn at_exit() {
        if !is_master() {
            record(None);
        }
    }
    // SAFETY: the function reads atomics and calls the recorder.
    unsafe { libc::atexit(at_exit) };
    CRASHES.into_iter().try_for_each(die_by)
}

fn die_by(signal: Signal) -> io::Result<()> {
    // RESETHAND: the raise below finds the default action. NODEFER: it is not held back.
    // ONSTACK: a stack overflow is recorded too, on the stack that std gives the main thread.
    set(
        signal,
        SigHandler::Handler(record_and_die),
        SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK,
    )
}

extern "C" fn record_and_die(signal: i32) {
    record(Some(signal as u8));
    // SAFETY: raise(3) is async-signal-safe.
    unsafe { libc::raise(signal) };
}

fn record(signal: Option<u8>) {
    let recorder = RECORDER.load(Ordering::Acquire);
    if !recorder.is_null() {
        // SAFETY: set only by `record_crashes`, to a box that is never freed.
        let recorder = unsafe { *recorder };
        recorder(signal);
    }
}

/// How many seconds an orphan may go on.
static ORPHAN_SECONDS: AtomicU32 = AtomicU32::new(0);

/// The signal by which a child hears of its parent's death, and one that waits for its client that it is called off.
const ORPHANED: Signal = Signal::SIGALRM;

/// Has SIGALRM give an orphan `grace` (rounded up to seconds) to finish, and then end it; one that still waits for its
/// client ([`call_off`](super::call_off)) ends at once, orphan or not.
///
/// Children ask for it at their parent's death ([`at_death_of`]). The handler starts alarm(2), whose own
/// SIGALRM finds another one.
pub fn prepare_orphan_deadline(grace: Duration) -> io::Result<()> {
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    ORPHAN_SECONDS.store(u32::try_from(seconds).unwrap_or(u32::MAX), Ordering::Relaxed);
    set_orphaned()
}

fn set_orphaned() -> io::Result<()> {
    set(ORPHANED, SigHandler::Handler(on_orphaned), SaFlags::SA_RESETHAND | SaFlags::SA_RESTART)
}

extern "C" fn on_orphaned(_: i32) {
    // One that waits for its client ends. The master has its own ways to do so, and any other goes on as long as that.
    if is_master() || call_off() || !is_orphan() {
        let _ = set_orphaned();
        return;
    }
    match ORPHAN_SECONDS.load(Ordering::Relaxed) {
        0 => {
            super::program::end_all();
            // SAFETY: _exit(2) is async-signal-safe.
            unsafe { libc::_exit(0) }
        }
        seconds => {
            let _ = set(ORPHANED, SigHandler::Handler(on_grace_over), SaFlags::empty());
            // SAFETY: alarm(2) is async-signal-safe.
            unsafe { libc::alarm(seconds) };
        }
    }
}

extern "C" fn on_grace_over(signal: i32) {
    super::program::end_all();
    die(signal);
}

/// In a process that was called off while it took its client: if that was for the death of its parent, its time to finish
/// begins.
pub fn begin_to_finish() {
    if is_orphan() {
        // SAFETY: raise(3) sends a signal to this thread.
        unsafe { libc::raise(ORPHANED as i32) };
    }
}

/// What a process does when its parent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnParentDeath {
    /// It goes on for the grace time, and ends.
    FinishSoon,
    /// It does what SIGTERM asks of it.
    Terminate,
}

/// In a child: what shall happen at the death of the parent, whose pid is `parent`.
///
/// Only Linux and FreeBSD can; elsewhere a child finishes its connection with no time limit.
pub fn at_death_of(parent: rustix::process::Pid, then: OnParentDeath) {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        use rustix::process::{Signal as Number, getppid, set_parent_process_death_signal};
        let number = if then == OnParentDeath::FinishSoon { Number::ALARM } else { Number::TERM };
        let _ = set_parent_process_death_signal(Some(number));
        // The parent may have died before the request: then the signal will not come.
        if getppid() != Some(parent) {
            let _ = rustix::process::kill_process(getpid(), number);
        }
    }
}

/// What [`shut_on`] has shut; null before there is anything.
static SHUTDOWN: AtomicPtr<ShutdownFd> = AtomicPtr::new(ptr::null_mut());

/// Shuts the descriptor for good when `signal` arrives, and does nothing else then that was to be done before. In an orphan
/// no master is left to end this process after the grace time, so the signal starts its own deadline, too.
///
/// The handler replaces signal-hook's, which copies the actions for all signals to change one: in a worker that is most
/// pages of the heap that it shares with its master.
pub fn shut_on(shutdown: &Arc<ShutdownFd>, signal: Signal) -> io::Result<()> {
    SHUTDOWN.store(Arc::into_raw(Arc::clone(shutdown)).cast_mut(), Ordering::Release);
    set(signal, SigHandler::Handler(on_shut), SaFlags::SA_RESTART)
}

extern "C" fn on_shut(_: i32) {
    // SAFETY: it is set before there is this handler, to a reference that is never given up.
    let Some(shutdown) = (unsafe { SHUTDOWN.load(Ordering::Acquire).as_ref() }) else { return };
    // that of the call that was interrupted
    let errno = nix::errno::Errno::last_raw();
    if is_orphan() {
        shutdown.shut_for_all();
        // SAFETY: raise(3) is async-signal-safe.
        unsafe { libc::raise(ORPHANED as i32) };
    } else {
        shutdown.shut();
    }
    nix::errno::Errno::set_raw(errno);
}

/// Whether the master is no more. Async-signal-safe.
fn is_orphan() -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_pid().cast_unsigned());
    let master = MASTER.load(Ordering::Relaxed);
    // 0: there never was one
    master != 0 && parent != Some(master)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::super::fd::wait_readable;
    use super::*;

    #[test]
    fn a_shut_gate_is_no_socket() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("pair");
        let shutdown = Arc::new(ShutdownFd::new(&socket, true).expect("shutdown"));
        shut_on(&shutdown, Signal::SIGUSR1).expect("register");
        assert!(!wait_readable(shutdown.poll_fd(), Duration::ZERO));
        nix::sys::signal::raise(Signal::SIGUSR1).expect("raise");
        let error = rustix::net::accept(&*shutdown).expect_err("shut");
        assert_eq!(error, rustix::io::Errno::NOTSOCK);
        assert!(wait_readable(shutdown.poll_fd(), Duration::ZERO));
        assert!(nix::sys::socket::getpeername::<nix::sys::socket::UnixAddr>(socket.as_raw_fd()).is_ok());
    }
}
