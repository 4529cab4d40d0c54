//! Sockets that a service manager hands over (sd_listen_fds(3)), on the real binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A failed start: the code, and parts of what it says.
#[track_caller]
fn fails(forkd: Forkd, code: i32, parts: &[&str]) {
    let ended = forkd.run();
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in {ended:?}");
    }
}

#[track_caller]
fn connect(listener: &TcpListener) -> Client {
    let client = Client::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client
}

both_ways! {
    fn each_kind_of_socket_is_served_under_each_model(way: Way) {
        for model in ["-m fork", "-m prefork -w 2"] {
            let (listener, udp) = (tcp(), UdpSocket::bind("0.0.0.0:0").unwrap());
            let forkd = Forkd::new(&format!("{model} systemd:echo")).way(way);
            let path = |name: &str| forkd.dir.path().join(name);
            let (stream, datagram) = (path("stream"), path("datagram"));
            let unix = (UnixListener::bind(&stream).unwrap(), UnixDatagram::bind(&datagram).unwrap());
            let client = UnixDatagram::bind(path("client")).unwrap();
            let forkd = forkd.handed("echo", &udp).handed("echo", &unix.0).handed("echo", &listener);
            let daemon = forkd.handed("echo", &unix.1).start();

            let addresses = (listener.local_addr().unwrap(), udp.local_addr().unwrap());
            let expected = [
                format!("udp://{}", addresses.1),
                format!("unix://{}", stream.display()),
                format!("tcp://{}", addresses.0),
                format!("unixgram://{}", datagram.display()),
            ];
            assert_eq!(daemon.endpoints(), expected);
            echoes(&mut daemon.connect(), b"over tcp");
            let mut unix = UnixStream::connect(&stream).unwrap();
            unix.set_read_timeout(Some(LIMIT)).unwrap();
            echoes(&mut unix, b"over unix");
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.connect(&datagram).unwrap();
            wire::bounces(&client, b"over unixgram");
            // connected, it takes no answer from another address than the one that it asked
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(("127.0.0.2", addresses.1.port())).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.send(b"over udp").unwrap();
            assert_eq!(client.recv(&mut [0; 16]).expect("an answer"), 8);
        }
    }

    fn the_datagram_that_starts_the_daemon_is_answered(way: Way) {
        for (model, any) in [("-m fork", "0.0.0.0:0"), ("-m prefork -w 1", "0.0.0.0:0"), ("-m fork", "[::]:0")] {
            let socket = UdpSocket::bind(any).unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(("127.0.0.2", socket.local_addr().unwrap().port())).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.send(b"first").unwrap();
            let forkd = Forkd::new(&format!("{model} systemd:a")).way(way);
            let _daemon = forkd.handed("a", &socket).start();
            assert_eq!(client.recv(&mut [0; 16]).expect("an answer"), 5, "{model} {any}");
        }
    }

    fn who_comes_between_two_instances_is_served_by_the_second(way: Way) {
        for model in ["-m fork", "-m prefork -w 2"] {
            let room = tempfile::tempdir().unwrap();
            let path = room.path().join("s");
            let (listener, unix) = (tcp(), UnixListener::bind(&path).unwrap());
            let start = || {
                let forkd = Forkd::new(&format!("{model} systemd:*")).way(way);
                forkd.handed("a", &listener).handed("b", &unix).start()
            };
            let first = start();
            echoes(&mut connect(&listener), b"first");
            first.signal(Signal::SIGTERM);
            assert_eq!(first.wait().code(), Some(0));
            let (mut client, mut other) = (connect(&listener), UnixStream::connect(&path).unwrap());
            client.write_all(b"second").unwrap();
            other.write_all(b"second").unwrap();
            assert!(is_silent(&client, Duration::from_millis(100)));
            let second = start();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            other.read_exact(&mut answer).unwrap();
            drop(second);
            assert!(path.exists(), "the socket file is not the daemon's");
        }
    }

    fn a_master_that_is_killed_leaves_its_sockets_to_the_next(way: Way) {
        for model in ["-m fork", "-m prefork -w 2"] {
            let (listener, udp) = (tcp(), UdpSocket::bind("127.0.0.1:0").unwrap());
            let start = || {
                let forkd = Forkd::new(&format!("{model} --grace 500ms systemd:*")).way(way);
                forkd.handed("a", &listener).handed("b", &udp).start()
            };
            let first = start();
            let _busy = first.served();
            first.signal(Signal::SIGKILL);
            eventually("its children end", || first.is_gone());
            let _second = start();
            echoes(&mut connect(&listener), b"second");
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(udp.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.send(b"second").unwrap();
            assert_eq!(client.recv(&mut [0; 16]).expect("an answer"), 6);
        }
    }

    fn children_do_not_hold_what_was_handed_over(way: Way) {
        for (model, own) in [("-m fork", 0), ("-m prefork -w 1", 1)] {
            let (served, other) = (tcp(), tcp());
            let forkd = Forkd::new(&format!("{model} systemd:a")).way(way);
            let daemon = forkd.handed("a", &served).handed("b", &other).start();
            let client = daemon.served();
            let inodes = [&served, &other].map(|socket| {
                let target = fds_of(std::process::id() as i32);
                let number = std::os::fd::AsRawFd::as_raw_fd(socket);
                target.into_iter().find(|(fd, _)| *fd == number).unwrap().1
            });
            let fds = fds_of(daemon.server_of(&client));
            let held = |inode: &String| fds.iter().filter(|(_, target)| target == inode).count();
            // a worker has its listener and its gate
            assert_eq!(inodes.each_ref().map(held), [own * 2, 0], "{model}: {fds:?}");
        }
    }
}

/// Whether what this process has of a socket doesn't block. The daemon's descriptor is of the same open file
/// description.
fn is_nonblocking(socket: &impl AsFd) -> bool {
    OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

/// The options of a TCP socket, by level and number, of those that do not tell of its state.
fn options(socket: &TcpListener) -> Vec<(i32, i32, Vec<u8>)> {
    let numbers = (1..=48).map(|number| (libc::SOL_SOCKET, number));
    let numbers = numbers.chain((1..=25).map(|number| (libc::IPPROTO_TCP, number)));
    let tcp = [libc::TCP_INFO, libc::TCP_TIMESTAMP].map(|number| (libc::IPPROTO_TCP, number));
    let of_state = [(libc::SOL_SOCKET, libc::SO_ERROR), tcp[0], tcp[1]];
    let value = |(level, number)| {
        let (mut value, mut length) = ([0_u8; 64], 64);
        let to = value.as_mut_ptr().cast();
        // SAFETY: getsockopt(2) writes at most `length` bytes, as many as there are.
        let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, number, to, &raw mut length) };
        (result == 0).then(|| (level, number, value[..length as usize].to_vec()))
    };
    numbers.filter(|option| !of_state.contains(option)).filter_map(value).collect()
}

