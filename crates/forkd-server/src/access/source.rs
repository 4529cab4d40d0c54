//! What counts as one source.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::bucket::Label;
use super::rules::Rule;
use crate::transport::Peer;

/// How many bits of an address stand for its source: those of a network that one subscriber has.
///
/// ```
/// use forkd_server::supervise::Prefixes;
/// assert_eq!("24/56".parse::<Prefixes>().unwrap().to_string(), "24/56");
/// assert_eq!(Prefixes::default().to_string(), "32/64");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    v4: u8,
    v6: u8,
}

impl Default for Prefixes {
    /// An address of IPv4; a network of IPv6 as hosts have it, within which they choose addresses as they like.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl FromStr for Prefixes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let prefixes = || {
            let (v4, v6) = text.split_once('/')?;
            let length =
                |text: &str, most| text.parse::<u8>().ok().filter(|length| (1..=most).contains(length));
            Some(Self { v4: length(v4, 32)?, v6: length(v6, 128)? })
        };
        prefixes().ok_or_else(|| {
            format!("{text:?} is not two lengths of prefixes; write 1 to 32 bits of IPv4 and 1 to 128 of IPv6, like 32/64")
        })
    }
}

impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.v4, self.v6)
    }
}

/// A network, or a user of Unix sockets. v4-mapped addresses are IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4(u32),
    V6(u128),
    User(u32),
}

impl Source {
    /// The source of a client; `None`: it can't be told.
    pub(crate) fn of(peer: Peer, prefixes: Prefixes) -> Option<Self> {
        match peer {
            Peer::Ip(address) => Some(match address.ip().to_canonical() {
                IpAddr::V4(v4) => Self::V4(u32::from(v4) & (u32::MAX << (32 - prefixes.v4))),
                IpAddr::V6(v6) => Self::V6(u128::from(v6) & (u128::MAX << (128 - prefixes.v6))),
            }),
            Peer::Unix { pid: 1.., uid, .. } => Some(Self::User(uid)),
            Peer::Unix { .. } | Peer::None => None,
        }
    }

    /// As one of a listening socket is labelled.
    pub(super) fn label(self, listener: usize) -> Label {
        let (kind, bits) = match self {
            Self::V4(bits) => (V4, bits.into()),
            Self::V6(bits) => (V6, bits),
            Self::User(uid) => (USER, uid.into()),
        };
        Label { kind: (listener as u64) << 2 | kind, address: [(bits >> 64) as u64, bits as u64] }
    }

    /// The number of the listening socket, and the source, that a label says.
    pub(super) fn of_label(Label { kind, address: [high, low] }: Label) -> Option<(usize, Self)> {
        let source = match kind & 3 {
            V4 => Self::V4(low as u32),
            V6 => Self::V6(u128::from(high) << 64 | u128::from(low)),
            USER => Self::User(low as u32),
            _ => return None,
        };
        Some(((kind >> 2 & LISTENER) as usize, source))
    }

    /// The first of its clients, by address.
    pub(super) fn first(self) -> Peer {
        match self {
            Self::V4(bits) => Peer::Ip((Ipv4Addr::from(bits), 0).into()),
            Self::V6(bits) => Peer::Ip((Ipv6Addr::from(bits), 0).into()),
            Self::User(uid) => Peer::Unix { pid: 1, uid, gid: u32::MAX },
        }
    }

    /// As a rule for all its clients, where these prefixes stand for a source.
    pub(crate) fn rule(self, prefixes: Prefixes) -> Rule {
        let (address, length): (IpAddr, u8) = match self {
            Self::V4(bits) => (Ipv4Addr::from(bits).into(), prefixes.v4),
            Self::V6(bits) => (Ipv6Addr::from(bits).into(), prefixes.v6),
            Self::User(uid) => return Rule::User(uid),
        };
        // neither length is beyond its addresses
        Rule::Network(IpNet::new(address, length).unwrap_or(address.into()).trunc())
    }
}

/// The kinds of a label; 0 is none.
const V4: u64 = 1;
const V6: u64 = 2;
const USER: u64 = 3;
const LISTENER: u64 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_network_or_a_user() {
        let of = |text: &str, prefixes: &str| {
            Source::of(Peer::Ip((text.parse::<IpAddr>().unwrap(), 9).into()), prefixes.parse().unwrap())
        };
        assert_eq!(of("192.0.2.7", "32/64"), Some(Source::V4(0xc000_0207)));
        assert_eq!(of("::ffff:192.0.2.7", "24/64"), Some(Source::V4(0xc000_0200)));
        assert_eq!(of("2001:db8::1", "32/64"), of("2001:db8::ffff:1", "32/64"));
        assert_ne!(of("2001:db8::1", "32/128"), of("2001:db8::2", "32/128"));
        assert_eq!(of("200.0.0.1", "1/1"), Some(Source::V4(1 << 31)));
        let user = |pid| Source::of(Peer::Unix { pid, uid: 7, gid: 8 }, Prefixes::default());
        assert_eq!((user(3), user(0)), (Some(Source::User(7)), None));
        for (text, shown) in [("192.0.2.7", "192.0.2.0/24"), ("2001:db8::1", "2001:db8::/64")] {
            let source = of(text, "24/64").unwrap();
            assert_eq!(source.rule("24/64".parse().unwrap()).to_string(), shown);
        }
        assert_eq!(Source::User(7).rule(Prefixes::default()).to_string(), "uid:7");
        for text in ["32", "0/64", "33/64", "32/129", "32/64/1", "/", "a/b"] {
            assert!(text.parse::<Prefixes>().unwrap_err().contains("like 32/64"), "{text}");
        }
    }

    #[test]
    fn a_label_says_whose_entry_it_is() {
        for source in [Source::V4(u32::MAX), Source::V6(u128::MAX), Source::User(7), Source::V6(0)] {
            assert_eq!(Source::of_label(source.label(1023)), Some((1023, source)));
        }
        assert_eq!(Source::of_label(Label::default()), None);
        // what a record has above it is not a part of it
        let Label { kind, address } = Source::V4(1).label(3);
        assert_eq!(
            Source::of_label(Label { kind: kind | u64::MAX << 18, address }),
            Some((3, Source::V4(1)))
        );
    }
}
