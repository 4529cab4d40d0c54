//! The other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::SocketAddrAny;

use crate::sys::socket::{Credentials, credentials};

/// The other end of a connection or datagram.
///
/// ```
/// use forkd_server::Peer;
///
/// fn is_local(peer: &Peer) -> bool {
///     match peer {
///         Peer::Ip(address) => address.ip().is_loopback(),
///         Peer::Unix { .. } => true,
///         _ => false,
///     }
/// }
/// let peer = Peer::Ip("127.0.0.1:4000".parse().unwrap());
/// assert!(is_local(&peer));
/// assert_eq!(peer.to_string(), "127.0.0.1:4000");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Peer {
    /// An Internet address; v4-mapped IPv6 addresses are shown as IPv4.
    Ip(SocketAddr),
    /// A process on this machine, over a Unix socket: its pid and user id where the system tells
    /// (unix(7), `SO_PEERCRED`), else zeroes.
    Unix {
        /// Process id of the client when it connected.
        pid: u32,
        /// Its effective user id then.
        uid: u32,
        /// Its effective group id then.
        gid: u32,
    },
    /// None, as of an idle worker.
    #[default]
    None,
}

impl Peer {
    /// Its Internet address, without the port; `None` over a Unix socket.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use forkd_server::Server;
    ///
    /// let friends: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap()];
    /// let server = Server::bind("tcp://127.0.0.1:0")?
    ///     .verify_request(move |peer| peer.ip().is_some_and(|ip| friends.contains(&ip)));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix { .. } | Self::None => None,
        }
    }

    /// The other end of a connection, whose address accept(2) or getpeername(2) has told.
    // a function of its own would be one more window of text for each spare child to fault in
    #[inline(always)]
    pub(crate) fn of(connection: impl AsFd, address: Option<&SocketAddrAny>, is_unix: bool) -> Self {
        match address.and_then(|address| SocketAddr::try_from(address.clone()).ok()) {
            Some(address) => Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port())),
            None if is_unix => {
                // one whose user is not known is no user's
                let unknown = Credentials { pid: 0, uid: u32::MAX, gid: u32::MAX };
                let Credentials { pid, uid, gid } = credentials(connection).unwrap_or(unknown);
                Self::Unix { pid, uid, gid }
            }
            None => Self::None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { pid: 0, .. } => f.write_str("unix"),
            Self::Unix { pid, uid, .. } => write!(f, "unix:pid={pid},uid={uid}"),
            Self::None => f.write_str("-"),
        }
    }
}

forkd_sys::plain! {
    /// A [`Peer`] in shared memory. A reader may see half of one peer and half of the next; that is
    /// good enough to be shown, and nothing is decided by it.
    #[derive(Debug)]
    pub(crate) struct PackedPeer {
        words: [AtomicU64; 3],
    }
}

const V4: u64 = 1;
const V6: u64 = 2;
const UNIX: u64 = 3;

impl Peer {
    /// As three numbers.
    #[inline(always)]
    pub(crate) fn pack(self) -> [u64; 3] {
        let tagged = |tag: u64, port: u16, scope: u32| tag | u64::from(port) << 16 | u64::from(scope) << 32;
        match self {
            Self::None => [0; 3],
            Self::Unix { pid, uid, gid } => [UNIX | u64::from(gid) << 32, pid.into(), uid.into()],
            Self::Ip(address) => match address.ip() {
                IpAddr::V4(ip) => [tagged(V4, address.port(), 0), u64::from(u32::from(ip)), 0],
                IpAddr::V6(ip) => {
                    let scope = if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 };
                    let bits = u128::from(ip);
                    [tagged(V6, address.port(), scope), (bits >> 64) as u64, bits as u64]
                }
            },
        }
    }

    /// By its numbers.
    #[inline(always)]
    pub(crate) fn unpack([head, a, b]: [u64; 3]) -> Self {
        let port = (head >> 16) as u16;
        match head & 0xff {
            V4 => Peer::Ip(SocketAddr::new(Ipv4Addr::from(a as u32).into(), port)),
            V6 => {
                let ip = Ipv6Addr::from(u128::from(a) << 64 | u128::from(b));
                Peer::Ip(SocketAddrV6::new(ip, port, 0, (head >> 32) as u32).into())
            }
            UNIX => Peer::Unix { pid: a as u32, uid: b as u32, gid: (head >> 32) as u32 },
            _ => Peer::None,
        }
    }
}

impl PackedPeer {
    pub(crate) fn store(&self, peer: Peer) {
        for (cell, word) in self.words.iter().zip(peer.pack()) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    pub(crate) fn load(&self) -> Peer {
        Peer::unpack([0, 1, 2].map(|i| self.words[i].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_peer_comes_out_as_it_went_in() {
        let packed = PackedPeer { words: [const { AtomicU64::new(0) }; 3] };
        assert_eq!(packed.load(), Peer::None);
        let ip = |text: &str| Peer::Ip(text.parse().expect("an address"));
        let unix = Peer::Unix { pid: 12, uid: 34, gid: u32::MAX };
        for peer in [ip("127.0.0.77:65535"), ip("[fe80::1%7]:9"), unix, Peer::None] {
            packed.store(peer);
            assert_eq!(packed.load(), peer);
        }
    }
}