const MODELS: [&str; 7] = [
    "-m fork",
    "-m iterative",
    "-m prefork -w 2",
    "-m thread",
    "-m thread --threads 2",
    "-m event",
    "-m coroutine",
];

both_ways! {
    fn a_flag_that_others_share_is_not_changed_and_means_nothing(way: Way) {
        for (model, is_set) in MODELS.iter().flat_map(|model| [(model, false), (model, true)]) {
            let room = tempfile::tempdir().unwrap();
            let (listener, udp) = (tcp(), UdpSocket::bind("127.0.0.1:0").unwrap());
            let unix = UnixListener::bind(room.path().join("s")).unwrap();
            let flags = || [is_nonblocking(&listener), is_nonblocking(&udp), is_nonblocking(&unix)];
            let set = |is_set| {
                listener.set_nonblocking(is_set).unwrap();
                udp.set_nonblocking(is_set).unwrap();
                unix.set_nonblocking(is_set).unwrap();
            };
            set(is_set);
            let forkd = Forkd::new(&format!("{model} systemd:*")).way(way);
            let daemon = forkd.handed("a", &listener).handed("a", &udp).handed("a", &unix).start();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.connect(udp.local_addr().unwrap()).unwrap();
            let all_are_served = || {
                for _ in 0..3 {
                    echoes(&mut connect(&listener), b"over tcp");
                    let mut unix = UnixStream::connect(room.path().join("s")).unwrap();
                    unix.set_read_timeout(Some(LIMIT)).unwrap();
                    echoes(&mut unix, b"over unix");
                    client.send(b"over udp").unwrap();
                    assert_eq!(client.recv(&mut [0; 16]).expect("an answer"), 8, "{model}");
                }
            };
            all_are_served();
            assert_eq!(flags(), [is_set; 3], "{model}");
            // the other owner changes its mind
            set(!is_set);
            all_are_served();
            assert_eq!(flags(), [!is_set; 3], "{model}");
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.wait().code(), Some(0), "{model}");
            assert_eq!(flags(), [!is_set; 3], "{model}");
        }
    }

    fn options_that_others_share_are_not_changed_by_a_burst(way: Way) {
        for model in MODELS {
            let listener = tcp();
            let before = options(&listener);
            let forkd = Forkd::new(&format!("{model} systemd:*")).way(way);
            let daemon = forkd.handed("a", &listener).start();
            // they find all at once: more than coroutines take in a turn
            let all = || daemon.children().into_iter().chain([daemon.pid()]);
            all().for_each(|pid| signal(pid, Signal::SIGSTOP));
            let clients: Vec<Client> = (0..32).map(|_| connect(&listener)).collect();
            all().for_each(|pid| signal(pid, Signal::SIGCONT));
            for mut client in clients {
                echoes(&mut client, b"x");
                client.shutdown(std::net::Shutdown::Both).unwrap();
            }
            assert_eq!(options(&listener), before, "{model}");
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.wait().code(), Some(0), "{model}");
            assert_eq!(options(&listener), before, "{model}");
        }
    }

    fn another_acceptor_makes_neither_clients_nor_signals_wait(way: Way) {
        for model in MODELS {
            let listener = tcp();
            let forkd = Forkd::new(&format!("{model} systemd:*")).way(way);
            let daemon = forkd.handed("a", &listener).start();
            // the other service blocks in accept(2), and serves by echoing once
            let (other, address) = (listener.try_clone().unwrap(), listener.local_addr().unwrap());
            let is_over = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&is_over);
            let thief = std::thread::spawn(move || {
                while let Ok((mut client, _)) = other.accept() {
                    let mut text = [0; 8];
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Ok(n) = client.read(&mut text) {
                        let _ = client.write_all(&text[..n]);
                    }
                }
            });
            for _ in 0..200 {
                echoes(&mut connect(&listener), b"x");
            }
            assert!(!is_nonblocking(&listener), "{model}");
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.wait().code(), Some(0), "{model}");
            is_over.store(true, Ordering::Relaxed);
            let _last = Client::connect(address);
            thief.join().unwrap();
        }
    }
}

