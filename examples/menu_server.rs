//! The menu dialogue, by a child or by a thread for each client: what the textbook makes of `ForkingMixIn` and
//! `ThreadingMixIn`. Only one word differs.
//!
//!     cargo run --example menu_server                      # fork, tcp://127.0.0.1:7010
//!     cargo run --example menu_server thread
//!
//! Then `cargo run --example menu_client` in other terminals, or netcat. Ctrl-C ends it. The same without a
//! line of Rust is `forkd serve --service menu`.

use std::io::{self, BufRead, BufReader, Write};

use forkd::model::Model;
use forkd::{Connection, Handler, Server, Service};

struct Menu;

impl Handler for Menu {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let me = std::thread::current();
        let who = format!("process {}, thread {:?}", std::process::id(), me.name().unwrap_or("unnamed"));
        let (mut entries, mut answers) = (BufReader::new(&*connection), &*connection);
        writeln!(answers, "Welcome to connect 10086")?;
        let mut entry = String::new();
        while entries.read_line(&mut entry)? > 0 {
            match entry.trim() {
                "0" => writeln!(answers, "You are served by {who}")?,
                "exit" => return Ok(()),
                _ => writeln!(answers, "Please choose again")?,
            }
            entry.clear();
        }
        Ok(())
    }
}

fn main() -> Result<(), forkd::Error> {
    let mut args = std::env::args().skip(1);
    let model = match args.next().as_deref() {
        Some("thread") => Model::Thread,
        _ => Model::Fork,
    };
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7010".into());
    let server = Server::bind(&endpoint)?.model(model);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::handler("menu", || Menu))
}
