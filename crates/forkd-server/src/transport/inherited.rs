//! Sockets that a service manager has bound and hands over (sd_listen_fds(3), "socket activation").
//!
//! Invariants: the descriptors that were handed over stay open here for the life of the daemon, and a
//! [`Listener`] has a duplicate, so an endpoint can be given up and taken again. Such a socket is
//! never shut down, and its file never removed: it is the service manager's, and the next
//! instance's. What is found in it is asked of the socket, not believed of its name.

use std::collections::BTreeSet;
#[cfg(target_os = "linux")]
use std::ffi::OsString;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStringExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, UnixAddr, getpeername, getsockname};
use rustix::net::{SocketType, sockopt as ask};

use super::Endpoint;
use super::listener::{Kind, Listener, ask_for_packet_information, ip_endpoint};
use crate::sys::socket::is_listening;
use crate::{Error, Failure, sys};

/// The sockets that this process was handed.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    /// What another part of the program serves.
    set_aside: Vec<Endpoint>,
}

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    name: String,
}

impl Inherited {
    /// Takes what was handed over to this process, once; before anything else opens a descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the variables that say so contradict themselves.
    pub fn take() -> Result<Self, Error> {
        let what = "cannot take over the sockets that LISTEN_FDS and LISTEN_FDNAMES speak of";
        let sockets =
            sys::handover::take_descriptors().map_err(|cause| Error::Config(format!("{what}: {cause}")))?;
        let sockets = sockets.into_iter().map(|(descriptor, name)| Socket { descriptor, name }).collect();
        Ok(Self { sockets, set_aside: Vec::new() })
    }

    /// Writes down what was handed over, for a program that this process executes.
    pub(crate) fn save(&self) -> Vec<(RawFd, String)> {
        self.sockets.iter().map(|socket| (socket.descriptor.as_raw_fd(), socket.name.clone())).collect()
    }

    /// Goes on with what was handed over to the program before this one.
    ///
    /// # Errors
    ///
    /// `NotFound` where a descriptor was not left open.
    pub(crate) fn restore(
        saved: &[(RawFd, String)],
        left: &mut sys::handover::LeftOpen,
    ) -> std::io::Result<Self> {
        let socket = |(descriptor, name): &(RawFd, String)| {
            Ok(Socket { descriptor: left.remove(*descriptor)?, name: name.clone() })
        };
        let sockets = saved.iter().map(socket).collect::<std::io::Result<_>>()?;
        Ok(Self { sockets, set_aside: Vec::new() })
    }

    /// What is served where nothing is named: all of them, if there are any.
    pub fn default_endpoints(&self) -> Vec<Endpoint> {
        if self.sockets.is_empty() { Vec::new() } else { vec![Endpoint::Systemd(None)] }
    }

    /// Whether clients wait at one of them: there is a connection to accept, or a datagram.
    pub fn have_clients(&self) -> bool {
        let mut fds: Vec<_> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket.descriptor.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// The descriptors, which children have no use for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.sockets.iter().map(|socket| socket.descriptor.as_raw_fd())
    }

    /// Makes listeners of the sockets with this name, or of all.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if there is none, [`Error::Config`] if one is not to be served.
    pub(crate) fn adopt(&self, name: Option<&str>) -> Result<Vec<Listener>, Error> {
        let named = |socket: &&Socket| name.is_none_or(|name| socket.name == name);
        let listeners: Vec<_> =
            self.sockets.iter().filter(named).map(Socket::adopt).collect::<Result<_, _>>()?;
        if listeners.is_empty() { Err(self.absent(name)) } else { Ok(listeners) }
    }

    fn absent(&self, name: Option<&str>) -> Error {
        let endpoint = Endpoint::Systemd(name.map(str::to_owned));
        let names: Vec<_> = self.names().into_iter().collect();
        let advice = if names.is_empty() {
            "no sockets were handed over to this process; start its .socket unit, which starts it".to_owned()
        } else {
            format!("the sockets that were handed over are named {}", names.join(", "))
        };
        Error::Unavailable(Failure::from(format!("cannot serve {endpoint}: {advice}")))
    }

    /// Takes note that another part of the program serves what this endpoint names.
    pub fn set_aside(&mut self, endpoint: Endpoint) {
        self.set_aside.push(endpoint);
    }

    fn names(&self) -> BTreeSet<&str> {
        self.sockets.iter().map(|socket| socket.name.as_str()).collect()
    }

