//! Socket files: bound, replaced where they are stale, and removed at the end.
//!
//! Invariant: only a file that no socket is bound to is replaced, and only the file that was examined is removed. A
//! path may lead to another file at any moment, and there is no unlink(2) of a certain inode. So a file is moved
//! aside first, where no other process knows its name, and put back if it turns out to be another one.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{UnixAddr, bind, connect};
use nix::sys::stat::{self, umask};
use rustix::net::{AddressFamily, SocketType};

use crate::sys::socket::{Mode, socket};

/// How long another process that starts may replace a stale file. It takes a moment, but anyone who can read a
/// directory can lock it.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is removed at the end, by the process that made it, if it still is the same file.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    identity: Identity,
    owner: u32,
}

impl SocketFile {
    /// Binds a socket to a path, in place of a file that no socket is bound to. The new file has this mode from the
    /// first moment on; `None` leaves it to the umask.
    ///
    /// # Errors
    ///
    /// `AddrInUse` where another socket is bound, `IsADirectory` and `AlreadyExists` where there is another kind of
    /// file, each with a sentence; else as bind(2).
    pub(super) fn bind(socket: &OwnedFd, path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let bind = || {
            // forkd has one thread, so no other thread is affected
            let before =
                mode.map(|mode| umask(stat::Mode::from_bits_truncate((!mode & 0o777) as libc::mode_t)));
            let bound = bind(socket.as_raw_fd(), &address);
            if let Some(before) = before {
                umask(before);
            }
            bound
        };
        match bind() {
            Err(Errno::EADDRINUSE) => {
                // One at a time, or the second would remove what the first has just bound.
                let _lock = lock_directory_of(path);
                remove_stale(path)?;
                bind()?;
            }
            bound => bound?,
        }
        let identity = Identity::of(&fs::symlink_metadata(path)?);
        Ok(Self { path: path.to_owned(), identity, owner: std::process::id() })
    }

    /// Which one it is, for a program that this process executes.
    pub(super) fn save(&self) -> (PathBuf, [u64; 2]) {
        (self.path.clone(), [self.identity.device, self.identity.inode])
    }

    /// That of the program before this one.
    pub(super) fn adopt(path: PathBuf, [device, inode]: [u64; 2]) -> Self {
        Self { path, identity: Identity { device, inode }, owner: std::process::id() }
    }

    /// Removes the file, if it is still that of this process.
    ///
    /// # Errors
    ///
    /// As rename(2) and unlink(2), where it may be out of reach.
    pub(super) fn remove(self) -> io::Result<()> {
        if std::process::id() == self.owner && self.is_there() {
            remove_exactly(&self.path, self.identity)?;
        }
        Ok(())
    }

    /// Changes the mode of the file, if it is still the one that was bound.
    ///
    /// # Errors
    ///
    /// `NotFound`, with a sentence, if it is not; else as chmod(2).
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        if !self.is_there() {
            return Err(io::Error::new(ErrorKind::NotFound, "the path leads to another file by now"));
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
    }

    fn is_there(&self) -> bool {
        // the socket is still bound, so its inode's number is no other file's
        let is_ours = |there: Metadata| Identity::of(&there) == self.identity;
        fs::symlink_metadata(&self.path).is_ok_and(is_ours)
    }
}

/// Which file it is, as long as it is kept from being removed: after that another may get the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// Waits for others that replace a file there; without the lock it goes on after a while.
fn lock_directory_of(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?).ok()?;
    let until = Instant::now() + REPLACE_TIMEOUT;
    while directory.try_lock().is_err() && Instant::now() < until {
        crate::sys::fd::pause(Duration::from_millis(5));
    }
    Some(directory)
}

/// Removes a socket file that no socket is bound to.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Some(file) = examine(path)? else { return Ok(()) };
    let refuse = |kind, why: &str| Err(io::Error::new(kind, why));
    let examined = file.metadata;
    if examined.is_dir() {
        return refuse(ErrorKind::IsADirectory, "it is a directory; name a file in it");
    }
    if !examined.file_type().is_socket() {
        return refuse(ErrorKind::AlreadyExists, "there is a file that is no socket; remove it");
    }
    if is_bound(path)? {
        return Err(ErrorKind::AddrInUse.into());
    }
    // If the path has led to the same file before and after, that is the one that was asked: a file that no socket is
    // bound to stays so.
    remove_exactly(path, Identity::of(&examined))
}

