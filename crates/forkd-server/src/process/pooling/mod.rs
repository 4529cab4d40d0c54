//! A pool of workers, the master's side: carries out what the pool's policy plans.
//!
//! Each worker is followed by a descriptor that tells of its death; none is ever waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

mod application;
mod spawn;
mod upkeep;
mod worker;

use application::ApplicationPool;
pub(super) use worker::Born;
use worker::Worker;

use super::context::Context;
use super::descriptors::{Closing, kept_for};
use super::oom::KILL;
use super::program::LeftOfProgram;
use super::saved::SavedWorker;
use crate::limit::Episode;
use crate::model::WorkerRange;
use crate::model::listener_context::ListenerContext;
use crate::model::pool::{Census, Event, Pool, Size};
use crate::model::serve::Terms;
use crate::model::starts::{EARLY, MAX_START_FAILURES};
use crate::sandbox::Confinement;
use crate::scoreboard::{Cause, State};
use crate::service::application::Application;
use crate::spec::{ModelSpec, Upkeep};
use crate::sys::pidfd::{Ended, how_it_ended};
use crate::transport::listener::Kind;
use crate::{Error, Failure, events};

/// How often the master looks at an elastic pool without being asked to.
const CENSUS_EVERY: Duration = Duration::from_secs(1);

/// How long workers that died while they drained the queue are not replaced again.
const REPLACE_EVERY: Duration = Duration::from_millis(100);

/// How many workers are forked in one turn of the loop at most: others want a turn, too.
const SPAWN_AT_ONCE: usize = 32;

/// A listening socket that a pool of workers accepts from.
#[derive(Debug)]
pub(super) struct Pooling {
    pub(super) context: ListenerContext,
    terms: Terms,
    closing: Closing,
    confinement: Arc<Confinement>,
    pool: Pool,
    /// What it does beside, if its workers accept by themselves.
    application: Option<ApplicationPool>,
    workers: Vec<Worker>,
    generation: u32,
    again: Option<Instant>,
    /// When something is due for one of its workers.
    next_due: Option<Instant>,
    /// There are too few workers since fork(2) fails, by this error.
    fork_failing: Option<i32>,
    /// The lines about that.
    shortages: Episode,
    /// How the last worker that failed to start ended, and what it has printed last, being a program.
    failed_start: Option<Cause>,
    last_words: Option<String>,
    /// It comes in a few workers at a time.
    rolls: bool,
    /// Its listener is its own: no older pool serves it.
    is_live: bool,
    /// No worker is replaced any more, unless it drains.
    leaving: bool,
    /// While queued clients are served at a stop: by how many workers.
    drainers: Option<usize>,
}

/// What a descriptor tells of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// It has died.
    Life,
    /// It says how it is, being a program.
    Notices,
    /// It has printed something, being a program.
    Output,
}

impl Pooling {
    pub(super) fn new(
        context: ListenerContext,
        spec: &ModelSpec,
        confinement: Arc<Confinement>,
        cx: &Context,
    ) -> Self {
        let workers = spec.workers_for(context.listener.kind(), &context.service_config.service);
        let is_application = context.service_config.service.as_application().is_some();
        let application = is_application.then(|| ApplicationPool::new(spec.upkeep.clone(), workers, cx.now));
        let max = if is_application { workers.min } else { workers.max };
        let size = Size { min: workers.min, max, min_spare: spec.min_spare, max_spare: spec.max_spare };
        Self {
            terms: spec.terms(workers, cx.stop_times.grace),
            closing: Closing::all_but(
                context
                    .listeners()
                    .flat_map(|listener| listener.descriptors())
                    .chain(kept_for(&context.service_config.service))
                    .collect(),
            ),
            context,
            confinement,
            pool: Pool::new(size),
            application,
            workers: Vec::new(),
            generation: cx.generation,
            again: None,
            next_due: None,
            fork_failing: None,
            shortages: Episode::default(),
            failed_start: None,
            last_words: None,
            rolls: false,
            is_live: false,
            leaving: false,
            drainers: None,
        }
    }

