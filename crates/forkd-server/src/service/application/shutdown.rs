//! How a worker that runs code of its own is told to leave.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::fd::wait_readable;
use crate::sys::shutdown_fd::ShutdownFd;

/// Tells a [`Worker`](super::Worker) that it is to leave: it accepts no more clients, finishes those that it has, and
/// returns from its function. Cloning is cheap.
///
/// The master asks for that by SIGTERM: at a stop, when it renews its workers, or when it has more than it needs. A
/// worker that takes longer than [`grace`](crate::Server::grace) is killed. The signal's handler belongs to the worker:
/// a program that installs its own for SIGTERM hears of the shutdown by that alone.
///
/// # Examples
///
/// ```no_run
/// use std::io::Write;
/// use forkd_server::{Server, Worker};
///
/// Server::bind("tcp://127.0.0.1:7007")?.workers(2).run(|worker: Worker| {
///     let listener = worker.tcp_listener()?;
///     // a thread accepts, and this one waits
///     std::thread::spawn(move || {
///         for client in listener.incoming().flatten() {
///             let _ = writeln!(&client, "hello");
///         }
///     });
///     worker.shutdown().wait();
///     Ok::<(), std::io::Error>(())
/// })?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<ShutdownFd>);

impl Shutdown {
    pub(super) fn new(shutdown: &Arc<ShutdownFd>) -> Self {
        Self(Arc::clone(shutdown))
    }

    /// The first socket of the worker, until that is to leave: then a call that waits for a client fails.
    pub(super) fn interrupted(&self) -> &ShutdownFd {
        &self.0
    }

    /// Tells whether the worker is to leave.
    ///
    /// ```no_run
    /// # fn serve(worker: forkd_server::Worker) {
    /// while !worker.shutdown().is_requested() {
    ///     // one round of work
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_shut()
    }

    /// Waits until the worker is to leave. It blocks this thread.
    pub fn wait(&self) {
        while !self.is_requested() {
            wait_readable(self.0.poll_fd(), Duration::from_secs(3600));
        }
    }

    /// Waits until the worker is to leave, for a program with a runtime of tokio. Must be called within one.
    ///
    /// # Errors
    ///
    /// If the descriptor can't be registered: there is no runtime here, or its I/O driver is not enabled.
    #[cfg(feature = "tokio")]
    pub async fn requested(&self) -> std::io::Result<()> {
        let descriptor = tokio::io::unix::AsyncFd::register_with_interest(
            self.0.poll_fd().try_clone_to_owned()?,
            tokio::io::Interest::READABLE,
        )?;
        while !self.is_requested() {
            descriptor.readable().await?.clear_ready();
        }
        Ok(())
    }
}

impl AsFd for Shutdown {
    /// Becomes readable, for good, when the worker is to leave: for an event loop of any kind. Nothing may be read from it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.poll_fd()
    }
}
