//! What a client is answered: a head of our own making, and what follows it.
//!
//! Invariant: what a client has sent is never repeated but in an encoding of ours, so no answer can be
//! made to have a line that was not meant.

use std::fmt::Display;
use std::time::SystemTime;

use super::date;
use crate::transport::FilePart;

/// How many bytes a head has at most beside its fields.
const OWN: usize = 256;

/// The methods that are known here.
pub(super) const METHODS: &str = "GET, HEAD, OPTIONS";

/// A status code (RFC 9110, section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub(super) u16);

impl Status {
    pub(super) const OK: Self = Self(200);
    pub(super) const NO_CONTENT: Self = Self(204);
    pub(super) const PARTIAL: Self = Self(206);
    pub(super) const MOVED: Self = Self(301);
    pub(super) const NOT_MODIFIED: Self = Self(304);
    pub(super) const BAD_REQUEST: Self = Self(400);
    pub(super) const FORBIDDEN: Self = Self(403);
    /// RFC 9110, section 15.5.5.
    pub const NOT_FOUND: Self = Self(404);
    pub(super) const METHOD_NOT_ALLOWED: Self = Self(405);
    pub(super) const REQUEST_TIMEOUT: Self = Self(408);
    pub(super) const PRECONDITION_FAILED: Self = Self(412);
    pub(super) const CONTENT_TOO_LARGE: Self = Self(413);
    pub(super) const URI_TOO_LONG: Self = Self(414);
    pub(super) const RANGE_NOT_SATISFIABLE: Self = Self(416);
    pub(super) const EXPECTATION_FAILED: Self = Self(417);
    pub(super) const MISDIRECTED: Self = Self(421);
    pub(super) const FIELDS_TOO_LARGE: Self = Self(431);
    pub(super) const INTERNAL: Self = Self(500);
    pub(super) const NOT_IMPLEMENTED: Self = Self(501);
    /// RFC 9110, section 15.6.4.
    pub const UNAVAILABLE: Self = Self(503);
    pub(super) const VERSION_NOT_SUPPORTED: Self = Self(505);

    fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            204 => "No Content",
            206 => "Partial Content",
            301 => "Moved Permanently",
            304 => "Not Modified",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            414 => "URI Too Long",
            416 => "Range Not Satisfiable",
            417 => "Expectation Failed",
            421 => "Misdirected Request",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }

    pub(super) fn is_error(self) -> bool {
        self.0 >= 400
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub(super) status: Status,
    pub(super) why: &'static str,
}

impl Refusal {
    /// With this status, and this sentence as the content.
    pub const fn new(status: Status, why: &'static str) -> Self {
        Self { status, why }
    }

    pub(super) const fn bad(why: &'static str) -> Self {
        Self::new(Status::BAD_REQUEST, why)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub(super) status: Status,
    /// Lines of the head.
    fields: Vec<u8>,
    content: Content,
    /// Why a client gets nothing that it should not have asked for, if so: for the log.
    pub(super) refused: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Not even an empty one.
    None,
    Bytes(Vec<u8>),
    File(FilePart),
}

impl Content {
    fn length(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(part) => Some(part.length),
        }
    }
}

impl Response {
    pub(super) fn new(status: Status, content: Content) -> Self {
        // as long as most are: it would grow line by line
        Self { status, fields: Vec::with_capacity(256), content, refused: None }
    }

    /// An answer without any content, not even an empty one.
    pub(super) fn empty(status: Status) -> Self {
        Self::new(status, Content::None)
    }

    /// An answer of these bytes.
    pub(crate) fn of(kind: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::new(Status::OK, Content::Bytes(content.into())).with("Content-Type", kind)
    }

    /// An answer that says no more than its status, for people.
    pub(crate) fn bare(status: Status) -> Self {
        Self { status, ..Self::of(super::kinds::TEXT, format!("{status}\n")) }
    }

    /// The same answer, as a refusal. What is said to the client stays as it is.
    pub(super) fn because(self, why: &'static str) -> Self {
        Self { refused: Some(why), ..self }
    }

