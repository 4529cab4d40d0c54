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

use std::convert::Infallible;
use std::fmt::Debug;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::companion::Notice;
use super::context::Context;
use super::generations::Generations;
use super::reload::{Parts, Reloader};
use super::saved::SavedMaster;
use super::station::Acceptor;
use crate::sandbox::Level;
use crate::scoreboard::Child;
use crate::service::Service;
use crate::sys::handover::StayOpen;
use crate::sys::pidfd::signal_child;
use crate::sys::signal::{StopsHeld, caller};
use crate::{Error, Failure, events};

/// How long a program that has got its process back waits until it tries again to serve.
const TRY_AGAIN: Duration = Duration::from_secs(1);

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
    fn execute(&mut self, master: &SavedMaster) -> Result<Infallible, Error>;

    /// What of all this children close.
    fn descriptors(&self) -> Vec<RawFd>;

    /// No new program is executed: ends the trial, if there is one.
    fn abandon(&mut self);

    /// There is no way back any more, or none was needed.
    fn arrive(&mut self);

    /// In the new program: it can't be put in force for this reason. Executes the one before it; returns only why that
    /// failed.
    fn go_back(&mut self, master: &SavedMaster, why: &Error) -> Result<Infallible, Error>;
}

/// How far it has come.
#[derive(Debug)]
enum State {
    Idle,
    Trying,
    Ready,
    Arriving(Arrival),
}

/// This program has got the process, and serves nothing of its own yet.
#[derive(Debug, Default)]
struct Arrival {
    /// It is the old one again, for this reason.
    failed: Option<Error>,
    /// When to try again to serve.
    again: Option<Instant>,
    /// The programs before the one to go back to.
    generations_before: Generations,
    /// What the master gives up once this program serves.
    confine: Option<(Level, Vec<Service>)>,
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
    /// Those of the replacement that children close.
    descriptors: Vec<RawFd>,
}

impl Upgrader {
    /// Without a replacement: each upgrade is refused.
    pub(super) fn new() -> Self {
        Self {
            replacement: None,
            state: State::Idle,
            wanted: None,
            generations: Generations::default(),
            descriptors: Vec::new(),
        }
    }

    /// In the new program, or the old one again if the new one has `failed`.
    pub(super) fn arriving(saved: &SavedMaster, failed: Option<Error>) -> Self {
        let (generations, generations_before) = (saved.generations.clone(), saved.generations_before.clone());
        let arrival = Arrival { failed, generations_before, ..Arrival::default() };
        Self { state: State::Arriving(arrival), generations, ..Self::new() }
    }

    /// This program may be replaced.
    pub(super) fn replace_by(&mut self, replacement: Box<dyn Replacement>, cx: &Context) {
        self.replacement = Some(replacement);
        self.hide_descriptors(cx);
    }

    /// The master gives up what these services don't need, once this program serves.
    pub(super) fn confine_on_arrival(&mut self, level: Level, services: Vec<Service>) {
        if let State::Arriving(arrival) = &mut self.state {
            arrival.confine = Some((level, services));
        }
    }

    /// A signal asks for it.
    pub(super) fn ask(&mut self) {
        self.wanted.get_or_insert_default();
    }

    /// Whether this program has got the process, and has nothing of its own in force yet.
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

    pub(super) fn deadline(&self, cx: &Context, reloader: &Reloader) -> Option<Instant> {
        let left = |at: u64| Duration::from_millis(at.saturating_sub(cx.board.millis(cx.now)));
        let again = match &self.state {
            State::Arriving(_) if reloader.has_outcome() => return Some(cx.now),
            State::Arriving(arrival) => return arrival.again,
            _ => self.generations.deadline_ms().map(|at| cx.now + left(at)),
        };
        let trial = self.replacement.as_ref().and_then(|replacement| replacement.deadline());
        [again, trial].into_iter().flatten().min()
    }

    /// Goes on as far as possible. An error means that neither the new program nor the old one can serve.
    pub(super) fn turn(&mut self, reloader: &mut Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        let result = self.go_on(reloader, parts);
        self.hide_descriptors(parts.cx);
        result
    }

