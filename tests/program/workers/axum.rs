//! Answers by HTTP, with axum, on the socket that listenfd finds; says by sd-notify that it is ready. Leaves by SIGTERM.

use axum::Router;
use axum::routing::get;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> std::io::Result<()> {
    let number = std::env::var("FORKD_WORKER").unwrap_or_default();
    let listener = ListenFd::from_env().take_tcp_listener(0)?.ok_or(std::io::ErrorKind::NotFound)?;
    listener.set_nonblocking(true)?;
    let app = Router::new().route("/", get(async move || format!("axum {number}")));
    let serve = async {
        let mut terminated = signal(SignalKind::terminate())?;
        let listener = TcpListener::from_std(listener)?;
        sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("serving")])?;
        axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                terminated.recv().await;
            })
            .await
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve)
}
