//! Why an address can't be bound, in words.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::Holder;
use crate::transport::Endpoint;
use crate::transport::listener::Kind;

/// What may be the cause of an error, and the way out, in brackets; nothing where nothing is known.
pub(super) fn advice(error: &io::Error, address: SocketAddr, rival: Option<String>) -> String {
    match (error.kind(), rival) {
        (io::ErrorKind::AddrInUse, Some(rival)) => format!(" ({rival})"),
        (io::ErrorKind::AddrInUse, None) => {
            " (is another program, or another forkd, listening there?)".into()
        }
        (io::ErrorKind::PermissionDenied, _) => forbidden(error, address.port(), first_free_port()),
        (io::ErrorKind::InvalidInput, _) if lacks_scope(address) => {
            format!(" (a link-local address needs its interface, such as [{}%eth0])", address.ip())
        }
        (io::ErrorKind::AddrNotAvailable, _) => " (this machine has no such address)".into(),
        _ => String::new(),
    }
}

/// Why bind(2) is not permitted: of a port that may be had, a right is not what is missing.
fn forbidden(error: &io::Error, port: u16, first_free: u16) -> String {
    match error.raw_os_error() == Some(libc::EACCES) && (1..first_free).contains(&port) {
        true => format!(" (ports below {first_free} need root or CAP_NET_BIND_SERVICE)"),
        false => {
            " (a security policy or a filter of this system forbids it, whatever the port's number)".into()
        }
    }
}

/// The lowest port that needs no right: ip(7), `ip_unprivileged_port_start`.
fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn lacks_scope(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0)
}

/// Says which of the holders has the address already, if one of them does.
pub(super) fn rival(address: SocketAddr, kind: Kind, holders: &[Holder<'_>]) -> Option<String> {
    let mine = address.ip();
    holders.iter().find_map(|&Holder { endpoint, is_old }| {
        let (host, port) = match (endpoint, kind) {
            (Endpoint::Tcp { host, port }, Kind::Stream) | (Endpoint::Udp { host, port }, Kind::Datagram) => {
                (host.parse::<IpAddr>().ok()?, *port)
            }
            _ => return None,
        };
        let same_family = mine.is_ipv4() == host.is_ipv4();
        let all = |ip: IpAddr| ip.is_unspecified() && (same_family || ip.is_ipv6());
        let way_out = match (is_old, same_family) {
            (true, _) => "a reload can't take it from the old configuration, a restart can",
            (false, true) => "leave one out",
            (false, false) => "[::] serves IPv4 as well: give --v6only, or leave one out",
        };
        let overlaps = port == address.port() && (host == mine || all(host) || all(mine));
        overlaps.then(|| format!("this forkd has bound {endpoint} already; {way_out}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_advised_only_for_a_port_that_takes_one() {
        let said =
            |errno, port, first_free| forbidden(&io::Error::from_raw_os_error(errno), port, first_free);
        assert!(said(libc::EACCES, 7, 1024).contains("ports below 1024 need root or CAP_NET_BIND_SERVICE"));
        assert!(said(libc::EACCES, 22_497, 30_000).contains("ports below 30000 need root"));
        for (errno, port, first_free) in [
            (libc::EACCES, 7, 0),
            (libc::EACCES, 1024, 1024),
            (libc::EACCES, 0, 1024),
            (libc::EPERM, 7, 1024),
        ] {
            let said = said(errno, port, first_free);
            assert!(said.contains("a security policy") && !said.contains("CAP_NET"), "{said}");
        }
    }
}
