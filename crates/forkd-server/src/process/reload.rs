//! A reload: the configuration is read again, and put in force as a whole or not at all.
//!
//! ```text
//!                                          all first workers are up
//! prepare ──▶ the new stations are Starting ──────────────────────▶ they are Live, the old ones Leave
//!    │                         └── a pool gives up ──▶ they Leave, the old ones stay Live
//!    └── a mistake, or a socket that can't be bound ──▶ nothing has changed
//! ```
//!
//! A socket that both configurations name stays open, and both stations have it: nobody is refused.

use std::fmt;
use std::time::{Duration, Instant};

use super::attendant::Attendant;
use super::companion::Notice;
use super::master::Master;
use super::phase::Phase;
use super::sockets::{Bound, bind};
use super::station::{Life, Station};
use crate::spec::ListenerSpec;
use crate::sys::signal::prepare_orphan_deadline;
use crate::transport::Inherited;
use crate::transport::udp_filter::UdpFilter;
use crate::{Error, events};

/// What a master serves, from one reload to the next.
#[derive(Debug)]
pub struct Generation {
    /// How long connections may go on at a stop.
    pub grace: Duration,
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

/// How far a reload has come.
#[derive(Default)]
pub(super) struct Reload {
    pub(super) source: Option<Box<dyn Source>>,
    /// What new endpoints may be made of.
    pub(super) inherited: Inherited,
    /// SIGHUP has come.
    pub(super) wanted: bool,
    /// What will be in force once its stations are ready.
    next: Option<Next>,
}

/// A generation whose stations are Starting.
#[derive(Debug)]
struct Next {
    grace: Duration,
    /// How many of its workers have been up at once.
    up: usize,
    /// When it is given up, unless more come up.
    until: Instant,
}

/// How long to wait for the next worker of a new configuration to come up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Master {
    /// Goes on with reloads as far as possible: one after the other, since who asks while one goes on may
    /// have changed the file meanwhile.
    pub(super) fn see_to_reload(&mut self) {
        if self.phase != Phase::Running {
            return self.refuse_for_good();
        }
        // who asks before the daemon is ready has to wait for that
        while self.is_ready {
            let mut next = match self.reload.next.take() {
                Some(next) => next,
                None if self.is_reload_wanted() => match self.prepare() {
                    Ok(grace) => Next { grace, up: 0, until: self.cx.now + PATIENCE },
                    Err(error) => {
                        self.refuse_reload(&error);
                        continue;
                    }
                },
                None => return,
            };
            let starting = || self.stations.iter().filter(|station| station.life == Life::Starting);
            let up = starting().map(|station| station.up(&self.cx)).sum();
            if up > next.up {
                (next.up, next.until) = (up, self.cx.now + PATIENCE);
            }
            let late = starting().find(|station| !station.is_ready(&self.cx));
            match late.map(Station::not_ready) {
                None => self.put_in_force(next.grace),
                Some(Some(why)) if self.cx.now >= next.until => self.refuse_reload(&why),
                Some(_) => {
                    self.reload.next = Some(next);
                    return;
                }
            }
        }
    }

