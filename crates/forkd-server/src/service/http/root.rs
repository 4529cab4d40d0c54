//! The directory whose files are served: the one that has its name now.
//!
//! Invariant: no file of a directory is served that has lost the name, and none of one that has got it by a change of
//! the process alone (chroot(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, fstat, openat, stat, statat};
use rustix::io::Errno;

use super::files::{Absent, Found, Identity, PASS, changed, find, identity, os, same_file};
use super::version::Moment;
use crate::Error;
use forkd_net::unit::{self, Attempt};

/// A directory, and the name that it has.
#[derive(Debug, Clone)]
pub(super) struct Root {
    name: Arc<Path>,
    /// What `/` was when the name was looked up first: below another one it means something else.
    slash: Identity,
    /// The name below the root directory that the process may have later.
    inside: Option<Arc<Path>>,
    /// The process will have another root directory: all below it may be read.
    is_jailed: bool,
    open: Arc<Open>,
}

/// A directory that is open.
#[derive(Debug)]
struct Open {
    directory: OwnedFd,
    /// No other directory has it while this one is open.
    identity: Identity,
    /// When it came to be the one with this name, if that can be told.
    since: Option<Moment>,
}

impl Root {
    /// Opens the directory. `chroot` will be the process's root directory when it is looked up again.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is none.
    pub(super) fn new(path: &Path, chroot: Option<&Path>) -> Result<Self, Error> {
        let found = std::path::absolute(path).and_then(|name| Ok((Open::named(&name)?, name)));
        let (open, name) = found.map_err(|cause| {
            let hint = unit::hint(Attempt::Read(path), &cause);
            let advice = hint.unwrap_or_else(|| "make that directory, or name another".into());
            Error::Config(format!("cannot serve the files of {}: {cause}; {advice}", path.display()))
        })?;
        let slash = stat("/").map_err(|cause| Error::os("cannot look at /", cause))?;
        let inside = chroot.and_then(|chroot| name_inside(&name, chroot)).map(Arc::from);
        let is_jailed = chroot.is_some();
        Ok(Self { name: name.into(), slash: identity(&slash), inside, is_jailed, open: Arc::new(open) })
    }

    /// Opens the directories below which a process must read: this one and, unless they are to be as few as possible,
    /// those in which its name and what that leads to stand, as there is what may get the name later. All of the system's
    /// files is too much for that.
    pub(super) fn directories(&self, as_few: bool) -> Vec<OwnedFd> {
        let is_too_much = |place: &Path| place.parent().is_none() && !self.is_jailed;
        let open = |place: &Path| openat(CWD, place, PASS, Mode::empty()).ok();
        let names = [Some(self.name.to_path_buf()), self.name.canonicalize().ok()].into_iter().flatten();
        let places = names.filter_map(|name| name.parent()?.canonicalize().ok()).filter(|_| !as_few);
        let around = places.filter(|place| !is_too_much(place)).filter_map(|place| open(&place));
        self.open.directory.try_clone().ok().into_iter().chain(around).collect()
    }

    /// The directory that has the name now, if it is another. Where the name can't be looked up because the process has
    /// another root directory or too few rights, that is none.
    fn successor(&self) -> Result<Option<Self>, Errno> {
        let found = match stat(&*self.name) {
            Ok(found) if identity(&found) == self.open.identity => return Ok(None),
            Err(Errno::ACCESS) => return Ok(None),
            found => found,
        };
        let slash = identity(&stat("/")?);
        if slash != self.slash {
            let Some(name) = self.inside.clone() else { return Ok(None) };
            let inside = Self { name, slash, inside: None, ..self.clone() };
            return Ok(Some(inside.successor()?.unwrap_or(inside)));
        }
        found?;
        let mut open = Open::named(&self.name).map_err(os)?;
        // a rename changes the one, a new link the other
        open.since = open.since.max(Some(changed(&fstat(&open.directory)?)));
        Ok(Some(Self { open: Arc::new(open), ..self.clone() }))
    }

    /// Finds what is there under a path of segments that are neither empty nor hidden, with slashes in between; below this
    /// root, or the `successor` that it has had by now.
    pub(super) fn find(&self, successor: &mut Option<Self>, path: &[u8]) -> Result<Found, Absent> {
        let now = successor.as_ref().unwrap_or(self);
        let full = [now.name.as_os_str().as_bytes(), b"/", path].concat();
        if let Some(found) = same_file(now.open.directory.as_fd(), path, &full) {
            return Ok(now.dated(found));
        }
        if let Some(next) = now.successor()? {
            *successor = Some(next);
        }
        let now = successor.as_ref().unwrap_or(self);
        Ok(now.dated(find(now.open.directory.as_fd(), path)?))
    }

    /// The same, as of when it came to be found here.
    fn dated(&self, found: Found) -> Found {
        match found {
            Found::File { file, stat, led_there } => {
                Found::File { file, stat, led_there: led_there.max(self.open.since) }
            }
            found => found,
        }
    }

