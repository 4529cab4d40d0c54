//! The pidfile: tells scripts which process to signal, and keeps a second daemon from starting.
//!
//! Invariants: a file is changed or removed only while we hold its lock, and removed only while the path still leads to
//! it. The lock, not the content, says whether a daemon is running: it ends with the processes that hold it, however
//! they end. Only those who may write to the file can have that lock (`sys::lock`), and a file that others may write to,
//! or may put another in the place of, is no pidfile.
//!
//! A pidfile is a new file at each start, since others can read the old one, and may have locked it for reading. It is
//! made beside the path, under a fixed name and for its owner alone. Whoever has locked it there is the only one who may
//! put it in place.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use crate::sys::lock::{is_locked, try_lock};
use crate::{Error, Failure};

/// Attempts to lock a file that others keep moving; each means that a daemon has just started or failed.
const ATTEMPTS: usize = 10;

/// A pidfile that this daemon has locked.
///
/// # Fork safety
///
/// The lock belongs to the open file, so it is inherited by children and lasts until the last of
/// them has closed it (fcntl(2), "Open file description locks"): a child closes the descriptor, which [`AsFd`] shows.
/// For the same reason the file may be created before the process goes into the background. Dropping a `Pidfile`
/// removes nothing; only [`Pidfile::remove`] does, and a child never calls it.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    file: File,
}

impl Pidfile {
    /// Puts a new, empty file that is locked at the path (mode 0644, less the umask), in place of one that no daemon
    /// has locked.
    ///
    /// A relative path is taken from the present working directory, also by the later `remove`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if another daemon holds the lock, [`Error::CannotCreate`] if the file
    /// can't be made, or what is there is no plain file with a single name that root or this user alone may write to.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| cannot_create(path, error))?;
        let cannot = |error| cannot_create(&path, error);
        check_directory(&path).map_err(cannot)?;
        let new = beside(&path);
        for _ in 0..ATTEMPTS {
            let file = open_new(&new).map_err(cannot)?;
            if !try_lock(&file).map_err(cannot)? {
                // its pid may be in the file by now, or will be soon
                return Err(is_running(&path, open(&path).ok().flatten()));
            }
            // the holder of the lock may have moved or removed the file after we opened it
            if leads_to(&new, &file) {
                return match put_in_place(&file, &new, &path) {
                    Ok(()) => Ok(Self { path, file }),
                    Err(error) => {
                        let _ = fs::remove_file(&new);
                        Err(error)
                    }
                };
            }
        }
        Err(cannot(io::Error::other("others keep moving it")))
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

/// Makes the new file the pidfile, unless a daemon has the old one.
fn put_in_place(file: &File, new: &Path, path: &Path) -> Result<(), Error> {
    let cannot = |error| cannot_create(path, error);
    if let Some(old) = open(path).map_err(cannot)?
        && is_locked(&old).map_err(cannot)?
    {
        return Err(is_running(path, Some(old)));
    }
    file.set_len(0).and_then(|()| fs::rename(new, path)).map_err(cannot)?;
    // only now, when it is locked, others may open it
    file.set_permissions(Permissions::from_mode(0o644 & !present_umask())).map_err(cannot)
}

fn present_umask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

/// Where anyone may rename files, a stranger could put another file in its place.
fn check_directory(path: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    let Some(directory) = path.parent() else { return Ok(()) };
    let mode = fs::metadata(directory)?.mode();
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        let why = format!("anyone may replace files in {}; choose another directory", directory.display());
        return Err(io::Error::other(why));
    }
    Ok(())
}

