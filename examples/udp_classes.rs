//! The four datagram servers of socketserver, with one handler.
//!
//!     cargo run --example udp_classes UDPServer            # one after the other, udp://127.0.0.1:7013
//!     cargo run --example udp_classes ForkingUDPServer     # a process for each datagram
//!     cargo run --example udp_classes ThreadingUDPServer   # a thread for each datagram
//!     cargo run --example udp_classes UnixDatagramServer   # unixgram:///tmp/forkd-udp-classes.sock
//!
//! Then `echo hello | nc -u -w 1 127.0.0.1 7013`, and see which process answers. Ctrl-C ends it.

use std::io::{self, Read, Write};

use forkd_server::model::Model;
use forkd_server::{Connection, Error, Handler, Server, Service};

/// Answers with the datagram and the process that answers.
struct Upper;

impl Handler for Upper {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        let thread = std::thread::current();
        let (process, thread) = (std::process::id(), thread.name().unwrap_or("unnamed").to_owned());
        writeln!(connection, "{} (process {process}, thread {thread})", text.trim_end().to_uppercase())
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let class = args.next().unwrap_or_else(|| "UDPServer".into());
    let (model, usual) = match class.as_str() {
        "UDPServer" => (Model::Iterative, "udp://127.0.0.1:7013"),
        "ForkingUDPServer" => (Model::Fork, "udp://127.0.0.1:7013"),
        "ThreadingUDPServer" => (Model::Thread, "udp://127.0.0.1:7013"),
        "UnixDatagramServer" => (Model::Iterative, "unixgram:///tmp/forkd-udp-classes.sock"),
        other => return Err(Error::Usage(format!("{other} is none of socketserver's datagram servers"))),
    };
    let server = Server::bind(&args.next().unwrap_or_else(|| usual.into()))?.model(model);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::handler("upper", || Upper))
}
