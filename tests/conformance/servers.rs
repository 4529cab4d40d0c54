//! The handlers of CPython's own test_socketserver, and some that ask for more, with forkd's library, for
//! tests/conformance.rs: `test-conformance MODEL HANDLER ENDPOINT STOP`.
//!
//! `lines` answers a line with itself, fails where it is told to, and says who asks; `steps` tells which of
//! its methods is called; `single` is `lines` by way of `handle_request`. It ends when the file STOP is
//! there. The same stands in server.py.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use forkd_server::{Connection, Endpoint, Error, Handler, Peer, Server, Service};

struct Lines;

impl Handler for Lines {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let (mut rfile, mut wfile) = connection.files();
        let mut line = Vec::new();
        rfile.read_until(b'\n', &mut line)?;
        match (&line[..], connection.server().endpoint()) {
            (b"raise\n", _) => Err(io::Error::other("as was wished")),
            (b"who\n", Endpoint::Tcp { port, .. } | Endpoint::Udp { port, .. }) => {
                writeln!(wfile, "{} at {port}", connection.peer())
            }
            (line, _) => wfile.write_all(line),
        }
    }
}

#[derive(Default)]
struct Steps {
    first: [u8; 1],
}

impl Handler for Steps {
    fn setup(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        connection.write_all(b"setup ")?;
        connection.read_exact(&mut self.first)?;
        if self.first == *b"s" { Err(io::Error::other("setup, as was wished")) } else { Ok(()) }
    }

    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let (mut rfile, mut wfile) = connection.files();
        wfile.write_all(b"handle ")?;
        if self.first == *b"h" {
            return Err(io::Error::other("handle, as was wished"));
        }
        let mut rest = String::new();
        rfile.read_line(&mut rest)?;
        wfile.write_all(rest.as_bytes())
    }

    fn finish(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        connection.write_all(b" finish")
    }
}

/// In one piece: children say something, too.
fn say(line: String) {
    let _ = io::stderr().write_all(line.as_bytes());
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, handler, endpoint, stop] = args.as_slice() else { panic!("MODEL HANDLER ENDPOINT STOP") };
    let service = match handler.as_str() {
        "steps" => Service::handler("steps", Steps::default),
        _ => Service::handler("lines", || Lines),
    };
    let stop = PathBuf::from(stop);
    let server = Server::bind(endpoint)?
        .model(model.parse().unwrap_or_else(|why| panic!("{why}")))
        .verify_request(|peer| !matches!(peer, Peer::Ip(address) if address.ip().to_string() == "127.0.0.2"))
        .handle_error(|_, error| say(format!("handled {error}\n")))
        .timeout(Duration::from_millis(50))
        .handle_timeout(|| eprintln!("timed out"));
    let (handle, told) = (server.handle(), stop.clone());
    let server = server.poll_interval(Duration::from_millis(10)).service_actions(move || {
        if told.exists() {
            handle.shutdown();
        }
    });
    eprintln!("listening on {}", server.server_address());
    if handler == "single" {
        let mut serving = server.ready(service)?;
        while !stop.exists() {
            serving.handle_request()?;
            eprintln!("one turn");
        }
        return Ok(());
    }
    server.serve_forever(service)
}
