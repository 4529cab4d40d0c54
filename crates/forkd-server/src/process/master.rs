//! The master: one loop that waits for clients, signals and deaths, and acts on them.
//!
//! It holds the listening sockets, the scoreboard, the signal pipe, a descriptor for each worker, and what its companions
//! have. It was born as the process that the user started, and has one thread, which never runs a handler and never
//! waits for a client. It ends when it has been told to stop and its last child has gone; SIGKILL tells its children by
//! the death signal that they have asked for.
//!
//! [`Master::wait`] turns each ready descriptor into a typed [`Event`], [`Master::on_event`] is the one place where they
//! are handled, and [`Master::turn`] does what is due between two waits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use smallvec::SmallVec;

use super::attendant::Attendant;
use super::children::{self, Sweep};
use super::companion::{Companion, Companions, Notice};
use super::context::Context;
use super::given_up::GivenUp;
use super::idle_exit::{self, IdleExit};
use super::lifecycle::{Lifecycle, Step, StopTimes};
use super::listeners::{Index, Listeners};
use super::pooling::Watched;
use super::reload::{Parts, Reloader, Source};
use super::saved::{SavedMaster, restore_stations};
use super::signals::Order;
use super::sockets::{Bound, udp_filter};
use super::station::{Acceptor, Life, Station};
use super::upgrade::{Replacement, Upgrader};
use super::view::View;
use crate::admission::REST;
use crate::model::hooks::Ticker;
use crate::model::pool;
use crate::sandbox::Level;
use crate::scoreboard::Scoreboard;
use crate::service::Service;
use crate::sys;
use crate::sys::handover::LeftOpen;
use crate::sys::signal::{Caller, adopt_caller};
use crate::transport::{Handle, Inherited};
use crate::{Error, events};

/// Lists that are short as a rule and lie on the stack: after a fork, a write to the heap would
/// copy a page of it.
type Few<T> = SmallVec<[T; 12]>;

/// A wait for what has happened already takes less than this.
const AT_ONCE: Duration = Duration::from_micros(10);

/// What a ready descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Signal,
    /// A child has ended, for which something waits.
    Wake,
    /// The trial of another program has something to say.
    Trial,
    /// The application asks for the end.
    Shutdown,
    /// A descriptor of a companion, by the companion's own number.
    Companion(usize, usize),
    /// A process of an attendant has died; its pid.
    AttendantDeath(usize, u32),
    /// Clients wait at a listening socket.
    Clients(Index),
    /// A worker tells something, or has died; its slot.
    Worker(Index, u32, Watched),
}

/// The master process.
#[derive(Debug)]
pub struct Master {
    cx: Context,
    listeners: Listeners,
    companions: Companions,
    attendants: Vec<Attendant>,
    reloader: Reloader,
    upgrader: Upgrader,
    sweep: Sweep,
    /// When to end, as no client comes.
    idle_exit: Option<IdleExit>,
    /// Connections that were ended by a signal of the master.
    cut: u64,
    /// How an application asks for the end, and what it does between two waits.
    application: Option<(Handle, Ticker)>,
    /// When this number of children has been forked, no more clients are taken.
    enough: Option<u64>,
}

/// What is set before it runs.
impl Master {
    /// Becomes a master: from here on signals are blocked and SIGCHLD is ignored.
    pub fn new(stop_times: StopTimes) -> Result<Self, Error> {
        Self::with(Scoreboard::new(), stop_times)
    }

    /// The same, of a process that may execute another program, which goes on with all that is open and all children.
    pub fn for_successors(stop_times: StopTimes) -> Result<Self, Error> {
        Self::with(Scoreboard::for_successors(), stop_times)
    }

