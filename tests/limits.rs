//! Shortages: as many children as allowed, no descriptors, no processes. No connected client is lost.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "limits/out_of_memory.rs"]
mod out_of_memory;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;

/// A moment in which nothing must happen.
const A_WHILE: Duration = Duration::from_millis(300);

both_ways! {
    fn at_the_limit_clients_wait_for_a_place(way: Way) {
        let daemon = Forkd::new("--max-children 3").way(way).start();
        let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        let (mut fourth, mut fifth) = (daemon.asks(), daemon.asks());
        assert!(is_silent(&fourth, A_WHILE));
        assert_eq!(daemon.children().len(), 3);
        let killed = daemon.server_of(&served[0]);
        drop(served.remove(1));
        is_answered(&mut fourth);
        // a child says its last word a moment before it is gone
        daemon.settles_at(3);
        // one that dies without a word makes room as well
        assert!(is_silent(&fifth, A_WHILE));
        signal(killed, Signal::SIGKILL);
        is_answered(&mut fifth);
        daemon.settles_at(3);
        let l = daemon.listener(0);
        assert_eq!((&l["alive"], &l["peak"], &l["connections"]), (&3.into(), &3.into(), &5.into()));
        assert_eq!(l["refused"], serde_json::json!({}));
    }

    fn at_the_limit_clients_are_rejected_if_so_wished(way: Way) {
        let daemon = Forkd::new("--max-children 3 --overflow reject").way(way).start();
        let mut served: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
        // the reset may come while it still connects
        let connected = std::net::TcpStream::connect(daemon.addr());
        let error = connected.and_then(|mut fourth| {
            fourth.set_read_timeout(Some(LIMIT))?;
            fourth.read(&mut [0])
        });
        let error = error.expect_err("a reset, not an end of file");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({"limit": 1}));
        assert_eq!(daemon.children().len(), 3);
        served.iter_mut().for_each(|client| echoes(client, b"not me"));
        served.truncate(2);
        daemon.settles_at(2);
        eventually("there is room again", || short_connection(daemon.addr(), b"x").is_ok());
        daemon.wait_for_line("rejected a connection at the limit");
    }

    fn without_descriptors_clients_are_served_one_by_one(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        let descriptors = fds_of(daemon.pid()).len();
        let mut first = daemon.served();
        eventually("the master has closed its copy", || fds_of(daemon.pid()).len() == descriptors);
        allow_no_more_descriptors(&daemon);
        // the one in reserve is enough
        let mut others: Vec<Client> = (0..5).map(|_| daemon.asks()).collect();
        others.iter_mut().for_each(is_answered);
        echoes(&mut first, b"all well");
        assert_eq!(daemon.count_lines("accepting again"), 0);
        daemon.set_limit(libc::RLIMIT_NOFILE, 256);
        is_answered(&mut daemon.asks());
        daemon.wait_for_line("accepting again");
        assert_eq!(daemon.count_lines("cannot accept"), 1);
        assert_eq!(daemon.count_lines("accepting again"), 1);
    }

    fn without_any_descriptor_clients_wait(way: Way) {
        let daemon = Forkd::new("").way(way).start();
        let descriptors = fds_of(daemon.pid()).len();
        // below the number of the one in reserve (but not below what ppoll(2) needs: the number of those
        // it waits for)
        daemon.set_limit(libc::RLIMIT_NOFILE, 5);
        let mut clients: Vec<Client> = (0..5).map(|_| daemon.asks()).collect();
        daemon.wait_for_line("cannot accept");
        assert!(is_silent(&clients[0], A_WHILE));
        daemon.set_limit(libc::RLIMIT_NOFILE, 256);
        clients.iter_mut().for_each(is_answered);
        daemon.wait_for_line("accepting again");
        assert_eq!(daemon.count_lines("cannot accept"), 1);
        assert_eq!(daemon.count_lines("accepting again"), 1);
        // the reserve has been filled up again
        eventually("as many descriptors as before", || fds_of(daemon.pid()).len() == descriptors);
    }

    fn a_worker_without_descriptors_says_so_and_accepts_again(way: Way) {
        for args in ["-m prefork -w 1", "-m event"] {
            let daemon = Forkd::new(args).way(way).start();
            let [worker] = daemon.children()[..] else { panic!("not one worker") };
            set_limit(worker, libc::RLIMIT_NOFILE, lowest_free(worker)).unwrap();
            // an accept(2) that it is in already has its descriptor, and may bring in one more
            drop(daemon.asks());
            daemon.wait_for_line("cannot accept");
            let mut client = daemon.asks();
            assert!(is_silent(&client, A_WHILE));
            set_limit(worker, libc::RLIMIT_NOFILE, 256).unwrap();
            is_answered(&mut client);
            daemon.wait_for_line("accepting again");
            assert_eq!(daemon.count_lines("cannot accept"), 1);
            assert_eq!(daemon.count_lines("accepting again"), 1);
        }
    }

    fn clients_wait_while_fork_fails_and_are_served_after(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = two_children_allowed("", way);
        let mut waiting: Vec<Client> = (0..3).map(|_| daemon.asks()).collect();
        daemon.wait_for_line("cannot fork");
        assert!(is_silent(&waiting[0], A_WHILE));
        served.iter_mut().for_each(|client| echoes(client, b"all well"));
        assert_eq!(daemon.children().len(), 2);
        daemon.set_limit(libc::RLIMIT_NPROC, 100);
        waiting.iter_mut().for_each(is_answered);
        daemon.wait_for_line("fork works again");
        assert_eq!(daemon.children().len(), 5);
        assert_eq!(daemon.count_lines("cannot fork"), 1, "{:?}", daemon.log());
        assert_eq!(daemon.count_lines("fork works again"), 1);
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({}));
    }

    fn a_process_that_ends_makes_room_for_a_held_client(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = two_children_allowed("", way);
        let mut waiting = daemon.asks();
        daemon.wait_for_line("cannot fork");
        served.pop();
        is_answered(&mut waiting);
        daemon.wait_for_line("fork works again");
        assert_eq!(daemon.children().len(), 2);
    }

    fn a_client_is_held_for_longer_than_the_grace_time_that_only_a_stop_has(way: Way) {
        if !need_root() {
            return;
        }
        let (daemon, mut served) = two_children_allowed("--grace 200ms", way);
        let mut held = daemon.asks();
        daemon.wait_for_line("cannot fork");
        assert!(is_silent(&held, Duration::from_secs(1)));
        served.pop();
        is_answered(&mut held);
        daemon.wait_for_line("fork works again");
        let mut given_up = daemon.asks();
        eventually("it is held", || daemon.count_lines("cannot fork") == 2);
        assert_eq!(daemon.listener(0)["refused"], serde_json::json!({}));
        signal(daemon.pid(), Signal::SIGTERM);
        assert!(is_cut(&mut given_up));
        daemon.wait_for_line("closed a connection for which");
    }
}

