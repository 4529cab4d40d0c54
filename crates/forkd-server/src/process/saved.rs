//! A master, written down for the program that its process executes, and how that goes on with it.
//!
//! Its children go on meanwhile: they are children of the same process, and write to the same memory. Here are the
//! descriptors, what the master knows of its children, and which of them serve which socket. Numbers have names, so that
//! the other program may know more of them, or fewer.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::context::Context;
use super::generations::Generations;
use super::listeners::Listeners;
use super::program::LeftOfProgram;
use super::sockets::Bound;
use super::station::{Acceptor, Life, Station};
use crate::model::Model;
use crate::scoreboard::SavedBoard;
use crate::service::{Discard, Service};
use crate::spec::{ListenerSpec, ModelSpec, Suits};
use crate::sys::handover::LeftOpen;
use crate::transport::bind::BindOptions;
use crate::transport::saved_socket::SavedSocket;
use crate::transport::{Endpoint, Listener};
use crate::{Error, Failure};

/// A master, written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedMaster {
    pub(super) board: SavedBoard,
    pub(super) stations: Vec<SavedStation>,
    /// What was handed over to the first program, each with its name.
    pub(super) inherited: Vec<(RawFd, String)>,
    /// What companions and attendants have, each with a name.
    pub(super) parts: Vec<SavedPart>,
    pub(super) past_connections: u64,
    /// What it has given up for good: the privileges of programs, and system calls.
    pub(super) given_up: [bool; 2],
    /// The programs before the next one; and those before this one, should it go on after all.
    pub(super) generations: Generations,
    pub(super) generations_before: Generations,
    /// How often the configuration has been read.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) reloads: u32,
    /// A bit for each signal that the first program was started with ignored, and blocked.
    pub(super) caller: [u64; 2],
}

/// What a companion or an attendant has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedPart {
    /// What it is.
    pub name: String,
    /// The socket, or a descriptor of another kind.
    pub socket: SavedSocket,
}

impl SavedPart {
    /// A part of this name.
    pub fn of(name: &str, socket: SavedSocket) -> Self {
        Self { name: name.to_owned(), socket }
    }
}

/// A listening socket, and what serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct SavedStation {
    number: usize,
    asked: String,
    /// What it is bound to, or was.
    endpoint: String,
    v6only: bool,
    service: String,
    model: String,
    /// `None`: it is closed, and its last children finish.
    #[cfg_attr(feature = "serde", serde(default))]
    socket: Option<SavedSocket>,
    /// What the kernel has dropped there until then.
    #[cfg_attr(feature = "serde", serde(default))]
    dropped: Option<u32>,
    /// It serves new clients.
    pub(super) is_live: bool,
    /// Its workers accept by themselves.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) is_application: bool,
    /// Children may wait there for their client.
    pub(super) has_spares: bool,
    workers: Vec<SavedWorker>,
}

/// A worker, and the descriptor that tells of its death.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct SavedWorker {
    pub(super) slot: u32,
    pub(super) watch: RawFd,
    pub(super) dismissed: bool,
    /// What it is, if it accepts by itself.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) program: Option<SavedProgram>,
}

/// A worker that is a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct SavedProgram {
    /// Its number in the pool.
    pub(super) number: u32,
    /// The signal by which it is told to leave.
    pub(super) stop_signal: i32,
    /// The socket at which it says how it is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) notify: Option<RawFd>,
    /// The pipe by which its output comes.
    pub(super) output: Option<RawFd>,
}

impl SavedMaster {
    /// All descriptors that the next program needs.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let stations = self.stations.iter().flat_map(|station| {
            let socket = station.socket.iter().map(SavedSocket::descriptor);
            let of = |worker: &SavedWorker| {
                let program = worker.program.as_ref().map(|program| [program.notify, program.output]);
                program.into_iter().flatten().flatten().chain([worker.watch])
            };
            socket.chain(station.workers.iter().flat_map(of))
        });
        let parts = self.parts.iter().map(|part| part.socket.descriptor());
        let inherited = self.inherited.iter().map(|(descriptor, _)| *descriptor);
        let mut all: Vec<RawFd> =
            self.board.descriptors().chain(stations).chain(parts).chain(inherited).collect();
        all.sort_unstable();
        // stations of two configurations share a socket
        all.dedup();
        all
    }

    /// What has this name among what companions and attendants had.
    pub fn parts(&self, name: &str) -> impl Iterator<Item = &SavedSocket> {
        self.parts.iter().filter(move |part| part.name == name).map(|part| &part.socket)
    }

    /// Finds out whether this program could go on with it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where it does not know what is served.
    pub fn check(&self) -> Result<(), Error> {
        let parsed = self.stations.iter().try_for_each(|station| station.parse().map(drop));
        parsed.map_err(|error| {
            Error::Unavailable(Failure::from(format!("this program does not know what is served: {error}")))
        })
    }

    /// Whether a service manager has handed over sockets.
    pub fn has_inherited(&self) -> bool {
        !self.inherited.is_empty()
    }
}

