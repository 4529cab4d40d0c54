//! A worker of a pool, as the master knows it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::model::starts::EARLY;
use crate::process::context::Context;
use crate::process::oom::KILL;
use crate::process::program::{Attached, LeftOfProgram};
use crate::process::saved::{SavedProgram, SavedWorker};
use crate::scoreboard::{Cause, Slot, State};
use crate::spec::Upkeep;
use crate::sys::pidfd::{Ended, signal_child, signal_group};

/// How long a program may take to die of SIGABRT.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) slot: u32,
    /// The lowest that no other worker of its pool had.
    pub(super) number: u32,
    /// How many its socket has had.
    pub(super) birth: u64,
    pub(super) watch: OwnedFd,
    pub(super) started: Instant,
    /// It has been told to leave.
    pub(super) dismissed: bool,
    /// It has been told to serve what is queued first.
    pub(super) drains: bool,
    /// It has served, or lived long enough.
    pub(super) settled: bool,
    /// When it is killed, as it accepts by itself and may not leave when it is told to.
    pub(super) kill_at: Option<Instant>,
    /// It has been killed, and will be dead soon.
    pub(super) is_killed: bool,
    /// What the master has of it, if it is a program.
    pub(super) attached: Option<Box<Attached>>,
}

/// What is to be done about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It counts as ready, as it has lived for so long.
    Ready,
    /// It has started for too long, and is killed.
    Late,
    /// It has not left in time, and is killed.
    Overdue,
    /// It has not said in time that it is alive, and is killed.
    Silent,
}

impl Due {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Ready => "is ready",
            Self::Late => "has not become ready in time",
            Self::Overdue => "has not left in time",
            Self::Silent => "has not said in time that it is alive",
        }
    }
}

/// A worker that was forked just now.
#[derive(Debug)]
pub(in crate::process) struct Born {
    pub(super) slot: u32,
    pub(super) number: u32,
    pub(in crate::process) watch: OwnedFd,
    pub(super) attached: Option<Box<Attached>>,
}

impl Born {
    /// All of its descriptors.
    pub(in crate::process) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let attached = self.attached.iter().flat_map(|attached| attached.descriptors());
        [self.watch.as_raw_fd()].into_iter().chain(attached)
    }

    pub(super) fn noted(self, birth: u64, started: Instant) -> Worker {
        let Self { slot, number, watch, attached } = self;
        Worker {
            slot,
            number,
            birth,
            watch,
            started,
            dismissed: false,
            drains: false,
            settled: false,
            kill_at: None,
            is_killed: false,
            attached,
        }
    }
}

impl Worker {
    /// One of the program before this one, with what was left open of it if it is a program.
    pub(super) fn restored(saved: &SavedWorker, watch: OwnedFd, left: LeftOfProgram, cx: &Context) -> Self {
        Self {
            slot: saved.slot,
            number: saved.program.as_ref().map_or(0, |program| program.number),
            birth: 0,
            watch,
            started: cx.now,
            dismissed: saved.dismissed,
            drains: false,
            settled: true,
            kill_at: (saved.dismissed && saved.program.is_some()).then(|| cx.now + cx.stop_times.grace),
            is_killed: false,
            attached: saved.program.as_ref().map(|program| {
                let signal = Signal::try_from(program.stop_signal).unwrap_or(Signal::SIGTERM);
                Box::new(Attached::restored(signal, left))
            }),
        }
    }

    /// Writes it down.
    pub(super) fn save(&self) -> SavedWorker {
        let program = self.attached.as_ref().map(|attached| SavedProgram {
            number: self.number,
            stop_signal: attached.stop_signal as i32,
            notify: attached.notify().map(|socket| socket.as_raw_fd()),
            output: attached.output().map(|pipe| pipe.as_raw_fd()),
        });
        SavedWorker { slot: self.slot, watch: self.watch.as_raw_fd(), dismissed: self.dismissed, program }
    }

    pub(super) fn state(&self, cx: &Context) -> State {
        cx.board.slot(self.slot).state()
    }

    pub(super) fn pid(&self, cx: &Context) -> u32 {
        cx.board.record(self.slot).pid()
    }

    pub(super) fn signal(&self, cx: &Context, signal: Signal) {
        signal_child(self.pid(cx), signal);
    }

    /// Kills it, with its group if it is a program.
    pub(super) fn kill(&mut self, cx: &Context) {
        (self.kill_at, self.is_killed) = (None, true);
        self.signal(cx, Signal::SIGKILL);
        self.kill_group(cx);
    }

