//! What is done with the bytes.
//!
//! There are two ways to be called: a [`Protocol`] is handed bytes and answers, and never blocks;
//! a [`Handler`] reads and writes a [`Connection`] itself, as in Python's socketserver. A
//! [`Service`] is one or the other, with a name, and makes a new one for each connection.

mod ack;
mod builtin;
mod chargen;
mod clock;
mod discard;
mod driven;
mod echo;
mod handler;
mod menu;
mod messages;
mod protocol;

use std::io;
use std::sync::Arc;

pub use ack::Ack;
pub use builtin::{Builtin, Settings};
pub use chargen::Chargen;
pub use clock::Clock;
pub use discard::Discard;
pub use echo::Echo;
pub use handler::Handler;
pub use menu::{Menu, Texts};
pub use messages::Framing;
pub use protocol::{Protocol, Reply};

use crate::transport::{Connection, Peer, Traffic};

/// A named service: what a server does for each connection and each datagram.
///
/// Cloning is cheap and shares the maker.
///
/// # Fork safety
///
/// The maker runs in the child that serves, never in the master. What it captures is the child's
/// own copy: a change to it is seen by no other process.
///
/// # Examples
///
/// ```
/// use forkd::{Protocol, Reply, Service};
///
/// /// Answers each message with its length.
/// struct Length(String);
/// impl Protocol for Length {
///     fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
///         self.0 = format!("{}\n", input.len());
///         Reply::Send(self.0.as_bytes())
///     }
/// }
/// let service = Service::protocol("length", || Length(String::new()));
/// assert_eq!(service.name(), "length");
/// ```
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    maker: Maker,
    amplifies: bool,
}

#[derive(Clone)]
enum Maker {
    /// Known from the type, so that nothing need be made or called for it.
    Echo,
    Protocol(Arc<dyn Fn() -> Box<dyn Protocol> + Send + Sync>),
    Handler(Arc<dyn Fn() -> Box<dyn Handler> + Send + Sync>),
}

/// Sends one answer to a datagram.
pub(crate) type SendAnswer<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

impl Service {
    /// A service whose connections are each served by a [`Protocol`] of their own.
    pub fn protocol<P: Protocol + 'static>(
        name: &'static str,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        let maker =
            if P::echoes() { Maker::Echo } else { Maker::Protocol(Arc::new(move || Box::new(make()))) };
        Self { name, maker, amplifies: false }
    }

    /// A service whose connections are each served by a [`Handler`] of their own.
    pub fn handler<H: Handler + 'static>(
        name: &'static str,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        Self { name, maker: Maker::Handler(Arc::new(move || Box::new(make()))), amplifies: false }
    }

    /// The same service, which answers a datagram with more bytes than it has.
    fn amplifying(self) -> Self {
        Self { amplifies: true, ..self }
    }

    /// Whether its answer to a datagram has more bytes than that, so that whoever forges a sender's
    /// address could have it flood others.
    #[must_use]
    pub fn amplifies(&self) -> bool {
        self.amplifies
    }

    /// The name, as the `listening` line and `forkd status` show it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Serves a stream until it ends, one way or another.
    // as `serve_connection`
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        match &self.maker {
            Maker::Echo => connection.echo(),
            Maker::Protocol(make) => driven::drive(&mut *make(), connection),
            Maker::Handler(make) => handler::run(&mut *make(), connection),
        }
    }

    /// Whether all goes back as it came, so that nobody need be asked.
    pub(crate) fn echoes(&self) -> bool {
        matches!(self.maker, Maker::Echo)
    }

    /// Whether it is a [`Handler`], which may wait while it serves.
    pub(crate) fn is_handler(&self) -> bool {
        matches!(self.maker, Maker::Handler(_))
    }

    /// Calls `send` with the answer to a datagram, if there is one.
    pub(crate) fn answer(
        &self,
        payload: &[u8],
        peer: Peer,
        traffic: &Traffic,
        send: &mut SendAnswer<'_>,
    ) -> io::Result<()> {
        match &self.maker {
            Maker::Echo => send(payload),
            Maker::Protocol(make) => match make().datagram(payload) {
                Reply::Wait | Reply::File(_) => Ok(()),
                Reply::Send(answer) | Reply::More(answer) | Reply::Finish(answer) => send(answer),
            },
            Maker::Handler(make) => {
                let mut connection = Connection::datagram(payload, peer, traffic);
                handler::run(&mut *make(), &mut connection)?;
                match connection.into_answer() {
                    answer if answer.is_empty() => Ok(()),
                    answer => send(&answer),
                }
            }
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}