impl SavedStation {
    pub(super) fn of(station: &Station) -> Self {
        let (spares, workers) = match &station.acceptor {
            Acceptor::Forking(forking) => (forking.has_spares(), Vec::new()),
            Acceptor::Pooling(pooling) => (false, pooling.save()),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => (false, Vec::new()),
        };
        Self {
            number: station.number(),
            asked: station.asked.to_string(),
            endpoint: station.endpoint().to_string(),
            v6only: station.spec.bind.v6only,
            service: station.spec.service.name().to_owned(),
            model: station.model().to_string(),
            socket: station.listener().map(Listener::save),
            dropped: station.arrivals().dropped,
            is_live: station.life == Life::Live,
            is_application: station.is_application,
            has_spares: spares,
            workers,
        }
    }

    /// Its endpoint as the configuration has it, that which it is bound to, and its model.
    ///
    /// # Errors
    ///
    /// `InvalidData` where this program does not know such.
    fn parse(&self) -> io::Result<(Endpoint, Endpoint, Model)> {
        let endpoint =
            |text: &str| text.parse::<Endpoint>().map_err(|error| invalid(format!("{text}: {error}")));
        let model = Model::ALL.into_iter().find(|model| model.to_string() == self.model);
        let model = model.ok_or_else(|| invalid(format!("there is no model {}", self.model)))?;
        Ok((endpoint(&self.asked)?, endpoint(&self.endpoint)?, model))
    }

    /// What is known of the configuration that it was made for.
    fn spec(&self, asked: &Endpoint, model: Model) -> ListenerSpec {
        // it has one more name as long as the process lives
        let service = Service::protocol(self.service.clone(), || Discard);
        ListenerSpec {
            endpoints: vec![asked.clone()],
            // no configuration has this backlog: the socket is adapted to the next one
            bind: BindOptions { v6only: self.v6only, backlog: 0, ..BindOptions::default() },
            service,
            suits: Suits::default(),
            access: Default::default(),
            model: ModelSpec { model, ..ModelSpec::default() },
            sandbox: Default::default(),
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Makes the stations anew.
///
/// # Errors
///
/// `InvalidData` where it contradicts itself, `NotFound` where a descriptor was not left open.
pub(super) fn restore_stations(
    saved: &[SavedStation],
    left: &mut LeftOpen,
    cx: &Context,
) -> io::Result<Listeners> {
    let mut listeners = Listeners::default();
    let mut sockets: Vec<(usize, Arc<Listener>)> = Vec::new();
    for station in saved {
        let (asked, endpoint, model) = station.parse()?;
        let spec = Arc::new(station.spec(&asked, model));
        let Some(socket) = &station.socket else {
            listeners.add_gone(asked, spec, station.number, endpoint, station.dropped);
            continue;
        };
        // stations of two configurations share a socket
        let open = sockets.iter().find(|(number, _)| *number == station.number);
        let listener = match open {
            Some((_, listener)) => Arc::clone(listener),
            None => {
                let listener = Arc::new(Listener::restore(socket, left)?);
                sockets.push((station.number, Arc::clone(&listener)));
                listener
            }
        };
        let bound = Bound::restored(asked, spec, listener, station.number);
        let workers = station.workers.iter().map(|worker| {
            let mut take = |of: fn(&SavedProgram) -> Option<RawFd>| {
                worker.program.as_ref().and_then(of).map(|fd| left.remove(fd)).transpose()
            };
            let program = LeftOfProgram {
                notify: take(|program| program.notify)?,
                output: take(|program| program.output)?,
            };
            Ok((worker.clone(), left.remove(worker.watch)?, program))
        });
        let workers = workers.collect::<io::Result<Vec<_>>>()?;
        listeners.restore(bound, station, workers, cx).map_err(|error| invalid(error.sentence()))?;
    }
    Ok(listeners)
}
