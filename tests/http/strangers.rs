//! Hostile clients, slow ones, and ones that leave.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::*;

under_models! {
    [fork spare prefork iterative thread event coroutine]

    fn nothing_is_served_from_outside(model) {
        let daemon = serve(model);
        for target in [
            "/../secret", "/sub/../../secret", "/%2e%2e/secret", "/%2E%2e%2fsecret", "/..%2fsecret", "/sub/..%2f..%2fsecret",
            "/..%5csecret", "/%252e%252e/secret", "/.%2e/secret", "/./../secret", "//../secret", "/out", "/absolute",
            "/sub/up/secret", "/slash/etc/passwd", "/.hidden", "/sub/.hidden", "/%2ehidden", "/bare/", "/fifo", "/etc/passwd",
            "http://a/../secret", "/sub/deep/page.html/../../../../secret", "/digits.txt/../../secret",
        ] {
            let answer = get(&daemon, target);
            assert_eq!(status(&answer), 404, "{target}: {answer}");
            assert!(!answer.contains(SECRET) && !answer.contains("root:"), "{target}: {answer}");
        }
        for target in ["/%00", "/digits.txt%00.html", "/%", "/%zz", "secret", "../secret", "*", "/a#b", "/é"] {
            assert_eq!(status(&get(&daemon, target)), 400, "{target}");
        }
        let long = "x".repeat(5000);
        assert_eq!(status(&get(&daemon, &format!("/{long}"))), 404);
        assert_eq!(status(&get(&daemon, "/digits.txt")), 200, "it goes on");
    }

    fn bad_requests_are_refused(model) {
        let daemon = serve(model);
        let head = |fields: &str| format!("GET /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        for (request, expected) in [
            ("nonsense\r\n".to_owned(), 400),
            ("\u{16}\u{3}\u{1}\u{2}".to_owned(), 400),
            ("GET /hello\r\n".to_owned(), 400),
            ("GET /hello HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET /hello HTTP/1.1\r\nHo".to_owned(), 400),
            (head("Host: b\r\n"), 400),
            (head("bad field\r\n"), 400),
            (head("Content-Length: -1\r\n"), 400),
            (head("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
            (head("Transfer-Encoding: chunked\r\n"), 400),
            (head("Transfer-Encoding: gzip, chunked\r\n"), 501),
            (head("Content-Length: 1000000\r\n"), 413),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)), 414),
            (head(&format!("X: {}\r\n", "x".repeat(20_000))), 431),
            (head(&"X: y\r\n".repeat(200)), 431),
            ("GET /hello HTTP/2.0\r\n\r\n".to_owned(), 505),
            ("POST /hello HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
            ("BREW /hello HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
            // never to be repeated to the client
            ("GET /hello HTTP/1.1\r\nHost: <script>\r\n\r\n".to_owned(), 400),
        ] {
            let answer = ask(&daemon, &request);
            assert_eq!(status(&answer), expected, "{:.80}: {answer}", request);
            assert!(!answer.contains("<script>"), "{answer}");
        }
        assert_eq!(status(&get(&daemon, "/hello")), 200, "it goes on");
        // whatever became of the limit, a search finds the line
        daemon.wait_for_line("reason=\"the field Host is missing\"");
        daemon.wait_for_line("debug: request answered peer=127.0.0.1:");
    }

    fn bad_requests_do_not_fill_the_log(model) {
        const CLIENTS: usize = 5;
        const EACH: usize = 100;
        let daemon = forkd_http(model).start();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| (0..EACH).for_each(|_| assert_eq!(status(&ask(&daemon, "nonsense\r\n")), 400)));
            }
        });
        // each process is new under fork, and all have one limit
        daemon.has_left_out("request refused", CLIENTS * EACH, start, || {
            let mut client = daemon.connect();
            let peer = client.local_addr().unwrap();
            client.write_all(b"nonsense\r\n").unwrap();
            assert_eq!(status(&rest_of(client)), 400);
            peer
        });
    }

    fn a_request_without_an_end_costs_its_sender_no_more_than_a_refusal(model) {
        let daemon = serve(model);
        let mut client = daemon.connect();
        // the answer comes although the client goes on; how far it comes is a matter of buffers
        let _ = client.write_all(format!("GET /{}", "x".repeat(100_000)).as_bytes());
        let mut start = [0; 12];
        client.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 414");
        drop(client);
        assert_eq!(status(&get(&daemon, "/hello")), 200);
    }

    fn a_refused_client_hears_all_of_it_at_once_and_may_go_on_for_a_moment(model) {
        for endpoint in ["tcp://127.0.0.1:0", "unix://{dir}/s"] {
            let daemon = forkd_http(&format!("{model} {endpoint}")).start();
            for request in [b"nonsense\r\n".to_vec(), [b"nonsense\r\n".to_vec(), vec![b'x'; 100_000]].concat()] {
                let mut client = wire::stream(&daemon);
                client.write_all(&request).unwrap();
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).unwrap();
                assert_eq!(status(&text(heard)), 400);
                // the end came before the close: much more than the buffers on the way can hold is still taken
                client.write_all(&vec![b'x'; 5_000_000]).unwrap();
            }
        }
    }

    fn a_refused_client_does_not_stay(model) {
        let daemon = forkd_http(model).start();
        let refused = || {
            let mut client = daemon.connect();
            client.write_all(b"nonsense\r\n").unwrap();
            assert_eq!(status(&rest_of(client.try_clone().unwrap())), 400);
            client
        };
        // one that goes on for ever, and one that goes on slowly
        let mut flood = refused();
        let megabytes = (0..100).take_while(|_| flood.write_all(&vec![b'x'; 1_000_000]).is_ok()).count();
        assert!(megabytes < 100);
        let mut trickle = refused();
        eventually("the connection is closed", || trickle.write_all(b"x").is_err());
        assert_eq!(status(&get(&daemon, "/hello")), 200, "it goes on");
    }

    fn a_client_that_leaves_midway_harms_no_other(model) {
        let daemon = serve(model);
        for n in 0..10 {
            let mut client = daemon.connect();
            client.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            client.read_exact(&mut [0; 1000]).unwrap();
            if n % 2 == 0 { reset(client) } else { drop(client) }
        }
        assert_eq!(status(&get(&daemon, "/hello")), 200);
        assert_eq!(daemon.count_lines("handler failed"), 0, "{:?}", daemon.log());
        let files = |pid| fds_of(pid).into_iter().filter(|(_, what)| what.contains("large.bin")).count();
        eventually("files are closed", || daemon.children().into_iter().map(files).sum::<usize>() == 0);
    }

    fn the_idle_timeout_counts_here_too(model) {
        let daemon = serve(&format!("{model} --idle-timeout 300ms"));
        // one that reads nothing
        let mut client = daemon.connect();
        client.write_all("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3).as_bytes()).unwrap();
        daemon.wait_for_line("connection ended");
        assert!(is_cut(&mut client));
        // one that says nothing, which would have had ten seconds for its request
        let start = Instant::now();
        assert!(is_cut(&mut daemon.connect()));
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }
}

