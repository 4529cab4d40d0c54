//! The master: one loop that waits for clients, signals and deaths, and acts on them.
//!
//! It is a small process with one thread that forks; it runs no handler and waits for nobody. A
//! registry turns each ready descriptor into a typed [`Event`], and [`Master::on_event`] is the
//! one place where they are handled.

use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use super::accepting::Quota;
use super::attendant::Attendant;
use super::companion::{Companion, Notice};
use super::context::Context;
use super::phase::Phase;
use super::reload::{Reload, Source, guard};
use super::signals::{Order, Signals};
use super::sockets::Bound;
use super::station::{Kind, Life, Station};
use super::view::View;
use super::watch::Event;
use crate::model::hooks::Turns;
use crate::model::offer::Offer;
use crate::model::serve::Post;
use crate::scoreboard::{Child, Death, Scoreboard};
use crate::spec::ModelSpec;
use crate::sys;
use crate::transport::{Handle, Inherited};
use crate::{Error, events};

/// How often children that died without a word are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The same, while somebody waits for their place.
const SWEEP_SOON: Duration = Duration::from_millis(100);

/// How long children that have announced their end may take for it.
const LAST_MOMENTS: Duration = Duration::from_millis(200);

/// How many slots are looked at in one turn of the loop: 0.2 ms, in which no client waits for long.
const SWEEP_SLICE: usize = 256;

/// The view of a master, which leaves its companions free to be changed.
macro_rules! view {
    ($master:expr) => {
        View {
            cx: &$master.cx,
            stations: &$master.stations,
            phase: $master.phase,
            is_ready: $master.is_ready,
            past_connections: $master.past_connections,
        }
    };
}

/// The master process.
#[derive(Debug)]
pub struct Master {
    pub(super) cx: Context,
    pub(super) stations: Vec<Station>,
    /// In the order in which they are told what happens.
    pub(super) companions: Vec<Box<dyn Companion>>,
    pub(super) attendants: Vec<Attendant>,
    pub(super) phase: Phase,
    /// How long connections may go on at a stop, in the generation in force.
    pub(super) grace: Duration,
    pub(super) reload: Reload,
    /// Connections to sockets that are closed.
    pub(super) past_connections: u64,
    /// When and where to look for those that died without a word.
    swept: Instant,
    sweep_from: usize,
    pub(super) is_ready: bool,
    /// Children that were ended by a signal of ours.
    pub(super) cut: u64,
    /// How an application asks for the end, and what it does between two waits.
    pub(super) application: Option<(Handle, Turns)>,
    /// When so many children have been forked, no more clients are taken.
    pub(super) enough: Option<u64>,
}

impl Master {
    /// Becomes a master: from here on signals are blocked and SIGCHLD is ignored.
    pub fn new(grace: Duration) -> Result<Self, Error> {
        let board = Scoreboard::new().map_err(|e| Error::os("cannot map the scoreboard", e))?;
        let cx = Context::new(board, guard([]), grace)?;
        Ok(Self {
            swept: cx.now,
            sweep_from: 0,
            cx,
            stations: Vec::new(),
            companions: Vec::new(),
            attendants: Vec::new(),
            phase: Phase::Running,
            grace,
            reload: Reload::default(),
            past_connections: 0,
            is_ready: false,
            cut: 0,
            application: None,
            enough: None,
        })
    }

    /// Opens what a change of the root directory will put out of reach; to be called before [`listen`](Self::listen).
    pub fn keep_what_chroot_hides(&mut self) {
        self.cx.keep_what_chroot_hides();
    }

    /// Serves these sockets, once it runs.
    pub fn listen(&mut self, bound: Vec<Bound>) -> Result<(), Error> {
        self.cx.guard = guard(&bound);
        for bound in bound {
            self.add_station(bound)?;
        }
        self.stations.iter_mut().for_each(|station| station.go_live(&self.cx));
        Ok(())
    }

    /// Makes a station that will serve this socket.
    pub(super) fn add_station(&mut self, bound: Bound) -> Result<(), Error> {
        let Bound { asked, spec, listener, number, hooks } = bound;
        let ModelSpec { model, idle_timeout, .. } = spec.model;
        let in_use = |number| self.stations.iter().any(|station| station.number() == number);
        let number = match number {
            Some(number) => number,
            None => self.cx.board.open(in_use).ok_or_else(|| {
                Error::Config("there are more listening sockets than forkd can count; leave some out".into())
            })?,
        };
        if model.has_pool() {
            // workers get it by being forked
            listener.queue();
        }
        self.cx.descriptors.add(listener.descriptors());
        let failures = &self.cx.board.tally(number).failures;
        let offer = Offer::new(listener.endpoint(), spec.service.clone(), model, hooks, failures)
            .with_idle_timeout(idle_timeout);
        let post = Post { listener, number, offer };
        self.stations.push(Station::new(asked, post, spec, &self.cx));
        Ok(())
    }

