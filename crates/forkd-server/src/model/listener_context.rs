//! What processes share about a listening socket: which clients are let in, and how they are served.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::hooks::Hooks;
use super::service_config::ServiceConfig;
use crate::access::sources::Ticket;
use crate::access::{AccessSpec, Tables};
use crate::admission::Room;
use crate::limit::SharedLimit;
use crate::scoreboard::{Scoreboard, Slot};
use crate::sys::clock::monotonic_us;
use crate::sys::datagram::{Datagram, Source};
use crate::sys::tcp::{queued_for, reset_at_close};
use crate::transport::early::Early;
use crate::transport::listener::Kind;
use crate::transport::proxy::{Parsed, ProxyVersion};
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Listener, Offence, Peer, Refusal};
use crate::{Error, events};

/// A listening socket, with what its children must know of it.
#[derive(Debug, Clone)]
pub(crate) struct ListenerContext {
    /// Shared by the stations before and after a reload.
    pub(crate) listener: Arc<Listener>,
    /// Its number on the scoreboard.
    pub(crate) number: usize,
    pub(crate) service_config: ServiceConfig,
    /// The other sockets of workers that accept by themselves.
    pub(crate) beside: Vec<Arc<Listener>>,
    /// What a client is asked about; `None`: each is served.
    access: Option<Arc<Access>>,
}

/// A connection that is to be served.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Peer,
    /// It counts as one of its source's.
    pub(crate) ticket: Option<Ticket>,
}

/// What decides whether a client is served.
#[derive(Debug)]
struct Access {
    spec: AccessSpec,
    hooks: Hooks,
    tables: Tables<'static>,
    /// How many connections have not completed their first exchange.
    early: &'static AtomicU32,
    /// The service never answers.
    is_silent: bool,
    /// So that no client can fill the log, whichever process refuses it.
    refusals: &'static SharedLimit,
    /// The same for sources that begin to be penalised.
    penalties: &'static SharedLimit,
}

impl Access {
    #[cold]
    #[inline(never)]
    fn paced(&self, room: Room) -> Room {
        let wait = self.spec.wait(self.tables.paid_at, monotonic_us);
        wait.map_or(room, |us| Room::Later(Duration::from_micros(us)))
    }

    /// Counts a connection until its first exchange is complete, unless it is refused as one of too many.
    fn begin(&self, slot: &'static Slot) -> Result<Early, Refusal> {
        let Some(rule) = self.spec.early_drop else { return Ok(Early::default()) };
        let (early, others) = self.count_early(slot);
        let random = || self.tables.sources.draw((monotonic_us(), others));
        if rule.refuses(others, random) { Err(Refusal::EarlyDrop) } else { Ok(early) }
    }

    /// The same of one that counts already.
    #[cold]
    #[inline(never)]
    fn resume(&self, slot: &'static Slot) -> Early {
        match self.spec.early_drop {
            Some(_) => Early::resume(&slot.early, self.early, self.is_silent),
            None => Early::default(),
        }
    }

    fn count_early(&self, slot: &'static Slot) -> (Early, u32) {
        Early::begin(&slot.early, self.early, self.is_silent)
    }
}

impl ListenerContext {
    pub(crate) fn new(
        listener: Arc<Listener>,
        number: usize,
        service_config: ServiceConfig,
        access: &AccessSpec,
        board: &Scoreboard,
    ) -> Self {
        let hooks = &service_config.hooks;
        let tally = board.tally(number);
        let spec = match listener.kind() {
            Kind::Stream => access.clone(),
            Kind::Datagram => access.clone().without_penalties(),
        };
        let is_asked = !spec.is_open() || hooks.verify.is_some();
        let access = is_asked.then(|| {
            Arc::new(Access {
                spec,
                hooks: hooks.clone(),
                early: &tally.early,
                is_silent: service_config.service.is_silent(),
                tables: Tables { sources: board.sources(), listener: number, paid_at: &tally.paid_at },
                refusals: &tally.refusals,
                penalties: &tally.penalties,
            })
        });
        Self { listener, number, service_config, beside: Vec::new(), access }
    }

