//! As much of HTTP/1.1 (RFC 9112) as a scraper needs: GET and HEAD of /metrics. Pure: bytes in, bytes out.

use httparse::{Error, Request};

/// The longest head of a request.
pub(super) const LONGEST: usize = 8192;
/// The most header fields of a request.
const FIELDS: usize = 64;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Plain,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The metrics, or only how long they are.
    Metrics { format: Format, head_only: bool },
    /// Something that is answered with an error.
    Wrong(Status),
}

/// Why there are no metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    BadRequest,
    NotFound,
    NotAllowed,
    TooLong,
    Version,
}

/// What the bytes of a request come to; `None` while its head is not complete.
pub(super) fn read(bytes: &[u8]) -> Option<Asked> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(parsed) if parsed.is_complete() => Some(asked(&request)),
        Ok(_) if bytes.len() >= LONGEST => Some(Asked::Wrong(Status::TooLong)),
        Ok(_) => None,
        Err(Error::TooManyHeaders) => Some(Asked::Wrong(Status::TooLong)),
        Err(Error::Version) => Some(Asked::Wrong(Status::Version)),
        Err(_) => Some(Asked::Wrong(Status::BadRequest)),
    }
}

fn asked(request: &Request<'_, '_>) -> Asked {
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    match (path, request.method) {
        ("/metrics", Some(method @ ("GET" | "HEAD"))) => {
            Asked::Metrics { format: format_of(request), head_only: method == "HEAD" }
        }
        ("/metrics", _) => Asked::Wrong(Status::NotAllowed),
        _ => Asked::Wrong(Status::NotFound),
    }
}

/// OpenMetrics for who says that they take it.
fn format_of(request: &Request<'_, '_>) -> Format {
    let accept = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("accept"));
    let mut media = accept.flat_map(|field| field.value.split(|&byte| byte == b','));
    let is_open_metrics = |media: &[u8]| {
        let media = String::from_utf8_lossy(media).to_ascii_lowercase();
        let mut parts = media.split(';').map(str::trim);
        parts.next() == Some("application/openmetrics-text") && !parts.any(is_not_wanted)
    };
    if media.any(is_open_metrics) { Format::OpenMetrics } else { Format::Plain }
}

/// A weight of 0 says "anything but this" (RFC 9110, 12.4.2).
fn is_not_wanted(parameter: &str) -> bool {
    parameter.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0))
}

/// The answer to a request; `metrics` makes their text.
pub(super) fn answer(asked: Asked, metrics: impl FnOnce(Format) -> String) -> Vec<u8> {
    let (status, kind, body, head_only) = match asked {
        Asked::Metrics { format, head_only } => ("200 OK", content_type(format), metrics(format), head_only),
        Asked::Wrong(status) => {
            let (status, why) = status.words();
            (status, "text/plain; charset=utf-8", format!("{why}\n"), false)
        }
    };
    let allow = if asked == Asked::Wrong(Status::NotAllowed) { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    if head_only { head.into_bytes() } else { (head + &body).into_bytes() }
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
    }
}

impl Status {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest => ("400 Bad Request", "this is no request of HTTP"),
            Self::NotFound => ("404 Not Found", "there is nothing here; metrics are at /metrics"),
            Self::NotAllowed => ("405 Method Not Allowed", "metrics can only be read: GET or HEAD"),
            Self::TooLong => ("431 Request Header Fields Too Large", "the head of the request is too long"),
            Self::Version => ("505 HTTP Version Not Supported", "this server speaks HTTP/1.1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(accept: &str) -> Asked {
        read(format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn the_format_is_what_the_scraper_takes() {
        let metrics = |format| Asked::Metrics { format, head_only: false };
        // what Prometheus 2 sends
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
             q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(get(prometheus), metrics(Format::OpenMetrics));
        assert_eq!(get("text/html, Application/OpenMetrics-Text"), metrics(Format::OpenMetrics));
        for plain in
            ["*/*", "text/plain", "application/openmetrics-text;q=0", "application/openmetrics-text; q=0.0"]
        {
            assert_eq!(get(plain), metrics(Format::Plain), "{plain}");
        }
        let head = read(b"HEAD /metrics?x=y HTTP/1.0\r\n\r\n");
        assert_eq!(head, Some(Asked::Metrics { format: Format::Plain, head_only: true }));
    }

    #[test]
    fn what_is_no_request_for_metrics_gets_its_own_answer() {
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        let long = format!("GET /{}", "a".repeat(LONGEST));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /metrics HTTP/9.1\r\n\r\n", "505"),
            ("\0\0\0\0", "400"),
            (&many, "431"),
            (&long, "431"),
        ] {
            let asked = read(request.as_bytes()).unwrap();
            let answer = String::from_utf8(answer(asked, |_| panic!("no metrics"))).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
            assert_eq!(answer.contains("\r\nAllow: GET, HEAD\r\n"), status == "405");
        }
        assert_eq!(read(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(read(b""), None);
    }

    #[test]
    fn a_head_has_the_length_of_the_body_and_no_body() {
        let asked = |head_only| Asked::Metrics { format: Format::Plain, head_only };
        let [get, head] =
            [false, true].map(|head| String::from_utf8(answer(asked(head), |_| "abc\n".into())).unwrap());
        assert_eq!(get, format!("{head}abc\n"));
        assert!(head.contains("\r\nContent-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
}