    /// Reads the configuration from there when a reload is asked for; it may name what was `inherited`.
    pub fn reload_from(&mut self, source: Box<dyn Source>, inherited: Inherited) {
        self.cx.descriptors.add(inherited.descriptors());
        self.reload.source = Some(source);
        self.reload.inherited = inherited;
    }

    /// Has this part of the program live in its loop.
    pub fn join(&mut self, companion: impl Companion + 'static) {
        self.cx.descriptors.add(companion.descriptors());
        self.companions.push(Box::new(companion));
    }

    /// Keeps a process of this kind alive, and has it read the scoreboard, which measures more from now on.
    pub fn attend(&mut self, attendant: Attendant) {
        self.cx.descriptors.add(attendant.listeners().iter().map(AsRawFd::as_raw_fd));
        self.cx.board.measure();
        self.attendants.push(attendant);
    }

    /// Tells all companions.
    pub(super) fn tell(&mut self, notice: Notice<'_>) {
        self.each_companion(|companion, view| companion.told(notice, view));
    }

    fn each_companion(&mut self, mut act: impl FnMut(&mut dyn Companion, View<'_>)) {
        let view = view!(self);
        self.companions.iter_mut().for_each(|companion| act(&mut **companion, view));
    }

    pub(super) fn view(&self) -> View<'_> {
        view!(self)
    }

    /// Ends when the application says so, by this handle, and does its work between two waits.
    pub(crate) fn serve_for(&mut self, handle: Handle, turns: Turns) {
        self.application = Some((handle, turns));
    }

    /// Has children close this descriptor of the caller's.
    pub fn keep_from_children(&mut self, fd: RawFd) {
        self.cx.descriptors.add([fd]);
    }

    /// Has workers write to this instead of the standard streams of whoever invoked the daemon, who
    /// may wait for their end.
    pub fn leave_streams(&mut self, null: std::fs::File) {
        self.cx.descriptors.add([null.as_raw_fd()]);
        self.cx.null = Some(null);
    }

    /// The caller has closed a descriptor: its number may soon be that of a client.
    pub fn forget(&mut self, fd: RawFd) {
        self.cx.descriptors.remove(fd);
    }