    /// Goes on with workers of the program before this one: none is replaced.
    pub(super) fn restore(&mut self, workers: Vec<(SavedWorker, OwnedFd, LeftOfProgram)>, cx: &Context) {
        self.leaving = true;
        self.workers = workers
            .into_iter()
            .map(|(saved, watch, left)| Worker::restored(&saved, watch, left, cx))
            .collect();
        cx.descriptors.add(self.workers.iter().flat_map(Worker::descriptors));
        if self.has_programs() {
            let staying = self.workers.iter().filter(|worker| !worker.dismissed).count() as u32;
            let range = WorkerRange::fixed(staying);
            self.application = Some(ApplicationPool::new(Upkeep::default(), range, cx.now));
        }
    }

    /// Writes its workers down.
    pub(super) fn save(&self) -> Vec<SavedWorker> {
        self.workers.iter().map(Worker::save).collect()
    }

    /// From here on the listener is this pool's alone.
    pub(super) fn go_live(&mut self, cx: &Context) {
        self.is_live = true;
        let size = self.pool.size();
        let wanted = if self.pool.is_elastic() { size.min_spare } else { 0 };
        let totals = cx.board.totals(self.context.number);
        totals.set_wanted_idle(wanted);
        totals.set_limit(self.application.as_ref().map_or(size.max, |application| application.range().max));
        if let Some(application) = &mut self.application {
            // whether the socket blocks is their affair
            return application.take_all();
        }
        // a worker that waits for many clients at once must not wait for the next one
        let polls = self.terms.model.polls() && self.context.listener.kind() == Kind::Stream;
        // it fails only for what is no open file
        let _ = self.context.listener.set_nonblocking(polls);
    }

    /// Leaves the listener to a successor: workers go after their connection.
    pub(super) fn hand_over(&mut self, cx: &Context) {
        self.leaving = true;
        // not by their states, which change meanwhile
        let kill_at = self.kill_at(cx);
        let staying = self.workers.iter_mut().filter(|worker| !worker.dismissed);
        staying.for_each(|worker| worker.dismiss(kill_at, cx));
    }

    /// When workers are killed that are told to leave now. Those that the master forks for connections of its own finish
    /// them.
    fn kill_at(&self, cx: &Context) -> Option<Instant> {
        self.application.is_some().then(|| cx.now + cx.stop_times.grace)
    }

    /// Has workers again, after they were told to leave.
    pub(super) fn reopen(&mut self) {
        self.leaving = false;
    }