    /// The names that none of these endpoints asks for.
    pub(crate) fn unused<'a>(&'a self, endpoints: &[&Endpoint]) -> BTreeSet<&'a str> {
        let asks = |endpoint: &&Endpoint, name: &str| match endpoint {
            Endpoint::Systemd(wanted) => wanted.as_deref().is_none_or(|wanted| wanted == name),
            _ => false,
        };
        let mut names = self.names();
        let endpoints = || endpoints.iter().copied().chain(&self.set_aside);
        names.retain(|name| !endpoints().any(|endpoint| asks(&endpoint, name)));
        names
    }
}

impl Socket {
    fn adopt(&self) -> Result<Listener, Error> {
        let Self { descriptor, name } = self;
        listener_of(descriptor).map_err(|why| {
            let number = descriptor.as_raw_fd();
            Error::Config(format!("cannot serve descriptor {number}, handed over as {name:?}: it {why}"))
        })
    }
}

/// Makes a listener of a duplicate of this descriptor, or says why it can't be served ("is no socket").
pub(crate) fn listener_of(descriptor: impl AsFd) -> Result<Listener, String> {
    let socket = descriptor.as_fd().try_clone_to_owned().map_err(|e| format!("can't be duplicated ({e})"))?;
    listener_on(socket)
}

/// Makes a listener of this socket, or says why it can't be served.
pub(super) fn listener_on(socket: OwnedFd) -> Result<Listener, String> {
    let kind = kind_of(&socket)?;
    let address: SockaddrStorage =
        getsockname(socket.as_raw_fd()).map_err(|e| format!("does not say its address ({e})"))?;
    let endpoint = match (ip_of(&address), address.as_unix_addr()) {
        (Some(ip), _) if ip.port() == 0 => return Err("is bound to no port".into()),
        (Some(ip), _) => {
            let endpoint = ip_endpoint(ip, kind);
            if kind == Kind::Datagram {
                ask_for_packet_information(&socket, ip)
                    .map_err(|e| format!("can't be set up as {endpoint} ({e})"))?;
            }
            endpoint
        }
        (None, Some(unix)) => unix_endpoint(unix, kind).ok_or("is bound to no path")?,
        (None, None) => return Err("is of no address family that forkd serves".into()),
    };
    Ok(Listener::inherited(socket, kind, endpoint))
}

/// What our end of a connection is bound to, where that has an address or a path.
pub(crate) fn local_end(socket: impl AsFd) -> Option<Endpoint> {
    let address: SockaddrStorage = getsockname(socket.as_fd().as_raw_fd()).ok()?;
    match ip_of(&address) {
        Some(ip) => Some(ip_endpoint(SocketAddr::new(ip.ip().to_canonical(), ip.port()), Kind::Stream)),
        None => unix_endpoint(address.as_unix_addr()?, Kind::Stream),
    }
}

fn kind_of(socket: &OwnedFd) -> Result<Kind, String> {
    let is_connected = || getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok();
    let why = match ask::socket_type(socket) {
        Ok(SocketType::STREAM) if is_listening(socket) == Ok(true) => return Ok(Kind::Stream),
        Ok(SocketType::DGRAM) if !is_connected() => return Ok(Kind::Datagram),
        Ok(SocketType::STREAM) if is_connected() => {
            "is a connection, as a unit with Accept=yes hands over; that takes `forkd serve --inetd`"
        }
        Ok(SocketType::STREAM) => "is a socket that doesn't listen",
        Ok(SocketType::DGRAM) => "is connected, to one peer only",
        Ok(_) => "is neither a stream socket nor one for datagrams",
        Err(rustix::io::Errno::NOTSOCK) => "is no socket",
        Err(errno) => return Err(format!("does not say what it is ({errno})")),
    };
    Err(why.into())
}

fn ip_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| Some(SocketAddrV6::from(*address.as_sockaddr_in6()?).into()))
}

