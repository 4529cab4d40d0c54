//! Where requests come from, as a person writes it: `tcp://127.0.0.1:7`, `unix:///run/echo.sock`,
//! `systemd:echo`.
//!
//! Invariant: parsing looks at the text alone. A host may be a name and a path may be absent;
//! binding finds out. What parses is displayed such that it parses to the same endpoint.

mod meant;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path of a socket file in bytes: `sun_path` of unix(7) without its closing NUL.
const MAX_PATH: usize = 107;

/// An address to serve.
///
/// ```
/// use forkd_net::Endpoint;
/// let endpoint: Endpoint = "tcp://[::]:7007".parse()?;
/// assert_eq!(endpoint, Endpoint::Tcp { host: "::".into(), port: 7007 });
/// assert_eq!(endpoint.to_string(), "tcp://[::]:7007");
/// # Ok::<(), forkd_net::ParseEndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP listener.
    Tcp {
        /// A name or an address; IPv6 without brackets, and with its interface if it is link-local:
        /// `fe80::1%eth0`.
        host: String,
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// A UDP socket.
    Udp {
        /// A name or an address, as for TCP.
        host: String,
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// A Unix stream listener at an absolute path of at most 107 bytes.
    Unix(PathBuf),
    /// A Unix datagram socket at an absolute path of at most 107 bytes.
    Unixgram(PathBuf),
    /// The sockets that a service manager handed over under this name (`FileDescriptorName=` in
    /// systemd.socket(5)), or `None`: all of them, written `systemd:*`. Which kind they are, the
    /// sockets themselves tell.
    Systemd(Option<String>),
}

impl Endpoint {
    /// Returns the name or address, without brackets, if it has one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } | Self::Udp { host, .. } => Some(host),
            Self::Unix(_) | Self::Unixgram(_) | Self::Systemd(_) => None,
        }
    }

    /// Returns the port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } | Self::Udp { port, .. } => Some(*port),
            Self::Unix(_) | Self::Unixgram(_) | Self::Systemd(_) => None,
        }
    }

    /// Tells whether the two, in one group, get the same port from the kernel: a client that knows the one knows
    /// the other.
    pub fn shares_port_with(&self, other: &Self) -> bool {
        self.port() == Some(0)
            && other.port() == Some(0)
            && self.host() == other.host()
            && self.is_datagram() != other.is_datagram()
    }

    /// Tells whether its host is an IPv6 address.
    pub fn is_ipv6(&self) -> bool {
        self.host().is_some_and(|host| host.contains(':'))
    }

    /// Tells whether each request is known to be a datagram of its own, without a connection.
    ///
    /// ```
    /// use forkd_net::Endpoint;
    /// assert!("udp://127.0.0.1:7".parse::<Endpoint>()?.is_datagram());
    /// assert!(!"tcp://127.0.0.1:7".parse::<Endpoint>()?.is_datagram());
    /// # Ok::<(), forkd_net::ParseEndpointError>(())
    /// ```
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp { .. } | Self::Unixgram(_))
    }

    /// Returns the path of the socket file, if the endpoint has one.
    ///
    /// ```
    /// use std::path::Path;
    /// use forkd_net::Endpoint;
    /// assert_eq!("unix:///run/echo".parse::<Endpoint>()?.path(), Some(Path::new("/run/echo")));
    /// assert_eq!("tcp://127.0.0.1:7".parse::<Endpoint>()?.path(), None);
    /// # Ok::<(), forkd_net::ParseEndpointError>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::Unixgram(path) => Some(path),
            Self::Tcp { .. } | Self::Udp { .. } | Self::Systemd(_) => None,
        }
    }

    /// Tells whether the socket comes from a service manager, ready made.
    ///
    /// ```
    /// use forkd_net::Endpoint;
    /// assert!("systemd:echo".parse::<Endpoint>()?.is_inherited());
    /// # Ok::<(), forkd_net::ParseEndpointError>(())
    /// ```
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        matches!(self, Self::Systemd(_))
    }

    /// Tells whether only one of the two can be bound. Two ports 0 are two different ports, and a
    /// stream and a datagram socket can't share a file.
    ///
    /// ```
    /// use forkd_net::Endpoint;
    /// let endpoint = |text: &str| text.parse::<Endpoint>();
    /// assert!(endpoint("unix:///run/echo")?.collides_with(&endpoint("unixgram:///run/echo")?));
    /// assert!(!endpoint("tcp://[::1]:7")?.collides_with(&endpoint("udp://[::1]:7")?));
    /// assert!(!endpoint("tcp://[::1]:0")?.collides_with(&endpoint("tcp://[::1]:0")?));
    /// # Ok::<(), forkd_net::ParseEndpointError>(())
    /// ```
    #[must_use]
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { port: 0, .. }, _) | (Self::Udp { port: 0, .. }, _) => false,
            (Self::Systemd(one), Self::Systemd(other)) => one == other || one.is_none() || other.is_none(),
            _ => self == other || self.path().is_some_and(|path| other.path() == Some(path)),
        }
    }
}