    fn go_on(&mut self, reloader: &mut Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        let is_arriving = self.is_arriving();
        if !is_arriving {
            self.end_older_children(parts);
        }
        if !parts.cx.lifecycle.is_running() {
            self.refuse_for_good(parts);
            return Ok(());
        }
        if is_arriving {
            return self.arrive(reloader, parts);
        }
        if self.is_idle() && parts.cx.is_ready && reloader.is_idle() {
            self.wanted = self.wanted.take().or_else(|| self.take_request(parts));
            if self.wanted.is_some() {
                match self.begin(reloader, parts) {
                    Ok(()) => self.state = State::Trying,
                    Err(why) => self.refuse(parts, &why),
                }
            }
        }
        if matches!(self.state, State::Trying) {
            let outcome =
                self.replacement.as_mut().and_then(|replacement| replacement.take_outcome(parts.cx.now));
            match outcome {
                None => {}
                Some(Ok(())) => self.state = State::Ready,
                Some(Err(why)) => self.refuse(parts, &why),
            }
        }
        if matches!(self.state, State::Ready) && reloader.is_idle() && parts.companions.may_be_left() {
            self.execute(reloader, parts);
        }
        Ok(())
    }

    /// Takes a request of a companion, and with it the descriptor of its program, which children close already.
    fn take_request(&mut self, parts: &mut Parts<'_>) -> Option<Request> {
        let request = parts.companions.take_upgrade()?;
        self.descriptors.extend(request.program.as_ref().map(AsRawFd::as_raw_fd));
        Some(request)
    }

    /// Has children close what the replacement has open now.
    fn hide_descriptors(&mut self, cx: &Context) {
        let now = self.replacement.as_ref().map(|replacement| replacement.descriptors()).unwrap_or_default();
        if now != self.descriptors {
            self.descriptors.iter().filter(|fd| !now.contains(fd)).for_each(|&fd| cx.descriptors.remove(fd));
            cx.descriptors.add(now.iter().copied());
            self.descriptors = now;
        }
    }

    fn begin(&mut self, reloader: &Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        if self.replacement.is_none() {
            return Err(Error::Config("this program is not one that can be replaced".into()));
        }
        self.require_few_generations(reloader.max_generations(), parts)?;
        let saved = self.save(reloader, parts)?;
        events::upgrading();
        parts.tell(Notice::Upgrading);
        let program = self.wanted.as_mut().and_then(|request| request.program.take());
        self.replacement
            .as_mut()
            .map_or(Ok(()), |replacement| replacement.begin_trial(program, &saved, parts.cx.now))
    }

    fn finish_within(&self) -> Option<Duration> {
        self.wanted.as_ref().and_then(|request| request.finish_within)
    }

