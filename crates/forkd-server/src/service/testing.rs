//! Runs a [`Handler`] over bytes, without a socket: for the tests of a program that has one.
//!
//! A [`Protocol`](crate::Protocol) needs no help, as it is handed bytes and answers with bytes.

use std::io;

use super::Handler;
use super::handler::handle_and_finish;
use crate::transport::{Connection, Endpoint, Peer, ServerInfo, Traffic};

/// What has come of it when a handler has served one client. See [`serve`].
#[derive(Debug)]
pub struct Served {
    /// What the client hears.
    pub output: Vec<u8>,
    /// What the handler has returned.
    pub result: io::Result<()>,
}

/// Has a handler serve a client that says this and then no more, and returns what the client hears: `setup`, `handle` and
/// `finish` are called as a server does.
///
/// The connection is read to its end and written to, as over TCP or for a datagram. It has no socket: nothing waits, time-outs
/// have no effect, and it can't be [cloned](Connection::try_clone). A panic goes on.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, Write};
/// use forkd_server::{Connection, Handler, Peer, testing};
///
/// /// Answers lines with their lengths, until an empty one.
/// #[derive(Default)]
/// struct Lengths {
///     lines: u32,
/// }
/// impl Handler for Lengths {
///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
///         let (rfile, mut wfile) = connection.files();
///         for line in rfile.lines() {
///             match line?.len() {
///                 0 => return Err(std::io::Error::other("an empty line")),
///                 length => writeln!(wfile, "{length}")?,
///             }
///             self.lines += 1;
///         }
///         Ok(())
///     }
/// }
///
/// let mut handler = Lengths::default();
/// let served = testing::serve(&mut handler, Peer::None, b"hello\nworld!\n");
/// assert_eq!(served.output, b"5\n6\n");
/// assert!(served.result.is_ok() && handler.lines == 2);
///
/// let served = testing::serve(&mut handler, Peer::None, b"hi\n\n");
/// assert_eq!(served.output, b"2\n", "up to the mistake");
/// assert_eq!(served.result.unwrap_err().to_string(), "an empty line");
/// ```
///
/// A function, and a client from somewhere:
///
/// ```
/// use std::io::Write;
/// use forkd_server::{Connection, Peer, testing};
///
/// fn greet(connection: &mut Connection<'_>) -> std::io::Result<()> {
///     writeln!(&*connection, "Hello, {}!", connection.peer())
/// }
/// let peer = Peer::Ip("192.0.2.7:1234".parse().unwrap());
/// assert_eq!(testing::serve(&mut greet, peer, b"").output, b"Hello, 192.0.2.7:1234!\n");
/// ```
pub fn serve(handler: &mut dyn Handler, peer: Peer, input: &[u8]) -> Served {
    /// Counted nowhere else.
    static TRAFFIC: Traffic = Traffic::new();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 };
    let server = ServerInfo::new(endpoint, "test", "iterative", None);
    let mut connection = Connection::datagram(input, peer, &TRAFFIC, &server);
    let result = handler.setup(&mut connection).and_then(|()| handle_and_finish(handler, &mut connection));
    Served { output: connection.into_answer().unwrap_or_default(), result }
}