/// Sets the limit of open files so that the master can open no more than it has.
fn allow_no_more_descriptors(daemon: &Daemon) {
    daemon.set_limit(libc::RLIMIT_NOFILE, lowest_free(daemon.pid()));
}

/// What a service manager hears.
fn heard(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let receive = || {
        let n = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    };
    std::iter::from_fn(receive).collect()
}

#[test]
fn the_watchdog_is_fed_while_no_child_can_be_forked_and_the_status_says_so() {
    if !need_root() {
        return;
    }
    let base = Forkd::new("--grace 1s").uid(own_user()).limit(libc::RLIMIT_NPROC, 1);
    let path = base.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    // each 100 ms
    let base = base.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "200000");
    let daemon = base.start();
    let said = |what: &str| heard(&manager).iter().filter(|state| state.contains(what)).count();
    eventually("an idle master feeds it", || said("WATCHDOG=1\n") > 0);
    let mut client = daemon.asks();
    daemon.wait_for_line("cannot fork");
    eventually("the status says so", || {
        said("STATUS=serving: 0 children, 0 connections; cannot fork: Resource temporarily unavailable") > 0
    });
    (0..3).for_each(|_| eventually("it is fed", || said("WATCHDOG=1\n") > 0));
    assert!(is_silent(&client, A_WHILE));
    daemon.set_limit(libc::RLIMIT_NPROC, 100);
    is_answered(&mut client);
    eventually("the status takes it back", || said("STATUS=serving: 1 children, 1 connections\n") > 0);
}