    fn require_few_generations(&self, most: usize, parts: &Parts<'_>) -> Result<(), Error> {
        let older = self.generations.alive(born_ms(parts.cx));
        if older < most || self.finish_within().is_some() {
            return Ok(());
        }
        Err(Error::Unavailable(Failure::from(format!(
            "{older} programs before this one still have connections, and {most} may (max-generations): wait for their end, or \
             have them end after a while (--finish-within)"
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
                "this daemon has no memory that a successor could have (memfd_create(2) and /dev/shm are missing \
                 or forbidden); restart it instead",
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
            reloads: cx.generation,
            given_up: cx.given_up.save(),
            generations: self.generations.next(cx.board.millis(cx.now), self.finish_within(), born_ms(cx)),
            generations_before: self.generations.clone(),
            caller: [caller.ignored, caller.blocked],
        })
    }

    /// The step that can't be taken back, unless it fails.
    fn execute(&mut self, reloader: &Reloader, parts: &mut Parts<'_>) {
        // one that comes from here on is for the new program
        let _held = StopsHeld::hold();
        parts.cx.signals.leave();
        if let Err(why) = self.leave(reloader, parts, |replacement, saved| replacement.execute(saved)) {
            self.refuse(parts, &why);
        }
    }

    /// Has the next program, or the one before, executed. Returns only why that failed.
    fn leave(
        &mut self,
        reloader: &Reloader,
        parts: &Parts<'_>,
        execute: impl FnOnce(&mut dyn Replacement, &SavedMaster) -> Result<Infallible, Error>,
    ) -> Result<(), Error> {
        let saved = self.save(reloader, parts)?;
        let stay = StayOpen::new(saved.descriptors());
        let _stay = stay.map_err(|cause| Error::os("cannot keep descriptors open", cause))?;
        let Some(replacement) = &mut self.replacement else { return Ok(()) };
        execute(&mut **replacement, &saved).map(|never| match never {})
    }

    /// This program goes on, for this reason.
    fn refuse(&mut self, parts: &mut Parts<'_>, why: &Error) {
        events::upgrade_refused(&why.sentence());
        self.give_up(parts, why);
    }

    fn give_up(&mut self, parts: &mut Parts<'_>, why: &Error) {
        (self.state, self.wanted) = (State::Idle, None);
        if let Some(replacement) = &mut self.replacement {
            replacement.abandon();
            replacement.arrive();
        }
        parts.tell(Notice::UpgradeEnded(Err(why)));
    }

    /// The master stops: no request for an upgrade shall wait, and one that goes on is given up.
    fn refuse_for_good(&mut self, parts: &mut Parts<'_>) {
        let is_asked = self.take_request(parts).is_some();
        if is_asked || self.wanted.is_some() || !self.is_idle() {
            self.give_up(parts, &Error::Config("the daemon stops".into()));
        }
    }

    /// Waits until this program's own configuration is in force, or gives way to the one before it.
    fn arrive(&mut self, reloader: &mut Reloader, parts: &mut Parts<'_>) -> Result<(), Error> {
        let State::Arriving(arrival) = &mut self.state else { return Ok(()) };
        if arrival.again.take_if(|then| *then <= parts.cx.now).is_some() {
            reloader.ask();
        }
        let Some(outcome) = reloader.take_outcome() else { return Ok(()) };
        // not before: what is given up can't be had back, and the program before may need it
        let confine =
            |(level, services): &(Level, Vec<Service>)| parts.cx.given_up.for_services(services, *level);
        let outcome = outcome.and_then(|()| arrival.confine.as_ref().map(confine).transpose());
        match outcome {
            Ok(given_up) => {
                given_up.into_iter().for_each(|given_up| parts.cx.given_up = given_up);
                match arrival.failed.take() {
                    None => self.has_arrived(parts),
                    Some(why) => self.refuse(parts, &why),
                }
                Ok(())
            }
            // there is no other program: what is left of it goes on meanwhile
            Err(_) if arrival.failed.is_some() => {
                arrival.again = Some(parts.cx.now + TRY_AGAIN);
                Ok(())
            }
            Err(why) => {
                // one that comes from here on is for the program before
                let _held = StopsHeld::hold();
                parts.cx.signals.leave();
                let generations = arrival.generations_before.clone();
                self.leave(reloader, parts, |replacement, saved| {
                    // this program has not been one
                    replacement.go_back(&SavedMaster { generations, ..saved.clone() }, &why)
                })
            }
        }
    }

    fn has_arrived(&mut self, parts: &mut Parts<'_>) {
        self.state = State::Idle;
        self.replacement.iter_mut().for_each(|replacement| replacement.arrive());
        events::upgraded(born_ms(parts.cx).filter(|&born| self.generations.are_of(born)).count());
        parts.tell(Notice::UpgradeEnded(Ok(())));
    }

    /// Ends the children of older programs whose time is over.
    fn end_older_children(&mut self, parts: &Parts<'_>) {
        let cx = &*parts.cx;
        for due in self.generations.take_due(cx.board.millis(cx.now)) {
            let is_due =
                |child: &Child<'_>| due.born_ms.contains(&child.started_ms()) && !child.is_superseded();
            let ended = cx.board.children().filter(is_due).filter(|child| {
                let signal = match (due.at_once, child.is_watched()) {
                    (true, _) => Signal::SIGKILL,
                    // to a worker, SIGTERM says to leave after its connection
                    (false, true) => Signal::SIGQUIT,
                    (false, false) => Signal::SIGTERM,
                };
                signal_child(child.pid(), signal)
            });
            let ended = ended.count();
            if ended > 0 {
                events::older_ended(ended);
            }
        }
    }
}

/// When each child was forked, in milliseconds since the daemon began.
fn born_ms(cx: &Context) -> impl Iterator<Item = u64> {
    cx.board.children().map(|child| child.started_ms())
}
