//! What a request line names: the path of a target, decoded (RFC 9112, section 3.2; RFC 3986).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::response::Refusal;

/// A path that was asked for.
///
/// It is cut at its slashes before it is decoded, so that a slash in disguise (`%2f`) cuts nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// `/` and the segments, decoded, with one slash between any two and none at the end.
    pub(super) path: Vec<u8>,
    /// Whether it ends with a slash.
    pub(super) is_directory: bool,
    /// Whether a segment begins with a dot, as do `.git`, `.` and `..`, or has a slash in disguise: no
    /// such file is served.
    pub(super) is_hidden: bool,
    /// What follows the question mark.
    pub(super) query: Option<&'a str>,
}

/// What can't stand for itself in a path; nor does what isn't ASCII.
const RESERVED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'\\').add(b'^');

impl<'a> Target<'a> {
    pub(super) fn parse(target: &'a str) -> Result<Self, Refusal> {
        let target = origin_form(target).ok_or(Refusal::bad("the target is no path"))?;
        if target.contains('#') {
            return Err(Refusal::bad("the target has a fragment"));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let is_directory = path.ends_with('/') || path.is_empty();
        let mut found = Self { path: Vec::new(), is_directory, is_hidden: false, query };
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let segment = decode(segment).ok_or(Refusal::bad("the target is not percent-encoded"))?;
            if segment.contains(&0) {
                return Err(Refusal::bad("the target has a NUL"));
            }
            found.is_hidden |= segment.starts_with(b".") || segment.contains(&b'/');
            found.path.push(b'/');
            found.path.extend_from_slice(&segment);
        }
        if found.path.is_empty() {
            found.path.push(b'/');
        }
        Ok(found)
    }

    /// The same target as a directory's, encoded. It begins with one slash and so names no other host.
    pub(super) fn as_directory(&self) -> String {
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}/{query}", percent_encode(&self.path, RESERVED))
    }
}

/// The path and the query; a client may name scheme and host, as to a proxy.
fn origin_form(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    Some(rest.find(['/', '?', '#']).map_or("", |start| &rest[start..]))
}

/// `None` if a percent sign is not followed by two digits.
fn decode(segment: &str) -> Option<Cow<'_, [u8]>> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let is_sound = |after: &str| is_digit(after.as_bytes().first()) && is_digit(after.as_bytes().get(1));
    segment.split('%').skip(1).all(is_sound).then(|| percent_decode_str(segment).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(target: &str) -> String {
        let target = Target::parse(target).expect(target);
        let end = if target.is_directory { "|" } else { "" };
        let start = if target.is_hidden { "!" } else { "" };
        format!("{start}{}{end}", String::from_utf8_lossy(&target.path))
    }

    #[test]
    fn a_path_is_decoded() {
        for (target, expected) in [
            ("/", "/|"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b|"),
            ("//a///b", "/a/b"),
            ("/a%20b?c=/d", "/a b"),
            ("/%C3%A9", "/é"),
            ("/é", "/é"),
            ("/a?", "/a"),
            ("/a..b/c.", "/a..b/c."),
            ("http://host:80/a", "/a"),
            ("HTTP://host", "/|"),
            ("http://host?a", "/|"),
        ] {
            assert_eq!(path(target), expected, "{target}");
        }
        assert_eq!(Target::parse("/%ff").expect("bytes").path, b"/\xff");
        assert_eq!(Target::parse("/a?b?c").expect("query").query, Some("b?c"));
    }

    #[test]
    fn no_way_up_and_nothing_hidden() {
        for target in [
            "/..",
            "/../a",
            "/a/../b",
            "/%2e%2e/a",
            "/.%2E",
            "/..%2fa",
            "/a%2F..%2fb",
            "/.git/config",
            "/a/.",
        ] {
            assert!(path(target).starts_with('!'), "{target}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for target in
            ["*", "a", "", "host:80", "ftp://host/", "/a#b", "/%", "/%2", "/%zz", "/%+1", "/a%00", "/%00/b"]
        {
            assert_eq!(Target::parse(target).expect_err(target).status.0, 400, "{target}");
        }
    }

    #[test]
    fn a_redirection_stays_here() {
        let as_directory = |target: &str| Target::parse(target).expect(target).as_directory();
        assert_eq!(as_directory("//host/a?b"), "/host/a/?b");
        assert_eq!(as_directory("/a%0d%0ab%20%25%5c%C3"), "/a%0D%0Ab%20%25%5C%C3/");
    }

    proptest! {
        #[test]
        fn what_is_not_hidden_stays_below(target in "/[a./%2e5cf\\\\]{0,12}") {
            if let Ok(found) = Target::parse(&target) {
                let climbs = found.path.split(|&b| b == b'/').any(|segment| segment == b"..");
                prop_assert!(found.is_hidden || !climbs, "{:?}", found);
            }
        }

        #[test]
        fn an_encoded_path_decodes_to_itself(target in "/[a-c%/ é]{0,9}") {
            if let Ok(found) = Target::parse(&target) {
                let again = found.as_directory();
                prop_assert_eq!(&Target::parse(&again).expect("sound").path, &found.path);
            }
        }
    }
}
