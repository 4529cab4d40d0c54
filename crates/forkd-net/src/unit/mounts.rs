//! The mounts that this process sees, as proc_pid_mountinfo(5) tells of them: systemd makes a unit's view of the files
//! from mounts, so the one that a path lies on shows which setting is in the way.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// All mounts, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is.
    pub(super) point: PathBuf,
    /// Which part of its file system it shows.
    root: PathBuf,
    kind: String,
    pub(super) is_read_only: bool,
    pub(super) forbids_exec: bool,
}

impl Mounts {
    pub(super) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Mount::parse).collect())
    }

    /// The mount that a path without links lies on: of those on top of each other, the last.
    pub(super) fn of(&self, path: &Path) -> Option<&Mount> {
        let above = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        above.max_by_key(|mount| mount.point.components().count())
    }
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
        let mut fields = file_system.split(' ');
        let (kind, of_all) = (fields.next()?, fields.nth(1).unwrap_or_default());
        let has = |options: &str, name| options.split(',').any(|option| option == name);
        Some(Self {
            point: unescaped(point),
            root: unescaped(root),
            kind: kind.to_owned(),
            is_read_only: has(options, "ro") || has(of_all, "ro"),
            forbids_exec: has(options, "noexec"),
        })
    }

    /// It hides what is there: systemd has put an inaccessible file or directory of its own on top, from
    /// `/run/systemd/inaccessible`, or in a container from `/run/host/inaccessible`.
    pub(super) fn is_inaccessible(&self) -> bool {
        let directory = self.root.parent().and_then(Path::file_name);
        self.kind == "tmpfs" && directory.is_some_and(|name| name == "inaccessible")
    }

    /// It is a file system of its own in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        self.kind == "tmpfs"
    }

    /// It is a directory for temporary files that no other unit sees (`PrivateTmp=`).
    pub(super) fn is_private(&self) -> bool {
        let is_private = |part: std::path::Component<'_>| {
            part.as_os_str().as_encoded_bytes().starts_with(b"systemd-private-")
        };
        self.root.components().any(is_private)
    }
}

/// A path as it stands there: blanks and backslashes are octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_nearest_mount_and_the_last_of_those() {
        let mounts = Mounts::parse(
            "1 0 8:1 / / ro,noexec,relatime shared:1 - ext4 /dev/sda1 rw\n\
             2 1 8:1 /home /home rw - ext4 /dev/sda1 rw\n\
             3 2 0:22 /systemd/inaccessible/dir /home ro,nosuid master:3 propagate_from:1 - tmpfs tmpfs rw,mode=755\n\
             6 1 0:22 /host/inaccessible/dir /root ro,nosuid shared:153 - tmpfs tmpfs rw,mode=755\n\
             4 1 8:1 /tmp/systemd-private-0a-forkd.service-Xy/tmp /tmp rw - ext4 /dev/sda1 rw\n\
             5 1 8:2 / /srv/a\\040b\\134 rw - ext4 /dev/sdb ro,errors=continue\n\
             nonsense\n",
        );
        let point = |path: &str| mounts.of(Path::new(path)).unwrap().point.display().to_string();
        assert_eq!(point("/homes/x"), "/");
        assert_eq!(point("/tmp"), "/tmp");
        assert_eq!(point("/srv/a b\\/x"), "/srv/a b\\");
        let home = mounts.of(Path::new("/home/u")).unwrap();
        let container = mounts.of(Path::new("/root")).unwrap();
        assert!(container.is_inaccessible());
        assert!(home.is_inaccessible() && home.is_in_memory() && home.is_read_only && !home.forbids_exec);
        let tmp = mounts.of(Path::new("/tmp/x")).unwrap();
        assert!(tmp.is_private() && !tmp.is_inaccessible() && !tmp.is_read_only);
        let root = mounts.of(Path::new("/usr/bin/cat")).unwrap();
        assert!(root.is_read_only && root.forbids_exec && !root.is_private() && !root.is_in_memory());
        assert!(mounts.of(Path::new("/srv/a b\\")).unwrap().is_read_only);
        assert!(Mounts::default().of(Path::new("/")).is_none());
    }
}