    /// Kills it for this reason: by SIGABRT, if it hangs, so that it leaves a core file that tells where.
    pub(super) fn kill_as(&mut self, due: Due, cx: &Context) {
        match &mut self.attached {
            Some(attached) if due == Due::Silent => {
                attached.disarm();
                self.kill_at = Some(cx.now + ABORT_TIMEOUT);
                self.signal(cx, Signal::SIGABRT);
            }
            _ => self.kill(cx),
        }
    }

    /// What is due for it now, or when something will be. One that starts is waited for as the upkeep says.
    pub(super) fn due(&self, upkeep: Option<&Upkeep>, cx: &Context) -> Result<Due, Option<Instant>> {
        let is_over = |then: Option<Instant>| then.is_some_and(|then| then <= cx.now);
        let expires = self.attached.as_ref().and_then(|attached| attached.expires());
        let starting = upkeep.filter(|_| self.state(cx) == State::Starting && !self.is_killed);
        let ready = starting.and_then(|upkeep| self.started.checked_add(upkeep.ready_after?));
        let late = starting.and_then(|upkeep| self.started.checked_add(upkeep.start_timeout));
        match () {
            () if is_over(self.kill_at) => Ok(Due::Overdue),
            () if is_over(expires) => Ok(Due::Silent),
            () if is_over(ready) => Ok(Due::Ready),
            () if is_over(late) => Ok(Due::Late),
            () => Err([self.kill_at, expires, ready, late].into_iter().flatten().min()),
        }
    }

    /// Kills what is left of the group of a program.
    pub(super) fn kill_group(&self, cx: &Context) {
        if self.attached.is_some() {
            signal_group(&self.watch, self.pid(cx), Signal::SIGKILL);
        }
    }

    /// All of its descriptors.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let attached = self.attached.iter().flat_map(|attached| attached.descriptors());
        [self.watch.as_raw_fd()].into_iter().chain(attached)
    }

    /// Tells it to leave after its connection, and kills it then, if that is said. One that is told again has no more time
    /// for that.
    pub(super) fn dismiss(&mut self, kill_at: Option<Instant>, cx: &Context) {
        let is_first = !std::mem::replace(&mut self.dismissed, true);
        if is_first {
            self.kill_at = kill_at;
        }
        match &mut self.attached {
            // to many programs a second signal says not to finish their clients
            Some(_) if !is_first => return,
            Some(attached) => attached.disarm(),
            None => {}
        }
        if cx.board.record(self.slot).place().is_some() {
            // it may not say so
            cx.board.slot(self.slot).begin_to_leave();
        }
        let signal = self.attached.as_ref().map_or(Signal::SIGTERM, |attached| attached.stop_signal);
        self.signal(cx, signal);
    }

    /// Whether it is up, and stays.
    pub(super) fn serves(&self, cx: &Context) -> bool {
        !self.leaves(cx) && self.state(cx) != State::Starting
    }

    /// Whether it takes no more clients: it has been told to leave, or says that it has reached its limit of
    /// connections and serves the last of them.
    pub(super) fn leaves(&self, cx: &Context) -> bool {
        self.dismissed || self.state(cx) == State::Leaving
    }

    /// What it means that a program has ended so. It may leave by the signal itself that tells it to, and a shell or a JVM says
    /// that by its status.
    pub(super) fn cause_as_program(&self, ended: Ended, cx: &Context) -> Cause {
        let told = self.attached.as_ref().filter(|_| self.dismissed).map(|attached| attached.stop_signal);
        let is_told = |signal: u8| told.is_some_and(|told| told as i32 == i32::from(signal));
        match ended {
            Ended::Exit(0) if !self.leaves(cx) => Cause::Recycled,
            Ended::Exit(0) => Cause::Retired,
            Ended::Exit(status) if is_told(status.wrapping_sub(128)) => Cause::Retired,
            Ended::Exit(_) => Cause::Failed,
            Ended::Signal(KILL) => cx.oom.cause(cx.now),
            Ended::Signal(signal) if is_told(signal) => Cause::Retired,
            Ended::Signal(signal) => Cause::Signal(signal),
            Ended::Unknown if self.is_killed => Cause::Signal(KILL),
            Ended::Unknown if self.leaves(cx) => Cause::Retired,
            Ended::Unknown => match cx.oom.cause(cx.now) {
                Cause::Oom => Cause::Oom,
                _ => Cause::Exit,
            },
        }
    }

    /// Whether it serves, or has lived for long enough.
    pub(super) fn has_settled(&self, slot: &Slot, is_application: bool, now: Instant) -> bool {
        let has_served = slot.traffic.connections.load(Ordering::Relaxed) > 0;
        // how long an application takes to start is its own affair
        let is_up = !is_application || slot.state() != State::Starting;
        has_served || (is_up && now >= self.started + EARLY)
    }
}