/// The name of the file that becomes the pidfile.
fn beside(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Opens that file, or makes it, for its owner alone: nobody else can lock it.
fn open_new(new: &Path) -> io::Result<File> {
    let file = open_with(OpenOptions::new().read(true).write(true).create(true).mode(0o600), new)?;
    let metadata = file.metadata()?;
    check(&metadata)
        .and_then(|()| match metadata.uid() == geteuid().as_raw() {
            true => Ok(()),
            false => Err("it is another user's"),
        })
        .map_err(|why| io::Error::other(format!("{} is in the way: {why}; remove it", new.display())))?;
    Ok(file)
}

/// Opens what is there, if it can be a pidfile.
fn open(path: &Path) -> io::Result<Option<File>> {
    let file = match open_with(OpenOptions::new().read(true), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    check(&metadata)
        .and_then(|()| match () {
            () if ![0, geteuid().as_raw()].contains(&metadata.uid()) => {
                Err("it is another user's, who could write any pid to it; remove it")
            }
            () if metadata.mode() & 0o022 != 0 => Err("others may write any pid to it; remove it"),
            () => Ok(()),
        })
        .map_err(io::Error::other)?;
    Ok(Some(file))
}

fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn check(file: &Metadata) -> Result<(), &'static str> {
    match () {
        () if !file.is_file() => Err("it is not a plain file"),
        () if file.nlink() > 1 => Err("it has another name too (a hard link)"),
        () => Ok(()),
    }
}

fn leads_to(path: &Path, file: &File) -> bool {
    let (Ok(there), Ok(here)) = (fs::symlink_metadata(path), file.metadata()) else { return false };
    (there.dev(), there.ino()) == (here.dev(), here.ino())
}

fn cannot_create(path: &Path, error: io::Error) -> Error {
    Error::CannotCreate(Failure::new(format!("cannot create the pidfile {}", path.display()), error))
}

fn is_running(path: &Path, file: Option<File>) -> Error {
    let mut text = String::new();
    // a pid has at most ten digits; whatever else is there is not worth reading
    let read = file.and_then(|file| file.take(16).read_to_string(&mut text).ok());
    let pid = read.and_then(|_| text.trim().parse::<u32>().ok());
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
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644 & !present_umask());
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
    fn a_stranger_who_can_read_it_keeps_nobody_from_starting() {
        let (room, path) = room();
        let first = Pidfile::create(&path).unwrap();
        let stranger = File::open(&path).unwrap();
        stranger.lock().unwrap();
        drop(first);
        // the next daemon finds the lock of the stranger, and none of a daemon
        let second = Pidfile::create(&path).unwrap();
        assert!(!leads_to(&path, &stranger));
        assert_eq!(Pidfile::create(&path).unwrap_err().exit_code(), 69);
        drop(second);
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_left_of_a_start_that_was_killed_is_used() {
        let (room, path) = room();
        let new = beside(&path);
        drop(open_new(&new).unwrap());
        Pidfile::create(&path).unwrap().remove();
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
        // another daemon starts at this moment
        let other = open_new(&new).unwrap();
        assert!(try_lock(&other).unwrap());
        assert_eq!(Pidfile::create(&path).unwrap_err().exit_code(), 69);
        assert!(leads_to(&new, &other) && !path.exists());
        drop(other);
        fs::hard_link(&new, room.path().join("other")).unwrap();
        let error = Pidfile::create(&path).unwrap_err();
        assert!(error.exit_code() == 73 && error.sentence().contains("pid.new is in the way"), "{error}");
    }

    #[test]
    fn what_others_may_write_to_is_no_pidfile() {
        let (room, path) = room();
        let refused = |why: &str| {
            let error = Pidfile::create(&path).unwrap_err();
            assert!(error.exit_code() == 73 && error.sentence().contains(why), "{}", error.sentence());
            assert!(!beside(&path).exists());
        };
        let mode = |path: &Path, bits| fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
        fs::write(&path, "1\n").unwrap();
        for bits in [0o666, 0o664, 0o646] {
            mode(&path, bits);
            refused("others may write any pid to it");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        mode(&path, 0o644);
        mode(room.path(), 0o777);
        refused("anyone may replace files in ");
        mode(room.path(), 0o1777);
        Pidfile::create(&path).unwrap();
        if geteuid().is_root() {
            nix::unistd::chown(&path, Some(61_260.into()), None).unwrap();
            refused("it is another user's");
        }
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
