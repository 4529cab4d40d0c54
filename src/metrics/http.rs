//! What scrapers and probes ask for over HTTP: GET and HEAD of /metrics, /livez and /readyz. All else of HTTP is as in the
//! service http, whose dialogue it is.

use std::cell::RefCell;
use std::time::SystemTime;

use super::{Metrics, health};
use forkd_server::supervise::{
    Dialogue, HttpRefusal as Refusal, Request, Responder, Response, Status, Target, made, parts,
};
use forkd_server::{Protocol, Reply};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Plain,
}

/// How many bytes of answers may wait for scrapers to read them: those that don't read shall not fill the memory.
const MOST_UNREAD: usize = 64 << 20;

/// A connection of a scraper, which makes one request.
pub(super) struct Scrape<'a> {
    dialogue: Dialogue,
    answers: Answers<'a>,
}

/// Where its answer comes from.
struct Answers<'a> {
    metrics: &'a RefCell<Metrics>,
    /// The length of its answer, which is one of those that wait.
    unread: usize,
}

impl<'a> Scrape<'a> {
    pub(super) fn new(metrics: &'a RefCell<Metrics>) -> Self {
        Self { dialogue: Dialogue::of_one_request(), answers: Answers { metrics, unread: 0 } }
    }
}

impl Protocol for Scrape<'_> {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.dialogue.received(&mut self.answers, input)
    }

    fn resume(&mut self) -> Reply<'_> {
        self.dialogue.resume(&mut self.answers)
    }

    fn ended(&mut self) -> Reply<'_> {
        self.dialogue.ended(&mut self.answers)
    }
}

impl Responder for Answers<'_> {
    fn respond(&mut self, request: &Request<'_>, target: &Target<'_>, now: SystemTime) -> Response {
        let mut metrics = self.metrics.borrow_mut();
        respond(request, target, now, |page| match page {
            Page::Metrics(_) if metrics.unread > MOST_UNREAD => {
                Err("too many scrapers have not read their answers yet; try again")
            }
            Page::Metrics(format) => {
                let text = metrics.text(format);
                self.unread = text.len();
                metrics.unread += self.unread;
                Ok(text)
            }
            Page::Alive => health::alive(metrics.sample()).map(|()| "alive\n".to_owned()),
            Page::Ready => health::ready(metrics.sample()).map(|()| "ready\n".to_owned()),
        })
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.metrics.borrow_mut().unread -= self.unread;
    }
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Metrics(Format),
    Alive,
    Ready,
}

impl Page {
    /// What a request asks for, if there is that.
    fn of(request: &Request<'_>, target: &Target<'_>) -> Option<Self> {
        match &target.path[..] {
            _ if target.is_directory => None,
            b"/metrics" => Some(Self::Metrics(format_for(&request.accept))),
            b"/livez" => Some(Self::Alive),
            b"/readyz" => Some(Self::Ready),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Metrics(Format::OpenMetrics) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
            Self::Metrics(Format::Plain) => "text/plain; version=0.0.4; charset=utf-8",
            Self::Alive | Self::Ready => "text/plain",
        }
    }
}

/// The answer to a request; `content` makes it, or says why there is none.
fn respond(
    request: &Request<'_>,
    target: &Target<'_>,
    now: SystemTime,
    content: impl FnOnce(Page) -> Result<String, &'static str>,
) -> Response {
    let Some(page) = Page::of(request, target) else {
        let why = "metrics are at /metrics, health is at /livez and /readyz";
        return Refusal::new(Status::NOT_FOUND, why).into();
    };
    match content(page) {
        Ok(text) => made(|| text.into_bytes(), page.content_type(), request, now).with("Vary", "Accept"),
        Err(why) => Response::from(Refusal::new(Status::UNAVAILABLE, why)).with("Cache-Control", "no-store"),
    }
}

/// The format that a scraper would rather have. It is the plain one if it has no preference, and if it takes
/// neither: a person with a browser is better off with that than with an error (RFC 9110, section 12.4.1).
fn format_for(accept: &[&[u8]]) -> Format {
    let open = Wish::of("application/openmetrics-text", accept);
    let plain = Wish::of("text/plain", accept);
    let is_named = open.precision == 3;
    if open.weight > plain.weight || open.weight > 0 && open.weight == plain.weight && is_named {
        Format::OpenMetrics
    } else {
        Format::Plain
    }
}

/// What the field Accept says of one kind of content (RFC 9110, section 12.5.1). The most precise range counts,
/// and the heaviest of several that are equally precise.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    /// 1 for any kind, 2 for its type, 3 for the kind itself; 0 where none of them is there.
    precision: u8,
    /// In thousandths.
    weight: u16,
}

impl Wish {
    fn of(kind: &str, accept: &[&[u8]]) -> Self {
        let ranges = accept.iter().flat_map(|line| parts(line, b','));
        ranges.filter_map(|range| Self::by(range, kind)).max().unwrap_or_default()
    }

    /// `None` if this range is about other kinds.
    fn by(range: &[u8], kind: &str) -> Option<Self> {
        let mut parts = parts(range, b';');
        let range = str::from_utf8(parts.next()?).ok()?.to_ascii_lowercase();
        let precision = match range.strip_suffix("/*") {
            _ if range == kind => 3,
            Some("*") => 1,
            Some(of_type) if kind.split('/').next() == Some(of_type) => 2,
            _ => return None,
        };
        let weight = parts.find_map(|parameter| match parameter {
            [b'q' | b'Q', b'=', weight @ ..] => Some(thousandths(weight)),
            _ => None,
        });
        Some(Self { precision, weight: weight.unwrap_or(1000) })
    }
}

