//! Dialogues without a socket, and without a clock.

mod staying;
mod validators;

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

const NOT_BEFORE_NOW: Duration = Duration::from_secs(60);

/// A directory with files, served beside a route.
fn site() -> (tempfile::TempDir, Http) {
    let dir = tempfile::tempdir().expect("directory");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).expect("directories");
    fs::create_dir(root.join("bare")).expect("directory");
    for (name, content) in [
        ("index.html", "<p>front</p>".to_owned()),
        ("sub/index.html", "sub".to_owned()),
        (".secret", "hidden".to_owned()),
        ("digits.txt", "0123456789".to_owned()),
        ("large.bin", "large ".repeat(10_000)),
    ] {
        let mut file = fs::File::create(root.join(name)).expect("file");
        file.write_all(content.as_bytes()).expect("write");
        file.set_modified(SystemTime::now() - NOT_BEFORE_NOW).expect("time");
    }
    fs::write(dir.path().join("outside"), "outside").expect("file");
    fs::create_dir(root.join(".well-known")).expect("directory");
    fs::write(root.join(".well-known/security.txt"), "known").expect("file");
    fs::write(root.join(".well-known/.secret"), "hidden").expect("file");
    let http = Http::new().route("/hello", || "Hello").route("/.well-known/x", || "known");
    let http = http.root(&root).expect("root");
    settle(&root.join("large.bin"));
    (dir, http)
}

/// Waits until a file is so old that its tag is not for one answer only: a tick of the clock.
fn settle(path: &Path) {
    let made = fs::metadata(path).and_then(|file| file.created()).expect("metadata");
    while made.elapsed().unwrap_or_default() < Duration::from_millis(20) {
        std::thread::yield_now();
    }
}

/// What a client gets, and whether the connection ended before the client did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Heard {
    /// Does what the driver does with a reply; true means that it asks for more.
    fn take(&mut self, reply: Reply<'_>) -> bool {
        match reply {
            Reply::Wait | Reply::WaitFor(_) => false,
            Reply::Send(bytes) => {
                self.bytes.extend_from_slice(bytes);
                false
            }
            Reply::More(bytes) => {
                self.bytes.extend_from_slice(bytes);
                true
            }
            Reply::File(part) => {
                let mut part = part.clone();
                while part.length > 0 {
                    let n = part.append_to(&mut self.bytes).expect("read");
                    part.advance(n as u64);
                }
                true
            }
            Reply::Finish(bytes) => {
                self.bytes.extend_from_slice(bytes);
                self.has_ended = true;
                false
            }
        }
    }

    fn hear(&mut self, http: &mut Http, input: &[u8]) {
        let mut goes_on = self.take(http.received(input));
        while goes_on {
            goes_on = self.take(http.resume());
        }
        assert!(
            http.dialogue.input.len() <= request::HEAD + input.len(),
            "{} bytes kept",
            http.dialogue.input.len()
        );
        assert!(
            http.dialogue.output.len() <= 4 * router::SMALL as usize,
            "{} bytes made",
            http.dialogue.output.len()
        );
    }

    /// With the dates taken out, which are of the moment.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
    }
}

/// Sends these pieces, and the end if that is still of interest.
fn talk<'a>(http: &Http, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let (mut http, mut heard) = (http.clone(), Heard::default());
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        if heard.has_ended {
            return heard;
        }
        heard.hear(&mut http, piece);
    }
    if !heard.has_ended {
        heard.take(http.ended());
        heard.has_ended = false;
    }
    heard
}

fn ask(http: &Http, request: &str) -> String {
    talk(http, [request.as_bytes()]).text()
}

