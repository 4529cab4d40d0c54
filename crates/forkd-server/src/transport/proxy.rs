//! The PROXY protocol: a proxy in front says, in the first bytes of a connection or of a datagram, for whom it speaks
//! ([specification](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)).
//!
//! A header is never guessed at: where one is expected, bytes that are none end the connection. What belongs to the
//! service stays in the socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use proxy_header::{Error, ParseConfig, ProxyHeader};
use rustix::net::{RecvFlags, recv};

/// Which versions of the header are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text; connections only.
    V1,
    /// Bytes, as HAProxy's `send-proxy-v2` and most cloud load balancers send them.
    V2,
    /// Either.
    Any,
}

/// How long a connection may take for its header. The specification asks for at least 3 s, in which TCP sends a lost segment
/// again.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest header that is taken. The addresses take 232 bytes at most, what else a proxy may add has the rest.
const LONGEST: usize = 4096;

/// Where version and command are in a header of version 2, and those of a proxy that speaks for itself.
const COMMAND_AT: usize = 12;
const LOCAL: u8 = 0x20;

/// The bytes before the length in a header of version 2, and those up to its end.
const LENGTH_AT: usize = 14;
const FIXED: usize = 16;

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A header of this length, and the client that it names; `None`: the proxy speaks for itself (LOCAL, UNKNOWN), or for
    /// a client without an IP address.
    Header(usize, Option<SocketAddr>),
    /// The beginning of one.
    Incomplete,
    /// Not a header that is taken.
    Broken,
}

impl ProxyVersion {
    /// Reads the header that these bytes begin with.
    pub(crate) fn parse(self, bytes: &[u8]) -> Parsed {
        let declared = bytes.get(LENGTH_AT..FIXED).map(|length| u16::from_be_bytes([length[0], length[1]]));
        let is_v2 = bytes.first() == Some(&b'\r');
        if is_v2 && declared.is_some_and(|length| usize::from(length) > LONGEST - FIXED) {
            return Parsed::Broken;
        }
        let is_local = is_v2 && self != Self::V1 && bytes.get(COMMAND_AT) == Some(&LOCAL) && begins(bytes);
        if let (true, Some(length)) = (is_local, declared) {
            // the address family of such a header says nothing
            let end = FIXED + usize::from(length);
            return if bytes.len() < end { Parsed::Incomplete } else { Parsed::Header(end, None) };
        }
        let config =
            ParseConfig { include_tlvs: false, allow_v1: self != Self::V2, allow_v2: self != Self::V1 };
        match ProxyHeader::parse(bytes, config) {
            Ok((header, length)) => {
                let client = header.proxied_address().map(|address| canonical(address.source));
                Parsed::Header(length, client)
            }
            Err(Error::BufferTooShort) if begins(bytes) => Parsed::Incomplete,
            Err(_) => Parsed::Broken,
        }
    }
}