/// The number that the next descriptor of a process would have.
fn lowest_free(pid: i32) -> u64 {
    let open: Vec<i32> = fds_of(pid).into_iter().map(|fd| fd.0).collect();
    (0..).find(|fd| !open.contains(fd)).unwrap() as u64
}

/// A daemon whose user may have three processes, and its two served clients.
fn two_children_allowed(args: &str, way: Way) -> (Daemon, Vec<Client>) {
    let daemon = Forkd::new(args).uid(own_user()).way(way).limit(libc::RLIMIT_NPROC, 3).start();
    let served = vec![daemon.served(), daemon.served()];
    assert_eq!(daemon.count_lines("cannot fork"), 0);
    (daemon, served)
}

/// Calls that there is another way for, or that are no more than a help.
const WITH_ANOTHER_WAY: [(&str, libc::c_long); 17] = [
    ("accept4", libc::SYS_accept4),
    ("clone3", libc::SYS_clone3),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("close_range", libc::SYS_close_range),
    ("eventfd2", libc::SYS_eventfd2),
    ("getrandom", libc::SYS_getrandom),
    ("openat2", libc::SYS_openat2),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("prctl", libc::SYS_prctl),
    ("recvmmsg", libc::SYS_recvmmsg),
    ("rseq", libc::SYS_rseq),
    ("sendfile", libc::SYS_sendfile),
    ("sendmmsg", libc::SYS_sendmmsg),
    ("sigaltstack", libc::SYS_sigaltstack),
    ("splice", libc::SYS_splice),
    ("statx", libc::SYS_statx),
    ("unshare", libc::SYS_unshare),
];

/// A daemon with each model, with http and with a program for each connection.
fn with_everything(leave_out: &str) -> Forkd {
    let forkd = Forkd::new("--config {dir}/forkd.toml");
    let dir = forkd.dir.path();
    std::fs::write(dir.join("page"), wire::noise(3, 64 << 10)).unwrap();
    let models = ["fork", "prefork", "iterative", "thread", "event", "coroutine"];
    let with_model = |model: &&str| {
        let endpoints = "endpoints = ['tcp://127.0.0.1:0', 'udp://127.0.0.1:0']";
        format!("[[listen]]\n{endpoints}\nmodel = '{model}'\n")
    };
    let mut toml: String = models.iter().filter(|model| **model != leave_out).map(with_model).collect();
    let http = format!(
        "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nservice = 'http'\nroot = '{}'\n",
        dir.display()
    );
    toml += &http;
    toml += "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nexec = ['cat']\n";
    std::fs::write(dir.join("forkd.toml"), toml).unwrap();
    forkd
}

/// Each of its endpoints serves.
fn serves_everything(daemon: &Daemon, call: &str) {
    let payload = wire::noise(1, 1 << 20);
    for line in daemon.log().iter().filter(|line| line.contains("listening on ")) {
        let endpoint = line.split_once("listening on ").unwrap().1.split(' ').next().unwrap();
        let (scheme, address) = endpoint.split_once("://").unwrap();
        if scheme == "udp" {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.connect(address).unwrap();
            // every sixteenth time a batch is asked for
            for _ in 0..20 {
                socket.send(b"hello").unwrap();
                let mut back = [0; 9];
                assert_eq!(socket.recv(&mut back).unwrap_or_else(|e| panic!("{call}: {line}: {e}")), 5);
            }
            continue;
        }
        let mut client = connect(address.parse().unwrap()).unwrap();
        let mut back = Vec::new();
        if line.contains("service=http") {
            client.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
            client.read_to_end(&mut back).unwrap_or_else(|e| panic!("{call}: {line}: {e}"));
            assert!(back.ends_with(&wire::noise(3, 64 << 10)), "{call}: {line}: {} bytes", back.len());
            continue;
        }
        let mut writer = client.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&payload).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            client.read_to_end(&mut back).unwrap_or_else(|e| panic!("{call}: {line}: {e}"));
        });
        assert!(back == payload, "{call}: {line}: {} bytes came back", back.len());
    }
}

