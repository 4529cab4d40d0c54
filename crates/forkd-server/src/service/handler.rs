//! The blocking way to be called.

use std::io::{self, ErrorKind};

use crate::sys::buffer::Buffer;
use crate::transport::{Connection, TimedOut};

/// A service that reads and writes its connection itself, as a `BaseRequestHandler` of Python's
/// socketserver does: `setup`, `handle`, `finish`.
///
/// A datagram is a connection that is read to its end; what was written until
/// [`finish`](Handler::finish) has returned is the answer, also if [`handle`](Handler::handle) failed.
/// Where nothing was written there is none; `write_all(b"")` makes an empty one.
///
/// # Errors
///
/// An error ends the connection, is logged by the crate [`log`], and told to
/// [`handle_error`](crate::Server::handle_error). Where the program has set neither a logger nor that, it is a line on standard
/// error, as socketserver's traceback is. Not so with one that is the client's doing: a client
/// that resets it ([`ConnectionReset`], [`BrokenPipe`]), is silent for too long ([`WouldBlock`]) or stays for too long
/// ([`TimedOut`]) is an ordinary end. So is one that ends in the middle of a message for
/// [`read_exact`](io::Read::read_exact) ([`UnexpectedEof`]).
///
/// [`ConnectionReset`]: io::ErrorKind::ConnectionReset
/// [`BrokenPipe`]: io::ErrorKind::BrokenPipe
/// [`UnexpectedEof`]: io::ErrorKind::UnexpectedEof
/// [`WouldBlock`]: io::ErrorKind::WouldBlock
/// [`TimedOut`]: io::ErrorKind::TimedOut
///
/// # Stacks
///
/// Under [`Model::Thread`](crate::model::Model::Thread) and [`Model::Coroutine`](crate::model::Model::Coroutine) a
/// handler has a stack of 256 KiB, of which only what is touched takes memory; under the others that of the thread
/// that serves, usually 8 MiB. One that needs more is a crash of its process, as any overflow: large buffers belong
/// into a [`Vec`], and what goes deep into a thread or coroutine of its own
/// ([`std::thread::Builder::stack_size`], [`coroutine::Builder::stack_size`](crate::coroutine::Builder::stack_size)),
/// which the handler joins.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, Read, Write};
/// use forkd_server::{Connection, Handler};
///
/// /// Greets each client, and asks until it hears a name.
/// #[derive(Default)]
/// struct Concierge {
///     name: String,
/// }
///
/// impl Handler for Concierge {
///     fn setup(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         writeln!(connection, "Welcome! Who is there?")
///     }
///
///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         let (rfile, mut wfile) = connection.files();
///         // as much as a name may have, or a client could fill our memory
///         for line in rfile.take(1000).lines() {
///             self.name = line?.trim().to_owned();
///             if !self.name.is_empty() {
///                 break;
///             }
///             writeln!(wfile, "Who, please?")?;
///         }
///         Ok(())
///     }
///
///     fn finish(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         writeln!(connection, "Goodbye, {}.", self.name)
///     }
/// }
/// # use forkd_server::{Server, Service, model::Model};
/// # let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
/// # let address = server.server_address().to_string();
/// # let mut client = std::net::TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
/// # client.write_all(b"\nAda\n").unwrap();
/// # server.ready(Service::handler("concierge", Concierge::default))?.handle_request()?;
/// # let mut heard = String::new();
/// # client.read_to_string(&mut heard).unwrap();
/// # assert_eq!(heard, "Welcome! Who is there?\nWho, please?\nGoodbye, Ada.\n");
/// # Ok::<(), forkd_server::Error>(())
/// ```
///
/// A function, or a closure, that has a [`Connection`] and returns an [`io::Result`] is a handler, too: of
/// [`handle`](Handler::handle) alone.
///
/// ```
/// use std::io::{Read, Write};
/// use forkd_server::{Connection, Service};
///
/// fn shout(connection: &mut Connection<'_>) -> std::io::Result<()> {
///     let mut text = String::new();
///     connection.read_to_string(&mut text)?;
///     connection.write_all(text.to_uppercase().as_bytes())
/// }
/// let service = Service::handler("shout", || shout);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Handler`",
    label = "neither a type with `impl Handler`, nor a function of a `&mut Connection<'_>` that returns an `io::Result<()>`",
    note = "`Service::handler(name, || …)` takes a closure that makes a handler: `|| MyHandler`, `MyHandler::new`, or `|| my_function`"
)]
pub trait Handler {
    /// Is called before [`handle`](Handler::handle).
    #[allow(clippy::missing_errors_doc)]
    fn setup(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let _ = connection;
        Ok(())
    }

    /// Serves the connection. When this and [`finish`](Handler::finish) have returned, the client is told the
    /// end, what it still sends is discarded for at most 2 seconds, and the connection is closed: a close with
    /// unread input would be a reset, which could take the answer from the client.
    #[allow(clippy::missing_errors_doc)]
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()>;

    /// Is called after [`handle`](Handler::handle), also when that failed, unless
    /// [`setup`](Handler::setup) did.
    #[allow(clippy::missing_errors_doc)]
    fn finish(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let _ = connection;
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<F: FnMut(&mut Connection<'_>) -> io::Result<()>> Handler for F {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        self(connection)
    }
}

/// Serves a stream. What the handler has left unread must not cost the client its answer, unless the client has
/// been silent, or there, for too long: then the server waits for it no longer.
pub(super) fn run(handler: &mut dyn Handler, connection: &mut Connection<'_>) -> io::Result<()> {
    let served = handler.setup(connection).and_then(|()| handle_and_finish(handler, connection));
    let is_late = |error: &io::Error| error.kind() == ErrorKind::WouldBlock || TimedOut::of(error).is_some();
    if !served.as_ref().is_err_and(is_late) {
        connection.linger(&mut Buffer::default());
    }
    served
}

pub(super) fn handle_and_finish(
    handler: &mut dyn Handler,
    connection: &mut Connection<'_>,
) -> io::Result<()> {
    let handled = handler.handle(connection);
    let finished = handler.finish(connection);
    handled.and(finished)
}