#[test]
fn a_reload_to_another_model_leaves_the_flag_of_a_shared_socket_alone() {
    for is_set in [false, true] {
        let listener = tcp();
        listener.set_nonblocking(is_set).unwrap();
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("forkd.toml");
        let write = |model: &str| {
            let text = format!("[[listen]]\nendpoints = [\"systemd:*\"]\nmodel = \"{model}\"\n");
            fs::write(&file, text).unwrap();
        };
        write("fork");
        let forkd = Forkd::new(&format!("--config {}", file.display()));
        let daemon = forkd.handed("a", &listener).start();
        let models = ["prefork", "event", "iterative", "coroutine", "thread", "fork"];
        for (reloads, model) in (1..).zip(models) {
            write(model);
            daemon.signal(Signal::SIGHUP);
            daemon.wait_for_lines(reloads, "is in force");
            for _ in 0..3 {
                echoes(&mut connect(&listener), b"served");
            }
            assert_eq!(is_nonblocking(&listener), is_set, "{model}");
        }
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(is_nonblocking(&listener), is_set);
    }
}

/// Processes that must not wait in accept(2) have a timer end it.
#[test]
fn without_timers_a_socket_that_others_share_is_refused_where_nothing_may_wait_for_it() {
    let handed = |args: &str| Forkd::new(args).handed("a", tcp());
    let metrics = "-m prefork -w 1 --metrics systemd:a tcp://127.0.0.1:0";
    for args in ["-m fork systemd:a", "-m event systemd:a", "-m coroutine systemd:a", metrics] {
        let forbid = |call, errno| fails(handed(args).forbid(call, errno), 71, &["timer_create(2) fails"]);
        forbid(libc::SYS_timer_create, libc::EPERM);
        forbid(libc::SYS_timer_create, libc::ENOSYS);
        forbid(libc::SYS_timer_settime, libc::EPERM);
        let none_left = handed(args).limit(libc::RLIMIT_SIGPENDING, 0);
        fails(none_left, 71, &["without waiting", "timer_create(2) fails", "LimitSIGPENDING="]);
    }
    // these wait, or have only what is their own
    for args in ["-m prefork -w 1 systemd:a", "-m iterative systemd:a", "-m thread systemd:a", "-m fork"] {
        let daemon = handed(args).forbid(libc::SYS_timer_create, libc::EPERM).start();
        echoes(&mut daemon.connect(), b"x");
    }
}

