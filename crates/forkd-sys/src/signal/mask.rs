//! Which signals are let in, and when.
//!
//! The invariant: a signal is let in only where something acts on it. Until a daemon has handlers all are
//! blocked, and none that comes meanwhile is lost: the kernel keeps it, also for process 1.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFd;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
use nix::poll::PollTimeout;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
use nix::sys::time::TimeSpec;

use super::{CRASHES, DEADLY, HANDLED, ORPHANED};

/// The signals that ask for the end.
const STOPS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Proof that this process's signals are blocked; the mask is restored when it goes.
#[derive(Debug)]
pub struct Blocked {
    before: SigSet,
    /// What stays blocked in a wait, whatever mask we were started with.
    waiting: SigSet,
}

impl Blocked {
    /// Blocks every signal but those of a process that has gone wrong. Those that can't be blocked are ignored.
    pub fn all() -> Self {
        let mut before = SigSet::empty();
        // sigprocmask(2) fails only for an unknown `how`.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all_but(&[&CRASHES])), Some(&mut before));
        #[cfg(target_os = "linux")]
        crate::disposition::ignore_those_of_the_c_library();
        Self { before, waiting: all_but(&[&CRASHES, &DEADLY, &[ORPHANED], &HANDLED]) }
    }

    /// Lets in those that are handled right in either process, now that there are handlers.
    pub fn let_in_deadly(&self) {
        let open = DEADLY.into_iter().chain([ORPHANED]);
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&open.collect()), None);
    }

    /// Leaves them blocked until the process ends.
    pub fn for_good(self) {
        std::mem::forget(self);
    }

    /// Waits for the descriptors, and lets in what the master acts on meanwhile. A signal ends the wait, too.
    pub fn wait(&self, fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        let waited = nix::poll::ppoll(fds, timeout.map(TimeSpec::from_duration), Some(self.waiting));
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        let waited = {
            // A signal between the two calls has written to the self-pipe, which is among `fds`.
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.waiting), None);
            let millis = timeout.map_or(PollTimeout::NONE, |limit| {
                PollTimeout::try_from(limit.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            });
            let waited = nix::poll::poll(fds, millis);
            self.let_in_deadly();
            waited
        };
        match waited {
            Ok(_) => Ok(()),
            // then the kernel has not touched `fds`, which were made with nothing ready
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

fn all_but(open: &[&[Signal]]) -> SigSet {
    let mut mask = SigSet::all();
    open.iter().copied().flatten().for_each(|signal| mask.remove(*signal));
    mask
}

/// Keeps SIGTERM back while a worker is forked, so that it does not die of one that comes before it
/// knows what SIGTERM asks of a worker.
#[derive(Debug)]
pub struct TermHeld(());

impl TermHeld {
    /// Holds it back from here on.
    pub fn hold() -> Self {
        Self::mask(SigmaskHow::SIG_BLOCK);
        Self(())
    }

    /// In the worker: now it may come.
    pub fn release_in_child() {
        Self::mask(SigmaskHow::SIG_UNBLOCK);
    }

    fn mask(how: SigmaskHow) {
        let _ = sigprocmask(how, Some(&SigSet::from(Signal::SIGTERM)), None);
    }
}

impl Drop for TermHeld {
    fn drop(&mut self) {
        Self::mask(SigmaskHow::SIG_UNBLOCK);
    }
}

/// Keeps back from this thread the signals that ask for the end, so that a caller which waits for something else can
/// look whether one has come ([`pending_stop`]).
#[derive(Debug)]
pub struct StopsHeld {
    before: SigSet,
}

impl StopsHeld {
    /// Holds them back from here on.
    pub fn hold() -> Self {
        let stops = SigSet::from_iter(STOPS);
        // it fails only for an unknown `how`
        let before = stops.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap_or_else(|_| SigSet::empty());
        Self { before }
    }

    /// Takes one that has come, so that the next look tells of another.
    pub fn take(&self) -> Option<Signal> {
        // one that is pending is not waited for
        SigSet::from(pending_stop()?).wait().ok()
    }
}

impl Drop for StopsHeld {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// A signal that asks for the end, has come, and is kept back.
pub fn pending_stop() -> Option<Signal> {
    let mut pending = *SigSet::empty().as_ref();
    // SAFETY: the kernel writes a set of signals to `pending`.
    let asked = unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: `pending` is a set, and each of these is a signal.
    let is_pending = |stop: &Signal| unsafe { libc::sigismember(&raw const pending, *stop as i32) } == 1;
    STOPS.into_iter().filter(|_| asked == 0).find(is_pending)
}
