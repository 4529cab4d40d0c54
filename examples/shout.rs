//! A service of your own, under any model and over any transport: says everything louder.
//!
//! It shows a [`Protocol`], which is handed bytes and answers without doing any I/O itself, and
//! that the endpoint and the model are settings of the [`Server`], not of the service.
//!
//!     cargo run --example shout                            # tcp://127.0.0.1:7007, fork
//!     cargo run --example shout udp://127.0.0.1:7007 prefork
//!
//! Then try it: `echo hello | nc -N 127.0.0.1 7007`, or with UDP `echo hello | nc -u -w1 127.0.0.1 7007`.
//! Ctrl-C ends it.

use std::error::Error;

use forkd_server::model::Model;
use forkd_server::{Peer, Protocol, Reply, Server, Service};

/// One of these is made for each connection, in the process that serves it.
#[derive(Default)]
struct Shout {
    loud: Vec<u8>,
}

impl Protocol for Shout {
    /// A greeting; datagrams have none.
    fn connected(&mut self, peer: Peer) -> Reply<'_> {
        self.loud = format!("HELLO {peer}, PROCESS {} IS ALL YOURS\n", std::process::id()).into_bytes();
        Reply::Send(&self.loud)
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.loud = input.to_ascii_uppercase();
        if self.loud.starts_with(b"BYE") { Reply::Finish(&self.loud) } else { Reply::Send(&self.loud) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7007".into());
    let model: Model = args.next().map_or(Ok(Model::Fork), |name| name.parse())?;
    let mut server = Server::bind(&endpoint)?.model(model);
    if model != Model::Fork {
        server = server.workers(4);
    }
    for endpoint in server.endpoints() {
        eprintln!("listening on {endpoint} service=shout model={model}");
    }
    server.serve_forever(Service::protocol("shout", Shout::default))?;
    Ok(())
}