    /// All sockets of its workers.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        [&self.listener].into_iter().chain(&self.beside)
    }

    /// Finds out whether this process has the descriptors left to serve one client, while so many threads accept, that
    /// client's among them: each that waits in accept(2) has the descriptor of its next client already.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    pub(crate) fn require_descriptors(&self, accepting: u32) -> Result<(), Error> {
        let service = &self.service_config.service;
        let needed = match service.descriptors() {
            // the thread that accepts first serves its client, and the others wait
            1 => 1,
            of_a_client => accepting as usize + of_a_client - 1,
        };
        let all: io::Result<Vec<OwnedFd>> =
            (0..needed).map(|_| self.listener.as_fd().try_clone_to_owned()).collect();
        all.map(drop).map_err(|cause| {
            let (endpoint, name) = (self.listener.endpoint(), service.name());
            let what = format!(
                "cannot serve {endpoint}: too few descriptors are left for a client of the service {name}, which \
                 needs {needed}"
            );
            Error::os(what, cause)
        })
    }

    /// The room for a client that may not come yet, as too many have come: there is some later.
    #[inline(always)]
    pub(crate) fn paced(&self, room: Room) -> Room {
        match &self.access {
            Some(access) if matches!(room, Room::Free | Room::Elsewhere) => access.paced(room),
            _ => room,
        }
    }

    /// A connection that this process has accepted, unless it is not to be served.
    // a function of its own would be one more window of text for each spare child to fault in
    #[inline(always)]
    pub(crate) fn admit_connection(
        &self,
        board: &Scoreboard,
        slot: &'static Slot,
        (socket, peer): (OwnedFd, Peer),
    ) -> Option<Admitted> {
        if board.measures()
            && let Some(waited) = queued_for(&socket)
        {
            board.tally(self.number).accept_latencies.observe(waited.as_micros() as u64);
        }
        let admitted = match self.access.as_deref() {
            Some(access) => self.ask_for_connection(access, slot, peer),
            None => Ok(None),
        };
        match admitted {
            Ok(ticket) => Some(Admitted { socket, peer, ticket }),
            Err(why) => {
                self.refuse(board, socket.as_fd(), why);
                None
            }
        }
    }

    /// A refusal that the client sees at once, unless it is the application's own.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&self, board: &Scoreboard, socket: BorrowedFd<'_>, why: Refusal) {
        board.refuse(self.number, why);
        if why != Refusal::Application {
            reset_at_close(socket);
        }
    }

    /// Has the connection of a child count in its slot until the first exchange is complete, unless it does.
    pub(crate) fn begin_early(&self, slot: &'static Slot) {
        if let Some(access) = self.access.as_deref().filter(|access| access.spec.early_drop.is_some())
            && slot.early.load(Ordering::Relaxed) == 0
        {
            access.count_early(slot).0.leave_to_process();
        }
    }

    /// What ends the count of a connection that was [admitted](Self::admit_connection) for this slot, or
    /// [began](Self::begin_early) in it.
    #[inline(always)]
    pub(super) fn early(&self, slot: &'static Slot) -> Early {
        self.access.as_deref().map_or_else(Early::default, |access| access.resume(slot))
    }

    /// Decides whether a datagram is answered, with the hop limit of its answer, and whether it counts.
    pub(crate) fn admit_datagram(
        &self,
        udp_filter: &UdpFilter,
        datagram: &Datagram<'_>,
    ) -> Result<(Option<u8>, Option<Ticket>), Refusal> {
        let hops = udp_filter.admit(datagram)?;
        let ticket = self.admit(peer_of(datagram))?;
        if self.proxy().is_none() {
            return Ok((hops, ticket));
        }
        let (client, _) = self.sender(datagram).ok_or(Refusal::Proxy)?;
        self.admit_introduced(client).map(|ticket| (hops, ticket))
    }

    /// Whose datagram it is, and how many of its bytes are the header that says so; `None` if it has none and should.
    #[inline(always)]
    pub(super) fn sender(&self, datagram: &Datagram<'_>) -> Option<(Peer, usize)> {
        let source = peer_of(datagram);
        match self.proxy().map(|version| version.parse(datagram.payload)) {
            None => Some((source, 0)),
            Some(Parsed::Header(length, client)) => Some((client.map_or(source, Peer::Ip), length)),
            Some(Parsed::Incomplete | Parsed::Broken) => None,
        }
    }

    /// Decides whether a client that has come in is served: with the one below the place for connections and datagrams of
    /// all models, before anything is started for the client.
    #[inline(always)]
    fn admit(&self, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        self.access.as_deref().map_or(Ok(None), |access| self.ask(access, peer))
    }

    #[inline(never)]
    fn ask_for_connection(
        &self,
        access: &Access,
        slot: &'static Slot,
        peer: Peer,
    ) -> Result<Option<Ticket>, Refusal> {
        let early = self.told(access, peer, access.begin(slot))?;
        let ticket = self.ask(access, peer)?;
        early.leave_to_process();
        Ok(ticket)
    }

    #[inline(never)]
    fn ask(&self, access: &Access, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        match &access.spec.proxy {
            Some(proxy) => self.told(access, peer, proxy.admit(peer).map(|()| None)),
            None => self.ask_of_client(access, peer),
        }
    }

    /// Decides whether a client is served of whom a proxy has told: what is asked about others when they come in.
    pub(crate) fn admit_introduced(&self, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        self.access.as_deref().map_or(Ok(None), |access| self.ask_of_client(access, peer))
    }

    fn ask_of_client(&self, access: &Access, peer: Peer) -> Result<Option<Ticket>, Refusal> {
        let Access { spec, hooks, tables, .. } = access;
        let admitted = spec
            .admit(peer)
            .and_then(|()| if hooks.admit(peer) { Ok(()) } else { Err(Refusal::Application) })
            .and_then(|()| spec.count(*tables, peer, monotonic_us));
        let admitted = self.told(access, peer, admitted);
        if let Err(Refusal::SourceLimit | Refusal::SourceRate) = admitted {
            self.penalise(access, peer, Offence::Rate);
        }
        admitted
    }

    /// A client has done what its source may be penalised for.
    #[inline(always)]
    pub(crate) fn offended(&self, peer: Peer, offence: Offence) {
        if let Some(access) = self.access.as_deref() {
            self.penalise(access, peer, offence);
        }
    }

    /// The process has crashed that had this client alone.
    pub(crate) fn crashed(&self, peer: Peer) {
        self.offended(peer, Offence::Crash);
    }

    #[cold]
    #[inline(never)]
    fn penalise(&self, access: &Access, peer: Peer, offence: Offence) {
        let penalised = access.spec.penalise(access.tables, peer, offence, monotonic_us);
        if let Some((source, length)) = penalised
            && let Some(suppressed) = access.penalties.admit()
        {
            events::penalised(self.listener.endpoint(), source, offence, length, suppressed);
        }
    }

    /// By what it is decided whether a client is served, if by anything.
    pub(crate) fn policy(&self) -> Option<&AccessSpec> {
        self.access.as_deref().map(|access| &access.spec)
    }

    /// Logs a refusal.
    fn told<T>(&self, access: &Access, peer: Peer, admitted: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(why) = &admitted
            && *why != Refusal::Application
            && let Some(suppressed) = access.refusals.admit()
        {
            events::refused(self.listener.endpoint(), peer, *why, suppressed);
        }
        admitted
    }

    /// Whether anything is asked about clients.
    #[inline(always)]
    pub(super) fn asks(&self) -> bool {
        self.access.is_some()
    }

    /// Which header clients have in front, if they come by a proxy.
    #[inline(always)]
    pub(crate) fn proxy(&self) -> Option<ProxyVersion> {
        self.access.as_deref().and_then(|access| access.spec.proxy.as_ref()).map(|proxy| proxy.version)
    }

    /// A proxy has not said whose a connection is.
    #[cold]
    pub(crate) fn no_header(&self, proxy: Peer, error: &io::Error) {
        if let Some(suppressed) = self.access.as_deref().and_then(|access| access.refusals.admit()) {
            events::no_proxy_header(self.listener.endpoint(), proxy, why_no_header(error), suppressed);
        }
    }
}

/// Why a connection has no header.
fn why_no_header(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "its first bytes are no such header",
        io::ErrorKind::TimedOut => "it has not come in time",
        _ => "the connection has ended before it",
    }
}

/// The sender of a datagram, as far as the scoreboard can say.
pub(crate) fn peer_of(datagram: &Datagram<'_>) -> Peer {
    match datagram.source {
        Source::Ip(address) => Peer::Ip(address),
        Source::Unix | Source::Unnamed => Peer::Unix { pid: 0, uid: 0, gid: 0 },
    }
}
