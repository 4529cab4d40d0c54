//! A slow client next to quick ones: which have to wait?
//!
//!     cargo run --example slow_client                      # iterative: they wait for the slow one
//!     cargo run --example slow_client thread               # they don't
//!
//! It starts a server, a client that takes half a second between its two lines, and five that say theirs at
//! once; and tells how long each of these took.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use forkd_server::model::Model;
use forkd_server::{Echo, Server};
use forkd_server::{Endpoint, Error, Service};

const PAUSE: Duration = Duration::from_millis(500);

/// Says one line and gets it back, then waits, then does the same again.
fn dialogue(server: TcpStream, pause: Duration) -> io::Result<()> {
    let mut answers = BufReader::new(&server);
    for line in ["hello\n", "goodbye\n"] {
        (&server).write_all(line.as_bytes())?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        thread::sleep(pause);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = match std::env::args().nth(1).as_deref() {
        Some("thread") => Model::Thread,
        _ => Model::Iterative,
    };
    let server = Server::bind("tcp://127.0.0.1:0")?.model(model);
    let Endpoint::Tcp { host, port } = server.server_address().clone() else { return Err("no TCP".into()) };
    let handle = server.handle();
    let serving = thread::spawn(move || -> Result<(), Error> { server.serve_forever(Service::from(Echo)) });

    let (started, has_started) = mpsc::channel();
    let connect = move || TcpStream::connect((host.as_str(), port));
    let slow = connect()?;
    let slow = thread::spawn(move || {
        let _ = started.send(());
        dialogue(slow, PAUSE)
    });
    has_started.recv()?;
    for number in 1..=5 {
        let start = Instant::now();
        dialogue(connect()?, Duration::ZERO)?;
        println!("{model}: quick client {number} took {} ms", start.elapsed().as_millis());
    }
    slow.join().map_err(|_| "the slow client panicked")??;
    handle.shutdown();
    serving.join().map_err(|_| "the server panicked")??;
    Ok(())
}
