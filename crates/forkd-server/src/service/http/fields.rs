//! The values of header fields: lists, numbers, hosts, transfer codings (RFC 9110, section 5.6; RFC 9112,
//! sections 3.2, 6.1 and 6.3).

use std::net::Ipv6Addr;

use smallvec::SmallVec;

use super::response::{Refusal, Status};

/// The values of all field lines of one name, in order: together they are one list (RFC 9110, section 5.3).
pub(crate) type Lines<'a> = SmallVec<[&'a [u8]; 1]>;

/// The members of a list that are tokens; empty ones are left out (RFC 9110, section 5.6.1).
pub(super) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The parts of a value between such separators, but for those within quoted strings (RFC 9110, section 5.6.4).
pub fn parts(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_end = move |&byte: &u8| {
        let was_escaped = is_escaped;
        is_escaped = is_quoted && !was_escaped && byte == b'\\';
        is_quoted ^= byte == b'"' && !was_escaped;
        byte == separator && !is_quoted
    };
    value.split(is_end).map(<[u8]>::trim_ascii)
}

/// A number of decimal digits and nothing else: no sign, no space. One that is too large is the largest.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    let add = |sum: u64, byte: &u8| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, add) }
}

/// Whether it may stand in a token, such as a method or the name of a field.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether each percent sign is followed by two hexadecimal digits.
pub(super) fn is_percent_encoded(text: &[u8]) -> bool {
    let is_sound =
        |after: &[u8]| matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    text.split(|&byte| byte == b'%').skip(1).all(is_sound)
}

/// The host of an authority that may have a port (RFC 3986, section 3.2); `None` if it is neither. A host may
/// be empty there, and has no user in front of it.
pub(super) fn host(authority: &[u8]) -> Option<&[u8]> {
    let end = match authority.iter().position(|&byte| byte == b']') {
        Some(end) if authority.starts_with(b"[") => end + 1,
        _ => authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let is_host = match host {
        [b'[', address @ .., b']'] => is_address(address),
        name => name.iter().all(|&byte| is_of_name(byte) || byte == b'%') && is_percent_encoded(name),
    };
    (is_port && is_host).then_some(host)
}

/// What stands for itself in the name of a host: unreserved characters and subordinate delimiters.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// What may stand in square brackets: an address of IPv6, or of a version that is still to come.
fn is_address(text: &[u8]) -> bool {
    match text {
        [b'v' | b'V', rest @ ..] => {
            let mut parts = rest.splitn(2, |&byte| byte == b'.');
            let is_version = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_hexdigit);
            let is_rest =
                |part: &[u8]| !part.is_empty() && part.iter().all(|&byte| is_of_name(byte) || byte == b':');
            parts.next().is_some_and(is_version) && parts.next().is_some_and(is_rest)
        }
        _ => str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
    }
}

/// What the fields Content-Length and Transfer-Encoding say, line by line.
#[derive(Debug, Default)]
pub(super) struct Framing {
    length: Option<u64>,
    is_coded: bool,
    /// How often `chunked` was among the codings.
    chunked: u32,
    ends_chunked: bool,
    /// Whether there is a coding beside it.
    has_others: bool,
}

/// How the end of the content is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framed {
    /// This number of bytes.
    Length(u64),
    Chunked,
}