/// Why a text is no endpoint; the sentence names the text and the allowed forms.
///
/// ```
/// let error = "http://localhost".parse::<forkd_net::Endpoint>().unwrap_err();
/// assert!(error.to_string().starts_with(r#"endpoint "http://localhost" has an unknown scheme; write tcp://"#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseEndpointError {
    input: String,
    why: &'static str,
}

impl fmt::Display for ParseEndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, why } = self;
        write!(f, "endpoint {input:?} {why}; write {}", meant::advice(input))
    }
}

impl std::error::Error for ParseEndpointError {}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        parse(input).map_err(|why| ParseEndpointError { input: input.to_owned(), why })
    }
}

fn parse(input: &str) -> Result<Endpoint, &'static str> {
    if let Some(name) = input.strip_prefix("systemd:") {
        return descriptor_name(name).map(Endpoint::Systemd);
    }
    match input.split_once("://") {
        Some(("tcp", rest)) => host_and_port(rest).map(|(host, port)| Endpoint::Tcp { host, port }),
        Some(("udp", rest)) => host_and_port(rest).map(|(host, port)| Endpoint::Udp { host, port }),
        Some(("unix", rest)) => socket_path(rest).map(Endpoint::Unix),
        Some(("unixgram", rest)) => socket_path(rest).map(Endpoint::Unixgram),
        Some(_) => Err("has an unknown scheme"),
        None => Err("has no scheme"),
    }
}

fn host_and_port(rest: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']').ok_or("has no closing bracket")?;
            let (address, scope) = host.split_once('%').map_or((host, None), |(a, scope)| (a, Some(scope)));
            address.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address between its brackets")?;
            scope.map_or(Ok(()), check_scope)?;
            (host, tail.strip_prefix(':').ok_or("has no port")?)
        }
        None => {
            let (host, port) = rest.rsplit_once(':').ok_or("has no port")?;
            check_host(host)?;
            (host, port)
        }
    };
    match port {
        "" => Err("has no port"),
        // the parser of integers would take a sign
        _ if !port.bytes().all(|b| b.is_ascii_digit()) => Err("has a port that is not a number"),
        _ => Ok((host.to_owned(), port.parse().map_err(|_| "has a port above 65535")?)),
    }
}

/// The network interface of an address that is no address without one, by name or number (RFC 4007).
fn check_scope(scope: &str) -> Result<(), &'static str> {
    let is_name = |b: u8| b.is_ascii_graphic() && !b"/%[]".contains(&b);
    match scope {
        "" => Err("has no interface after its %"),
        _ if scope.bytes().all(is_name) => Ok(()),
        _ => Err("has an interface after its % that no interface can be called"),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    match host {
        "" => Err("has no host (0.0.0.0 or [::] stands for every address)"),
        _ if host.contains(':') => Err("has an IPv6 address without brackets"),
        "*" => Err("has the host * (0.0.0.0 or [::] stands for every address)"),
        _ if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => Ok(()),
        _ => Err("has a host that is neither a name nor an address"),
    }
}

/// The rule of sd_listen_fds(3), and nothing that looks like one of the other endpoints.
fn descriptor_name(name: &str) -> Result<Option<String>, &'static str> {
    match name {
        "*" => Ok(None),
        "" => Err("has no name (systemd:* stands for all sockets that were handed over)"),
        _ if name.starts_with("//") => Err("has slashes before its name"),
        _ if name.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b':') => Ok(Some(name.to_owned())),
        _ => Err("has a name that no socket can have"),
    }
}

