//! A reload: the configuration is read again, and put in force as a whole or not at all.
//!
//! ```text
//!                                          all first workers are up
//! prepare ──▶ the new stations are Starting ──────────────────────▶ they are Live, the old ones Leave
//!    │                         └── a pool gives up ──▶ they Leave, the old ones stay Live
//!    └── a mistake, or a socket that can't be bound ──▶ nothing has changed
//! ```
//!
//! A socket that both configurations name stays open, and both stations have it: no client is refused.

use std::fmt;
use std::time::{Duration, Instant};

use super::attendant::Attendant;
use super::companion::{Companions, Notice};
use super::context::Context;
use super::lifecycle::StopTimes;
use super::listeners::Listeners;
use super::sockets::{Bound, bind, udp_filter};
use super::station::{Life, Station};
use super::view::View;
use crate::spec::ListenerSpec;
use crate::sys::signal::prepare_orphan_deadline;
use crate::transport::Inherited;
use crate::{Error, events};

/// What a master serves, from one reload to the next.
#[derive(Debug)]
pub struct Generation {
    /// How long a stop may take.
    pub stop_times: StopTimes,
    /// How many programs before this one may have children when another replaces it.
    pub max_generations: u32,
    /// What is served.
    pub listeners: Vec<ListenerSpec>,
}

/// Where the next generation comes from.
pub trait Source {
    /// Reads it. From here on it holds, for what it has to do with beside the master, until one of the others is called.
    ///
    /// # Errors
    ///
    /// Why there is none, or why it can't follow the one in force. The latter goes on.
    fn prepare(&mut self) -> Result<Generation, Error>;

    /// What was prepared is in force.
    fn put_in_force(&mut self);

    /// What was in force before goes on.
    fn roll_back(&mut self);
}

/// How long to wait for the next worker of a new configuration to come up, if nothing else is said.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the next of these that start: a little longer than it may take, so that its end tells why.
fn patience(listeners: &Listeners) -> Duration {
    let starting = listeners.in_life(Life::Starting);
    let longest = starting.filter_map(Station::start_timeout).max();
    START_TIMEOUT.max(longest.unwrap_or_default() + Duration::from_secs(1))
}

/// Brings in one generation after the other.
pub(super) struct Reloader {
    source: Option<Box<dyn Source>>,
    /// What new endpoints may be made of.
    inherited: Inherited,
    /// How long a stop may take, in the generation in force.
    stop_times: StopTimes,
    /// See [`Generation`]; of the one in force.
    max_generations: u32,
    /// SIGHUP has come.
    wanted: bool,
    /// What will be in force once its stations are ready.
    next: Option<Next>,
    /// How the first one ended, or the first since that was looked at.
    outcome: Option<Result<(), Error>>,
}

/// A generation whose stations are Starting.
#[derive(Debug)]
struct Next {
    stop_times: StopTimes,
    max_generations: u32,
    /// How many of its workers have been up at once.
    up: usize,
    /// When it is given up, unless more come up; and how long the next one may take to come up.
    until: Instant,
    patience: Duration,
}

/// What a reload changes.
pub(super) struct Parts<'a> {
    pub(super) cx: &'a mut Context,
    pub(super) listeners: &'a mut Listeners,
    pub(super) companions: &'a mut Companions,
    pub(super) attendants: &'a [Attendant],
}

impl Parts<'_> {
    pub(super) fn tell(&mut self, notice: Notice<'_>) {
        self.companions.tell(notice, View { cx: self.cx, listeners: self.listeners });
    }
}

/// Gives them to the workers that are forked from now on.
fn set_stop_times(cx: &mut Context, stop_times: StopTimes) {
    cx.stop_times = stop_times;
    // it could be installed at the start
    let _ = prepare_orphan_deadline(stop_times.grace);
}

