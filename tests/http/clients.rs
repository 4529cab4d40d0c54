//! The programs that people use.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::*;

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

under_models! {
    [fork spare prefork iterative thread event coroutine]

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
        assert_eq!(code("-H Transfer-Encoding:chunked -X GET -d x {url}/hello"), "200");
        assert_eq!(code("-H Transfer-Encoding:chunked -d x {url}/hello"), "405");
        assert_eq!(code("-X OPTIONS {url}/hello"), "204");
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
}
