//! What a client asks for: the head of a request (RFC 9112, section 2 and 3), taken apart by httparse.
//!
//! Invariant: what [`parse`] says depends on the bytes alone and not on how they came, and it is asked
//! to look at no more than [`HEAD`] of them, and one piece.

use super::response::{Refusal, Status};

/// The longest request line, in bytes.
pub(super) const LINE: usize = 8 * 1024;

/// The longest head of a request, in bytes: its line and its fields.
pub(super) const HEAD: usize = 16 * 1024;

/// The most fields in a head.
const FIELDS: usize = 100;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    /// Whether the client speaks HTTP/1.0.
    pub(super) is_old: bool,
    /// Whether it would send another request on this connection.
    pub(super) stays: bool,
    pub(super) body: Body,
    /// Whether it waits to be told that it may send the body.
    pub(super) expects: bool,
    pub(super) conditions: Conditions<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    /// One of RFC 9110 or 5789 that is not for what is served here.
    NotAllowed,
    Unknown,
}

/// What comes after the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Something with a transfer coding, whose end is not looked for.
    Coded,
}

/// The fields that make an answer depend on what the client has already (RFC 9110, section 13 and 14).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Conditions<'a> {
    pub(super) if_match: Option<&'a [u8]>,
    pub(super) if_none_match: Option<&'a [u8]>,
    pub(super) if_modified_since: Option<&'a [u8]>,
    pub(super) if_unmodified_since: Option<&'a [u8]>,
    pub(super) if_range: Option<&'a [u8]>,
    pub(super) range: Option<&'a [u8]>,
}

/// Takes the head of a request from the beginning of `input`, and says how many bytes it has; `None` if
/// there is more to come.
pub(super) fn parse(input: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    // before a line is whole, only its first byte is looked at: whoever speaks TLS is told at once
    if input.first().is_some_and(|byte| !byte.is_ascii_alphabetic()) {
        return Err(Refusal::bad("it does not begin with a method"));
    }
    let line = input.iter().take(LINE + 1).position(|&byte| byte == b'\n');
    if line.is_none() && input.len() > LINE {
        return Err(Refusal::new(Status::URI_TOO_LONG, "the request line is too long"));
    }
    let window = &input[..input.len().min(HEAD)];
    let Some(end) = window.iter().rposition(|&byte| byte == b'\n') else { return Ok(None) };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(&window[..=end]) {
        Ok(httparse::Status::Complete(length)) => Ok(Some((Request::new(&head)?, length))),
        Ok(httparse::Status::Partial) if input.len() > HEAD => {
            Err(Refusal::new(Status::FIELDS_TOO_LARGE, "the header fields are too large"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(refusal(error, &window[..line.unwrap_or(end)])),
    }
}

fn refusal(error: httparse::Error, line: &[u8]) -> Refusal {
    use httparse::Error::{
        HeaderName, HeaderValue, NewLine, Status as InStatus, Token, TooManyHeaders, Version,
    };
    match error {
        Version if names_a_version(line) => {
            Refusal::new(Status::VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        }
        Version => Refusal::bad("the request line has no version"),
        TooManyHeaders => Refusal::new(Status::FIELDS_TOO_LARGE, "there are too many header fields"),
        HeaderName | HeaderValue => Refusal::bad("a header field is malformed"),
        NewLine | InStatus | Token => Refusal::bad("the request line is malformed"),
    }
}

/// Whether a request line ends with such as `HTTP/2.0`.
fn names_a_version(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let Some((_, [major, b'.', minor])) = line.split_at_checked(line.len().saturating_sub(3)) else {
        return false;
    };
    line[..line.len() - 3].ends_with(b" HTTP/") && major.is_ascii_digit() && minor.is_ascii_digit()
}

impl<'a> Request<'a> {
    fn new(head: &httparse::Request<'_, 'a>) -> Result<Self, Refusal> {
        let is_old = head.version == Some(0);
        let mut request = Self {
            method: Method::named(head.method.unwrap_or_default()),
            target: head.path.unwrap_or_default(),
            is_old,
            stays: !is_old,
            body: Body::Length(0),
            expects: false,
            conditions: Conditions::default(),
        };
        let mut seen = Seen::default();
        for field in head.headers.iter() {
            request.take(field, &mut seen)?;
        }
        // RFC 9112, section 6.1 and 6.3: such a pair is how requests are smuggled past a proxy
        if seen.coding && (seen.length || is_old) {
            return Err(Refusal::bad("the length of the content is ambiguous"));
        }
        if !seen.host && !is_old {
            return Err(Refusal::bad("the field Host is missing"));
        }
        request.stays &= !seen.close;
        // RFC 9110, section 10.1.1: an old client can't mean it
        request.expects &= !is_old;
        Ok(request)
    }

    fn take(&mut self, field: &httparse::Header<'a>, seen: &mut Seen) -> Result<(), Refusal> {
        let value = field.value;
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let conditions = &mut self.conditions;
        match () {
            () if is("host") => {
                if std::mem::replace(&mut seen.host, true) || !is_host(value) {
                    return Err(Refusal::bad("the field Host is not one host"));
                }
            }
            () if is("content-length") => {
                let length = digits(value).ok_or(Refusal::bad("the field Content-Length is no number"))?;
                if std::mem::replace(&mut seen.length, true) {
                    return Err(Refusal::bad("there are two fields Content-Length"));
                }
                self.body = Body::Length(length);
            }
            () if is("transfer-encoding") => {
                seen.coding = true;
                self.body = Body::Coded;
            }
            () if is("connection") => {
                let has = |wanted: &[u8]| words(value).any(|word| word.eq_ignore_ascii_case(wanted));
                seen.close |= has(b"close");
                self.stays |= has(b"keep-alive");
            }
            () if is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    let why = "what the field Expect asks for is unknown here";
                    return Err(Refusal::new(Status::EXPECTATION_FAILED, why));
                }
                self.expects = true;
            }
            () if is("if-match") => keep_first(&mut conditions.if_match, value),
            () if is("if-none-match") => keep_first(&mut conditions.if_none_match, value),
            () if is("if-modified-since") => keep_first(&mut conditions.if_modified_since, value),
            () if is("if-unmodified-since") => keep_first(&mut conditions.if_unmodified_since, value),
            () if is("if-range") => keep_first(&mut conditions.if_range, value),
            () if is("range") => keep_first(&mut conditions.range, value),
            () => {}
        }
        Ok(())
    }
}

/// Which fields have been there.
#[derive(Default)]
struct Seen {
    host: bool,
    length: bool,
    coding: bool,
    close: bool,
}

fn keep_first<'a>(field: &mut Option<&'a [u8]>, value: &'a [u8]) {
    field.get_or_insert(value);
}

impl Method {
    fn named(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => Self::NotAllowed,
            _ => Self::Unknown,
        }
    }
}

