//! Several pages at once, whose results come back by callback: Twisted's `getPage` with a `Deferred`.
//!
//!     cargo run --example page_fetches                     # from a server of its own
//!     cargo run --example page_fetches 127.0.0.1:80 / /index.html
//!
//! One thread makes all requests before the first answer is there.

use std::cell::Cell;
use std::time::{Duration, Instant};

use forkd_server::reactor::Reactor;
use forkd_server::service::Http;
use forkd_server::{Error, Peer, Protocol, Reply};

/// Asks for one page, and collects it.
struct Fetch {
    request: String,
    page: Vec<u8>,
}

impl Fetch {
    fn new(host: &str, path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Self { request, page: Vec::new() }
    }
}

impl Protocol for Fetch {
    fn connected(&mut self, _: Peer) -> Reply<'_> {
        Reply::Send(self.request.as_bytes())
    }

    fn received<'a>(&'a mut self, data: &'a [u8]) -> Reply<'a> {
        self.page.extend_from_slice(data);
        Reply::Wait
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let (host, mut paths): (Option<String>, Vec<String>) = (args.next(), args.collect());
    if host.is_none() {
        paths = ["/one", "/two", "/three"].map(Into::into).into();
    }
    let left = &Cell::new(paths.len());

    let mut reactor = Reactor::new()?;
    let host = match host {
        Some(host) => host,
        None => {
            let pages = Http::new().route("/one", || "first page\n").route("/two", || "second page\n");
            let listening = reactor.listen("tcp://127.0.0.1:0", move |_| pages.clone())?;
            let address: String = listening.endpoints().map(ToString::to_string).collect();
            address.trim_start_matches("tcp://").to_owned()
        }
    };
    let start = Instant::now();
    for path in &paths {
        reactor.connect(
            &format!("tcp://{host}"),
            Fetch::new(&host, path),
            move |reactor, fetch, outcome| {
                let status =
                    String::from_utf8_lossy(&fetch.page).lines().next().unwrap_or_default().to_owned();
                match outcome {
                    Ok(()) => println!("{path}: {} bytes, {status}", fetch.page.len()),
                    Err(error) => println!("{path}: {error}"),
                }
                left.set(left.get() - 1);
                if left.get() == 0 {
                    reactor.stop();
                }
            },
        )?;
    }
    println!("{} requests are on their way", paths.len());
    reactor.call_later(Duration::from_secs(30), Reactor::stop);
    reactor.run()?;
    println!("all came in {} ms", start.elapsed().as_millis());
    Ok(())
}
