//! A pool of workers, the master's side: carries out what the pool's policy plans.
//!
//! Each worker is followed by a descriptor that tells of its death; none is ever waited for.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use smallvec::SmallVec;

use super::context::Context;
use super::descriptors::{Closing, kept_for};
use super::oom::KILL;
use super::saved::SavedWorker;
use super::worker;
use crate::limit::Episode;
use crate::model::listener_context::ListenerContext;
use crate::model::pool::{Census, Event, Pool, Size, with_jitter};
use crate::model::serve::{Terms, WorkerContext};
use crate::model::starts::{EARLY, MAX_START_FAILURES};
use crate::sandbox::Confinement;
use crate::scoreboard::{Cause, Slot, State};
use crate::service::application::Place;
use crate::spec::ModelSpec;
use crate::sys::fork::{PidCells, Watch, fork};
use crate::sys::pidfd::{Ended, how_it_ended, signal_child};
use crate::sys::signal::TermHeld;
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
    workers: Vec<Worker>,
    generation: u32,
    again: Option<Instant>,
    /// There are too few workers since fork(2) fails, by this error.
    fork_failing: Option<i32>,
    /// The lines about that.
    shortages: Episode,
    /// How the last worker that failed to start ended.
    failed_start: Option<Cause>,
    /// Its listener is its own: no older pool serves it.
    is_live: bool,
    /// No worker is replaced any more, unless it drains.
    leaving: bool,
    /// While queued clients are served at a stop: by how many workers.
    drainers: Option<usize>,
}

#[derive(Debug)]
struct Worker {
    slot: u32,
    /// The lowest that no other worker of its pool had.
    number: u32,
    watch: OwnedFd,
    started: Instant,
    /// It has been told to leave.
    dismissed: bool,
    /// It has been told to serve what is queued first.
    drains: bool,
    /// It has served, or lived long enough.
    settled: bool,
}

/// A worker that was forked just now.
#[derive(Debug)]
pub(super) struct Born {
    slot: u32,
    number: u32,
    pub(super) watch: OwnedFd,
}

impl Born {
    fn noted(self, started: Instant) -> Worker {
        let Self { slot, number, watch } = self;
        Worker { slot, number, watch, started, dismissed: false, drains: false, settled: false }
    }
}

impl Worker {
    /// Tells it to leave after its connection.
    fn dismiss(&mut self, cx: &Context) {
        self.dismissed = true;
        signal_child(cx.board.record(self.slot).pid(), Signal::SIGTERM);
    }

    /// Whether it takes no more clients: it has been told to leave, or says that it has reached its limit of
    /// connections and serves the last of them.
    fn leaves(&self, cx: &Context) -> bool {
        self.dismissed || cx.board.slot(self.slot).state() == State::Leaving
    }
}

