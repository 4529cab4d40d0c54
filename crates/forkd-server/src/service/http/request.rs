//! What a client asks for: the head of a request (RFC 9112, sections 2, 3 and 5). httparse takes the fields apart.
//!
//! Invariant: what [`parse`] says depends on the bytes alone and not on how they came, and it is asked
//! to look at no more than [`HEAD`] of them, and one piece.

use super::fields::{Framed, Framing, Lines, host, is_token, tokens};
use super::response::{Refusal, Status};
use super::target::Target;

/// The longest request line, in bytes.
pub(super) const LINE: usize = 8 * 1024;

/// The longest head of a request, in bytes: its line and its fields.
pub(super) const HEAD: usize = 16 * 1024;

/// The most fields in a head.
const FIELDS: usize = 100;

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    pub(crate) method: Method,
    /// `None` if it is the server as a whole (`OPTIONS *`), or another one (CONNECT).
    pub(super) target: Option<Target<'a>>,
    /// Whether the client speaks HTTP/1.0.
    pub(super) is_old: bool,
    /// Whether it would send another request on this connection.
    pub(super) stays: bool,
    pub(super) content: Framed,
    /// Whether it waits to be told that it may send the content.
    pub(super) expects: bool,
    pub(super) conditions: Conditions<'a>,
    /// What kinds of content it takes.
    pub accept: Lines<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Options,
    /// It asks for a tunnel: what follows need not be a request.
    Connect,
    /// Another one of RFC 9110 or 5789: it is not for what is served here.
    NotAllowed,
    Unknown,
}

/// The fields that make an answer depend on what the client has already (RFC 9110, sections 13 and 14).
///
/// A field that may be there once and is there twice is there without a value, and so without effect.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions<'a> {
    pub(super) if_match: Lines<'a>,
    pub(super) if_none_match: Lines<'a>,
    pub(super) if_modified_since: Option<&'a [u8]>,
    pub(super) if_unmodified_since: Option<&'a [u8]>,
    pub(super) if_range: Option<&'a [u8]>,
    pub(super) range: Option<&'a [u8]>,
}

/// Takes the head of a request from the beginning of `input`, and says how many bytes it has; `None` if
/// there is more to come.
pub(super) fn parse(input: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    // before a line is whole, only its first byte is looked at: a TLS client is told at once
    if input.first().is_some_and(|&byte| !is_token(byte)) {
        return Err(Refusal::bad("it does not begin with a method"));
    }
    let Some(end) = input.iter().take(LINE + 1).position(|&byte| byte == b'\n') else {
        let is_too_long = input.len() > LINE;
        return if is_too_long {
            Err(Refusal::new(Status::URI_TOO_LONG, "the request line is too long"))
        } else {
            Ok(None)
        };
    };
    let line = Line::parse(&input[..end])?;
    let window = &input[end + 1..input.len().min(HEAD)];
    // no more than whole lines, so that it makes no difference where a piece ends
    let whole = window.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(&window[..whole], &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            Ok(Some((Request::new(&line, fields)?, end + 1 + length)))
        }
        Ok(httparse::Status::Partial) if input.len() > HEAD => {
            Err(Refusal::new(Status::FIELDS_TOO_LARGE, "the header fields are too large"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            Err(Refusal::new(Status::FIELDS_TOO_LARGE, "there are too many header fields"))
        }
        Err(_) => Err(Refusal::bad("a header field is malformed")),
    }
}

/// A request line, cut into its parts (RFC 9112, section 3).
struct Line<'a> {
    method: Method,
    target: &'a str,
    is_old: bool,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let malformed = Refusal::bad("the request line is malformed");
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let method = parts.next().unwrap_or_default();
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(malformed);
        }
        let target = parts.next().unwrap_or_default();
        let version = parts.next().ok_or(Refusal::bad("the request line has no version"))?;
        if target.is_empty() {
            return Err(malformed);
        }
        let target = str::from_utf8(target).map_err(|_| malformed)?;
        let is_old = match version {
            // what has a higher number after the dot is a superset (RFC 9110, section 2.5)
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => *minor == b'0',
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::new(Status::VERSION_NOT_SUPPORTED, "only HTTP/1 is spoken here"));
            }
            _ => return Err(Refusal::bad("the request line has no version")),
        };
        Ok(Self { method: Method::named(method), target, is_old })
    }
}

impl<'a> Request<'a> {
    fn new(line: &Line<'a>, fields: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let Line { method, target, is_old } = *line;
        let mut request = Self {
            method,
            target: target_of(method, target)?,
            is_old,
            stays: !is_old,
            content: Framed::Length(0),
            expects: false,
            conditions: Conditions::default(),
            accept: Lines::new(),
        };
        let mut seen = Seen::default();
        for field in fields {
            request.take(field, &mut seen)?;
        }
        request.content = seen.framing.judge(is_old)?;
        if !seen.host && !is_old {
            return Err(Refusal::bad("the field Host is missing"));
        }
        request.stays &= !seen.close && method != Method::Connect;
        // RFC 9110, section 10.1.1: an old client can't mean it
        request.expects &= !is_old;
        Ok(request)
    }

