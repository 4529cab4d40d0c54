//! The receipt server over UDP: a datagram is a connection that is read to its end, and what is
//! written is the answer, as with socketserver's `DatagramRequestHandler`.
//!
//!     cargo run --example ack_udp                          # udp://127.0.0.1:7012
//!
//! Then `nc -u 127.0.0.1 7012` and type. Ctrl-C ends it.

use std::io::{self, Read, Write};

use forkd_server::{Connection, Handler, Server, Service};

struct Ack;

impl Handler for Ack {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut message = String::new();
        connection.read_to_string(&mut message)?;
        println!("{} sends: {}", connection.peer(), message.trim_end());
        connection.write_all(b"Receive")
    }
}

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "udp://127.0.0.1:7012".into());
    let server = Server::bind(&endpoint)?;
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::handler("ack", || Ack))
}
