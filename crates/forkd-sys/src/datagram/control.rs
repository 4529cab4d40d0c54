//! Control messages and addresses: what the kernel tells of a datagram, and what it is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use super::{Destination, Source};

#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
use libc::IPV6_HOPLIMIT;
/// As in netinet6/in6.h of both; the crate libc leaves it out.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
const IPV6_HOPLIMIT: i32 = 47;

/// Room for three control messages, aligned as `cmsghdr` wants.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; 128]);

/// What came with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) source: Source,
    pub(super) destination: Option<Destination>,
    pub(super) hops: Option<u8>,
    v6_socket: bool,
}

impl Envelope {
    pub(super) const EMPTY: Self =
        Self { source: Source::Unnamed, destination: None, hops: None, v6_socket: false };

    /// Reads the name and the control messages that the kernel has written.
    pub(super) fn read(header: &libc::msghdr, name: &libc::sockaddr_storage) -> Self {
        let (destination, hops) = read_control(header);
        let v6_socket = i32::from(name.ss_family) == libc::AF_INET6;
        Self { source: read_source(name, header.msg_namelen), destination, hops, v6_socket }
    }

    /// Makes a header's control buffer that of an answer: from the address that was asked, with
    /// this hop limit, and with the payload cut into segments of this length.
    pub(super) fn address_answer(&self, header: &mut libc::msghdr, hops: Option<u8>, segment: Option<u16>) {
        header.msg_flags = 0;
        header.msg_controllen = size_of::<Control>() as _;
        let mut writer = ControlWriter::new(header);
        if let Some(Destination { local, .. }) = self.destination {
            writer.push_source(local, self.v6_socket);
        }
        if let Some(hops) = hops {
            let (level, kind) = match self.source {
                Source::Ip(SocketAddr::V4(_)) => (libc::IPPROTO_IP, libc::IP_TTL),
                _ => (libc::IPPROTO_IPV6, IPV6_HOPLIMIT),
            };
            writer.push(level, kind, i32::from(hops));
        }
        #[cfg(target_os = "linux")]
        if let Some(segment) = segment {
            writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = segment;
        let length = writer.length;
        header.msg_controllen = length as _;
        if length == 0 {
            header.msg_control = ptr::null_mut();
        }
    }
}

/// Appends control messages to a header whose buffer is a [`Control`].
struct ControlWriter {
    next: *mut libc::cmsghdr,
    header: *mut libc::msghdr,
    length: usize,
}

impl ControlWriter {
    fn new(header: &mut libc::msghdr) -> Self {
        // SAFETY: `msg_control` and `msg_controllen` describe a whole Control.
        Self { next: unsafe { libc::CMSG_FIRSTHDR(header) }, header, length: 0 }
    }

    fn push<T: Copy>(&mut self, level: i32, kind: i32, value: T) {
        let size = size_of::<T>() as u32;
        // SAFETY: `next` is null or points into the Control with room for this message: three of at
        // most 40 bytes each are pushed, and a Control has 128. CMSG_NXTHDR reads the length that
        // was just written, and the next header's, which may be anything: it is cleared first.
        unsafe {
            let Some(message) = self.next.as_mut() else { return };
            message.cmsg_level = level;
            message.cmsg_type = kind;
            message.cmsg_len = libc::CMSG_LEN(size) as _;
            ptr::write_unaligned(libc::CMSG_DATA(self.next).cast::<T>(), value);
            let space = libc::CMSG_SPACE(size) as usize;
            self.length += space;
            let after = self.next.cast::<u8>().add(space).cast::<libc::cmsghdr>();
            (*after).cmsg_len = 0;
            self.next = libc::CMSG_NXTHDR(self.header, self.next);
        }
    }

    fn push_source(&mut self, local: IpAddr, v6_socket: bool) {
        match local {
            #[cfg(target_os = "linux")]
            IpAddr::V4(address) if !v6_socket => {
                let address = libc::in_addr { s_addr: u32::from(address).to_be() };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            local => {
                let address = match local {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                    ipi6_ifindex: 0,
                };
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }
}

fn read_control(header: &libc::msghdr) -> (Option<Destination>, Option<u8>) {
    let (mut destination, mut hops) = (None, None);
    // SAFETY: the kernel filled the control buffer and its length; the CMSG macros stay inside, and
    // each arm reads the struct that its level and type stand for, which may be unaligned.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            match (message.cmsg_level, message.cmsg_type) {
                #[cfg(target_os = "linux")]
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = |a: libc::in_addr| IpAddr::V4(Ipv4Addr::from(u32::from_be(a.s_addr)));
                    let (header, local) = (ip(info.ipi_addr), ip(info.ipi_spec_dst));
                    // Linux does not know it for what came before the socket asked. As the source of
                    // an answer, the kernel takes the other only if it is an address of ours.
                    let local = if local.is_unspecified() { header } else { local };
                    destination = Some(Destination { header, local });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical();
                    destination = Some(Destination { header: ip, local: ip });
                }
                // Linux answers IP_RECVTTL with an int; the BSDs, with one byte and another type.
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, IPV6_HOPLIMIT) => {
                    hops = u8::try_from(ptr::read_unaligned(data.cast::<i32>())).ok();
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    (destination, hops)
}

fn read_source(name: &libc::sockaddr_storage, length: libc::socklen_t) -> Source {
    let name: *const libc::sockaddr_storage = name;
    // SAFETY: sockaddr_storage is large and aligned enough for each family's struct (its purpose),
    // and the family says which one the kernel wrote.
    unsafe {
        match i32::from((*name).ss_family) {
            libc::AF_INET => {
                let a = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr));
                Source::Ip(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
            }
            libc::AF_INET6 => {
                let a = &*name.cast::<libc::sockaddr_in6>();
                let (ip, port) = (Ipv6Addr::from(a.sin6_addr.s6_addr), u16::from_be(a.sin6_port));
                match ip.to_ipv4_mapped() {
                    Some(v4) => Source::Ip(SocketAddrV4::new(v4, port).into()),
                    None => Source::Ip(SocketAddrV6::new(ip, port, a.sin6_flowinfo, a.sin6_scope_id).into()),
                }
            }
            // An unnamed peer's address is the family alone, or (on Linux) of length 0.
            libc::AF_UNIX if length as usize > size_of::<libc::sa_family_t>() => Source::Unix,
            _ => Source::Unnamed,
        }
    }
}
