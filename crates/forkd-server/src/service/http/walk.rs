//! A path followed name by name: where there are symbolic links, and where the kernel can't do it.
//!
//! Invariant: each name is looked up in a directory that is open, and never followed by the kernel. A link is
//! read, and its target followed in the same way: it can lead neither above the root nor to what is hidden.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;

use super::files::{Absent, Found, PASS, changed, found_by, kind};
use super::target::is_hidden;

/// As many links as the kernel follows.
const LINKS: usize = 40;

/// Finds what is there under a path, whose links may lead anywhere below the root.
pub(super) fn walk(root: BorrowedFd<'_>, path: &[u8]) -> Result<Found, Absent> {
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    push(&mut ahead, path);
    // the directories on the way, from the root down
    let mut above: Vec<OwnedFd> = Vec::new();
    let (mut links, mut led_there) = (0, None);
    while let Some(name) = ahead.pop() {
        match &*name {
            b"." => continue,
            b".." => match above.pop() {
                Some(_) => continue,
                None => return Err(Errno::XDEV.into()),
            },
            _ if is_hidden(&name, above.is_empty()) => return Err(Absent::Hidden),
            _ => {}
        }
        let here = above.last().map_or(root, AsFd::as_fd);
        let stat = statat(here, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind(&stat) == FileType::Symlink {
            links += 1;
            let target = readlinkat(here, &*name, Vec::new())?.into_bytes();
            if links > LINKS {
                return Err(Errno::LOOP.into());
            }
            if target.starts_with(b"/") {
                return Err(Errno::XDEV.into());
            }
            led_there = led_there.max(Some(changed(&stat)));
            push(&mut ahead, &target);
            continue;
        }
        let open = |flags| openat(here, &*name, flags | OFlags::NOFOLLOW, Mode::empty());
        if ahead.is_empty() && kind(&stat) != FileType::Directory {
            let found = found_by(here, &name, open)?;
            return Ok(match found {
                Found::File { file, stat, .. } => Found::File { file, stat, led_there },
                found => found,
            });
        }
        above.push(open(PASS)?);
    }
    Ok(Found::Directory)
}

/// Puts the names of a path in front. A slash at its end says that it is a directory.
fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    if path.ends_with(b"/") {
        ahead.push(b".".to_vec());
    }
    ahead.extend(path.split(|&byte| byte == b'/').rev().filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
}
