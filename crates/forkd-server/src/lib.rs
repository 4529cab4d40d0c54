// tests count what they skip by atexit(3)
#![cfg_attr(not(test), forbid(unsafe_code))]
//! Servers for TCP, UDP and Unix sockets: write a handler once, and choose what runs it. What Python's
//! `socketserver` gives, Twisted and gevent beside it, along three axes:
//!
//! | axis | question | what there is |
//! |---|---|---|
//! | [`transport`] | where do requests come from? | tcp, udp, unix, unixgram: an [`Endpoint`] |
//! | [`model`] | what runs the handler? | iterative, fork, prefork, thread, event, coroutine: a [`Model`] |
//! | [`service`] | what is done with the bytes? | [`Echo`] and its kin, or a [`Protocol`] or [`Handler`] of your own |
//!
//! A [`Server`] is one point of this grid, and hardly any choice depends on another.
//!
//! # Examples
//!
//! ```
//! use std::io::{BufRead, Read, Write};
//! use std::net::{Shutdown, TcpStream};
//!
//! use forkd_server::model::Model;
//! use forkd_server::{Connection, Handler, Server, Service};
//!
//! /// Answers each line with its length.
//! struct Lengths;
//!
//! impl Handler for Lengths {
//!     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
//!         let (rfile, mut wfile) = connection.files();
//!         for line in rfile.lines() {
//!             writeln!(wfile, "{}", line?.len())?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
//! let address = server.local_addr().unwrap();
//! let handle = server.handle();
//! let serving = std::thread::spawn(move || server.serve_forever(Service::handler("lengths", || Lengths)));
//!
//! let mut client = TcpStream::connect(address).unwrap();
//! client.write_all(b"hello\nworld!\n").unwrap();
//! client.shutdown(Shutdown::Write).unwrap();
//! let mut answers = String::new();
//! client.read_to_string(&mut answers).unwrap();
//! assert_eq!(answers, "5\n6\n");
//!
//! handle.shutdown();
//! serving.join().unwrap()?;
//! # Ok::<(), forkd_server::Error>(())
//! ```
//!
//! In a program of its own that is `Server::bind(..)?.model(Model::Prefork).workers(4).serve_forever(service)`: four
//! processes, supervised and replaced by this one, until SIGTERM.
//!
//! # The grid
//!
//! Processes and threads for C connections at once, without and with
//! [`workers(N)`](Server::workers):
//!
//! | model | what serves | alone | as a pool of N | a slow client holds up |
//! |---|---|---|---|---|
//! | `Iterative` | one after the other | this process and thread | 1 + N processes (`Prefork`) | all others |
//! | `Fork` | a child for each | 1 + C processes | – | none |
//! | `Prefork` | a pool of children | 1 + 8 processes | 1 + N processes | one worker |
//! | `Thread` | a thread for each | this process, 1 + C threads | 1 + N processes | none |
//! | `Event` | one thread, as sockets become ready | this process and thread | 1 + N processes | none |
//! | `Coroutine` | a coroutine for each, in one thread | this process and thread | 1 + N processes | none |
//!
//! | | tcp, unix | udp, unixgram | [`Protocol`] | [`Handler`] |
//! |---|---|---|---|---|
//! | `Iterative`, `Fork`, `Prefork`, `Thread`, `Coroutine` | yes | yes | yes | yes |
//! | `Event` | yes | yes | yes | **refused**: it would wait for its client, and all others with it |
//!
//! What is refused is refused before the first client is served, by an [`Error`] with a sentence that says why. A
//! model that does not fork serves amid this program's memory and threads; one that forks wants a process with a
//! single thread (see [Fork safety](#fork-safety)).
//!
//! # Two ways to be called
//!
//! A [`Handler`] reads and writes its [`Connection`] itself, as in socketserver. A [`Protocol`] is
//! handed bytes and answers with bytes, as in Twisted; it does no I/O, so it can be tested without a socket, and
//! runs under every model. To write at any time, and not only in answer, it takes a [`Writer`]. Either is made anew for
//! each connection, where it is served, by a closure that may capture what they share.
//!
//! [`testing::serve`] runs a handler over bytes, for tests without a socket.
//!
//! To a handler, a datagram is a connection that is read to its end; what is written is the answer.
//!
//! # Coming from socketserver
//!
//! | socketserver | here |
//! |---|---|
//! | `TCPServer(address, H)` | [`Server::bind`]`("tcp://HOST:PORT")?` with [`Model::Iterative`] |
//! | `ThreadingTCPServer`, `ForkingTCPServer` | the same with [`Model::Thread`], [`Model::Fork`] (the default) |
//! | `UDPServer`, `UnixStreamServer`, `UnixDatagramServer` and their kin | the same with `udp://HOST:PORT`, `unix:///PATH`, `unixgram:///PATH` |
//! | `BaseRequestHandler`: `setup`, `handle`, `finish` | [`Handler`], with the same three methods |
//! | `self.request`; `self.rfile`, `self.wfile` | [`Connection`], which is `Read` and `Write`; [`Connection::files`] |
//! | `self.request` that is given to a thread | [`Connection::try_clone`]: it ends with the handler, which there too closes the connection |
//! | `self.request.setsockopt`, `settimeout`, `shutdown` | [`Connection::socket`], [`set_read_timeout`](Connection::set_read_timeout), [`shutdown`](Connection::shutdown); a datagram has no socket, where socketserver gives handlers the server's |
//! | `self.client_address`, `self.server` | [`Connection::peer`], [`Connection::server`] |
//! | attributes of the server that handlers share | what the closure captures that makes them, in an `Arc` |
//! | `StreamRequestHandler.timeout` | [`Server::idle_timeout`], [`Connection::set_read_timeout`] |
//! | `server.serve_forever(poll_interval)` | [`Server::serve_forever`], [`Server::poll_interval`] |
//! | `server.handle_request()`, `timeout`, `handle_timeout()` | [`Serving::handle_request`], [`Server::timeout`], [`Server::handle_timeout`] |
//! | `server.shutdown()` | [`Handle::shutdown`] or [`ServerInfo::shutdown`]: prompt, from anywhere, also from a handler in a child; it doesn't wait for the end |
//! | `server.server_close()`, `with` | the end of [`Server::serve_forever`], or of the value |
//! | `server.server_address` | [`Server::server_address`], [`Server::local_addr`] |
//! | `request_queue_size`, `allow_reuse_address`, `allow_reuse_port` | [`Server::builder`]; an address is reused unless that is forbidden |
//! | `verify_request`, `handle_error`, `service_actions` | [`Server::verify_request`], [`Server::handle_error`], [`Server::service_actions`]: closures |
//! | a traceback of a handler that fails | a line on standard error, where the program has no logger and no `handle_error` |
//! | `max_children` | [`Server::max_children`]; at the limit clients wait, and the server doesn't |
//! | `block_on_close`, `daemon_threads` | [`Server::block_on_close`]; a stop waits no longer than [`Server::grace`], where socketserver waits for ever |
//! | `max_packet_size` | none: a datagram comes whole |
//! | a handler of datagrams that writes nothing answers with an empty one | it gives no answer; `write_all(b"")` is an empty one |
//! | no counterpart | [`Server::workers`], [`Server::elastic_workers`], [`Model::Prefork`], [`Protocol`] |
//!
//! # Coming from Twisted
//!
//! | Twisted | here |
//! |---|---|
//! | `Protocol`: `connectionMade`, `dataReceived` | [`Protocol`]: [`connected`](Protocol::connected), [`received`](Protocol::received), which return a [`Reply`] |
//! | `connectionLost(reason)` | [`closed`](Protocol::closed), with a [`CloseReason`]; [`ended`](Protocol::ended) when the client has sent all and still reads |
//! | `self.transport.write(data)` in answer | [`Reply::Send`] |
//! | `self.transport.write(data)` at any time | [`Writer::write`](Writer::write): the protocol takes the [`Writer`] when it is [opened](Protocol::opened). It is bounded, and fails where Twisted would buffer without end; it may be called from any thread, without `callFromThread` |
//! | `loseConnection()`, `loseWriteConnection()`, `abortConnection()` | [`Reply::Finish`] or [`Writer::finish`](Writer::finish), [`Writer::end`](Writer::end), [`Writer::abort`](Writer::abort) |
//! | a pull producer | [`Reply::More`], and [`resume`](Protocol::resume) is called for more; [`Reply::File`] |
//! | a push producer, as of a proxy | [`Reply::WaitFor`]: the input is held until the other side has room |
//! | `self.factory.clients`, to reach all of them | writers in what the closure captures, in an `Arc<Mutex<…>>`; the example `chat` |
//! | `DatagramProtocol.datagramReceived` | [`Protocol::datagram`] |
//! | `Factory.buildProtocol` | the closure of [`Service::protocol`] |
//! | `TimeoutMixin` | [`Protocol::deadline`], [`Protocol::timed_out`] |
//! | `Service.stopService` | [`Protocol::stopping`]: the connection may go on for [`grace`](Server::grace) |
//! | `reactor.listenTCP(port, factory)`, `reactor.run()` | [`Server`] with [`Model::Event`] |
//! | `reactor.connectTCP`, `callLater`, `stop` | [`reactor::Reactor`]: [`connect`](reactor::Reactor::connect), [`call_later`](reactor::Reactor::call_later), [`stop`](reactor::Reactor::stop), for programs that have more to do than to serve |
//!
//! # Coming from gevent
//!
//! | gevent | here |
//! |---|---|
//! | `StreamServer(address, handle).serve_forever()` | [`Server`] with [`Model::Coroutine`], and any [`Handler`] |
//! | `spawn`, `joinall`, `sleep` | [`coroutine::spawn`], [`coroutine::join_all`], [`coroutine::sleep`] |
//! | `pool.Pool`, `socket` | [`coroutine::Pool`]; [`coroutine::TcpStream`], [`coroutine::UnixStream`] and their listeners, [`coroutine::UdpSocket`] |
//! | greenlet's `switch` | [`coroutine::Coroutine::switch`], [`coroutine::back`] |
//! | a greenlet for each direction of a socket | [`Connection::try_clone`] in another coroutine; the example `forwarder` |
//! | a `Queue` for each client and a greenlet that sends what is in it | a [`Protocol`] with a [`Writer`], under the same model; the example `chat` |
//! | `monkey.patch_all()` | not needed by handlers: their [`Connection`] lets others go on |
//!
//! # Fork safety
//!
//! With [`Model::Fork`], [`Model::Prefork`] or
//! [`workers`](Server::workers), the calling process becomes the master of its children. It must have one thread:
//! a child gets a copy of that thread alone, and could wait for ever for a lock that another one held. With more,
//! the answer is an error at once, and no hang. It ignores SIGCHLD and takes over most signals (see
//! [`Server`](Server#fork-safety)).
//!
//! Handlers then run in children, whose memory is a copy: nothing that one changes is seen by another. A
//! handler should return and not call [`exit`](std::process::exit). It may start threads. It inherits blocked signals,
//! which a program that it starts inherits, too, if it isn't [`service::Exec`] that starts it.
//!
//! # Coroutines
//!
//! Under [`Model::Coroutine`] one worker serves many clients at once by the same blocking
//! [`Handler`]: a read that would block lets others go on. The module [`coroutine`] is what that is made of,
//! for programs of your own: what greenlet and gevent are to Python.
//!
//! # Workers with a loop of their own
//!
//! [`Server::run`] has workers run any function, built after the fork: a runtime of tokio with axum, hyper or tonic inside, or a
//! loop that accepts. They are supervised, replaced and renewed like those of a model; a [`Worker`] has the sockets, and tells
//! its function when to leave ([`Shutdown`]).
//!
//! # The rest
//!
//! [`reactor`] is the event loop by itself, for programs that connect as well as listen ("coming from
//! Twisted" is there).
//!
//! The program `forkd` is made of the same parts; [`supervise`] is what it needs beside them.

mod access;
mod admission;
#[cfg(feature = "coroutine")]
pub mod coroutine;
mod events;
mod fairness;
mod limit;
pub mod model;
mod process;
mod processors;
pub mod reactor;
pub mod sandbox;
mod scoreboard;
pub mod server;
pub mod service;
#[cfg(test)]
#[allow(unsafe_code, dead_code, unreachable_pub, clippy::panic)]
#[path = "../../../tests/common/skips.rs"]
mod skips;
mod slab;
mod spec;
pub mod supervise;
mod timers;
pub mod transport;

pub use forkd_net::{Error, Failure};
use forkd_sys as sys;
pub use model::{HandlerError, Model};
pub use server::{Server, Serving};
pub use service::application::{OpenConnection, Shutdown, Worker, WorkerError, WorkerOutcome};
pub use service::testing;
pub use service::{CloseReason, Echo, Handler, Opening, Protocol, Reply, Service};
pub use transport::{
    Connection, Endpoint, FilePart, Handle, Offence, Peer, ServerInfo, Stream, WriteError, Writer,
};

// its example compiles
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
