//! Which server is loaded, and how a client gets there.
//!
//! The invariant: a load generator is no weapon. Nothing is sent to an address that is not this
//! machine's own loopback, unless the user says that the host is theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType, sockopt};

use super::fault::Fault;
use super::proxy::ProxyVersion;
use forkd_net::Endpoint;
use forkd_net::resolve::resolve;
use forkd_net::{Error, Failure};
use forkd_sys::socket::{Mode, socket};

/// How long a call on a socket that blocks may take, until its caller looks at the clock again.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How many connections come from one source address before it is the next one's turn, and how many
/// addresses there are. A closed connection keeps its port for a second or more (tcp(7), TIME_WAIT), and
/// a machine has about 28,000 for each address: without this a fast client measures its own search for one.
const PER_SOURCE: u64 = 8192;
const SOURCES: u64 = 64;

/// Whether the address of a host must be this machine's loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// 127.0.0.0/8, `::1` and Unix sockets.
    Loopback,
    /// Any: the user has said that the host is theirs.
    OwnHost,
}

/// A server that can be loaded.
#[derive(Debug, Clone)]
pub struct Target {
    endpoint: Endpoint,
    address: Address,
    proxy: Option<ProxyVersion>,
}

#[derive(Debug, Clone)]
enum Address {
    Ip(SocketAddr),
    Unix(SocketAddrUnix),
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unconnected {
    /// The listener's queue is full; of a Unix socket one can't wait for it.
    Full,
    Failed(Fault),
}

impl Target {
    /// Finds the address of an endpoint. Of several that a name has it is the first that answers.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for one that can't be connected to or is out of `reach`; [`Error::Unavailable`]
    /// for an unknown host.
    pub fn new(endpoint: &Endpoint, reach: Reach) -> Result<Self, Error> {
        let address = match endpoint {
            Endpoint::Systemd(_) => return Err(Error::Usage(format!("{endpoint} is nothing to connect to"))),
            Endpoint::Tcp { port: 0, .. } | Endpoint::Udp { port: 0, .. } => {
                return Err(Error::Usage(format!("{endpoint} has port 0, on which no server can listen")));
            }
            Endpoint::Unix(path) | Endpoint::Unixgram(path) => {
                let address = SocketAddrUnix::new(path.as_path());
                Address::Unix(address.map_err(|cause| Error::os(format!("cannot use {endpoint}"), cause))?)
            }
            Endpoint::Tcp { host, port } | Endpoint::Udp { host, port } => {
                Address::Ip(find(endpoint, host, *port, reach)?)
            }
        };
        if cfg!(not(target_os = "linux")) && matches!(endpoint, Endpoint::Unixgram(_)) {
            let why = "a Unix datagram client gets its own address by itself only on Linux";
            return Err(Error::Unavailable(Failure::from(format!("cannot reach {endpoint}: {why}"))));
        }
        Ok(Self { endpoint: endpoint.clone(), address, proxy: None })
    }

    /// Has each client say that it comes by a proxy, as a server expects behind one.
    #[must_use]
    pub fn behind_proxy(self, version: ProxyVersion) -> Self {
        Self { proxy: Some(version), ..self }
    }

    /// What a client with this socket says before all else, or in each datagram.
    pub(super) fn header(&self, client: &OwnedFd) -> Vec<u8> {
        let server = match self.address {
            Address::Ip(address) => Some(address),
            Address::Unix(_) => None,
        };
        self.proxy.map_or(Vec::new(), |version| version.header(client, server, self.endpoint.is_datagram()))
    }

