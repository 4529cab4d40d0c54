//! Connections that a server in its caller's process cuts, when the time is over that a stop leaves them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{Shutdown, shutdown};

use crate::slab::{Key, Slab};

/// Those that are open, each by a descriptor of its own: a thread that serves one has no other way to hear of the cut while it
/// waits for its client.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: Slab<OwnedFd>,
    /// There is no time left for further ones either.
    are_cut: bool,
}

/// A connection is open as long as this is there.
#[derive(Debug)]
pub(crate) struct Open {
    of: Arc<OpenConnections>,
    key: Key,
}

impl OpenConnections {
    /// Has a connection cut, if it is still open then; not so where there is no descriptor left for that.
    pub(crate) fn add(self: &Arc<Self>, socket: BorrowedFd<'_>) -> Option<Open> {
        let socket = socket.try_clone_to_owned().ok()?;
        let mut state = self.state();
        if state.are_cut {
            cut(&socket);
        }
        Some(Open { of: Arc::clone(self), key: state.open.insert(socket) })
    }

    /// Cuts them: reads find the end, writes fail.
    pub(crate) fn cut(&self) {
        let mut state = self.state();
        state.are_cut = true;
        state.open.iter_mut().for_each(|(_, socket)| cut(socket));
    }

    /// Nothing that is done under the lock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of.state().open.remove(self.key);
    }
}

fn cut(socket: &OwnedFd) {
    // it fails where the client has gone
    let _ = shutdown(socket, Shutdown::Both);
}
