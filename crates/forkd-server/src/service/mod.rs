//! What is done with the bytes.
//!
//! There are two ways to be called: a [`Protocol`] is handed bytes and answers, and never blocks;
//! a [`Handler`] reads and writes a [`Connection`] itself, as in Python's socketserver. A
//! [`Service`] is one or the other, with a name, and makes a new one for each connection.

mod ack;
pub(crate) mod application;
mod calendar;
mod chargen;
mod clock;
mod close_reason;
mod discard;
mod driven;
mod duplex;
mod echo;
mod exec;
mod handler;
#[cfg(feature = "http")]
pub(crate) mod http;
mod messages;
mod opening;
mod protocol;
pub mod testing;

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use ack::Ack;
use application::Application;
pub use application::WorkerProgram;
pub use chargen::Chargen;
pub use clock::Clock;
pub use close_reason::CloseReason;
pub use discard::Discard;
pub use echo::Echo;
pub use exec::Exec;
pub use handler::Handler;
#[cfg(feature = "http")]
pub use http::Http;
pub use messages::Framing;
pub use opening::Opening;
pub use protocol::{Protocol, Reply};

use crate::Error;
use crate::transport::Connection;

/// A named service: what a server does for each connection and each datagram.
///
/// Cloning is cheap and shares the maker.
///
/// # Fork safety
///
/// The maker runs where the client is served, never in a master. In a child, what it captures is a
/// copy: a change to it is seen by no other process. In a process that serves by itself it is shared by all.
///
/// # Examples
///
/// ```
/// use forkd_server::{Protocol, Reply, Service};
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
    name: Cow<'static, str>,
    maker: Maker,
    amplifies: bool,
    /// Finds out before the start whether its connections can be handed over.
    recipient: Option<Arc<Check>>,
    /// How long a connection may be silent, if nothing else is said.
    patience: Option<Duration>,
    descriptors: usize,
    clients_begin: bool,
    /// It never answers.
    is_silent: bool,
    /// Opens the directories below which it reads files; or no more than one that it has now.
    directories: Option<Arc<Directories>>,
    /// Its programs may gain privileges.
    keeps_privileges: bool,
}

/// Is told whether they are to be as few as possible.
type Directories = dyn Fn(bool) -> Vec<OwnedFd> + Send + Sync;

type Check = dyn Fn() -> Result<(), Error> + Send + Sync;

#[derive(Clone)]
enum Maker {
    /// Known from the type, so that nothing need be made or called for it.
    Echo,
    Protocol(Arc<dyn Fn() -> Box<dyn Protocol> + Send + Sync>),
    Handler(Arc<dyn Fn() -> Box<dyn Handler> + Send + Sync>),
    /// The whole work of a worker: it accepts by itself.
    Application(Application),
}

/// Sends one answer to a datagram.
pub(crate) type SendAnswer<'a> = dyn FnMut(&[u8]) + 'a;

