//! Gives up root: a new root directory, then the groups, then the user.
//!
//! The invariant: either everything asked for has been given up for good, and that has been
//! verified, or there is an error and the process must end.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chdir, chroot, getegid, geteuid, getgid, getuid, seteuid};

#[cfg(not(target_vendor = "apple"))]
use nix::unistd::setgroups as set_groups;

use super::names;
use crate::{Error, Failure, sys};
use forkd_net::unit::{self, Attempt};
use ids::{saved_ids_are, set_group, set_user};

/// What a process is to become once it has bound its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    root: Option<PathBuf>,
    user: Option<Uid>,
    group: Option<Gid>,
    supplementary: Vec<Gid>,
    /// The user's entry, if there is one.
    entry: Option<names::User>,
}

impl Privileges {
    /// Looks up a user and a group, each a name or a number, and the new root, while the system's files are still
    /// in sight. `None` if there is nothing to give up.
    ///
    /// A user alone brings the primary group of its passwd(5) entry, and always its supplementary
    /// groups; a group alone is left with no others.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an unknown user or group, or a root that is no directory, [`Error::Os`] if
    /// they can't be looked up.
    ///
    /// # Fork safety
    ///
    /// Waits for a child (getent(1)): only before SIGCHLD is ignored.
    pub fn look_up(
        user: Option<&str>,
        group: Option<&str>,
        root: Option<&Path>,
    ) -> Result<Option<Self>, Error> {
        if user.is_none() && group.is_none() && root.is_none() {
            return Ok(None);
        }
        root.map_or(Ok(()), look_for_root)?;
        let (supplementary, entry) = (Vec::new(), None);
        let mut found =
            Self { root: root.map(Path::to_owned), user: None, group: None, supplementary, entry };
        if let Some(key) = group {
            found.group = Some(group_id(key)?);
        }
        if let Some(key) = user {
            found.set_user(key)?;
        }
        found.supplementary.extend(found.group);
        found.supplementary.sort_unstable_by_key(|gid| gid.as_raw());
        found.supplementary.dedup();
        Ok(Some(found))
    }

    fn set_user(&mut self, key: &str) -> Result<(), Error> {
        let cannot = |error| Error::os(format!("cannot look up the user {key:?}"), error);
        if let Some(user) = names::user(key).map_err(cannot)? {
            self.user = Some(Uid::from_raw(user.uid));
            self.group.get_or_insert(Gid::from_raw(user.gid));
            let groups = names::supplementary_groups(&user.name).map_err(cannot)?;
            self.supplementary = groups.into_iter().map(Gid::from_raw).collect();
            self.entry = Some(user);
            return Ok(());
        }
        let uid = number(key).ok_or_else(|| unknown("user", key))?;
        if self.group.is_none() {
            return Err(Error::Config(format!("user {uid} has no name and so no group: give a group too")));
        }
        self.user = Some(Uid::from_raw(uid));
        Ok(())
    }

    /// The user and the group that the process will have, if it is to have another user.
    pub(crate) fn ids(&self) -> Option<(Uid, Gid)> {
        self.user.zip(self.group)
    }

    /// Has the environment tell of the new user, if there is one, as login(1) does: the programs that are started
    /// find it there. Of one without an entry it tells nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the process has several threads.
    pub fn enter_environment(&self) -> Result<(), Error> {
        if self.user.is_none() {
            return Ok(());
        }
        let entry = self.entry.as_ref();
        let name = entry.map(|user| &*user.name);
        let [home, shell] = [entry.map(|user| &*user.home), entry.map(|user| &*user.shell)];
        [("USER", name), ("LOGNAME", name), ("HOME", home), ("SHELL", shell)]
            .into_iter()
            .try_for_each(|(variable, value)| sys::handover::put_variable(variable, value))
            .map_err(|error| Error::os("cannot set the environment", error))
    }

    /// Changes the root directory, the groups and the user of the process, in that order, and
    /// verifies that root can't come back. After a change of the root, the working directory is `/`.
    ///
    /// A process that already is the user and group asked for, such as one started by systemd with
    /// `User=`, keeps its supplementary groups.
    ///
    /// # Errors
    ///
    /// [`Error::Permission`] if the process lacks the right, [`Error::Internal`] if root could be regained. After an error the process may
    /// be halfway: it must end.
    ///
    /// # Fork safety
    ///
    /// Changes this process only, and its future children. Linux forgets a wish to die with the
    /// parent here (`PR_SET_PDEATHSIG`, prctl(2)): state it afterwards.
    pub fn enter(&self) -> Result<(), Error> {
        if let Some(root) = &self.root {
            enter_root(root)?;
        }
        let Some(gid) = self.group else { return Ok(()) };
        let uid = self.user.unwrap_or_else(geteuid);
        if !uid.is_root() && is_for_good(uid, gid) {
            return Ok(());
        }
        set_groups(&self.supplementary)
            .map_err(|error| refused("change the groups", error, Attempt::ChangeUser))?;
        set_group(gid)
            .map_err(|error| refused(&format!("become group {gid}"), error, Attempt::ChangeUser))?;
        if self.user.is_some() {
            set_user(uid)
                .map_err(|error| refused(&format!("become user {uid}"), error, Attempt::ChangeUser))?;
        }
        if is_for_good(uid, gid) {
            Ok(())
        } else {
            Err(Error::Internal(format!("root could be regained after becoming user {uid} and group {gid}")))
        }
    }
}

