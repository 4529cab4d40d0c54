//! What the client has already, and what part it wants: preconditions and ranges (RFC 9110, section 13 and 14).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::request::{Conditions, digits, words};

/// By what a file is told from what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) tag: String,
    /// When it was changed, in whole seconds. There is none for a time in the future, which a server must not
    /// state (RFC 9110, section 8.8.2.1), or before 1970, which can't be.
    pub(super) modified: Option<SystemTime>,
}

impl Version {
    pub(super) fn of(file: &Metadata, now: SystemTime) -> Self {
        let tag = format!("\"{:x}-{:x}-{:x}\"", file.mtime(), file.mtime_nsec(), file.len());
        let since_1970 = u64::try_from(file.mtime()).ok().map(Duration::from_secs);
        let modified = since_1970.and_then(|age| UNIX_EPOCH.checked_add(age)).filter(|then| *then <= now);
        Self { tag, modified }
    }

    fn is(&self, tag: &[u8]) -> bool {
        tag == self.tag.as_bytes()
    }

    /// Whether it has changed since that date; `None` if that is no date, or there is none to compare.
    fn is_newer_than(&self, date: Option<&[u8]>) -> Option<bool> {
        let date = httpdate::parse_http_date(str::from_utf8(date?).ok()?).ok()?;
        Some(self.modified? > date)
    }
}

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    /// So many bytes from this one on.
    Part {
        offset: u64,
        length: u64,
    },
    NotModified,
    Failed,
    NotSatisfiable,
}

impl Conditions<'_> {
    /// In the order of RFC 9110, section 13.2.2. Ranges are for GET alone.
    pub(super) fn judge(&self, version: &Version, size: u64, is_get: bool) -> Verdict {
        match (self.if_match, version.is_newer_than(self.if_unmodified_since)) {
            (Some(tags), _) if !words(tags).any(|tag| tag == b"*" || version.is(tag)) => {
                return Verdict::Failed;
            }
            (None, Some(true)) => return Verdict::Failed,
            _ => {}
        }
        // a weak tag will do to say that nothing needs be sent
        let has = |tag: &[u8]| tag == b"*" || version.is(tag.strip_prefix(b"W/").unwrap_or(tag));
        match (self.if_none_match, version.is_newer_than(self.if_modified_since)) {
            (Some(tags), _) if words(tags).any(has) => return Verdict::NotModified,
            (None, Some(false)) => return Verdict::NotModified,
            _ => {}
        }
        match self.range {
            Some(range) if is_get && self.wants_range(version) => part(range, size),
            _ => Verdict::Whole,
        }
    }

    /// Whether what the client has a part of already is this version.
    fn wants_range(&self, version: &Version) -> bool {
        let Some(field) = self.if_range else { return true };
        let date = || httpdate::parse_http_date(str::from_utf8(field).ok()?).ok();
        version.is(field) || version.modified.is_some_and(|modified| date() == Some(modified))
    }
}

