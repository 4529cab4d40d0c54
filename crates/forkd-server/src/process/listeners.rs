//! The listening sockets of a master: those of one generation, or of two while one follows the other.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Context;
use super::forking::Forking;
use super::pooling::Pooling;
use super::program::LeftOfProgram;
use super::saved::{SavedStation, SavedWorker};
use super::sockets::Bound;
use super::station::{Acceptor, Life, Station};
use crate::Error;
use crate::model::listener_context::ListenerContext;
use crate::model::service_config::ServiceConfig;
use crate::spec::{ListenerSpec, ModelSpec};
use crate::transport::{Arrivals, Endpoint, Listener};

/// All listening sockets, each with its children.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    stations: Vec<Station>,
    /// Connections to sockets that are closed.
    past_connections: u64,
    /// Grows with each socket that comes, goes or changes its name.
    changes: u64,
}

/// A station, until one is dismissed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index(usize);

impl Listeners {
    /// Makes stations that will serve these sockets. Workers that accept by themselves are those of the first station that
    /// their configuration names, and have the sockets of all of it.
    pub(super) fn add_all(&mut self, bound: Vec<Bound>, cx: &Context) -> Result<(), Error> {
        let mut bound = bound.into_iter().peekable();
        while let Some(first) = bound.next() {
            let is_application = first.spec().service.as_application().is_some();
            let spec = Arc::clone(&first.spec);
            let mut others = Vec::new();
            while let Some(other) = bound.next_if(|other| is_application && Arc::ptr_eq(&other.spec, &spec)) {
                others.push(other);
            }
            let beside = others.iter().map(|other| Arc::clone(&other.listener)).collect();
            self.add_with(first, beside, false, cx)?;
            others.into_iter().try_for_each(|other| self.add_with(other, Vec::new(), true, cx))?;
        }
        Ok(())
    }

    /// Makes a station that will serve this socket alone.
    fn add(&mut self, bound: Bound, cx: &Context) -> Result<(), Error> {
        self.add_with(bound, Vec::new(), false, cx)
    }

    fn add_with(
        &mut self,
        bound: Bound,
        beside: Vec<Arc<Listener>>,
        is_beside: bool,
        cx: &Context,
    ) -> Result<(), Error> {
        let Bound { asked, spec, listener, number, hooks } = bound;
        let ModelSpec { model, idle_timeout, max_lifetime, .. } = spec.model;
        let in_use = |number| self.stations.iter().any(|station| station.number() == number);
        let number = match number {
            Some(number) => number,
            None => cx.board.open(in_use).ok_or_else(|| {
                Error::Config("there are more listening sockets than forkd can count; leave some out".into())
            })?,
        };
        if model.has_pool() {
            // workers get it by being forked
            listener.queue();
        }
        if spec.service.as_application().is_some() {
            listener.lend();
        }
        let descriptors = listener.descriptors();
        let failures = &cx.board.tally(number).failures;
        let service_config =
            ServiceConfig::new(listener.endpoint(), spec.service.clone(), model, hooks, failures)
                .with_limits(idle_timeout, max_lifetime)
                .stopped_by(&cx.board.tally(number).stopping);
        let mut context = ListenerContext::new(listener, number, service_config, &spec.access, cx.board);
        context.beside = beside;
        self.stations.push(Station::new(asked, context, spec, is_beside, cx)?);
        // not before, as they are closed where there is no station
        cx.descriptors.add(descriptors);
        Ok(())
    }

    /// Goes on with a station of the program before this one, which forks no child any more.
    pub(super) fn restore(
        &mut self,
        bound: Bound,
        saved: &SavedStation,
        workers: Vec<(SavedWorker, OwnedFd, LeftOfProgram)>,
        cx: &Context,
    ) -> Result<(), Error> {
        self.add(bound, cx)?;
        if let Some(station) = self.stations.last_mut() {
            station.life = if saved.is_live { Life::Live } else { Life::Leaving };
            station.is_application = saved.is_application;
            if saved.is_application {
                station.listener().into_iter().for_each(Listener::lend);
            }
            match &mut station.acceptor {
                Acceptor::Forking(forking) => forking.restore(saved.has_spares),
                Acceptor::Pooling(pooling) => pooling.restore(workers, cx),
                Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
            }
        }
        Ok(())
    }

    /// Goes on with a station of the program before this one whose socket is closed.
    pub(super) fn add_gone(
        &mut self,
        asked: Endpoint,
        spec: Arc<ListenerSpec>,
        number: usize,
        endpoint: Endpoint,
        dropped: Option<u32>,
    ) {
        let arrivals = Arrivals { dropped, ..Arrivals::default() };
        self.stations.push(Station::gone(asked, spec, number, endpoint, arrivals));
    }

    /// Writes them down, for the program that this process executes.
    pub(super) fn save(&self) -> Vec<SavedStation> {
        self.stations.iter().map(SavedStation::of).collect()
    }

