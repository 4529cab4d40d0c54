//! The receipt server over TCP: prints what a client sends, and answers `Receive` each time.
//!
//!     cargo run --example ack_tcp                          # tcp://127.0.0.1:7011
//!
//! Then `nc 127.0.0.1 7011` and type. Compare with `ack_udp`: the handler is written in the same way. Ctrl-C
//! ends it. The same without a line of Rust is `forkd serve --service ack`.

use std::io::{self, Read, Write};

use forkd_server::{Connection, Handler, Server, Service};

struct Ack;

impl Handler for Ack {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut message = [0; 1024];
        loop {
            let n = connection.read(&mut message)?;
            if n == 0 {
                return Ok(());
            }
            println!("{} sends: {}", connection.peer(), String::from_utf8_lossy(&message[..n]).trim_end());
            connection.write_all(b"Receive")?;
        }
    }
}

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7011".into());
    let server = Server::bind(&endpoint)?;
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::handler("ack", || Ack))
}