/// A weight such as `0.5` (RFC 9110, section 12.4.2). What is none is no wish.
fn thousandths(weight: &[u8]) -> u16 {
    let (whole, rest) = weight.split_at(weight.len().min(1));
    let digits = match rest {
        [] => &[][..],
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return 0,
    };
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    let part = digit(0) * 100 + digit(1) * 10 + digit(2);
    match whole {
        b"1" if part == 0 => 1000,
        b"0" => part,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Responder for Fake {
        fn respond(&mut self, request: &Request<'_>, target: &Target<'_>, now: SystemTime) -> Response {
            respond(request, target, now, |page| match page {
                Page::Metrics(format) => Ok(format!("{format:?}\n")),
                Page::Alive => Ok("alive\n".to_owned()),
                Page::Ready => Err("draining"),
            })
        }
    }

    /// The answer to a request, which is the last one.
    fn ask(request: &str) -> String {
        let mut dialogue = Dialogue::of_one_request();
        let Reply::Finish(answer) = dialogue.received(&mut Fake, request.as_bytes()) else {
            panic!("{request:?} is not answered, or the connection goes on")
        };
        String::from_utf8_lossy(answer).into_owned()
    }

    fn get(accept: &str) -> String {
        ask(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n"))
    }

    #[test]
    fn the_format_is_what_the_scraper_would_rather_have() {
        for (accept, format) in [
            // what Prometheus 2 sends, and what Prometheus 3 does
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            ("text/html, Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text, text/plain", Format::OpenMetrics),
            ("application/*", Format::OpenMetrics),
            ("text/plain;q=0.1, */*;q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text ; Q=0.001", Format::OpenMetrics),
            ("a/b;c=\"d, application/openmetrics-text;q=0\", application/*", Format::OpenMetrics),
            ("*/*", Format::Plain),
            ("text/plain", Format::Plain),
            ("text/html", Format::Plain),
            ("", Format::Plain),
            ("application/openmetrics-text;q=0", Format::Plain),
            ("application/openmetrics-text; q=0.000, */*", Format::Plain),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.6", Format::Plain),
            ("application/openmetrics-text;q=0.5, text/*", Format::Plain),
            ("application/openmetrics-text;q=much", Format::Plain),
            ("application/openmetrics-text;q=1.5", Format::Plain),
            ("a/b;c=\"d, application/openmetrics-text\"", Format::Plain),
        ] {
            let answer = get(&format!("Accept: {accept}\r\n"));
            assert!(answer.ends_with(&format!("\r\n\r\n{format:?}\n")), "{accept}: {answer}");
            let kind = format!("\r\nContent-Type: {}\r\n", Page::Metrics(format).content_type());
            assert!(answer.contains(&kind) && answer.contains("\r\nVary: Accept\r\n"), "{answer}");
        }
        let lines = get("Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text\r\n");
        assert!(lines.ends_with("OpenMetrics\n"), "{lines}");
        assert!(get("").ends_with("Plain\n"));
    }

    #[test]
    fn what_is_no_request_for_metrics_gets_its_own_answer() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
            ("GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed"),
            ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "204 No Content"),
            ("BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "501 Not Implemented"),
            ("GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/9.1\r\n\r\n", "505 HTTP Version Not Supported"),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nIf-Match: \"a\"\r\n\r\n", "412 Precondition Failed"),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n", "304 Not Modified"),
            ("\0\0\0\0", "400 Bad Request"),
        ] {
            let answer = ask(request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {answer}");
            let has_method = status.starts_with("405") || status.starts_with("204");
            assert_eq!(answer.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), has_method, "{answer}");
            assert!(
                answer.contains("\r\nDate: ") && answer.contains("\r\nConnection: close\r\n"),
                "{answer}"
            );
        }
    }

    #[test]
    fn health_is_a_status_and_a_word() {
        let probe = |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let alive = probe("/livez");
        assert!(alive.starts_with("HTTP/1.1 200 OK\r\n") && alive.ends_with("\r\n\r\nalive\n"), "{alive}");
        let draining = probe("/readyz");
        assert!(draining.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{draining}");
        assert!(draining.ends_with("\r\n\r\n503 Service Unavailable: draining\n"), "{draining}");
        for answer in [alive, draining] {
            assert!(answer.contains("\r\nCache-Control: no-store\r\n"), "{answer}");
        }
        assert!(probe("/readyz/").contains("health is at /livez and /readyz"));
    }

    #[test]
    fn all_forms_of_a_request_will_do() {
        for request in [
            "GET /metrics?x=y HTTP/1.0\r\n\r\n",
            "GET http://x:9/metrics HTTP/1.1\r\nHost: y\r\n\r\n",
            "GET /%6detrics HTTP/1.9\r\nHost:\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ] {
            let answer = ask(request);
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nPlain\n"),
                "{answer}"
            );
        }
    }

    #[test]
    fn a_head_has_the_length_of_the_content_and_no_content() {
        let [get, head] =
            ["GET", "HEAD"].map(|method| ask(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n")));
        assert_eq!(get.strip_suffix("Plain\n"), Some(&*head));
        assert!(head.contains("\r\nContent-Length: 6\r\n"), "{head}");
        let refused = ask("HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.ends_with("\r\n\r\n"), "{refused}");
    }
}