    /// When a reload that goes on is given up.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        self.reload.next.as_ref().map(|next| next.until)
    }

    /// The daemon stops: nobody shall wait for a reload.
    fn refuse_for_good(&mut self) {
        if self.reload.next.take().is_some() | self.is_reload_wanted() {
            let why = Error::Config("cannot reload: the daemon stops".into());
            self.tell(Notice::ReloadEnded(Err(&why)));
        }
    }

    fn is_reload_wanted(&mut self) -> bool {
        let by_signal = std::mem::take(&mut self.reload.wanted);
        self.companions.iter_mut().fold(by_signal, |wanted, companion| companion.takes_reload() | wanted)
    }

    /// Reads the configuration, binds what is new in it, and starts its stations.
    fn prepare(&mut self) -> Result<Duration, Error> {
        events::reloading();
        self.tell(Notice::Reloading);
        let Some(source) = &mut self.reload.source else {
            let why = "cannot reload: this program has no configuration that could be read again";
            return Err(Error::Config(why.into()));
        };
        let Generation { grace, listeners } = source.prepare()?;
        let open: Vec<Bound> = self.stations.iter().filter_map(Station::bound).collect();
        let bound = bind(listeners, &open, &self.reload.inherited)?;
        Bound::check_all(&bound)?;
        // what the new workers are born with
        self.set_grace(grace);
        // workers of either configuration must know the sockets of both
        self.cx.guard = guard(open.iter().chain(&bound));
        for bound in bound {
            self.add_station(bound)?;
        }
        Ok(grace)
    }

    /// The new stations take over.
    fn put_in_force(&mut self, grace: Duration) {
        let starting = |station: &&Station| station.life == Life::Starting;
        let new: Vec<Bound> = self.stations.iter().filter(starting).filter_map(Station::bound).collect();
        self.cx.guard = guard(&new);
        let is_kept = |new: &&Bound| {
            self.stations.iter().any(|s| s.life == Life::Live && Some(s.number()) == new.number)
        };
        new.iter().filter(|new| !is_kept(new)).for_each(|new| new.announce());
        for station in self.stations.iter_mut().filter(|station| station.life == Life::Live) {
            let successor = new.iter().find(|new| new.number == Some(station.number()));
            match (successor, station.listener()) {
                (Some(successor), Some(listener)) => {
                    Bound::adapt(listener, &station.spec, successor.spec());
                    station.hand_over(&self.cx);
                }
                _ => {
                    events::no_longer_listening(station.endpoint());
                    station.drain(&mut self.cx);
                }
            }
        }
        for station in self.stations.iter_mut().filter(|station| station.life == Life::Starting) {
            station.go_live(&self.cx);
        }
        self.grace = grace;
        if let Some(source) = &mut self.reload.source {
            source.put_in_force();
        }
        self.renew_attendants();
        events::reloaded();
        self.tell(Notice::ReloadEnded(Ok(())));
    }

    fn set_grace(&mut self, grace: Duration) {
        self.cx.grace = grace;
        // it could be installed at the start
        let _ = prepare_orphan_deadline(grace);
    }

    /// They get the names of the sockets as they are now.
    fn renew_attendants(&mut self) {
        self.attendants.iter_mut().for_each(Attendant::renew);
    }

    /// The old configuration goes on.
    pub(super) fn refuse_reload(&mut self, error: &Error) {
        self.roll_back();
        events::reload_refused(&error.sentence());
        self.tell(Notice::ReloadEnded(Err(error)));
    }

    /// Ends what a reload has begun.
    fn roll_back(&mut self) {
        self.reload.next = None;
        self.set_grace(self.grace);
        if let Some(source) = &mut self.reload.source {
            source.roll_back();
        }
        let is_live = |station: &&Station| station.life == Life::Live;
        let live: Vec<Bound> = self.stations.iter().filter(is_live).filter_map(Station::bound).collect();
        for station in self.stations.iter_mut().filter(|station| station.life == Life::Starting) {
            match live.iter().any(|live| live.number == Some(station.number())) {
                true => station.hand_over(&self.cx),
                false => station.drain(&mut self.cx),
            }
        }
        for station in self.stations.iter_mut().filter(|station| station.life == Life::Live) {
            station.go_live(&self.cx);
        }
        self.cx.guard = guard(&live);
    }

    /// Lets go of stations that are no more needed: their successors are at work, or their last child
    /// has gone.
    pub(super) fn dismiss_stations(&mut self) {
        let mut at = 0;
        while at < self.stations.len() {
            let station = &self.stations[at];
            if station.life != Life::Leaving || !station.is_closed() {
                at += 1;
                continue;
            }
            let number = station.number();
            let is_shared = self.stations.iter().filter(|other| other.number() == number).count() > 1;
            if !is_shared && let Some(post) = station.post() {
                post.listener.descriptors().into_iter().for_each(|fd| self.cx.descriptors.remove(fd));
            }
            if is_shared {
                self.stations.remove(at);
            } else if station.alive(&self.cx) == 0 {
                self.past_connections += self.cx.board.totals(number).sums().connections;
                self.stations.remove(at);
                self.renew_attendants();
            } else {
                if station.post().is_some() {
                    self.stations[at].become_gone();
                    self.renew_attendants();
                }
                at += 1;
            }
        }
    }
}

/// The guard of these sockets.
pub(super) fn guard<'a>(bound: impl IntoIterator<Item = &'a Bound>) -> UdpFilter {
    UdpFilter::new(bound.into_iter().filter_map(|bound| bound.listener().udp_port()))
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload")
            .field("wanted", &self.wanted)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
