//! Sockets that no program inherits, which may not block: in one call where the kernel can make them so, and else (macOS)
//! in two or three.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{FdFlags, Result, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketType, recvmsg,
};

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
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    #[cfg(target_vendor = "apple")]
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    if mode == Mode::NonBlocking {
        rustix::io::ioctl_fionbio(&socket, true)?;
    }
    Ok(socket)
}

/// Whether a stream socket listens for clients.
///
/// # Errors
///
/// As getsockopt(2).
pub fn is_listening(socket: impl AsFd) -> Result<bool> {
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::sockopt::socket_acceptconn(socket);
    // macOS has the name of that option and not the option: what has no other end is taken for one that listens
    #[cfg(target_vendor = "apple")]
    match rustix::net::getpeername(socket) {
        Err(rustix::io::Errno::NOTCONN) => Ok(true),
        other_end => other_end.map(|_| false),
    }
}

/// What has a descriptor that comes with bytes inherited by no program.
#[cfg(not(any(target_vendor = "apple", target_os = "illumos")))]
const CLOSE_AT_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(any(target_vendor = "apple", target_os = "illumos"))]
const CLOSE_AT_EXEC: RecvFlags = RecvFlags::empty();

/// Receives bytes over a Unix socket, and the descriptor that comes with them, if there is one: no program inherits it.
/// Returns how many bytes there are; 0 at the end. Of several descriptors, all but the first are closed.
///
/// # Errors
///
/// As recvmsg(2).
pub fn receive_with_descriptor(
    socket: impl AsFd,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags | CLOSE_AT_EXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.flatten().next();
    if CLOSE_AT_EXEC.is_empty()
        && let Some(descriptor) = &descriptor
    {
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok((received.bytes, descriptor))
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