fn unix_endpoint(address: &UnixAddr, kind: Kind) -> Option<Endpoint> {
    let path = match address.path() {
        Some(path) => path.to_owned(),
        // a name without a file (unix(7), "abstract") is shown as systemd writes it
        #[cfg(target_os = "linux")]
        None => OsString::from_vec([b"@", address.as_abstract()?].concat()).into(),
        #[cfg(not(target_os = "linux"))]
        None => return None,
    };
    Some(if kind == Kind::Stream { Endpoint::Unix(path) } else { Endpoint::Unixgram(path) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily as Family, SockFlag, SockType, getsockopt, socket, sockopt};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn inherited(sockets: impl IntoIterator<Item = (&'static str, OwnedFd)>) -> Inherited {
        let socket = |(name, descriptor): (&str, OwnedFd)| Socket { descriptor, name: name.into() };
        Inherited { sockets: sockets.into_iter().map(socket).collect(), set_aside: Vec::new() }
    }

    fn refusal(descriptor: impl Into<OwnedFd>) -> String {
        let error = inherited([("x", descriptor.into())]).adopt(None).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        error.to_string()
    }

    #[test]
    fn each_kind_is_found_out_and_set_up() {
        let room = tempfile::tempdir().unwrap();
        let (stream, datagram) = (room.path().join("s"), room.path().join("d"));
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = [
            format!("tcp://{}", tcp.local_addr().unwrap()),
            format!("udp://{}", udp.local_addr().unwrap()),
            format!("unix://{}", stream.display()),
            format!("unixgram://{}", datagram.display()),
        ];
        let all = inherited([
            ("a", tcp.into()),
            ("b", udp.into()),
            ("a", UnixListener::bind(&stream).unwrap().into()),
            ("b", UnixDatagram::bind(&datagram).unwrap().into()),
        ]);
        let endpoints = |name| -> Vec<String> {
            all.adopt(name).unwrap().iter().map(|listener| listener.endpoint().to_string()).collect()
        };
        assert_eq!(endpoints(None), expected);
        assert_eq!(endpoints(Some("b")), [expected[1].clone(), expected[3].clone()]);

        let listeners = all.adopt(None).unwrap();
        // an option of the listener is its owner's, and a connection is given it
        assert!(!getsockopt(&listeners[0], sockopt::TcpNoDelay).unwrap());
        let _client = TcpStream::connect(&expected[0]["tcp://".len()..]).unwrap();
        let (connection, _) = listeners[0].accept_now(&listeners[0]).unwrap();
        assert!(getsockopt(&connection, sockopt::TcpNoDelay).unwrap());
        assert!(getsockopt(&listeners[1], sockopt::Ipv6RecvPacketInfo).unwrap());
        assert!(getsockopt(&listeners[1], sockopt::Ipv6RecvHopLimit).unwrap());
        let taken: Vec<RawFd> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
        assert!(all.descriptors().count() == 4 && all.descriptors().all(|fd| !taken.contains(&fd)));
    }

    #[test]
    fn a_listener_that_goes_away_leaves_the_socket_as_it_was() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("s");
        let all = inherited([("a", UnixListener::bind(&path).unwrap().into())]);
        for _ in 0..2 {
            let listener = all.adopt(Some("a")).unwrap().remove(0);
            assert!(listener.is_inherited());
            listener.refuse();
            drop(listener);
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn what_can_t_be_served_is_refused_with_the_reason() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(refusal(reader).ends_with("handed over as \"x\": it is no socket"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refusal(connection).contains("it is a connection, as a unit with Accept=yes"));
        let (datagrams, _peer) = UnixDatagram::pair().unwrap();
        assert!(refusal(datagrams).ends_with("it is connected, to one peer only"));
        assert!(refusal(UnixDatagram::unbound().unwrap()).ends_with("it is bound to no path"));
        let packets = |family, kind| socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let kinds = packets(Family::Unix, SockType::SeqPacket);
        assert!(refusal(kinds).ends_with("it is neither a stream socket nor one for datagrams"));
        assert!(
            refusal(packets(Family::Inet, SockType::Stream)).ends_with("it is a socket that doesn't listen")
        );
        assert!(refusal(packets(Family::Inet, SockType::Datagram)).ends_with("it is bound to no port"));
    }

    #[test]
    fn a_name_that_was_not_handed_over_is_refused_with_those_that_were() {
        let udp = || UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let error = inherited([("b", udp()), ("a", udp()), ("b", udp())]).adopt(Some("c")).unwrap_err();
        assert_eq!(error.exit_code(), 69);
        let why = "cannot serve systemd:c: the sockets that were handed over are named a, b";
        assert_eq!(error.to_string(), why);
        let error = Inherited::default().adopt(None).unwrap_err().to_string();
        assert!(error.starts_with("cannot serve systemd:*: no sockets were handed over"), "{error}");
    }

    #[test]
    fn what_no_endpoint_asks_for_is_known() {
        let udp = || UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let all = inherited([("b", udp()), ("a", udp()), ("b", udp())]);
        let unused = |text: &str| {
            let endpoints: Vec<Endpoint> = text.split(' ').map(|text| text.parse().unwrap()).collect();
            all.unused(&endpoints.iter().collect::<Vec<_>>()).into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(unused("tcp://a:1"), "a b");
        assert_eq!(unused("tcp://a:1 systemd:b"), "a");
        assert_eq!(unused("systemd:*"), "");
        assert!(Inherited::default().default_endpoints().is_empty());
        assert_eq!(all.default_endpoints(), [Endpoint::Systemd(None)]);
    }
}