#[test]
fn without_a_system_call_that_is_forbidden_it_goes_another_way() {
    for (name, call) in WITH_ANOTHER_WAY {
        for errno in [libc::EPERM, libc::ENOSYS] {
            // the C library starts threads without clone3 only where the kernel has none
            let leave_out = if (name, errno) == ("clone3", libc::EPERM) { "thread" } else { "" };
            let daemon = with_everything(leave_out).forbid(call, errno).start();
            serves_everything(&daemon, name);
            let complaints = daemon.count_lines("warning") + daemon.count_lines("error");
            assert_eq!(complaints, 0, "{name}: {:?}", daemon.log());
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.wait().code(), Some(0), "{name}: {:?}", daemon.log());
        }
    }
}

#[test]
fn below_another_root_directory_it_goes_another_way_too() {
    if !need_root() {
        return;
    }
    for (name, call) in WITH_ANOTHER_WAY {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let daemon = Forkd::new("--chroot {dir}").forbid(call, errno).start();
            echoes(&mut daemon.served(), b"hello");
            assert_eq!(daemon.count_lines("cannot fork"), 0, "{name}: {:?}", daemon.log());
        }
    }
}

#[test]
fn where_there_is_no_other_way_the_start_ends_with_the_name_of_the_call() {
    let (fork, pool) =
        (&["-m fork"][..], &["-m prefork", "-m iterative", "-m thread", "-m event", "-m coroutine"][..]);
    let (threads, polls) = (&["-m thread", "-m thread --threads 2"][..], &["-m event", "-m coroutine"][..]);
    let forbidden = [
        ("read", libc::SYS_read, fork),
        ("close", libc::SYS_close, fork),
        ("fcntl", libc::SYS_fcntl, fork),
        ("socket", libc::SYS_socket, fork),
        ("setsockopt", libc::SYS_setsockopt, fork),
        ("getsockname", libc::SYS_getsockname, fork),
        ("bind", libc::SYS_bind, fork),
        ("listen", libc::SYS_listen, fork),
        ("socketpair", libc::SYS_socketpair, fork),
        ("sendto", libc::SYS_sendto, fork),
        ("ppoll", libc::SYS_ppoll, fork),
        ("kill", libc::SYS_kill, fork),
        ("wait4", libc::SYS_wait4, fork),
        ("getppid", libc::SYS_getppid, fork),
        ("madvise", libc::SYS_madvise, fork),
        ("pipe2", libc::SYS_pipe2, pool),
        ("futex", libc::SYS_futex, threads),
        ("epoll_create1", libc::SYS_epoll_create1, polls),
        ("epoll_ctl", libc::SYS_epoll_ctl, polls),
        ("epoll_pwait", libc::SYS_epoll_pwait, polls),
    ];
    let ends = |name: &str, model: &str, forkd: Forkd| {
        let ended = forkd.run();
        assert_eq!(ended.code, Some(71), "{name}, {model}: {ended:?}");
        let sentence = format!("the system call {name} is forbidden here");
        assert!(ended.stderr.contains(&sentence), "{name}, {model}: {ended:?}");
        assert!(!ended.stderr.contains("ready pid"), "{name}, {model}: {ended:?}");
    };
    for (name, call, models) in forbidden {
        for (errno, model) in models.iter().flat_map(|model| [(libc::EPERM, model), (libc::ENOSYS, model)]) {
            ends(name, model, Forkd::new(model).forbid(call, errno));
        }
    }
    // where neither the one nor the other can be called
    for errno in [libc::EPERM, libc::ENOSYS] {
        let both = |new, old| Forkd::new("").forbid(new, errno).forbid(old, errno);
        ends("accept", "", both(libc::SYS_accept4, libc::SYS_accept));
        ends("clone", "", both(libc::SYS_clone3, libc::SYS_clone));
        ends("recvmsg", "", Forkd::new("udp://127.0.0.1:0").forbid(libc::SYS_recvmsg, errno));
    }
    // a program and its client are waited for at once, under each model
    let exec = ["fork", "prefork", "iterative", "thread"].map(|model| format!("-m {model} --exec cat"));
    for (errno, model) in exec.iter().flat_map(|model| [(libc::EPERM, model), (libc::ENOSYS, model)]) {
        let epoll = [
            ("epoll_create1", libc::SYS_epoll_create1),
            ("epoll_ctl", libc::SYS_epoll_ctl),
            ("epoll_pwait", libc::SYS_epoll_pwait),
        ];
        for (name, call) in epoll {
            let words = format!("tcp://127.0.0.1:0 {model}");
            ends(name, model, Forkd::new(&words).forbid(call, errno));
        }
    }
    threads
        .iter()
        .for_each(|model| ends("clone3", model, Forkd::new(model).forbid(libc::SYS_clone3, libc::EPERM)));
}

