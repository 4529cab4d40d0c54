//! Where a worker that is a program says how it is: a socket file in a private directory, which each implementation of
//! sd_notify(3) knows; some take a name of the abstract namespace for a path. Where no file can be had, as after a change of
//! the root directory, there is such a name all the same.
//!
//! Invariant: file and directory are gone with the last worker, also of the program before an upgrade, as a socket knows its
//! name. What a killed master has left keeps nobody from anything.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sys::notify_socket::NotifySocket;

/// The socket of one worker; its file is removed when dropped, with the directory if it was the last one there.
#[derive(Debug)]
pub(super) struct Notices(NotifySocket);

impl Notices {
    /// For the worker in this slot; `None` where the system has none.
    pub(super) fn open(slot: u32) -> io::Result<Option<Self>> {
        let in_file = |base: PathBuf| NotifySocket::at(&private_directory(&base)?.join(slot.to_string()));
        match bases().find_map(|base| in_file(base).ok()).map_or_else(NotifySocket::without_file, Ok) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            socket => Ok(Some(Self(socket?))),
        }
    }

    /// What `NOTIFY_SOCKET` says.
    pub(super) fn name(&self) -> io::Result<OsString> {
        self.0.name()
    }

    /// The next message, as [`NotifySocket::receive`] has it.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        self.0.receive(buffer)
    }
}

impl From<OwnedFd> for Notices {
    /// That of a worker of the program before this one.
    fn from(socket: OwnedFd) -> Self {
        Self(socket.into())
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Some(file) = self.0.file() {
            let _ = fs::remove_file(&file);
            // it is not empty as long as there are others
            let _ = file.parent().map(fs::remove_dir);
        }
    }
}

/// Where a directory may be, the best place first.
fn bases() -> impl Iterator<Item = PathBuf> {
    // a service manager may name several
    let runtime = env::var_os("RUNTIME_DIRECTORY").and_then(|all| env::split_paths(&all).next());
    let of_user = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let all = [runtime, of_user, Some(env::temp_dir())].into_iter().flatten();
    all.filter(|base| base.is_absolute())
}

/// The directory of this process below `base`, which is made if it is not there; nobody else may have anything there. The
/// number is the same after an upgrade.
fn private_directory(base: &Path) -> io::Result<PathBuf> {
    let path = base.join(format!("forkd-notify.{}", std::process::id()));
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // of a link it is what the link is
    let found = path.symlink_metadata()?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o777 == 0o700;
    match found.is_dir() && is_ours {
        true => Ok(path),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_is_private_or_not_used() {
        let base = tempfile::tempdir().expect("directory");
        let path = private_directory(base.path()).expect("a new one");
        assert_eq!(path.metadata().expect("there").mode() & 0o7777, 0o700);
        assert_eq!(private_directory(base.path()).expect("the same"), path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("chmod");
        assert!(private_directory(base.path()).is_err(), "others may look into it");
        fs::remove_dir(&path).expect("empty");
        let elsewhere = tempfile::tempdir().expect("directory");
        symlink(elsewhere.path(), &path).expect("link");
        assert!(private_directory(base.path()).is_err(), "a link");
        fs::remove_file(&path).expect("link");
        fs::write(&path, "").expect("write");
        assert!(private_directory(base.path()).is_err(), "a file");
        assert!(private_directory(&base.path().join("missing")).is_err());
    }

    #[test]
    fn file_and_directory_go_with_the_last_socket() {
        let base = tempfile::tempdir().expect("directory");
        let open = |slot: &str| {
            let path = private_directory(base.path()).expect("directory").join(slot);
            (Notices(NotifySocket::at(&path).expect("socket")), path)
        };
        let ((first, path), (second, other)) = (open("0"), open("1"));
        assert_eq!(first.name().expect("name"), path.as_os_str());
        drop(first);
        assert!(!path.exists() && other.exists());
        // as after an upgrade
        drop(Notices::from(second.as_fd().try_clone_to_owned().expect("copy")));
        assert_eq!(fs::read_dir(base.path()).expect("list").count(), 0);
        drop(second);
        // what was left behind is used again
        drop(open("0"));
    }
}
