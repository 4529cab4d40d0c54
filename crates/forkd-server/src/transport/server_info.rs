//! What a handler can know of its server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Endpoint, Handle, Outboxes};

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
    /// What a master says to its children: not 0 once they are to finish.
    stopping: Option<&'static AtomicU32>,
    /// Of the connections of this process whose threads or coroutines are to be told of a stop.
    outboxes: Arc<Outboxes>,
}

impl ServerInfo {
    pub(crate) fn new(
        endpoint: Endpoint,
        service: &str,
        model: &'static str,
        handle: Option<Handle>,
    ) -> Self {
        Self { endpoint, service: service.into(), model, handle, stopping: None, outboxes: Arc::default() }
    }

    /// The same, of which a master says here when its children are to finish.
    pub(crate) fn stopped_by(self, stopping: &'static AtomicU32) -> Self {
        Self { stopping: Some(stopping), ..self }
    }

    /// Those of this process's connections that are told of a stop.
    pub(crate) fn outboxes(&self) -> &Outboxes {
        &self.outboxes
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

    /// Whether the server has begun to end, so that it takes no further client, and connections have
    /// [`grace`](crate::Server::grace) to finish. That is so in children, too, and whatever the server was asked to end by;
    /// that a worker is replaced, or the configuration of a daemon, is no end of the server.
    ///
    /// A handler that waits for its client hears of it if it asks now and then; see
    /// [`Connection::set_read_timeout`](crate::Connection::set_read_timeout), which has an example.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some_and(|stopping| stopping.load(Ordering::Relaxed) != 0)
            || self.handle.as_ref().is_some_and(Handle::is_shut_down)
    }

    /// Asks the server to end, as [`Handle::shutdown`] does; also from a forked child.
    pub fn shutdown(&self) {
        if let Some(handle) = &self.handle {
            handle.shutdown();
        }
    }
}
