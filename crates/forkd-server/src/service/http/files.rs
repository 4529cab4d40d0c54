//! The files below one directory, and no others.
//!
//! Invariant: a path is followed from a descriptor of the directory and never out of it, and through no name that
//! is hidden, whatever changes meanwhile. Only regular files are opened: to open a FIFO wakes its writer, and a
//! device may do anything.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, statat};
use rustix::io::Errno;

use super::version::Moment;
use super::walk::walk;
use crate::sys;

/// No read waits, even if a FIFO has just taken the place of a file.
pub(super) const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory is only gone through: it need not be readable.
#[cfg(target_os = "linux")]
pub(super) const PASS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);
#[cfg(not(target_os = "linux"))]
pub(super) const PASS: OFlags = READ.union(OFlags::DIRECTORY);

/// How a name is looked at.
#[cfg(target_os = "linux")]
const LOOK: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);
#[cfg(not(target_os = "linux"))]
const LOOK: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

/// What there is under a path.
// it is taken apart where it is returned to
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum Found {
    File {
        file: File,
        stat: Stat,
        /// When the last of the links was made that led to it.
        led_there: Option<Moment>,
    },
    Directory,
    /// A FIFO, a socket, a device.
    Special,
}

/// Why there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// A link leads to what begins with a dot.
    Hidden,
    Os(Errno),
}

