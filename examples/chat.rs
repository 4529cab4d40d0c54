//! A chat: each line goes to all others. A client that does not read is put out, and holds up nobody.
//!
//!     cargo run --example chat -- event                    # or coroutine, thread; tcp://127.0.0.1:7017
//!
//! Then netcat in several terminals. Under all three models the clients share one process, and so one room; with a
//! process for each (fork), or several that accept (prefork), each would have a room of its own.

use std::sync::{Arc, Mutex, PoisonError};

use forkd_server::model::Model;
use forkd_server::{CloseReason, Error, Opening, Peer, Protocol, Reply, Server, Service, WriteError, Writer};

/// The longest line; what is longer is not waited for.
const LONGEST: usize = 4096;

/// Those who are there, whichever thread serves them.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Writer>>>);

impl Room {
    fn enter(&self, member: Writer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(member);
    }

    /// Says something to all but the one who has said it.
    fn say(&self, text: &str, speaker: &Writer) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| {
            if member == speaker {
                return true;
            }
            let said = member.write(text.as_bytes());
            if said == Err(WriteError::Full) {
                member.abort();
            }
            said.is_ok()
        });
    }
}

struct Member {
    room: Room,
    name: String,
    writer: Writer,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

impl Member {
    fn new(room: &Room) -> Self {
        Self { room: room.clone(), name: String::new(), writer: Writer::default(), line: Vec::new() }
    }
}

impl Protocol for Member {
    fn opened(&mut self, opening: &Opening) {
        self.writer = opening.writer();
    }

    fn connected(&mut self, peer: Peer) -> Reply<'_> {
        self.name = peer.to_string();
        self.room.enter(self.writer.clone());
        self.room.say(&format!("* {} has come\n", self.name), &self.writer);
        Reply::Send(b"* welcome\n")
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        for piece in input.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let text = String::from_utf8_lossy(&self.line);
                self.room.say(&format!("<{}> {}\n", self.name, text.trim_end()), &self.writer);
                self.line.clear();
            } else if self.line.len() > LONGEST {
                return Reply::Finish(b"* no line is so long\n");
            }
        }
        Reply::Wait
    }

    fn closed(&mut self, reason: CloseReason<'_>) {
        self.room.say(&format!("* {} has gone: {reason}\n", self.name), &self.writer);
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let model = args.next().map_or(Ok(Model::Event), |name| name.parse());
    let model = model.map_err(|error| Error::Usage(error.to_string()))?;
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7017".into());
    let server = Server::bind(&endpoint)?.model(model);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    let room = Room::default();
    server.serve_forever(Service::protocol("chat", move || Member::new(&room)))
}