    /// Goes on with what the program before this one has left. What is served is then read as for a reload; if that fails,
    /// the [replacement](Self::replace_by) goes back. `failed` says that it has done so already, and why.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where what is left contradicts itself.
    pub fn succeed(
        stop_times: StopTimes,
        saved: &SavedMaster,
        mut left: LeftOpen,
        failed: Option<Error>,
    ) -> Result<(Self, Inherited, LeftOpen), Error> {
        let cannot = |cause| {
            Error::Internal(format!("cannot go on with what the program before this one has left: {cause}"))
        };
        let [ignored, blocked] = saved.caller;
        adopt_caller(Caller { ignored, blocked });
        let board = Scoreboard::adopt(&saved.board, &mut left).map_err(cannot)?;
        let mut master = Self::with(Ok(board), stop_times)?;
        master.cx.given_up = GivenUp::restored(saved.given_up);
        master.listeners = restore_stations(&saved.stations, &mut left, &master.cx).map_err(cannot)?;
        master.listeners.set_past_connections(saved.past_connections);
        master.cx.generation = saved.reloads.max(1);
        master.cx.udp_filter = udp_filter(&master.listeners.bound());
        let inherited = Inherited::restore(&saved.inherited, &mut left).map_err(cannot)?;
        master.upgrader = Upgrader::arriving(saved, failed);
        (master.cx.is_ready, master.cx.serves) = (true, true);
        master.cx.board.set_stage(master.cx.lifecycle.stage());
        master.reloader.ask();
        Ok((master, inherited, left))
    }

