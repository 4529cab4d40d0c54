//! A terminal that a program has to itself for a while.
//!
//! Invariant: whatever ends or stops this process, but SIGKILL and SIGSTOP, the terminal is as it was before the
//! process is gone or stands still; and whatever lets it go on gives the terminal back to it, once its shell has
//! made it the terminal's foreground job. Handlers see to that, so it does not matter what threads are at.
//!
//! The keys that interrupt, quit and suspend stay the terminal's: they send signals to the whole job.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The other screen, empty, which has no history (xterm's control sequences).
const ENTER: &[u8] = b"\x1b[?1049h\x1b[H\x1b[2J";
/// Back to the first one, and to the cursor and the colours that it had.
const LEAVE: &[u8] = b"\x1b[?1049l\x1b[m\x1b[?25h";

/// How long the last words may wait for a terminal that takes no more.
const MILLIS: u16 = 200;

struct Tty {
    /// Where keys come from; `None` for standard input.
    keys: Option<OwnedFd>,
    before: Termios,
    raw: Termios,
}

static TTY: OnceLock<Tty> = OnceLock::new();
/// It is ours, and not as it was before.
static IS_HELD: AtomicBool = AtomicBool::new(false);
/// It has been taken since this was asked last.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is this program's; dropping this gives it back.
#[derive(Debug)]
pub struct Held(());

impl Held {
    /// Takes the terminal that is standard output, and that keys come from: that one too if it is another.
    /// A job in the background is stopped until it is in the foreground.
    ///
    /// # Errors
    ///
    /// Those of tcgetattr(3) and sigaction(2), or of open(2) where standard input is no terminal and there is
    /// no /dev/tty.
    pub fn take() -> io::Result<Self> {
        let stdin = io::stdin();
        let keys = match stdin.is_terminal() {
            true => None,
            false => Some(OpenOptions::new().read(true).write(true).open("/dev/tty")?.into()),
        };
        let before = tcgetattr(keys.as_ref().map_or(stdin.as_fd(), AsFd::as_fd))?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.local_modes |= before.local_modes & LocalModes::ISIG;
        let tty = TTY.get_or_init(|| Tty { keys, before, raw });
        // Changes nothing, but in the background it is what stops us, by SIGTTOU: tcsetattr(3).
        tcsetattr(tty.keys(), OptionalActions::Now, &tty.before)?;
        handle_signals()?;
        let held = Self(());
        take(tty);
        Ok(held)
    }

    /// Whether it has been taken since this was asked last, also after the process was stopped: then nothing is
    /// on the screen.
    pub fn is_taken_anew(&self) -> bool {
        IS_TAKEN.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        give_back();
    }
}

impl Tty {
    fn keys(&self) -> BorrowedFd<'_> {
        self.keys.as_ref().map_or(rustix::stdio::stdin(), AsFd::as_fd)
    }

    /// Whether it is this job that has the terminal; also where there are no jobs.
    fn is_in_foreground(&self) -> bool {
        tcgetpgrp(self.keys()).map_or(true, |group| group == getpgrp())
    }
}

/// Async-signal-safe: system calls and atomics.
fn take(tty: &Tty) {
    IS_HELD.store(true, Ordering::Relaxed);
    let _ = tcsetattr(tty.keys(), OptionalActions::Now, &tty.raw);
    say(ENTER);
    IS_TAKEN.store(true, Ordering::Relaxed);
}

/// Makes the terminal what it was before, if it isn't. Async-signal-safe.
pub fn give_back() {
    let Some(tty) = TTY.get().filter(|_| IS_HELD.load(Ordering::Relaxed)) else { return };
    say(LEAVE);
    // another job may have it by now, with modes of its own
    if tty.is_in_foreground() {
        let _ = tcsetattr(tty.keys(), OptionalActions::Now, &tty.before);
    }
    // last: a signal in the midst of this does it again
    IS_HELD.store(false, Ordering::Relaxed);
}

/// Writes to the terminal, if it takes anything.
fn say(words: &[u8]) {
    let out = rustix::stdio::stdout();
    let mut fds = [PollFd::new(out, PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::from(MILLIS)) == Ok(1) {
        let _ = rustix::io::write(out, words);
    }
}

/// The signals of a thread that has gone wrong.
pub const FAULTS: [Signal; 5] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT];

/// The signals that stop a process by default, and can be caught.
const STOPS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Those that do no harm, or can't be caught.
const OTHERS: [i32; 6] =
    [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];

#[cfg(target_os = "linux")]
fn last_signal() -> i32 {
    libc::SIGRTMAX()
}

#[cfg(not(target_os = "linux"))]
fn last_signal() -> i32 {
    31
}

fn handle_signals() -> io::Result<()> {
    STOPS.into_iter().try_for_each(|signal| set(signal, stop))?;
    set(libc::SIGCONT, go_on)?;
    // a number that is no signal, or one of the C library's own, is no error
    (1..=last_signal()).filter(|n| !STOPS.contains(n) && !OTHERS.contains(n)).for_each(|n| _ = set(n, end));
    Ok(())
}

/// Has a handler called at a signal that is not ignored, with all signals blocked meanwhile.
fn set(signal: i32, handler: extern "C" fn(i32)) -> io::Result<()> {
    // SAFETY: sigaction is plain data, for which zeros are a value; the pointers are to locals. The handlers make
    // async-signal-safe calls only, as each says.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, ptr::null(), &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        let is_ignored = before.sa_sigaction == libc::SIG_IGN;
        if is_ignored {
            return Ok(());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        if libc::sigaction(signal, &raw const action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Does what the signal does by default, now. In a handler; async-signal-safe.
fn by_default(signal: i32) {
    // SAFETY: signal(3), raise(3) and sigprocmask(2) are async-signal-safe; `set` is a local.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

/// By a signal that ends a program. At SIGINT it has done what it was told to.
extern "C" fn end(signal: i32) {
    give_back();
    if signal == libc::SIGINT {
        // SAFETY: _exit(2) is async-signal-safe.
        unsafe { libc::_exit(0) }
    }
    by_default(signal);
}

extern "C" fn stop(signal: i32) {
    give_back();
    by_default(signal);
    // Here it goes on. What came meanwhile comes first, if it is to end the program: it has a smaller number. A
    // job without a shell is not stopped, and needs its terminal all the same.
    let _ = set(signal, stop);
    // SAFETY: raise(3) is async-signal-safe.
    unsafe { libc::raise(libc::SIGCONT) };
}

extern "C" fn go_on(_: i32) {
    let Some(tty) = TTY.get() else { return };
    if tty.is_in_foreground() {
        return take(tty);
    }
    // SAFETY: raise(3) is async-signal-safe. It is for the shell to say when the terminal is ours.
    unsafe { libc::raise(libc::SIGSTOP) };
}
