//! What the client has already: preconditions (RFC 9110, section 13).

use super::date;
use super::ranges::{Wanted, wanted};
use super::request::Conditions;
use super::version::Version;

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send(Wanted),
    NotModified,
    Failed,
}

impl Conditions<'_> {
    /// In the order of RFC 9110, section 13.2.2. Ranges are for GET alone; `now` says what a year of two digits is.
    pub(super) fn judge(&self, version: &Version, size: u64, is_get: bool, now: i64) -> Verdict {
        let is_newer_than = |text: Option<&[u8]>| Some(version.modified? > date::read(text?, now)?);
        let tag = version.tag.as_deref();
        if !self.if_match.is_empty() {
            if !lists(&self.if_match, |listed| tag == Some(listed)) {
                return Verdict::Failed;
            }
        } else if is_newer_than(self.if_unmodified_since) == Some(true) {
            return Verdict::Failed;
        }
        if !self.if_none_match.is_empty() {
            // a weak tag will do to say that nothing needs be sent
            let weakly = |listed: &[u8]| tag == Some(listed.strip_prefix(b"W/").unwrap_or(listed));
            if lists(&self.if_none_match, weakly) {
                return Verdict::NotModified;
            }
        } else if is_newer_than(self.if_modified_since) == Some(false) {
            return Verdict::NotModified;
        }
        match self.range {
            Some(range) if is_get && self.has_part_of(version, now) => Verdict::Send(wanted(range, size)),
            _ => Verdict::Send(Wanted::Whole),
        }
    }

    /// Whether what the client has a part of already is this version, for sure (RFC 9110, section 13.1.5).
    fn has_part_of(&self, version: &Version, now: i64) -> bool {
        let Some(field) = self.if_range else { return true };
        if field.contains(&b'"') {
            return version.tag.as_deref().is_some_and(|tag| tag == field);
        }
        version.is_date_strong && version.modified.is_some() && version.modified == date::read(field, now)
    }
}

/// Whether a list of entity tags, on one or more lines, has one that matches; `*` stands for any. What is malformed ends
/// its line.
fn lists(lines: &[&[u8]], mut is_so: impl FnMut(&[u8]) -> bool) -> bool {
    let is_any = matches!(lines, [line] if line.trim_ascii() == b"*");
    is_any || lines.iter().any(|line| Tags(line).any(&mut is_so))
}