    fn with(board: std::io::Result<Scoreboard>, stop_times: StopTimes) -> Result<Self, Error> {
        let board = board.map_err(|e| Error::os("cannot map the scoreboard", e))?;
        let cx = Context::new(board, udp_filter([]), stop_times)?;
        Ok(Self {
            sweep: Sweep::new(cx.now),
            cx,
            listeners: Listeners::default(),
            companions: Companions::default(),
            attendants: Vec::new(),
            reloader: Reloader::new(stop_times),
            upgrader: Upgrader::new(),
            idle_exit: None,
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
        self.cx.udp_filter = udp_filter(&bound);
        self.listeners.add_all(bound, &self.cx)?;
        self.listeners.iter_mut().for_each(|station| station.go_live(&self.cx));
        Ok(())
    }

    /// Reads the configuration from there when a reload is asked for; it may name what was `inherited`.
    /// No more than `max_generations` programs before this one may have children when another replaces it.
    pub fn reload_from(&mut self, source: Box<dyn Source>, inherited: Inherited, max_generations: u32) {
        self.cx.descriptors.add(inherited.descriptors());
        self.reloader.read_from(source, inherited, max_generations);
    }

    /// May be replaced by another program.
    pub fn replace_by(&mut self, replacement: impl Replacement + 'static) {
        self.upgrader.replace_by(Box::new(replacement), &self.cx);
    }

    /// Gives up what none of these needs that are to be served, for good and with all its children. To be called when all is
    /// bound and opened that is to be, and the process has the user that it is to have.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where the kernel can't do all that is asked for.
    pub fn confine(&mut self, level: Level, services: &[Service]) -> Result<(), Error> {
        self.cx.given_up = self.cx.given_up.for_services(services, level)?;
        Ok(())
    }

    /// As [`confine`](Self::confine), of a master that [succeeds](Self::succeed) another, once what it serves is in force.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn confine_on_arrival(&mut self, level: Level, services: Vec<Service>) -> Result<(), Error> {
        // a program that is executed is as others see it
        self.cx.given_up.hide(level)?;
        self.upgrader.confine_on_arrival(level, services);
        Ok(())
    }

    /// Ends when no client has been here for so long. For sockets that outlive it: what starts it again has them.
    pub fn exit_when_idle(&mut self, limit: Duration) {
        self.idle_exit = Some(IdleExit::new(limit, self.cx.now));
    }

    /// Has this part of the program live in its loop.
    pub fn join(&mut self, companion: impl Companion + 'static) {
        self.cx.descriptors.add(companion.descriptors());
        self.companions.join(companion);
    }

    /// Keeps a process of this kind alive, and has it read the scoreboard, which measures more from now on.
    pub fn attend(&mut self, attendant: Attendant) {
        self.cx.descriptors.add(attendant.listeners().iter().map(AsRawFd::as_raw_fd));
        self.cx.board.measure();
        self.attendants.push(attendant);
    }

    /// Ends when the application says so, by this handle, and does its work between two waits.
    pub(crate) fn serve_for(&mut self, handle: Handle, ticker: Ticker) {
        self.application = Some((handle, ticker));
    }

    /// Has children close this descriptor of the caller's.
    pub fn keep_from_children(&mut self, fd: RawFd) {
        self.cx.descriptors.add([fd]);
    }

    /// Has workers write to this instead of the standard streams of the process that started the daemon, which
    /// may wait for their end.
    pub fn leave_streams(&mut self, null: std::fs::File) {
        self.cx.descriptors.add([null.as_raw_fd()]);
        self.cx.null = Some(null);
    }

    /// The caller has closed a descriptor: its number may soon be that of a client.
    pub fn forget(&mut self, fd: RawFd) {
        self.cx.descriptors.remove(fd);
    }
}

/// Its life.
impl Master {
    /// Serves until it is asked to end; an error, or a panic of the application's own, ends the children, too.
    pub(crate) fn serve(&mut self) -> Result<(), Error> {
        let result = catch_unwind(AssertUnwindSafe(|| self.run(|_| Ok(()))));
        if !matches!(result, Ok(Ok(()))) {
            self.abandon();
        }
        result.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Serves until a signal ends it; calls `on_ready` once, when the first workers are up.
    // in the frame of its caller it would lie on one more page of the stack, which each fork copies
    #[inline(never)]
    pub fn run(&mut self, on_ready: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        Bound::check_all(&self.listeners.bound())?;
        // the root directory and the user have changed since it was asked first
        sys::fork::require_single_thread()
            .map_err(|cause| Error::os("cannot serve from this process", cause))?;
        self.cx.raises_children = sys::oom::may_raise_children() || self.cx.given_up.hides_children;
        self.require_descriptors()?;
        self.cx.has_spares = true;
        let mut on_ready = Some(on_ready);
        loop {
            self.turn()?;
            if self.is_over() {
                break;
            }
            if !self.cx.is_ready && self.listeners.iter().all(|station| station.is_ready(&self.cx)) {
                self.cx.is_ready = true;
                self.cx.board.set_stage(self.cx.lifecycle.stage());
                on_ready.take().map_or(Ok(()), |on_ready| on_ready(self))?;
                self.tell(Notice::Ready);
            }
            self.wait_and_act(None)?;
        }
        self.attendants.iter().for_each(Attendant::end);
        children::await_last();
        events::stopped(self.view().connections(), self.cut);
        Ok(())
    }

    /// Forks a child for one client, for an application that has a loop of its own (`Serving::handle_request`);
    /// `false` if none has come until then, or the server has ended.
    ///
    /// Between two clients the application has the process, and the master does nothing: signals wait, and
    /// the dead are not counted.
    pub(crate) fn serve_one(&mut self, until: Option<Instant>) -> Result<bool, Error> {
        let enough = self.listeners.forked(&self.cx) + 1;
        self.enough = Some(enough);
        let mut is_late = false;
        let served = loop {
            // a client that no child could be forked for gets one here, as soon as there can be one
            self.turn()?;
            if !self.cx.lifecycle.is_running() {
                self.run(|_| Ok(()))?;
                break false;
            }
            let has_served = self.listeners.forked(&self.cx) >= enough;
            if has_served || is_late {
                break has_served;
            }
            self.wait_and_act(until)?;
            is_late = until.is_some_and(|until| until <= self.cx.now);
        };
        self.enough = None;
        Ok(served)
    }

    /// Finds out whether a child could be forked for a client, and serve it. In the child there are a few descriptors
    /// more, as it closes what is the master's.
    fn require_descriptors(&mut self) -> Result<(), Error> {
        self.cx.give_up_reserve();
        for station in self.listeners.iter() {
            if let Acceptor::Forking(forking) = &station.acceptor {
                forking.context.require_descriptors(1)?;
            }
        }
        self.cx.restore_reserve();
        Ok(())
    }

    /// Says in the log what is served.
    pub fn announce(&self) {
        self.listeners.bound().iter().for_each(Bound::announce);
    }

    /// How long it has been there, under whatever program.
    pub fn uptime(&self) -> Duration {
        self.view().uptime()
    }

    /// Whether it has served.
    pub fn was_ready(&self) -> bool {
        self.cx.is_ready
    }

    /// Whether it has been told to stop, and has.
    pub(crate) fn is_over(&self) -> bool {
        let has_ended = |station: &Station| station.is_closed() && station.alive(&self.cx) == 0;
        self.cx.is_stopping() && self.listeners.iter().all(has_ended)
    }

    /// Ends all children at once, after an error that ends the master; what sees its end may count on theirs.
    pub fn abandon(&mut self) {
        children::signal(self.cx.board, |_| Signal::SIGKILL);
        self.attendants.iter().for_each(Attendant::end);
        children::await_last();
    }
}

/// Between two waits.
impl Master {
    /// Does what is due.
    fn turn(&mut self) -> Result<(), Error> {
        if let Some((_, ticker)) = &mut self.application {
            ticker.tick();
        }
        self.cx.now = Instant::now();
        let (from, times) = (self.cx.lifecycle, self.cx.stop_times);
        match self.cx.lifecycle.tick(self.cx.now, times) {
            Step::Nothing => {}
            step => self.enter(step, from, "drain-delay", times),
        }
        self.watch_memory();
        self.sweep.turn(&self.cx, &self.listeners, self.waits_for_children());
        self.companions.turn(View { cx: &self.cx, listeners: &self.listeners });
        let (reloader, upgrader, mut parts) = self.changes();
        reloader.turn(&mut parts);
        upgrader.turn(reloader, &mut parts)?;
        self.look_for_idleness();
        if !self.cx.is_ready {
            self.cx.serves = self.listeners.iter().any(|station| station.serves(&self.cx));
        }
        self.turn_listeners()?;
        if self.cx.lifecycle.accepts() {
            self.listeners.dismiss(&self.cx);
            for attendant in &mut self.attendants {
                attendant.on_turn(&mut self.cx, &self.listeners);
            }
        }
        Ok(())
    }

