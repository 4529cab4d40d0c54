//! A program that has nothing but the library: it says its address, serves one client, and ends.

use std::env::args;
use std::io::{BufRead, Write};

use forkd_server::model::Model;
use forkd_server::{Connection, Error, Handler, Peer, Protocol, Reply, Server, Service};

/// Answers a line with its length, but for one that it fails at.
struct Length;

impl Handler for Length {
    fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
        let (mut rfile, mut wfile) = connection.files();
        let mut line = String::new();
        rfile.read_line(&mut line)?;
        if line == "fail\n" {
            return Err(std::io::Error::other("as was wished"));
        }
        writeln!(wfile, "{}", line.trim_end().len())
    }
}

/// The same for a line that comes whole.
#[derive(Default)]
struct Lengths(String);

impl Protocol for Lengths {
    fn connected(&mut self, _: Peer) -> Reply<'_> {
        Reply::Send(b"")
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.0 = format!("{}\n", input.trim_ascii_end().len());
        Reply::Finish(self.0.as_bytes())
    }
}

fn main() -> Result<(), Error> {
    let model: Model = args().nth(1).unwrap_or_default().parse()?;
    let service = match model {
        Model::Event => Service::protocol("lengths", Lengths::default),
        _ => Service::handler("length", || Length),
    };
    let server = Server::bind("tcp://127.0.0.1:0")?.model(model);
    println!("{}", server.server_address());
    server.ready(service)?.handle_request().map(|_| ())
}
