//! A server that is ready: it serves one request after the other, or all of them.

use std::fmt;
use std::time::{Duration, Instant};

use super::in_process::InProcess;
use crate::Error;
use crate::model::Model;
use crate::model::hooks::Ticker;
use crate::process::master::Master;
use crate::transport::Handle;

/// A server that has its service and is ready to serve; made by [`Server::ready`](crate::Server::ready).
///
/// It is for programs that have a loop of their own. The others call
/// [`Server::serve_forever`](crate::Server::serve_forever).
///
/// When it is dropped its sockets are closed; children of [`Model::Fork`] finish by themselves.
///
/// # Fork safety
///
/// With a model that forks, this process has been made a master of its children, see
/// [`Server`](crate::Server#fork-safety). From here on until this value is dropped it may have no other
/// thread, and signals to it wait for the next call.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use std::time::Duration;
///
/// use forkd_server::{Echo, Server, model::Model};
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).timeout(Duration::from_millis(50));
/// let address = server.server_address().to_string();
/// let mut serving = server.ready(Echo)?;
///
/// let mut client = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
/// client.write_all(b"hello").unwrap();
/// client.shutdown(std::net::Shutdown::Write).unwrap();
/// assert!(serving.handle_request()?, "a client was served");
///
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).unwrap();
/// assert_eq!(answer, "hello");
/// assert!(!serving.handle_request()?, "no client came for 50 ms");
/// # Ok::<(), forkd_server::Error>(())
/// ```
pub struct Serving {
    pub(super) kind: Kind,
    pub(super) model: Model,
    pub(super) handle: Handle,
    /// What the application does between two waits.
    pub(super) ticker: Option<Ticker>,
    pub(super) timeout: Option<Duration>,
    pub(super) on_timeout: Option<Box<dyn FnMut() + Send>>,
    /// It has ended, as it was asked to.
    pub(super) is_over: bool,
}

/// What serves.
pub(super) enum Kind {
    /// This process.
    InProcess(Box<InProcess>),
    /// Its children.
    Master(Box<Master>),
}

impl Serving {
    /// Serves one request, as `handle_request` of socketserver does: waits for a client, for at most
    /// [`timeout`](crate::Server::timeout). Returns whether there was one.
    ///
    /// It returns `false` when no client has come within that time, after a call of
    /// [`handle_timeout`](crate::Server::handle_timeout), and, without such a call, when the server has been
    /// asked to end. So `while serving.handle_request()? {}` serves until it is quiet.
    ///
    /// | model | what one call does |
    /// |---|---|
    /// | [`Fork`](Model::Fork) | forks a child, and doesn't wait for it |
    /// | any other without [`workers`](crate::Server::workers) | serves one connection or datagram to its end |
    /// | a pool of workers | is an error: the workers accept |
    ///
    /// Clients that [`verify_request`](crate::Server::verify_request) refuses don't count.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("udp://127.0.0.1:0")?.model(Model::Iterative).timeout(Duration::from_millis(20));
    /// let address = server.server_address().to_string();
    /// let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    /// client.connect(address.strip_prefix("udp://").unwrap()).unwrap();
    /// for datagram in ["one", "two", "three"] {
    ///     client.send(datagram.as_bytes()).unwrap();
    /// }
    /// let (mut serving, mut count) = (server.ready(Echo)?, 0);
    /// while serving.handle_request()? {
    ///     count += 1;
    /// }
    /// assert_eq!(count, 3);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a pool; otherwise as [`serve_forever`](Self::serve_forever).
    pub fn handle_request(&mut self) -> Result<bool, Error> {
        if self.is_over {
            return Ok(false);
        }
        let until = self.timeout.map(|limit| Instant::now() + limit);
        let served = match &mut self.kind {
            Kind::InProcess(in_process) => in_process.serve_one(until)?,
            Kind::Master(_) if self.model != Model::Fork => return Err(self.no_single()),
            Kind::Master(master) => {
                let served = master.serve_one(until)?;
                self.is_over = master.is_over();
                served
            }
        };
        self.is_over |= self.handle.is_shut_down();
        if !served
            && !self.is_over
            && let Some(on_timeout) = &mut self.on_timeout
        {
            on_timeout();
        }
        Ok(served)
    }

    fn no_single(&self) -> Error {
        Error::Usage(format!(
            "handle_request is not for a pool of workers, which accept by themselves: choose fork, or {} without \
             workers",
            if self.model == Model::Prefork { Model::Iterative } else { self.model }
        ))
    }

    /// What ends this server, as [`Server::handle`](crate::Server::handle).
    ///
    /// ```
    /// use forkd_server::{Echo, Server, model::Model};
    /// let mut serving = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).ready(Echo)?;
    /// serving.handle().shutdown();
    /// assert!(!serving.handle_request()?);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until it is asked to end; see [`Server::serve_forever`](crate::Server::serve_forever).
    ///
    /// ```
    /// use forkd_server::{Echo, Server, model::Model};
    /// let mut serving = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).ready(Echo)?;
    /// let handle = serving.handle();
    /// std::thread::spawn(move || handle.shutdown());
    /// serving.serve_forever()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Server::serve_forever`](crate::Server::serve_forever).
    pub fn serve_forever(&mut self) -> Result<(), Error> {
        if self.is_over {
            return Ok(());
        }
        self.is_over = true;
        match &mut self.kind {
            Kind::InProcess(in_process) => in_process.serve_forever(self.ticker.take().unwrap_or_default()),
            Kind::Master(master) => master.serve(),
        }
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("model", &self.model)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}