    /// Ends, or prepares that, when it is to and nothing happens.
    fn look_for_idleness(&mut self) {
        if self.cx.is_stopping() {
            return;
        }
        let view = View { cx: &self.cx, listeners: &self.listeners };
        let is_upgrading = !self.upgrader.is_idle();
        let Some(idle_exit) = &mut self.idle_exit else { return };
        let limit = idle_exit.limit();
        match idle_exit.turn(self.cx.now, || view.sight(is_upgrading)) {
            idle_exit::Step::Nothing => {}
            idle_exit::Step::Close => {
                self.cx.has_spares = false;
                self.listeners.in_life_mut(Life::Live).for_each(|station| station.rest(&self.cx));
            }
            idle_exit::Step::Reopen => {
                events::idle_no_more();
                self.cx.has_spares = true;
                self.listeners.in_life_mut(Life::Live).for_each(Station::reopen);
            }
            idle_exit::Step::Exit => {
                events::idle(limit);
                // nothing is to be announced: no client is refused
                let (from, times) = (self.cx.lifecycle, StopTimes::without_delay(self.cx.stop_times.grace));
                let step = self.cx.lifecycle.stop(self.cx.now, times);
                self.enter(step, from, "idle", times);
            }
        }
    }

    fn turn_listeners(&mut self) -> Result<(), Error> {
        self.listeners.relieve(&self.cx);
        let mut hopeless = None;
        for station in self.listeners.iter_mut() {
            match station.on_turn(&mut self.cx) {
                // its workers don't come up: the old ones are still there
                Err(error) if station.life == Life::Starting => hopeless = hopeless.or(Some(error)),
                result => result?,
            }
        }
        if let Some(why) = hopeless {
            let (reloader, _, mut parts) = self.changes();
            reloader.refuse(&mut parts, why);
        }
        Ok(())
    }

    /// What changes the master, and what that changes.
    fn changes(&mut self) -> (&mut Reloader, &mut Upgrader, Parts<'_>) {
        let Self { cx, listeners, companions, attendants, reloader, upgrader, .. } = self;
        (reloader, upgrader, Parts { cx, listeners, companions, attendants })
    }

    /// Reads, when that is due, how many processes the OOM killer has ended.
    fn watch_memory(&mut self) {
        let is_due = self.cx.oom.next_reading().is_some_and(|then| then <= self.cx.now);
        if is_due && self.has_children() && self.cx.oom.read(self.cx.now) {
            self.cx.descriptors.add(self.cx.oom.descriptors());
        }
    }

    fn has_children(&self) -> bool {
        !self.attendants.is_empty()
            || self.cx.board.unwatched() > 0
            || self.listeners.iter().any(|station| station.alive(&self.cx) > 0)
    }

    /// A client waits for the place of a child, or the master for the end of all.
    fn waits_for_children(&self) -> bool {
        self.cx.is_stopping()
            || self.idle_exit.as_ref().is_some_and(IdleExit::is_closing)
            || self.listeners.iter().any(|station| station.is_full(&self.cx))
    }

