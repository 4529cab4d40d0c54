//! What the kernel knows of the other end of a TCP connection, where that is on this machine: sock_diag(7).
//!
//! close(2) and shutdown(2) of a client send the same FIN, so a socket can't tell whether its peer still waits for an
//! answer. The kernel can, for as long as it has the peer's socket: one that no process has any more has no inode.

#[cfg(target_os = "linux")]
pub use linux::OtherEnd;

/// Elsewhere nothing is known.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct OtherEnd(std::convert::Infallible);

#[cfg(not(target_os = "linux"))]
impl OtherEnd {
    pub fn of(_connection: impl std::os::fd::AsFd) -> Option<Self> {
        None
    }

    pub fn is_closed(&self) -> bool {
        match self.0 {}
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::fstat;
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, getsockname, netlink,
        recv, send, socket_with,
    };

    /// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
    const BY_FAMILY: u16 = 20;
    /// `NLM_F_REQUEST` of netlink(7).
    const REQUEST: u16 = 1;
    /// The length of a `struct nlmsghdr`.
    const HEADER: usize = 16;
    /// Where a `struct inet_diag_msg` has its state and its inode, after the header.
    const STATE: usize = HEADER + 1;
    const INODE: usize = HEADER + 68;
    /// The states of a socket that has sent its FIN: FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSING, LAST_ACK
    /// (linux/tcp_states.h).
    const ENDED: [u8; 5] = [4, 5, 6, 11, 9];

    /// The socket at the other end of a connection.
    #[derive(Debug)]
    pub struct OtherEnd {
        kernel: OwnedFd,
        ours: SocketAddr,
        theirs: SocketAddr,
    }

    impl OtherEnd {
        /// `None` where there is nothing to know: the peer is on another machine or in another network namespace, or the
        /// kernel may not be asked.
        pub fn of(connection: impl AsFd) -> Option<Self> {
            if super::super::portable() {
                return None;
            }
            let [ours, theirs] = [getsockname(&connection).ok()?, getpeername(&connection).ok()??]
                .map(|address| SocketAddr::try_from(address).ok().map(canonical));
            let (ours, theirs) = (ours?, theirs?);
            let flags = SocketFlags::CLOEXEC;
            let kind = SocketType::DGRAM;
            let kernel = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG)).ok()?;
            let end = Self { kernel, ours, theirs };
            // Our own end must be known there, or these are the addresses of another namespace.
            let is_ours = |(_, inode)| fstat(&connection).is_ok_and(|stat| stat.st_ino == u64::from(inode));
            let is_known = end.ask(ours, theirs).is_ok_and(is_ours) && end.ask(theirs, ours).is_ok();
            is_known.then_some(end)
        }

        /// Whether no process has it any more, to read an answer.
        pub fn is_closed(&self) -> bool {
            self.ask(self.theirs, self.ours).is_ok_and(|(state, inode)| ENDED.contains(&state) && inode == 0)
        }

        /// The state and the inode of the socket with these addresses.
        fn ask(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<(u8, u32)> {
            send(&self.kernel, &request(local, remote), SendFlags::DONTWAIT)?;
            let mut answer = [0; 512];
            let (length, _) = recv(&self.kernel, &mut answer[..], RecvFlags::DONTWAIT)?;
            let answer = answer.get(..length).unwrap_or_default();
            let inode = answer.get(INODE..INODE + 4).and_then(|bytes| bytes.try_into().ok());
            match (answer.get(4..6), answer.get(STATE), inode) {
                (Some(kind), Some(&state), Some(inode)) if kind == BY_FAMILY.to_ne_bytes() => {
                    Ok((state, u32::from_ne_bytes(inode)))
                }
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    /// A client over IPv4 of a socket for IPv6 is in the table for IPv4.
    fn canonical(address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
                SocketAddr::new(address.ip().to_canonical(), v6.port())
            }
            address => address,
        }
    }

    /// A `struct nlmsghdr`, followed by a `struct inet_diag_req_v2` (linux/inet_diag.h).
    fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
        let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let mut body = vec![family.as_raw() as u8, libc::IPPROTO_TCP as u8, 0, 0];
        // in which states it may be: any
        body.extend(u32::MAX.to_ne_bytes());
        body.extend(local.port().to_be_bytes());
        body.extend(remote.port().to_be_bytes());
        for address in [local, remote] {
            let mut bytes = [0; 16];
            match address.ip() {
                IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => bytes = ip.octets(),
            }
            body.extend(bytes);
        }
        let interface = if let SocketAddr::V6(v6) = remote { v6.scope_id() } else { 0 };
        body.extend(interface.to_ne_bytes());
        // INET_DIAG_NOCOOKIE
        body.extend([0xff; 8]);
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(BY_FAMILY.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_close_is_told_from_a_half_close() {
        for bound in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bound).expect("bind");
            let mut address = listener.local_addr().expect("address");
            if address.ip().is_unspecified() {
                // a client of the other family
                address.set_ip(IpAddr::from([127, 0, 0, 1]));
            }
            let client = TcpStream::connect(address).expect("connect");
            let (connection, _) = listener.accept().expect("accept");
            let other = OtherEnd::of(&connection);
            if super::super::portable() {
                assert!(other.is_none(), "{bound}: other systems know nothing");
                continue;
            }
            let other = other.expect("it is here");
            assert!(!other.is_closed(), "{bound}");
            client.shutdown(Shutdown::Write).expect("shutdown");
            let copy = client.try_clone().expect("dup");
            drop(client);
            assert!(!other.is_closed(), "{bound}: a copy is left");
            drop(copy);
            assert!(other.is_closed(), "{bound}");
            assert!(OtherEnd::of(&connection).expect("it is still known").is_closed(), "{bound}");
        }
    }

    #[test]
    fn of_what_is_no_tcp_connection_nothing_is_known() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
        assert!(OtherEnd::of(&one).is_none());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        assert!(OtherEnd::of(&listener).is_none());
    }
}
