//! Which datagrams get no answer.
//!
//! Two servers that answer anything can feed each other for ever after one forged datagram
//! (CERT CA-1996-01, CVE-2024-2169). Known small services and our own ports are told by their
//! number. Any other forkd is told by the hop limit: an answer leaves with one hop less than the
//! request had left, so a datagram between two of them dies within 255 bounces, as a packet in a
//! routing loop does.

use std::net::IpAddr;

use super::Refusal;
use crate::sys::datagram::{Datagram, Destination, Source};

/// Services that answer whatever they get: echo, discard, systat, daytime, netstat, qotd,
/// chargen, time, domain, tftp, ntp (ports(5) and VU#417980).
const SERVICE_PORTS: [u16; 11] = [7, 9, 11, 13, 15, 17, 19, 37, 53, 69, 123];

/// Decides which datagrams are answered, and with which hop limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpFilter {
    own_ports: Vec<u16>,
}

impl UdpFilter {
    /// A filter for a daemon that has these UDP ports.
    pub fn new(own_ports: impl IntoIterator<Item = u16>) -> Self {
        Self { own_ports: own_ports.into_iter().collect() }
    }

    /// Admits a datagram, with the hop limit of its answer; `None` is the system's own.
    pub fn admit(&self, datagram: &Datagram<'_>) -> Result<Option<u8>, Refusal> {
        if datagram.truncated {
            return Err(Refusal::Oversize);
        }
        let source = match datagram.source {
            Source::Unix => return Ok(None),
            Source::Unnamed => return Err(Refusal::Unnamed),
            Source::Ip(source) => source,
        };
        match source.port() {
            0 => return Err(Refusal::PortZero),
            port if self.own_ports.contains(&port) => return Err(Refusal::OwnPort),
            port if SERVICE_PORTS.contains(&port) => return Err(Refusal::ServicePort),
            _ => {}
        }
        if is_for_many(source.ip()) || datagram.destination.is_some_and(was_for_many) {
            return Err(Refusal::Broadcast);
        }
        match datagram.hops {
            Some(0 | 1) => Err(Refusal::HopLimit),
            hops => Ok(hops.map(|hops| hops - 1)),
        }
    }
}

fn is_for_many(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}

/// A packet to a network's broadcast address reached us under another, our own.
fn was_for_many(destination: Destination) -> bool {
    is_for_many(destination.header) || destination.header != destination.local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(source: &str) -> Datagram<'static> {
        let source = Source::Ip(source.parse().expect("an address"));
        Datagram { payload: b"x", source, destination: None, hops: Some(64), truncated: false }
    }

    fn verdict(datagram: &Datagram<'_>) -> Result<Option<u8>, Refusal> {
        UdpFilter::new([7007, 40000]).admit(datagram)
    }

    #[test]
    fn a_client_on_an_ordinary_port_is_served_with_one_hop_less() {
        assert_eq!(verdict(&datagram("127.0.0.1:50000")), Ok(Some(63)));
        assert_eq!(verdict(&datagram("[::1]:50000")), Ok(Some(63)));
        assert_eq!(verdict(&Datagram { hops: None, ..datagram("10.1.1.1:1024") }), Ok(None));
    }

    #[test]
    fn ports_that_answer_back_get_no_answer() {
        assert_eq!(verdict(&datagram("10.1.1.1:0")), Err(Refusal::PortZero));
        assert_eq!(verdict(&datagram("10.1.1.1:19")), Err(Refusal::ServicePort));
        assert_eq!(verdict(&datagram("10.1.1.1:40000")), Err(Refusal::OwnPort));
    }

    #[test]
    fn broadcast_and_multicast_get_no_answer() {
        assert_eq!(verdict(&datagram("255.255.255.255:5000")), Err(Refusal::Broadcast));
        assert_eq!(verdict(&datagram("[ff02::1]:5000")), Err(Refusal::Broadcast));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let to_subnet = Destination { header: ip("10.1.1.255"), local: ip("10.1.1.2") };
        let datagram = Datagram { destination: Some(to_subnet), ..datagram("10.1.1.9:5000") };
        assert_eq!(verdict(&datagram), Err(Refusal::Broadcast));
    }

    #[test]
    fn a_loop_ends_when_its_hops_are_used_up() {
        let mut hops = Some(255);
        let mut bounces = 0;
        while let Ok(left) = verdict(&Datagram { hops, ..datagram("127.0.0.1:7008") }) {
            hops = left;
            bounces += 1;
        }
        assert_eq!(bounces, 254);
    }

    #[test]
    fn what_can_t_be_answered_whole_is_not_answered() {
        assert_eq!(
            verdict(&Datagram { truncated: true, ..datagram("127.0.0.1:5000") }),
            Err(Refusal::Oversize)
        );
        assert_eq!(
            verdict(&Datagram { source: Source::Unnamed, ..datagram("127.0.0.1:1") }),
            Err(Refusal::Unnamed)
        );
    }
}
