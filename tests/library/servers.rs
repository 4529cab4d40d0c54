//! Servers for `tests/library.rs`: `test-servers NAME ENDPOINT MODEL`.
//!
//! They must be programs of their own, because a server may not share a process with the threads
//! of the test harness. Each says on standard error what it has bound, and logs there.

use std::io::{self, Read, Write};
use std::time::Duration;

use forkd::config::values::{LogFormat, LogLevel, LogSink};
use forkd::coroutine::{self, TcpStream};
use forkd::model::Model;
use forkd::{Connection, Error, Handler, Server, Service};

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

/// Answers each message with itself; where that begins with `sleep`, after a very long time, with `ask ADDRESS`
/// after an echo server has been asked, and with `deep` never, because its stack overflows.
struct Patient;

impl Handler for Patient {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut chunk = [0; 512];
        loop {
            let n = connection.read(&mut chunk)?;
            let text = std::str::from_utf8(&chunk[..n]).unwrap_or_default();
            match text.split_once(' ').unwrap_or((text, "")) {
                ("", _) => return Ok(()),
                ("sleep", _) => coroutine::sleep(Duration::from_secs(3600)),
                ("deep", _) => connection.write_all(&[overflow(0)])?,
                ("ask", address) => {
                    let mut other = TcpStream::connect(address.parse().map_err(io::Error::other)?)?;
                    other.write_all(b"may I?")?;
                    let mut answer = [0; 6];
                    other.read_exact(&mut answer)?;
                    connection.write_all(&answer)?;
                }
                _ => connection.write_all(&chunk[..n])?,
            }
        }
    }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u8) -> u8 {
    let room = std::hint::black_box([depth; 256]);
    overflow(depth.wrapping_add(1)).wrapping_add(room[0])
}

fn service(name: &str) -> Service {
    match name {
        "steps" => Service::handler("steps", || Steps { first: 0 }),
        "fragile" | "threads" => Service::handler("fragile", || Fragile),
        "patient" => Service::handler("patient", || Patient),
        other => panic!("no server is called {other}"),
    }
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, endpoint, model] = args.as_slice() else { panic!("NAME ENDPOINT MODEL") };
    let model =
        <Model as clap::ValueEnum>::from_str(model, false).unwrap_or_else(|why| panic!("{model}: {why}"));
    forkd::log::init(LogSink::Stderr, LogLevel::Info, LogFormat::Text)?;
    if name == "threads" {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600)));
    }
    let workers = if model == Model::Prefork { 2 } else { 1 };
    let server = Server::bind(endpoint)?.model(model).workers(workers).grace(Duration::from_secs(2));
    for endpoint in server.endpoints() {
        eprintln!("listening on {endpoint}");
    }
    server.serve_forever(service(name))
}
