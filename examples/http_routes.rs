//! A small threaded HTTP server with data routes, as the textbook makes it of `ThreadingMixIn` and `HTTPServer`.
//!
//!     cargo run --example http_routes                      # tcp://127.0.0.1:7014
//!     cargo run --example http_routes tcp://127.0.0.1:7014 ./docs
//!
//! Then `curl -i http://127.0.0.1:7014/time`, or a browser. With a directory it serves the files there, too. Ctrl-C
//! ends it. The same without a line of Rust: `forkd serve --service http --route /hello=Hello`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use forkd_server::model::Model;
use forkd_server::service::Http;
use forkd_server::{Error, Server};

/// All threads of the server see it: they are in this process.
static VISITS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7014".into());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut http = Http::new()
        .route("/now.json", move || format!("{{\"seconds\": {}}}\n", now()))
        .route("/visits", || format!("{}\n", VISITS.fetch_add(1, Ordering::Relaxed) + 1));
    if let Some(directory) = args.next() {
        http = http.root(directory)?;
    }
    let server = Server::bind(&endpoint)?.model(Model::Thread);
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(http)
}