impl Pooling {
    pub(super) fn new(
        context: ListenerContext,
        spec: &ModelSpec,
        confinement: Arc<Confinement>,
        cx: &Context,
    ) -> Self {
        let workers = spec.workers_for(context.listener.kind(), &context.service_config.service);
        let size =
            Size { min: workers.min, max: workers.max, min_spare: spec.min_spare, max_spare: spec.max_spare };
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
            workers: Vec::new(),
            generation: cx.generation,
            again: None,
            fork_failing: None,
            shortages: Episode::default(),
            failed_start: None,
            is_live: false,
            leaving: false,
            drainers: None,
        }
    }

    /// Goes on with workers of the program before this one: none is replaced.
    pub(super) fn restore(&mut self, workers: Vec<(SavedWorker, OwnedFd)>, cx: &Context) {
        self.leaving = true;
        cx.descriptors.add(workers.iter().map(|(_, watch)| watch.as_raw_fd()));
        let restored = |(SavedWorker { slot, dismissed, .. }, watch)| Worker {
            slot,
            // that of the next generation is none of its numbers
            number: u32::MAX,
            watch,
            started: cx.now,
            dismissed,
            drains: false,
            settled: true,
        };
        self.workers = workers.into_iter().map(restored).collect();
    }

    /// Writes its workers down.
    pub(super) fn save(&self) -> Vec<SavedWorker> {
        let save = |worker: &Worker| SavedWorker::new(worker.slot, &worker.watch, worker.dismissed);
        self.workers.iter().map(save).collect()
    }

    /// From here on the listener is this pool's alone.
    pub(super) fn go_live(&mut self, cx: &Context) {
        self.is_live = true;
        let size = self.pool.size();
        let wanted = if self.pool.is_elastic() { size.min_spare } else { 0 };
        let totals = cx.board.totals(self.context.number);
        totals.set_wanted_idle(wanted);
        totals.set_limit(size.max);
        // a worker that waits for many clients at once must not wait for the next one
        let polls = self.terms.model.polls() && self.context.listener.kind() == Kind::Stream;
        // it fails only for what is no open file
        let _ = self.context.listener.set_nonblocking(polls);
    }

    /// Leaves the listener to a successor: workers go after their connection.
    pub(super) fn hand_over(&mut self, cx: &Context) {
        self.leaving = true;
        // not by their states, which change meanwhile
        self.workers.iter_mut().filter(|worker| !worker.dismissed).for_each(|worker| worker.dismiss(cx));
    }

    /// Has workers again, after they were told to leave.
    pub(super) fn reopen(&mut self) {
        self.leaving = false;
    }

    /// The descriptors to poll, with the slot that each stands for.
    pub(super) fn watches(&self) -> impl Iterator<Item = (&OwnedFd, u32)> {
        self.workers.iter().map(|worker| (&worker.watch, worker.slot))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Whether all workers that were wanted at first are up, or as many as could be forked.
    pub(super) fn is_ready(&self, cx: &Context) -> bool {
        self.up(cx) >= self.pool.size().min as usize || self.pool.began_short()
    }

    /// How many workers are up.
    pub(super) fn up(&self, cx: &Context) -> usize {
        let up = |worker: &&Worker| cx.board.slot(worker.slot).state() != State::Starting;
        self.workers.iter().filter(up).count()
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
        self.fork_error(&format!("{what}: cannot fork")).unwrap_or(Error::Internal(what))
    }

    /// If it is fork(2) that fails, the error of that.
    fn fork_error(&self, what: &str) -> Option<Error> {
        let error = std::io::Error::from_raw_os_error(self.fork_failing?);
        Some(Error::os(format!("{what}{}", events::limit_of_tasks(&error)), error))
    }

    /// Sees to it that there are as many workers as there should be.
    pub(super) fn on_turn(&mut self, cx: &mut Context) -> Result<(), Error> {
        if self.leaving {
            self.replace_drainers(cx);
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
        self.spawn(cx, wanted.min(SPAWN_AT_ONCE));
        self.retire(cx, plan.retire);
        Ok(())
    }

    /// An elastic pool is looked at now and then; any pool, until its workers have settled.
    fn next_look(&self, cx: &Context) -> Option<Instant> {
        let settling =
            self.workers.iter().filter(|worker| !worker.settled).map(|worker| worker.started + EARLY);
        let census = self.pool.is_elastic().then_some(cx.now + CENSUS_EVERY);
        settling.chain(census).min()
    }

    fn hopeless(&self) -> Error {
        let endpoint = self.context.listener.endpoint();
        if let Some(error) = self.fork_error(&format!("cannot fork the workers of {endpoint}: giving up")) {
            return error;
        }
        match self.failed_start {
            // that is how a worker ends to which the system refuses what it needs; it has said why
            Some(Cause::Failed) => Error::Os(Failure::from(format!(
                "the workers of {endpoint} cannot all start: giving up after {MAX_START_FAILURES} tries; the \
                 lines above say why"
            ))),
            _ => Error::Internal(format!(
                "the workers of {endpoint} die before they have served a client: giving up after \
                 {MAX_START_FAILURES} tries; the lines above say how they died"
            )),
        }
    }

    fn settle(&mut self, cx: &Context) {
        for worker in self.workers.iter_mut().filter(|worker| !worker.settled) {
            if has_settled(cx.board.slot(worker.slot), worker.started, cx.now) {
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

    /// Forks workers, up to `count`; returns how many it has got.
    ///
    /// It takes note of them after the last one. Of each page that the master writes to after a fork the worker has the old
    /// copy, all to itself if that is so after each fork.
    fn spawn(&mut self, cx: &mut Context, count: usize) -> usize {
        // on the stack, where it writes anyway
        let mut born: SmallVec<[Born; SPAWN_AT_ONCE]> = SmallVec::new();
        let mut failed = None;
        self.closing.update(&cx.descriptors);
        while born.len() < count && failed.is_none() {
            let Some(index) = cx.board.take(self.context.number, true, cx.now) else { break };
            let number = self.free_number(&born);
            match self.fork_worker(cx, index, number, &born) {
                Ok(watch) => {
                    cx.board.born(index);
                    born.push(Born { slot: index, number, watch });
                }
                Err(error) => {
                    cx.board.put_back(index);
                    failed = Some(error);
                }
            }
        }
        let endpoint = self.context.listener.endpoint();
        for worker in &born {
            events::worker_started(endpoint, worker.slot, cx.board.record(worker.slot).pid());
        }
        cx.descriptors.add(born.iter().map(|worker| worker.watch.as_raw_fd()));
        let count = born.len();
        self.workers.extend(born.into_iter().map(|worker| worker.noted(cx.now)));
        if let Some(error) = failed {
            cx.board.totals(self.context.number).fork_failed();
            self.fork_failing = Some(error.raw_os_error().unwrap_or(libc::EAGAIN));
            if self.shortages.begin(cx.now) {
                events::worker_fork_failed(endpoint, &error);
            }
            self.pool.on(Event::ForkFailed, cx.now);
        }
        count
    }

    fn end_shortage(&mut self) {
        if self.fork_failing.take().is_some() && self.shortages.end() {
            events::workers_complete(self.context.listener.endpoint());
        }
    }

    /// The lowest number that no worker has. It is of interest to those that accept by themselves.
    fn free_number(&self, born: &[Born]) -> u32 {
        if self.context.service_config.service.as_application().is_none() {
            return 0;
        }
        let numbers = self.workers.iter().map(|worker| worker.number);
        let taken: Vec<u32> = numbers.chain(born.iter().map(|worker| worker.number)).collect();
        (0..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX)
    }

    /// Forks one, after those that were `born` just now.
    fn fork_worker(&self, cx: &Context, index: u32, number: u32, born: &[Born]) -> std::io::Result<OwnedFd> {
        cx.oom.require_room()?;
        let slot = cx.board.slot(index);
        let close = self.closing.set();
        let births = cx.board.totals(self.context.number).forked.load(Ordering::Relaxed);
        let place = Place { number, generation: self.generation };
        let terms = Terms { limit: with_jitter(self.terms.limit, births), place, ..self.terms };
        let work = WorkerContext {
            context: &self.context,
            udp_filter: &cx.udp_filter,
            board: cx.board,
            slot,
            index,
            ticker: None,
        };
        let (parent, null) = (cx.pid, cx.null.as_ref());
        let (expendable, confinement) = (cx.oom.score(), &*self.confinement);
        let _held = TermHeld::hold();
        let _lent = work.board.lend()?;
        let cells = PidCells { parent: &work.board.record(index).pid, child: Some(&slot.pid) };
        let child = fork(&cx.blocked, cells, Watch::Descriptor, || {
            worker::live(worker::Setup { close, born, parent, null, expendable, confinement }, &work, &terms)
        })?;
        child.watch.ok_or_else(|| std::io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Tells so many workers to leave after their connection, idle ones first.
    fn retire(&mut self, cx: &Context, mut count: u32) {
        for wanted in [State::Idle, State::Starting, State::Serving] {
            for worker in self.workers.iter_mut().filter(|worker| !worker.dismissed) {
                if count == 0 {
                    return;
                }
                if cx.board.slot(worker.slot).state() == wanted {
                    worker.dismiss(cx);
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
        // Shared by all workers: an accept that finds nothing queued returns, from now on.
        let _ = self.context.listener.set_nonblocking(true);
        for worker in &mut self.workers {
            worker.drains = !worker.leaves(cx);
            worker.dismiss(cx);
        }
        self.drainers = Some(self.workers.len().max(1));
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
        for worker in self.workers.iter_mut().rev().take(born) {
            worker.drains = true;
            worker.dismiss(cx);
        }
    }

    /// Takes no more clients, and replaces no worker.
    pub(super) fn close(&mut self) {
        self.leaving = true;
        self.drainers = None;
        self.context.listener.refuse();
    }

    /// Makes the pool larger or smaller by one (SIGTTIN, SIGTTOU).
    pub(super) fn resize(&mut self, event: Event, cx: &Context) {
        self.pool.on(event, cx.now);
        let Size { min, max, .. } = self.pool.size();
        cx.board.totals(self.context.number).set_limit(max);
        events::pool_resized(self.context.listener.endpoint(), min, max);
    }

    /// A watch is readable: its worker is dead.
    pub(super) fn reap(&mut self, cx: &mut Context, index: u32) {
        let Some(at) = self.workers.iter().position(|worker| worker.slot == index) else { return };
        let slot = cx.board.slot(index);
        let worker = self.workers.swap_remove(at);
        let cause = match (how_it_ended(&worker.watch), slot.recorded()) {
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
        if !worker.settled && !worker.leaves(cx) && !has_settled(slot, worker.started, cx.now) {
            self.failed_start = Some(cause);
            self.pool.on(Event::StartFailed, cx.now);
        }
        cx.descriptors.remove(worker.watch.as_raw_fd());
        let child = cx.board.child(index);
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
        cx.board.reap(index, cause, cx.now);
    }
}

fn has_settled(slot: &Slot, started: Instant, now: Instant) -> bool {
    slot.traffic.connections.load(Ordering::Relaxed) > 0 || now >= started + EARLY
}
