//! A TCP echo by tokio in a pool of processes: a task for each client, and a runtime for each worker.
//!
//! A worker that is to leave, at a stop or at SIGHUP, accepts no more clients, and goes when the last one that it has has gone.
//!
//!     cargo run --example tokio_echo
//!     nc 127.0.0.1 7007

use std::io;

use forkd_server::{OpenConnection, Server, Worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7007".into());
    let server = Server::bind(&endpoint)?.workers(2);
    eprintln!("process {} is listening on {}", std::process::id(), server.server_address());
    server.run(|worker| Builder::new_current_thread().enable_all().build()?.block_on(serve(worker)))
}

async fn serve(worker: Worker) -> io::Result<()> {
    let listener = worker.tcp_listener()?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut clients = JoinSet::new();
    worker.ready();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                clients.spawn(echo(accepted?.0, worker.connection()));
            }
            // the set is kept to those that are there
            Some(_) = clients.join_next() => {}
            () = worker.shutdown().requested() => break,
        }
    }
    drop(listener);
    clients.join_all().await;
    Ok(())
}

/// Sends back what comes, until the client ends; the master counts it as long.
async fn echo(mut client: TcpStream, counted: OpenConnection) -> io::Result<()> {
    let _counted = counted;
    let (mut reader, mut writer) = client.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    Ok(())
}
