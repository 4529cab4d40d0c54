//! Clients that hear something without asking: every second, from one thread, the number of seconds.
//!
//!     cargo run --example ticker -- event                  # or coroutine, thread; tcp://127.0.0.1:7018
//!
//! Then netcat, as often as you like. Who doesn't read misses ticks, and delays none of another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forkd_server::model::Model;
use forkd_server::{Error, Opening, Protocol, Reply, Server, Service, WriteError, Writer};

/// Those who listen.
type Audience = Arc<Mutex<Vec<Writer>>>;

struct Listener(Audience);

impl Protocol for Listener {
    fn opened(&mut self, opening: &Opening) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(opening.writer());
    }

    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
    }
}

fn tick(audience: &Audience, pause: Duration) {
    for number in 1_u64.. {
        std::thread::sleep(pause);
        let text = format!("tick {number}\n");
        let mut audience = audience.lock().unwrap_or_else(PoisonError::into_inner);
        // for who doesn't read there may be room at the next tick
        audience.retain(|listener| listener.write(text.as_bytes()) != Err(WriteError::Closed));
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let model = args.next().map_or(Ok(Model::Event), |name| name.parse());
    let model = model.map_err(|error| Error::Usage(error.to_string()))?;
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7018".into());
    let pause = args.next().and_then(|millis| millis.parse().ok()).unwrap_or(1000);
    let server = Server::bind(&endpoint)?.model(model);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    let audience = Audience::default();
    let listeners = Arc::clone(&audience);
    std::thread::spawn(move || tick(&audience, Duration::from_millis(pause)));
    server.serve_forever(Service::protocol("ticker", move || Listener(Arc::clone(&listeners))))
}
