//! An upgrade: this process executes another program, which goes on with all that is open and all children.
//!
//! ```text
//!         a request                  the trial says that it could           execve(2)
//! Idle ──────────────▶ Trying ───────────────────────────────▶ Ready ─────────────────▶ (the new program) Arriving
//!   ▲                     │ it says why not, ends, or is late    │ that fails             │            │
//!   └─────────────────────┴──────────────────────────────────────┘                        │            ▼
//!   ▲                                         its configuration is refused: it executes ──┘          Idle
//!   └──────────────────────────────────────── the program before it again
//! ```
//!
//! Until the execve(2) nothing has changed. After it the new program makes its stations as at a [reload](super::reload),
//! beside those that were left, whose workers go on to accept meanwhile.

use std::fmt::Debug;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::companion::Notice;
use super::context::Context;
use super::reload::{Parts, Reloader};
use super::saved::{Generations, SavedMaster};
use super::station::Acceptor;
use crate::scoreboard::Child;
use crate::sys::handover::StayOpen;
use crate::sys::pidfd::signal_child;
use crate::sys::signal::{StopsHeld, caller};
use crate::{Error, Failure, events};

/// How long a child that was told to end has until it is killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// The program that may replace this one.
pub trait Replacement: Debug {
    /// Starts a trial of the new program, in a process of its own, with what it would find. `None` is whatever is where this
    /// one was.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn begin_trial(
        &mut self,
        program: Option<OwnedFd>,
        master: &SavedMaster,
        now: Instant,
    ) -> Result<(), Error>;

    /// Becomes readable when the trial has something to say.
    fn trial(&self) -> Option<BorrowedFd<'_>>;

    /// When the trial is late.
    fn deadline(&self) -> Option<Instant>;

    /// How the trial went, once it is over.
    fn take_outcome(&mut self, now: Instant) -> Option<Result<(), Error>>;

    /// Executes the new program. The descriptors of `master` stay open meanwhile. Returns only why that failed.
    fn execute(&mut self, master: &SavedMaster) -> Error;

    /// In the new program: what it goes back by.
    fn before(&self) -> Option<RawFd>;

    /// In the new program: it is in force, and does not go back.
    fn arrive(&mut self);

    /// In the new program: it can't be put in force for this reason. Executes the one before it; returns only why that
    /// failed.
    fn go_back(&mut self, master: &SavedMaster, why: &Error) -> Error;
}

/// How far it has come.
#[derive(Debug)]
enum State {
    Idle,
    Trying,
    Ready,
    /// This is the new program; or the old one again, for this reason.
    Arriving(Option<Error>),
}

/// A request for an upgrade.
#[derive(Debug, Default)]
pub struct Request {
    /// How long the children of programs before the new one may go on.
    pub finish_within: Option<Duration>,
    /// The new program, open; `None`: whatever is where this one was.
    pub program: Option<OwnedFd>,
}

/// Replaces this program by another.
#[derive(Debug)]
pub(super) struct Upgrader {
    replacement: Option<Box<dyn Replacement>>,
    state: State,
    wanted: Option<Request>,
    generations: Generations,
    /// Children of older programs were told to end; when they are killed.
    kill_at: Option<Instant>,
}

impl Upgrader {
    /// Without a replacement: each upgrade is refused.
    pub(super) fn new() -> Self {
        Self {
            replacement: None,
            state: State::Idle,
            wanted: None,
            generations: Generations::default(),
            kill_at: None,
        }
    }

    /// In the new program.
    pub(super) fn arriving(generations: Generations, failed: Option<Error>) -> Self {
        Self { state: State::Arriving(failed), generations, ..Self::new() }
    }

    /// This program may be replaced.
    pub(super) fn replace_by(&mut self, replacement: Box<dyn Replacement>, cx: &Context) {
        cx.descriptors.add(replacement.before());
        self.replacement = Some(replacement);
    }

    /// A signal asks for it.
    pub(super) fn ask(&mut self) {
        self.wanted.get_or_insert_default();
    }

