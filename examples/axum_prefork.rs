//! axum in a pool of processes: a route that crashes costs the clients of one worker, which is replaced at once, and SIGHUP
//! has new workers in place of all without the loss of a request.
//!
//!     cargo run --example axum_prefork
//!     curl http://127.0.0.1:7007/           # which worker has answered
//!     curl http://127.0.0.1:7007/panic      # costs this connection: tokio catches it
//!     curl http://127.0.0.1:7007/abort      # costs this worker
//!     kill -HUP PID                         # the next generation of workers

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::serve::Listener;
use forkd_server::{Server, Worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7007".into());
    let server = Server::bind(&endpoint)?.workers(2);
    eprintln!("process {} is listening on {}", std::process::id(), server.server_address());
    // each worker has a runtime of its own, built after the fork
    server.run(|worker| Builder::new_current_thread().enable_all().build()?.block_on(serve(worker)))
}

async fn serve(worker: Worker) -> io::Result<()> {
    let listener = worker.tcp_listener()?;
    listener.set_nonblocking(true)?;
    let listener = UntilShutdown { listener: TcpListener::from_std(listener)?, worker: worker.clone() };
    let app = Router::new()
        .route("/", get(whoami))
        .route("/panic", get(panics))
        .route("/abort", get(aborts))
        .layer(from_fn_with_state(worker.clone(), counted))
        .with_state(worker.clone());
    worker.ready();
    axum::serve(listener, app).with_graceful_shutdown(has_heard_all(worker)).await
}

/// Accepts until the worker is to leave.
struct UntilShutdown {
    listener: TcpListener,
    worker: Worker,
}

impl Listener for UntilShutdown {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        tokio::select! {
            biased;
            () = self.worker.shutdown().requested() => pending().await,
            accepted = Listener::accept(&mut self.listener) => accepted,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// hyper's graceful shutdown closes a connection whose first request it has not read yet. So after the last client was
/// accepted, each has a moment to send that.
async fn has_heard_all(worker: Worker) {
    worker.shutdown().requested().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Has the master know of each request while it is served: the worker is busy then.
async fn counted(State(worker): State<Worker>, request: Request, next: Next) -> Response {
    let _counted = worker.connection();
    next.run(request).await
}

async fn whoami(State(worker): State<Worker>) -> String {
    let (number, generation, pid) = (worker.number(), worker.generation(), std::process::id());
    format!("worker {number} of generation {generation}, process {pid}\n")
}

async fn panics() -> String {
    panic!("as the client has asked for")
}

async fn aborts() -> String {
    std::process::abort()
}
