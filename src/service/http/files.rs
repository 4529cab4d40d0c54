//! The files below one directory, and no others.
//!
//! Invariant: a path is followed from a descriptor of the directory and never out of it, whoever changes
//! it meanwhile.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::{Error, sys};

/// What is only read, and waited for by nobody: a FIFO would be without a writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory whose files are served.
#[derive(Debug, Clone)]
pub(super) struct Root(Arc<OwnedFd>);

impl Root {
    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is none.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let directory = openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty());
        directory.map(|directory| Self(Arc::new(directory))).map_err(|errno| {
            let (path, cause) = (path.display(), std::io::Error::from(errno));
            Error::Config(format!(
                "cannot serve the files of {path}: {cause}; make that directory, or name another"
            ))
        })
    }

    /// Opens what is there under a path of segments that are neither empty nor `.` or `..`, with
    /// slashes in between.
    pub(super) fn open(&self, path: &[u8]) -> Result<File, Errno> {
        let opened = if sys::portable() { Err(Errno::NOSYS) } else { self.open_beneath(path) };
        match opened {
            // kernels before 5.6; and containers whose filter does not know the call
            Err(errno) if sys::calls::is_forbidden(errno) => self.open_stepwise(path),
            opened => opened,
        }
        .map(File::from)
    }

    /// By openat2(2): a symbolic link is followed, as long as it stays below the root.
    #[cfg(target_os = "linux")]
    fn open_beneath(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};
        /// How often somebody may rename a directory just when a link leads up to it.
        const TRIES: usize = 8;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut opened = Err(Errno::AGAIN);
        for _ in 0..TRIES {
            opened = openat2(&self.0, path, READ, Mode::empty(), resolve);
            if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        opened
    }

    #[cfg(not(target_os = "linux"))]
    fn open_beneath(&self, _: &[u8]) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    /// One directory after the other: no symbolic link is followed.
    fn open_stepwise(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
        let mut directory = Arc::clone(&self.0);
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            let flags = READ | OFlags::NOFOLLOW | if is_last { OFlags::empty() } else { OFlags::DIRECTORY };
            let opened =
                if name == b".." { Err(Errno::XDEV) } else { openat(&directory, name, flags, Mode::empty()) };
            match opened {
                Ok(file) if is_last => return Ok(file),
                opened => directory = Arc::new(opened?),
            }
        }
        Err(Errno::NOENT)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    type Open = fn(&Root, &[u8]) -> Result<OwnedFd, Errno>;

    /// A directory beside a secret, and the ways to open what is in it.
    fn site() -> (tempfile::TempDir, Root, Vec<Open>) {
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub/deep")).expect("directories");
        fs::write(root.join("sub/deep/a"), "inside").expect("file");
        fs::write(dir.path().join("secret"), "outside").expect("file");
        symlink(dir.path().join("secret"), root.join("absolute")).expect("link");
        symlink("../../secret", root.join("sub/relative")).expect("link");
        symlink("..", root.join("up")).expect("link");
        symlink("sub/deep/a", root.join("within")).expect("link");
        let mut ways: Vec<Open> = vec![Root::open_stepwise];
        let root = Root::new(&root).expect("root");
        if !matches!(root.open_beneath(b"sub"), Err(Errno::NOSYS | Errno::PERM)) {
            ways.push(Root::open_beneath);
        }
        (dir, root, ways)
    }

    fn text(opened: Result<OwnedFd, Errno>) -> Result<String, Errno> {
        let mut text = String::new();
        File::from(opened?).read_to_string(&mut text).expect("read");
        Ok(text)
    }

    #[test]
    fn what_is_inside_is_found() {
        let (_dir, root, ways) = site();
        for open in ways {
            assert_eq!(text(open(&root, b"sub/deep/a")), Ok("inside".into()));
            assert_eq!(text(open(&root, b"sub/deep/b")), Err(Errno::NOENT));
            assert_eq!(text(open(&root, b"sub/deep/a/b")), Err(Errno::NOTDIR));
        }
    }

    #[test]
    fn nothing_leads_out() {
        let (_dir, root, ways) = site();
        for open in ways {
            for path in ["absolute", "sub/relative", "up/secret", "sub/../../secret", "..", "../secret"] {
                assert!(open(&root, path.as_bytes()).is_err(), "{path}");
            }
        }
    }

    #[test]
    fn a_link_that_stays_inside_is_followed_where_that_is_safe() {
        let (_dir, root, ways) = site();
        assert_eq!(text(root.open_stepwise(b"within")), Err(Errno::LOOP));
        if ways.len() > 1 {
            assert_eq!(text(root.open_beneath(b"within")), Ok("inside".into()));
        }
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let (dir, root, _) = site();
        nix::unistd::mkfifo(&dir.path().join("root/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        assert!(!root.open(b"fifo").expect("open").metadata().expect("metadata").is_file());
    }

    #[test]
    fn no_directory_is_a_mistake_of_the_configuration() {
        let error = Root::new(Path::new("/nowhere/at/all")).expect_err("no root");
        assert_eq!(error.exit_code(), 78);
        let file = tempfile::NamedTempFile::new().expect("file");
        assert!(Root::new(file.path()).expect_err("no root").to_string().contains("Not a directory"));
    }
}
