//! A pool whose workers accept by themselves, one client at a time: the loop that one writes first, in four processes that
//! are supervised, replaced when they crash, and renewed at SIGHUP without the loss of a client.
//!
//!     cargo run --example worker_loop
//!     nc 127.0.0.1 7007

use std::io::{BufRead, BufReader, Write};

use forkd_server::{Server, Worker};

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7007".into());
    let server = Server::bind(&endpoint)?.workers(4);
    eprintln!("process {} is listening on {}", std::process::id(), server.server_address());
    server.run(serve)
}

fn serve(worker: Worker) -> std::io::Result<()> {
    worker.ready();
    while let Some((client, _)) = worker.accept_tcp()? {
        let _counted = worker.connection();
        // a client that goes away is no error of the worker
        let _ = answer(&worker, client);
    }
    Ok(())
}

/// Sends back each line, with the worker that has read it.
fn answer(worker: &Worker, mut client: std::net::TcpStream) -> std::io::Result<()> {
    for line in BufReader::new(client.try_clone()?).lines() {
        writeln!(client, "worker {} of generation {}: {}", worker.number(), worker.generation(), line?)?;
    }
    Ok(())
}
