//! How tasks of tokio wait for the shutdown of their worker.
//!
//! The tasks of a runtime share one registration: a worker may have a task for each client, and each of them wait.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::net::unix::pipe::Receiver;
use tokio::runtime::{Handle, Id};

use crate::sys::shutdown_fd::ShutdownFd;

/// The registrations that tasks wait by now: one for each runtime.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<Vec<(Id, Weak<Receiver>)>>);

impl Tasks {
    /// Waits, in a task.
    pub(super) async fn wait(&self, shutdown: &ShutdownFd) {
        let registered = match self.registered(shutdown) {
            Ok(registered) => registered,
            Err(error) => panic!("cannot wait for the shutdown of the worker: {error}"),
        };
        // an error says that the runtime ends, and with it the task
        let _ = registered.readable().await;
    }

    fn registered(&self, shutdown: &ShutdownFd) -> io::Result<Arc<Receiver>> {
        let runtime = Handle::current().id();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, registered)| registered.strong_count() > 0);
        let of_this = all.iter().find(|(of, _)| *of == runtime);
        if let Some(registered) = of_this.and_then(|(_, registered)| registered.upgrade()) {
            return Ok(registered);
        }
        // it is a pipe, at its end from the shutdown on
        let copy = shutdown.poll_fd().try_clone_to_owned()?;
        let registered = Arc::new(Receiver::from_owned_fd(copy)?);
        all.push((runtime, Arc::downgrade(&registered)));
        Ok(registered)
    }
}
