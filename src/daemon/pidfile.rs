//! The pidfile: tells scripts which process to signal, and keeps a second daemon from starting.
//!
//! The lock, not the content, says whether a daemon is running: it ends with the processes that hold it, however they
//! end. Only a process that may write to the file can have that lock (`sys::lock`).
//!
//! Invariants: a file is changed or removed only while we hold its lock, with one exception. Others can read a pidfile,
//! and may have locked an old one for reading: such a file, which no daemon has locked, is removed, and a new one made.
//! If several daemons start at once just then, one may remove the file that another has made in between; so our file
//! must still have its name when the daemon is ready ([`Pidfile::write`]).
//!
//! The only name in the directory is that of the pidfile, so that others can make no other one that is in the way. A user
//! who could replace the file makes it worthless: root, this user, and the one that the daemon will be, are the only ones
//! who may own the directory or, unless it is sticky, write to it. In a sticky one that anyone may write to, others can
//! still make the file before a daemon does: that is refused, as it is not ours.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getegid, geteuid};

use crate::sys::lock::{is_locked, try_lock};
use crate::{Error, Failure};
use forkd_net::unit::{self, Attempt};

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
    /// Makes an empty file that is locked at the path (mode 0644, less the umask), or takes over one that no daemon has
    /// locked. The daemon will be `successor`, if that is another user.
    ///
    /// A relative path is taken from the present working directory, also by the later `remove`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if another daemon holds the lock, [`Error::CannotCreate`] if the file can't be made, what is
    /// there is no plain file with a single name that root or this user alone may write to, or other users may replace
    /// files in its directory.
    pub fn create(path: &Path, successor: Option<(Uid, Gid)>) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| cannot_create(path, error))?;
        let cannot = |error| cannot_create(&path, error);
        check_directory(&path, successor).map_err(cannot)?;
        for _ in 0..ATTEMPTS {
            let Some(file) = open(&path).map_err(cannot)? else { continue };
            let is_ours = lock(&file).map_err(cannot)?;
            if is_ours == Some(false) {
                return Err(is_running(&path, file));
            }
            // a holder of the lock may have removed the file after we opened it
            if !leads_to(&path, &file) {
                continue;
            }
            if is_ours.is_none() {
                fs::remove_file(&path).map_err(cannot)?;
                continue;
            }
            file.set_len(0)
                // only now, when it is locked, others may open a new one
                .and_then(|()| file.set_permissions(Permissions::from_mode(0o644 & !present_umask())))
                .map_err(cannot)?;
            return Ok(Self { path, file });
        }
        Err(cannot(io::Error::other("others keep replacing it")))
    }

    /// Goes on with that of the program before this one, which has its lock; the process is the same.
    #[must_use]
    pub fn adopt(path: &Path, file: std::os::fd::OwnedFd) -> Self {
        // where there is no current directory, it is not removed at the end
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { path, file: file.into() }
    }

    /// Writes the process id of the daemon, in place of what was there.
    ///
    /// # Errors
    ///
    /// [`Error::CannotCreate`], such as for a full disk; [`Error::Unavailable`] if the file has been removed, as by another
    /// daemon that starts.
    pub fn write(&mut self, pid: u32) -> Result<(), Error> {
        let cannot = |error| cannot_create(&self.path, error);
        // not by its path, which may be of another root directory by now
        if self.file.metadata().map_err(cannot)?.nlink() == 0 {
            let why = format!("pidfile {} was removed: another forkd starts as well", self.path.display());
            return Err(Error::Unavailable(why.into()));
        }
        let line = format!("{pid}\n");
        let result = self.file.set_len(0).and_then(|()| self.file.write_all_at(line.as_bytes(), 0));
        result.map_err(cannot)
    }

    /// Removes the file, if it is still ours. Where that is impossible, because the privileges are
    /// gone or the file is outside the new root, an empty file stays, which names no process.
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

/// Locks a file; `Some(false)` if a daemon has locked it, `None` if we can't, as others read it.
fn lock(file: &File) -> io::Result<Option<bool>> {
    match try_lock(file) {
        Ok(true) => Ok(Some(true)),
        _ if is_locked(file)? => Ok(Some(false)),
        // a lock for reading; or it is open for reading only (EBADF), as it is root's
        _ => Ok(None),
    }
}

fn present_umask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits() as u32
}

/// Where other users may rename files, they could put another file in its place.
fn check_directory(path: &Path, successor: Option<(Uid, Gid)>) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    let Some(directory) = path.parent() else { return Ok(()) };
    let metadata = fs::metadata(directory)?;
    let (mode, owner, group) = (metadata.mode(), metadata.uid().into(), metadata.gid().into());
    let (users, groups) = successor.unzip();
    let is_owned = owner == Uid::from_raw(0) || owner == geteuid() || Some(owner) == users;
    let is_group_known = group == Gid::from_raw(0) || group == getegid() || Some(group) == groups;
    let who = match () {
        () if !is_owned => format!("the user {owner}, who owns it,"),
        () if mode & STICKY != 0 => return Ok(()),
        () if mode & 0o002 != 0 => "anyone".to_owned(),
        () if mode & 0o020 != 0 && !is_group_known => format!("the group {group}"),
        () => return Ok(()),
    };
    let why = format!("{who} may replace files in {}; choose another directory", directory.display());
    Err(io::Error::other(why))
}

