//! Batches of datagrams: recvmmsg(2), sendmmsg(2) and the control messages that go with them.
//!
//! Written here because the wrappers of nix do not rearm control buffers between calls and share
//! one control list over a whole batch. Each message of a [`Batch`] has its own payload buffer,
//! address and control buffer; all header fields are set anew before each receive.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Whether to wait for the first datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until one comes.
    Wait,
    /// Not at all: `WouldBlock` if there is none.
    DontWait,
}

/// Where a datagram came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A UDP peer; v4-mapped addresses are shown as IPv4.
    Ip(SocketAddr),
    /// A Unix socket with an address to answer to.
    Unix,
    /// A Unix socket without one.
    Unnamed,
}

/// One received datagram.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) source: Source,
    /// The address that it was sent to, if the socket asked for it (`IP_PKTINFO`).
    pub(crate) destination: Option<Destination>,
    /// The hop limit (IPv4: TTL) that it arrived with, if the socket asked for it.
    pub(crate) hops: Option<u8>,
    /// It was longer than the buffer.
    pub(crate) truncated: bool,
}

/// What `IP_PKTINFO` tells of a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The destination in the packet's header.
    pub(crate) header: IpAddr,
    /// The local address that it reached, from which an answer must leave.
    pub(crate) local: IpAddr,
}

/// Room for two control messages, aligned as `cmsghdr` wants.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 128]);

/// Buffers for a number of datagrams of up to `size` bytes each.
pub(crate) struct Batch {
    size: usize,
    /// Untouched pages cost nothing: the allocator maps zeroed memory lazily.
    payloads: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    pub(crate) fn new(capacity: usize, size: usize) -> Self {
        // SAFETY: these C structs consist of integers and pointers, for which zero is a value.
        let (name, iovec, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            size,
            payloads: vec![0; capacity * size],
            names: vec![name; capacity],
            controls: vec![Control([0; 128]); capacity],
            iovecs: vec![iovec; capacity],
            headers: vec![header; capacity],
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Points message `i`'s header at its buffers, all of them empty and at full size.
    fn arm(&mut self, i: usize) {
        self.iovecs[i] =
            libc::iovec { iov_base: self.payloads[i * self.size..].as_mut_ptr().cast(), iov_len: self.size };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_name = (&raw mut self.names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_iov = &raw mut self.iovecs[i];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut self.controls[i]).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header.msg_flags = 0;
    }

    /// Receives one datagram; quicker than a batch of one.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    pub(crate) fn receive_one(&mut self, socket: impl AsFd, patience: Patience) -> io::Result<()> {
        self.arm(0);
        let flags = if patience == Patience::Wait { 0 } else { libc::MSG_DONTWAIT };
        // SAFETY: `arm` pointed the header at live buffers of the lengths that it gives.
        let n = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut self.headers[0].msg_hdr, flags) };
        self.headers[0].msg_len = u32::try_from(n).map_err(|_| io::Error::last_os_error())?;
        Ok(())
    }

    /// Receives up to `capacity` datagrams, waiting at most for the first; returns how many.
    ///
    /// # Errors
    ///
    /// As recvmmsg(2).
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
    pub(crate) fn receive(&mut self, socket: impl AsFd, patience: Patience) -> io::Result<usize> {
        (0..self.capacity()).for_each(|i| self.arm(i));
        let flags = if patience == Patience::Wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: as in `receive_one`, for each of `capacity` headers.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.capacity() as _,
                flags as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Elsewhere a batch is one datagram.
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
    pub(crate) fn receive(&mut self, socket: impl AsFd, patience: Patience) -> io::Result<usize> {
        self.receive_one(socket, patience).map(|()| 1)
    }

    /// The `i`th datagram of the last receive.
    pub(crate) fn datagram(&self, i: usize) -> Datagram<'_> {
        let header = &self.headers[i];
        let length = (header.msg_len as usize).min(self.size);
        let (destination, hops) = read_control(&header.msg_hdr);
        Datagram {
            payload: &self.payloads[i * self.size..][..length],
            source: read_source(&self.names[i], header.msg_hdr.msg_namelen),
            destination,
            hops,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    /// Answers the `i`th datagram with `payload`, from the address that was asked.
    ///
    /// # Errors
    ///
    /// As sendmsg(2).
    pub(crate) fn answer(
        &self,
        i: usize,
        socket: impl AsFd,
        payload: &[u8],
        hops: Option<u8>,
        patience: Patience,
    ) -> io::Result<()> {
        let mut control = self.controls[i];
        let mut iovec = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        let mut header = self.headers[i].msg_hdr;
        header.msg_control = (&raw mut control).cast();
        header.msg_iov = &raw mut iovec;
        address_answer(&mut header, &self.names[i], hops);
        // SAFETY: the header points at live buffers; sendmsg only reads through `iov_base`.
        let n = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, send_flags(patience)) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sets the `i`th datagram to go back as it came; [`Batch::send_back`] sends all that are set.
    ///
    /// `queued` is how many have been set before, of this batch. Setting must go in ascending `i`.
    pub(crate) fn queue_back(&mut self, queued: usize, i: usize, hops: Option<u8>) {
        address_answer(&mut self.headers[i].msg_hdr, &self.names[i], hops);
        self.iovecs[i].iov_len = self.headers[i].msg_len as usize;
        self.headers.swap(queued, i);
    }

    /// Sends the first `queued` headers; returns how many, and how many bytes, could be sent.
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
    pub(crate) fn send_back(&mut self, queued: usize, socket: impl AsFd, patience: Patience) -> (usize, u64) {
        let (mut at, mut sent, mut bytes) = (0, 0, 0);
        while at < queued {
            // SAFETY: headers `at..queued` were set by `queue_back` and point at live buffers.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers[at..].as_mut_ptr(),
                    (queued - at) as _,
                    send_flags(patience) as _,
                )
            };
            match usize::try_from(n) {
                Ok(n) if n > 0 => {
                    bytes +=
                        self.headers[at..at + n].iter().map(|header| u64::from(header.msg_len)).sum::<u64>();
                    (at, sent) = (at + n, sent + n);
                }
                // The first one can't be sent; the others may.
                _ => at += 1,
            }
        }
        (sent, bytes)
    }

    /// Elsewhere one by one.
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
    pub(crate) fn send_back(&mut self, queued: usize, socket: impl AsFd, patience: Patience) -> (usize, u64) {
        let send = |header: &libc::mmsghdr| {
            // SAFETY: as above.
            let n = unsafe {
                libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header.msg_hdr, send_flags(patience))
            };
            n >= 0
        };
        let sent = self.headers[..queued].iter().filter(|header| send(header));
        sent.fold((0, 0), |(n, bytes), header| (n + 1, bytes + u64::from(header.msg_len)))
    }
}