/// The answer to a GET of this target with these fields, each with its end of line.
fn get(http: &Http, target: &str, fields: &str) -> String {
    ask(http, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect(answer).parse().expect("a number")
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn content(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("an end of the head").1
}

#[test]
fn files_and_routes() {
    let (_dir, http) = site();
    for (target, expected, kind) in [
        ("/", "<p>front</p>", "text/html; charset=utf-8"),
        ("/index.html?query", "<p>front</p>", "text/html; charset=utf-8"),
        ("/sub/", "sub", "text/html; charset=utf-8"),
        ("/d%69gits.txt", "0123456789", "text/plain; charset=utf-8"),
        ("http://a/digits.txt", "0123456789", "text/plain; charset=utf-8"),
        ("/hello", "Hello", "text/plain; charset=utf-8"),
        ("/.well-known/x", "known", "text/plain; charset=utf-8"),
        ("/.well-known/security.txt", "known", "text/plain; charset=utf-8"),
    ] {
        let answer = get(&http, target, "");
        assert_eq!((status(&answer), content(&answer)), (200, expected), "{target}");
        assert_eq!(field(&answer, "Content-Type"), Some(kind), "{target}");
        assert_eq!(field(&answer, "Content-Length"), Some(expected.len().to_string().as_str()), "{target}");
    }
    let large = get(&http, "/large.bin", "");
    assert_eq!(content(&large), "large ".repeat(10_000));
    assert_eq!(field(&large, "Content-Type"), Some("application/octet-stream"));
}

#[test]
fn what_is_not_there_or_not_to_be_seen() {
    let (dir, http) = site();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, dir.path().join("root").join(name)).expect("link");
    };
    link("../outside", "link");
    link(".secret", "not-so-secret");
    link(".well-known", "known");
    assert_eq!(status(&get(&http, "/known/security.txt", "")), 200);
    for target in [
        "/nothing",
        "/bare/",
        "/.secret",
        "/.well-known/.secret",
        "/.well-known/../.secret",
        "/sub/.well-known/security.txt",
        "/known/.secret",
        "/not-so-secret",
        "/../outside",
        "/%2e%2e/outside",
        "/..%2foutside",
        "/sub/..%2f..%2foutside",
        "/link",
        "/digits.txt/",
        "/digits.txt/x",
        "/sub/../../outside",
    ] {
        let answer = get(&http, target, "");
        assert_eq!(status(&answer), 404, "{target}");
        assert!(!answer.contains("outside"), "{answer}");
    }
    for target in ["/%00", "/%zz", "*", "/a#b", "/é", "http:///a"] {
        assert_eq!(status(&get(&http, target, "")), 400, "{target}");
    }
    let answer = get(&http, "//sub?a=b", "");
    assert_eq!((status(&answer), field(&answer, "Location")), (301, Some("/sub/?a=b")));
    assert_eq!(status(&get(&Http::new(), "/index.html", "")), 404);
    assert_eq!(content(&get(&Http::new().route("/hello", || ""), "/", "")), "Here are:\n/hello\n");
}