#[test]
fn a_worker_that_can_start_no_thread_is_not_ready() {
    if !need_root() {
        return;
    }
    // a master and a worker, and no thread beside them
    let ended = Forkd::new("-m thread").uid(own_user()).limit(libc::RLIMIT_NPROC, 2).run();
    assert_eq!(ended.code, Some(71), "{ended:?}");
    assert!(ended.stderr.contains("cannot start the threads of a worker"), "{ended:?}");
    assert!(!ended.stderr.contains("ready pid"), "{ended:?}");
}

/// Whether it is ready with this limit of open files, and then serves; else it ends and says why.
fn is_ready_with(files: u64, args: &[&str]) -> bool {
    let mut command = forkd_command();
    command.args(["serve", "tcp://127.0.0.1:0"]).args(args);
    // SAFETY: between fork and exec it makes system calls only.
    unsafe { command.pre_exec(move || set_limit(0, libc::RLIMIT_NOFILE, files)) };
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let (mut said, mut address) = (String::new(), None);
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        said += &line;
        if let Some((_, rest)) = line.split_once("listening on tcp://") {
            address = rest.split(' ').next().map(|address| address.parse().unwrap());
        }
        if line.contains("ready pid=") {
            let outcome = short_connection(address.expect("an address"), b"x");
            signal(child.id() as i32, Signal::SIGTERM);
            child.wait().unwrap();
            outcome.unwrap_or_else(|error| panic!("{files} {args:?}: {error}: {said}"));
            return true;
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(71), "{files} {args:?}: {said}");
    assert!(said.contains(&format!("this process may have {files} descriptors")), "{files} {args:?}: {said}");
    false
}

#[test]
fn with_too_few_descriptors_to_serve_a_client_it_is_not_ready() {
    let served = is_ready_with;
    let first = (5..20).find(|&files| served(files, &[]));
    assert!(first.is_some());
    assert!(!served(9, &["-m", "prefork", "-w", "1"]));
    // some of its workers start, and others can't
    assert!((12..15).all(|files| !served(files, &["-m", "prefork", "-w", "8"])));
}

#[test]
fn with_too_few_descriptors_to_run_a_program_it_is_not_ready() {
    for model in ["fork", "prefork", "thread", "thread --threads 2", "coroutine"] {
        let pool = if model == "fork" { "" } else { "-w 1" };
        let line = format!("-m {model} {pool} --exec cat");
        let args: Vec<&str> = line.split_whitespace().collect();
        let ready: Vec<bool> = std::thread::scope(|scope| {
            let args = &args;
            let starts: Vec<_> =
                (8..22).map(|files| scope.spawn(move || is_ready_with(files, args))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(!ready[0] && ready.is_sorted() && ready[13], "{line}: {ready:?}");
    }
}

#[test]
fn the_control_socket_is_in_the_first_runtime_directory_that_can_be_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (absent, there) = (dir.path().join("absent"), dir.path().join("there"));
    std::fs::create_dir(&there).unwrap();
    let directories = format!("{}:{}", absent.display(), there.display());
    let mut command = forkd_command();
    command.args(["serve", "tcp://127.0.0.1:0"]).env("RUNTIME_DIRECTORY", &directories);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| !line.contains("ready pid=")).collect();
    let path = there.join("control.sock");
    let says = |line: &String| line.contains("several directories") && line.contains(path.to_str().unwrap());
    assert!(said.iter().any(says), "{said:?}");
    let asked = forkd(forkd_command().arg("status").env("RUNTIME_DIRECTORY", &directories));
    signal(child.id() as i32, Signal::SIGTERM);
    assert_eq!((child.wait().unwrap().code(), asked.code), (Some(0), Some(0)), "{asked:?}");
}
