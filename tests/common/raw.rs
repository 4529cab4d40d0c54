//! Forged UDP datagrams, inside 127/8 only; needs root.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// A socket that sends whatever header it is given (raw(7), `IPPROTO_RAW`).
pub struct Forger(OwnedFd);

impl Forger {
    pub fn new() -> Self {
        let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        Self(socket(AddressFamily::Inet, kind.0, kind.1, kind.2).expect("a raw socket"))
    }

    /// Sends a datagram that claims to come from `source`.
    pub fn send(&self, source: SocketAddrV4, destination: SocketAddrV4, ttl: u8, payload: &[u8]) {
        assert!(source.ip().is_loopback() && destination.ip().is_loopback(), "not outside 127/8");
        let packet = packet(source, destination, ttl, payload);
        let to = SockaddrIn::from(SocketAddrV4::new(*destination.ip(), 0));
        let sent = sendto(self.0.as_raw_fd(), &packet, &to, MsgFlags::empty()).expect("send");
        assert_eq!(sent, packet.len());
    }
}

/// RFC 791 and 768; the kernel fills in the header's checksum, and UDP over IPv4 may go without.
fn packet(source: SocketAddrV4, destination: SocketAddrV4, ttl: u8, payload: &[u8]) -> Vec<u8> {
    const UDP: u8 = 17;
    let udp_length = u16::try_from(8 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_length).to_be_bytes());
    packet.extend([0, 0, 0, 0, ttl, UDP, 0, 0]);
    packet.extend(source.ip().octets());
    packet.extend(destination.ip().octets());
    for field in [source.port(), destination.port(), udp_length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

/// An address in 127/8.
pub fn loopback(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), port)
}
