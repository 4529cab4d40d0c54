//! What a proxy in front of the server would say of each client, by HAProxy's PROXY protocol.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use proxy_header::{ProxiedAddress, ProxyHeader};
use rustix::net::getsockname;

/// The version of the header that is sent: in front of a connection, or in each datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text; connections only.
    V1,
    /// Bytes.
    V2,
}

/// As long as a header without extensions is at most.
const LONGEST: usize = 232;

impl ProxyVersion {
    /// The header for a client with this socket: its own address, and for a Unix socket none.
    pub(super) fn header(self, client: impl AsFd, server: Option<SocketAddr>, is_datagram: bool) -> Vec<u8> {
        let client = getsockname(client).ok().and_then(|address| SocketAddr::try_from(address).ok());
        let header = match client.zip(server) {
            Some((client, server)) if is_datagram => {
                ProxyHeader::with_address(ProxiedAddress::datagram(client, server))
            }
            Some((client, server)) => ProxyHeader::with_address(ProxiedAddress::stream(client, server)),
            None => ProxyHeader::with_local(),
        };
        let mut bytes = vec![0; LONGEST];
        let length = match self {
            Self::V1 => header.encode_to_slice_v1(&mut bytes),
            Self::V2 => header.encode_to_slice_v2(&mut bytes),
        };
        // it fails for what is too long only
        bytes.truncate(length.unwrap_or(0));
        bytes
    }
}
