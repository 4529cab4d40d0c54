//! UDP: which datagrams get no answer, how a loop ends, and from which address an answer comes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::raw::{Forger, loopback};
use common::{Daemon, Forkd, LIMIT, eventually, holds_for, need_root, need_tool, run};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

/// In turn, not beside each other: some tests need a certain port.
const MODELS: [&str; 7] = [
    "-m fork",
    "-m prefork -w 2",
    "-m iterative",
    "-m thread",
    "-m thread --threads 2",
    "-m event",
    "-m coroutine",
];

fn start(model: &str, endpoint: &str) -> Daemon {
    Forkd::new(&format!("{model} {endpoint}")).start()
}

/// Its address on this machine; all of them are bound to that one or to a wildcard.
fn v4(daemon: &Daemon) -> SocketAddrV4 {
    loopback(1, daemon.address("udp").port())
}

/// A client that talks to this address alone.
fn client(local: &str, remote: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap_or_else(|e| panic!("{local}: {e}"));
    socket.connect(remote).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

#[track_caller]
fn bounces(socket: &UdpSocket, text: &str) {
    socket.send(text.as_bytes()).unwrap();
    assert_eq!(received(socket), text);
}

#[track_caller]
fn received(socket: &UdpSocket) -> String {
    let mut buffer = [0; 2048];
    let n = socket.recv(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

fn refused(daemon: &Daemon, cause: &str) -> u64 {
    daemon.listener(0)["refused"][cause].as_u64().unwrap_or(0)
}

fn bytes_out(daemon: &Daemon) -> u64 {
    daemon.listener(0)["bytes_out"].as_u64().unwrap()
}

/// Waits until one datagram has been refused for this cause, and asserts that nothing was sent.
#[track_caller]
fn gets_no_answer(daemon: &Daemon, cause: &str, before: u64) {
    eventually(&format!("{cause} is counted"), || refused(daemon, cause) == before + 1);
    assert_eq!(bytes_out(daemon), 0, "{cause}");
}

#[test]
fn malformed_sources_get_no_answer_and_are_counted_by_cause() {
    if !need_root() {
        return;
    }
    let forger = Forger::new();
    for model in MODELS {
        let daemon = start(model, "udp://127.0.0.1:0");
        let here = v4(&daemon);
        // there are listeners at the service ports, and must not hear anything
        let services = [7, 19].map(|port| UdpSocket::bind(loopback(77, port)).expect("a free service port"));
        forger.send(loopback(77, 0), here, 64, b"from port 0");
        gets_no_answer(&daemon, "port-zero", 0);
        forger.send(loopback(77, 7), here, 64, b"from echo");
        gets_no_answer(&daemon, "service-port", 0);
        forger.send(loopback(77, 19), here, 64, b"from chargen");
        gets_no_answer(&daemon, "service-port", 1);
        forger.send(here, here, 64, b"from the daemon itself");
        gets_no_answer(&daemon, "own-port", 0);
        forger.send(loopback(77, 7), here, 64, b"");
        gets_no_answer(&daemon, "service-port", 2);
        for service in services {
            service.set_nonblocking(true).unwrap();
            assert!(service.recv(&mut [0; 64]).is_err(), "{model}: a service got an answer");
        }
        let forged = UdpSocket::bind(loopback(77, 0)).unwrap();
        forged.set_read_timeout(Some(LIMIT)).unwrap();
        let SocketAddr::V4(source) = forged.local_addr().unwrap() else { panic!("not v4") };
        forger.send(source, here, 64, b"forged, but in order");
        let mut answer = [0; 64];
        let (n, from) = forged.recv_from(&mut answer).expect("an answer: the forger works");
        assert_eq!((&answer[..n], from), (&b"forged, but in order"[..], here.into()), "{model}");
        assert_eq!(daemon.listener(0)["refused"].as_object().unwrap().len(), 3);
    }
}

/// One datagram to `a` that claims to come from `b`: they answer each other, but not for ever.
fn fall_silent(a: &Daemon, b: &Daemon) {
    const TEXT: &[u8] = b"loop";
    Forger::new().send(v4(b), v4(a), 255, TEXT);
    eventually("the last hop is counted", || refused(a, "hop-limit") + refused(b, "hop-limit") == 1);
    let answers = |daemon: &Daemon| bytes_out(daemon) / TEXT.len() as u64;
    // 255 hops, of which the last is refused; an answer is counted after it was sent
    eventually("all answers are counted", || answers(a) + answers(b) == 254);
    let (from_a, from_b) = (answers(a), answers(b));
    assert_eq!((from_a, from_b), (127, 127), "in turn");
    let connections = |daemon: &Daemon| daemon.listener(0)["connections"].as_u64().unwrap();
    holds_for(Duration::from_millis(300), "silence", || {
        (answers(a), answers(b)) == (from_a, from_b) && connections(a) + connections(b) <= 255
    });
    bounces(&client("127.0.0.1:0", v4(a).into()), "still there");
    bounces(&client("127.0.0.1:0", v4(b).into()), "still there");
}

#[test]
fn two_daemons_fed_one_forged_datagram_fall_silent() {
    if !need_root() {
        return;
    }
    // each with its like, and with the next one
    for (one, next) in MODELS.iter().zip(MODELS.iter().cycle().skip(1)) {
        for other in [one, next] {
            fall_silent(&start(one, "udp://127.0.0.1:0"), &start(other, "udp://127.0.0.1:0"));
        }
    }
}

#[test]
fn two_daemons_on_wildcard_addresses_fall_silent_too() {
    if !need_root() {
        return;
    }
    for (one, other) in MODELS.iter().zip(MODELS.iter().cycle().skip(1)) {
        for any in ["udp://0.0.0.0:0", "udp://[::]:0"] {
            fall_silent(&start(one, any), &start(other, any));
        }
    }
}

/// What the answer's hop limit is when the request's is `hops`.
fn answered_with(socket: &UdpSocket, hops: u8) -> i32 {
    let v6 = socket.local_addr().unwrap().is_ipv6();
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true).unwrap();
        setsockopt(socket, sockopt::Ipv6Ttl, &i32::from(hops)).unwrap();
    } else {
        setsockopt(socket, sockopt::Ipv4RecvTtl, &true).unwrap();
        setsockopt(socket, sockopt::Ipv4Ttl, &i32::from(hops)).unwrap();
    }
    socket.send(b"how far?").unwrap();
    let mut buffer = [0; 64];
    let mut control = nix::cmsg_space!(i32, i32);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let message = message.expect("an answer");
    let hops = message.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
        _ => None,
    });
    hops.expect("a hop limit")
}