/// What comes until the server ends the connection.
fn rest_of(mut client: Client) -> String {
    let mut heard = Vec::new();
    match client.read_to_end(&mut heard) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => text(heard),
    }
}

/// All models wait at the same time.
#[test]
fn what_is_refused_is_in_the_log_with_the_reason() {
    let models = ["fork", "prefork", "iterative", "thread", "threads", "event", "coroutine"];
    let daemons: Vec<Daemon> = models.iter().map(|model| forkd_http(options_of(model)).start()).collect();
    let head = format!("GET /long HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for daemon in &daemons {
        for (request, said) in [
            ("GET /../secret HTTP/1.0\r\n\r\n", "404 reason=\"the path leads up, or to what is hidden\""),
            (
                "GET /%2e%2e%2fsecret HTTP/1.0\r\n\r\n",
                "404 reason=\"the path leads up, or to what is hidden\"",
            ),
            ("GET /out HTTP/1.0\r\n\r\n", "404 reason=\"the path leads out of the root\""),
            ("non\u{1b}sense\r\n", "400 reason=\"the request line is malformed\""),
        ] {
            is_logged(daemon, request, said);
        }
        is_logged(daemon, &head, "431 reason=\"the header fields are too large\"");
        // nothing is wrong with these
        get(daemon, "/hello");
        get(daemon, "/nowhere");
    }
    let slow: Vec<Client> = daemons
        .iter()
        .map(|daemon| {
            let mut client = daemon.connect();
            client.write_all(b"GET /slow HTTP/1.1\r\nX: ").unwrap();
            client
        })
        .collect();
    for (daemon, client) in daemons.iter().zip(slow) {
        let peer = client.local_addr().unwrap();
        assert_eq!(status(&rest_of(client)), 408);
        let line = daemon.wait_for_line("status=408");
        let said = format!(
            "peer={peer} status=408 reason=\"the request takes too long\" request=\"GET /slow HTTP/1.1\""
        );
        assert!(line.contains(&said), "{line}");
        assert_eq!(daemon.count_lines("request"), 6, "{:?}", daemon.log());
    }
}

