//! Which clients are served, by where they come from.

use super::Server;
use crate::Error;
use crate::access::ProxySpec;
use crate::access::penalty::Penalty;
use crate::access::rules::{Rule, Rules};
use crate::transport::ProxyVersion;

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

    /// Takes clients from proxies, which say whose a connection is by this version of the PROXY protocol; what comes from
    /// elsewhere, or without such a header, is refused. [`allow`](Self::allow), [`deny`](Self::deny) and
    /// [`Connection::peer`](crate::Connection::peer) go by the client that the header names, and by the proxy where it names
    /// none, as for its own health checks.
    ///
    /// A header that has not come within 5 s, that is longer than 4 KiB or broken ends the connection.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    ///
    /// use forkd_server::transport::ProxyVersion;
    /// use forkd_server::{Connection, Handler, Server, Service, model::Model};
    ///
    /// struct WhoAmI;
    /// impl Handler for WhoAmI {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         write!(&*connection, "{}", connection.peer())
    ///     }
    /// }
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// let server = server.proxy(ProxyVersion::Any, ["127.0.0.1"])?;
    /// let address = server.server_address().to_string();
    /// let mut client = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n").unwrap();
    /// server.ready(Service::handler("whoami", || WhoAmI))?.handle_request()?;
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer).unwrap();
    /// assert_eq!(answer, "192.0.2.7:4711");
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a source is no network, user or group, or there is none.
    pub fn proxy<'s>(
        mut self,
        version: ProxyVersion,
        from: impl IntoIterator<Item = &'s str>,
    ) -> Result<Self, Error> {
        let from: Vec<Rule> =
            from.into_iter().map(|source| source.parse().map_err(Error::Usage)).collect::<Result<_, _>>()?;
        if from.is_empty() {
            return Err(Error::Usage("no proxy is named, and each client would be believed".to_owned()));
        }
        self.access.proxy = Some(ProxySpec { version, from: Rules::new(from, []) });
        Ok(self)
    }

    /// Serves clients no more often than at this rate, such as `100/s`, `600/m` or `10/s:50`, where 50 may come at once;
    /// more wait in the queue. It holds over all processes of the server, for each of its listening sockets; those that
    /// wait in accept(2) already may all get a client before the next one waits.
    ///
    /// ```
    /// use forkd_server::Server;
    /// let server = Server::bind("tcp://127.0.0.1:0")?.rate("100/s")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no rate.
    pub fn rate(mut self, rate: &str) -> Result<Self, Error> {
        self.access.rate = Some(rate.parse().map_err(Error::Usage)?);
        Ok(self)
    }

    /// The same for clients of each [source](Self::max_per_source), of whom more are refused.
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use std::time::Duration;
    ///
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("udp://127.0.0.1:0")?.model(Model::Iterative).rate_per_source("1/h:2")?;
    /// let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    /// client.connect(server.server_address().to_string().strip_prefix("udp://").unwrap()).unwrap();
    /// (0..9).for_each(|_| _ = client.send(b"hello").unwrap());
    /// let mut serving = server.timeout(Duration::from_millis(50)).ready(Echo)?;
    /// while serving.handle_request()? {}
    /// client.set_nonblocking(true).unwrap();
    /// assert_eq!((0..9).filter(|_| client.recv(&mut [0; 9]).is_ok()).count(), 2);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`rate`](Self::rate).
    pub fn rate_per_source(mut self, rate: &str) -> Result<Self, Error> {
        self.access.rate_per_source = Some(rate.parse().map_err(Error::Usage)?);
        Ok(self)
    }

    /// Refuses new connections while many others have not completed their first exchange, such as `10:30:100`: from 10 of
    /// them on 30 % are refused, then more and more, and from 100 on all, as by sshd's MaxStartups. It holds over all
    /// processes of the server, for each of its listening sockets; datagrams have no such exchange.
    ///
    /// The exchange is complete when the service sends something; of [`Discard`](crate::service::Discard), which sends
    /// nothing, when the client has. A handler that only reads completes none: it has to do without the rule.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    /// use std::net::TcpStream;
    ///
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).early_drop("1:100:1")?;
    /// let (address, handle) = (server.server_address().to_string(), server.handle());
    /// let serving = std::thread::spawn(move || server.serve_forever(Echo));
    /// let connect = || TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// let (mut silent, mut second) = (connect(), connect());
    /// assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    /// silent.write_all(b"hello").unwrap();
    /// silent.read_exact(&mut [0; 5]).unwrap();
    /// let mut third = connect();
    /// third.write_all(b"hello").unwrap();
    /// third.read_exact(&mut [0; 5]).unwrap();
    /// drop((silent, third));
    /// handle.shutdown();
    /// serving.join().unwrap()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no such rule.
    pub fn early_drop(mut self, rule: &str) -> Result<Self, Error> {
        self.access.early_drop = Some(rule.parse().map_err(Error::Usage)?);
        Ok(self)
    }

    /// Refuses a [source](Self::max_per_source) for a while after one of its connections has done this, such as
    /// `timeout=1m`: `timeout`, one that was cut for its silence or age; `unread`, one that did not read; `protocol`, one
    /// that broke the protocol of http; `crash`, one whose handler panicked or whose process crashed; `rate`, one that was
    /// refused as one too many of its source, or too soon. Each time that follows costs twice as much as the one before,
    /// up to 16 times; a source that was good for as long begins anew. Datagrams, whose source can be forged, cost nothing.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::net::TcpStream;
    ///
    /// use forkd_server::{Connection, Handler, Server, Service, model::Model};
    ///
    /// struct Fragile;
    /// impl Handler for Fragile {
    ///     fn handle(&mut self, _: &mut Connection<'_>) -> std::io::Result<()> {
    ///         std::panic::resume_unwind(Box::new("as was wished"));
    ///     }
    /// }
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).penalty("crash=1h")?;
    /// let server = server.timeout(std::time::Duration::from_millis(50));
    /// let address = server.server_address().to_string();
    /// let connect = || TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// let mut server = server.ready(Service::handler("fragile", || Fragile))?;
    /// let _crashes = connect();
    /// server.handle_request()?;
    /// let mut refused = connect();
    /// assert!(!server.handle_request()?);
    /// assert_eq!(refused.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no cause with a duration.
    pub fn penalty(mut self, penalty: &str) -> Result<Self, Error> {
        let penalty: Penalty = penalty.parse().map_err(Error::Usage)?;
        self.access.penalties.add(penalty);
        Ok(self)
    }

    /// Never penalises clients of this network, user or group, as [`allow`](Self::allow) has them.
    ///
    /// ```
    /// use forkd_server::Server;
    /// let server = Server::bind("tcp://127.0.0.1:0")?.penalty("timeout=1m")?.penalty_exempt("127.0.0.0/8")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`allow`](Self::allow).
    pub fn penalty_exempt(mut self, sources: &str) -> Result<Self, Error> {
        let rule: Rule = sources.parse().map_err(Error::Usage)?;
        self.access.penalties.exempt().add(rule, true);
        Ok(self)
    }

    fn rule(mut self, sources: &str, allowed: bool) -> Result<Self, Error> {
        let rule: Rule = sources.parse().map_err(Error::Usage)?;
        self.access.rules.add(rule, allowed);
        Ok(self)
    }
}