    /// Enters a phase of the way to the end, for this cause, and says so.
    fn enter(&mut self, step: Step, from: Lifecycle, cause: &str, times: StopTimes) {
        if step == Step::Announce {
            events::draining(cause, self.view().children(), times.drain_delay);
            self.tell(Notice::Stopping(times.whole()));
        } else if from.accepts() {
            events::stopping(cause, self.view().children(), times.grace);
            self.tell(Notice::Stopping(times.grace));
        }
        self.cx.board.set_stage(self.cx.lifecycle.stage());
        match step {
            Step::Nothing | Step::Announce => {}
            Step::Drain => self.listeners.iter_mut().for_each(|station| station.drain(&mut self.cx)),
            Step::End => {
                self.listeners.iter_mut().for_each(|station| station.close(&mut self.cx));
                // to a worker, SIGTERM says to leave after its connection
                let signal = |is_worker| if is_worker { Signal::SIGQUIT } else { Signal::SIGTERM };
                self.cut += u64::from(children::signal(self.cx.board, signal));
            }
            Step::Kill => _ = children::signal(self.cx.board, |_| Signal::SIGKILL),
        }
    }

    fn tell(&mut self, notice: Notice<'_>) {
        self.companions.tell(notice, View { cx: &self.cx, listeners: &self.listeners });
    }

    fn view(&self) -> View<'_> {
        View { cx: &self.cx, listeners: &self.listeners }
    }
}

/// Waiting.
impl Master {
    /// Waits, at most until then, and acts on what happens.
    fn wait_and_act(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let (events, began) = self.wait(until)?;
        self.cx.now = Instant::now();
        self.expect_turn(Some(self.cx.now));
        self.cx.is_busy = self.cx.now.duration_since(began) < AT_ONCE;
        self.cx.is_woken = false;
        events.into_iter().for_each(|event| self.on_event(event));
        Ok(())
    }

    /// Waits until a descriptor is ready or the next thing is due, and not beyond `until`; returns when that began, too.
    fn wait(&self, until: Option<Instant>) -> Result<(Few<Event>, Instant), Error> {
        let (mut fds, mut events) = (Few::new(), Few::new());
        self.watch(|fd, flags, event| {
            fds.push(PollFd::new(fd, flags));
            events.push(event);
        });
        let timeout = self.timeout(until);
        let began = Instant::now();
        self.expect_turn(timeout.map(|timeout| began + timeout));
        self.poll(&mut fds, timeout).map_err(|cause| Error::os("cannot wait for events", cause))?;
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|flags| !flags.is_empty());
        let events = fds.iter().zip(events).filter(|(fd, _)| ready(fd)).map(|(_, event)| event).collect();
        Ok((events, began))
    }

    /// Says, where there is a process that may be asked whether the loop turns, when it does so at the latest.
    fn expect_turn(&self, then: Option<Instant>) {
        if !self.attendants.is_empty() {
            self.cx.board.set_next_turn(then);
        }
    }

    fn poll(&self, fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> std::io::Result<()> {
        let mut most = fds.len();
        let mut limit = timeout;
        loop {
            match self.cx.blocked.wait(&mut fds[..most], limit) {
                // poll(2) takes no more descriptors than RLIMIT_NOFILE, which may have been lowered:
                // then the first ones, signals above all, must do, and the others are looked at soon.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && most > 0 => {
                    most /= 2;
                    limit = Some(timeout.unwrap_or(REST).min(REST));
                }
                other => return other,
            }
        }
    }

    /// Which descriptors matter now, and what each stands for.
    fn watch<'a>(&'a self, mut add: impl FnMut(BorrowedFd<'a>, PollFlags, Event)) {
        let readable = PollFlags::POLLIN;
        add(self.cx.signals.as_fd(), readable, Event::Signal);
        add(self.cx.board.wake().as_fd(), readable, Event::Wake);
        if let Some((handle, _)) = self.application.as_ref().filter(|_| self.cx.lifecycle.is_running()) {
            add(handle.poll_fd(), readable, Event::Shutdown);
        }
        self.upgrader.trial().into_iter().for_each(|fd| add(fd, readable, Event::Trial));
        self.companions.watch(self.cx.now, |fd, flags, index, number| {
            add(fd, flags, Event::Companion(index, number));
        });
        for (index, attendant) in self.attendants.iter().enumerate() {
            for (watch, pid) in attendant.watches() {
                add(watch, readable, Event::AttendantDeath(index, pid));
            }
        }
        for (index, station) in self.listeners.indexed() {
            match &station.acceptor {
                Acceptor::Forking(forking)
                    if station.life != Life::Starting && forking.wants_clients(&self.cx) =>
                {
                    add(forking.context.listener.as_fd(), readable, Event::Clients(index));
                }
                Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
                Acceptor::Pooling(pooling) => {
                    for (fd, slot, watched) in pooling.watches() {
                        add(fd, readable, Event::Worker(index, slot, watched));
                    }
                }
            }
        }
    }