    /// Returns the endpoint as it was asked for.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes a socket that is connected, or soon will be: with [`Mode::NonBlocking`] the first write tells.
    /// It is this thread's `nth`.
    pub(super) fn connect(&self, mode: Mode, nth: u64) -> Result<OwnedFd, Unconnected> {
        let failed = |errno: Errno| Unconnected::Failed(errno.into());
        let kind = if self.endpoint.is_datagram() { SocketType::DGRAM } else { SocketType::STREAM };
        let socket = socket(self.family(), kind, mode).map_err(failed)?;
        if mode == Mode::Blocking {
            // one client alone needs no poller, and a system call less is what it measures
            for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
                sockopt::set_socket_timeout(&socket, timeout, Some(TICK)).map_err(failed)?;
            }
        }
        let connected = match &self.address {
            Address::Ip(address) => {
                choose_source(&socket, address, nth).map_err(failed)?;
                net::connect(&socket, address)
            }
            Address::Unix(address) => {
                if kind == SocketType::DGRAM {
                    // an address of the system's choice (unix(7), "Autobind feature"), to be answered at
                    #[cfg(target_os = "linux")]
                    net::bind(&socket, &SocketAddrUnix::new_unnamed()).map_err(failed)?;
                }
                net::connect(&socket, address)
            }
        };
        match connected {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
            Err(Errno::AGAIN) if matches!(self.address, Address::Unix(_)) => Err(Unconnected::Full),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn family(&self) -> AddressFamily {
        match self.address {
            Address::Ip(SocketAddr::V4(_)) => AddressFamily::INET,
            Address::Ip(SocketAddr::V6(_)) => AddressFamily::INET6,
            Address::Unix(_) => AddressFamily::UNIX,
        }
    }

    /// Has each write leave at once; only TCP would wait.
    pub(super) fn no_delay(&self, socket: &OwnedFd) {
        if matches!(self.endpoint, Endpoint::Tcp { .. }) {
            // it fails only for a connection that is broken, and the next call says so
            let _ = sockopt::set_tcp_nodelay(socket, true);
        }
    }
}

fn find(endpoint: &Endpoint, host: &str, port: u16, reach: Reach) -> Result<SocketAddr, Error> {
    let what = || format!("cannot reach {endpoint}");
    let mut addresses = resolve(host, port).map_err(|cause| Error::from_io(what(), cause))?;
    for address in &mut addresses {
        // "any address", where a server says that it listens, is no place to go to
        match address.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        if reach == Reach::Loopback && !address.ip().to_canonical().is_loopback() {
            return Err(Error::Usage(format!(
                "{} is not a loopback address: load is for servers of your own; \
                 for a host that is yours to overload say --i-own-this-host",
                address.ip()
            )));
        }
    }
    let answers = |address: &&SocketAddr| TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok();
    let first = match (endpoint, addresses.as_slice()) {
        (Endpoint::Tcp { .. }, [_, _, ..]) => addresses.iter().find(answers).or(addresses.first()),
        _ => addresses.first(),
    };
    first.copied().ok_or_else(|| Error::Unavailable(Failure::from(format!("{}: no address", what()))))
}

/// Has the `nth` connection to 127.0.0.0/8 come from an address that has ports left.
fn choose_source(socket: &OwnedFd, target: &SocketAddr, nth: u64) -> rustix::io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(source) = source(target, nth) {
        // the port is chosen at connect(2), when it is known that the pair of addresses is free (ip(7))
        let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true);
        net::bind(socket, &SocketAddr::from((source, 0)))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, target, nth);
    Ok(())
}

/// The first connections come from wherever the system says.
#[cfg(target_os = "linux")]
fn source(target: &SocketAddr, nth: u64) -> Option<Ipv4Addr> {
    let which = (nth / PER_SOURCE % SOURCES) as u8;
    (which > 0 && target.is_ipv4() && target.ip().is_loopback()).then(|| Ipv4Addr::new(127, 0, 0, 1 + which))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(endpoint: &str, reach: Reach) -> Result<Target, Error> {
        Target::new(&endpoint.parse().unwrap(), reach)
    }

    #[test]
    fn only_this_machine_is_loaded() {
        for (endpoint, why) in [
            ("tcp://192.0.2.1:7", "192.0.2.1 is not a loopback address"),
            ("udp://[2001:db8::1]:7", "--i-own-this-host"),
            ("tcp://[::ffff:192.0.2.1]:7", "not a loopback address"),
            ("systemd:echo", "nothing to connect to"),
            ("tcp://127.0.0.1:0", "port 0"),
        ] {
            let error = target(endpoint, Reach::Loopback).unwrap_err();
            assert!(error.sentence().contains(why), "{}", error.sentence());
            assert_eq!(error.exit_code(), 64);
        }
        for endpoint in [
            "tcp://127.1.2.3:7",
            "tcp://[::1]:7",
            "udp://0.0.0.0:7",
            "tcp://[::]:7",
            "tcp://[::ffff:127.0.0.1]:7",
        ] {
            target(endpoint, Reach::Loopback).unwrap();
        }
        target("udp://192.0.2.1:7", Reach::OwnHost).unwrap();
        assert_eq!(target("tcp://no-such-host.invalid:7", Reach::OwnHost).unwrap_err().exit_code(), 69);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_later_connection_comes_from_another_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let target = target(&endpoint, Reach::Loopback).unwrap();
        for (nth, source) in [(0, "127.0.0.1"), (PER_SOURCE, "127.0.0.2"), (PER_SOURCE * 63, "127.0.0.64")] {
            let _client = target.connect(Mode::NonBlocking, nth).unwrap();
            assert_eq!(listener.accept().unwrap().1.ip().to_string(), source);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sources_take_turns_on_loopback() {
        let target = "127.0.0.1:7".parse().unwrap();
        assert_eq!(source(&target, 0), None);
        assert_eq!(source(&target, PER_SOURCE - 1), None);
        assert_eq!(source(&target, PER_SOURCE), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source(&target, PER_SOURCE * SOURCES - 1), Some(Ipv4Addr::new(127, 0, 0, 64)));
        assert_eq!(source(&target, PER_SOURCE * SOURCES), None);
        assert_eq!(source(&"192.0.2.1:7".parse().unwrap(), PER_SOURCE), None);
    }
}
