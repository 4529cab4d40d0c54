//! What a server asks of the application, and tells it: the methods that one overrides in socketserver.

use std::sync::Arc;
use std::time::Duration;

use super::Server;
use crate::model::HandlerError;
use crate::transport::Peer;

impl Server {
    /// Has this decide whether a client is served, by its address. One that is refused is closed at once, a
    /// datagram gets no answer; either is counted. It is asked once for each, before a child or a thread
    /// is there for it, by the process that accepts: this one, a worker, or a [spare child](Self::spare_children). One
    /// that panics refuses.
    ///
    /// ```
    /// use forkd_server::{Peer, Server};
    /// let server = Server::bind("tcp://0.0.0.0:0")?
    ///     .verify_request(|peer| matches!(peer, Peer::Ip(address) if address.ip().is_loopback()));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn verify_request(mut self, verify: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.verify = Some(Arc::new(verify));
        self
    }

    /// Calls this when a handler has returned an error that is no client's doing, or has panicked. Either
    /// has been logged, if the program has set a logger of the crate [`log`], and costs no other client anything. It is called where it happened: with a model
    /// that forks, in the child.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use forkd_server::{Connection, Handler, Server, Service, model::Model};
    ///
    /// struct Clumsy;
    /// impl Handler for Clumsy {
    ///     fn handle(&mut self, _: &mut Connection<'_>) -> std::io::Result<()> {
    ///         Err(std::io::Error::other("dropped it"))
    ///     }
    /// }
    /// let seen = Arc::new(Mutex::new(String::new()));
    /// let report = Arc::clone(&seen);
    /// let server = Server::bind("tcp://127.0.0.1:0")?
    ///     .model(Model::Iterative)
    ///     .handle_error(move |_, error| *report.lock().unwrap() = error.to_string());
    /// # let address = server.server_address().to_string();
    /// # let _client = std::net::TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// // when one client has come:
    /// server.ready(Service::handler("clumsy", || Clumsy))?.handle_request()?;
    /// assert_eq!(*seen.lock().unwrap(), "dropped it");
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn handle_error(mut self, report: impl Fn(Peer, &HandlerError<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.failed = Some(Arc::new(report));
        self
    }

    /// Calls this in [`serve_forever`](Self::serve_forever) between two waits for clients, and at least every
    /// [`poll_interval`](Self::poll_interval), in this process: where it serves itself, after each request
    /// or whenever it looks for clients; where it is a master, in the master's loop. If it panics, so does
    /// [`serve_forever`](Self::serve_forever).
    ///
    /// ```
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// let handle = server.handle();
    /// let mut ticks = 0;
    /// let server = server.poll_interval(std::time::Duration::from_millis(1)).service_actions(move || {
    ///     ticks += 1;
    ///     if ticks == 3 {
    ///         handle.shutdown();
    ///     }
    /// });
    /// server.serve_forever(Echo)?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn service_actions(mut self, actions: impl FnMut() + Send + 'static) -> Self {
        self.ticker.actions = Some(Box::new(actions));
        self
    }

    /// The longest time between two calls of [`service_actions`](Self::service_actions) while no client comes;
    /// the default is half a second. A [`shutdown`](crate::Handle::shutdown) does not wait for it.
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.poll_interval(Duration::from_secs(5));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.ticker.every = interval.max(Duration::from_millis(1));
        self
    }

    /// How long [`Serving::handle_request`](crate::Serving::handle_request) waits for a client; the default is for ever.
    /// [`serve_forever`](Self::serve_forever) takes no notice of it, as in socketserver.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::{Echo, Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).timeout(Duration::ZERO);
    /// assert!(!server.ready(Echo)?.handle_request()?, "no client is there");
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Calls this when [`Serving::handle_request`](crate::Serving::handle_request) has waited in vain for [`timeout`](Self::timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::{Echo, Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?
    ///     .model(Model::Iterative)
    ///     .timeout(Duration::from_millis(1))
    ///     .handle_timeout(|| println!("still no client"));
    /// server.ready(Echo)?.handle_request()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn handle_timeout(mut self, on_timeout: impl FnMut() + Send + 'static) -> Self {
        self.on_timeout = Some(Box::new(on_timeout));
        self
    }
}