impl Framing {
    /// Equal values, in one list or on several lines, are one (RFC 9112, section 6.3).
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for member in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let length = digits(member).ok_or(Refusal::bad("the field Content-Length is no number"))?;
            if self.length.replace(length).is_some_and(|before| before != length) {
                return Err(Refusal::bad("the fields Content-Length differ"));
            }
        }
        Ok(())
    }

    pub(super) fn transfer_encoding(&mut self, value: &[u8]) {
        self.is_coded = true;
        for coding in tokens(value) {
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += u32::from(self.ends_chunked);
            self.has_others |= !self.ends_chunked;
        }
    }

    /// What can be read in two ways is how requests are smuggled past a proxy, and is refused
    /// (RFC 9112, sections 6.1 and 6.3).
    pub(super) fn judge(&self, is_old: bool) -> Result<Framed, Refusal> {
        if !self.is_coded {
            return Ok(Framed::Length(self.length.unwrap_or(0)));
        }
        if is_old || self.length.is_some() {
            return Err(Refusal::bad("the length of the content is ambiguous"));
        }
        if !self.ends_chunked || self.chunked > 1 {
            return Err(Refusal::bad("the last transfer coding is not chunked, once"));
        }
        if self.has_others {
            let why = "no transfer coding is known here but chunked";
            return Err(Refusal::new(Status::NOT_IMPLEMENTED, why));
        }
        Ok(Framed::Chunked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_host() {
        for (authority, expected) in [
            ("", ""),
            (":80", ""),
            ("a", "a"),
            ("a.b:8080", "a.b"),
            ("a:", "a"),
            ("a%20b", "a%20b"),
            ("a,b", "a,b"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[v1.a:b]", "[v1.a:b]"),
        ] {
            assert_eq!(host(authority.as_bytes()), Some(expected.as_bytes()), "{authority}");
        }
        for authority in [
            "a/b",
            "a:b",
            "a:80:80",
            "user@a",
            "a b",
            "a%2",
            "a%zz",
            "[::1",
            "::1",
            "[a]",
            "[]",
            "[::1]x",
            "[v.a]",
            "a]",
            "[fe80::1%25eth0]",
            "\u{e9}",
            "<a>",
            "a?b",
            "a#b",
            "a\\b",
        ] {
            assert_eq!(host(authority.as_bytes()), None, "{authority}");
        }
    }

    #[test]
    fn what_is_quoted_is_not_cut() {
        let cut = |value: &'static str| parts(value.as_bytes(), b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(cut("a , b;c=\"d,\\\",e\",f"), [&b"a"[..], b"b;c=\"d,\\\",e\"", b"f"]);
        assert_eq!(cut("a\\,b,,"), [&b"a\\"[..], b"b", b"", b""]);
    }

    #[test]
    fn numbers_do_not_overflow() {
        assert_eq!((digits(b"007"), digits(b"99999999999999999999999")), (Some(7), Some(u64::MAX)));
        assert_eq!([digits(b""), digits(b"+1"), digits(b" 1"), digits(b"0x1")], [None; 4]);
    }

    fn judged(lengths: &[&str], codings: &[&str]) -> Result<Framed, u16> {
        let mut framing = Framing::default();
        for length in lengths {
            framing.content_length(length.as_bytes()).map_err(|refusal| refusal.status.0)?;
        }
        codings.iter().for_each(|coding| framing.transfer_encoding(coding.as_bytes()));
        framing.judge(false).map_err(|refusal| refusal.status.0)
    }

    #[test]
    fn how_long_the_content_is() {
        for (lengths, codings, expected) in [
            (&[][..], &[][..], Ok(Framed::Length(0))),
            (&["3"], &[], Ok(Framed::Length(3))),
            (&["3, 3", "3"], &[], Ok(Framed::Length(3))),
            (&["99999999999999999999"], &[], Ok(Framed::Length(u64::MAX))),
            (&["3", "4"], &[], Err(400)),
            (&["3,4"], &[], Err(400)),
            (&["3,"], &[], Err(400)),
            (&[""], &[], Err(400)),
            (&["-1"], &[], Err(400)),
            (&["3 3"], &[], Err(400)),
            (&[], &["Chunked"], Ok(Framed::Chunked)),
            (&[], &[", chunked ,"], Ok(Framed::Chunked)),
            (&[], &["gzip, chunked"], Err(501)),
            (&[], &["gzip", "chunked"], Err(501)),
            (&[], &["gzip"], Err(400)),
            (&[], &["identity"], Err(400)),
            (&[], &[""], Err(400)),
            (&[], &["chunked, gzip"], Err(400)),
            (&[], &["chunked", "chunked"], Err(400)),
            (&[], &["chunked;a=b"], Err(400)),
            (&[], &["xchunked"], Err(400)),
            (&[], &["\"chunked\""], Err(400)),
            (&["3"], &["chunked"], Err(400)),
        ] {
            assert_eq!(judged(lengths, codings), expected, "{lengths:?} {codings:?}");
        }
        let mut framing = Framing::default();
        framing.transfer_encoding(b"chunked");
        assert_eq!(framing.judge(true).expect_err("old").status.0, 400);
    }
}