#[test]
fn an_answer_has_one_hop_less_than_the_request_and_the_last_hop_gets_none() {
    for model in MODELS {
        for (endpoint, ips) in [
            ("udp://127.0.0.1:0", &["127.0.0.1"][..]),
            ("udp://0.0.0.0:0", &["127.0.0.1", "127.0.0.2"]),
            ("udp://[::1]:0", &["::1"]),
            ("udp://[::]:0", &["::1", "127.0.0.1", "127.0.0.2"]),
        ] {
            let daemon = start(model, endpoint);
            for (number, ip) in ips.iter().enumerate() {
                let ip: IpAddr = ip.parse().unwrap();
                let local = if ip.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
                let socket = client(local, SocketAddr::new(ip, daemon.address("udp").port()));
                for hops in [255, 64, 2] {
                    assert_eq!(answered_with(&socket, hops), i32::from(hops) - 1, "{model} {endpoint} {ip}");
                }
                // an answer is counted after it was sent
                let sent = (number as u64 + 1) * 3 * 8;
                eventually("the answers are counted", || bytes_out(&daemon) == sent);
                match ip {
                    IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Ttl, &1).unwrap(),
                    IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6Ttl, &1).unwrap(),
                }
                socket.send(b"the last hop").unwrap();
                eventually("hop-limit is counted", || refused(&daemon, "hop-limit") == number as u64 + 1);
                assert_eq!(bytes_out(&daemon), sent, "{model} {endpoint} {ip}");
            }
        }
    }
}

