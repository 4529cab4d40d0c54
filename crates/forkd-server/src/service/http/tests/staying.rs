//! For how long a client may stay, and for how many requests.

use super::*;

#[test]
fn who_stays_is_answered_again_and_who_goes_is_not() {
    let (_dir, http) = site();
    let two = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /digits.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let heard = talk(&http, [[two, two].concat().as_bytes()]);
    assert!(heard.has_ended);
    let text = heard.text();
    assert_eq!(
        (text.matches("HTTP/1.1 200").count(), text.matches("Connection: close").count()),
        (2, 1),
        "{text}"
    );
    assert!(text.find("Hello") < text.find("0123456789"));
    let old = ask(&http, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(
        (old.matches("Connection: keep-alive").count(), old.matches("Connection: close").count()),
        (1, 1)
    );
}

#[test]
fn only_a_client_that_has_asked_for_the_end_and_sent_nothing_behind_it_is_not_waited_for() {
    let (_dir, http) = site();
    for (request, is_done) in [
        ("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("HEAD /large.bin HTTP/1.0\r\n\r\n", true),
        ("GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.0\r\n\r\n", true),
        ("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\r\n", false),
        ("GET /hello HTTP/1.0\r\n\r\nGET", false),
        ("GET /hello HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", false),
        ("POST /hello HTTP/1.0\r\nContent-Length: 100000\r\n\r\n", false),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET /large.bin HTTP/1.0\r\n\r\n", false),
        ("nonsense\r\n\r\n", false),
    ] {
        let mut http = http.clone();
        Heard::default().hear(&mut http, request.as_bytes());
        assert_eq!(http.client_is_done(), is_done, "{request}");
    }
}

#[test]
fn a_connection_is_not_for_ever() {
    let (_dir, mut http) = site();
    http.dialogue.timeouts.limits.requests = 3;
    let text = ask(&http, &"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5));
    assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("Connection: close").count()), (3, 1));
}

#[test]
fn content_is_thrown_away_if_it_is_short() {
    let (_dir, http) = site();
    let with = |start: &str, fields: &str, content: &str| {
        let request = format!(
            "{start} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{content}GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        ask(&http, &request)
    };
    let statuses = |text: &str| -> Vec<u16> {
        text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status")).collect()
    };
    assert_eq!(statuses(&with("GET /hello", "Content-Length: 3\r\n", "GET\r\n")), [200, 200]);
    assert_eq!(statuses(&with("POST /hello", "Content-Length: 3\r\n", "GET")), [405, 200]);
    assert_eq!(statuses(&with("BREW /hello", "", "")), [501, 200]);
    assert_eq!(statuses(&with("GET /hello", "Content-Length: 65537\r\n", "")), [413]);
    assert_eq!(statuses(&with("POST /hello", "Content-Length: 65537\r\n", "")), [405]);
    assert_eq!(statuses(&with("GET /hello", "Content-Length: 3, 3\r\n", "abc")), [200, 200]);
    assert_eq!(statuses(&with("GET /hello", "Transfer-Encoding: gzip, chunked\r\n", "")), [501]);
    let expects = "Content-Length: 3\r\nExpect: 100-continue\r\n";
    assert_eq!(statuses(&with("GET /hello", expects, "abc")), [100, 200, 200]);
    assert_eq!(statuses(&with("POST /hello", expects, "abc")), [405]);
    assert!(with("POST /hello", "", "").contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
    let closing = "Content-Length: 3\r\nConnection: close\r\n";
    assert!(
        talk(&http, [format!("GET /hello HTTP/1.1\r\nHost: a\r\n{closing}\r\nabc").as_bytes()]).has_ended
    );
}

#[test]
fn chunked_content_is_thrown_away() {
    let (_dir, http) = site();
    let next = "GET /digits.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let statuses = |start: &str, fields: &str, content: &str| -> Vec<u16> {
        let head = format!("{start} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{fields}\r\n");
        let answers = ask(&http, &[&head, content, next].concat());
        answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status")).collect()
    };
    let long = format!("{:x}\r\n{}\r\n0\r\n\r\n", 200_000, "x".repeat(200_000));
    for content in ["0\r\n\r\n", "3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", &long] {
        assert_eq!(statuses("GET /hello", "", content), [200, 200]);
        assert_eq!(statuses("HEAD /digits.txt", "", content), [200, 200]);
        assert_eq!(statuses("OPTIONS *", "", content), [204, 200]);
        assert_eq!(statuses("POST /hello", "", content), [405, 200]);
        assert_eq!(statuses("BREW /hello", "", content), [501, 200]);
        assert_eq!(statuses("GET /hello", "Expect: 100-continue\r\n", content), [100, 200, 200]);
    }
    // one answer to one request, also where it is seen late that it is none
    for broken in ["x\r\n", "3\r\nabcd\r\n", "0\n\n", "-1\r\n", "2\r\nabX\r\n"] {
        assert_eq!(statuses("GET /hello", "", broken), [400], "{broken:?}");
    }
    assert_eq!(statuses("GET /hello", "", "1000001\r\n"), [413]);
    assert_eq!(statuses("POST /hello", "Expect: 100-continue\r\n", "0\r\n\r\n"), [405]);
}

#[test]
fn an_answer_waits_for_the_content() {
    let (_dir, mut http) = site();
    let mut heard = Heard::default();
    heard.hear(&mut http, b"GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab");
    assert!(heard.bytes.is_empty());
    heard.hear(&mut http, b"c\r\n0\r\n\r\n");
    assert_eq!(status(&heard.text()), 200);
    heard.hear(&mut http, b"GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345");
    let Reply::Finish(bytes) = http.ended() else { panic!("the connection goes on") };
    assert!(bytes.starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn a_refused_client_is_not_listened_to() {
    let (_dir, mut http) = site();
    let mut heard = Heard::default();
    heard.hear(&mut http, b"nonsense\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = heard.text();
    assert_eq!((status(&text), heard.has_ended, text.matches("HTTP/1.1").count()), (400, true, 1), "{text}");
}

/// What is said when the time is up; after that the connection ends.
fn told_at_the_end(http: &mut Http) -> String {
    let Reply::Finish(bytes) = http.timed_out() else { panic!("the connection goes on") };
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_request_has_so_long_however_it_trickles_in() {
    let (_dir, mut http) = site();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(http.deadline(at(0)), Some(at(10)));
    let mut heard = Heard::default();
    for (second, byte) in (3..).zip(b"\r\nGET /he") {
        heard.hear(&mut http, &[*byte]);
        // empty lines are no beginning
        let until = if second < 5 { 10 } else { 15 };
        assert_eq!(http.deadline(at(second)), Some(at(until)), "{second}");
    }
    let text = told_at_the_end(&mut http);
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
}

#[test]
fn the_next_request_has_a_time_of_its_own() {
    let (_dir, mut http) = site();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut heard = Heard::default();
    let request = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    heard.hear(&mut http, &request[..9]);
    assert_eq!(http.deadline(at(1)), Some(at(11)));
    // the end of one and the beginning of the next
    heard.hear(&mut http, &[&request[9..], &request[..9]].concat());
    assert_eq!(http.deadline(at(8)), Some(at(18)));
    heard.hear(&mut http, &request[9..]);
    assert_eq!((http.deadline(at(9)), http.deadline(at(12))), (Some(at(14)), Some(at(14))));
    assert_eq!(told_at_the_end(&mut http), "", "no request has begun");
    heard.hear(&mut http, request);
    assert_eq!(http.deadline(at(13)), Some(at(18)));
    heard.hear(&mut http, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345");
    assert_eq!(http.deadline(at(14)), Some(at(24)), "content is waited for, too");
    heard.hear(&mut http, b"6789");
    assert_eq!(http.deadline(at(20)), Some(at(25)));
    heard.hear(&mut http, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345");
    let text = told_at_the_end(&mut http);
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
}

#[test]
fn empty_lines_are_no_way_to_stay() {
    let (_dir, mut http) = site();
    let mut heard = Heard::default();
    for _ in 0..dialogue::BLANK {
        heard.hear(&mut http, b"\n");
    }
    assert!(heard.bytes.is_empty());
    heard.hear(&mut http, b"GET /hello HTTP/1.1\nHost: a\n\n");
    heard.hear(&mut http, &[b'\r'; dialogue::BLANK + 1]);
    let text = heard.text();
    assert_eq!(
        (text.matches("HTTP/1.1 200").count(), text.matches("HTTP/1.1 400").count()),
        (1, 1),
        "{text}"
    );
}
