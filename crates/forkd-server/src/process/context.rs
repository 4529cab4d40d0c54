//! What all parts of the master share.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};

use super::descriptors::Descriptors;
use super::given_up::GivenUp;
use super::lifecycle::{Lifecycle, StopTimes};
use super::oom::OomKiller;
use super::signals::Signals;
use crate::admission::Shortage;
use crate::events::DeathLimits;
use crate::scoreboard::{Cause, Child, Scoreboard};
use crate::sys;
use crate::sys::signal::Blocked;
use crate::transport::udp_filter::UdpFilter;
use crate::{Error, events};

/// What all parts of the master share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) board: &'static Scoreboard,
    pub(super) blocked: Blocked,
    pub(super) signals: Signals,
    pub(super) udp_filter: UdpFilter,
    pub(super) pid: Pid,
    /// How often the configuration has been read.
    pub(super) generation: u32,
    /// How long a stop may take.
    pub(super) stop_times: StopTimes,
    pub(super) descriptors: Descriptors,
    /// When this turn of the loop began: the only clock that the master's parts read.
    pub(super) now: Instant,
    /// What it waited for last had happened already.
    pub(super) is_busy: bool,
    /// A child has woken the master.
    pub(super) is_woken: bool,
    /// fork(2) fails.
    pub(super) shortage: Shortage,
    /// Why it did so last.
    pub(super) fork_errno: i32,
    /// Some workers are up, or some clients have a child: to give up now would cut clients. Of interest, and kept up to
    /// date, until the daemon is ready.
    pub(super) serves: bool,
    pub(super) lifecycle: Lifecycle,
    /// The first workers are up.
    pub(super) is_ready: bool,
    /// What a worker's standard output and error become (`--daemon`).
    pub(super) null: Option<std::fs::File>,
    /// The master may do that for a child; one that has changed its user may not.
    pub(super) raises_children: bool,
    /// Children may be forked before their clients come: it serves all that come, and not one by one.
    pub(super) has_spares: bool,
    pub(super) oom: OomKiller,
    pub(super) given_up: GivenUp,
    pub(super) deaths: DeathLimits,
    /// Given up for a moment when there is no other descriptor left.
    reserve: Option<OwnedFd>,
}

impl Context {
    /// Blocks signals, ignores SIGCHLD, installs the handlers: from here on this process is a master.
    pub(super) fn new(
        board: Scoreboard,
        udp_filter: UdpFilter,
        stop_times: StopTimes,
    ) -> Result<Self, Error> {
        let cannot = |what| move |cause| Error::os(what, cause);
        // Later it would look like a shortage that passes, and clients would wait for nothing.
        sys::fork::require_single_thread().map_err(cannot("cannot serve from this process"))?;
        let blocked = Blocked::all();
        sys::signal::become_master();
        sys::signal::ignore_sigchld().map_err(cannot("cannot ignore SIGCHLD"))?;
        let signals = Signals::new()?;
        // It lives as long as the process: signal handlers look into it.
        let board: &'static Scoreboard = Box::leak(Box::new(board));
        let recorder = Box::leak(Box::new(move |signal: Option<u8>| {
            board
                .record_end(getpid().as_raw_pid().cast_unsigned(), signal.map_or(Cause::Exit, Cause::Signal));
        }));
        sys::signal::record_crashes(recorder).map_err(cannot("cannot install the crash handlers"))?;
        sys::signal::prepare_orphan_deadline(stop_times.grace)
            .map_err(cannot("cannot install the handler of SIGALRM"))?;
        blocked.let_in_deadly();
        let mut context = Self {
            board,
            blocked,
            signals,
            udp_filter,
            pid: getpid(),
            generation: 1,
            stop_times,
            descriptors: Descriptors::default(),
            now: Instant::now(),
            is_busy: false,
            is_woken: false,
            shortage: Shortage::default(),
            fork_errno: 0,
            serves: false,
            lifecycle: Lifecycle::Running,
            is_ready: false,
            null: None,
            raises_children: false,
            has_spares: false,
            oom: OomKiller::new(Instant::now()),
            given_up: GivenUp::default(),
            deaths: DeathLimits::new(),
            reserve: None,
        };
        context.descriptors.add(context.signals.descriptors());
        context.descriptors.add(board.file_descriptor());
        context.descriptors.add(context.oom.descriptors());
        context.restore_reserve();
        Ok(context)
    }

    /// Whether the daemon takes no more clients, so that children that end by a signal are nothing special.
    pub(super) fn is_stopping(&self) -> bool {
        !self.lifecycle.accepts()
    }

    /// Opens what a change of the root directory will put out of reach.
    pub(super) fn keep_what_chroot_hides(&mut self) {
        let _ = crate::processors::Processors::here();
        self.descriptors.add(sys::procfs::keep());
        self.oom.keep_open();
        self.descriptors.add(self.oom.descriptors());
    }

    /// Whether fork(2) has failed, and it is not time to try again.
    pub(super) fn is_short(&self) -> bool {
        self.shortage.retry_at().is_some_and(|then| self.now < then)
    }

    /// Takes note of a failed fork, and says so once.
    pub(super) fn fork_failed(&mut self, error: &std::io::Error) {
        if self.shortage.failed(self.now) {
            events::fork_failing(error);
        }
        self.fork_errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
    }

    /// Takes note of a fork that worked.
    pub(super) fn fork_worked(&mut self) {
        if let Some(lasted) = self.shortage.worked(self.now) {
            events::fork_works_again(lasted);
        }
    }

    /// Frees one descriptor for a connection that could not be accepted for want of any.
    pub(super) fn give_up_reserve(&mut self) -> bool {
        match self.reserve.take() {
            Some(file) => {
                self.descriptors.remove(file.as_raw_fd());
                true
            }
            None => false,
        }
    }

    /// Takes a descriptor back into reserve, if there is none.
    pub(super) fn restore_reserve(&mut self) {
        if self.reserve.is_some() {
            return;
        }
        // A copy of what is open: after a chroot(2) there may be no file to open. Where there is none to be had, it is
        // tried again later.
        if let Ok(reserve) = self.board.wake().as_fd().try_clone_to_owned() {
            self.descriptors.add([reserve.as_raw_fd()]);
            self.reserve = Some(reserve);
        }
    }

    /// How long ago a child was forked.
    pub(super) fn age(&self, child: &Child<'_>) -> Duration {
        Duration::from_millis(self.board.millis(self.now).saturating_sub(child.started_ms()))
    }
}
