//! An attendant: a process that serves no clients of the listeners, and that the master keeps alive, such as the one that
//! answers scrapers of metrics.
//!
//! It holds sockets of its own and those of the listeners, to ask how long their queues are. It is born with the names of
//! the listeners as they are then. So where those change the master replaces it: the next one takes the clients that
//! come, and the old one finishes with those that it has. It ends when its shutdown descriptor becomes readable: told so,
//! or because the master has died.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::context::Context;
use super::descriptors::Closing;
use super::listeners::Listeners;
use super::oom::KILL;
use super::post_fork::silence;
use super::saved::SavedPart;
use super::view::Socket;
use crate::limit::RateLimit;
use crate::model::starts::{EARLY, Starts};
use crate::reactor::Reactor;
use crate::scoreboard::{Cause, Scoreboard};
use crate::service::Protocol;
use crate::sys::fd::{CloseSet, pipe};
use crate::sys::fork::{PidCells, Watch, fork};
use crate::sys::limits::raise_open_files;
use crate::sys::pidfd::{Ended, how_it_ended, signal_child};
use crate::sys::signal::TermHeld;
use crate::transport::Listener;
use crate::{Error, events};

/// What an attendant has to work with.
pub struct Duties<'a> {
    /// Becomes readable when it is to end.
    pub shutdown: BorrowedFd<'a>,
    /// Its own sockets.
    pub listeners: &'a [Arc<Listener>],
    /// The sockets of the master.
    pub sockets: Vec<Socket>,
    /// What the children of the master do.
    pub board: &'static Scoreboard,
}

/// How long a client of an attendant may be silent, and how long it may be there.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// In all.
    pub whole: Duration,
}

impl Duties<'_> {
    /// Serves the clients of its own sockets, each by a protocol from `make`, until it is to end; then it finishes with
    /// those that are there.
    ///
    /// # Errors
    ///
    /// Those of a [`Reactor`].
    pub fn serve<P: Protocol>(&self, limits: Limits, make: impl FnMut() -> P) -> Result<(), Error> {
        let cannot = |cause| Error::os("cannot wait for clients", cause);
        raise_open_files();
        let mut reactor = Reactor::new()?;
        reactor.limit_time(Some(limits.idle), Some(limits.whole));
        let listening = reactor.listen_on(self.listeners.iter().map(Arc::clone), make).map_err(cannot)?;
        let (mut listening, watch) = (Some(listening), Rc::new(Cell::new(None)));
        let own = Rc::clone(&watch);
        let end = reactor.watch(self.shutdown, move |reactor| {
            listening.take().into_iter().for_each(|listening| reactor.unlisten(listening));
            own.take().into_iter().for_each(|watch| reactor.unwatch(watch));
        });
        watch.set(Some(end.map_err(cannot)?));
        reactor.run()
    }
}

