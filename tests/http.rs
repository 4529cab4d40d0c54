//! The service http, under each model: what its clients get, and what strangers don't.
//!
//! What a dialogue comes to is tested without a socket in `src/service/http/tests.rs`; here are the programs that
//! people use, the files of a real directory, time, and hostile clients.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use common::wire::noise;
use common::*;
use nix::sys::signal::Signal;

/// Larger than any buffer on the way.
const LARGE: usize = 20_000_000;

fn large() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| noise(7, LARGE))
}

const SECRET: &str = "nobody but the operator";

/// Each model with its options: `each_model!(check)` has a test for each, `MODELS` are the same in a list.
macro_rules! models {
    ($($model:ident: $options:literal,)*) => {
        const MODELS: &[&str] = &[$($options),*];

        macro_rules! each_model {
            ($check:ident) => {
                $(#[test]
                fn $model() {
                    $check($options);
                })*
            };
        }
    };
}

models! {
    fork: "-m fork",
    prefork: "-m prefork -w 2",
    iterative: "-m iterative",
}

/// `fn name(model) {}`: a test for each model, as `name::fork` and so on.
macro_rules! under_each_model {
    ($($(#[$attribute:meta])* fn $name:ident($model:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            fn check($model: &str) $body

            each_model!(check);
        }
    )*};
}

