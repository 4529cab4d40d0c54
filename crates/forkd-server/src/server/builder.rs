//! What must be said before a socket is bound.

use crate::Error;
use crate::server::Server;
use crate::transport::bind::{BindOptions, bind_all};
use crate::transport::{Endpoint, Handle, Inherited};

/// How the sockets of a [`Server`] are to be bound: what socketserver's classes have as attributes, because
/// it must be known before. See [`Server::builder`].
///
/// # Examples
///
/// Two servers that share a port, as two processes could:
///
/// ```
/// use forkd_server::Server;
///
/// let builder = Server::builder().allow_reuse_port(true).request_queue_size(16);
/// let one = builder.bind("tcp://127.0.0.1:0")?;
/// let other = builder.bind(&one.server_address().to_string())?;
/// assert_eq!(one.server_address(), other.server_address());
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Builder(BindOptions);

impl Builder {
    /// How many connections the kernel queues until they are accepted (listen(2)); the default is 4096,
    /// and the system may have a limit of its own (`net.core.somaxconn`). Datagrams have no such queue.
    ///
    /// ```
    /// let server = forkd_server::Server::builder().request_queue_size(5).bind("tcp://127.0.0.1:0")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn request_queue_size(mut self, connections: u32) -> Self {
        self.0.backlog = connections.max(1);
        self
    }

    /// Whether a TCP port can be bound while connections of an earlier server linger on it
    /// (socket(7), `SO_REUSEADDR`); the default is yes, other than socketserver's. It has no effect on UDP,
    /// where a second server would take the first one's datagrams.
    ///
    /// ```
    /// let server = forkd_server::Server::builder().allow_reuse_address(false).bind("tcp://127.0.0.1:0")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn allow_reuse_address(mut self, allow: bool) -> Self {
        self.0.reuse_address = allow;
        self
    }

    /// Whether other servers of the same user, if they say so too, can bind the same TCP or UDP port and
    /// get a part of its clients (socket(7), `SO_REUSEPORT`); the default is no.
    ///
    /// ```
    /// let builder = forkd_server::Server::builder().allow_reuse_port(true);
    /// let one = builder.bind("udp://127.0.0.1:0")?;
    /// let other = builder.bind(&one.server_address().to_string())?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn allow_reuse_port(mut self, allow: bool) -> Self {
        self.0.reuse_port = allow;
        self
    }

    /// Whether a wildcard IPv6 address, `[::]`, leaves IPv4 alone; the default is no (ipv6(7),
    /// `IPV6_V6ONLY`).
    ///
    /// ```no_run
    /// // both can have the port, which `[::]` alone would take for both
    /// let v6 = forkd_server::Server::builder().v6only(true).bind("tcp://[::]:7007")?;
    /// let v4 = forkd_server::Server::bind("tcp://0.0.0.0:7007")?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn v6only(mut self, v6only: bool) -> Self {
        self.0.v6only = v6only;
        self
    }

    /// Binds the endpoint, see [`Server::bind`].
    ///
    /// # Errors
    ///
    /// As [`Server::bind`].
    ///
    /// # Examples
    ///
    /// ```
    /// let server = forkd_server::Server::builder().bind("udp://127.0.0.1:0")?;
    /// assert!(server.server_address().is_datagram());
    /// assert!(forkd_server::Server::builder().bind("127.0.0.1:0").is_err(), "an endpoint has a scheme");
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn bind(self, endpoint: &str) -> Result<Server, Error> {
        let asked: Endpoint = endpoint.parse().map_err(|e| Error::Usage(format!("{e}")))?;
        let listeners = bind_all(&asked, self.0, &[], &Inherited::default())?;
        let handle = Handle::new()
            .map_err(|cause| Error::os("cannot make the server's shutdown descriptor", cause))?;
        Ok(Server::new(listeners, handle))
    }
}
