//! The pidfile: tells scripts which process to signal, and keeps a second daemon from starting.
//!
//! The invariant: a file is changed or removed only while we hold its lock, and removed only while
//! the path still leads to it. The lock, not the content, says whether a daemon is running: it ends
//! with the processes that hold it, however they end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{Error, Failure};

/// Attempts to lock a file that others keep removing; each means that a daemon has just ended.
const ATTEMPTS: usize = 10;

/// A pidfile that this daemon has locked.
///
/// # Fork safety
///
/// The lock belongs to the open file, so it is inherited by children and lasts until the last of
/// them has closed it (flock(2)): a child closes the descriptor, which [`AsFd`] shows. For the same
/// reason the file may be created before the process goes into the background. Dropping a `Pidfile`
/// removes nothing; only [`Pidfile::remove`] does, and a child never calls it.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    file: File,
}

impl Pidfile {
    /// Creates the file if need be (mode 0644, less the umask), locks it and empties it.
    ///
    /// A relative path is taken from the present working directory, also by the later `remove`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if another daemon holds the lock, [`Error::CannotCreate`] if the file
    /// can't be opened or isn't a plain file with a single name: writing through a link could
    /// destroy another file.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| cannot_create(path, error))?;
        for _ in 0..ATTEMPTS {
            let file = open(&path).map_err(|error| cannot_create(&path, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(is_running(&path, &file)),
                Err(TryLockError::Error(error)) => return Err(cannot_create(&path, error)),
            }
            // the holder of the lock may have removed the file after we opened it
            if leads_to(&path, &file) {
                file.set_len(0).map_err(|error| cannot_create(&path, error))?;
                return Ok(Self { path, file });
            }
        }
        Err(cannot_create(&path, io::Error::other("others keep removing it")))
    }

    /// Writes the process id of the daemon, in place of what was there.
    ///
    /// # Errors
    ///
    /// [`Error::CannotCreate`], such as for a full disk.
    pub fn write(&mut self, pid: u32) -> Result<(), Error> {
        let line = format!("{pid}\n");
        let result = self.file.set_len(0).and_then(|()| self.file.write_all_at(line.as_bytes(), 0));
        result.map_err(|error| cannot_create(&self.path, error))
    }

    /// Removes the file, if it is still ours. Where that is impossible, because the privileges are
    /// gone or the file is outside the new root, an empty file stays, which names nobody.
    pub fn remove(self) {
        // both may fail, and there is nothing better to try
        let _ = self.file.set_len(0);
        if leads_to(&self.path, &self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Pidfile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.nlink() > 1 {
        return Err(io::Error::other("it has another name too (a hard link)"));
    }
    Ok(file)
}

fn leads_to(path: &Path, file: &File) -> bool {
    let (Ok(there), Ok(here)) = (fs::symlink_metadata(path), file.metadata()) else { return false };
    (there.dev(), there.ino()) == (here.dev(), here.ino())
}

fn cannot_create(path: &Path, error: io::Error) -> Error {
    Error::CannotCreate(Failure::new(format!("cannot create the pidfile {}", path.display()), error))
}

fn is_running(path: &Path, file: &File) -> Error {
    let mut text = String::new();
    // a pid has at most ten digits; whatever else is there is not worth reading
    let pid = file.take(16).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let with_pid = pid.map(|pid| format!(" with pid {pid}")).unwrap_or_default();
    Error::Unavailable(
        format!("pidfile {} is locked: forkd is already running{with_pid}", path.display()).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> (tempfile::TempDir, PathBuf) {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("forkd.pid");
        (room, path)
    }

    #[test]
    fn it_is_written_and_removed() {
        let (_room, path) = room();
        fs::write(&path, "1234567890, left by another\n").unwrap();
        let mut pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        pidfile.write(12345).unwrap();
        pidfile.write(7).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "7\n");
        pidfile.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_second_daemon_learns_who_is_running_and_changes_nothing() {
        let (_room, path) = room();
        let mut first = Pidfile::create(&path).unwrap();
        let error = Pidfile::create(&path).unwrap_err();
        assert!(error.to_string().ends_with("is locked: forkd is already running"), "{error}");
        first.write(41).unwrap();
        let error = Pidfile::create(&path).unwrap_err();
        assert!(error.to_string().ends_with("is locked: forkd is already running with pid 41"), "{error}");
        assert_eq!(error.exit_code(), 69);
        assert_eq!(fs::read_to_string(&path).unwrap(), "41\n");
        drop(first);
        assert!(path.exists(), "dropping it must not remove it");
        Pidfile::create(&path).unwrap();
    }

    #[test]
    fn the_file_of_another_is_not_removed() {
        let (_room, path) = room();
        let ours = Pidfile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut theirs = Pidfile::create(&path).unwrap();
        theirs.write(8).unwrap();
        ours.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "8\n");
    }

    #[test]
    fn links_and_directories_are_refused() {
        let (room, path) = room();
        let precious = room.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert_eq!(Pidfile::create(&path).unwrap_err().exit_code(), 73);
        fs::remove_file(&path).unwrap();
        fs::hard_link(&precious, &path).unwrap();
        assert_eq!(Pidfile::create(&path).unwrap_err().exit_code(), 73);
        assert_eq!(Pidfile::create(room.path()).unwrap_err().exit_code(), 73);
        assert_eq!(Pidfile::create(&path.join("x")).unwrap_err().exit_code(), 73);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }
}