#[test]
fn a_head_is_the_same_without_content() {
    let (_dir, http) = site();
    for target in ["/digits.txt", "/large.bin", "/hello", "/nothing", "/sub", "/a#b", "/x y"] {
        let of = |method| ask(&http, &format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (get, head) = (of("GET"), of("HEAD"));
        assert_eq!(head, get[..get.len() - content(&get).len()]);
    }
}

#[test]
fn no_answer_to_head_has_content() {
    let (_dir, http) = site();
    for (rest, expected) in [
        ("/hello HTTP/1.1\r\n\r\n", 400),
        ("/hello HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n", 413),
        ("/hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ("/hello HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
        ("/hello HTTP/3.0\r\n", 505),
        ("/hello HTTP/1.1\r\nHo", 400),
        ("/hello HTTP/1.1\r\nHost: a\r\nIf-Match: \"x\"\r\n\r\n", 412),
    ] {
        let answer = ask(&http, &format!("HEAD {rest}"));
        assert_eq!((status(&answer), content(&answer)), (expected, ""), "{rest}");
    }
    let (mut http, mut heard) = (http, Heard::default());
    heard.hear(&mut http, b"HEAD /hello HTTP/1.1\r\nHost: ");
    heard.take(http.timed_out());
    assert_eq!((status(&heard.text()), content(&heard.text())), (408, ""));
}

#[test]
fn what_can_be_done_is_told() {
    let (_dir, http) = site();
    for (line, expected) in [
        ("OPTIONS *", 204),
        ("OPTIONS /digits.txt", 204),
        ("POST /digits.txt", 405),
        ("TRACE /", 405),
        ("CONNECT a:80", 405),
    ] {
        let answer = ask(&http, &format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(
            (status(&answer), field(&answer, "Allow")),
            (expected, Some("GET, HEAD, OPTIONS")),
            "{line}"
        );
        assert_eq!(field(&answer, "Content-Length").is_none(), expected == 204, "{line}");
    }
    let tunnel = "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(ask(&http, tunnel).matches("HTTP/1.1 ").count(), 1, "what follows is not for us");
}

#[test]
fn a_large_file_is_let_go_of_when_it_is_sent() {
    let (_dir, mut http) = site();
    assert!(matches!(http.received(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n"), Reply::More(_)));
    let Reply::File(part) = http.resume() else { panic!("no file") };
    let file = Arc::downgrade(&part.file);
    assert_eq!((part.offset, part.length), (0, 60_000));
    assert_eq!(http.resume(), Reply::Wait);
    assert!(file.upgrade().is_none());
}

#[test]
fn a_datagram_is_not_answered() {
    assert_eq!(Http::new().datagram(b"GET / HTTP/1.0\r\n\r\n"), Reply::Wait);
}

/// Parts of dialogues, good and bad.
fn any_part() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(
        &[
            "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /digits.txt HTTP/1.1\nHost: a\n\n",
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /sub HTTP/1.0\r\n\r\n",
            "\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
            "GET /hello HTTP/1.1\r\n",
            "Host: a\r\n",
            "\r\n\r\n",
            "x: ",
            "GET /hello HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/3.0\r\n",
            "GET /%2e%2e/outside HTTP/1.1\r\nHost: a\r\n\r\n",
            "\0",
            "é",
            "Content-Length: 7\r\n",
            "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "3;a=b\r\nabc\r\n",
            "0\r\n\r\n",
            "OPTIONS * HTTP/1.7\r\nHost: a\r\n\r\n",
        ][..],
    );
    prop_oneof![
        8 => part.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (1_usize..20_000).prop_map(|length| vec![b'x'; length]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_answer_does_not_depend_on_how_the_question_comes(
        parts in prop::collection::vec(any_part(), 1..8),
        sizes in prop::collection::vec(1_usize..600, 1..9),
    ) {
        let (_dir, http) = site();
        let all = parts.concat();
        let at_once = talk(&http, all.chunks(crate::sys::buffer::CHUNK));
        let (mut rest, mut pieces) = (&all[..], Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at(rest.len().min(*size));
            pieces.push(piece);
            rest = more;
        }
        let in_pieces = talk(&http, pieces);
        prop_assert_eq!(at_once.text(), in_pieces.text());
        prop_assert!(!at_once.text().contains("outside"));
    }
}

#[test]
fn what_is_no_http_is_an_offence_and_what_is_not_there_is_none() {
    let offence = |bytes: &[u8]| {
        let mut http = Http::new().route("/hello", || "Hello");
        http.received(bytes);
        http.timed_out();
        http.offence()
    };
    assert_eq!(offence(b"GET /hello HTTP/1.1\r\nHost: here\r\n\r\n"), None);
    assert_eq!(offence(b"GET /nowhere HTTP/1.0\r\n\r\n"), None);
    assert_eq!(offence(b"what?\r\n\r\n"), Some(Offence::Protocol));
    assert_eq!(offence(b"GET /hello HT"), Some(Offence::Timeout), "too slow");
    assert_eq!(offence(b""), None, "a connection that is kept for later");
}