/// A number of decimal digits and nothing else: no sign, no space, no list.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

/// The members of a list (RFC 9110, section 5.6.1).
pub(super) fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether it could be a host, perhaps with a port (RFC 9112, section 3.2); which one, nobody asks here.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> u16 {
        parse(head.as_bytes()).expect_err(head).status.0
    }

    fn request(head: &str) -> Request<'_> {
        parse(head.as_bytes()).expect("no refusal").expect("a whole head").0
    }

    #[test]
    fn a_head_is_taken_apart() {
        let text = "HEAD /a?b HTTP/1.1\r\nHost: a:80\r\nrange:  bytes=0-1 \r\nContent-Length: 3\r\n\r\nabc";
        let (request, length) = parse(text.as_bytes()).expect("no refusal").expect("whole");
        assert_eq!(length, text.len() - 3);
        assert_eq!((request.method, request.target, request.body), (Method::Head, "/a?b", Body::Length(3)));
        assert_eq!(request.conditions.range, Some(&b"bytes=0-1"[..]));
        assert!(request.stays && !request.expects && !request.is_old);
        assert!(request_of_line("GET / HTTP/1.0").is_old);
    }

    fn request_of_line(line: &str) -> Request<'static> {
        request(Box::leak(format!("{line}\r\nHost: a\r\n\r\n").into_boxed_str()))
    }

    #[test]
    fn methods_are_told_apart() {
        for (name, method) in [
            ("GET", Method::Get),
            ("get", Method::Unknown),
            ("POST", Method::NotAllowed),
            ("BREW", Method::Unknown),
        ] {
            assert_eq!(request_of_line(&format!("{name} / HTTP/1.1")).method, method, "{name}");
        }
    }

    #[test]
    fn who_stays_and_who_goes() {
        for (version, connection, stays) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
            ("1.1", "Connection: te\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
            assert_eq!(request(&head).stays, stays, "{head}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_malformed_is_refused() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n", 417),
            ("GET /\r\n", 400),
            ("GET / HTTP/1.1 more\r\n", 400),
            ("GET / HTTP/x\r\n", 400),
            ("GET / HTTP/2.0\r\n", 505),
            ("GET / HTTP/1.2\n", 505),
            ("hello\n", 400),
            ("\u{16}\u{3}\u{1}", 400),
        ] {
            assert_eq!(status(head), expected, "{head:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_what_just_fits_is_not() {
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length - 16));
        assert!(parse(line(LINE + 1).as_bytes()).expect("no refusal").is_none());
        assert_eq!(status(&line(LINE + 2)), 414);
        assert_eq!(status(&"G".repeat(LINE + 1)), 414);
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        let head = |length: usize| format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4));
        assert!(parse(head(HEAD).as_bytes()).expect("no refusal").is_some());
        assert_eq!(status(&head(HEAD + 1)), 431);
        let many =
            |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(fields - 1));
        assert!(parse(many(FIELDS).as_bytes()).expect("no refusal").is_some());
        assert_eq!(status(&many(FIELDS + 1)), 431);
    }
}