    /// The descriptors to poll, with the slot that each stands for.
    pub(super) fn watches(&self) -> impl Iterator<Item = (BorrowedFd<'_>, u32, Watched)> {
        self.workers.iter().flat_map(|worker| {
            let attached = worker.attached.as_ref();
            let notify =
                attached.and_then(|attached| attached.notify()).map(|socket| (socket, Watched::Notices));
            let output = attached.and_then(|attached| attached.output()).map(|pipe| (pipe, Watched::Output));
            let all = [Some((worker.watch.as_fd(), Watched::Life)), notify, output];
            all.into_iter().flatten().map(|(fd, watched)| (fd, worker.slot, watched))
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again.into_iter().chain(self.next_due).min()
    }

    /// Whether all workers that were wanted at first are up, or as many as could be forked.
    pub(super) fn is_ready(&self, cx: &Context) -> bool {
        let wanted = self.application.as_ref().map_or(self.pool.size().min, ApplicationPool::wanted);
        self.up(cx) >= wanted as usize || self.pool.began_short()
    }

    /// How many workers are up.
    pub(super) fn up(&self, cx: &Context) -> usize {
        // of its own workers each that has come up counts, also one that is at its limit already
        let counts = |worker: &&Worker| match self.application {
            Some(_) => worker.serves(cx),
            None => worker.state(cx) != State::Starting,
        };
        self.workers.iter().filter(counts).count()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.workers.is_empty() && self.drainers.is_none()
    }

    /// The error of fork(2), while there are too few workers for that reason.
    pub(super) fn fork_failing(&self) -> Option<i32> {
        self.fork_failing
    }

    /// Why it has not got all its workers.
    pub(super) fn not_ready(&self) -> Error {
        let what = format!("the workers of {} don't all come up", self.context.listener.endpoint());
        let error = self.fork_error(&format!("{what}: cannot fork"));
        error.unwrap_or_else(|| {
            let cause = self.failed_start.filter(|_| self.runs_program());
            Error::Internal(cause.map_or(what.clone(), |cause| self.with_last_words(what, cause)))
        })
    }

    /// Whether its workers are programs.
    fn runs_program(&self) -> bool {
        matches!(self.context.service_config.service.as_application(), Some(Application::Program(_)))
    }

    /// The sentence, with how the last one has ended, and what it has printed, if it is a program.
    fn with_last_words(&self, what: String, cause: Cause) -> String {
        let how = match cause {
            Cause::Recycled | Cause::Retired => "has ended by itself".to_owned(),
            cause => format!("has ended ({cause})"),
        };
        match &self.last_words {
            Some(words) => format!("{what}; the last one {how}, and its last words were: {words}"),
            None => format!("{what}; the last one {how}"),
        }
    }

    /// If it is fork(2) that fails, the error of that.
    fn fork_error(&self, what: &str) -> Option<Error> {
        let error = std::io::Error::from_raw_os_error(self.fork_failing?);
        Some(Error::os(format!("{what}{}", events::limit_of_tasks(&error)), error))
    }

    /// Sees to it that there are as many workers as there should be.
    pub(super) fn on_turn(&mut self, cx: &mut Context) -> Result<(), Error> {
        self.care(cx);
        if self.leaving {
            self.replace_drainers(cx);
            self.make_room(cx);
            return Ok(());
        }
        self.settle(cx);
        let census = self.census(cx);
        let plan = self.pool.plan(census, cx.now);
        if plan.give_up {
            return Err(self.hopeless());
        }
        if !plan.short {
            self.end_shortage();
        }
        self.again = plan.again.or_else(|| self.next_look(cx));
        let wanted = plan.spawn as usize;
        if wanted > SPAWN_AT_ONCE {
            self.again = Some(cx.now);
        }
        let born = self.spawn(cx, wanted.min(SPAWN_AT_ONCE));
        if born > 0 && self.application.is_some() {
            // when something is due for the new ones
            self.care(cx);
        }
        self.retire(cx, plan.retire);
        Ok(())
    }

    /// An elastic pool is looked at now and then; any pool, until its workers have settled.
    fn next_look(&self, cx: &Context) -> Option<Instant> {
        // when one of an application is to be looked at that still starts is known from its upkeep
        let may_settle = |worker: &&Worker| {
            !worker.settled && (self.application.is_none() || worker.state(cx) != State::Starting)
        };
        let settling = self.workers.iter().filter(may_settle).map(|worker| worker.started + EARLY);
        let census = self.pool.is_elastic().then_some(cx.now + CENSUS_EVERY);
        settling.chain(census).min()
    }

    fn hopeless(&self) -> Error {
        let endpoint = self.context.listener.endpoint();
        if let Some(error) = self.fork_error(&format!("cannot fork the workers of {endpoint}: giving up")) {
            return error;
        }
        match self.failed_start {
            Some(cause) if self.runs_program() => {
                let what = format!(
                    "the workers of {endpoint} don't stay up: giving up after {MAX_START_FAILURES} tries"
                );
                Error::Internal(self.with_last_words(what, cause))
            }
            // that is how a worker ends to which the system refuses what it needs; it has said why
            Some(Cause::Failed) => Error::Os(Failure::from(format!(
                "the workers of {endpoint} cannot all start: giving up after {MAX_START_FAILURES} tries; the \
                 lines above say why"
            ))),
            Some(Cause::Recycled) => Error::Internal(format!(
                "the workers of {endpoint} return at once, although none was told to: giving up after \
                 {MAX_START_FAILURES} tries; a worker serves until Worker::shutdown tells it to leave"
            )),
            _ => Error::Internal(format!(
                "the workers of {endpoint} die before they have served a client: giving up after \
                 {MAX_START_FAILURES} tries; the lines above say how they died"
            )),
        }
    }

    fn settle(&mut self, cx: &Context) {
        let is_application = self.application.is_some();
        for worker in self.workers.iter_mut().filter(|worker| !worker.settled) {
            if worker.has_settled(cx.board.slot(worker.slot), is_application, cx.now) {
                worker.settled = true;
                self.pool.on(Event::Settled, cx.now);
            }
        }
    }

    /// Counts, and corrects the counts that the workers keep among themselves.
    fn census(&mut self, cx: &Context) -> Census {
        let (mut alive, mut idle, mut leaving, mut takers, mut open) = (0, 0, 0, 0, 0u32);
        for worker in &self.workers {
            let slot = cx.board.slot(worker.slot);
            let state = slot.state();
            if matches!(state, State::Idle | State::Serving) && !worker.dismissed {
                takers += 1;
                open = open.saturating_add(slot.open.load(Ordering::Relaxed));
            }
            match state {
                // no more than may leave on their own: a child that went wild may have written that of all
                State::Leaving if worker.dismissed || leaving < self.terms.leavers => leaving += 1,
                _ if worker.dismissed => {}
                State::Starting | State::Idle => (alive, idle) = (alive + 1, idle + 1),
                _ => alive += 1,
            }
        }
        let tally = cx.board.tally(self.context.number);
        tally.idle.store(idle, Ordering::Relaxed);
        tally.leaving.store(leaving, Ordering::Relaxed);
        tally.open.store(open, Ordering::Relaxed);
        cx.board.totals(self.context.number).set_takers(takers);
        let settled = self.workers.iter().any(|worker| worker.settled);
        let may_begin_short = self.is_live && cx.serves;
        Census { alive, idle, up: self.up(cx) as u32, settled, may_begin_short }
    }

    fn end_shortage(&mut self) {
        if self.fork_failing.take().is_some() && self.shortages.end() {
            events::workers_complete(self.context.listener.endpoint());
        }
    }

    /// Tells so many workers to leave after their connection, idle ones first.
    fn retire(&mut self, cx: &Context, mut count: u32) {
        let kill_at = self.kill_at(cx);
        for wanted in [State::Idle, State::Starting, State::Serving] {
            for worker in self.workers.iter_mut().filter(|worker| !worker.dismissed) {
                if count == 0 {
                    return;
                }
                if worker.state(cx) == wanted {
                    worker.dismiss(kill_at, cx);
                    count -= 1;
                }
            }
        }
    }

    /// Has all workers serve what is queued, and leave.
    pub(super) fn drain(&mut self, cx: &Context, queued: u32) {
        self.leaving = true;
        // before the workers are told: they look at it when they leave
        cx.board.drain(self.context.number, queued);
        if self.application.is_none() {
            // Shared by all workers: an accept that finds nothing queued returns, from now on.
            let _ = self.context.listener.set_nonblocking(true);
        }
        let (kill_at, is_application) = (self.kill_at(cx), self.application.is_some());
        for worker in &mut self.workers {
            worker.drains = !worker.leaves(cx) && !is_application;
            worker.dismiss(kill_at, cx);
        }
        self.drainers = (!is_application).then(|| self.workers.len().max(1));
        self.again = None;
    }

    /// Replaces workers that died while clients are queued that they were to serve. One that died at once is replaced
    /// a little later.
    fn replace_drainers(&mut self, cx: &mut Context) {
        if self.again.is_some_and(|then| cx.now < then) {
            return;
        }
        self.again = None;
        if cx.board.tally(self.context.number).queued() == 0 {
            self.drainers = None;
        }
        let missing = self.drainers.unwrap_or(0).saturating_sub(self.workers.len());
        if missing == 0 {
            return;
        }
        self.again = Some(cx.now + REPLACE_EVERY);
        let born = self.spawn(cx, missing.min(SPAWN_AT_ONCE));
        let kill_at = self.kill_at(cx);
        for worker in self.workers.iter_mut().rev().take(born) {
            worker.drains = true;
            worker.dismiss(kill_at, cx);
        }
    }

    /// Takes no more clients, and replaces no worker. Programs end at once.
    pub(super) fn close(&mut self, cx: &Context) {
        self.leaving = true;
        self.drainers = None;
        if self.application.is_none() {
            self.context.listener.refuse();
        }
        self.workers.iter_mut().filter(|worker| worker.attached.is_some()).for_each(|worker| worker.kill(cx));
    }

    /// Makes the pool larger or smaller by one (SIGTTIN, SIGTTOU).
    pub(super) fn resize(&mut self, event: Event, cx: &Context) {
        match &mut self.application {
            Some(application) => {
                application.resize(if event == Event::Grow { 1 } else { -1 });
                self.pool.set_target(application.target());
            }
            None => self.pool.on(event, cx.now),
        }
        let Size { mut min, mut max, .. } = self.pool.size();
        if let Some(application) = &self.application {
            WorkerRange { min, max } = application.range();
        }
        cx.board.totals(self.context.number).set_limit(max);
        events::pool_resized(self.context.listener.endpoint(), min, max);
    }

    /// A descriptor of a worker is readable.
    pub(super) fn on_event(&mut self, cx: &mut Context, index: u32, watched: Watched) {
        match watched {
            Watched::Life => self.reap(cx, index),
            Watched::Notices => self.listen(cx, index),
            Watched::Output => self.read(cx, index),
        }
    }

    /// A watch is readable: its worker is dead.
    fn reap(&mut self, cx: &mut Context, index: u32) {
        let Some(at) = self.workers.iter().position(|worker| worker.slot == index) else { return };
        // what it has said before its end
        self.listen(cx, index);
        let slot = cx.board.slot(index);
        let mut worker = self.workers.swap_remove(at);
        worker.kill_group(cx);
        if let Some(application) = &mut self.application
            && application.renewed() == Some(index)
        {
            application.has_renewed(cx.now);
        }
        let ended = how_it_ended(&worker.watch);
        let cause = match (ended, slot.recorded()) {
            _ if worker.attached.is_some() => worker.cause_as_program(ended, cx),
            // Without a record it had no time for one; SIGKILL is the only signal that gives none.
            (Ended::Signal(KILL), _) | (Ended::Unknown, None) => cx.oom.cause(cx.now),
            (Ended::Signal(signal), _) => Cause::Signal(signal),
            // it says more than a status does
            (_, Some(cause)) => cause,
            (Ended::Exit(status), None) => Cause::from_status(status),
        };
        if worker.drains && cause == Cause::Retired {
            // it has found the backlog empty: clients that come now shall go elsewhere
            self.context.listener.refuse();
            self.drainers = None;
        }
        let is_application = self.application.is_some();
        // one that says itself that it leaves has not been asked for that
        let was_told = |worker: &Worker| worker.dismissed || (!is_application && worker.leaves(cx));
        let has_failed =
            !worker.settled && !was_told(&worker) && !worker.has_settled(slot, is_application, cx.now);
        if has_failed {
            self.failed_start = Some(cause);
            self.pool.on(Event::StartFailed, cx.now);
        }
        worker.descriptors().for_each(|fd| cx.descriptors.remove(fd));
        let (number, pid) = (worker.number, worker.pid(cx));
        let mut last_words = None;
        if let Some(attached) = &mut worker.attached {
            let log = |line: &str, left_out| events::worker_printed(number, pid, line, left_out);
            let (left_out, words) = attached.finish(cx.now, log);
            events::worker_lines_left_out(number, pid, left_out);
            last_words = words;
        }
        if has_failed {
            self.last_words = last_words;
        }
        let child = cx.board.child(index);
        // a function has said so itself
        if self.runs_program() && !worker.leaves(cx) && cause.is_normal() {
            let status = if let Ended::Exit(status) = ended { Some(status) } else { None };
            events::worker_left(self.context.listener.endpoint(), number, pid, status, cx.age(&child));
        }
        events::child_ended(
            self.context.listener.endpoint(),
            &child,
            cause,
            cx.age(&child),
            cx.is_stopping(),
            &cx.deaths,
        );
        // which of several clients it was is not known
        if cause.is_crash() && !self.terms.model.serves_many() && child.serving() > 0 {
            self.context.crashed(child.slot.peer());
        }
        // one that has served as many clients as it may is replaced as it should be
        if !worker.dismissed && !self.leaving && (is_application || cause != Cause::Recycled) {
            cx.board.totals(self.context.number).restarted();
        }
        cx.board.reap(index, cause, cx.now);
    }

    /// Whether it has workers that are programs, be they of the program before this one.
    pub(super) fn has_programs(&self) -> bool {
        self.workers.iter().any(|worker| worker.attached.is_some())
    }

    /// What its workers say of themselves, each by its slot.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (u32, &str)> {
        let workers = self.workers.iter();
        workers.filter_map(|worker| Some((worker.slot, worker.attached.as_ref()?.status.as_deref()?)))
    }
}
