//! By what a file is told from what it was before: validators (RFC 9110, section 8.8).
//!
//! Invariant: an entity tag is never given to two contents. Of a file's times only ctime is beyond the reach of
//! tools that install it: trees whose times are all alike (Nix, OSTree, SOURCE_DATE_EPOCH, tar --mtime) differ in
//! their inodes and ctimes. So both validators are made of those.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;
use smallvec::SmallVec;

use super::date;
use super::files;

/// Seconds and nanoseconds since 1970.
pub(super) type Moment = (i64, i64);

/// How long a change may go unseen beside another one, in nanoseconds, where the kernel takes times from its
/// clock's tick: at 100 Hz, the slowest.
const TICK: i64 = 10_000_000;

/// The same where a file system keeps whole seconds, or every other one.
const COARSE: i64 = 2_000_000_000;

/// An entity tag: sixteen digits between quotes.
pub(super) type Tag = SmallVec<[u8; 18]>;

/// By what a representation is told from what it was before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// A strong entity tag.
    pub(super) tag: Option<Tag>,
    /// When it was changed, in seconds since 1970: the date with which others are compared.
    pub(super) modified: Option<i64>,
    /// Whether it was not changed twice within the second of that date, for sure (RFC 9110, section 8.8.2.2).
    pub(super) is_date_strong: bool,
}

impl Version {
    /// `led_there` is when the last of the links was made by which the file was found; `way` says when the last of
    /// the directories on the way was changed.
    pub(super) fn of(
        file: &Stat,
        led_there: Option<Moment>,
        way: impl FnOnce() -> Option<Moment>,
        now: SystemTime,
    ) -> Self {
        let (written, changed) = (files::written(file), files::changed(file));
        let last = written.max(changed).max(led_there.unwrap_or(written));
        // A date that was written with the content is as good as dates are. Any other is that of a file which was
        // installed, perhaps with its directory, and is rounded up: whatever else happens in that second, a client
        // that was served in it has an earlier date.
        let is_date_strong = last != written;
        let last = if is_date_strong { last.max(way().unwrap_or(last)) } else { last };
        let modified = last.0.saturating_add(i64::from(is_date_strong));
        let identity = (files::identity(file), files::size(file), written, changed);
        Self { tag: Some(tag(identity, changed, now)), modified: Some(modified), is_date_strong }
    }

    /// The date that a client is told: never one of the future (RFC 9110, section 8.8.2.1), nor one that the clock of
    /// files, which is behind by up to a tick, has not reached: a change from now on has a later one.
    pub(super) fn last_modified(&self, now: SystemTime) -> Option<date::Text> {
        let now = now.checked_sub(Duration::from_nanos(TICK.unsigned_abs())).unwrap_or(now);
        self.modified.and_then(|modified| date::write(modified.min(date::seconds(now))))
    }
}

/// A hash tells no stranger the number of an inode. A file that is so new that it might change again and still
/// look the same has a tag for this one answer.
fn tag(identity: impl Hash, changed: Moment, now: SystemTime) -> Tag {
    let nanoseconds = |(seconds, rest): Moment| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = since_1970.as_nanos() as i128;
    let age = now - nanoseconds(changed);
    let is_new = match changed.1 {
        0 => age < i128::from(COARSE),
        _ => age < i128::from(TICK) && !tells_changes_apart(),
    };
    let mut hasher = DefaultHasher::new();
    (identity, is_new.then_some(now)).hash(&mut hasher);
    let hash = hasher.finish();
    let mut tag = [b'"'; 18];
    for (place, digit) in (0..16).rev().zip(&mut tag[1..17]) {
        // not from a table, which would be one more page of constants for a child
        *digit = match (hash >> (4 * place) & 15) as u8 {
            number @ ..10 => b'0' + number,
            number => b'a' - 10 + number,
        };
    }
    tag.into()
}

/// Whether a file whose times have been seen gets others at its next change, however soon that is: so do those
/// of ext4, xfs, btrfs and tmpfs, since Linux 6.13.
fn tells_changes_apart() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let Ok(system) = nix::sys::utsname::uname() else { return false };
        let release = system.release().to_string_lossy();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
        let version = (numbers.next().flatten(), numbers.next().flatten());
        cfg!(target_os = "linux") && version >= (Some(6), Some(13))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn later(seconds: u64) -> SystemTime {
        SystemTime::now() + Duration::from_secs(seconds)
    }

    fn file_of(dir: &tempfile::TempDir, name: &str, modified: Option<SystemTime>) -> Stat {
        let mut file = File::create(dir.path().join(name)).expect("file");
        file.write_all(b"content").expect("write");
        if let Some(modified) = modified {
            file.set_modified(modified).expect("time");
        }
        rustix::fs::fstat(&file).expect("stat")
    }

    #[test]
    fn files_whose_times_are_all_alike_are_told_apart() {
        let dir = tempfile::tempdir().expect("directory");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let [a, b] = ["a", "b"].map(|name| file_of(&dir, name, Some(old)));
        assert_eq!((files::written(&a), files::size(&a)), (files::written(&b), files::size(&b)));
        let [a, b] = [a, b].map(|file| Version::of(&file, None, || None, later(9)));
        assert_ne!(a.tag, b.tag);
        assert!(a.modified > Some(1), "{a:?}");
    }

    #[test]
    fn a_tag_is_the_same_while_the_file_is() {
        let dir = tempfile::tempdir().expect("directory");
        let file = file_of(&dir, "a", None);
        let at = |now| Version::of(&file, None, || None, now).tag;
        assert_eq!(at(later(9)), at(later(99)));
        // it could be written once more at the time that it has
        let of = |changed, now| tag((), changed, SystemTime::UNIX_EPOCH + Duration::from_millis(now));
        assert_ne!(of((5, 0), 5_000), of((5, 0), 5_001));
        assert_ne!(of((5, 0), 6_998), of((5, 0), 6_999));
        assert_eq!(of((5, 0), 7_000), of((5, 0), 7_001));
        assert_eq!(of((5, 1), 5_010) == of((5, 1), 5_009), tells_changes_apart());
        assert_eq!(of((5, 1), 5_011), of((5, 1), 5_012));
    }

    #[test]
    fn a_date_is_that_of_the_last_change_of_any_kind() {
        let dir = tempfile::tempdir().expect("directory");
        let file = file_of(&dir, "written", None);
        let seconds = files::written(&file).0;
        let plain = Version::of(&file, None, || None, later(9));
        assert_eq!((plain.modified, plain.is_date_strong), (Some(seconds), false));
        let linked = Version::of(&file, Some((seconds + 5, 0)), || None, later(9));
        assert_eq!((linked.modified, linked.is_date_strong), (Some(seconds + 6), true));
        let way = || Some((seconds + 7, 0));
        let moved = Version::of(&file, Some((seconds + 5, 0)), way, later(9));
        assert_eq!((moved.modified, moved.is_date_strong), (Some(seconds + 8), true));
        assert_eq!(Version::of(&file, Some((5, 0)), || panic!("it was written last"), later(9)), plain);
    }

    #[test]
    fn no_date_of_the_future_is_told() {
        let dir = tempfile::tempdir().expect("directory");
        let file = file_of(&dir, "a", Some(later(3600)));
        let (now, version) = (later(1), Version::of(&file, None, || None, later(1)));
        assert_eq!(version.last_modified(now), date::write(date::seconds(now)));
        assert!(version.modified > Some(date::seconds(now)));
    }
}