/// What a path leads to.
struct Examined {
    metadata: Metadata,
    /// Keeps the number of its inode from becoming another file's.
    _pin: Option<File>,
}

#[cfg(target_os = "linux")]
fn examine(path: &Path) -> io::Result<Option<Examined>> {
    use rustix::fs::{Mode, OFlags, open};
    match open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(pin) => {
            let pin = File::from(pin);
            Ok(Some(Examined { metadata: pin.metadata()?, _pin: Some(pin) }))
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Elsewhere a file can't be kept without opening it, which a socket's can't be.
#[cfg(not(target_os = "linux"))]
fn examine(path: &Path) -> io::Result<Option<Examined>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(Examined { metadata, _pin: None })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a socket is bound to the file, of whatever kind, and whether or not it listens yet: connect(2) of a
/// datagram socket fails with `EPROTOTYPE` for a stream's, and with `ECONNREFUSED` only where there is none. No
/// server notices.
fn is_bound(path: &Path) -> io::Result<bool> {
    let probe = socket(AddressFamily::UNIX, SocketType::DGRAM, Mode::NonBlocking)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        // EPERM: it has a peer already, and takes no datagrams of others
        Ok(()) | Err(Errno::EPROTOTYPE | Errno::EPERM) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the file that a path leads to if it is this one.
///
/// # Errors
///
/// `AddrInUse` if it is another one by now, which stays; else as rename(2) and unlink(2).
fn remove_exactly(path: &Path, identity: Identity) -> io::Result<()> {
    let aside = Aside::new(path)?;
    match fs::rename(path, &aside.file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        moved => moved?,
    }
    if Identity::of(&fs::symlink_metadata(&aside.file)?) == identity {
        return fs::remove_file(&aside.file);
    }
    rename_to_none(&aside.file, path)?;
    Err(ErrorKind::AddrInUse.into())
}

/// Moves a file to where no other is. If there is one, both stay where they are.
fn rename_to_none(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // a file system that can't
            Err(Errno::INVAL | Errno::NOSYS) => {}
            moved => return Ok(moved?),
        }
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// A place for one file beside it, on the same file system, of this process alone. It is removed unless the file is
/// still there.
struct Aside {
    directory: PathBuf,
    file: PathBuf,
}

impl Aside {
    fn new(path: &Path) -> io::Result<Self> {
        let mut number = 0_u32;
        loop {
            let mut directory = path.as_os_str().to_owned();
            directory.push(format!(".{}.{number}", std::process::id()));
            let directory = PathBuf::from(directory);
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(Self { file: directory.join("s"), directory }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn stream() -> OwnedFd {
        socket(AddressFamily::UNIX, SocketType::STREAM, Mode::Blocking).unwrap()
    }

    #[test]
    fn a_socket_is_known_before_it_listens_and_notices_nothing() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("s");
        let bound = stream();
        let file = SocketFile::bind(&bound, &path, None).unwrap();
        assert!(is_bound(&path).unwrap());
        assert_eq!(SocketFile::bind(&stream(), &path, None).unwrap_err().kind(), ErrorKind::AddrInUse);
        // the path becomes another's while ours is bound
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::from({
            let socket = stream();
            SocketFile::bind(&socket, &path, None).unwrap();
            nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
            socket
        });
        assert!(file.set_mode(0o600).is_err());
        file.remove().unwrap();
        drop(bound);
        assert!(UnixStream::connect(&path).is_ok(), "it is not ours to remove");
        assert!(is_bound(&path).unwrap());
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let (datagrams, peer) = (room.path().join("d"), room.path().join("p"));
        let (taken, other) = (UnixDatagram::bind(&datagrams).unwrap(), UnixDatagram::bind(&peer).unwrap());
        taken.connect(&peer).unwrap();
        assert!(is_bound(&datagrams).unwrap() && is_bound(&peer).unwrap());
        drop((taken, other));
        assert!(!is_bound(&datagrams).unwrap() && !is_bound(&peer).unwrap());
    }

    #[test]
    fn a_file_that_has_come_meanwhile_is_put_back() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let stale = examine(&path).unwrap().unwrap();
        assert!(!is_bound(&path).unwrap());
        // another daemon replaces it, which does not know our lock
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        let error = remove_exactly(&path, Identity::of(&stale.metadata)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_of_a_stranger_only_delays() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let strangers = File::open(room.path()).unwrap();
        strangers.lock().unwrap();
        SocketFile::bind(&stream(), &path, None).unwrap();
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
    }
}