    /// How long to wait; `None`: until something happens.
    fn timeout(&self, until: Option<Instant>) -> Option<Duration> {
        let soon = self.waits_for_children();
        if soon {
            // Said before looking: a child that ends after the look wakes us.
            self.cx.board.set_waiting(true);
            if self.cx.board.has_dead() {
                return Some(Duration::ZERO);
            }
        }
        let listeners = self.listeners.iter().filter_map(|station| station.deadline(&self.cx));
        let attendants = self.attendants.iter().filter_map(|attendant| attendant.deadline(self.cx.now));
        let work = self.application.as_ref().and_then(|(_, ticker)| ticker.longest());
        let others = [
            self.sweep.deadline(&self.cx, soon),
            self.cx.oom.next_reading().filter(|_| self.has_children()),
            self.cx.lifecycle.deadline(),
            self.idle_exit.as_ref().filter(|_| !self.cx.is_stopping()).map(IdleExit::deadline),
            self.reloader.deadline(),
            self.upgrader.deadline(&self.cx, &self.reloader),
            self.companions.deadline(self.view()),
            work.map(|every| self.cx.now + every),
            until,
        ];
        let next = listeners.chain(attendants).chain(others.into_iter().flatten()).min();
        next.map(|then| then.saturating_duration_since(Instant::now()))
    }
}

/// What happens.
impl Master {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Signal => {
                let orders = self.cx.signals.take();
                orders.into_iter().for_each(|order| self.on_order(order));
            }
            Event::Wake => {
                self.cx.board.wake().drain();
                self.cx.is_woken = true;
            }
            // it is asked when the loop has turned
            Event::Trial => {}
            Event::Shutdown => self.on_order(Order::Stop("shutdown")),
            Event::Companion(index, number) => {
                let view = View { cx: &self.cx, listeners: &self.listeners };
                self.companions.on_ready(index, number, view);
            }
            Event::Clients(index) => {
                let left = |enough: u64| enough.saturating_sub(self.listeners.forked(&self.cx)) as u32;
                let most = self.enough.map_or(u32::MAX, left);
                if let Some(forking) = self.listeners.forking_mut(index) {
                    forking.take_clients(&mut self.cx, most);
                }
            }
            Event::Worker(index, slot, watched) => {
                if let Some(pooling) = self.listeners.pooling_mut(index) {
                    pooling.on_event(&mut self.cx, slot, watched);
                }
            }
            Event::AttendantDeath(index, pid) => self.attendants[index].reap(&mut self.cx, pid),
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Stop(signal) => {
                self.reloader.on_stop(&mut self.cx);
                let (from, mut times) = (self.cx.lifecycle, self.cx.stop_times);
                // No load balancer has sent it clients; or what takes clients is not in force yet.
                if !self.cx.is_ready || self.upgrader.is_arriving() {
                    times.drain_delay = Duration::ZERO;
                }
                let step = self.cx.lifecycle.stop(self.cx.now, times);
                self.enter(step, from, signal, times);
            }
            Order::StopNow => {
                self.reloader.on_stop(&mut self.cx);
                let from = self.cx.lifecycle;
                let step = self.cx.lifecycle.stop_now(self.cx.now);
                self.enter(step, from, "SIGQUIT", StopTimes::without_delay(Duration::ZERO));
            }
            Order::Reload => self.reloader.ask(),
            Order::Upgrade => self.upgrader.ask(),
            Order::Report => self.view().log(),
            Order::Grow => self.resize("SIGTTIN", pool::Event::Grow),
            Order::Shrink => self.resize("SIGTTOU", pool::Event::Shrink),
        }
    }

    fn resize(&mut self, signal: &str, event: pool::Event) {
        if self.cx.is_stopping() {
            return;
        }
        let mut has_pool = false;
        for station in self.listeners.in_life_mut(Life::Live) {
            if let Acceptor::Pooling(pooling) = &mut station.acceptor {
                pooling.resize(event, &self.cx);
                has_pool = true;
            }
        }
        if !has_pool {
            events::no_pool(signal);
        }
    }
}
