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
pub struct Shutdown {
    fd: Arc<ShutdownFd>,
    #[cfg(feature = "tokio")]
    tasks: Arc<super::tasks::Tasks>,
}

impl Shutdown {
    pub(super) fn new(shutdown: &Arc<ShutdownFd>) -> Self {
        Self {
            fd: Arc::clone(shutdown),
            #[cfg(feature = "tokio")]
            tasks: Arc::default(),
        }
    }

    /// The first socket of the worker, until that is to leave: then a call that waits for a client fails.
    pub(super) fn interrupted(&self) -> &ShutdownFd {
        &self.fd
    }

    /// Tells whether the worker is to leave.
    ///
    /// ```
    /// # fn serve(worker: forkd_server::Worker) {
    /// while !worker.shutdown().is_requested() {
    ///     // one round of work
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.fd.is_shut()
    }

    /// Waits until the worker is to leave. It blocks this thread.
    ///
    /// ```
    /// # fn serve(worker: forkd_server::Worker) {
    /// let shutdown = worker.shutdown().clone();
    /// std::thread::spawn(move || {
    ///     shutdown.wait();
    ///     println!("no more clients from here on");
    /// });
    /// # }
    /// ```
    pub fn wait(&self) {
        while !self.is_requested() {
            wait_readable(self.fd.poll_fd(), Duration::from_secs(3600));
        }
    }

    /// Waits until the worker is to leave, in a task of tokio. Any number of tasks may wait, at the price of one
    /// descriptor.
    ///
    /// ```no_run
    /// use forkd_server::{Server, Worker};
    ///
    /// async fn serve(worker: Worker) {
    ///     tokio::select! {
    ///         () = worker.shutdown().requested() => {}
    ///         () = accept_clients(&worker) => {}
    ///     }
    /// }
    /// # async fn accept_clients(_: &Worker) {}
    ///
    /// Server::bind("tcp://127.0.0.1:7007")?.workers(2).run(|worker| {
    ///     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    ///     runtime.block_on(serve(worker));
    ///     Ok::<(), std::io::Error>(())
    /// })?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Without a runtime of tokio, or where its I/O is not enabled, as all of tokio does. Also if the process has no
    /// descriptor left for the first task of a runtime that waits; so have one wait from the start.
    #[cfg(feature = "tokio")]
    pub async fn requested(&self) {
        if !self.is_requested() {
            self.tasks.wait(&self.fd).await;
        }
    }
}

impl AsFd for Shutdown {
    /// Becomes readable, for good, when the worker is to leave: for an event loop of any kind. Nothing may be read from it.
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    ///
    /// # fn serve(worker: forkd_server::Worker) -> std::io::Result<()> {
    /// let listener = worker.tcp_listener()?;
    /// let wait_for = |fd| PollFd::new(fd, PollFlags::POLLIN);
    /// let mut either = [wait_for(listener.as_fd()), wait_for(worker.shutdown().as_fd())];
    /// poll(&mut either, PollTimeout::NONE)?;
    /// # Ok(())
    /// # }
    /// ```
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.poll_fd()
    }
}
