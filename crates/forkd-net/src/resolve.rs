//! Turns a host into addresses, also in a static program.
//!
//! The invariant: an address literal asks no resolver, and with a static glibc a name is asked of
//! getent(1), or of `/etc/hosts` where that is missing, not of getaddrinfo(3) (see
//! `crate::getent`).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Returns the addresses of a host, in the order of preference, each with `port`; at least one.
///
/// A host is a name, an IPv4 address or an IPv6 address without brackets, which may have a scope:
/// `fe80::1%eth0` or `fe80::1%2`.
///
/// # Errors
///
/// `NotFound`, with a sentence, for an unknown host or interface; otherwise what asking
/// failed with.
///
/// # Fork safety
///
/// May start a child and wait for it (see `getent`).
///
/// # Examples
///
/// ```
/// use forkd_net::resolve::resolve;
/// assert_eq!(resolve("::1", 7)?, ["[::1]:7".parse().unwrap()]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = parse_literal(host, port)? {
        return Ok(vec![address]);
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in ask_for(host, port)? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(unknown(host)) } else { Ok(addresses) }
}

fn unknown(host: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no address is known for the host {host:?}"))
}

fn parse_literal(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Some((address, port).into()));
    }
    let Some((address, scope)) = host.split_once('%') else { return Ok(None) };
    let Ok(address) = address.parse::<Ipv6Addr>() else { return Ok(None) };
    let scope_id = match scope.parse() {
        Ok(number) => number,
        Err(_) => nix::net::if_::if_nametoindex(scope).map_err(|_| {
            io::Error::new(io::ErrorKind::NotFound, format!("no network interface is called {scope:?}"))
        })?,
    };
    Ok(Some(SocketAddrV6::new(address, port, 0, scope_id).into()))
}

#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
fn ask_for(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    // std tells an unknown host from other troubles only in the text of its error
    (host, port).to_socket_addrs().map(Iterator::collect).map_err(|error| match error.raw_os_error() {
        None => io::Error::new(
            io::ErrorKind::NotFound,
            format!("no address is known for the host {host:?}: {error}"),
        ),
        Some(_) => error,
    })
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
use by_getent::ask_for;

#[cfg(any(test, all(target_env = "gnu", target_feature = "crt-static")))]
mod by_getent {
    use super::{SocketAddr, io, parse_literal};
    use crate::getent::{Answer, ask};
    use crate::unit::{Attempt, hint};

    pub(super) fn ask_for(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(match ask("ahosts", host)? {
            Answer::Known(answer) => parse_ahosts(&answer, port),
            Answer::Unknown => Vec::new(),
            Answer::NoService => {
                let known = parse_hosts(&std::fs::read_to_string("/etc/hosts")?, host, port);
                if known.is_empty() {
                    return Err(without_getent(host));
                }
                known
            }
        })
    }

    fn without_getent(host: &str) -> io::Error {
        let hint = hint(Attempt::LookUp, &io::ErrorKind::NotFound.into())
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        let why = format!(
            "no address is known for the host {host:?}: it is not in /etc/hosts, and getent(1), which asks further, can't \
             be run{hint}"
        );
        io::Error::new(io::ErrorKind::NotFound, why)
    }

    /// Parses lines such as `127.0.0.1       STREAM localhost`; one per socket type.
    pub(super) fn parse_ahosts(answer: &str, port: u16) -> Vec<SocketAddr> {
        answer.lines().filter_map(|line| address(line.split_whitespace().next()?, port)).collect()
    }

    /// Finds the addresses of a host in the text of hosts(5).
    pub(super) fn parse_hosts(text: &str, host: &str, port: u16) -> Vec<SocketAddr> {
        let of_line = |line: &str| {
            let line = line.split('#').next()?;
            let mut words = line.split_whitespace();
            let first = words.next()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then(|| address(first, port))?
        };
        text.lines().filter_map(of_line).collect()
    }

    fn address(text: &str, port: u16) -> Option<SocketAddr> {
        parse_literal(text, port).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_need_no_resolver() {
        let of = |host| resolve(host, 7).unwrap()[0].to_string();
        assert_eq!(of("127.0.0.1"), "127.0.0.1:7");
        assert_eq!(of("::1"), "[::1]:7");
        assert_eq!(of("fe80::1%3"), "[fe80::1%3]:7");
        assert!(resolve("fe80::1%no-such-if", 7).unwrap_err().to_string().contains("no-such-if"));
    }

    #[test]
    fn an_unknown_host_is_named() {
        for host in ["no-such-host.invalid", "", "-h", "127.0.0.1%1"] {
            let error = resolve(host, 7).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(&format!("{host:?}")), "{error}");
        }
    }

    #[test]
    fn localhost_is_known_and_each_address_comes_once() {
        let addresses = resolve("localhost", 7).unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        let mut distinct = addresses.clone();
        distinct.dedup();
        assert_eq!(distinct, addresses);
        assert!(!by_getent::ask_for("localhost", 7).unwrap().is_empty());
    }

    #[test]
    fn the_answer_of_ahosts_is_read() {
        let answer = "::1             STREAM localhost\n::1             DGRAM  \nfe80::1%2 RAW\n?\n\n";
        let expected: [SocketAddr; 3] =
            ["[::1]:7", "[::1]:7", "[fe80::1%2]:7"].map(|text| text.parse().unwrap());
        assert_eq!(by_getent::parse_ahosts(answer, 7), expected);
    }

    #[test]
    fn the_hosts_file_is_read() {
        let text = "127.0.0.1 localhost\n# ::2 web\n10.0.0.1\tWeb web.example # x other\n::1 localhost web\nbad web\n";
        let of = |host| by_getent::parse_hosts(text, host, 7);
        assert_eq!(of("web"), ["10.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        assert_eq!(of("WEB.example").len(), 1);
        assert_eq!(of("other"), []);
        assert_eq!(of("10.0.0.1"), []);
    }
}