fn group_id(key: &str) -> Result<Gid, Error> {
    let found =
        names::group(key).map_err(|error| Error::os(format!("cannot look up the group {key:?}"), error))?;
    let gid = found.map(|group| group.gid).or_else(|| number(key));
    gid.map(Gid::from_raw).ok_or_else(|| unknown("group", key))
}

fn unknown(what: &str, key: &str) -> Error {
    let hint = unit::hint(Attempt::ChangeUser, &io::Error::from_raw_os_error(libc::ENOENT));
    Error::Config(format!("there is no {what} {key:?}")).advising(hint)
}

/// Parses an id; the highest number is none, but the "leave it" of setresuid(2).
fn number(key: &str) -> Option<u32> {
    key.parse().ok().filter(|id| *id != u32::MAX)
}

/// Like a user or group, it has to be known. Whether it may be entered is found out then.
fn look_for_root(root: &Path) -> Result<(), Error> {
    let why = match root.metadata() {
        Ok(found) if !found.is_dir() => io::Error::from_raw_os_error(libc::ENOTDIR),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => error,
        _ => return Ok(()),
    };
    let root = root.display();
    Err(Error::Config(format!(
        "cannot change the root to {root}: {why}; make that directory, or name another"
    )))
}

fn enter_root(root: &Path) -> Result<(), Error> {
    let result = chroot(root).and_then(|()| chdir("/"));
    let what = format!("change the root to {}", root.display());
    result.map_err(|errno| refused(&what, errno, Attempt::ChangeRoot))
}

fn refused(what: &str, error: impl Into<io::Error>, attempt: Attempt<'_>) -> Error {
    let error = error.into();
    let hint = unit::hint(attempt, &error);
    let help = match (&hint, geteuid().is_root()) {
        // it says more
        (Some(_), _) => "",
        (None, true) => ": it takes a capability that was removed",
        (None, false) => ": only root may",
    };
    let refused = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::Permission(Failure::new(format!("cannot {what}{help}"), error))
        }
        _ => Error::os(format!("cannot {what}"), error),
    };
    refused.advising(hint)
}

/// Whether this is the only user and group that the process has, and root is out of its reach.
fn is_for_good(uid: Uid, gid: Gid) -> bool {
    let is_it = getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid;
    is_it && saved_ids_are(uid, gid) && (uid.is_root() || seteuid(Uid::from_raw(0)).is_err())
}

// setresuid(2) is where it exists, because it names the saved ids; elsewhere, for root, setuid(2)
// sets all three.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "openbsd"))]
mod ids {
    use nix::unistd::{Gid, Uid, getresgid, getresuid, setresgid, setresuid};

    pub(super) fn set_group(gid: Gid) -> nix::Result<()> {
        setresgid(gid, gid, gid)
    }

    pub(super) fn set_user(uid: Uid) -> nix::Result<()> {
        setresuid(uid, uid, uid)
    }

    pub(super) fn saved_ids_are(uid: Uid, gid: Gid) -> bool {
        getresuid().is_ok_and(|ids| ids.saved == uid) && getresgid().is_ok_and(|ids| ids.saved == gid)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "openbsd")))]
mod ids {
    pub(super) use nix::unistd::{setgid as set_group, setuid as set_user};

    pub(super) fn saved_ids_are(_uid: nix::unistd::Uid, _gid: nix::unistd::Gid) -> bool {
        true // there is no way to ask
    }
}

// macOS asks a directory service for the groups of a process: setgroups(2) there isn't enough.
#[cfg(target_vendor = "apple")]
fn set_groups(_groups: &[Gid]) -> nix::Result<()> {
    Err(nix::errno::Errno::ENOTSUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_is_nothing_to_do() {
        assert_eq!(Privileges::look_up(None, None, None).unwrap(), None);
    }

    #[test]
    fn a_root_alone_changes_no_user() {
        let found = Privileges::look_up(None, None, Some(Path::new("/"))).unwrap().unwrap();
        assert_eq!((found.user, found.group, found.supplementary.len()), (None, None, 0));
    }

    #[test]
    fn a_number_without_a_name_needs_a_group() {
        let error = Privileges::look_up(Some("3999999999"), None, None).unwrap_err();
        assert!(error.to_string().contains("give a group too"), "{error}");
        let found = Privileges::look_up(Some("3999999999"), Some("3999999998"), None).unwrap().unwrap();
        assert_eq!(found.user, Some(Uid::from_raw(3_999_999_999)));
        assert_eq!(found.supplementary, [Gid::from_raw(3_999_999_998)]);
    }

    #[test]
    fn the_unknown_is_a_configuration_error() {
        for (user, group) in
            [(Some("no-such-user"), None), (None, Some("no-such-group")), (Some("4294967295"), None)]
        {
            assert_eq!(Privileges::look_up(user, group, None).unwrap_err().exit_code(), 78);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_user_brings_its_groups() {
        let found = Privileges::look_up(Some("root"), Some("3999999998"), None).unwrap().unwrap();
        assert_eq!((found.user, found.group), (Some(Uid::from_raw(0)), Some(Gid::from_raw(3_999_999_998))));
        assert!(found.supplementary.contains(&Gid::from_raw(3_999_999_998)));
        let found = Privileges::look_up(Some("0"), None, None).unwrap().unwrap();
        assert_eq!(found.group, Some(Gid::from_raw(0)));
    }
}
