//! Sockets that no program inherits, which may not block: in one call where the kernel can make them so, and else (macOS)
//! in two or three.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Result;
use rustix::net::{AddressFamily, SendFlags, SocketType};

/// Whether calls on a socket wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They do.
    Blocking,
    /// They fail with `AGAIN` where they would.
    NonBlocking,
}

/// Writing to a connection that is closed is an error and no signal.
#[cfg(not(target_vendor = "apple"))]
pub const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// Writing to a connection that is closed is an error and no signal: here the socket itself has that property.
#[cfg(target_vendor = "apple")]
pub const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Makes a socket.
///
/// # Errors
///
/// As socket(2).
pub fn socket(family: AddressFamily, kind: SocketType, mode: Mode) -> Result<OwnedFd> {
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::socket_with(family, kind, flags(mode), None);
    #[cfg(target_vendor = "apple")]
    rustix::net::socket(family, kind, None).and_then(|socket| made(socket, mode))
}

/// What has a socket made so at once.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn flags(mode: Mode) -> rustix::net::SocketFlags {
    use rustix::net::SocketFlags;
    match mode {
        Mode::Blocking => SocketFlags::CLOEXEC,
        Mode::NonBlocking => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
    }
}

/// Makes it so afterwards. A program that another thread starts in between inherits it.
pub(super) fn made(socket: OwnedFd, mode: Mode) -> Result<OwnedFd> {
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    #[cfg(target_vendor = "apple")]
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    if mode == Mode::NonBlocking {
        rustix::io::ioctl_fionbio(&socket, true)?;
    }
    Ok(socket)
}

/// The process at the other end of a Unix socket, when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its pid; 0 where the system does not tell.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Asks for the other end of a connected Unix socket; `None` where the system does not tell.
// a function of its own would be one more window of text for each spare child to fault in
#[inline(always)]
pub fn credentials(socket: impl AsFd) -> Option<Credentials> {
    #[cfg(target_os = "linux")]
    {
        let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
        let pid = peer.pid.as_raw_nonzero().get().cast_unsigned();
        Some(Credentials { pid, uid: peer.uid.as_raw(), gid: peer.gid.as_raw() })
    }
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
    {
        let (uid, gid) = nix::unistd::getpeereid(socket).ok()?;
        Some(Credentials { pid: 0, uid: uid.as_raw(), gid: gid.as_raw() })
    }
    #[cfg(not(any(
        target_os = "linux",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd"
    )))]
    {
        let _ = socket;
        None
    }
}
