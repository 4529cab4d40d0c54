//! A socket at which programs tell how they are, as sd_notify(3) has them do: the other end of `NOTIFY_SOCKET`.
//!
//! Its name is a file, which every implementation of the protocol knows, or one of the abstract namespace, chosen by the
//! kernel (unix(7), "Autobind feature"), which some take for a path. Other processes may be able to write to it, so the kernel
//! says of each message who has sent it.
//!
//! Invariant: no descriptor that comes with a message is ever opened in this process.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many messages one call looks at, so that a flood of those of strangers keeps nobody from other work.
#[cfg(target_os = "linux")]
const AT_ONCE: usize = 16;

/// A socket of datagrams for messages of sd_notify(3). It blocks nobody, and closes at exec.
#[derive(Debug)]
pub struct NotifySocket(OwnedFd);

impl NotifySocket {
    /// Opens one whose name is this file. One that is left there of a socket that is closed is replaced; who removes it is the
    /// caller's affair.
    ///
    /// # Errors
    ///
    /// As socket(2), bind(2) and unlink(2): `AddrInUse` if it is another's that is open, or no socket, ENAMETOOLONG if
    /// the path is too long for an address; `Unsupported` where the system does not tell the sender (not Linux).
    #[cfg(target_os = "linux")]
    pub fn at(path: &Path) -> io::Result<Self> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::FileTypeExt;
        let name = UnixAddr::new(path)?;
        let stranger = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        match connect(stranger.as_raw_fd(), &name) {
            Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(nix::Error::ECONNREFUSED) if path.symlink_metadata()?.file_type().is_socket() => {
                std::fs::remove_file(path)?;
            }
            Err(_) => {}
        }
        Self::bound(&name)
    }

    /// The same.
    #[cfg(not(target_os = "linux"))]
    pub fn at(_path: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens one with a new name, which is no file.
    ///
    /// # Errors
    ///
    /// As socket(2) and bind(2); `Unsupported` where the system has no abstract names or does not tell the sender (not Linux).
    #[cfg(target_os = "linux")]
    pub fn without_file() -> io::Result<Self> {
        Self::bound(&nix::sys::socket::UnixAddr::new_unnamed())
    }

    /// The same.
    #[cfg(not(target_os = "linux"))]
    pub fn without_file() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(target_os = "linux")]
    fn bound(name: &nix::sys::socket::UnixAddr) -> io::Result<Self> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, setsockopt, socket, sockopt};
        use std::os::fd::AsRawFd;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // before it has a name by which anything can come
        setsockopt(&socket, sockopt::PassCred, &true)?;
        bind(socket.as_raw_fd(), name)?;
        Ok(Self(socket))
    }

    /// Its name in the form for `NOTIFY_SOCKET`: the path, or `@` and five hexadecimal digits.
    ///
    /// # Errors
    ///
    /// As getsockname(2), and `InvalidInput` if the socket has no such name: it was made of another descriptor.
    #[cfg(target_os = "linux")]
    pub fn name(&self) -> io::Result<OsString> {
        use nix::sys::socket::{UnixAddr, getsockname};
        use std::os::fd::AsRawFd;
        use std::os::unix::ffi::OsStringExt;
        let address: UnixAddr = getsockname(self.0.as_raw_fd())?;
        if let Some(path) = address.path() {
            return Ok(path.into());
        }
        let name = address.as_abstract().filter(|name| name.iter().all(u8::is_ascii_alphanumeric));
        let name = name.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(OsString::from_vec([b"@", name].concat()))
    }

    /// The same.
    #[cfg(not(target_os = "linux"))]
    pub fn name(&self) -> io::Result<OsString> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The file that is its name, if one is.
    pub fn file(&self) -> Option<PathBuf> {
        self.name().ok().map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The next message of a process that runs as root or as the (effective) user of this one; the others are passed over,
    /// and so is what is longer than the buffer. `None` if there is none now, or if there were many to pass over: then the
    /// socket stays readable. The descriptors that come with one (sd_notify_barrier(3), `FDSTORE=1`) are closed.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    #[cfg(target_os = "linux")]
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let ours = rustix::process::geteuid().as_raw();
        for _ in 0..AT_ONCE {
            match linux::receive(self.0.as_fd(), buffer) {
                Ok(Some((length, sender))) if sender == 0 || sender == ours => {
                    return Ok(Some(&buffer[..length]));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The same.
    #[cfg(not(target_os = "linux"))]
    pub fn receive<'b>(&self, _buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl From<OwnedFd> for NotifySocket {
    /// One that the program before this one has left open.
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl AsFd for NotifySocket {
    /// Is readable when there is a message.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::zeroed;
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::ptr;

    /// What the kernel says of the sender takes this much room.
    // SAFETY: CMSG_SPACE(3) computes with its argument alone.
    const ROOM: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

    /// Room for the credentials and nothing else, aligned as `cmsghdr` wants. The kernel writes them first, and closes the
    /// descriptors that it has no room for (unix(7), `SCM_RIGHTS`).
    #[repr(C, align(8))]
    struct Control([u8; ROOM]);

    /// Receives a message: its length, and the user that has sent it. `None` for one that was longer than the buffer.
    pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, u32)>> {
        let mut control = Control([0; ROOM]);
        let mut iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: msghdr consists of integers, and of pointers that may be null.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_iov = &raw mut iovec;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = ROOM as _;
        // never to wait, and no descriptor for other programs should there be one, against what is said above
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header points at live buffers of the lengths that it gives.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let is_whole = header.msg_flags & libc::MSG_TRUNC == 0;
        Ok(is_whole.then(|| sender(&header)).flatten().map(|sender| (length, sender)))
    }

    fn sender(header: &libc::msghdr) -> Option<u32> {
        // SAFETY: the kernel filled the control buffer and its length, and the first message lies inside, if there is one.
        let first = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
        let is_credentials = first.cmsg_level == libc::SOL_SOCKET && first.cmsg_type == libc::SCM_CREDENTIALS;
        // SAFETY: what has this type is a `ucred`, whole, as there was room for it; it may be unaligned.
        is_credentials
            .then(|| unsafe { ptr::read_unaligned(libc::CMSG_DATA(first).cast::<libc::ucred>()) }.uid)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{IoSlice, Read};
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

    use super::super::fd::wait_readable;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    /// A socket that sends to this one.
    fn sender(socket: &NotifySocket) -> UnixDatagram {
        let name = socket.name().expect("name");
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).expect("address");
        let sender = UnixDatagram::unbound().expect("socket");
        sender.connect_addr(&address).expect("connect");
        sender
    }

    fn receive(socket: &NotifySocket) -> Option<String> {
        let mut buffer = [0; 4096];
        let message = socket.receive(&mut buffer).expect("receive")?;
        Some(String::from_utf8(message.to_vec()).expect("text"))
    }

    fn has_systemd_notify() -> bool {
        Command::new("systemd-notify").arg("--version").output().is_ok_and(|said| said.status.success())
    }

    #[test]
    fn each_has_a_name_that_a_variable_can_hold() {
        let [one, other] = [(); 2].map(|()| NotifySocket::without_file().expect("socket"));
        let name = one.name().expect("name").into_string().expect("text");
        assert!(name.len() == 6 && name.starts_with('@'), "{name}");
        assert_ne!(other.name().expect("name"), *name);
        // what was left open goes on under its name
        assert_eq!(NotifySocket::from(one.0).name().expect("name"), *name);
        let nameless = UnixDatagram::unbound().expect("socket");
        assert!(NotifySocket::from(OwnedFd::from(nameless)).name().is_err());
    }

    #[test]
    fn one_may_be_a_file_which_replaces_what_is_left_there() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("0");
        let first = NotifySocket::at(&path).expect("socket");
        assert_eq!((first.name().expect("name"), first.file()), (path.clone().into(), Some(path.clone())));
        assert_eq!(NotifySocket::at(&path).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = NotifySocket::at(&path).expect("the file is left, and the socket closed");
        UnixDatagram::unbound().expect("socket").send_to(b"READY=1", &path).expect("send");
        assert_eq!(receive(&second).as_deref(), Some("READY=1"));
        assert_eq!(NotifySocket::without_file().expect("socket").file(), None);
    }

    #[test]
    fn what_can_t_be_a_name_is_refused_and_other_files_stay() {
        let dir = tempfile::tempdir().expect("directory");
        let longest = dir.path().join("x".repeat(107 - dir.path().as_os_str().len() - 1));
        assert_eq!(NotifySocket::at(&longest).expect("it fits").file(), Some(longest.clone()));
        assert!(NotifySocket::at(&longest.with_extension("x")).is_err(), "too long");
        assert!(NotifySocket::at(&dir.path().join("missing/0")).is_err());
        let other = dir.path().join("other");
        std::fs::write(&other, "text").expect("write");
        assert!(NotifySocket::at(&other).is_err());
        assert_eq!(std::fs::read_to_string(other).expect("read"), "text");
    }

    #[test]
    fn messages_come_in_order_and_long_ones_are_passed_over() {
        let socket = NotifySocket::without_file().expect("socket");
        assert_eq!(receive(&socket), None);
        let sender = sender(&socket);
        for message in ["READY=1", &"x".repeat(5000), "", "STATUS=a\nWATCHDOG=1"] {
            sender.send(message.as_bytes()).expect("send");
        }
        assert_eq!(receive(&socket).as_deref(), Some("READY=1"));
        assert_eq!(receive(&socket).as_deref(), Some(""));
        assert_eq!(receive(&socket).as_deref(), Some("STATUS=a\nWATCHDOG=1"));
        assert_eq!(receive(&socket), None);
    }

    #[test]
    fn a_descriptor_that_comes_with_one_is_closed() {
        let socket = NotifySocket::without_file().expect("socket");
        let sender = sender(&socket);
        let (mut read, write) = std::io::pipe().expect("pipe");
        let fds = [write.as_raw_fd(); 3];
        let message = [IoSlice::new(b"BARRIER=1")];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<UnixAddr>(sender.as_raw_fd(), &message, &rights, MsgFlags::empty(), None).expect("send");
        drop(write);
        // it is on its way
        assert!(!wait_readable(&read, Duration::ZERO));
        assert_eq!(receive(&socket).as_deref(), Some("BARRIER=1"));
        // the pipe is at its end: nobody has the other one
        assert!(wait_readable(&read, LIMIT));
        assert_eq!(read.read(&mut [0]).expect("read"), 0);
    }

    #[test]
    fn systemd_notify_is_heard_and_goes_on() {
        if !has_systemd_notify() {
            return;
        }
        let socket = NotifySocket::without_file().expect("socket");
        let mut command = Command::new("systemd-notify");
        command.args(["--ready", "--status=hello"]).env("NOTIFY_SOCKET", socket.name().expect("name"));
        let mut program = command.spawn().expect("spawn");
        assert!(wait_readable(&socket, LIMIT));
        let message = receive(&socket).expect("a message");
        assert!(message.contains("READY=1") && message.contains("STATUS=hello"), "{message}");
        // it waits until what it has sent is taken
        assert!(wait_readable(&socket, LIMIT));
        assert_eq!(receive(&socket).as_deref(), Some("BARRIER=1"));
        assert!(program.wait().expect("wait").success());
    }

    #[test]
    fn what_a_stranger_says_is_passed_over() {
        // only root can be somebody else
        if !has_systemd_notify() || !nix::unistd::geteuid().is_root() {
            return;
        }
        let socket = NotifySocket::without_file().expect("socket");
        let mut command = Command::new("systemd-notify");
        command.args(["--no-block", "READY=1"]).env("NOTIFY_SOCKET", socket.name().expect("name"));
        let stranger = command.uid(65534).gid(65534).current_dir("/").status().expect("run");
        assert!(stranger.success());
        assert!(wait_readable(&socket, Duration::ZERO), "it has come");
        assert_eq!(receive(&socket), None);
        assert!(!wait_readable(&socket, Duration::ZERO), "it has been taken");
    }

    #[test]
    fn the_crate_s_messages_are_taken() {
        use sd_notify::NotifyState;
        let socket = NotifySocket::without_file().expect("socket");
        let sender = sender(&socket);
        for state in [NotifyState::Ready, NotifyState::Status("up")] {
            sender.send(format!("{state}\n").as_bytes()).expect("send");
        }
        assert_eq!(receive(&socket).as_deref(), Some("READY=1\n"));
        assert_eq!(receive(&socket).as_deref(), Some("STATUS=up\n"));
    }
}
