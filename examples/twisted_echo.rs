//! Twisted's first example: an echo protocol, a factory, a reactor.
//!
//!     cargo run --example twisted_echo                     # tcp://127.0.0.1:7015
//!
//! Then netcat, as often as you like: one process, one thread. Ctrl-C ends it.
//!
//! | Twisted | here |
//! |---|---|
//! | `class Echo(protocol.Protocol)` | `impl Protocol for Echo` |
//! | `def dataReceived(self, data): self.transport.write(data)` | `received` returns `Reply::Send(data)` |
//! | `factory.protocol = Echo` | the closure that makes one |
//! | `reactor.listenTCP(8000, factory)`, `reactor.run()` | `reactor.listen("tcp://…", …)`, `reactor.run()` |

use forkd_server::reactor::Reactor;
use forkd_server::{Peer, Protocol, Reply};

struct Echo;

impl Protocol for Echo {
    fn connected(&mut self, peer: Peer) -> Reply<'_> {
        eprintln!("{peer} has come");
        Reply::Wait
    }

    fn received<'a>(&'a mut self, data: &'a [u8]) -> Reply<'a> {
        Reply::Send(data)
    }
}

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7015".into());
    let mut reactor = Reactor::new()?;
    let listening = reactor.listen(&endpoint, |_| Echo)?;
    listening.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    reactor.run()
}
