//! What a request line names: the forms of a target, and its path, decoded (RFC 9112, section 3.2; RFC 3986).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode, utf8_percent_encode};

use super::fields::{host, is_percent_encoded};
use super::response::{Refusal, Status};

/// The one directory that begins with a dot and is for all to see, at the top (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// A path that was asked for.
///
/// It is cut at its slashes before it is decoded, so that a slash in disguise (`%2f`) cuts nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `/` and the segments, decoded, with one slash between any two and none at the end.
    pub path: Vec<u8>,
    /// Whether it ends with a slash.
    pub is_directory: bool,
    /// Whether a segment is hidden, see [`is_hidden`], or has a slash in disguise: no such file is served.
    pub(super) is_hidden: bool,
    /// What follows the question mark.
    pub(super) query: Option<&'a str>,
}

/// What can't stand for itself in a query (RFC 3986, section 3.4); nor does what isn't ASCII.
const NOT_IN_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The same for a path that is decoded.
const NOT_IN_PATH: &AsciiSet = &NOT_IN_QUERY.add(b'%').add(b'?');

/// Whether a name in a path is not for strangers: it begins with a dot, as do `.git`, `.` and `..`.
pub(super) fn is_hidden(name: &[u8], is_at_the_top: bool) -> bool {
    name.starts_with(b".") && !(is_at_the_top && name == WELL_KNOWN)
}

impl<'a> Target<'a> {
    /// Reads a target in origin form, or in absolute form, as to a proxy.
    pub(super) fn parse(target: &'a str) -> Result<Self, Refusal> {
        if target.contains('#') {
            return Err(Refusal::bad("the target has a fragment"));
        }
        if !target.bytes().all(stands_for_itself) {
            return Err(Refusal::bad("the target has a character that must be percent-encoded"));
        }
        let target = origin_form(target)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let is_directory = path.ends_with('/') || path.is_empty();
        let mut found =
            Self { path: Vec::with_capacity(path.len() + 1), is_directory, is_hidden: false, query };
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let segment = decode(segment).ok_or(Refusal::bad("the target is not percent-encoded"))?;
            if segment.contains(&0) {
                return Err(Refusal::bad("the target has a NUL"));
            }
            found.is_hidden |= is_hidden(&segment, found.path.is_empty()) || segment.contains(&b'/');
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
        let path = percent_encode(&self.path, NOT_IN_PATH);
        match self.query {
            Some(query) => format!("{path}/?{}", utf8_percent_encode(query, NOT_IN_QUERY)),
            None => format!("{path}/"),
        }
    }
}

/// Whether clients leave it as it is. That is a little more than RFC 3986 has: browsers don't encode brackets,
/// bars and their like (WHATWG URL).
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>".contains(&byte)
}

/// The path and the query.
fn origin_form(target: &str) -> Result<&str, Refusal> {
    if target.starts_with('/') {
        return Ok(target);
    }
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::bad("the target is no path"))?;
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    if is("https") {
        // RFC 9110, section 7.4: it must be rejected where there is no TLS
        return Err(Refusal::new(Status::MISDIRECTED, "there is no TLS here"));
    }
    if !is("http") {
        return Err(Refusal::bad("the target is of another scheme"));
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 9110, sections 4.2.1 and 4.2.4
    if host(authority.as_bytes()).is_none_or(<[u8]>::is_empty) {
        return Err(Refusal::bad("the target does not name a host"));
    }
    Ok(rest)
}

/// `None` if a percent sign is not followed by two digits.
fn decode(segment: &str) -> Option<Cow<'_, [u8]>> {
    if !segment.contains('%') {
        return Some(segment.as_bytes().into());
    }
    is_percent_encoded(segment.as_bytes()).then(|| percent_decode_str(segment).into())
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
            ("/a[1]|{b}", "/a[1]|{b}"),
            ("/.well-known/a", "/.well-known/a"),
            ("/%2ewell-known/a/", "/.well-known/a|"),
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
            "/.well-known/.a",
            "/.well-known/../.git",
            "/a/.well-known/b",
            "/.well-knownx/b",
            "/.Well-Known/b",
        ] {
            assert!(path(target).starts_with('!'), "{target}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for target in [
            "*",
            "a",
            "",
            "host:80",
            "ftp://host/",
            "/a#b",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/a%00",
            "/%00/b",
            "/é",
            "/<a>",
            "/a\"",
            "http:///a",
            "http://",
            "http://:80/",
            "http://user@host/",
            "http://host:x/",
            "http://a b/",
            "http://host#a",
            "/a\x7f",
        ] {
            assert_eq!(Target::parse(target).expect_err(target).status.0, 400, "{target}");
        }
        assert_eq!(Target::parse("HTTPS://host/a").expect_err("no TLS").status.0, 421);
    }

    #[test]
    fn a_redirection_stays_here() {
        let as_directory = |target: &str| Target::parse(target).expect(target).as_directory();
        assert_eq!(as_directory("//host/a?b"), "/host/a/?b");
        assert_eq!(as_directory("/a[1]|?b=%41|{c}"), "/a%5B1%5D%7C/?b=%41%7C%7Bc%7D");
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
        fn an_encoded_path_decodes_to_itself(target in "/[a-c%/\\\\|]{0,9}") {
            if let Ok(found) = Target::parse(&target) {
                let again = found.as_directory();
                prop_assert_eq!(&Target::parse(&again).expect("sound").path, &found.path);
            }
        }
    }
}