/// What is no single range of bytes is ignored, as RFC 9110, section 14.2, has it.
fn part(range: &[u8], size: u64) -> Verdict {
    let Some((b"bytes", range)) = range.split_once_at(b'=') else { return Verdict::Whole };
    let Some((first, last)) = range.split_once_at(b'-') else { return Verdict::Whole };
    let (offset, end) = match (digits(first), digits(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        // the last so many bytes
        (None, Some(count)) if first.is_empty() => {
            (if count == 0 { size } else { size.saturating_sub(count) }, size)
        }
        _ => return Verdict::Whole,
    };
    if offset >= size { Verdict::NotSatisfiable } else { Verdict::Part { offset, length: end - offset } }
}

trait SplitOnce {
    fn split_once_at(&self, byte: u8) -> Option<(&Self, &Self)>;
}

impl SplitOnce for [u8] {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|&found| found == byte)?;
        Some((&self[..at], &self[at + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATE: &[u8] = b"Thu, 01 Jan 1970 00:01:40 GMT";
    const EARLIER: &[u8] = b"Thu, 01 Jan 1970 00:01:39 GMT";

    fn version() -> Version {
        Version { tag: "\"a-b\"".into(), modified: Some(UNIX_EPOCH + Duration::from_secs(100)) }
    }

    fn judge(conditions: Conditions<'_>) -> Verdict {
        conditions.judge(&version(), 10, true)
    }

    #[test]
    fn what_the_client_has_is_not_sent() {
        let tagged =
            |tag: &'static str| Conditions { if_none_match: Some(tag.as_bytes()), ..Default::default() };
        for tag in ["\"a-b\"", "W/\"a-b\"", "\"x\", \"a-b\"", "*"] {
            assert_eq!(judge(tagged(tag)), Verdict::NotModified, "{tag}");
        }
        assert_eq!(judge(tagged("\"x\"")), Verdict::Whole);
        let dated = |date| Conditions { if_modified_since: Some(date), ..Default::default() };
        assert_eq!(judge(dated(DATE)), Verdict::NotModified);
        assert_eq!(judge(dated(EARLIER)), Verdict::Whole);
        assert_eq!(judge(dated(b"yesterday")), Verdict::Whole);
        // the tag is what counts where there are both
        assert_eq!(judge(Conditions { if_modified_since: Some(DATE), ..tagged("\"x\"") }), Verdict::Whole);
    }

    #[test]
    fn what_the_client_insists_on() {
        let tagged = |tag: &'static str| Conditions { if_match: Some(tag.as_bytes()), ..Default::default() };
        assert_eq!(judge(tagged("\"a-b\"")), Verdict::Whole);
        assert_eq!(judge(tagged("*")), Verdict::Whole);
        assert_eq!(judge(tagged("W/\"a-b\"")), Verdict::Failed);
        let dated = |date| Conditions { if_unmodified_since: Some(date), ..Default::default() };
        assert_eq!((judge(dated(DATE)), judge(dated(EARLIER))), (Verdict::Whole, Verdict::Failed));
    }

    #[test]
    fn ranges() {
        let part = |offset, length| Verdict::Part { offset, length };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-", part(2, 8)),
            ("bytes=2-99", part(2, 8)),
            ("bytes=2-18446744073709551615", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=9-9", part(9, 1)),
            ("bytes=10-", Verdict::NotSatisfiable),
            ("bytes=-0", Verdict::NotSatisfiable),
            ("bytes=3-2", Verdict::Whole),
            ("bytes=0-1,3-4", Verdict::Whole),
            ("bytes=-", Verdict::Whole),
            ("bytes=", Verdict::Whole),
            ("bytes= 1-2", Verdict::Whole),
            ("lines=1-2", Verdict::Whole),
            ("bytes", Verdict::Whole),
        ] {
            let conditions = Conditions { range: Some(range.as_bytes()), ..Default::default() };
            assert_eq!(judge(conditions), expected, "{range}");
            assert_eq!(conditions.judge(&version(), 10, false), Verdict::Whole, "not for HEAD");
        }
        let empty = Conditions { range: Some(b"bytes=0-"), ..Default::default() };
        assert_eq!(empty.judge(&version(), 0, true), Verdict::NotSatisfiable);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        for (field, is_same) in [
            (&b"\"a-b\""[..], true),
            (DATE, true),
            (b"W/\"a-b\"", false),
            (EARLIER, false),
            (b"\"x\"", false),
        ] {
            let conditions =
                Conditions { range: Some(b"bytes=1-2"), if_range: Some(field), ..Default::default() };
            assert_eq!(judge(conditions) != Verdict::Whole, is_same, "{field:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_within_the_file(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0_u64..50) {
            if let Verdict::Part { offset, length } = part(range.as_bytes(), size) {
                prop_assert!(length > 0 && offset + length <= size);
            }
        }
    }
}