/// Opens what is there, if it can be a pidfile, or makes a file for its owner alone: no other user can lock that. `None` if
/// others make or remove it at the same moment.
fn open(path: &Path) -> io::Result<Option<File>> {
    let open = |write| open_with(OpenOptions::new().read(true).write(write), path);
    let opened = match open(true) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(false),
        opened => opened,
    };
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            match open_with(options.read(true).write(true).create_new(true).mode(0o600), path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                made => return made.map(Some),
            }
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    match () {
        () if !metadata.is_file() => Err("it is not a plain file"),
        () if metadata.nlink() > 1 => Err("it has another name too (a hard link)"),
        () if ![0, geteuid().as_raw()].contains(&metadata.uid()) => {
            Err("it is another user's, who could write any pid to it; remove it")
        }
        () if metadata.mode() & 0o022 != 0 => Err("others may write any pid to it; remove it"),
        () => Ok(Some(file)),
    }
    .map_err(io::Error::other)
}

fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn leads_to(path: &Path, file: &File) -> bool {
    let (Ok(there), Ok(here)) = (fs::symlink_metadata(path), file.metadata()) else { return false };
    (there.dev(), there.ino()) == (here.dev(), here.ino())
}

/// Says why there is no pidfile with this path.
pub(crate) fn cannot_create(path: &Path, error: io::Error) -> Error {
    let hint = unit::hint(Attempt::Make(path), &error);
    Error::CannotCreate(Failure::new(format!("cannot create the pidfile {}", path.display()), error))
        .advising(hint)
}

fn is_running(path: &Path, file: File) -> Error {
    let mut text = String::new();
    // a pid has at most ten digits; whatever else is there is not worth reading
    let read = file.take(16).read_to_string(&mut text).ok();
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

    fn create(path: &Path) -> Result<Pidfile, Error> {
        Pidfile::create(path, None)
    }

    #[test]
    fn it_is_written_and_removed() {
        let (_room, path) = room();
        fs::write(&path, "1234567890, left by another\n").unwrap();
        let mut pidfile = create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644 & !present_umask());
        pidfile.write(12345).unwrap();
        pidfile.write(7).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "7\n");
        pidfile.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_second_daemon_learns_which_is_running_and_changes_nothing() {
        let (_room, path) = room();
        let mut first = create(&path).unwrap();
        let error = create(&path).unwrap_err();
        assert!(error.to_string().ends_with("is locked: forkd is already running"), "{error}");
        first.write(41).unwrap();
        let error = create(&path).unwrap_err();
        assert!(error.to_string().ends_with("is locked: forkd is already running with pid 41"), "{error}");
        assert_eq!(error.exit_code(), 69);
        assert_eq!(fs::read_to_string(&path).unwrap(), "41\n");
        drop(first);
        assert!(path.exists(), "dropping it must not remove it");
        create(&path).unwrap();
    }

    #[test]
    fn the_file_of_another_is_not_removed() {
        let (_room, path) = room();
        let ours = create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut theirs = create(&path).unwrap();
        theirs.write(8).unwrap();
        ours.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "8\n");
    }

    #[test]
    fn a_stranger_who_can_read_it_keeps_no_daemon_from_starting() {
        let (room, path) = room();
        let first = create(&path).unwrap();
        let stranger = File::open(&path).unwrap();
        stranger.lock().unwrap();
        drop(first);
        // the next daemon finds the lock of the stranger, and none of a daemon
        let second = create(&path).unwrap();
        assert_eq!(create(&path).unwrap_err().exit_code(), 69);
        drop(second);
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_other_name_in_the_directory_is_in_the_way() {
        let (room, path) = room();
        // a start that was killed before it had locked its file leaves this
        open(&path).unwrap();
        for name in ["forkd.pid.new", "forkd.pid.lock", "forkd.pid~"] {
            fs::create_dir(room.path().join(name)).unwrap();
        }
        create(&path).unwrap().remove();
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_daemon_whose_file_was_replaced_is_not_ready() {
        let (_room, path) = room();
        let mut first = create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut second = create(&path).unwrap();
        assert_eq!(first.write(1).unwrap_err().exit_code(), 69);
        second.write(2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn a_directory_of_other_users_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let (room, path) = room();
        let (user, group) = (Uid::from_raw(61_260), Gid::from_raw(61_261));
        let own = |uid: Option<Uid>, gid: Option<Gid>, bits| {
            nix::unistd::chown(room.path(), uid, gid).unwrap();
            fs::set_permissions(room.path(), Permissions::from_mode(bits)).unwrap();
        };
        let attempt = |successor| Pidfile::create(&path, successor).map(Pidfile::remove);
        let refused = |why: &str| {
            let error = attempt(None).unwrap_err();
            assert!(error.exit_code() == 73 && error.sentence().contains(why), "{}", error.sentence());
            assert!(attempt(Some((1.into(), 1.into()))).is_err());
            // it is the daemon's own
            attempt(Some((user, group))).unwrap();
        };
        for bits in [0o755, 0o1755] {
            own(Some(user), None, bits);
            refused("the user 61260, who owns it, may replace files in ");
        }
        own(Some(0.into()), Some(group), 0o775);
        refused("the group 61261 may replace files in ");
        for bits in [0o755, 0o1775, 0o1777] {
            own(None, None, bits);
            attempt(None).unwrap();
        }
    }

    #[test]
    fn what_others_may_write_to_is_no_pidfile() {
        let (room, path) = room();
        let refused = |why: &str| {
            let error = create(&path).unwrap_err();
            assert!(error.exit_code() == 73 && error.sentence().contains(why), "{}", error.sentence());
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
        create(&path).unwrap();
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
        assert_eq!(create(&path).unwrap_err().exit_code(), 73);
        fs::remove_file(&path).unwrap();
        fs::hard_link(&precious, &path).unwrap();
        assert_eq!(create(&path).unwrap_err().exit_code(), 73);
        assert_eq!(create(room.path()).unwrap_err().exit_code(), 73);
        assert_eq!(create(&path.join("x")).unwrap_err().exit_code(), 73);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }
}
