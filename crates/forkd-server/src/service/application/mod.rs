//! Workers that run code of their own: a function of this program, or another program. They accept by themselves.
//!
//! The master does for them what it does for the pools of its own models, as far as that needs no knowledge of their
//! clients: it starts, replaces, renews, drains and ends them.

mod open_connection;
mod program;
mod shutdown;
#[cfg(feature = "tokio")]
mod tasks;
mod worker;

use std::sync::Arc;

pub use open_connection::OpenConnection;
pub use program::WorkerProgram;
pub use shutdown::Shutdown;
pub(crate) use worker::Board;
pub use worker::Worker;

/// What went wrong in the function of a worker: any error that may go from one thread to another.
///
/// ```
/// use forkd_server::{Worker, WorkerError};
///
/// fn serve(worker: Worker) -> Result<(), WorkerError> {
///     let port: u16 = std::env::var("UPSTREAM_PORT")?.parse()?;
///     while let Some((client, _)) = worker.accept_tcp()? {
///         // serve it with the help of what listens at that port
///         # drop((client, port));
///     }
///     Ok(())
/// }
/// ```
pub type WorkerError = Box<dyn std::error::Error + Send + Sync>;

/// What the function of a worker returns: nothing, or a [`Result`] without a value, whose error is logged and counts as
/// a failure of the worker.
///
/// ```no_run
/// use forkd_server::{Server, Worker};
///
/// Server::bind("tcp://127.0.0.1:7007")?.workers(2).run(|worker: Worker| worker.shutdown().wait())?;
/// Server::bind("tcp://127.0.0.1:7008")?.workers(2).run(|worker: Worker| {
///     let listener = worker.tcp_listener()?;
///     # drop(listener);
///     Ok::<(), forkd_server::Error>(())
/// })?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "the function of a worker returns `()` or `Result<(), E>`, and not `{Self}`",
    note = "E is any error that becomes a `Box<dyn std::error::Error + Send + Sync>`"
)]
pub trait WorkerOutcome {
    /// What has gone wrong, if anything.
    #[doc(hidden)]
    #[allow(clippy::missing_errors_doc)]
    fn into_result(self) -> Result<(), WorkerError>;
}

impl WorkerOutcome for () {
    fn into_result(self) -> Result<(), WorkerError> {
        Ok(())
    }
}

impl<E: Into<WorkerError>> WorkerOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), WorkerError> {
        self.map_err(Into::into)
    }
}

/// What workers run that accept by themselves.
#[derive(Clone)]
pub(crate) enum Application {
    /// A function of this program, called after the fork.
    Function(Arc<dyn Fn(Worker) -> Result<(), WorkerError> + Send + Sync>),
    /// Another program.
    Program(Arc<WorkerProgram>),
}
