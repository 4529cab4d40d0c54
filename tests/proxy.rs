//! The PROXY protocol: whose connection it is that a proxy passes on, under each model and over each transport.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A header of version 2 for a client of IPv4, with an extension that is skipped; a connection's or a datagram's.
fn v2(client: [u8; 4], is_datagram: bool) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.push(if is_datagram { 0x12 } else { 0x11 });
    let extension = [0x04, 0, 2, 0, 0];
    header.extend((12 + extension.len() as u16).to_be_bytes());
    header.extend(client);
    header.extend([192, 0, 2, 1]);
    header.extend(4711_u16.to_be_bytes());
    header.extend(80_u16.to_be_bytes());
    header.extend(extension);
    header
}

/// Whether the server resets the connection, or ends that of a Unix socket.
fn is_ended(mut client: impl Read) -> bool {
    match client.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

under_models! { [fork spare prefork iterative thread threads event coroutine]
    fn the_client_is_the_one_that_the_header_names(model) {
        let options = format!("{model} --proxy any --proxy-from 127.0.0.1 --log-level debug");
        let daemon = Daemon::start(&options);
        for (header, peer) in [
            (V1.to_vec(), "192.0.2.7:4711"),
            (v2([198, 51, 100, 9], false), "198.51.100.9:4711"),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 80\r\n".to_vec(), "[2001:db8::9]:4711"),
        ] {
            let mut client = daemon.connect();
            // the header and the first bytes of the service in one segment, as a proxy may send them
            client.write_all(&[&header[..], b"hello"].concat()).unwrap();
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
            drop(client);
            daemon.wait_for_line(&format!("connection closed peer={peer}"));
        }
    }

    fn a_header_may_come_in_pieces(model) {
        let daemon = Daemon::start(&format!("{model} --proxy any --proxy-from 127.0.0.1"));
        for header in [V1, LOCAL, &v2([192, 0, 2, 7], false)] {
            let mut client = daemon.connect();
            client.set_nodelay(true).unwrap();
            for byte in header {
                client.write_all(&[*byte]).unwrap();
            }
            echoes(&mut client, b"hello");
        }
    }

    fn the_rules_are_about_the_client_and_not_about_the_proxy(model) {
        let options = format!("{model} --proxy v2 --proxy-from 127.0.0.1 --allow 192.0.2.0/24 --allow 127.0.0.1");
        let daemon = Daemon::start(&options);
        let call = |header: &[u8]| {
            let mut client = daemon.connect();
            client.write_all(header).unwrap();
            client
        };
        echoes(&mut call(&v2([192, 0, 2, 7], false)), b"hello");
        // the proxy itself, which asks whether the server is well
        echoes(&mut call(LOCAL), b"hello");
        assert!(is_ended(call(&v2([198, 51, 100, 9], false))));
        daemon.has_refused(&[("denied", 1)]);
        daemon.wait_for_line("refused a client peer=198.51.100.9:4711 cause=denied");
    }

    fn the_limit_of_a_source_is_about_the_client_also_after_its_server_was_killed(model) {
        let options = format!("{model} --proxy v1 --proxy-from 127.0.0.1 --max-per-source 1");
        let daemon = Daemon::start(&options);
        let call = || {
            let mut client = daemon.connect();
            client.write_all(V1).unwrap();
            client
        };
        // once the last one's end has been seen
        let served = || {
            let mut client = None;
            eventually("its place is free", || {
                let mut comes = call();
                let is_served = comes.write_all(b"hello").is_ok() && comes.read_exact(&mut [0; 5]).is_ok();
                client = is_served.then_some(comes);
                is_served
            });
            client.unwrap()
        };
        for _ in 0..3 {
            let _first = served();
            if !model.contains("iterative") {
                assert!(is_ended(call()));
            }
        }
        let _first = served();
        let server = daemon.status()["children"].as_array().unwrap().iter().find(|child| child["state"] != "idle").unwrap()["pid"].clone();
        signal(server.as_u64().unwrap() as i32, nix::sys::signal::Signal::SIGKILL);
        served();
    }

    fn what_has_no_header_is_reset_counted_and_logged_and_others_are_served(model) {
        let daemon = Daemon::start(&format!("{model} --proxy any --proxy-from 127.0.0.1"));
        let oversized = [&v2([192, 0, 2, 7], false)[..14], &[0xff, 0xff]].concat();
        for (count, bytes) in (1..).zip([&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 256.0.0.1 1.1.1.1 1 1\r\n", &oversized]) {
            let mut client = daemon.connect();
            client.write_all(bytes).unwrap();
            assert!(is_ended(client), "{bytes:?}");
            daemon.has_refused(&[("proxy", count)]);
        }
        let line = daemon.wait_for_line("a proxy has not said whose its connection is");
        assert!(line.contains("its first bytes are no such header proxy=127.0.0.1:"), "{line}");
        let mut client = daemon.connect();
        client.write_all(&V1[..9]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_ended(client));
        daemon.has_refused(&[("proxy", 4)]);
        let mut client = daemon.connect();
        client.write_all(V1).unwrap();
        echoes(&mut client, b"hello");
    }

    fn a_header_that_does_not_come_ends_the_connection_after_a_while(model) {
        let daemon = Daemon::start(&format!("{model} --proxy any --proxy-from 127.0.0.1"));
        let start = Instant::now();
        let mut client = daemon.connect();
        client.write_all(&V1[..20]).unwrap();
        assert!(is_ended(client));
        assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
        daemon.wait_for_line("it has not come in time");
        daemon.has_refused(&[("proxy", 1)]);
    }

    fn another_source_is_no_proxy(model) {
        let daemon = Daemon::start(&format!("{model} --proxy any --proxy-from 127.0.0.2"));
        // the reset may be there as early as that
        let is_ended = match std::net::TcpStream::connect(daemon.addr()) {
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
            Ok(client) => {
                client.set_read_timeout(Some(LIMIT)).unwrap();
                is_ended(client)
            }
        };
        assert!(is_ended);
        daemon.has_refused(&[("proxy", 1)]);
        daemon.wait_for_line("refused a client peer=127.0.0.1:");
    }

    fn a_proxy_may_come_by_a_unix_socket(model) {
        let me = nix::unistd::geteuid();
        let daemon =
            Daemon::start(&format!("{model} --proxy v1 --proxy-from uid:{me} --log-level debug unix://{{dir}}/s"));
        let mut client = UnixStream::connect(daemon.path("s")).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(V1).unwrap();
        echoes(&mut client, b"hello");
        drop(client);
        daemon.wait_for_line("connection closed peer=192.0.2.7:4711");
    }

    fn a_datagram_has_its_header_in_front(model) {
        let model = model.replace(" --spare 3", "");
        let options = format!("{model} --proxy v2 --proxy-from 127.0.0.1 --deny 198.51.100.9 udp://127.0.0.1:0");
        let daemon = Daemon::start(&options);
        let proxy = UdpSocket::bind("127.0.0.1:0").unwrap();
        proxy.set_read_timeout(Some(LIMIT)).unwrap();
        proxy.connect(daemon.address("udp")).unwrap();
        let send = |header: &[u8]| proxy.send(&[header, b"hello"].concat()).unwrap();
        send(b"");
        send(&v2([198, 51, 100, 9], true));
        daemon.has_refused(&[("proxy", 1), ("denied", 1)]);
        for header in [&v2([192, 0, 2, 7], true)[..], LOCAL] {
            send(header);
            let mut answer = [0; 99];
            let length = proxy.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], b"hello");
        }
    }
}