    /// When the last of the directories on the way to a file was changed, as by a rename of one of them. The root
    /// itself has other files, too.
    pub(super) fn changed_on_the_way(&self, path: &[u8]) -> Option<Moment> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let stats = ends.map(|end| statat(&self.open.directory, &path[..end], AtFlags::empty()));
        stats.filter_map(Result::ok).map(|stat| changed(&stat)).max()
    }
}

impl Open {
    fn named(name: &Path) -> io::Result<Self> {
        let directory = openat(CWD, name, PASS, Mode::empty())?;
        Ok(Self { identity: identity(&fstat(&directory)?), since: made_last(name), directory })
    }
}

/// What a directory is called for a process whose root directory is this one; `None` if it has no name there. A
/// link that names its target from `/` leads elsewhere there.
fn name_inside(name: &Path, chroot: &Path) -> Option<PathBuf> {
    let chroot = chroot.canonicalize().ok()?;
    if name.canonicalize().ok()? == chroot {
        return Some("/".into());
    }
    let is_absolute = name.read_link().is_ok_and(|target| target.is_absolute());
    let parent = name.parent()?.canonicalize().ok()?;
    let rest = parent.strip_prefix(&chroot).ok().filter(|_| !is_absolute)?;
    Some(Path::new("/").join(rest).join(name.file_name()?))
}

/// When the last of the links was made by which a path is found.
fn made_last(path: &Path) -> Option<Moment> {
    /// As many as the kernel follows.
    const MOST: usize = 40;
    let mut last = None;
    let mut links = 0;
    let mut done = PathBuf::new();
    let mut parts: Vec<PathBuf> =
        path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
    while let Some(part) = parts.pop() {
        if part == Path::new("..") {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < MOST => {
                links += 1;
                let stat = rustix::fs::lstat(&next).ok();
                last = last.max(stat.as_ref().map(changed));
                parts.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
            }
            _ => done = next,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(root: &Root, successor: &mut Option<Root>) -> Option<String> {
        let Ok(Found::File { mut file, .. }) = root.find(successor, b"a") else { return None };
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        Some(text)
    }

    #[test]
    fn the_directory_is_the_one_that_has_the_name_now() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        for release in ["one", "two"] {
            fs::create_dir_all(at(release).join("public")).expect("directory");
            fs::write(at(release).join("public/a"), release).expect("file");
        }
        symlink("one", at("current")).expect("link");
        let (root, mut successor) = (Root::new(&at("current/public"), None).expect("root"), None);
        let mut found = || found(&root, &mut successor);
        assert_eq!(found().as_deref(), Some("one"));
        symlink("two", at("next")).expect("link");
        fs::rename(at("next"), at("current")).expect("rename");
        assert_eq!(found().as_deref(), Some("two"));
        fs::rename(at("two/public"), at("old")).expect("rename");
        assert_eq!(found(), None, "what has gone is not served");
        fs::rename(at("one/public"), at("two/public")).expect("rename");
        assert_eq!(found().as_deref(), Some("one"));
        fs::remove_dir_all(at("two/public")).expect("remove");
        fs::create_dir(at("two/public")).expect("directory");
        fs::write(at("two/public/a"), "new").expect("file");
        assert_eq!(found().as_deref(), Some("new"));
    }

    #[test]
    fn a_root_that_has_been_switched_dates_its_files() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        for release in ["one", "two"] {
            fs::create_dir(at(release)).expect("directory");
            fs::write(at(release).join("a"), release).expect("file");
        }
        symlink("one", at("current")).expect("link");
        let (root, mut successor) = (Root::new(&at("current"), None).expect("root"), None);
        let mut led_there = || match root.find(&mut successor, b"a") {
            Ok(Found::File { led_there, .. }) => led_there,
            found => panic!("{found:?}"),
        };
        let link = || Some(changed(&rustix::fs::lstat(at("current")).expect("link")));
        assert_eq!(led_there(), link());
        symlink("two", at("next")).expect("link");
        fs::rename(at("next"), at("current")).expect("rename");
        assert_eq!(led_there(), link());
    }

    #[test]
    fn a_root_has_another_name_below_another_root() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("jail/srv/one")).expect("directory");
        symlink("one", at("jail/srv/current")).expect("link");
        symlink(at("jail/srv/one"), at("jail/srv/absolute")).expect("link");
        symlink("jail", at("link")).expect("link");
        for (name, chroot, expected) in [
            ("jail/srv/one", "jail", Some("/srv/one")),
            ("jail/srv/one", "link", Some("/srv/one")),
            ("link/srv/current", "jail", Some("/srv/current")),
            ("jail/srv/one", "jail/srv/one", Some("/")),
            ("jail/srv/current", "jail/srv/one", Some("/")),
            ("jail/srv/absolute", "jail", None),
            ("jail/srv", "jail/srv/one", None),
        ] {
            let found = name_inside(&at(name), &at(chroot));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{name} in {chroot}");
        }
    }

    #[test]
    fn no_directory_is_a_mistake_of_the_configuration() {
        let error = Root::new(Path::new("/nowhere/at/all"), None).expect_err("no root");
        assert_eq!(error.exit_code(), 78);
        let file = tempfile::NamedTempFile::new().expect("file");
        assert!(Root::new(file.path(), None).expect_err("no root").to_string().contains("Not a directory"));
    }
}