impl Service {
    /// A service whose connections are each served by a [`Protocol`] of their own.
    ///
    /// ```
    /// use forkd_server::{Echo, Service};
    /// assert_eq!(Service::protocol("parrot", || Echo).name(), "parrot");
    /// ```
    pub fn protocol<P: Protocol + 'static>(
        name: impl Into<Cow<'static, str>>,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        let maker =
            if P::echoes() { Maker::Echo } else { Maker::Protocol(Arc::new(move || Box::new(make()))) };
        Self::made_by(name, maker)
    }

    /// A service whose connections are each served by a [`Handler`] of their own, which may be a function.
    ///
    /// ```
    /// use std::io::Write;
    /// use forkd_server::{Connection, Handler, Service};
    ///
    /// struct Greeting(String);
    /// impl Handler for Greeting {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         writeln!(connection, "{}, {}!", self.0, connection.peer())
    ///     }
    /// }
    /// fn farewell(connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///     writeln!(connection, "Goodbye!")
    /// }
    /// let hello = |word: &'static str| Service::handler(format!("greeting-{word}"), move || Greeting(word.into()));
    /// assert_eq!(hello("moin").name(), "greeting-moin");
    /// let goodbye = Service::handler("farewell", || farewell);
    /// ```
    pub fn handler<H: Handler + 'static>(
        name: impl Into<Cow<'static, str>>,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::Handler(Arc::new(move || Box::new(make())));
        Self::made_by(name, maker)
    }

    /// A service whose workers accept by themselves.
    pub(crate) fn application(name: &'static str, application: Application) -> Self {
        Self::made_by(name, Maker::Application(application))
    }

    /// What its workers run, if they accept by themselves.
    pub(crate) fn as_application(&self) -> Option<&Application> {
        match &self.maker {
            Maker::Application(application) => Some(application),
            Maker::Echo | Maker::Protocol(_) | Maker::Handler(_) => None,
        }
    }

    fn made_by(name: impl Into<Cow<'static, str>>, maker: Maker) -> Self {
        Self {
            name: name.into(),
            maker,
            amplifies: false,
            recipient: None,
            patience: None,
            descriptors: 1,
            clients_begin: false,
            is_silent: false,
            directories: None,
            keeps_privileges: false,
        }
    }

    /// The same service, which answers a datagram with more bytes than it has.
    fn amplifying(self) -> Self {
        Self { amplifies: true, ..self }
    }

    /// The same service, which hands its connections over to a program that reads and writes them itself;
    /// `check` finds out before the start whether it is there.
    fn handing_over(self, check: impl Fn() -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self { recipient: Some(Arc::new(check)), ..self }
    }

    /// The same service, for clients that may be silent for `limit` by default.
    #[cfg(feature = "http")]
    fn patient_for(self, limit: Duration) -> Self {
        Self { patience: Some(limit), ..self }
    }

    /// The same service, of which a client takes `descriptors` at once, its connection among them.
    fn taking(self, descriptors: usize) -> Self {
        Self { descriptors, ..self }
    }

    /// The same service, which has nothing to do for a client before that has sent something.
    #[cfg(feature = "http")]
    fn begun_by_clients(self) -> Self {
        Self { clients_begin: true, ..self }
    }

    /// Whether it has nothing to do for a client before that has sent something.
    pub(crate) fn clients_begin(&self) -> bool {
        self.clients_begin
    }

    /// The same service, which never answers.
    fn silent(self) -> Self {
        Self { is_silent: true, ..self }
    }

    /// Whether it never answers.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The same service, which reads files below the directories that this opens: all below which they may come to be,
    /// or only where they are now.
    #[cfg(feature = "http")]
    fn reading(self, directories: impl Fn(bool) -> Vec<OwnedFd> + Send + Sync + 'static) -> Self {
        Self { directories: Some(Arc::new(directories)), ..self }
    }

    /// Opens the directories below which it reads files, as few as possible or all that it may need.
    pub(crate) fn directories(&self, as_few: bool) -> Vec<OwnedFd> {
        self.directories.as_ref().map(|open| open(as_few)).unwrap_or_default()
    }

    /// The same service, whose programs may gain privileges.
    fn keeping_privileges(self, keeps_privileges: bool) -> Self {
        Self { keeps_privileges, ..self }
    }

    /// Whether its programs may gain privileges.
    pub(crate) fn keeps_privileges(&self) -> bool {
        self.keeps_privileges
    }

    /// How many descriptors a client takes at once, its connection among them.
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// How long a connection may be silent, if nothing else is said.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Whether it hands its connections over: then it takes no datagrams, and it is unknown how long a
    /// connection has been silent.
    pub(crate) fn hands_over(&self) -> bool {
        self.recipient.is_some()
    }

    /// Finds out whether it can serve at all, as far as that can be known before the first client comes.
    pub fn check(&self) -> Result<(), Error> {
        self.recipient.as_ref().map_or(Ok(()), |check| check())
    }

    /// Whether its answer to a datagram has more bytes than that, so that an attacker who forges a
    /// sender's address could have it flood others.
    ///
    /// ```
    /// use forkd_server::{Echo, Service, service::Chargen};
    /// assert!(Service::from(Chargen::default()).amplifies());
    /// assert!(!Service::from(Echo).amplifies());
    /// ```
    #[must_use]
    pub fn amplifies(&self) -> bool {
        self.amplifies
    }

    /// The name, as the `listening` line and `forkd status` show it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves a stream until it ends, one way or another.
    // as `ServiceConfig::serve`
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        match &self.maker {
            Maker::Echo => connection.echo(),
            Maker::Protocol(make) => {
                let mut protocol = make();
                let served = driven::drive(&mut *protocol, connection);
                connection.note(protocol.offence());
                served
            }
            Maker::Handler(make) => handler::run(&mut *make(), connection),
            Maker::Application(_) => Err(accepts_by_itself()),
        }
    }

    /// Makes the protocol of one connection; a service of handlers has none.
    pub(crate) fn make_protocol(&self) -> Option<Box<dyn Protocol>> {
        match &self.maker {
            Maker::Echo => Some(Box::new(Echo)),
            Maker::Protocol(make) => Some(make()),
            Maker::Handler(_) | Maker::Application(_) => None,
        }
    }

    /// Whether it is a [`Handler`], which waits for its client, and so can't share a thread with others.
    ///
    /// ```
    /// assert!(!forkd_server::Service::from(forkd_server::Echo).is_handler());
    /// ```
    #[must_use]
    pub fn is_handler(&self) -> bool {
        matches!(self.maker, Maker::Handler(_))
    }

    /// Whether all goes back as it came, so that no handler is called.
    pub(crate) fn echoes(&self) -> bool {
        matches!(self.maker, Maker::Echo)
    }

    /// Calls `send` with the answer to a datagram, if there is one.
    ///
    /// # Errors
    ///
    /// What a handler returns.
    pub(crate) fn answer(
        &self,
        payload: &[u8],
        mut connection: Connection<'_>,
        send: &mut SendAnswer<'_>,
    ) -> io::Result<()> {
        match &self.maker {
            Maker::Echo => send(payload),
            Maker::Protocol(make) => match make().datagram(payload) {
                Reply::Wait | Reply::WaitFor(_) | Reply::File(_) => {}
                Reply::Send(answer) | Reply::More(answer) | Reply::Finish(answer) => send(answer),
            },
            Maker::Handler(make) => {
                let mut handler = make();
                handler.setup(&mut connection)?;
                let handled = handler::handle_and_finish(&mut *handler, &mut connection);
                if let Some(answer) = connection.into_answer() {
                    send(&answer);
                }
                handled?;
            }
            Maker::Application(_) => return Err(accepts_by_itself()),
        }
        Ok(())
    }
}

/// What is served by a worker's own code is no business of ours.
#[cold]
fn accepts_by_itself() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the service accepts its clients by itself")
}

/// What a server can serve: a [`Service`], or what one is made of, as [`Echo`] is.
///
/// A [`Handler`] or a [`Protocol`] is no service by itself: each connection has one of its own. What makes it becomes a
/// service by [`Service::handler`] or [`Service::protocol`], under a name.
///
/// ```
/// use forkd_server::service::{Clock, IntoService};
/// assert_eq!(Clock::daytime().into_service().name(), "daytime");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no service",
    label = "a service is a name, and what makes a handler or a protocol for each connection",
    note = "for a `Handler`, write `Service::handler(\"my-service\", || MyHandler)`",
    note = "for a `Protocol`, write `Service::protocol(\"my-service\", || MyProtocol)`",
    note = "for a function of a `&mut Connection<'_>`, write `Service::handler(\"my-service\", || my_function)`"
)]
pub trait IntoService {
    /// Makes the service.
    fn into_service(self) -> Service;
}

#[diagnostic::do_not_recommend]
impl<S: Into<Service>> IntoService for S {
    fn into_service(self) -> Service {
        self.into()
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}