#[test]
fn on_a_wildcard_address_the_answer_comes_from_the_address_asked() {
    for model in MODELS {
        let daemon = start(model, "udp://0.0.0.0:0");
        let port = daemon.address("udp").port();
        for last in [1, 2, 200] {
            // it is connected: from any other address it would hear nothing
            bounces(&client("0.0.0.0:0", loopback(last, port).into()), "v4");
            bounces(&client("127.0.0.9:0", loopback(last, port).into()), "v4, from elsewhere");
        }
        let daemon = start(model, "udp://[::]:0");
        let port = daemon.address("udp").port();
        for last in [1, 2, 200] {
            bounces(&client("127.0.0.1:0", loopback(last, port).into()), "v4 to a dual stack");
        }
        bounces(&client("[::1]:0", SocketAddr::new("::1".parse().unwrap(), port)), "v6");
        assert_eq!(daemon.listener(0)["refused"].as_object().unwrap().len(), 0, "{model}");
    }
}

#[test]
fn a_burst_to_several_addresses_is_answered_from_each() {
    for model in MODELS {
        let daemon = start(model, "udp://[::]:0");
        let port = daemon.address("udp").port();
        let mut clients: Vec<UdpSocket> =
            (1..9).map(|last| client("127.0.0.1:0", loopback(last, port).into())).collect();
        clients.push(client("[::1]:0", SocketAddr::new("::1".parse().unwrap(), port)));
        // together they fill the batches of the workers, whose messages differ in source and family
        for round in 0..20 {
            for socket in &clients {
                socket.send(format!("round {round}").as_bytes()).unwrap();
            }
        }
        for (number, socket) in clients.iter().enumerate() {
            for _ in 0..20 {
                let n = socket.recv(&mut [0; 64]).unwrap_or_else(|e| panic!("{model}, client {number}: {e}"));
                assert!((7..=8).contains(&n));
            }
        }
    }
}

#[test]
fn those_refused_in_a_batch_leave_the_others_their_own_answers() {
    for model in MODELS {
        let daemon = start(model, "udp://127.0.0.1:0");
        let [good, doomed] = [(); 2].map(|()| client("127.0.0.1:0", daemon.address("udp")));
        setsockopt(&doomed, sockopt::Ipv4Ttl, &1).unwrap();
        let text = |number: usize| format!("{number} {}", "x".repeat(number));
        // all are queued before the first is read, so that a worker that takes batches gets one
        let mut receivers = daemon.children();
        if receivers.is_empty() {
            receivers.push(daemon.pid());
        }
        receivers.iter().for_each(|&pid| common::stopped(pid));
        for number in 0..100 {
            good.send(text(number).as_bytes()).unwrap();
            if number % 3 != 1 {
                doomed.send(b"of no avail").unwrap();
            }
        }
        for &pid in &receivers {
            common::signal(pid, nix::sys::signal::Signal::SIGCONT);
        }
        // where several answer, they come in any order
        let mut answers: Vec<String> = (0..100).map(|_| received(&good)).collect();
        answers.sort_by_key(String::len);
        let mut texts: Vec<String> = (0..100).map(text).collect();
        texts.sort_by_key(String::len);
        assert_eq!(answers, texts, "{model}");
        eventually("all are counted", || refused(&daemon, "hop-limit") == 67);
        doomed.set_nonblocking(true).unwrap();
        assert!(doomed.recv(&mut [0; 64]).is_err(), "{model}");
    }
}

#[test]
fn the_empty_and_the_largest_datagram_come_back_whole() {
    for model in MODELS {
        for (endpoint, local) in [("udp://127.0.0.1:0", "127.0.0.1:0"), ("udp://[::1]:0", "[::1]:0")] {
            let daemon = start(model, endpoint);
            let socket = client(local, daemon.address("udp"));
            // IPv4: 65,535 bytes less the headers; IPv6 doesn't count its own
            let largest = if local.starts_with('[') { 65_527 } else { 65_507 };
            for length in [0, 1, largest, 0, largest - 1] {
                let sent = common::wire::noise(length as u64, length);
                socket.send(&sent).unwrap();
                let mut buffer = vec![0; 70_000];
                let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{model}: {length} bytes: {e}"));
                assert!(buffer[..n] == sent, "{model}: {n} bytes for {length}");
            }
            assert_eq!(daemon.listener(0)["refused"].as_object().unwrap().len(), 0, "{model}");
        }
    }
}