/// What runs in it. After an error the master starts it again.
type Work = Box<dyn Fn(Duties<'_>) -> Result<(), Error>>;

/// The attendant, as the master sees it: the process that has the work, and older ones that finish.
pub struct Attendant {
    /// For log lines: "metrics server".
    name: &'static str,
    listeners: Vec<Arc<Listener>>,
    work: Work,
    current: Option<Process>,
    leaving: Vec<Process>,
    /// Which listening sockets the current one knows, see [`Listeners::changes`].
    knows: u64,
    starts: Starts,
    log_limit: RateLimit,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    /// Becomes readable when it is dead.
    watch: OwnedFd,
    /// The end of its shutdown pipe that the master has: closing it tells the process to end.
    parent_pipe: Option<OwnedFd>,
    since: Instant,
}

impl Process {
    /// Tells it to leave when it has answered.
    fn dismiss(&mut self, cx: &Context) {
        if let Some(parent_pipe) = self.parent_pipe.take() {
            cx.descriptors.remove(parent_pipe.as_raw_fd());
        }
    }
}

impl Attendant {
    /// One of this name, which has these sockets and does this work until it is told to end.
    pub fn new(
        name: &'static str,
        listeners: Vec<Listener>,
        work: impl Fn(Duties<'_>) -> Result<(), Error> + 'static,
    ) -> Self {
        Self {
            name,
            listeners: listeners.into_iter().map(Arc::new).collect(),
            work: Box::new(work),
            current: None,
            leaving: Vec::new(),
            knows: 0,
            starts: Starts::default(),
            log_limit: RateLimit::default(),
        }
    }

    /// Writes its sockets down. Its processes end with the program that forked them: that is the other end of their pipes.
    pub(super) fn save(&self) -> Vec<SavedPart> {
        self.listeners.iter().map(|listener| SavedPart::of(self.name, listener.save())).collect()
    }

    pub(super) fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The descriptors to poll, with the pid that each stands for.
    pub(super) fn watches(&self) -> impl Iterator<Item = (BorrowedFd<'_>, u32)> {
        self.current.iter().chain(&self.leaving).map(|process| (process.watch.as_fd(), process.pid))
    }

    /// When to try again to start one.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.starts.not_before().filter(|&then| self.current.is_none() && then > now)
    }

    /// Sees to it that there is a process, which knows the sockets as they are.
    pub(super) fn on_turn(&mut self, cx: &mut Context, listeners: &Listeners) {
        if self.knows != listeners.changes()
            && let Some(mut process) = self.current.take()
        {
            process.dismiss(cx);
            self.leaving.push(process);
        }
        let is_early = self.starts.not_before().is_some_and(|then| cx.now < then);
        if self.current.is_some() || is_early {
            return;
        }
        match self.spawn(cx, Socket::all(listeners).collect()) {
            Ok(process) => {
                let own = [&process.watch].into_iter().chain(&process.parent_pipe);
                cx.descriptors.add(own.map(AsRawFd::as_raw_fd));
                self.knows = listeners.changes();
                self.current = Some(process);
            }
            Err(error) => {
                self.starts.rest(cx.now);
                if let Some(suppressed) = self.log_limit.admit(cx.now) {
                    events::attendant_fork_failed(self.name, &error, suppressed);
                }
            }
        }
    }

    fn spawn(&self, cx: &mut Context, sockets: Vec<Socket>) -> std::io::Result<Process> {
        let asked = sockets.iter().filter_map(|socket| socket.listener.as_ref());
        let own = self.listeners.iter().chain(asked).map(AsRawFd::as_raw_fd);
        let mut closing = Closing::all_but(own.collect());
        let close = closing.of(&cx.descriptors);
        let (shutdown, parent_pipe) = pipe()?;
        let mut parent_pipe = Some(parent_pipe);
        let (board, pid) = (cx.board, AtomicU32::new(0));
        let (blocked, null) = (&cx.blocked, cx.null.as_ref());
        let _held = TermHeld::hold();
        let expendable = cx.oom.score();
        let _lent = board.lend()?;
        let cells = PidCells { parent: &pid, child: None };
        let child = fork(blocked, cells, Watch::Descriptor, || {
            if let Some(expendable) = expendable {
                expendable.become_so();
            }
            if begin(board, close, null).is_err() {
                return Cause::Failed.status();
            }
            // or it would hold itself
            drop(parent_pipe.take());
            let duties = Duties { shutdown: shutdown.as_fd(), listeners: &self.listeners, sockets, board };
            let cause = match catch_unwind(AssertUnwindSafe(|| (self.work)(duties))) {
                Ok(Ok(())) => Cause::Retired,
                Ok(Err(error)) => {
                    log::error!("{} cannot go on: {}", self.name, error.sentence());
                    Cause::Failed
                }
                Err(_) => Cause::Panicked,
            };
            cause.status()
        })?;
        let watch = child.watch.ok_or_else(|| std::io::Error::from_raw_os_error(libc::EBADF))?;
        Ok(Process { pid: child.pid.cast_unsigned(), watch, parent_pipe, since: cx.now })
    }

    /// A watch is readable: its process is dead.
    pub(super) fn reap(&mut self, cx: &mut Context, pid: u32) {
        let mut process = match self.leaving.iter().position(|process| process.pid == pid) {
            Some(at) => self.leaving.swap_remove(at),
            None => {
                let Some(process) = self.current.take_if(|process| process.pid == pid) else { return };
                if cx.now < process.since + EARLY {
                    self.starts.failed(cx.now)
                } else {
                    self.starts.worked()
                }
                let how = match how_it_ended(&process.watch) {
                    Ended::Exit(status) => format!("status {status}"),
                    Ended::Signal(KILL) => cx.oom.cause(cx.now).to_string(),
                    Ended::Signal(signal) => Cause::Signal(signal).to_string(),
                    Ended::Unknown => "unknown".to_owned(),
                };
                if !cx.is_stopping()
                    && let Some(suppressed) = self.log_limit.admit(cx.now)
                {
                    events::attendant_ended(self.name, pid, &how, suppressed);
                }
                process
            }
        };
        process.dismiss(cx);
        cx.descriptors.remove(process.watch.as_raw_fd());
    }

    /// Ends all its processes: also one that is stopped, and whatever a client waits for.
    pub(super) fn end(&self) {
        self.watches().for_each(|(_, pid)| _ = signal_child(pid, Signal::SIGKILL));
    }
}

/// Becomes the process. It ends when its master says so, and not at a SIGTERM, which may go to the whole process group (as
/// that of timeout(1)): it has work until all the others are done. SIGTERM is held back already.
fn begin(board: &Scoreboard, close: &CloseSet, null: Option<&File>) -> std::io::Result<()> {
    board.read_only()?;
    silence(null);
    close.close_in_child();
    Ok(())
}

impl fmt::Debug for Attendant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, current, leaving, .. } = self;
        f.debug_struct("Attendant")
            .field("name", name)
            .field("current", current)
            .field("leaving", leaving)
            .finish_non_exhaustive()
    }
}
