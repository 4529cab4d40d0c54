//! Servers for `tests/library.rs`: `test-servers NAME ENDPOINT MODEL`.
//!
//! They must be programs of their own, because a server may not share a process with the threads
//! of the test harness. Each says on standard error what it has bound, and logs there.

use std::io::{self, Read, Write};
use std::time::Duration;

use clap::ValueEnum;
use forkd::config::values::{LogFormat, LogLevel, LogSink};
use forkd::model::Model;
use forkd::{Connection, Error, Handler, Peer, Server, Service};

/// Says which of its methods is called; fails where the client's first letter tells it to.
struct Steps {
    first: u8,
}

impl Handler for Steps {
    fn setup(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut first = [0];
        connection.read_exact(&mut first)?;
        self.first = first[0];
        connection.write_all(b"setup ")?;
        if self.first == b's' { Err(io::Error::other("setup, as was wished")) } else { Ok(()) }
    }

    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        connection.write_all(b"handle ")?;
        if self.first == b'h' {
            return Err(io::Error::other("handle, as was wished"));
        }
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        connection.write_all(text.as_bytes())
    }

    fn finish(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        connection.write_all(b" finish")
    }
}

/// Panics where the client wishes it, and echoes until then.
struct Fragile;

impl Handler for Fragile {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut chunk = [0; 512];
        loop {
            let n = connection.read(&mut chunk)?;
            assert!(!chunk[..n].starts_with(b"panic"), "as was wished");
            if n == 0 {
                return Ok(());
            }
            connection.write_all(&chunk[..n])?;
        }
    }
}

/// Does as its client says: ends the server, fails, or answers.
struct Obedient;

impl Handler for Obedient {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        match text.as_str() {
            "shutdown" => connection.server().shutdown(),
            "fail" => return Err(io::Error::other("as was wished")),
            "panic" => panic!("as was wished"),
            _ => {}
        }
        let (server, pid) = (connection.server(), std::process::id());
        let (service, model, endpoint) = (server.service(), server.model(), server.endpoint());
        write!(connection, "{text}: {service} {model} {endpoint} {pid}")
    }
}

fn service(name: &str) -> Service {
    match name {
        "hooks" | "single" => Service::handler("obedient", || Obedient),
        "steps" => Service::handler("steps", || Steps { first: 0 }),
        "fragile" | "threads" => Service::handler("fragile", || Fragile),
        other => panic!("no server is called {other}"),
    }
}

/// In one piece: several processes say something.
fn say(what: &str) {
    let _ = io::stderr().write_all(format!("{what} in {}\n", std::process::id()).as_bytes());
}

/// Each says that it is called, and in which process.
fn hooked(server: Server) -> Server {
    let mut ticks = 0;
    server
        .verify_request(|peer| {
            say(&format!("verify {peer}"));
            !matches!(peer, Peer::Ip(address) if address.ip().to_string() == "127.0.0.2")
        })
        .handle_error(|peer, error| say(&format!("told of {peer}: {error}")))
        .poll_interval(Duration::from_millis(20))
        .service_actions(move || {
            ticks += 1;
            if ticks < 5 {
                say(&format!("tick {ticks}"));
            }
        })
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, endpoint, model] = args.as_slice() else { panic!("NAME ENDPOINT MODEL") };
    let model = Model::from_str(model, false).unwrap_or_else(|why| panic!("{why}"));
    forkd::log::init(LogSink::Stderr, LogLevel::Info, LogFormat::Text)?;
    if name == "threads" {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600)));
    }
    let mut server = Server::bind(endpoint)?.model(model).grace(Duration::from_secs(2));
    if model == Model::Prefork {
        server = server.workers(2);
    }
    for endpoint in server.endpoints() {
        eprintln!("listening on {endpoint}");
    }
    match name.as_str() {
        "hooks" => hooked(server).serve_forever(service(name)),
        "single" => {
            let mut serving = server.timeout(Duration::from_millis(100)).ready(service(name))?;
            while serving.handle_request()? || !serving.handle().is_shut_down() {}
            eprintln!("no more requests");
            serving.serve_forever()
        }
        _ => server.serve_forever(service(name)),
    }
}