#[test]
fn a_datagram_to_a_broadcast_address_gets_no_answer() {
    for model in MODELS {
        let daemon = start(model, "udp://0.0.0.0:0");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"anybody?", ("127.255.255.255", daemon.address("udp").port())).unwrap();
        gets_no_answer(&daemon, "broadcast", 0);
    }
}

#[test]
fn a_client_on_any_ordinary_port_is_served() {
    for model in MODELS {
        let daemon = start(model, "udp://127.0.0.1:0");
        bounces(&client("127.0.0.1:0", daemon.address("udp")), "a port of the kernel's choice");
        // a client that has gone does no harm to the next
        for _ in 0..5 {
            client("127.0.0.1:0", daemon.address("udp")).send(b"gone").unwrap();
            bounces(&client("127.0.0.1:0", daemon.address("udp")), "here");
        }
        if need_root() {
            for port in [1, 1023, 2049, 5353] {
                bounces(&client(&format!("127.0.0.78:{port}"), daemon.address("udp")), "a low port");
            }
        }
    }
}

/// The size of the receive buffer of a daemon's UDP socket: the kernel doubles what it was asked for.
#[cfg(target_os = "linux")]
fn receive_buffer(daemon: &Daemon) -> u32 {
    let filter = format!("sport = :{}", daemon.address("udp").port());
    let output = std::process::Command::new("ss").args(["-lunmH", &filter]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, size) = text.split_once(",rb").unwrap_or_else(|| panic!("{text:?}"));
    size.split(',').next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn the_receive_buffer_is_as_asked_and_a_reload_changes_it() {
    if !need_tool("ss") {
        return;
    }
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let file = forkd.dir.path().join("forkd.toml");
    let write = |options: &str| {
        std::fs::write(&file, format!("[[listen]]\nendpoints = ['udp://127.0.0.1:0']\n{options}\n")).unwrap();
    };
    write("receive-buffer = 60000");
    let daemon = forkd.start();
    let client = client("127.0.0.1:0", daemon.address("udp"));
    let becomes = |options: &str| {
        write(options);
        let ended = run(&["reload", "--control", daemon.control().to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    assert_eq!(receive_buffer(&daemon), 120_000);
    bounces(&client, "before");
    for (bytes, model) in [(90_000, "fork"), (30_000, "event")] {
        becomes(&format!("receive-buffer = {bytes}\nmodel = '{model}'"));
        assert_eq!(receive_buffer(&daemon), 2 * bytes);
        bounces(&client, model);
    }
    // one that stays keeps what it has
    becomes("model = 'fork'");
    assert_eq!(receive_buffer(&daemon), 60_000);
    assert_eq!(daemon.count_lines("receive buffer is capped"), 0, "{:?}", daemon.log());
    let most = i32::MAX;
    becomes(&format!("receive-buffer = {most}"));
    let cap = receive_buffer(&daemon) / 2;
    let (said, endpoint) = ("receive buffer is capped by the kernel (net.core.rmem_max)", daemon.endpoint(0));
    daemon.wait_for_line(&format!("{said} asked={most} cap={cap} endpoint={endpoint}"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_receive_buffer_that_the_kernel_caps_is_in_the_log_at_the_start() {
    let most = i32::MAX;
    let endpoints = "udp://127.0.0.1:0 unixgram://{dir}/echo tcp://127.0.0.1:0";
    let daemon = start(&format!("--receive-buffer {most}"), endpoints);
    daemon.wait_for_line(&format!("(net.core.rmem_max) asked={most} cap="));
    assert_eq!(daemon.count_lines("receive buffer is capped"), 1, "{:?}", daemon.log());
}
