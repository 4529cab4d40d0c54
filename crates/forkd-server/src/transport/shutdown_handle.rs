//! Asks a server to end, from anywhere.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::sys::fd::wait_readable;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::sys::wake::Wake;

/// Ends a server from anywhere: another thread, a handler, a forked child. See
/// [`Server::handle`](crate::Server::handle).
///
/// # Examples
///
/// ```
/// use forkd_server::{Echo, Server, model::Model};
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
/// let handle = server.handle();
/// let serving = std::thread::spawn(move || server.serve_forever(Echo));
/// handle.shutdown();
/// serving.join().unwrap()?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Clone)]
pub struct Handle(Arc<Shutdown>);

struct Shutdown {
    /// Notified once and never drained. A child's copy is the same eventfd or pipe.
    wake: Wake,
    /// What is shut in this process.
    fds: Mutex<Vec<Weak<ShutdownFd>>>,
}

impl Handle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shutdown { wake: Wake::new()?, fds: Mutex::default() })))
    }

    /// Asks the server to end, and returns at once: no further client is accepted, those that are
    /// served are finished within [`grace`](crate::Server::grace), and [`serve_forever`](crate::Server::serve_forever) returns. It
    /// may be called
    /// before that, too, which then returns at once; a second time, it has no effect.
    ///
    /// It takes a lock, so it is nothing for a signal handler.
    ///
    /// A server that forks does what SIGTERM asks of it: it also serves the clients in the queue.
    pub fn shutdown(&self) {
        self.0.wake.notify();
        self.fds().iter().filter_map(Weak::upgrade).for_each(|shutdown| shutdown.shut_for_all());
    }

    /// Whether the server has been asked to end.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?;
    /// let handle = server.handle();
    /// assert!(!handle.is_shut_down());
    /// handle.shutdown();
    /// assert!(handle.is_shut_down());
    /// // it returns at once
    /// server.model(forkd_server::model::Model::Iterative).serve_forever(forkd_server::Echo)?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        wait_readable(&self.0.wake, Duration::ZERO)
    }

    /// Has a shutdown shut this descriptor.
    pub(crate) fn shuts(&self, shutdown: &Arc<ShutdownFd>) {
        let mut fds = self.fds();
        fds.retain(|shutdown| shutdown.strong_count() > 0);
        fds.push(Arc::downgrade(shutdown));
        drop(fds);
        // one that came before the descriptor was there
        if self.is_shut_down() {
            shutdown.shut_for_all();
        }
    }

    /// Is readable once the server has been asked to end.
    pub(crate) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }

    fn fds(&self) -> std::sync::MutexGuard<'_, Vec<Weak<ShutdownFd>>> {
        self.0.fds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("is_shut_down", &self.is_shut_down()).finish()
    }
}