    /// Serves until it is asked to end; an error, or a panic of the application's own, ends the children, too.
    pub(crate) fn serve(&mut self) -> Result<(), Error> {
        let result = catch_unwind(AssertUnwindSafe(|| self.run(|_| Ok(()))));
        if !matches!(result, Ok(Ok(()))) {
            self.abandon();
        }
        result.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Serves until a signal ends it; calls `on_ready` once, when the first workers are up.
    pub fn run(&mut self, on_ready: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let bound: Vec<Bound> = self.stations.iter().filter_map(Station::bound).collect();
        Bound::check_all(&bound)?;
        // the root directory and the user have changed since it was asked first
        sys::fork::require_single_thread()
            .map_err(|cause| Error::os("cannot serve from this process", cause))?;
        self.cx.raises_children = sys::oom::may_raise_children();
        self.require_descriptors()?;
        let mut on_ready = Some(on_ready);
        loop {
            self.turn()?;
            if self.is_over() {
                break;
            }
            if !self.is_ready && self.stations.iter().all(|station| station.is_ready(&self.cx)) {
                self.is_ready = true;
                on_ready.take().map_or(Ok(()), |on_ready| on_ready(self))?;
                self.tell(Notice::Ready);
            }
            self.wait_and_see(None)?;
        }
        self.attendants.iter().for_each(Attendant::end);
        self.see_the_last_ones_off();
        events::stopped(self.view().connections(), self.cut);
        Ok(())
    }

    /// Finds out whether a child could be forked for a client, and serve it. In the child there are a few descriptors
    /// more, as it closes what is the master's.
    fn require_descriptors(&mut self) -> Result<(), Error> {
        self.cx.give_up_reserve();
        for station in &self.stations {
            if let Kind::Forking(forking) = &station.kind {
                forking.post.require_descriptors(1)?;
            }
        }
        self.cx.restore_reserve();
        Ok(())
    }

    /// Says in the log what is served.
    pub fn announce(&self) {
        self.stations.iter().filter_map(Station::bound).for_each(|bound| bound.announce());
    }

    /// Whether it has served.
    pub fn was_ready(&self) -> bool {
        self.is_ready
    }

    /// Waits, at most until then, and sees to what happens.
    pub(super) fn wait_and_see(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let events = self.wait(until)?;
        self.cx.now = Instant::now();
        for event in events {
            self.on_event(event);
        }
        Ok(())
    }

    /// A child announces its end a moment before it ends, and one that is killed has a moment, too. Systemd
    /// would kill it in that moment, and say so, if the master were gone already.
    pub(super) fn see_the_last_ones_off(&self) {
        let until = Instant::now() + LAST_MOMENTS;
        while sys::pidfd::has_children() && Instant::now() < until {
            sys::fd::pause(Duration::from_millis(1));
        }
    }

    /// What there is to do between two waits.
    pub(super) fn turn(&mut self) -> Result<(), Error> {
        if let Some((_, turns)) = &mut self.application {
            turns.turn();
        }
        self.cx.now = Instant::now();
        let step = self.phase.tick(self.cx.now);
        self.take_step(step);
        self.look_at_memory();
        self.look_for_the_dead();
        self.each_companion(|companion, view| companion.turn(view));
        self.see_to_reload();
        if !self.is_ready {
            self.cx.serves = self.stations.iter().any(|station| station.serves(&self.cx));
        }
        for at in 0..self.stations.len() {
            match self.stations[at].on_turn(&mut self.cx) {
                // its workers don't come up: the old ones are still there
                Err(error) if self.stations[at].life == Life::Starting => self.refuse_reload(&error),
                result => result?,
            }
        }
        if self.phase == Phase::Running {
            self.dismiss_stations();
            for attendant in &mut self.attendants {
                attendant.on_turn(&mut self.cx, &self.stations);
            }
        }
        Ok(())
    }

    fn look_at_memory(&mut self) {
        let is_due = self.cx.oom.next_reading().is_some_and(|then| then <= self.cx.now);
        if is_due && self.has_children() && self.cx.oom.read(self.cx.now) {
            self.cx.descriptors.add(self.cx.oom.descriptors());
        }
    }

    fn has_children(&self) -> bool {
        !self.attendants.is_empty()
            || self.cx.board.unwatched() > 0
            || self.stations.iter().any(|station| station.alive(&self.cx) > 0)
    }

    fn look_for_the_dead(&mut self) {
        let cx = &self.cx;
        let stations = &self.stations;
        let on = |child: &Child<'_>, death: Death| {
            let Some(station) = stations.iter().find(|station| station.number() == death.listener) else {
                return;
            };
            events::child_ended(
                station.endpoint(),
                child,
                death.cause,
                cx.age(child),
                cx.stopping,
                &cx.deaths,
            );
        };
        let soon = self.someone_waits();
        cx.board.set_waiting(soon);
        if cx.now >= self.swept + self.sweep_pause(soon) {
            for pid in cx.board.take_those_to_raise(self.sweep_from, SWEEP_SLICE, cx.now) {
                cx.oom.score().into_iter().for_each(|expendable| expendable.make_so(pid));
            }
            self.sweep_from = {
                let killed = || cx.oom.cause(cx.now);
                cx.board.sweep(self.sweep_from, SWEEP_SLICE, cx.now, sys::pidfd::is_our_child, killed, on)
            };
            self.swept = cx.now;
        } else {
            cx.board.collect(cx.now, on);
        }
    }

    /// Until the next slice: all slots get their turn once in a period.
    fn sweep_pause(&self, soon: bool) -> Duration {
        let slices = self.cx.board.used() / SWEEP_SLICE + 1;
        (if soon { SWEEP_SOON } else { SWEEP_EVERY }) / slices as u32
    }

    /// When to look at the children next, if there are any: the next slice is due, or the counter of those that the
    /// OOM killer takes.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let pause = self.sweep_pause(self.someone_waits());
        let sweep = (self.cx.board.unwatched() > 0).then(|| self.swept + pause);
        let reading = self.cx.oom.next_reading().filter(|_| self.has_children());
        [sweep, reading].into_iter().flatten().min()
    }

    /// A client waits for a place, or we for the children.
    pub(super) fn someone_waits(&self) -> bool {
        self.phase != Phase::Running || self.stations.iter().any(|station| station.is_full(&self.cx))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase != Phase::Running
            && self.stations.iter().all(|station| station.is_closed() && station.alive(&self.cx) == 0)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Signal => {
                let orders = self.cx.signals.as_mut().map(Signals::take).unwrap_or_default();
                orders.into_iter().for_each(|order| self.on_order(order));
            }
            Event::Wake => self.cx.board.wake().drain(),
            Event::Shutdown => self.on_order(Order::Stop("shutdown")),
            Event::Companion(index, number) => {
                let view = view!(self);
                self.companions[index].on_ready(number, view);
            }
            Event::Clients(number) => {
                let most =
                    self.enough.map_or(usize::MAX, |enough| enough.saturating_sub(self.forked()) as usize);
                if let Kind::Forking(forking) = &mut self.stations[number].kind {
                    forking.take_clients(&mut self.cx, Quota::at_most(most));
                }
            }
            Event::AttendantDeath(index, pid) => self.attendants[index].reap(&mut self.cx, pid),
            Event::Death(number, slot) => {
                if let Kind::Pooling(pooling) = &mut self.stations[number].kind {
                    pooling.bury(&mut self.cx, slot);
                }
            }
        }
    }
}