/// Whether a header may begin like this, so that one that is none need not be waited for.
fn begins(bytes: &[u8]) -> bool {
    const SIGNATURES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    SIGNATURES.into_iter().any(|signature| signature.iter().zip(bytes).all(|(a, b)| a == b))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A header on its way: what has come of it.
#[derive(Debug, Default)]
pub(crate) struct Header {
    begun: Vec<u8>,
}

impl Header {
    /// Takes the header out of a socket, and no byte more; the client that it names.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if more of it is to come; `InvalidData` if there is none; `UnexpectedEof` if the connection has ended
    /// before; and as recv(2).
    pub(crate) fn take(
        &mut self,
        socket: impl AsFd,
        versions: ProxyVersion,
    ) -> io::Result<Option<SocketAddr>> {
        let (mut bytes, before) = ([0; LONGEST], self.begun.len());
        bytes[..before].copy_from_slice(&self.begun);
        let (_, come) = recv(&socket, &mut bytes[before..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        if come == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (length, client) = match versions.parse(&bytes[..before + come]) {
            Parsed::Header(length, client) => (length, Ok(client)),
            Parsed::Incomplete => {
                self.begun = bytes[..before + come].to_vec();
                (before + come, Err(io::ErrorKind::WouldBlock.into()))
            }
            Parsed::Broken => return Err(io::ErrorKind::InvalidData.into()),
        };
        // these are here already
        recv(&socket, &mut bytes[..length - before], RecvFlags::DONTWAIT)?;
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_header::ProxiedAddress;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const CLIENT: &str = "192.0.2.7:4711";

    fn v2(client: &str) -> Vec<u8> {
        let address = client.parse().unwrap();
        let header = ProxyHeader::with_address(ProxiedAddress::stream(address, address));
        let mut bytes = [0; 256];
        let length = header.encode_to_slice_v2(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    fn all() -> [(Vec<u8>, Option<SocketAddr>); 7] {
        let client = CLIENT.parse().ok();
        [
            (v2(CLIENT), client),
            (v2("[2001:db8::1]:9"), "[2001:db8::1]:9".parse().ok()),
            (v2("[::ffff:192.0.2.7]:4711"), client),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 7\r\n".to_vec(), client),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), None),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x02ab".to_vec(), None),
        ]
    }

    #[test]
    fn a_header_is_complete_at_its_last_byte_and_not_before() {
        for (header, client) in all() {
            for end in 0..header.len() {
                assert_eq!(
                    ProxyVersion::Any.parse(&header[..end]),
                    Parsed::Incomplete,
                    "{:?}",
                    &header[..end]
                );
            }
            let more = [&header[..], b"hello"].concat();
            assert_eq!(ProxyVersion::Any.parse(&more), Parsed::Header(header.len(), client));
        }
    }

    #[test]
    fn what_is_no_header_is_known_at_its_first_wrong_byte() {
        for bytes in
            [&b"G"[..], b"PROXy", b"\r\n\r\n\0\r\nQUIT\r", b"PROXY SCTP4 1.2.3.4 1.2.3.4 1 1\r\n", &[0; 20]]
        {
            assert_eq!(ProxyVersion::Any.parse(bytes), Parsed::Broken, "{bytes:?}");
        }
        assert_eq!(ProxyVersion::V2.parse(b"PROXY UNKNOWN\r\n"), Parsed::Broken);
        assert_eq!(ProxyVersion::V1.parse(&v2(CLIENT)), Parsed::Broken);
        let mut wrong = v2(CLIENT);
        for (at, byte) in [(12, 0x11), (12, 0x22), (13, 0x41)] {
            let right = std::mem::replace(&mut wrong[at], byte);
            assert_eq!(ProxyVersion::Any.parse(&wrong), Parsed::Broken, "{at} {byte}");
            wrong[at] = right;
        }
    }

    #[test]
    fn an_oversized_header_is_not_waited_for() {
        let mut huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        huge.extend(u16::MAX.to_be_bytes());
        assert_eq!(ProxyVersion::Any.parse(&huge), Parsed::Broken);
        let line = [&b"PROXY UNKNOWN "[..], &[b'x'; 107]].concat();
        assert_eq!(ProxyVersion::Any.parse(&line), Parsed::Broken);
    }

    #[test]
    fn a_header_is_taken_in_whatever_pieces_it_comes_and_no_byte_of_the_service() {
        for (bytes, client) in all() {
            for piece in [1, 7, bytes.len(), 1000] {
                let (mut theirs, mut ours) = UnixStream::pair().unwrap();
                let stream = [&bytes[..], b"hello"].concat();
                let (mut header, mut found) = (Header::default(), None);
                for piece in stream.chunks(piece) {
                    theirs.write_all(piece).unwrap();
                    found = found.or_else(|| match header.take(&ours, ProxyVersion::Any) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                        taken => Some(taken.unwrap()),
                    });
                }
                assert_eq!(found, Some(client));
                drop(theirs);
                let mut rest = String::new();
                ours.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, "hello");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_a_header_is_within_it(
            start in proptest::sample::select(&["", "PROXY ", "PROXY TCP4 ", "\r\n\r\n\0\r\nQUIT\n", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0"][..]),
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let all = [start.as_bytes(), &bytes].concat();
            if let Parsed::Header(length, _) = ProxyVersion::Any.parse(&all) {
                proptest::prop_assert!((15..=all.len()).contains(&length));
            }
        }
    }

    #[test]
    fn a_connection_that_ends_before_its_header_has_none() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).unwrap();
        let mut header = Header::default();
        let mut kind = || header.take(&ours, ProxyVersion::Any).unwrap_err().kind();
        assert_eq!(kind(), io::ErrorKind::WouldBlock);
        rustix::io::write(&theirs, b"PRO").unwrap();
        assert_eq!(kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(kind(), io::ErrorKind::UnexpectedEof);
    }
}