#[test]
fn proxies_of_one_kind_make_none_of_the_other() {
    let me = nix::unistd::geteuid();
    let daemon =
        Daemon::start(&format!("--proxy any --proxy-from uid:{me} tcp://127.0.0.1:0 unix://{{dir}}/s"));
    let mut client = std::net::TcpStream::connect(daemon.addr()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = client.write_all(V1);
    assert!(is_ended(client));
    daemon.has_refused(&[("proxy", 1)]);
}

#[test]
fn rules_are_about_those_that_a_proxy_names_by_a_unix_socket_too() {
    let me = nix::unistd::geteuid();
    let options =
        format!("--proxy v1 --proxy-from uid:{me} --allow 192.0.2.0/24 --deny 192.0.2.8 unix://{{dir}}/s");
    let daemon = Daemon::start(&options);
    for (client, is_served) in [("192.0.2.7", true), ("192.0.2.8", false)] {
        let mut connection = UnixStream::connect(daemon.path("s")).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection.write_all(format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n").as_bytes()).unwrap();
        match is_served {
            true => echoes(&mut connection, b"hello"),
            false => assert!(is_ended(connection)),
        }
    }
    daemon.has_refused(&[("denied", 1)]);
}

#[test]
fn networks_of_those_that_a_proxy_names_by_a_unix_socket_are_one_source() {
    let me = nix::unistd::geteuid();
    let options =
        format!("--proxy v1 --proxy-from uid:{me} --max-per-source 1 --source-prefix 24/64 unix://{{dir}}/s");
    let daemon = Daemon::start(&options);
    let call = |client: &str| {
        let mut connection = UnixStream::connect(daemon.path("s")).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection.write_all(format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n").as_bytes()).unwrap();
        connection
    };
    let mut first = call("192.0.2.7");
    echoes(&mut first, b"hello");
    assert!(is_ended(call("192.0.2.8")));
    echoes(&mut call("198.51.100.7"), b"hello");
    daemon.has_refused(&[("source-limit", 1)]);
}

#[test]
fn a_program_is_told_of_the_client() {
    let daemon =
        Daemon::start("--proxy v1 --proxy-from 127.0.0.1 tcp://127.0.0.1:0 --exec printenv REMOTE_ADDR");
    let mut client = daemon.connect();
    client.write_all(V1).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "192.0.2.7\n");
}

#[test]
fn the_load_generator_speaks_it_in_each_phase() {
    let daemon = Daemon::start(
        "-m event --proxy any --proxy-from 127.0.0.1 --log-level debug tcp://127.0.0.1:0 udp://127.0.0.1:0",
    );
    let [tcp, udp] = ["tcp", "udp"].map(|kind| format!("{kind}://{}", daemon.address(kind)));
    let phases = "churn,pingpong,bulk";
    for options in [
        &["--proxy", "v1", "--phases", phases, tcp.as_str()][..],
        &["--proxy", "v2", "--phases", phases, &tcp],
        &["--proxy", "v2", &udp],
    ] {
        let ended = run(&[&["load", "-n", "20", "-c", "4"], options].concat());
        assert_eq!(ended.code, Some(0), "{options:?} {} {}", ended.stdout, ended.stderr);
    }
    assert!(daemon.listener(0)["refused"].as_object().unwrap().is_empty());
    let ended = run(&["load", "--proxy", "v1", &udp]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("give --proxy v2"), "{}", ended.stderr);
    let ended = run(&["load", "-n", "20", "-c", "4", &tcp]);
    assert_eq!(ended.code, Some(69), "{} {}", ended.stdout, ended.stderr);
}

#[test]
fn check_says_which_proxies_are_believed() {
    let ended = run(&["check", "--proxy", "v2", "--proxy-from", "10.0.0.0/8"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("clients come by proxies"), "{}", ended.stdout);
    let options =
        ["check", "tcp://127.0.0.1:7", "unix:///run/s", "--proxy", "v1", "--proxy-from", "10.0.0.0/8"];
    let options = [&options[..], &["--proxy-from", "uid:7", "--deny", "10.0.0.7"]].concat();
    for (source, tcp, unix) in [
        (
            "10.0.0.7",
            "as a proxy believed (proxy-from 10.0.0.0/8); as a client of one refused (deny 10.0.0.7)",
            "no proxy, of which it has users (uid:N); as a client of one refused (deny 10.0.0.7)",
        ),
        (
            "192.0.2.1",
            "as a proxy refused (no proxy-from names it); as a client of one served (no rule denies it)",
            "no proxy, of which it has users (uid:N); as a client of one served (no rule denies it)",
        ),
        (
            "uid:7",
            "has no such clients, but addresses",
            "as a proxy believed (proxy-from uid:7); as a client of one served (no rule denies it)",
        ),
    ] {
        let ended = run(&[&options[..], &["--source", source]].concat());
        assert_eq!(
            ended.stdout,
            format!("tcp://127.0.0.1:7: {tcp}\nunix:///run/s: {unix}\n"),
            "{}",
            ended.stderr
        );
    }
    let ended = run(&["check", "--proxy", "v2"]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("give --proxy-from"), "{}", ended.stderr);
}

/// A real proxy, which ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a proxy, and waits until it takes connections at the port.
fn start(command: &mut Command, port: u16) -> Proxy {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let proxy = Proxy(child);
    eventually("the proxy listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    proxy
}

/// Echoes by the proxy, and looks which client the server has seen.
fn passes_on(daemon: &Daemon, port: u16) {
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    echoes(&mut client, b"hello");
    let me = client.local_addr().unwrap();
    drop(client);
    daemon.wait_for_line(&format!("connection closed peer={me}"));
}

#[test]
fn haproxy_passes_clients_on_and_its_health_checks_are_its_own() {
    if !need_tool("haproxy") {
        return;
    }
    for (version, send) in [("v1", "send-proxy"), ("v2", "send-proxy-v2")] {
        let daemon = Daemon::start(&format!("--proxy {version} --proxy-from 127.0.0.1 --log-level debug"));
        let (port, server) = (free_port(), daemon.addr());
        let config = daemon.path("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen echo\n bind 127.0.0.1:{port}\n server forkd {server} {send} check inter 100ms\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("haproxy");
        let _proxy = start(command.arg("-db").arg("-f").arg(&config), port);
        passes_on(&daemon, port);
        // LOCAL, or UNKNOWN: several checks have been made by then
        eventually("it is checked", || {
            daemon.listener(0)["connections"].as_u64().is_some_and(|connections| connections > 3)
        });
        passes_on(&daemon, port);
        assert!(daemon.listener(0)["refused"]["proxy"].is_null(), "{}", daemon.listener(0));
    }
}

#[test]
fn nginx_passes_clients_on() {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if !need_tool("nginx") || !need(fs::exists(MODULE).unwrap(), "nginx has no module for streams") {
        return;
    }
    let daemon = Daemon::start("--proxy v1 --proxy-from 127.0.0.1 --log-level debug");
    let (port, server, config) = (free_port(), daemon.addr(), daemon.path("nginx.conf"));
    let dir = config.parent().unwrap().display();
    let text = format!(
        "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.log;\n\
         events {{}}\nstream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {server}; proxy_protocol on; }} }}\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    let _proxy = start(command.arg("-e").arg(daemon.path("nginx.log")).arg("-c").arg(&config), port);
    passes_on(&daemon, port);
}
