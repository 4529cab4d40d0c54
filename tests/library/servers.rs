//! Servers for `tests/library.rs`: `test-servers NAME ENDPOINT MODEL`.
//!
//! They must be programs of their own, because a server may not share a process with the threads
//! of the test harness. Each says on standard error what it has bound, and logs there.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use forkd::config::values::{LogFormat, LogLevel, LogSink};
use forkd_server::coroutine::{self, TcpStream};
use forkd_server::model::{Model, Threads};
use forkd_server::service::Exec;
use forkd_server::{Connection, Error, Handler, Opening, Peer, Protocol, Reply, Server, Service};

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

/// Panics or overflows its stack where the client wishes it, and echoes until then.
struct Fragile;

/// Goes on until there is no stack left.
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if frame[0] == u64::MAX { 0 } else { black_box(overflow(depth + 1)) + frame[1] }
}

impl Handler for Fragile {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut chunk = [0; 512];
        loop {
            let n = connection.read(&mut chunk)?;
            assert!(!chunk[..n].starts_with(b"panic"), "as was wished");
            if chunk[..n].starts_with(b"overflow") {
                overflow(0);
            }
            if n == 0 {
                return Ok(());
            }
            connection.write_all(&chunk[..n])?;
        }
    }
}

/// A client that says "wait" waits until another says "go", in the same process.
struct Turnstile;

static OPEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl Handler for Turnstile {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut text = [0; 4];
        let n = connection.read(&mut text)?;
        let mut open = OPEN.0.lock().map_err(|_| io::ErrorKind::Other)?;
        if text[..n] == *b"go" {
            *open = true;
            OPEN.1.notify_all();
        }
        while !*open {
            open = OPEN.1.wait(open).map_err(|_| io::ErrorKind::Other)?;
        }
        connection.write_all(&text[..n])
    }
}

/// Echoes, and gives its client a minute for each message.
struct Patient;

impl Protocol for Patient {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        Reply::Send(input)
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        Some(now + Duration::from_secs(60))
    }

    fn timed_out(&mut self) -> Reply<'_> {
        Reply::Finish(b"too late")
    }
}

/// The same as a protocol, which may not block, and so runs under every model.
struct Brittle;

impl Protocol for Brittle {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        assert!(!input.starts_with(b"panic"), "as was wished");
        Reply::Send(input)
    }
}

/// Has a thread of its own speak to its client, which says nothing.
struct Pushed;

impl Protocol for Pushed {
    fn opened(&mut self, opening: &Opening) {
        let writer = opening.writer();
        std::thread::spawn(move || {
            for number in 1..=3 {
                std::thread::sleep(Duration::from_millis(10));
                let _ = writer.write(format!("{number} by process {}\n", std::process::id()).as_bytes());
            }
            writer.finish();
        });
    }

    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
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

/// Answers each message with itself; where that begins with `sleep`, after a very long time, with `ask ADDRESS`
/// after an echo server has been asked, and with `deep` never, because its stack overflows.
struct Persistent;

impl Handler for Persistent {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut chunk = [0; 512];
        loop {
            let n = connection.read(&mut chunk)?;
            let text = std::str::from_utf8(&chunk[..n]).unwrap_or_default();
            match text.split_once(' ').unwrap_or((text, "")) {
                ("", _) => return Ok(()),
                ("sleep", _) => coroutine::sleep(Duration::from_secs(3600)),
                ("deep", _) => connection.write_all(&overflow(0).to_ne_bytes())?,
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

/// Says that it is here, and that the server stops when that is so.
fn attentive(connection: &mut Connection<'_>) -> io::Result<()> {
    connection.write_all(b"here\n")?;
    connection.set_read_timeout(Some(Duration::from_millis(5)))?;
    while !connection.server().is_stopping() {
        match connection.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return Ok(()),
        }
    }
    connection.write_all(b"the server stops\n")
}

fn service(name: &str) -> Service {
    match name {
        "attentive" => Service::handler("attentive", || attentive),
        "hooks" | "single" => Service::handler("obedient", || Obedient),
        "steps" => Service::handler("steps", || Steps { first: 0 }),
        "exec" => Exec::new(["sh", "-c", "read line; echo $PROTO $line"]).into(),
        "fragile" | "hasty" | "threads" | "elastic" => Service::handler("fragile", || Fragile),
        "turnstile" => Service::handler("turnstile", || Turnstile),
        "patient" => Service::protocol("patient", || Patient),
        "pushed" => Service::protocol("pushed", || Pushed),
        "brittle" => Service::protocol("brittle", || Brittle),
        "persistent" => Service::handler("persistent", || Persistent),
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
    let (model, threads) = match model.as_str() {
        "threads" => (Model::Thread, Threads::Fixed(4)),
        name => (name.parse().unwrap_or_else(|why| panic!("{why}")), Threads::default()),
    };
    forkd::log::init(LogSink::Stderr, LogLevel::Info, LogFormat::Text)?;
    if name == "threads" {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600)));
    }
    let mut server = Server::bind(endpoint)?.model(model).threads(threads).grace(Duration::from_secs(2));
    if model != Model::Fork && !matches!(name.as_str(), "hooks" | "single" | "threads")
        || model == Model::Prefork
    {
        server = server.workers(if matches!(model, Model::Prefork | Model::Event) { 2 } else { 1 });
    }
    if name == "hasty" {
        server = server.block_on_close(false);
    }
    if name == "elastic" {
        server = server.elastic_workers(1..=4).spare_workers(1..=2);
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
