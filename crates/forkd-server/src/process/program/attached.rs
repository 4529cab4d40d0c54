//! What the master has of a worker that is a program: the socket at which that says how it is, and the pipe by which its
//! output comes.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::lines::Lines;
use super::notice::{Notice, Watchdog};
use super::notices::Notices;
use crate::service::application::WorkerProgram;
use crate::sys::fd::{pipe, set_nonblocking};

/// How many messages and how many bytes of output are read in one turn of the loop: other workers want a turn, too.
const MESSAGES_AT_ONCE: usize = 16;
const BYTES_AT_ONCE: usize = 64 * 1024;

/// The longest message; one of sd_notify(3) has a few lines.
const LONGEST_MESSAGE: usize = 4096;

/// What the master has of a worker that is a program.
#[derive(Debug)]
pub(in crate::process) struct Attached {
    /// By what it is told to leave.
    pub(in crate::process) stop_signal: Signal,
    /// `None` where the system has none.
    notify: Option<Notices>,
    output: Option<Output>,
    /// What it says of itself.
    pub(in crate::process) status: Option<String>,
    /// How long it may say nothing, and when that is over.
    watchdog: Option<Duration>,
    expires: Option<Instant>,
}

/// The output of a worker.
#[derive(Debug)]
struct Output {
    /// The end of the pipe that the master reads, until all writers have closed theirs.
    pipe: Option<OwnedFd>,
    lines: Lines,
}

/// What the program before this one has left open of a worker.
#[derive(Debug, Default)]
pub(in crate::process) struct LeftOfProgram {
    pub(in crate::process) notify: Option<OwnedFd>,
    pub(in crate::process) output: Option<OwnedFd>,
}

/// What a message calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::process) struct Said {
    /// It is ready.
    pub(in crate::process) ready: bool,
    /// It leaves.
    pub(in crate::process) stopping: bool,
    /// It wants to be ended as if it had said nothing.
    pub(in crate::process) trigger: bool,
}

impl Attached {
    /// Of a new worker in this slot; returns the end of the pipe that the worker gets, too.
    pub(in crate::process) fn new(program: &WorkerProgram, slot: u32) -> io::Result<(Self, Option<OwnedFd>)> {
        let notify = Notices::open(slot)?;
        let (output, theirs) = if program.logs_output() {
            let (ours, theirs) = pipe()?;
            set_nonblocking(&ours, true)?;
            (Some(Output { pipe: Some(ours), lines: Lines::default() }), Some(theirs))
        } else {
            (None, None)
        };
        let (stop_signal, watchdog) = (program.signal(), program.patience());
        Ok((Self { stop_signal, notify, output, status: None, watchdog, expires: None }, theirs))
    }

    /// Of a worker of the program before this one: it is heard still, and may say nothing, as it will leave soon.
    pub(in crate::process) fn restored(stop_signal: Signal, left: LeftOfProgram) -> Self {
        let output = left.output.map(|pipe| Output { pipe: Some(pipe), lines: Lines::default() });
        let notify = left.notify.map(Notices::from);
        Self { stop_signal, notify, output, status: None, watchdog: None, expires: None }
    }

    /// Where it says how it is.
    pub(in crate::process) fn notify(&self) -> Option<BorrowedFd<'_>> {
        self.notify.as_ref().map(AsFd::as_fd)
    }

    /// What its `NOTIFY_SOCKET` says.
    pub(in crate::process) fn notify_name(&self) -> io::Result<Option<OsString>> {
        self.notify.as_ref().map(Notices::name).transpose()
    }

    /// By what its output comes.
    pub(in crate::process) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref()?.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Its descriptors.
    pub(in crate::process) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.notify().into_iter().chain(self.output()).map(|fd| fd.as_raw_fd())
    }

    /// When its watchdog expires.
    pub(in crate::process) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// It is ready: has to say from now on that it is alive.
    pub(in crate::process) fn arm(&mut self, now: Instant) {
        let limit = self.watchdog.filter(|_| self.notify.is_some() && self.expires.is_none());
        self.expires = limit.and_then(|limit| now.checked_add(limit)).or(self.expires);
    }

    /// Waits no more for what it says.
    pub(in crate::process) fn disarm(&mut self) {
        (self.expires, self.watchdog) = (None, None);
    }

    /// Reads what it says.
    pub(in crate::process) fn listen(&mut self, now: Instant) -> Said {
        let (mut all, mut buffer) = (Said::default(), [0; LONGEST_MESSAGE]);
        let Some(notify) = &self.notify else { return all };
        for _ in 0..MESSAGES_AT_ONCE {
            // an error is one of this moment
            let Ok(Some(message)) = notify.receive(&mut buffer) else { break };
            let Notice { ready, stopping, status, watchdog } = Notice::parse(message);
            all = Said {
                ready: all.ready | ready,
                stopping: all.stopping | stopping,
                trigger: all.trigger | (watchdog == Some(Watchdog::Failed)),
            };
            if status.is_some() {
                self.status = status.filter(|status| !status.is_empty());
            }
            if watchdog == Some(Watchdog::Alive) && self.expires.is_some() {
                self.expires = self.watchdog.and_then(|limit| now.checked_add(limit));
            }
        }
        all
    }

    /// Reads its output, and calls `log` with each line that is to be logged, and how many before it were not. At the end of
    /// the output the pipe is closed; its number is returned then.
    pub(in crate::process) fn read(&mut self, now: Instant, mut log: impl FnMut(&str, u64)) -> Option<RawFd> {
        let Output { pipe, lines } = self.output.as_mut()?;
        let mut buffer = [0; 4096];
        for _ in 0..BYTES_AT_ONCE / buffer.len() {
            match rustix::io::read(pipe.as_ref()?, &mut buffer) {
                Ok(0) => return pipe.take().map(|pipe| pipe.as_raw_fd()),
                Ok(read) => lines.feed(&buffer[..read], now, &mut log),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        None
    }

    /// Reads what is left when the worker has died: what has its end of the pipe still is another process, which writes for
    /// itself. Returns how many lines were left out at the end, and the last lines, which may say why it died.
    pub(in crate::process) fn finish(
        &mut self,
        now: Instant,
        mut log: impl FnMut(&str, u64),
    ) -> (u64, Option<String>) {
        self.read(now, &mut log);
        let Some(Output { lines, .. }) = &mut self.output else { return (0, None) };
        let left_out = lines.finish(now, &mut log);
        let last_words = lines.last_words().map(str::trim_start).collect::<Vec<_>>().join(" | ");
        (left_out, Some(last_words).filter(|words| !words.is_empty()))
    }
}