/// Turns the control buffer of a received datagram into that of its answer.
fn address_answer(header: &mut libc::msghdr, name: &libc::sockaddr_storage, hops: Option<u8>) {
    let (destination, _) = read_control(header);
    let v4 = matches!(read_source(name, header.msg_namelen), Source::Ip(SocketAddr::V4(_)));
    let v6_socket = i32::from(name.ss_family) == libc::AF_INET6;
    header.msg_flags = 0;
    header.msg_controllen = size_of::<Control>() as _;
    let mut writer = ControlWriter::new(header);
    if let Some(Destination { local, .. }) = destination {
        writer.push_source(local, v6_socket);
    }
    if let Some(hops) = hops {
        let (level, kind) =
            if v4 { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) };
        writer.push(level, kind, i32::from(hops));
    }
    let length = writer.length;
    header.msg_controllen = length as _;
    if length == 0 {
        header.msg_control = ptr::null_mut();
    }
}

fn send_flags(patience: Patience) -> i32 {
    libc::MSG_NOSIGNAL | if patience == Patience::Wait { 0 } else { libc::MSG_DONTWAIT }
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
        // SAFETY: `next` is null or points into the Control with room for this message: two of at
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
            #[cfg(any(target_os = "linux", target_os = "netbsd"))]
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
                #[cfg(any(target_os = "linux", target_os = "netbsd"))]
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = |a: libc::in_addr| IpAddr::V4(Ipv4Addr::from(u32::from_be(a.s_addr)));
                    destination =
                        Some(Destination { header: ip(info.ipi_addr), local: ip(info.ipi_spec_dst) });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical();
                    destination = Some(Destination { header: ip, local: ip });
                }
                // Linux answers IP_RECVTTL with an int; the BSDs, with one byte and another type.
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
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

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("capacity", &self.capacity())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