    /// Sets how many connections there were to sockets that are closed.
    pub(super) fn set_past_connections(&mut self, count: u64) {
        self.past_connections = count;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Station> {
        self.stations.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Station> {
        self.stations.iter_mut()
    }

    /// Those in this part of their life.
    pub(super) fn in_life(&self, life: Life) -> impl Iterator<Item = &Station> {
        self.stations.iter().filter(move |station| station.life == life)
    }

    /// Those in this part of their life.
    pub(super) fn in_life_mut(&mut self, life: Life) -> impl Iterator<Item = &mut Station> {
        self.stations.iter_mut().filter(move |station| station.life == life)
    }

    /// All of them, each with what will find it again.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (Index, &Station)> {
        self.stations.iter().enumerate().map(|(at, station)| (Index(at), station))
    }

    pub(super) fn forking_mut(&mut self, index: Index) -> Option<&mut Forking> {
        match &mut self.stations.get_mut(index.0)?.acceptor {
            Acceptor::Forking(forking) => Some(forking),
            Acceptor::Pooling(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        }
    }

    pub(super) fn pooling_mut(&mut self, index: Index) -> Option<&mut Pooling> {
        match &mut self.stations.get_mut(index.0)?.acceptor {
            Acceptor::Pooling(pooling) => Some(pooling),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        }
    }

    /// Has pools whose workers accept by themselves come in a few workers at a time, each in the place of the one that it follows.
    pub(super) fn roll(&mut self, cx: &Context) {
        let mut places: Vec<(usize, u32)> = Vec::new();
        for at in 1..self.stations.len() {
            let (before, rest) = self.stations.split_at_mut(at);
            let Station { life: Life::Starting, acceptor: Acceptor::Pooling(new), .. } = &mut rest[0] else {
                continue;
            };
            for (of, station) in before.iter().enumerate() {
                if let Station { life: Life::Live, acceptor: Acceptor::Pooling(old), .. } = station
                    && let Some(come) = new.roll(old, cx)
                {
                    places.push((of, come));
                }
            }
        }
        for (at, station) in self.stations.iter_mut().enumerate() {
            let taken = places.iter().filter(|(of, _)| *of == at).map(|(_, come)| *come).min();
            if let (Acceptor::Pooling(old), Some(taken)) = (&mut station.acceptor, taken) {
                old.give(taken);
            }
        }
    }

    /// Has workers leave of a generation that was taken back, as those of the one in force are up again.
    pub(super) fn relieve(&mut self, cx: &Context) {
        for at in 0..self.stations.len() {
            let Station { life: Life::Leaving, acceptor: Acceptor::Pooling(last), .. } = &self.stations[at]
            else {
                continue;
            };
            if !last.has_stand_ins() {
                continue;
            }
            let lacking = self.in_life(Life::Live).find_map(|station| match &station.acceptor {
                Acceptor::Pooling(pooling) if pooling.follows(last) => Some(pooling.lacking(cx)),
                _ => None,
            });
            if let Acceptor::Pooling(last) = &mut self.stations[at].acceptor {
                last.stand_in_for(lacking.unwrap_or(0), cx);
            }
        }
    }

    /// One station for each socket: that which serves it, if there is one.
    pub(super) fn current(&self) -> impl Iterator<Item = &Station> {
        let rank = |station: &Station, at: usize| (station.life != Life::Live, at);
        self.stations.iter().enumerate().filter_map(move |(at, station)| {
            let same =
                self.stations.iter().enumerate().filter(|(_, other)| other.number() == station.number());
            let best = same.map(|(i, other)| rank(other, i)).min();
            (best == Some(rank(station, at))).then_some(station)
        })
    }

    /// The sockets that are served, or will be.
    pub(super) fn bound(&self) -> Vec<Bound> {
        self.stations.iter().filter_map(Station::bound).collect()
    }

    /// How many children have been forked.
    pub(super) fn forked(&self, cx: &Context) -> u64 {
        let forked = |station: &Station| cx.board.totals(station.number()).forked.load(Ordering::Relaxed);
        self.current().map(forked).sum()
    }

    /// Connections to sockets that are closed.
    pub(super) fn past_connections(&self) -> u64 {
        self.past_connections
    }

    /// A number that grows with each socket that comes, goes or changes its name.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Other sockets, or the same under other names, serve from now on.
    pub(super) fn changed(&mut self) {
        self.changes += 1;
    }

    /// Whether workers of another station have this one's socket, too, so that it stays open.
    fn is_held_by_another(&self, station: &Station) -> bool {
        let Acceptor::Beside(context) = &station.acceptor else { return false };
        self.stations.iter().any(|other| match &other.acceptor {
            Acceptor::Pooling(pooling) => {
                pooling.context.beside.iter().any(|listener| Arc::ptr_eq(listener, &context.listener))
            }
            _ => false,
        })
    }

    /// Lets go of stations that are no more needed: their successors are at work, or their last child
    /// has gone.
    pub(super) fn dismiss(&mut self, cx: &Context) {
        let mut at = 0;
        while at < self.stations.len() {
            let station = &self.stations[at];
            if station.life != Life::Leaving || !station.is_closed() || self.is_held_by_another(station) {
                at += 1;
                continue;
            }
            let number = station.number();
            let is_shared = self.stations.iter().filter(|other| other.number() == number).count() > 1;
            if !is_shared && let Some(context) = station.context() {
                context.listener.descriptors().into_iter().for_each(|fd| cx.descriptors.remove(fd));
            }
            station.confines_no_more(cx);
            if is_shared {
                self.stations.remove(at);
            } else if station.alive(cx) == 0 {
                self.past_connections += cx.board.totals(number).sums().connections;
                self.stations.remove(at);
                self.changed();
            } else {
                if station.context().is_some() {
                    self.stations[at].become_gone();
                    self.changed();
                }
                at += 1;
            }
        }
    }
}
