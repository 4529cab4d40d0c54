//! Connections to others: made without waiting, one address after the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};

use super::channel::{Channel, Session};
use super::connections::guarded;
use super::line::Line;
use super::link::Link;
use super::{Alarm, Reactor, Source, later};
use crate::Error;
use crate::service::Protocol;
use crate::slab::Key;
use crate::sys::poller::Interest;
use crate::sys::socket::{Mode, socket};
use crate::timers::At;
use crate::transport::early::Early;
use crate::transport::{Endpoint, Peer, Writer, resolve};

/// A connection that is being made.
pub(super) struct Dial<'a> {
    session: Box<dyn Session<'a> + 'a>,
    /// What is written to it before it has come about.
    link: Box<Link>,
    /// Those that have not been tried yet.
    addresses: std::vec::IntoIter<Address>,
    /// The socket that is being connected, and its peer's address.
    attempt: Option<(OwnedFd, Address)>,
    /// Why there is no connection yet.
    failure: Option<io::Error>,
    /// When it is given up.
    alarm: At,
}

#[derive(Debug, Clone)]
enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// The protocol of a connection that was made here, and the callback that gets it back.
struct Dialled<P, F> {
    protocol: P,
    on_closed: F,
}

impl<'a, P, F> Session<'a> for Dialled<P, F>
where
    P: Protocol,
    F: FnOnce(&mut Reactor<'a>, P, io::Result<()>),
{
    fn protocol(&mut self) -> &mut dyn Protocol {
        &mut self.protocol
    }

    fn closed(self: Box<Self>, reactor: &mut Reactor<'a>, _: Peer, outcome: io::Result<()>) {
        let Self { protocol, on_closed } = *self;
        on_closed(reactor, protocol, outcome);
    }
}

impl<'a> Reactor<'a> {
    /// Connects to `tcp://HOST:PORT` or `unix:///PATH`, and has `protocol` talk. When the connection has ended,
    /// or has not come about, `on_closed` gets the protocol back, with all that it has collected, and how it
    /// ended: well if either side has closed it, with the error otherwise.
    ///
    /// The addresses of a name are tried one after the other, for 30 s altogether
    /// ([`connect_timeout`](Self::connect_timeout)). Neither callback is called before this returns.
    ///
    /// What it returns writes to the connection at any time, and ends it; what is written before the connection has come
    /// about is its beginning. The protocol can take the same [`Writer`] when it is [opened](Protocol::opened).
    ///
    /// A *name* is looked up at once, which may block; an address never does. A program that can't afford to
    /// wait looks it up before, with [`resolve`](crate::transport::resolve::resolve).
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no such endpoint. All else, an unknown name too, is told to
    /// `on_closed`.
    ///
    /// # Examples
    ///
    /// ```
    /// use forkd_server::reactor::Reactor;
    /// use forkd_server::{Protocol, Reply};
    ///
    /// /// Collects all that comes.
    /// struct Page(Vec<u8>);
    /// impl Protocol for Page {
    ///     fn connected(&mut self, _: forkd_server::Peer) -> Reply<'_> {
    ///         Reply::Send(b"GET / HTTP/1.0\r\n\r\n")
    ///     }
    ///     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
    ///         self.0.extend_from_slice(input);
    ///         Reply::Wait
    ///     }
    /// }
    ///
    /// let mut reactor = Reactor::new()?;
    /// // nothing listens there
    /// reactor.connect("tcp://127.0.0.1:1", Page(Vec::new()), |_, page, outcome| match outcome {
    ///     Ok(()) => println!("{} bytes", page.0.len()),
    ///     Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
    /// })?;
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// Something that is said later:
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::{reactor::Reactor, service::Discard};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let server = reactor.listen("tcp://127.0.0.1:0", |_| Discard)?;
    /// let address = server.endpoints().next().unwrap().to_string();
    /// let writer = reactor.connect(&address, Discard, |reactor, _, outcome| {
    ///     outcome.unwrap();
    ///     reactor.stop();
    /// })?;
    /// reactor.call_later(Duration::from_millis(2), move |_| {
    ///     writer.write(b"by the way").unwrap();
    ///     writer.finish();
    /// });
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn connect<P: Protocol + 'a>(
        &mut self,
        endpoint: &str,
        protocol: P,
        on_closed: impl FnOnce(&mut Self, P, io::Result<()>) + 'a,
    ) -> Result<Writer, Error> {
        let (addresses, failure) = match addresses_of(endpoint)? {
            Ok(addresses) => (addresses, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let key = self.sources.reserve();
        let rouser = self.shared.rouser(key).map_err(|cause| {
            self.sources.remove(key);
            Error::os("cannot make a descriptor that wakes the reactor", cause)
        })?;
        let link = Link::new(Arc::default(), rouser);
        let writer = link.writer();
        let alarm = self.timers.set(later(self.connect_timeout), Alarm::Source(key));
        let dial = Dial {
            session: Box::new(Dialled { protocol, on_closed }),
            link,
            addresses: addresses.into_iter(),
            attempt: None,
            failure,
            alarm,
        };
        self.sources.put_back(key, Source::Dial(Box::new(dial)));
        self.dial(key);
        Ok(writer)
    }

    /// Tries the next address. If there is none, its alarm goes off at once.
    fn dial(&mut self, key: Key) {
        let Some(Source::Dial(dial)) = self.sources.get_mut(key) else { return };
        dial.attempt = None;
        for address in dial.addresses.by_ref() {
            let begun = address.begin().and_then(|socket| {
                self.pollers.add(&socket, key.token(), Interest::WRITE)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => return dial.attempt = Some((socket, address)),
                Err(error) => dial.failure = Some(error),
            }
        }
        self.timers.cancel(dial.alarm);
        // in the next turn: a caller that tries again at once leaves the others theirs
        dial.alarm = self.timers.set(Instant::now(), Alarm::Source(key));
    }

    /// An attempt has come to its end.
    pub(super) fn dialled(&mut self, key: Key) {
        let Some(Source::Dial(dial)) = self.sources.get_mut(key) else { return };
        let Some((socket, address)) = dial.attempt.take() else { return };
        match sockopt::socket_error(&socket) {
            Ok(Ok(())) => self.connected(key, socket, &address),
            Ok(Err(errno)) | Err(errno) => {
                dial.failure = Some(errno.into());
                self.dial(key);
            }
        }
    }

    /// The dial becomes a channel, in the same place.
    fn connected(&mut self, key: Key, socket: OwnedFd, address: &Address) {
        let Some(Source::Dial(dial)) = self.sources.lend(key) else { return };
        self.timers.cancel(dial.alarm);
        let peer = match address {
            Address::Ip(address) => Peer::Ip(*address),
            Address::Unix(_) => Peer::of(&socket, None, true),
        };
        let line = Line::new(socket, self.shared.traffic, Early::default());
        let Dial { session, link, .. } = *dial;
        let mut channel = Box::new(Channel::new(line, peer, session, key, Some(link), &self.shared));
        channel.polled = Interest::WRITE.into();
        let flow = guarded(&mut channel, |channel| channel.begin(&mut self.shared));
        self.sources.put_back(key, Source::Channel(channel));
        self.follow(key, flow);
    }

    /// Something was written to it: it is not wanted any more, or goes on.
    pub(super) fn dial_called(&mut self, key: Key) {
        let Some(Source::Dial(dial)) = self.sources.get_mut(key) else { return };
        if dial.link.is_aborted() {
            let alarm = dial.alarm;
            self.timers.cancel(alarm);
            if let Some(Source::Dial(dial)) = self.sources.remove(key) {
                let Dial { session, link, .. } = *dial;
                drop(link);
                session.closed(self, Peer::None, Ok(()));
            }
        }
    }

    /// Gives up.
    pub(super) fn dial_expired(&mut self, key: Key) {
        let Some(Source::Dial(dial)) = self.sources.remove(key) else { return };
        let Dial { session, link, attempt, failure, .. } = *dial;
        drop(link);
        let error = match attempt {
            // it is closed now
            Some(_) => io::ErrorKind::TimedOut.into(),
            None => failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into()),
        };
        session.closed(self, Peer::None, Err(error));
    }
}

fn addresses_of(endpoint: &str) -> Result<io::Result<Vec<Address>>, Error> {
    match endpoint.parse().map_err(|error| Error::Usage(format!("{error}")))? {
        Endpoint::Tcp { host, port } => {
            let all = resolve::resolve(&host, port);
            Ok(all.map(|all| all.into_iter().map(Address::Ip).collect()))
        }
        Endpoint::Unix(path) => Ok(Ok(vec![Address::Unix(path)])),
        other => Err(Error::Usage(format!(
            "cannot connect to {other}; connections are made to tcp://HOST:PORT and unix:///PATH"
        ))),
    }
}

impl Address {
    /// Begins to connect: the socket is writable when that is done, well or not.
    fn begin(&self) -> io::Result<OwnedFd> {
        let family = match self {
            Self::Ip(SocketAddr::V4(_)) => AddressFamily::INET,
            Self::Ip(SocketAddr::V6(_)) => AddressFamily::INET6,
            Self::Unix(_) => AddressFamily::UNIX,
        };
        let socket = socket(family, SocketType::STREAM, Mode::NonBlocking)?;
        let begun = match self {
            Self::Ip(address) => {
                sockopt::set_tcp_nodelay(&socket, true)?;
                rustix::net::connect(&socket, address)
            }
            Self::Unix(path) => rustix::net::connect(&socket, &SocketAddrUnix::new(path)?),
        };
        match begun {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(errno) => Err(errno.into()),
        }
    }
}