fn socket_path(rest: &str) -> Result<PathBuf, &'static str> {
    match rest {
        _ if !rest.starts_with('/') => Err("has a path that does not start at / (with three slashes in all)"),
        _ if rest.ends_with('/') => Err("has a path that names a directory"),
        _ if rest.len() > MAX_PATH => Err("has a path longer than 107 bytes, the most a socket can have"),
        _ if rest.contains('\0') => Err("has a NUL in its path"),
        _ => Ok(rest.into()),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Udp { host, port } => ("udp", host, port),
            Self::Unix(path) => return write!(f, "unix://{}", path.display()),
            Self::Unixgram(path) => return write!(f, "unixgram://{}", path.display()),
            Self::Systemd(name) => return write!(f, "systemd:{}", name.as_deref().unwrap_or("*")),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn reads_each_form() {
        assert_eq!(endpoint("tcp://localhost:0"), Endpoint::Tcp { host: "localhost".into(), port: 0 });
        assert_eq!(endpoint("udp://[::1]:7"), Endpoint::Udp { host: "::1".into(), port: 7 });
        assert_eq!(
            endpoint("tcp://[fe80::1%eth0]:7"),
            Endpoint::Tcp { host: "fe80::1%eth0".into(), port: 7 }
        );
        assert_eq!(endpoint("unix:///run/a b.sock"), Endpoint::Unix("/run/a b.sock".into()));
        assert_eq!(endpoint("unixgram:///x"), Endpoint::Unixgram("/x".into()));
        assert_eq!(endpoint("systemd:forkd.socket"), Endpoint::Systemd(Some("forkd.socket".into())));
        assert_eq!(endpoint("systemd:*"), Endpoint::Systemd(None));
        assert!(endpoint("udp://a:1").is_datagram() && endpoint("unixgram:///x").is_datagram());
        assert!(!endpoint("tcp://a:1").is_datagram() && !endpoint("unix:///x").is_datagram());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("", "has no scheme"),
            ("localhost:7", "has no scheme"),
            ("TCP://a:7", "has an unknown scheme"),
            ("tcp://:7", "has no host"),
            ("tcp://", "has no port"),
            ("tcp://a", "has no port"),
            ("tcp://a:", "has no port"),
            ("tcp://[::1]", "has no port"),
            ("tcp://a:+7", "has a port that is not a number"),
            ("tcp://a:7/", "has a port that is not a number"),
            ("tcp://a:65536", "has a port above 65535"),
            ("tcp://::1:7", "has an IPv6 address without brackets"),
            ("tcp://[::1:7", "has no closing bracket"),
            ("tcp://[]:7", "has no IPv6 address between its brackets"),
            ("tcp://[127.0.0.1]:7", "has no IPv6 address between its brackets"),
            ("tcp://[fe80::1%]:7", "has no interface after its %"),
            ("tcp://[fe80::1%a b]:7", "has an interface after its % that no interface"),
            ("tcp://[%eth0]:7", "has no IPv6 address between its brackets"),
            ("tcp://*:7", "has the host *"),
            ("tcp://a b:7", "has a host that is neither"),
            ("unix://run/x", "has a path that does not start at /"),
            ("unix:///\0", "has a NUL in its path"),
            ("unix:///", "has a path that names a directory"),
            ("unixgram:///run/", "has a path that names a directory"),
            ("systemd:", "has no name"),
            ("systemd://echo", "has slashes before its name"),
            ("systemd:a:b", "has a name that no socket can have"),
            ("systemd:\u{e9}", "has a name that no socket can have"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("endpoint {text:?} {why}")), "{error}");
            assert!(error.contains("; write ") && !error.ends_with("; write "), "{error}");
        }
    }

    #[test]
    fn a_path_has_at_most_107_bytes() {
        let text = |length: usize| format!("unix:///{}", "x".repeat(length - 1));
        assert!(text(107).parse::<Endpoint>().is_ok());
        assert!(text(108).parse::<Endpoint>().unwrap_err().to_string().contains("longer than 107 bytes"));
    }

    #[test]
    fn what_collides() {
        let collide = |a, b| endpoint(a).collides_with(&endpoint(b));
        assert!(collide("tcp://a:1", "tcp://a:1"));
        assert!(collide("unix:///x", "unixgram:///x"));
        assert!(!collide("tcp://a:1", "udp://a:1"));
        assert!(!collide("tcp://a:0", "tcp://a:0"));
        assert!(!collide("udp://a:0", "udp://a:0"));
        assert!(!collide("unix:///x", "unix:///y"));
        assert!(collide("systemd:a", "systemd:a") && collide("systemd:a", "systemd:*"));
        assert!(!collide("systemd:a", "systemd:b") && !collide("systemd:*", "tcp://a:1"));
    }

    fn any_endpoint() -> impl Strategy<Value = Endpoint> {
        let host = || {
            prop_oneof![
                "[a-zA-Z0-9._-]{1,40}",
                (any::<Ipv6Addr>(), "(%[!-$&-.0-Z^-~]{1,15})?")
                    .prop_map(|(ip, scope)| format!("{ip}{scope}")),
            ]
        };
        let path = || "/[^\0]{0,25}[^\0/]".prop_map(PathBuf::from); // a char has up to four bytes
        prop_oneof![
            (host(), any::<u16>()).prop_map(|(host, port)| Endpoint::Tcp { host, port }),
            (host(), any::<u16>()).prop_map(|(host, port)| Endpoint::Udp { host, port }),
            path().prop_map(Endpoint::Unix),
            path().prop_map(Endpoint::Unixgram),
            "[ -)+-.0-9;-~][ -9;-~]{0,30}".prop_map(|name| Endpoint::Systemd(Some(name))),
            Just(Endpoint::Systemd(None)),
        ]
    }

    proptest! {
        #[test]
        fn displays_what_it_parses(endpoint in any_endpoint()) {
            prop_assert_eq!(&endpoint.to_string().parse::<Endpoint>().unwrap(), &endpoint);
            #[cfg(feature = "serde")]
            {
                let json = serde_json::to_string(&endpoint).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Endpoint>(&json).unwrap(), &endpoint);
            }
        }

        #[test]
        fn never_panics(text in "((tcp|udp|unix|unixgram)://|systemd:)?\\PC*") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string(), text.clone());
            }
        }
    }
}
