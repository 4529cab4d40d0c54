//! A server whose clients are served by coroutines: gevent's `StreamServer`.
//!
//!     cargo run --example coroutine_server                 # tcp://127.0.0.1:7016
//!
//! Then netcat from several terminals. All clients share one thread, though the handler is written as if it
//! blocked, and takes its time for each line. Ctrl-C ends it.

use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

use forkd_server::coroutine::sleep;
use forkd_server::model::Model;
use forkd_server::{Connection, Handler, Server, Service};

struct Greeter;

impl Handler for Greeter {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let (mut lines, mut answers) = (BufReader::new(&*connection), &*connection);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            // others are served meanwhile
            sleep(Duration::from_millis(20));
            write!(answers, "{}: {line}", connection.peer())?;
            line.clear();
        }
        Ok(())
    }
}

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7016".into());
    let server = Server::bind(&endpoint)?.model(Model::Coroutine);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::handler("greeter", || Greeter))
}