    /// The same answer with one more line in its head.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        append_field(&mut self.fields, name, value);
        self
    }

    /// The same answer with one more line in its head, if there is anything to say.
    pub(super) fn with_some(self, name: &str, value: Option<impl AsRef<[u8]>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Appends the answer to `output`, but for a file, which it returns; `connection` is what it says
    /// about the connection. The answer to HEAD is a head.
    pub(super) fn write(
        self,
        output: &mut Vec<u8>,
        is_head: bool,
        connection: Option<&'static str>,
        now: SystemTime,
    ) -> Option<FilePart> {
        let content = if let Content::Bytes(bytes) = &self.content { bytes.len() } else { 0 };
        make_room(output, OWN + self.fields.len() + content);
        output.extend_from_slice(b"HTTP/1.1 ");
        append_number(output, self.status.0.into());
        output.push(b' ');
        output.extend_from_slice(self.status.reason().as_bytes());
        output.extend_from_slice(b"\r\nServer: forkd\r\n");
        // before 1970 there is none, and a board without a battery may believe that it is then
        if let Some(date) = date::write(date::seconds(now)) {
            append_field(output, "Date", date);
        }
        if let Some(length) = self.content.length() {
            output.extend_from_slice(b"Content-Length: ");
            append_number(output, length);
            output.extend_from_slice(b"\r\n");
        }
        output.extend_from_slice(&self.fields);
        if let Some(connection) = connection {
            append_field(output, "Connection", connection);
        }
        // RFC 9110 knows nothing of it: the type is what we say, and nothing is guessed (WHATWG Fetch)
        output.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n\r\n");
        match self.content {
            _ if is_head => None,
            Content::None => None,
            Content::Bytes(bytes) => {
                output.extend_from_slice(&bytes);
                None
            }
            Content::File(part) => Some(part),
        }
    }
}

/// As `reserve`, but where there is nothing yet, nothing is grown: that is more of the program for a child to fault in.
pub(super) fn make_room(bytes: &mut Vec<u8>, more: usize) {
    match bytes.capacity() {
        0 => *bytes = Vec::with_capacity(more),
        _ => bytes.reserve(more),
    }
}

fn append_field(output: &mut Vec<u8>, name: &str, value: impl AsRef<[u8]>) {
    for part in [name.as_bytes(), b": ", value.as_ref(), b"\r\n"] {
        output.extend_from_slice(part);
    }
}

/// By hand: to format is several times the work, and in a forked child several more pages of the program.
fn append_number(output: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return output.extend_from_slice(&digits[first..]);
        }
    }
}

impl From<Refusal> for Response {
    fn from(Refusal { status, why }: Refusal) -> Self {
        Self { status, ..Self::of(super::kinds::TEXT, format!("{status}: {why}\n")) }.because(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(response: Response, is_head: bool) -> String {
        let mut output = Vec::new();
        assert!(response.write(&mut output, is_head, Some("close"), SystemTime::UNIX_EPOCH).is_none());
        String::from_utf8(output).expect("text")
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nServer: forkd\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\
        Content-Type: text/plain\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n";

    #[test]
    fn an_answer_as_it_is_sent() {
        assert_eq!(written(Response::of("text/plain", "hello"), false), format!("{HEAD}hello"));
        assert_eq!(written(Response::of("text/plain", "hello"), true), HEAD);
    }

    #[test]
    fn one_without_content_has_no_length() {
        let text = written(Response::empty(Status::NOT_MODIFIED), false);
        assert!(
            text.starts_with("HTTP/1.1 304 Not Modified\r\n") && !text.contains("Content-Length"),
            "{text}"
        );
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 206, 1_048_576, u64::MAX] {
            let mut output = Vec::new();
            append_number(&mut output, number);
            assert_eq!(output, number.to_string().into_bytes());
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let text = written(Refusal::bad("it is too blue").into(), false);
        assert!(text.ends_with("\r\n\r\n400 Bad Request: it is too blue\n"), "{text}");
    }
}
