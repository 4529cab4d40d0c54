//! Bound sockets, our own and inherited ones.
//!
//! Invariant: a [`Listener`] is ready to be polled, accepted from or received from; `bind` has set
//! all that its connections need (TCP_NODELAY, packet information), which they inherit.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::{Endpoint, Peer};

/// What comes out of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections.
    Stream,
    /// Datagrams.
    Datagram,
}

/// A bound socket, and how to name it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) kind: Kind,
    pub(super) endpoint: Endpoint,
    pub(super) file: Mutex<Option<SocketFile>>,
    /// Others have this socket, too, or will.
    pub(super) is_inherited: bool,
}

/// What is removed at the end, by the process that made it, if it still is the same file.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) owner: u32,
}

impl Listener {
    /// A socket that somebody else has bound, and that stays theirs.
    pub(super) fn inherited(socket: OwnedFd, kind: Kind, endpoint: Endpoint) -> Self {
        Self { socket, kind, endpoint, file: Mutex::default(), is_inherited: true }
    }

    /// Whether the socket goes on without this process: who is queued there at a stop is left to
    /// whoever serves it next.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What the socket is really bound to, with the port that the kernel chose.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether datagrams are of Unix sockets, where a slow reader makes the sender wait.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.endpoint, Endpoint::Unix(_) | Endpoint::Unixgram(_))
    }

    /// The UDP port, if it is a UDP socket.
    pub(crate) fn udp_port(&self) -> Option<u16> {
        if let Endpoint::Udp { port, .. } = self.endpoint { Some(port) } else { None }
    }

    /// Accepts one connection, with who is at its other end.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub(crate) fn accept(&self, gate: impl AsFd) -> rustix::io::Result<(OwnedFd, Peer)> {
        let accepted = self.accept_with(gate, SocketFlags::CLOEXEC)?;
        // the BSDs hand O_NONBLOCK down from the listener
        #[cfg(not(target_os = "linux"))]
        let _ = crate::sys::fd::set_nonblocking(&accepted.0, false);
        Ok(accepted)
    }

    /// As [`accept`](Self::accept), but the connection does not block.
    pub(crate) fn accept_nonblocking(&self, gate: impl AsFd) -> rustix::io::Result<(OwnedFd, Peer)> {
        self.accept_with(gate, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    #[inline]
    fn accept_with(&self, gate: impl AsFd, flags: SocketFlags) -> rustix::io::Result<(OwnedFd, Peer)> {
        let (connection, address) = acceptfrom_with(gate, flags)?;
        let peer = Peer::of(&connection, address, self.is_unix());
        Ok((connection, peer))
    }

    /// Takes no more clients, in no process: who tries is refused at once. An inherited socket is not
    /// ours to shut.
    pub(crate) fn refuse(&self) {
        if self.kind == Kind::Stream && !self.is_inherited {
            // it fails only where the socket listens no more
            let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
        }
        self.remove_file();
    }

    pub(super) fn file(&self) -> MutexGuard<'_, Option<SocketFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the socket file, if it still is the one that was bound here.
    fn remove_file(&self) {
        let Some(file) = self.file().take() else { return };
        let still_ours = |there: fs::Metadata| (there.dev(), there.ino()) == (file.device, file.inode);
        if std::process::id() != file.owner || !fs::symlink_metadata(&file.path).is_ok_and(still_ours) {
            return;
        }
        // After a change of user or root it may be out of reach; the next start replaces it.
        if let Err(error) = fs::remove_file(&file.path) {
            log::debug!(path:% = file.path.display(), error:%; "cannot remove the socket file");
        }
    }
}

/// Errors of accept(2) that concern one connection only: the next one may be fine.
///
/// Linux passes on errors that were already pending on the new socket (accept(2), "Error handling").
pub(crate) fn concerns_one_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::INTR
            | Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::TIMEDOUT
            | Errno::PERM
    )
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}