    /// Whether this program has not put its configuration in force yet.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(self.state, State::Arriving(_))
    }

    /// Whether nothing is tried or put in force.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// What tells of the trial.
    pub(super) fn trial(&self) -> Option<BorrowedFd<'_>> {
        self.replacement.as_ref()?.trial()
    }

    pub(super) fn deadline(&self, parts_now: Instant, now_ms: u64) -> Option<Instant> {
        let finish = self
            .generations
            .finish_by_ms
            .map(|at| parts_now + Duration::from_millis(at.saturating_sub(now_ms)));
        let trial = self.replacement.as_ref().and_then(|replacement| replacement.deadline());
        [finish, trial, self.kill_at].into_iter().flatten().min()
    }

    /// Goes on as far as possible. An error means that neither the new program nor the old one can serve.
    pub(super) fn turn(&mut self, reloader: &mut Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        self.end_older_children(parts);
        if self.is_arriving() {
            return self.arrive(reloader, parts);
        }
        // one that comes later has the same answer
        let request = parts.companions.take_upgrade();
        self.wanted = self.wanted.take().or(request);
        if !parts.cx.lifecycle.is_running() {
            return self.refuse_for_good(parts);
        }
        if matches!(self.state, State::Idle)
            && self.wanted.is_some()
            && parts.cx.is_ready
            && reloader.is_idle()
        {
            match self.begin(reloader, parts) {
                Ok(()) => self.state = State::Trying,
                Err(why) => self.refuse(parts, &why),
            }
        }
        if matches!(self.state, State::Trying) {
            match self.take_outcome(parts.cx) {
                None => {}
                Some(Ok(())) => self.state = State::Ready,
                Some(Err(why)) => self.refuse(parts, &why),
            }
        }
        if matches!(self.state, State::Ready) && reloader.is_idle() {
            self.execute(reloader, parts);
        }
        Ok(())
    }

    fn begin(&mut self, reloader: &Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        if self.replacement.is_none() {
            return Err(Error::Config("this program is not one that can be replaced".into()));
        }
        self.require_few_generations(reloader.max_generations(), parts)?;
        let saved = self.save(reloader, parts)?;
        events::upgrading();
        let program = self.wanted.as_mut().and_then(|request| request.program.take());
        self.replacement.as_mut().map_or(Ok(()), |replacement| {
            replacement.begin_trial(program, &saved, parts.cx.now)?;
            parts.cx.descriptors.add(replacement.trial().map(|trial| trial.as_raw_fd()));
            Ok(())
        })
    }

    /// How the trial went, once it is over.
    fn take_outcome(&mut self, cx: &Context) -> Option<Result<(), Error>> {
        let replacement = self.replacement.as_mut()?;
        let trial = replacement.trial().map(|trial| trial.as_raw_fd());
        let outcome = replacement.take_outcome(cx.now)?;
        // it is closed
        trial.into_iter().for_each(|trial| cx.descriptors.remove(trial));
        Some(outcome)
    }

    fn require_few_generations(&self, most: usize, parts: &Parts<'_>) -> Result<(), Error> {
        let born_ms = parts.cx.board.children().map(|child| child.started_ms());
        let older = self.generations.alive(born_ms);
        if older < most {
            return Ok(());
        }
        Err(Error::Unavailable(Failure::from(format!(
            "{older} programs before this one still have connections, and {most} may (max-generations): wait for their end, or \
             ask the next upgrade to end them (--finish-within)"
        ))))
    }

    /// Writes down what the new program goes on with, unless there is a reason why it could not.
    fn save(&self, reloader: &Reloader, parts: &Parts<'_>) -> Result<SavedMaster, Error> {
        let unavailable = |why: &str| Error::Unavailable(Failure::from(why));
        let Parts { cx, listeners, companions, attendants } = parts;
        let holds =
            |acceptor: &Acceptor| matches!(acceptor, Acceptor::Forking(forking) if forking.holds_a_client());
        if listeners.iter().any(|station| holds(&station.acceptor)) {
            return Err(unavailable("a client is held, as no child can be forked for it; try again later"));
        }
        let numbers = listeners.current().map(|station| station.number());
        let board = cx.board.save(numbers, cx.now).ok_or_else(|| {
            unavailable(
                "this daemon has no memory that a successor could have (memfd_create(2) and /dev/shm are missing or forbidden); restart it \
                 instead",
            )
        })?;
        let mut saved_parts = companions.save();
        saved_parts.extend(attendants.iter().flat_map(|attendant| attendant.save()));
        let caller = caller();
        Ok(SavedMaster {
            board,
            stations: listeners.save(),
            inherited: reloader.inherited().save(),
            parts: saved_parts,
            past_connections: listeners.past_connections(),
            given_up: cx.given_up.save(),
            generations: self.generations.next(
                cx.board.millis(cx.now),
                self.wanted.as_ref().and_then(|request| request.finish_within),
            ),
            caller: [caller.ignored, caller.blocked],
        })
    }

    /// The step that can't be taken back, unless it fails.
    fn execute(&mut self, reloader: &Reloader, parts: &mut Parts<'_>) {
        // one that comes from here on is for the new program
        let _held = StopsHeld::hold();
        if parts.cx.signals.are_pending() {
            return;
        }
        if let Err(why) = self.leave(reloader, parts, |replacement, saved| replacement.execute(saved)) {
            self.refuse(parts, &why);
        }
    }

    /// Has the next program, or the one before, executed. Returns only why that failed.
    fn leave(
        &mut self,
        reloader: &Reloader,
        parts: &Parts<'_>,
        execute: impl FnOnce(&mut dyn Replacement, &SavedMaster) -> Error,
    ) -> Result<(), Error> {
        let saved = self.save(reloader, parts)?;
        let stay = StayOpen::new(saved.descriptors());
        let _stay = stay.map_err(|cause| Error::os("cannot keep descriptors open", cause))?;
        self.replacement.as_mut().map_or(Ok(()), |replacement| Err(execute(&mut **replacement, &saved)))
    }

    /// This program goes on, for this reason.
    fn refuse(&mut self, parts: &mut Parts<'_>, why: &Error) {
        self.state = State::Idle;
        self.wanted = None;
        events::upgrade_refused(&why.sentence());
        parts.tell(Notice::UpgradeEnded(Err(why)));
    }

    fn refuse_for_good(&mut self, parts: &mut Parts<'_>) -> Result<(), Error> {
        if self.wanted.is_some() || !matches!(self.state, State::Idle) {
            self.refuse(parts, &Error::Config("the daemon stops".into()));
        }
        Ok(())
    }

    /// Waits until this program's own configuration is in force, or gives way to the one before it.
    fn arrive(&mut self, reloader: &mut Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        let Some(outcome) = reloader.take_outcome() else { return Ok(()) };
        let State::Arriving(failed) = std::mem::replace(&mut self.state, State::Idle) else { return Ok(()) };
        match (outcome, failed) {
            (Ok(()), None) => {
                if let Some(replacement) = &mut self.replacement {
                    replacement.before().into_iter().for_each(|before| parts.cx.descriptors.remove(before));
                    replacement.arrive();
                }
                let older = parts.cx.board.children().filter(|child| self.is_older(child)).count();
                events::upgraded(older);
                parts.tell(Notice::UpgradeEnded(Ok(())));
                Ok(())
            }
            (Ok(()), Some(why)) => {
                self.generations.ended_ms.pop();
                self.refuse(parts, &why);
                Ok(())
            }
            (Err(why), None) => {
                let generations = self.generations.clone();
                self.leave(reloader, parts, |replacement, saved| {
                    // it has not been one
                    replacement.go_back(&SavedMaster { generations, ..saved.clone() }, &why)
                })
            }
            (Err(why), Some(_)) => Err(why),
        }
    }

    /// Whether it was forked by a program before this one.
    fn is_older(&self, child: &Child<'_>) -> bool {
        self.generations.last_ended_ms().is_some_and(|ended| child.started_ms() <= ended)
    }

    /// Ends the children of older programs, if their time is over.
    fn end_older_children(&mut self, parts: &mut Parts<'_>) {
        let (cx, now_ms) = (&*parts.cx, parts.cx.board.millis(parts.cx.now));
        let signal_all = |of_worker: Signal, of_child: Signal| {
            let mut count = 0;
            for child in cx.board.children().filter(|child| self.is_older(child) && !child.is_superseded()) {
                let signal = if child.is_watched() { of_worker } else { of_child };
                count += u32::from(signal_child(child.pid(), signal));
            }
            count
        };
        if self.generations.finish_by_ms.is_some_and(|at| at <= now_ms) {
            let count = signal_all(Signal::SIGQUIT, Signal::SIGTERM);
            if count > 0 {
                events::older_ended(count);
            }
            self.generations.finish_by_ms = None;
            self.kill_at = Some(cx.now + KILL_TIMEOUT);
        } else if self.kill_at.is_some_and(|at| at <= cx.now) {
            signal_all(Signal::SIGKILL, Signal::SIGKILL);
            self.kill_at = None;
        }
    }
}
