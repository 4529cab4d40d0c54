//! A port forwarder: what a client sends goes to another server, and the answers come back. Either side may end its half
//! first, and neither is read more quickly than the other one takes it.
//!
//!     cargo run --example forwarder -- 127.0.0.1:7 event       # or coroutine, thread; tcp://127.0.0.1:7019
//!
//! Event has one thread with a reactor, in which each side writes to the other. Coroutine and thread have one of these
//! for each direction.

use std::cell::OnceCell;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread;

use forkd_server::model::Model;
use forkd_server::reactor::Reactor;
use forkd_server::{CloseReason, Connection, Opening, Protocol, Reply, Server, Service, Writer, coroutine};

/// One side of a tunnel.
#[derive(Default)]
struct Side {
    writer: Rc<OnceCell<Writer>>,
    /// The other side's.
    other: Rc<OnceCell<Writer>>,
}

impl Side {
    fn pair() -> (Self, Self) {
        let here = Self::default();
        let there = Self { writer: Rc::clone(&here.other), other: Rc::clone(&here.writer) };
        (here, there)
    }

    fn other(&self) -> &Writer {
        self.other.get_or_init(Writer::default)
    }
}

impl Protocol for Side {
    fn opened(&mut self, opening: &Opening) {
        // that of a connection that was made here is known already
        let _ = self.writer.set(opening.writer());
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        match self.other().write(input) {
            // more when the other side has taken this
            Ok(()) => Reply::WaitFor(self.other()),
            Err(_) => Reply::Finish(b""),
        }
    }

    /// Both directions at once, though one side may not read.
    fn listens(&self) -> bool {
        true
    }

    fn ended(&mut self) -> Reply<'_> {
        self.other().end();
        Reply::Wait
    }

    fn closed(&mut self, _: CloseReason<'_>) {
        self.other().finish();
    }
}

/// A client has come: connects to the server for it.
fn tunnel(reactor: &mut Reactor<'_>, server: &str) -> Side {
    let (client, far) = Side::pair();
    let connected = reactor.connect(server, far, |_, far, outcome| {
        if let Err(error) = outcome {
            eprintln!("the server: {error}");
            far.other().finish();
        }
    });
    let _ = client.other.set(connected.unwrap_or_default());
    client
}

/// By two threads for each client.
fn by_threads(connection: &mut Connection<'_>, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let mut client = connection.try_clone()?;
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            io::copy(&mut &server, &mut client)?;
            client.shutdown(Shutdown::Write)
        });
        io::copy(connection, &mut &server)?;
        server.shutdown(Shutdown::Write)?;
        answers.join().unwrap_or(Ok(()))
    })
}

/// By two coroutines for each client.
fn by_coroutines(connection: &mut Connection<'_>, server: SocketAddr) -> io::Result<()> {
    let server = Rc::new(coroutine::TcpStream::connect(server)?);
    let (answering, mut client) = (Rc::clone(&server), connection.try_clone()?);
    let answers = coroutine::spawn(move || {
        io::copy(&mut &*answering, &mut client)?;
        client.shutdown(Shutdown::Write)
    });
    io::copy(connection, &mut &*server)?;
    server.shutdown(Shutdown::Write)?;
    answers.join().unwrap_or(Ok(()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let to: SocketAddr = args.next().ok_or("name a server: 127.0.0.1:7")?.parse()?;
    let model: Model = args.next().as_deref().unwrap_or("event").parse()?;
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7019".into());
    if model == Model::Event {
        let mut reactor = Reactor::new()?;
        let server = format!("tcp://{to}");
        let listening = reactor.listen(&endpoint, move |reactor| tunnel(reactor, &server))?;
        listening.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
        return Ok(reactor.run()?);
    }
    let server = Server::bind(&endpoint)?.model(model);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    let forward = if model == Model::Coroutine { by_coroutines } else { by_threads };
    server.serve_forever(Service::handler("forwarder", move || {
        move |connection: &mut Connection<'_>| forward(connection, to)
    }))?;
    Ok(())
}