/// Fills the directory `root` in `dir`, beside a secret, and with ways to that.
fn fill(dir: &Path) {
    let root = dir.join("root");
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::create_dir_all(root.join("bare")).unwrap();
    fs::write(dir.join("secret"), SECRET).unwrap();
    let page = "<!doctype html><title>front</title><link rel=stylesheet href=style.css><a href=sub/>sub</a>\
        <p id=said>nothing</p><script src=script.js></script>";
    for (name, content) in [
        ("index.html", page),
        ("style.css", "p { color: green }"),
        (
            "script.js",
            "fetch('hello').then(r => r.text()).then(t => document.getElementById('said').textContent = t + '!')",
        ),
        ("sub/index.html", "<!doctype html><title>sub</title><a href=deep/page.html>deep</a>"),
        ("sub/deep/page.html", "<!doctype html><title>deep</title>"),
        ("digits.txt", "0123456789"),
        (".hidden", SECRET),
        ("sub/.hidden", SECRET),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    fs::write(root.join("large.bin"), large()).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink(dir.join("secret"), root.join("absolute")).unwrap();
    symlink("../..", root.join("sub/up")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

fn forkd_http(options: &str) -> Forkd {
    let forkd = Forkd::new(&format!(
        "{options} --service http --root {{dir}}/root --route /hello=Hello --log-level debug"
    ));
    fill(forkd.dir.path());
    forkd
}

fn serve(model: &str) -> Daemon {
    forkd_http(model).start()
}

/// Sends this, and no more; returns all that comes.
#[track_caller]
fn ask(daemon: &Daemon, says: &str) -> String {
    let mut client = daemon.connect();
    client.write_all(says.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap_or_else(|error| panic!("{error} after {says:?}"));
    String::from_utf8_lossy(&heard).into_owned()
}

fn get(daemon: &Daemon, target: &str) -> String {
    ask(daemon, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// The status of an answer; 0 if there is none.
fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

/// A client's output; `{url}` is where the daemon is, and `{dir}` its directory.
#[track_caller]
fn run_client(daemon: &Daemon, command: &str) -> Vec<u8> {
    let url = format!("http://{}", daemon.addr());
    let command = command.replace("{url}", &url).replace("{dir}", daemon.dir.path().to_str().unwrap());
    let output = Command::new("timeout").arg("60").args(command.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {}: {errors}", output.status);
    output.stdout
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).into_owned()
}

under_each_model! {
    fn curl(model) {
        if !need_tool("curl") {
            return;
        }
        let daemon = serve(model);
        let curl = |rest: &str| text(run_client(&daemon, &format!("curl -sS {rest}")));
        assert_eq!(curl("{url}/digits.txt"), "0123456789");
        assert_eq!(curl("{url}/hello"), "Hello");
        assert!(curl("{url}/time").starts_with("20"));
        assert_eq!(curl("-r 2-4 {url}/digits.txt"), "234");
        assert_eq!(curl("-r -2 {url}/digits.txt"), "89");
        let head = curl("-I {url}/digits.txt");
        assert!(status(&head) == 200 && head.contains("\r\nContent-Length: 10\r\n"), "{head}");
        let code = |rest: &str| curl(&format!("-o /dev/null -w %{{http_code}} {rest}"));
        assert_eq!(code("{url}/nothing"), "404");
        assert_eq!(code("{url}/sub"), "301");
        assert_eq!(code("-L {url}/sub"), "200");
        assert_eq!(code("-z {dir}/root/digits.txt {url}/digits.txt"), "304");
        assert_eq!(code("-d some=thing {url}/digits.txt"), "405");
        assert_eq!(code("--path-as-is {url}/../secret"), "404");
        assert_eq!(code("-H Transfer-Encoding:chunked -X GET -d x {url}/hello"), "501");
        // what is not read must not take the answer from the client
        assert_eq!(code("-T {dir}/root/large.bin -H Expect: {url}/digits.txt"), "405");
        assert_eq!(code("-T {dir}/root/large.bin {url}/digits.txt"), "405");
        // the same connection serves all of them
        let connects = curl("-w %{num_connects} -o /dev/null {url}/digits.txt -o /dev/null {url}/large.bin -o /dev/null {url}/nothing");
        assert_eq!(connects, "100");
        assert_eq!(curl("--http1.0 {url}/digits.txt"), "0123456789");
    }

    fn wget(model) {
        if !need_tool("wget") {
            return;
        }
        let daemon = serve(model);
        run_client(&daemon, "wget -q -r -nH -P {dir}/mirror {url}/");
        for name in ["index.html", "style.css", "script.js", "sub/index.html", "sub/deep/page.html"] {
            let (ours, theirs) = (daemon.path("root").join(name), daemon.path("mirror").join(name));
            assert_eq!(fs::read(theirs).unwrap(), fs::read(ours).unwrap(), "{name}");
        }
        // half of it is there already
        fs::write(daemon.path("large.bin"), &large()[..LARGE / 2]).unwrap();
        run_client(&daemon, "wget -q -c -P {dir} {url}/large.bin");
        assert!(fs::read(daemon.path("large.bin")).unwrap() == large());
        daemon.wait_for_line("status=206");
        run_client(&daemon, "wget -q -N -P {dir} {url}/large.bin");
        daemon.wait_for_line("status=304");
    }

    fn a_browser_shows_the_page_and_runs_its_script(model) {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let Some(browser) = names.into_iter().find(|name| tool(name).is_some()) else {
            need(false, "no Chromium is installed");
            return;
        };
        let daemon = serve(model);
        let page = run_client(
            &daemon,
            &format!(
                "{browser} --headless --no-sandbox --disable-gpu --user-data-dir={{dir}}/profile --virtual-time-budget=5000 \
                 --dump-dom {{url}}/"
            ),
        );
        let page = text(page);
        assert!(page.contains("<p id=\"said\">Hello!</p>"), "{page}");
        daemon.wait_for_line("GET /style.css");
    }

    fn a_load_of_requests(model) {
        if !need_tool("ab") {
            return;
        }
        let daemon = serve(model);
        for options in ["-k -c 1 -n 3000", "-c 4 -n 500", "-k -c 2 -n 500 -i"] {
            let report = text(run_client(&daemon, &format!("ab -q {options} {{url}}/digits.txt")));
            let of = |name: &str| {
                let line = report.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {report}"));
                line.trim().parse::<u32>().unwrap()
            };
            assert_eq!(of("Failed requests:"), 0, "{report}");
            assert!(of("Complete requests:") >= 500 && !report.contains("Non-2xx"), "{report}");
        }
    }

    fn wrk(model) {
        if !need_tool("wrk") {
            return;
        }
        let daemon = serve(model);
        let report = text(run_client(&daemon, "wrk -t 1 -c 1 -d 1s {url}/digits.txt"));
        // a thousand and more in a connection: it connects anew meanwhile
        let count: u32 = report.split(" requests in").next().unwrap().split_whitespace().last().unwrap().parse().unwrap();
        assert!(count > 100 && !report.contains("Non-2xx"), "{report}");
    }

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
        for target in ["/%00", "/digits.txt%00.html", "/%", "/%zz", "secret", "../secret", "*", "/a#b"] {
            assert_eq!(status(&get(&daemon, target)), 400, "{target}");
        }
        let long = "x".repeat(5000);
        assert_eq!(status(&get(&daemon, &format!("/{long}"))), 404);
        daemon.wait_for_line("status=404 request=\"GET /../secret\"");
        daemon.wait_for_line("a path leads out of the root path=absolute");
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
            (head("Transfer-Encoding: chunked\r\n"), 501),
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
        daemon.wait_for_line("request refused: the field Host is missing");
        assert_eq!(status(&get(&daemon, "/hello")), 200, "it goes on");
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

    fn pipelined_requests_are_answered_in_order(model) {
        let daemon = serve(model);
        let targets = ["/digits.txt", "/hello", "/nothing", "/index.html", "/large.bin"];
        let one = |target: &&str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let requests: String = targets.iter().map(one).collect::<String>().repeat(3);
        let mut client = daemon.connect();
        client.write_all(requests.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        let mut rest = &heard[..];
        for target in targets.repeat(3) {
            let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let text = std::str::from_utf8(&rest[..head]).unwrap();
            let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
            let (content, more) = rest[head..].split_at(length);
            assert_eq!(status(text), if target == "/nothing" { 404 } else { 200 }, "{target}");
            match target {
                "/digits.txt" => assert_eq!(content, b"0123456789"),
                "/hello" => assert_eq!(content, b"Hello"),
                "/large.bin" => assert!(content == large()),
                _ => {}
            }
            rest = more;
        }
        assert!(rest.is_empty());
        // as many as a connection may have, in one go
        let many = "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1200);
        let answers = ask(&daemon, &many);
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 1000);
        assert_eq!(answers.matches("Connection: close").count(), 1);
    }

    fn whoever_leaves_midway_harms_nobody(model) {
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

    fn a_download_is_finished_at_a_stop(model) {
        let daemon = serve(model);
        let mut client = daemon.connect();
        client.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut heard = vec![0; 1000];
        client.read_exact(&mut heard).unwrap();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        client.read_to_end(&mut heard).unwrap();
        assert!(heard.ends_with(large()));
        assert_eq!(daemon.wait().code(), Some(0));
    }

    fn over_a_unix_socket(model) {
        let daemon = forkd_http(&format!("{model} unix://{{dir}}/s")).start();
        let mut client = UnixStream::connect(daemon.path("s")).unwrap();
        client.write_all(b"GET /large.bin HTTP/1.0\r\n\r\n").unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert!(heard.ends_with(large()));
    }

    fn the_idle_timeout_counts_here_too(model) {
        let daemon = serve(&format!("{model} --idle-timeout 300ms"));
        // one that reads nothing
        let mut client = daemon.connect();
        client.write_all("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3).as_bytes()).unwrap();
        daemon.wait_for_line("connection ended");
        assert!(is_cut(&mut client));
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
fn slow_clients_are_told_and_idle_ones_are_left() {
    let daemons: Vec<Daemon> = MODELS.iter().map(|model| serve(model)).collect();
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
    for (client, model) in slow.into_iter().zip(MODELS) {
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
    for (client, model) in idle.into_iter().zip(MODELS) {
        let heard = rest_of(client);
        assert!(
            heard.ends_with("\r\n\r\nHello") && heard.matches("HTTP/1.1").count() == 1,
            "{model}: {heard}"
        );
    }
}

both_ways! {
    fn links_are_followed_inside_at_most(way: Way) {
        let daemon = forkd_http("-m prefork -w 2").way(way).start();
        symlink("digits.txt", daemon.path("root/inside")).unwrap();
        symlink("../digits.txt", daemon.path("root/sub/inside")).unwrap();
        for target in ["/inside", "/sub/inside"] {
            assert_eq!(status(&get(&daemon, target)), if way == Way::Native { 200 } else { 404 }, "{target}");
        }
        for target in ["/out", "/absolute", "/sub/up/secret", "/slash/etc/passwd"] {
            assert_eq!(status(&get(&daemon, target)), 404, "{target}");
        }
        assert_eq!(status(&get(&daemon, "/sub/deep/page.html")), 200);
    }
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    if !need_root() {
        return;
    }
    let forkd = forkd_http("-m fork --user nobody --group nogroup");
    let unreadable = forkd.dir.path().join("root/unreadable");
    fs::write(&unreadable, SECRET).unwrap();
    fs::set_permissions(unreadable, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // the directory is open before the user is another
    let daemon = forkd.start();
    fs::set_permissions(daemon.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(status(&get(&daemon, "/unreadable")), 403);
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
}

#[test]
fn without_a_root_there_are_texts() {
    let daemon = Daemon::start("--service http --route /a.json={} --route /time=never");
    assert!(get(&daemon, "/").ends_with("Here are:\n/a.json\n/time\n"));
    assert!(get(&daemon, "/a.json").contains("\r\nContent-Type: application/json\r\n"));
    assert!(get(&daemon, "/time").ends_with("\r\n\r\nnever"));
    assert_eq!(status(&get(&daemon, "/etc/passwd")), 404);
}

#[test]
fn a_relative_root_starts_where_the_daemon_does() {
    let forkd = Forkd::new("--service http --root root").within(&["env", "-C", "{dir}"]);
    fill(forkd.dir.path());
    let daemon = forkd.start();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
    // what is printed is the same from anywhere, as from / in the background
    let checked = run_in(daemon.dir.path(), &["check", "--service", "http", "--root", "root", "tcp://a:1"]);
    let expected = format!("root = \"{}\"", daemon.path("root").display());
    assert!(checked.stdout.contains(&expected), "{}{}", checked.stdout, checked.stderr);
}

fn run_in(dir: &Path, args: &[&str]) -> Ended {
    forkd(forkd_command().args(args).current_dir(dir))
}

#[test]
fn a_root_that_is_missing_is_said_before_the_start() {
    for command in ["serve", "check"] {
        let ended = run(&[command, "--service", "http", "--root", "/nowhere/at/all", "tcp://127.0.0.1:0"]);
        assert_eq!(ended.code, Some(78), "{command}");
        let expected = "cannot serve the files of /nowhere/at/all: No such file or directory";
        assert!(ended.stderr.contains(expected), "{command}: {}", ended.stderr);
    }
    for (args, expected) in [
        (&["--root", "/", "tcp://127.0.0.1:0"][..], "--root needs the service http"),
        (&["--route", "/a=b", "tcp://127.0.0.1:0"], "--route needs the service http"),
        (&["--service", "http", "udp://127.0.0.1:0"], "is http, a dialogue, for which udp://127.0.0.1:0"),
        (&["--service", "http", "--route", "a=b"], "write them as PATH=TEXT"),
    ] {
        let ended = run(&[&["check"], args].concat());
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        assert!([Some(64), Some(2)].contains(&ended.code), "{:?}", ended.code);
    }
}

fn configured(text: &str) -> String {
    format!(
        "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nservice = 'http'\nroot = 'ROOT'\nroute = ['/hello={text}']\n"
    )
}

#[track_caller]
fn reload(daemon: &Daemon) -> Ended {
    forkd(forkd_command().arg("reload").arg("--control").arg(daemon.control()))
}

#[test]
fn a_reload_takes_the_directory_that_is_there_now() {
    let forkd = Forkd::new("--config {dir}/f.toml");
    let (dir, root) = (forkd.dir.path().to_owned(), forkd.dir.path().join("root"));
    fill(&dir);
    let write =
        |text: &str| fs::write(dir.join("f.toml"), configured(text).replace("ROOT", root.to_str().unwrap()));
    write("one").unwrap();
    let daemon = forkd.start();
    assert!(get(&daemon, "/hello").ends_with("one") && get(&daemon, "/digits.txt").ends_with("0123456789"));
    fs::rename(&root, dir.join("old")).unwrap();
    write("two").unwrap();
    let ended = reload(&daemon);
    assert!(ended.code == Some(78) && ended.stderr.contains("cannot serve the files"), "{}", ended.stderr);
    assert!(get(&daemon, "/hello").ends_with("one"), "the old configuration goes on");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("digits.txt"), "new").unwrap();
    assert_eq!(reload(&daemon).code, Some(0));
    assert!(get(&daemon, "/hello").ends_with("two") && get(&daemon, "/digits.txt").ends_with("new"));
}

#[test]
fn a_root_outside_of_the_root_directory_is_kept_by_a_reload() {
    if !need_root() {
        return;
    }
    let forkd = Forkd::new("--config {dir}/f.toml --chroot {dir}/jail --log-level info");
    let dir = forkd.dir.path().to_owned();
    fill(&dir);
    let toml = configured("one").replace("ROOT", dir.join("root").to_str().unwrap());
    fs::write(dir.join("f.toml"), &toml).unwrap();
    // where a reload looks for the file
    let inner = dir.join("jail").join(dir.strip_prefix("/").unwrap());
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("f.toml"), &toml).unwrap();
    let daemon = forkd.start();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("the new configuration is in force");
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
}