    fn take(&mut self, field: &httparse::Header<'a>, seen: &mut Seen) -> Result<(), Refusal> {
        let value = field.value;
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let conditions = &mut self.conditions;
        match () {
            // any name will do
            () if is("host") => {
                if std::mem::replace(&mut seen.host, true) || host(value).is_none() {
                    return Err(Refusal::bad("the field Host is not one host"));
                }
            }
            () if is("content-length") => seen.framing.content_length(value)?,
            () if is("transfer-encoding") => seen.framing.transfer_encoding(value),
            () if is("connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    seen.close |= option.eq_ignore_ascii_case(b"close");
                    self.stays |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            () if is("expect") => {
                if !tokens(value).all(|token| token.eq_ignore_ascii_case(b"100-continue")) {
                    let why = "what the field Expect asks for is unknown here";
                    return Err(Refusal::new(Status::EXPECTATION_FAILED, why));
                }
                self.expects |= tokens(value).next().is_some();
            }
            () if is("if-match") => conditions.if_match.push(value),
            () if is("if-none-match") => conditions.if_none_match.push(value),
            () if is("if-modified-since") => once(&mut conditions.if_modified_since, value),
            () if is("if-unmodified-since") => once(&mut conditions.if_unmodified_since, value),
            () if is("if-range") => once(&mut conditions.if_range, value),
            () if is("range") => once(&mut conditions.range, value),
            () if is("accept") => self.accept.push(value),
            () => {}
        }
        Ok(())
    }
}

/// Which form a target may have depends on the method (RFC 9112, section 3.2).
fn target_of(method: Method, target: &str) -> Result<Option<Target<'_>>, Refusal> {
    match method {
        Method::Options if target == "*" => Ok(None),
        Method::Connect if is_authority(target) => Ok(None),
        Method::Connect => Err(Refusal::bad("the target is no host with a port")),
        _ => Target::parse(target).map(Some),
    }
}

/// Whether it is a host with a port, neither of them empty.
fn is_authority(target: &str) -> bool {
    let is_number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = target.rsplit_once(':').is_some_and(|(_, port)| is_number(port));
    has_port && host(target.as_bytes()).is_some_and(|host| !host.is_empty())
}

/// Which fields have been there.
#[derive(Default)]
struct Seen {
    host: bool,
    close: bool,
    framing: Framing,
}

fn once<'a>(field: &mut Option<&'a [u8]>, value: &'a [u8]) {
    *field = Some(if field.is_some() { b"" } else { value });
}

impl Method {
    fn named(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            b"POST" | b"PUT" | b"DELETE" | b"TRACE" | b"PATCH" => Self::NotAllowed,
            _ => Self::Unknown,
        }
    }
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
        assert_eq!((request.method, request.content), (Method::Head, Framed::Length(3)));
        assert_eq!(
            request.target.map(|target| (target.path, target.query)),
            Some((b"/a".to_vec(), Some("b")))
        );
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
            ("M-SEARCH", Method::Unknown),
            ("OPTIONS", Method::Options),
            ("TRACE", Method::NotAllowed),
        ] {
            assert_eq!(request_of_line(&format!("{name} / HTTP/1.1")).method, method, "{name}");
        }
    }

    #[test]
    fn the_form_of_a_target_is_the_methods() {
        for line in ["OPTIONS *", "CONNECT a:80"] {
            assert_eq!(request_of_line(&format!("{line} HTTP/1.1")).target, None, "{line}");
        }
        assert!(request_of_line("OPTIONS /a HTTP/1.1").target.is_some());
        assert!(!request_of_line("CONNECT a:80 HTTP/1.1").stays, "what follows need not be a request");
        for line in [
            "GET *",
            "POST *",
            "GET a:80",
            "CONNECT /a",
            "CONNECT *",
            "OPTIONS a:80",
            "CONNECT :80",
            "CONNECT a",
            "CONNECT a:",
            "CONNECT [::1]",
            "BREW x",
        ] {
            assert_eq!(status(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")), 400, "{line}");
        }
    }

    #[test]
    fn a_higher_version_of_the_same_protocol_is_spoken() {
        for (version, is_old) in [("1.0", true), ("1.1", false), ("1.2", false), ("1.9", false)] {
            let request = request_of_line(&format!("GET / HTTP/{version}"));
            assert_eq!((request.is_old, request.stays), (is_old, !is_old), "{version}");
        }
    }

    #[test]
    fn fields_on_several_lines() {
        let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let lists = head("If-Match: a\r\nAccept: b\r\nif-match: c\r\nACCEPT: d\r\n");
        let lists = request(&lists);
        assert_eq!(lists.conditions.if_match.as_slice(), [b"a", b"c"]);
        assert_eq!(lists.accept.as_slice(), [b"b", b"d"]);
        let twice = head("Range: bytes=0-1\r\nRange: bytes=0-1\r\nIf-Range: a\r\n");
        let twice = request(&twice);
        assert_eq!((twice.conditions.range, twice.conditions.if_range), (Some(&b""[..]), Some(&b"a"[..])));
        assert!(request(&head("Expect: , 100-Continue\r\nExpect: 100-continue\r\n")).expects);
        assert!(!request(&head("Expect:\r\n")).expects);
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
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\rb: c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, wonders\r\n\r\n", 417),
            ("GET /\r\n", 400),
            ("GET / HTTP/1.1 more\r\n", 400),
            ("GET / HTTP/x\r\n", 400),
            ("GET / HTTP/2.0\r\n", 505),
            ("GET / HTTP/0.9\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET / HTTP/1.10\r\n", 400),
            ("GET / HTTP/1\r\n", 400),
            ("GET / http/1.1\r\n", 400),
            ("GET  / HTTP/1.1\r\n", 400),
            ("GET / HTTP/1.1 \r\n", 400),
            ("GET\t/ HTTP/1.1\r\n", 400),
            ("GET /\r HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\r\n", 400),
            (" GET / HTTP/1.1\r\n", 400),
            ("(GET) / HTTP/1.1\r\n", 400),
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