#[track_caller]
fn is_logged(daemon: &Daemon, request: &str, said: &str) {
    let mut client = daemon.connect();
    let peer = client.local_addr().unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(status(&rest_of(client)).to_string(), said[..3]);
    let line = daemon.wait_for_line(&format!("request refused peer={peer} status={said} request="));
    let first = request.split("\r\n").next().unwrap().replace('\u{1b}', "\\u{1b}");
    assert!(line.contains(&format!("=\"{first}\" ")) || line.contains(&format!("={first} ")), "{line}");
}

/// All models wait at the same time.
#[test]
fn slow_clients_are_told_and_idle_ones_are_left() {
    let models = ["fork", "prefork", "iterative", "thread", "event", "coroutine"];
    let daemons: Vec<Daemon> = models.iter().map(|model| serve(options_of(model))).collect();
    let mut slow: Vec<Client> = daemons.iter().map(Daemon::connect).collect();
    let trickle = "GET /hello HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyy";
    for (second, byte) in trickle.bytes().enumerate() {
        let sent = slow.iter_mut().filter_map(|client| client.write_all(&[byte]).ok()).count();
        let said = slow.iter().filter(|client| !is_silent(client, Duration::from_millis(10))).count();
        if said == slow.len() {
            break;
        }
        assert!(second < 14 && sent == slow.len(), "{said} of {} told after {second} s", slow.len());
        std::thread::sleep(Duration::from_secs(1));
    }
    for (client, model) in slow.into_iter().zip(models) {
        assert_eq!(status(&rest_of(client)), 408, "{model}");
    }
    let idle: Vec<Client> = daemons
        .iter()
        .map(|daemon| {
            let mut client = daemon.connect();
            client.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            client
        })
        .collect();
    for (client, model) in idle.into_iter().zip(models) {
        let heard = rest_of(client);
        assert!(
            heard.ends_with("\r\n\r\nHello") && heard.matches("HTTP/1.1").count() == 1,
            "{model}: {heard}"
        );
    }
}

both_ways! {
    fn links_are_followed_inside_at_most(way: Way) {
        let daemon = forkd_http("-m prefork -w 2 --log-level debug").way(way).start();
        symlink("digits.txt", daemon.path("root/inside")).unwrap();
        symlink("../digits.txt", daemon.path("root/sub/inside")).unwrap();
        // a link leads to what is hidden as little as its name does, with one exception
        symlink(".hidden", daemon.path("root/published")).unwrap();
        symlink("deep", daemon.path("root/sub/.deep")).unwrap();
        symlink(".deep", daemon.path("root/sub/way")).unwrap();
        fs::create_dir(daemon.path("root/.well-known")).unwrap();
        fs::write(daemon.path("root/.well-known/security.txt"), "known").unwrap();
        fs::write(daemon.path("root/.well-known/.hidden"), SECRET).unwrap();
        symlink(".well-known", daemon.path("root/known")).unwrap();
        for target in ["/inside", "/sub/inside", "/.well-known/security.txt", "/known/security.txt"] {
            assert_eq!(status(&get(&daemon, target)), 200, "{target}");
        }
        for target in [
            "/out", "/absolute", "/sub/up/secret", "/slash/etc/passwd", "/.hidden", "/published", "/sub/way/page.html",
            "/.well-known/.hidden", "/known/.hidden", "/.well-known/../.hidden", "/sub/.deep/page.html",
        ] {
            let answer = get(&daemon, target);
            assert!(status(&answer) == 404 && !answer.contains(SECRET), "{target}: {answer}");
        }
        assert_eq!(status(&get(&daemon, "/sub/deep/page.html")), 200);
        daemon.wait_for_line("reason=\"the path has a link to what is hidden\"");
    }

    fn a_fifo_is_not_opened(way: Way) {
        let daemon = forkd_http("-m prefork -w 2").way(way).start();
        symlink("fifo", daemon.path("root/link")).unwrap();
        let fifo = daemon.path("root/fifo");
        let writer = std::thread::spawn({
            let fifo = fifo.clone();
            // it waits for a reader
            move || fs::File::options().write(true).open(fifo)
        });
        for _ in 0..50 {
            assert_eq!((status(&get(&daemon, "/fifo")), status(&get(&daemon, "/link"))), (404, 404));
        }
        assert!(!writer.is_finished(), "the writer was woken");
        // now there is one
        let _reader = fs::File::options().read(true).write(true).open(fifo).unwrap();
        writer.join().unwrap().unwrap();
    }
}
