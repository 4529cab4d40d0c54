//! Standard input as the client: a connection that another program has accepted, such as inetd(8), or a socket of
//! datagrams. This process serves it, and forks nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, getpeername, getsockname, sockopt};

use crate::Error;
use crate::access::AccessSpec;
use crate::coroutine::Waiter;
use crate::limit::SharedLimit;
use crate::model::Model;
use crate::model::hooks::Hooks;
use crate::model::listener_context::ListenerContext;
use crate::model::serve::{WorkerContext, batch_for};
use crate::model::service_config::ServiceConfig;
use crate::scoreboard::Scoreboard;
use crate::spec::ListenerSpec;
use crate::sys::datagram::{Batch, Patience};
use crate::sys::fd::wait_readable;
use crate::sys::socket::is_listening;
use crate::transport::early::Early;
use crate::transport::inherited::listener_of;
use crate::transport::listener::Kind;
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Connection, Endpoint, Listener, Peer, Traffic};

/// How long datagrams are waited for, unless the idle time-out says otherwise: a new process for each
/// would cost more than one that stays for the next.
const STAY: Duration = Duration::from_secs(10);

/// What standard input is.
#[derive(Debug)]
pub enum Stdin {
    /// A connection, and the client at its other end.
    Connection(OwnedFd, Peer),
    /// A socket of datagrams.
    Datagrams(Listener),
}

impl Stdin {
    /// Takes standard input; a TCP client may leave the kernel without an answer as long as `keep_alive` says.
    ///
    /// # Errors
    ///
    /// Why it can't be served: "is no socket".
    pub fn take(keep_alive: Option<Duration>) -> Result<Self, String> {
        let stdin = io::stdin();
        let is_stream = sockopt::socket_type(&stdin) == Ok(SocketType::STREAM);
        if is_stream && is_listening(&stdin) == Ok(false) {
            let socket =
                stdin.as_fd().try_clone_to_owned().map_err(|e| format!("can't be duplicated ({e})"))?;
            let peer = adopt_connection(&socket, keep_alive);
            return Ok(Self::Connection(socket, peer));
        }
        let listener = listener_of(&stdin)?;
        match listener.kind() {
            Kind::Stream => Err("is a listening socket and no connection".into()),
            Kind::Datagram => Ok(Self::Datagrams(listener)),
        }
    }

    /// Serves it until the client or the idle time-out ends it.
    ///
    /// # Errors
    ///
    /// What the spec says of a socket that the service can't have; [`Error::Os`] if datagrams can't be received.
    pub fn serve(self, spec: ListenerSpec) -> Result<(), Error> {
        /// Of this process alone: how many there are is inetd's concern.
        static FAILURES: SharedLimit = SharedLimit::new();
        // handed over, if not by systemd
        let endpoint = Endpoint::Systemd(None);
        let service_config =
            ServiceConfig::new(&endpoint, spec.service, Model::Iterative, Hooks::default(), &FAILURES)
                .with_limits(spec.model.idle_timeout, spec.model.max_lifetime);
        match self {
            Self::Connection(socket, peer) => {
                connection(&service_config, socket, peer);
                Ok(())
            }
            Self::Datagrams(listener) => {
                spec.suits.check(listener.endpoint())?;
                datagrams(service_config, listener)
            }
        }
    }
}

/// The program that has started this process may share the connection, so it is waited for by poll(2).
fn connection(service_config: &ServiceConfig, socket: OwnedFd, peer: Peer) {
    static TRAFFIC: Traffic = Traffic::new();
    let waiter = Waiter::of_connection();
    let connection =
        Connection::stream(socket, peer, Early::default(), &TRAFFIC, &service_config.server_info).shared();
    let mut connection = connection.waiting(&waiter);
    service_config.serve(&mut connection);
    connection.close();
}

/// Makes a connection that another process has accepted like one of a listener's with this `keep_alive`, as far as
/// that can be done while others may have it, too, and returns its peer.
fn adopt_connection(socket: &OwnedFd, keep_alive: Option<Duration>) -> Peer {
    let is_unix = getsockname(socket).is_ok_and(|name| name.address_family() == AddressFamily::UNIX);
    if !is_unix {
        // it may have ended already, which the first read tells better
        let _ = sockopt::set_tcp_nodelay(socket, true);
        if keep_alive.is_some() {
            crate::sys::tcp::keep_alive(socket, keep_alive);
        }
    }
    Peer::of(socket, getpeername(socket).ok().flatten().as_ref(), is_unix)
}

/// Answers what is queued, and what comes while it stays.
fn datagrams(service_config: ServiceConfig, listener: Listener) -> Result<(), Error> {
    let stay = service_config.idle_timeout.unwrap_or(STAY);
    let board = Scoreboard::for_one_process(1, false)
        .map_err(|cause| Error::os("cannot map the scoreboard", cause))?;
    let udp_filter = UdpFilter::new(listener.udp_port());
    let context = ListenerContext::new(Arc::new(listener), 0, service_config, &AccessSpec::default(), &board);
    let work = WorkerContext {
        context: &context,
        udp_filter: &udp_filter,
        board: &board,
        slot: board.slot(0),
        index: 0,
        ticker: None,
    };
    let mut batch = batch_for(work.listener(), 1);
    loop {
        match next(&mut batch, work.listener(), stay) {
            Ok(()) => work.datagrams(&mut batch, 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(Error::os("cannot receive from standard input", error)),
        }
    }
}

/// `WouldBlock` if none comes within the limit.
fn next(batch: &mut Batch, listener: &Listener, limit: Duration) -> io::Result<()> {
    match batch.receive_one(listener, Patience::DontWait) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            wait_readable(listener, limit);
            batch.receive_one(listener, Patience::DontWait)
        }
        received => received,
    }
}