#[test]
fn without_endpoints_all_are_served() {
    let (listener, udp) = (tcp(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let daemon = Forkd::bare().handed("one", &listener).handed("two", &udp).start();
    let expected =
        [format!("tcp://{}", listener.local_addr().unwrap()), format!("udp://{}", udp.local_addr().unwrap())];
    assert_eq!(daemon.endpoints(), expected);
    assert_eq!(daemon.count_lines("no endpoint asks for them"), 0);
}

#[test]
fn names_tell_which_is_which_and_what_is_left_over_is_said() {
    let (one, two) = (tcp(), tcp());
    let forkd = Forkd::new("systemd:two.socket tcp://127.0.0.1:0");
    let daemon = forkd.handed("one.socket", &one).handed("two.socket", &two).start();
    assert_eq!(daemon.endpoint(0), format!("tcp://{}", two.local_addr().unwrap()));
    assert_eq!(daemon.endpoints().len(), 2);
    daemon.wait_for_line(
        "warning: sockets of this name were handed over, and no endpoint asks for them name=one.socket",
    );
    echoes(&mut connect(&two), b"x");
    let mut stranger = connect(&one);
    stranger.write_all(b"x").unwrap();
    assert!(is_silent(&stranger, Duration::from_millis(100)));
}

#[test]
fn a_missing_name_is_69_and_lists_those_there_are() {
    let both = || Forkd::new("systemd:echo").handed("echo4", tcp()).handed("echo6", tcp());
    fails(
        both(),
        69,
        &["cannot serve systemd:echo: the sockets that were handed over are named echo4, echo6"],
    );
    fails(Forkd::new("systemd:*"), 69, &["cannot serve systemd:*: no sockets were handed over"]);
    // for another process: our parent, or none
    for other in ["1", ""] {
        let forkd = Forkd::new("systemd:*").env("LISTEN_FDS", "1").env("LISTEN_PID", other);
        let forkd = if other.is_empty() { forkd.within(&["env", "-u", "LISTEN_PID"]) } else { forkd };
        fails(forkd, 69, &["no sockets were handed over to this process"]);
    }
}

#[test]
fn variables_for_another_process_mean_nothing() {
    for (pid, count, names) in [
        ("1", "1", "other"),
        ("1", "x", ""),
        ("1", "2000", "a:b"),
        ("x", "1", "a"),
        ("", "1", "a"),
        ("$$$", "-1", "a:b:c"),
        ("99999999999999999999", "1", "a"),
    ] {
        let forkd = Forkd::new("").env("LISTEN_PID", pid).env("LISTEN_FDS", count);
        let daemon = forkd.env("LISTEN_FDNAMES", names).start();
        echoes(&mut daemon.connect(), b"served");
    }
    // of no process, and ours without a descriptor
    let daemon = Forkd::new("").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "a:b").start();
    echoes(&mut daemon.connect(), b"served");
    for (name, value) in [("LISTEN_FDNAMES", "a"), ("LISTEN_FDS", "0")] {
        let ours = ["sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""];
        let daemon = Forkd::new("").env(name, value).within(&ours).start();
        echoes(&mut daemon.connect(), b"served");
    }
}

#[test]
fn numbers_are_read_as_libsystemd_reads_them() {
    for pid in [" $$", "+$$", "0x$(printf %x $$)"] {
        let script = format!("exec 3</dev/null; LISTEN_PID=\"{pid}\" LISTEN_FDS=' 1' exec \"$0\" \"$@\"");
        // it is taken, as far as one can be that is none
        fails(
            Forkd::new("systemd:*").within(&["sh", "-c", &script]),
            78,
            &["descriptor 3", "it is no socket"],
        );
    }
}

#[test]
fn what_can_t_be_served_is_78_and_named() {
    let listener = tcp();
    let connection: OwnedFd = connect(&listener).into();
    let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
    for (what, why) in [(connection, "it is a connection"), (pipe, "it is no socket")] {
        let forkd = Forkd::new("systemd:b").handed("a", &listener).handed("b", what);
        fails(forkd, 78, &["cannot serve descriptor 4, handed over as \"b\": ", why]);
    }
    let contradiction = Forkd::bare().handed("a", &listener).env("LISTEN_FDNAMES", "a:b");
    fails(contradiction, 78, &["LISTEN_FDNAMES"]);
    fails(Forkd::bare().handed("a", &listener).env("LISTEN_FDS", "2000").env("LISTEN_FDNAMES", "a"), 78, &[]);
}

#[test]
fn a_socket_of_a_kind_that_the_service_can_t_have_is_refused_with_the_lines_of_its_unit() {
    let (listener, udp) = (tcp(), UdpSocket::bind("[::]:0").unwrap());
    let port = udp.local_addr().unwrap().port();
    // what else is wrong comes later
    for arguments in ["--service http systemd:a", "systemd:a --exec /no/such/program"] {
        let forkd = Forkd::new(arguments).handed("a", &listener).handed("a", &udp);
        let lines =
            format!("ListenStream=, then ListenDatagram=, then ListenStream={port}, as tcp-only.conf");
        fails(forkd, 78, &["which needs a connection", &lines]);
    }
}

#[test]
fn rules_about_users_are_refused_for_datagrams_that_do_not_tell_them() {
    let forkd = Forkd::new("--allow uid:7 systemd:echo");
    let socket = UnixDatagram::bind(forkd.dir.path().join("s")).unwrap();
    fails(forkd.handed("echo", &socket), 78, &["its datagrams do not tell their users", "(uid:N, gid:N)"]);
}

#[test]
fn what_the_socket_unit_decides_is_refused() {
    for (option, directive) in
        [("--backlog 5", "Backlog="), ("--v6only", "BindIPv6Only="), ("--receive-buffer 5", "ReceiveBuffer=")]
    {
        let forkd = Forkd::new(&format!("{option} systemd:a")).handed("a", tcp());
        fails(forkd, 64, &["has no effect on systemd:a", directive]);
    }
    let ended = run(&["check", "systemd:a"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("endpoints = [\"systemd:a\"]") && !ended.stdout.contains("backlog"));
}

/// getent(1) is a program that a static forkd runs; here it is one that writes down what it is given.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
#[test]
fn programs_that_are_run_later_get_neither_variables_nor_sockets() {
    let room = tempfile::tempdir().unwrap();
    let (script, report) = (room.path().join("getent"), room.path().join("report"));
    let text = format!(
        "#!/bin/sh\n{{ env; ls -l /proc/$$/fd; }} >{0}.new; mv {0}.new {0}\necho 127.0.0.1 STREAM\n",
        report.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", room.path().display(), std::env::var("PATH").unwrap());
    let forkd = Forkd::new("systemd:a tcp://somehost:0").handed("a", tcp()).env("PATH", &path);
    let daemon = forkd.start();
    assert_eq!(daemon.endpoints().len(), 2);
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("PATH="), "{report}");
    assert!(!report.contains("LISTEN_") && !report.contains("socket:"), "{report}");
}
