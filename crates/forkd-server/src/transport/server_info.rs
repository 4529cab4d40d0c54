//! What a handler can know of its server.

use super::{Endpoint, Handle};

/// The server that a connection came to, as its handler sees it: `self.server` of Python's
/// socketserver. See [`Connection::server`](super::Connection::server).
///
/// What handlers share beyond that is captured by the closure that makes them.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use forkd_server::{Connection, Handler};
///
/// /// Says its name, and ends the server.
/// struct LastWords;
/// impl Handler for LastWords {
///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         let server = connection.server();
///         writeln!(&*connection, "{} at {}, {}", server.service(), server.endpoint(), server.model())?;
///         server.shutdown();
///         Ok(())
///     }
/// }
/// # use std::io::Read;
/// # use forkd_server::{Server, Service, model::Model};
/// # let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
/// # let endpoint = server.server_address().to_string();
/// # let address = endpoint.strip_prefix("tcp://").unwrap();
/// # let mut client = std::net::TcpStream::connect(address).unwrap();
/// # server.serve_forever(Service::handler("last-words", || LastWords))?;
/// # let mut heard = String::new();
/// # client.read_to_string(&mut heard).unwrap();
/// # assert_eq!(heard, format!("last-words at {endpoint}, iterative\n"));
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerInfo {
    endpoint: Endpoint,
    service: String,
    model: &'static str,
    /// The daemon's own services don't end it.
    handle: Option<Handle>,
}

impl ServerInfo {
    pub(crate) fn new(
        endpoint: Endpoint,
        service: &str,
        model: &'static str,
        handle: Option<Handle>,
    ) -> Self {
        Self { endpoint, service: service.into(), model, handle }
    }

    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        Self::new(Endpoint::Systemd(None), "test", "iterative", None)
    }

    /// The endpoint that the client has reached, with the port that the kernel chose.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The name of the service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The name of the model, such as `fork`.
    #[must_use]
    pub fn model(&self) -> &'static str {
        self.model
    }

    /// Asks the server to end, as [`Handle::shutdown`] does; also from a forked child.
    pub fn shutdown(&self) {
        if let Some(handle) = &self.handle {
            handle.shutdown();
        }
    }
}
