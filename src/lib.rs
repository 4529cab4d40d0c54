#![deny(unsafe_code)]
//! A server that forks, as a library: what Python's `socketserver` gives, along three axes.
//!
//! | axis | question | what there is |
//! |---|---|---|
//! | [`transport`] | where do requests come from? | tcp, udp, unix, unixgram: an [`Endpoint`] |
//! | [`model`] | who runs the handler? | a child per connection, or a pool: a [`Model`](model::Model) |
//! | [`service`] | what is done with the bytes? | [`Echo`], or a [`Protocol`] or [`Handler`] of your own |
//!
//! A [`Server`] is one point of this grid, and no choice depends on another: the same handler
//! serves TCP and UDP, in a child forked for each connection or in a worker of a pool.
//!
//! # Examples
//!
//! ```no_run
//! use std::io::{BufRead, BufReader, Write};
//!
//! use forkd::model::Model;
//! use forkd::{Connection, Handler, Server, Service};
//!
//! /// Answers each line with its length.
//! struct Lengths;
//!
//! impl Handler for Lengths {
//!     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
//!         let mut lines = BufReader::new(connection);
//!         let mut line = String::new();
//!         while lines.read_line(&mut line)? > 0 {
//!             let answer = format!("{}\n", line.trim_end().len());
//!             lines.get_mut().write_all(answer.as_bytes())?;
//!             line.clear();
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let server = Server::bind("tcp://127.0.0.1:7007")?.model(Model::Prefork).workers(4);
//! server.serve_forever(Service::handler("lengths", || Lengths))?;
//! # Ok::<(), forkd::Error>(())
//! ```
//!
//! # Two ways to be called
//!
//! A [`Handler`] reads and writes its [`Connection`] itself, as in socketserver. A [`Protocol`] is
//! handed bytes and answers with bytes; it does no I/O, so it can be tested without a socket. Either
//! is made anew for each connection, in the process that serves it.
//!
//! To a handler, a datagram is a connection that is read to its end; what is written is the answer.
//!
//! # Coming from socketserver
//!
//! | socketserver | here |
//! |---|---|
//! | `ForkingTCPServer(address, H)` | `Server::bind("tcp://HOST:PORT")?`, with [`Model::Fork`](model::Model::Fork), the default |
//! | `ForkingUDPServer` | the same with `udp://HOST:PORT` |
//! | `ForkingUnixStreamServer`, `ForkingUnixDatagramServer` | the same with `unix:///PATH`, `unixgram:///PATH` |
//! | `BaseRequestHandler`: `setup`, `handle`, `finish` | [`Handler`], with the same three methods |
//! | `self.request`, `self.rfile`, `self.wfile` | [`Connection`], which is `Read` and `Write` and buffers nothing |
//! | `self.client_address` | [`Connection::peer`] |
//! | `StreamRequestHandler.timeout` | [`Server::idle_timeout`] |
//! | `server.server_address` | [`Server::endpoints`]: a name may stand for several addresses |
//! | `TCPServer`, which serves one after the other | [`Model::Iterative`](model::Model::Iterative) |
//! | `server.max_children` | [`Server::max_children`]; at the limit clients wait, and the server doesn't |
//! | `server.serve_forever()` | [`Server::serve_forever`] |
//! | `server.shutdown()` | SIGTERM to the process |
//! | no counterpart | [`Model::Prefork`](model::Model::Prefork), [`Server::grace`], [`Protocol`] |
//!
//! # Fork safety
//!
//! [`Server::serve_forever`] makes the calling process, which must have one thread, the master of its
//! children: it ignores SIGCHLD and takes over most signals. Handlers run in children, whose
//! memory is a copy: nothing that one changes is seen by another. A handler should return and not
//! call [`exit`](std::process::exit), and must prepare to start programs, because it inherits blocked
//! signals and an ignored SIGCHLD.
//!
//! # The rest
//!
//! [`cli`], [`config`] and [`daemon`] are the program `forkd`, which is made of the same parts.
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
mod events;
mod getent;
pub mod log;
mod metrics;
pub mod model;
mod scoreboard;
pub mod server;
pub mod service;
#[allow(unsafe_code)]
mod sys;
pub mod transport;

pub use error::{Error, Failure};
pub use server::Server;
pub use service::{Echo, Handler, Protocol, Reply, Service};
pub use transport::{Connection, Endpoint, FilePart, Peer};
