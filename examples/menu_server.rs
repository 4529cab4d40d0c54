//! The menu dialogue, by a child or by a thread for each client: what the textbook makes of `ForkingMixIn` and
//! `ThreadingMixIn`. Only one word differs, and the other models serve it as well.
//!
//!     cargo run --example menu_server                      # fork, tcp://127.0.0.1:7010
//!     cargo run --example menu_server thread
//!
//! Then `cargo run --example menu_client` in other terminals, or netcat. Ctrl-C ends it.

use forkd_server::model::Model;
use forkd_server::{Error, Peer, Protocol, Reply, Server, Service};

/// Greets, and answers each line that is entered, until that is "exit".
#[derive(Default)]
struct Menu {
    /// The beginning of a line whose end has not come.
    entry: Vec<u8>,
    answers: String,
}

/// An entry is no longer than that: what is longer is taken in pieces.
const LONGEST: usize = 4096;

impl Menu {
    /// Answers an entry; false if it ends the dialogue.
    fn answer(&mut self) -> bool {
        let entry = String::from_utf8_lossy(&self.entry).trim().to_owned();
        self.entry.clear();
        match &*entry {
            "0" => {
                let thread = std::thread::current();
                let (process, thread) = (std::process::id(), thread.name().unwrap_or("unnamed"));
                self.answers += &format!("You are served by process {process}, thread {thread:?}\n");
            }
            "exit" => return false,
            _ => self.answers += "Please choose again\n",
        }
        true
    }
}

impl Protocol for Menu {
    fn connected(&mut self, _: Peer) -> Reply<'_> {
        Reply::Send(b"Welcome to connect 10086\n")
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.answers.clear();
        for &byte in input {
            if byte != b'\n' {
                self.entry.push(byte);
            }
            if (byte == b'\n' || self.entry.len() == LONGEST) && !self.answer() {
                return Reply::Finish(self.answers.as_bytes());
            }
        }
        if self.answers.is_empty() { Reply::Wait } else { Reply::Send(self.answers.as_bytes()) }
    }

    /// The textbook's client sends its last entry without the end of a line.
    fn ended(&mut self) -> Reply<'_> {
        self.answers.clear();
        if !self.entry.is_empty() {
            self.answer();
        }
        Reply::Finish(self.answers.as_bytes())
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let model = args.next().map_or(Ok(Model::Fork), |name| name.parse());
    let model = model.map_err(|error| Error::Usage(error.to_string()))?;
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7010".into());
    let server = Server::bind(&endpoint)?.model(model);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::protocol("menu", Menu::default))
}