/// The entity tags of a list. Between their quotes there may be commas (RFC 9110, section 8.8.3).
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let is_between = |byte: &&u8| b", \t".contains(byte);
        let start = self.0.iter().take_while(is_between).count();
        let list = &self.0[start..];
        let open = if list.starts_with(b"W/") { 2 } else { 0 };
        let quoted = list.get(open..)?.strip_prefix(b"\"")?;
        let length = quoted.iter().position(|&byte| byte == b'"')?;
        let (tag, rest) = list.split_at(open + length + 2);
        // what follows a tag is the end or a comma
        let gap = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
        self.0 = &rest[gap..];
        (self.0.is_empty() || self.0.starts_with(b",")).then_some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::http::fields::Lines;

    const DATE: &[u8] = b"Thu, 01 Jan 1970 00:01:40 GMT";
    const SAME: &[u8] = b"Thursday, 01-Jan-70 00:01:40 GMT";
    const EARLIER: &[u8] = b"Thu, 01 Jan 1970 00:01:39 GMT";
    const LATER: &[u8] = b"Thu Jan  1 00:01:41 1970";
    const NOW: i64 = 200;

    fn version() -> Version {
        Version { tag: Some(b"\"a-b\"".as_slice().into()), modified: Some(100), is_date_strong: true }
    }

    fn judge(conditions: &Conditions<'_>) -> Verdict {
        conditions.judge(&version(), 10, true, NOW)
    }

    const SEND: Verdict = Verdict::Send(Wanted::Whole);

    fn lines(lines: &[&'static str]) -> Lines<'static> {
        lines.iter().map(|line| line.as_bytes()).collect()
    }

    #[test]
    fn what_the_client_has_is_not_sent() {
        let tagged = |tags: &[&'static str]| Conditions { if_none_match: lines(tags), ..Default::default() };
        for tags in [
            &["\"a-b\""][..],
            &["W/\"a-b\""],
            &["\"x\", \"a-b\""],
            &["\"x\" ,\t\"a-b\","],
            &["\"x,\", \"a-b\""],
            &["\"x\"", "\"a-b\""],
            &["\"x", "\"a-b\""],
            &[",, \"a-b\""],
            &["*"],
        ] {
            assert_eq!(judge(&tagged(tags)), Verdict::NotModified, "{tags:?}");
        }
        for tags in [
            &["\"x\""][..],
            &["a-b"],
            &["w/\"a-b\""],
            &["\"x, \"a-b\""],
            &["\"x\"\"a-b\""],
            &["\"x\" \"a-b\""],
            &["\"x\", *"],
            &["*", "\"x\""],
            &["\"A-B\""],
            &[""],
        ] {
            assert_eq!(judge(&tagged(tags)), SEND, "{tags:?}");
        }
        let dated = |date| Conditions { if_modified_since: Some(date), ..Default::default() };
        for date in [DATE, SAME, LATER] {
            assert_eq!(judge(&dated(date)), Verdict::NotModified);
        }
        for date in [EARLIER, b"yesterday", b""] {
            assert_eq!(judge(&dated(date)), SEND);
        }
        // the tag is what counts where there are both
        assert_eq!(judge(&Conditions { if_modified_since: Some(DATE), ..tagged(&["\"x\""]) }), SEND);
        assert_eq!(judge(&Conditions { if_modified_since: Some(DATE), ..tagged(&[""]) }), SEND);
    }

    #[test]
    fn what_the_client_insists_on() {
        let tagged = |tags: &[&'static str]| Conditions { if_match: lines(tags), ..Default::default() };
        for tags in [&["\"a-b\""][..], &["\"x\"", "\"a-b\""], &["*"]] {
            assert_eq!(judge(&tagged(tags)), SEND, "{tags:?}");
        }
        for tags in [&["W/\"a-b\""][..], &["\"x\"", "\"y\""], &[""]] {
            assert_eq!(judge(&tagged(tags)), Verdict::Failed, "{tags:?}");
        }
        let dated = |date| Conditions { if_unmodified_since: Some(date), ..Default::default() };
        assert_eq!((judge(&dated(DATE)), judge(&dated(EARLIER))), (SEND, Verdict::Failed));
        assert_eq!(judge(&dated(b"Thu, 01 Jan 1903 00:00:00 GMT")), Verdict::Failed);
        assert_eq!(judge(&Conditions { if_unmodified_since: Some(EARLIER), ..tagged(&["*"]) }), SEND);
    }

    #[test]
    fn what_has_no_validator_is_there_all_the_same() {
        let judge = |conditions: Conditions<'_>| conditions.judge(&Version::default(), 10, true, NOW);
        let if_none_match = |tag| Conditions { if_none_match: lines(&[tag]), ..Default::default() };
        assert_eq!((judge(if_none_match("*")), judge(if_none_match("\"a\""))), (Verdict::NotModified, SEND));
        let if_match = |tag| Conditions { if_match: lines(&[tag]), ..Default::default() };
        assert_eq!((judge(if_match("*")), judge(if_match("\"a\""))), (SEND, Verdict::Failed));
        let dated = Conditions {
            if_modified_since: Some(DATE),
            if_unmodified_since: Some(DATE),
            ..Default::default()
        };
        assert_eq!(judge(dated), SEND);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let part = Verdict::Send(Wanted::Part { offset: 1, length: 2 });
        let conditions = |if_range| Conditions { range: Some(b"bytes=1-2"), if_range, ..Default::default() };
        for (field, is_same) in [
            (&b"\"a-b\""[..], true),
            (DATE, true),
            (b"W/\"a-b\"", false),
            (EARLIER, false),
            (LATER, false),
            (b"\"x\"", false),
            (b"\"x\", \"a-b\"", false),
            (b"*", false),
            (b"", false),
        ] {
            assert_eq!(judge(&conditions(Some(field))) == part, is_same, "{field:?}");
        }
        let weakly_dated = Version { is_date_strong: false, ..version() };
        assert_eq!(conditions(Some(DATE)).judge(&weakly_dated, 10, true, NOW), SEND);
        assert_eq!(judge(&conditions(None)), part);
        assert_eq!(conditions(None).judge(&version(), 10, false, NOW), SEND, "not for HEAD");
    }
}
