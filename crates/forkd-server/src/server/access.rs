//! Which clients are served, by where they come from.

use super::Server;
use crate::Error;
use crate::access::rules::Rule;

impl Server {
    /// Serves clients of this network, such as `192.0.2.0/24` or `2001:db8::1`, and no others but those of further calls;
    /// or clients of a Unix socket whose process has this user or group, `uid:1000` or `gid:100`.
    ///
    /// The most specific rule decides, whether it allows or [denies](Self::deny): the longest prefix of an address; a
    /// user before a group. A client that is not served is refused before a child or a thread is there for it: its TCP
    /// connection is reset, a datagram gets no answer, and either is counted.
    ///
    /// ```
    /// use forkd_server::Server;
    /// let server = Server::bind("tcp://127.0.0.1:0")?.allow("127.0.0.0/8")?.deny("127.0.0.3")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no network, user or group. Names of hosts and interfaces are none.
    pub fn allow(self, sources: &str) -> Result<Self, Error> {
        self.rule(sources, true)
    }

    /// Serves no clients of this network, user or group; see [`allow`](Self::allow).
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    ///
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).deny("127.0.0.0/8")?;
    /// let address = server.server_address().to_string();
    /// let mut client = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// let served = server.timeout(Duration::from_millis(50)).ready(Echo)?.handle_request()?;
    /// assert!(!served);
    /// assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`allow`](Self::allow).
    pub fn deny(self, sources: &str) -> Result<Self, Error> {
        self.rule(sources, false)
    }

    /// Serves so many connections of one source at once, or datagrams in work, and refuses more, as one that is
    /// [denied](Self::deny); 0 counts as 1. A source is an address of IPv4, a network of 64 bits of IPv6, or a user of a Unix
    /// socket. The limit holds over all processes and threads of the server, for each of its listening sockets.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::net::TcpStream;
    ///
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).max_per_source(2);
    /// let (address, handle) = (server.server_address().to_string(), server.handle());
    /// let serving = std::thread::spawn(move || server.serve_forever(Echo));
    /// let connect = || TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// let (served, mut third) = ([connect(), connect()], connect());
    /// assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    /// drop(served);
    /// handle.shutdown();
    /// serving.join().unwrap()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_per_source(mut self, clients: u16) -> Self {
        self.access.max_per_source = Some(clients.max(1));
        self
    }

    fn rule(mut self, sources: &str, allowed: bool) -> Result<Self, Error> {
        let rule: Rule = sources.parse().map_err(Error::Usage)?;
        self.access.rules.add(rule, allowed);
        Ok(self)
    }
}