impl From<Errno> for Absent {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

/// The device and the number of an inode: no other file has them while this one is open.
pub(super) type Identity = (u64, u64);

// the types differ between systems
#[allow(clippy::unnecessary_cast)]
pub(super) fn identity(stat: &Stat) -> Identity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

#[allow(clippy::unnecessary_cast)]
pub(super) fn changed(stat: &Stat) -> Moment {
    (stat.st_ctime as i64, stat.st_ctime_nsec as i64)
}

#[allow(clippy::unnecessary_cast)]
pub(super) fn written(stat: &Stat) -> Moment {
    (stat.st_mtime as i64, stat.st_mtime_nsec as i64)
}

#[allow(clippy::unnecessary_cast)]
pub(super) fn size(stat: &Stat) -> u64 {
    stat.st_size as u64
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Finds what is there under a path of segments that are neither empty nor hidden, with slashes in between.
pub(super) fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<Found, Absent> {
    let found = if sys::portable() { Err(Errno::NOSYS) } else { direct(root, path) };
    match found {
        // there is a link; or it is a kernel before 5.6, or a container whose filter does not know the call
        Err(errno) if errno == Errno::LOOP || sys::calls::is_forbidden(errno) => walk(root, path),
        found => Ok(found?),
    }
}

/// By openat2(2), if there is no link on the way.
#[cfg(target_os = "linux")]
fn direct(root: BorrowedFd<'_>, path: &[u8]) -> Result<Found, Errno> {
    found_by(root, path, |flags| open_beneath(root, path, flags))
}

#[cfg(not(target_os = "linux"))]
fn direct(_: BorrowedFd<'_>, _: &[u8]) -> Result<Found, Errno> {
    Err(Errno::NOSYS)
}

#[cfg(target_os = "linux")]
fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// Opens a regular file below `root` if it is the one that has this full name as well, which costs one system call
/// less than to look up the root. Anything else is found in another way.
#[cfg(target_os = "linux")]
pub(super) fn same_file(root: BorrowedFd<'_>, path: &[u8], full: &[u8]) -> Option<Found> {
    let named = statat(CWD, full, LOOK).ok()?;
    if sys::portable() || kind(&named) != FileType::RegularFile {
        return None;
    }
    let file = File::from(open_beneath(root, path, READ).ok()?);
    let stat = fstat(&file).ok()?;
    (identity(&stat) == identity(&named)).then_some(Found::File { file, stat, led_there: None })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn same_file(_: BorrowedFd<'_>, _: &[u8], _: &[u8]) -> Option<Found> {
    None
}

// only what is no error of the system has no number
#[allow(clippy::needless_pass_by_value)]
pub(super) fn os(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Looks before it opens; what it opens is looked at once more.
pub(super) fn found_by(
    directory: impl AsFd,
    name: &[u8],
    open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<Found, Errno> {
    match kind(&statat(&directory, name, LOOK)?) {
        FileType::Symlink => return Err(Errno::LOOP),
        FileType::Directory => return open(PASS).map(|_| Found::Directory),
        FileType::RegularFile => {}
        _ => return Ok(Found::Special),
    }
    let file = File::from(open(READ)?);
    let stat = fstat(&file)?;
    let is_file = kind(&stat) == FileType::RegularFile;
    Ok(if is_file { Found::File { file, stat, led_there: None } } else { Found::Special })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use rustix::fs::openat;

    use super::*;

    type Way = fn(BorrowedFd<'_>, &[u8]) -> Result<Found, Absent>;

    const WAYS: [Way; 2] = [walk, find];

    /// A directory beside a secret.
    fn site() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub/deep")).expect("directories");
        fs::create_dir_all(root.join(".git")).expect("directories");
        fs::create_dir_all(root.join(".well-known")).expect("directories");
        fs::write(root.join("sub/deep/a"), "inside").expect("file");
        fs::write(root.join(".git/config"), "hidden").expect("file");
        fs::write(root.join(".well-known/a"), "known").expect("file");
        fs::write(dir.path().join("secret"), "outside").expect("file");
        for (target, link) in [
            ("/etc/passwd", "absolute"),
            ("../../secret", "sub/relative"),
            ("..", "up"),
            ("..", "sub/up"),
            ("sub/deep/a", "within"),
            ("sub/../sub/./deep//a", "winding"),
            ("within", "twice"),
            ("loop", "loop"),
            (".git", "git"),
            (".git/config", "sub/deep/config"),
            ("../../.git/config", "sub/deep/git"),
            (".well-known", "known"),
            ("sub/deep/a/", "a-file-as-directory"),
            ("sub/", "a-directory"),
        ] {
            symlink(target, root.join(link)).expect("link");
        }
        let root = openat(CWD, &root, PASS, Mode::empty()).expect("root");
        (dir, root)
    }

    fn text(found: Result<Found, Absent>) -> Result<String, Absent> {
        match found? {
            Found::File { mut file, .. } => {
                let mut text = String::new();
                file.read_to_string(&mut text).expect("read");
                Ok(text)
            }
            found => Ok(format!("{found:?}")),
        }
    }

    #[test]
    fn what_is_inside_is_found() {
        let (_dir, root) = site();
        for find in WAYS {
            let find = |path: &str| text(find(root.as_fd(), path.as_bytes()));
            for path in ["sub/deep/a", "within", "winding", "twice", "sub/up/within", "a-directory/deep/a"] {
                assert_eq!(find(path).as_deref(), Ok("inside"), "{path}");
            }
            for path in [".well-known/a", "known/a"] {
                assert_eq!(find(path).as_deref(), Ok("known"), "{path}");
            }
            for path in ["sub", "sub/deep", "sub/up", "a-directory", "known"] {
                assert_eq!(find(path).as_deref(), Ok("Directory"), "{path}");
            }
            assert_eq!(find("sub/deep/b"), Err(Errno::NOENT.into()));
            for path in ["sub/deep/a/b", "within/b", "a-file-as-directory"] {
                assert_eq!(find(path), Err(Errno::NOTDIR.into()), "{path}");
            }
        }
    }

    #[test]
    fn nothing_leads_out_or_to_what_is_hidden() {
        let (_dir, root) = site();
        for find in WAYS {
            for (path, absent) in [
                ("absolute", Errno::XDEV.into()),
                ("sub/relative", Errno::XDEV.into()),
                ("up", Errno::XDEV.into()),
                ("up/secret", Errno::XDEV.into()),
                ("loop", Errno::LOOP.into()),
                ("git", Absent::Hidden),
                ("git/config", Absent::Hidden),
                ("sub/deep/git", Absent::Hidden),
                ("sub/deep/config", Absent::Hidden),
            ] {
                assert_eq!(text(find(root.as_fd(), path.as_bytes())), Err(absent), "{path}");
            }
        }
    }

    #[test]
    fn the_last_link_on_the_way_tells_since_when() {
        let (dir, root) = site();
        let link = rustix::fs::lstat(dir.path().join("root/twice")).expect("link");
        for find in WAYS {
            let led_there = |path: &[u8]| match find(root.as_fd(), path) {
                Ok(Found::File { led_there, .. }) => led_there,
                found => panic!("{found:?}"),
            };
            assert_eq!((led_there(b"sub/deep/a"), led_there(b"twice")), (None, Some(changed(&link))));
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let (dir, root) = site();
        let fifo = dir.path().join("root/fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        symlink("fifo", dir.path().join("root/link")).expect("link");
        std::os::unix::net::UnixListener::bind(dir.path().join("root/socket")).expect("socket");
        // a writer that does not wait learns whether there is a reader, so it is asked in between
        let is_read = || openat(CWD, &fifo, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).is_ok();
        for find in WAYS {
            for path in ["fifo", "link", "socket"] {
                let found = find(root.as_fd(), path.as_bytes());
                assert!(matches!(found, Ok(Found::Special)), "{path}: {found:?}");
                assert!(!is_read());
            }
        }
    }
}