impl Reloader {
    /// Without a source: each reload is refused.
    pub(super) fn new(stop_times: StopTimes) -> Self {
        Self {
            source: None,
            inherited: Inherited::default(),
            stop_times,
            max_generations: 0,
            wanted: false,
            next: None,
            outcome: None,
        }
    }

    /// Reads the configuration from there; it may name what was `inherited`.
    pub(super) fn read_from(&mut self, source: Box<dyn Source>, inherited: Inherited, max_generations: u32) {
        self.source = Some(source);
        self.inherited = inherited;
        self.max_generations = max_generations;
    }

    /// How many programs before this one may have children when another replaces it.
    pub(super) fn max_generations(&self) -> usize {
        self.max_generations as usize
    }

    /// A signal asks for a reload.
    pub(super) fn ask(&mut self) {
        self.wanted = true;
    }

    /// Whether no reload goes on.
    pub(super) fn is_idle(&self) -> bool {
        self.next.is_none()
    }

    /// How that ended, once.
    pub(super) fn take_outcome(&mut self) -> Option<Result<(), Error>> {
        self.outcome.take()
    }

    /// Whether one has ended, and nothing has looked how.
    pub(super) fn has_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    /// What new endpoints may be made of.
    pub(super) fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// When a reload that goes on is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.as_ref().map(|next| next.until)
    }

    /// Goes on with reloads as far as possible: one after the other, since one that is asked for while another goes on
    /// may be for a file that has changed meanwhile. Those asked for before the daemon is ready wait for that.
    pub(super) fn turn(&mut self, parts: &mut Parts<'_>) {
        if !parts.cx.lifecycle.is_running() {
            return self.refuse_for_good(parts);
        }
        while parts.cx.is_ready {
            if self.next.is_none() {
                if !self.is_wanted(parts) {
                    return;
                }
                match self.prepare(parts) {
                    Ok((stop_times, max_generations)) => {
                        let patience = patience(parts.listeners);
                        let until = parts.cx.now + patience;
                        self.next = Some(Next { stop_times, max_generations, up: 0, until, patience });
                    }
                    Err(error) => {
                        self.refuse(parts, error);
                        continue;
                    }
                }
            }
            if !self.has_decided(parts) {
                return;
            }
        }
    }

    /// Puts the next generation in force if it is ready, or gives it up if it is late; `false`: it goes on starting.
    fn has_decided(&mut self, parts: &mut Parts<'_>) -> bool {
        let Some(next) = &mut self.next else { return true };
        parts.listeners.roll(parts.cx);
        let (cx, listeners) = (&*parts.cx, &*parts.listeners);
        let up = listeners.in_life(Life::Starting).map(|station| station.up(cx)).sum();
        if up > next.up {
            (next.up, next.until) = (up, cx.now + next.patience);
        }
        let is_late = cx.now >= next.until;
        let late = listeners.in_life(Life::Starting).find(|station| !station.is_ready(cx));
        match late.map(Station::not_ready) {
            None => self.put_in_force(parts),
            Some(Some(why)) if is_late => self.refuse(parts, why),
            Some(_) => return false,
        }
        true
    }

    /// The master stops: no request for a reload shall wait, and one that goes on is given up.
    fn refuse_for_good(&mut self, parts: &mut Parts<'_>) {
        if !(self.next.is_some() | self.is_wanted(parts)) {
            return;
        }
        let why = Error::Config("the daemon stops".into());
        if parts.cx.lifecycle.accepts() {
            // until the delay is over
            self.refuse(parts, why);
        } else {
            // all stations drain
            self.next = None;
            parts.tell(Notice::ReloadEnded(Err(&why)));
        }
    }

    fn is_wanted(&mut self, parts: &mut Parts<'_>) -> bool {
        let by_companion = parts.companions.take_reload();
        std::mem::take(&mut self.wanted) | by_companion
    }

    /// Reads the configuration, binds what is new in it, and starts its stations. Returns how long a stop of it may take, and
    /// how many older programs may have children.
    fn prepare(&mut self, parts: &mut Parts<'_>) -> Result<(StopTimes, u32), Error> {
        events::reloading();
        parts.tell(Notice::Reloading);
        let Some(source) = &mut self.source else {
            let why = "this program has no configuration that could be read again";
            return Err(Error::Config(why.into()));
        };
        let Generation { stop_times, max_generations, listeners } = source.prepare()?;
        listeners.iter().try_for_each(|spec| parts.cx.given_up.suits(&spec.service))?;
        let open = parts.listeners.bound();
        let bound = bind(listeners, &open, &self.inherited)?;
        Bound::check_all(&bound)?;
        // what the new workers are born with
        set_stop_times(parts.cx, stop_times);
        // workers of either configuration must know the sockets of both
        parts.cx.udp_filter = udp_filter(open.iter().chain(&bound));
        parts.cx.generation += 1;
        parts.listeners.add_all(bound, parts.cx)?;
        Ok((stop_times, max_generations))
    }

    /// The new stations take over.
    fn put_in_force(&mut self, parts: &mut Parts<'_>) {
        let Some(next) = self.next.take() else { return };
        let Parts { cx, listeners, .. } = parts;
        let new: Vec<Bound> = listeners.in_life(Life::Starting).filter_map(Station::bound).collect();
        cx.udp_filter = udp_filter(&new);
        let is_kept =
            |new: &&Bound| listeners.in_life(Life::Live).any(|live| Some(live.number()) == new.number);
        new.iter().filter(|new| !is_kept(new)).for_each(|new| new.announce());
        for station in listeners.in_life_mut(Life::Live) {
            let successor = new.iter().find(|new| new.number == Some(station.number()));
            match (successor, station.listener()) {
                (Some(successor), Some(listener)) => {
                    Bound::adapt(listener, &station.spec, successor.spec());
                    station.hand_over(cx);
                }
                _ => {
                    events::no_longer_listening(station.endpoint());
                    station.drain(cx);
                }
            }
        }
        listeners.in_life_mut(Life::Starting).for_each(|station| station.go_live(cx));
        listeners.changed();
        (self.stop_times, self.max_generations) = (next.stop_times, next.max_generations);
        if let Some(source) = &mut self.source {
            source.put_in_force();
        }
        events::reloaded();
        parts.tell(Notice::ReloadEnded(Ok(())));
        self.outcome.get_or_insert(Ok(()));
    }

    /// The old configuration goes on, for this reason.
    pub(super) fn refuse(&mut self, parts: &mut Parts<'_>, why: Error) {
        self.roll_back(parts);
        events::reload_refused(&why.sentence());
        parts.tell(Notice::ReloadEnded(Err(&why)));
        self.outcome.get_or_insert(Err(why));
    }

    /// A stop follows the configuration in force. It drains all stations, those that a reload has begun, too.
    pub(super) fn on_stop(&mut self, cx: &mut Context) {
        if self.next.is_some() {
            self.restore(cx);
        }
    }

    /// Takes back what new workers are born with.
    fn restore(&mut self, cx: &mut Context) {
        set_stop_times(cx, self.stop_times);
        if let Some(source) = &mut self.source {
            source.roll_back();
        }
    }

    /// Ends what a reload has begun.
    fn roll_back(&mut self, parts: &mut Parts<'_>) {
        self.next = None;
        let Parts { cx, listeners, .. } = parts;
        self.restore(cx);
        let live: Vec<Bound> = listeners.in_life(Life::Live).filter_map(Station::bound).collect();
        for station in listeners.in_life_mut(Life::Starting) {
            match live.iter().any(|live| live.number == Some(station.number())) {
                true => station.give_back(cx),
                false => station.drain(cx),
            }
        }
        listeners.in_life_mut(Life::Live).for_each(|station| station.go_live(cx));
        cx.udp_filter = udp_filter(&live);
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("wanted", &self.wanted)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
