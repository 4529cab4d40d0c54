//! What a program finds: its environment, descriptors, signals and limits, its sockets, and where it says how it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::*;

#[test]
fn the_environment_is_the_caller_s_and_what_is_documented() {
    let daemon = script("-w 2 tcp://127.0.0.1:0 unix://{dir}/s udp://127.0.0.1:0", "exec sleep 1000")
        .env("OF_THE_CALLER", "kept")
        .env("LISTEN_PIDFDID", "7")
        .env("WATCHDOG_USEC", "9")
        .env("JOURNAL_STREAM", "1:2")
        .start();
    let endpoints: Vec<String> = daemon.endpoints();
    for (number, &pid) in has_workers(&daemon, 2).iter().enumerate() {
        let mut its: BTreeMap<String, String> = environment(pid).into_iter().collect();
        let tcp = endpoints[0].strip_prefix("tcp://").unwrap();
        let udp = endpoints[2].strip_prefix("udp://").unwrap();
        let named = format!("{tcp}=3;{}=4;{udp}=5", daemon.path("s").display());
        let notify = its.remove("NOTIFY_SOCKET").expect("a socket");
        assert!(Path::new(&notify).is_absolute(), "{notify}");
        for (name, value) in [
            ("LISTEN_FDS", "3"),
            ("LISTEN_PID", &pid.to_string()),
            ("LISTEN_FDNAMES", "tcp:unix:udp"),
            ("SERVER_STARTER_PORT", &*named),
            ("EINHORN_MASTER_PID", &daemon.pid().to_string()),
            ("EINHORN_CHILD_INDEX", &number.to_string()),
            ("EINHORN_FD_COUNT", "3"),
            ("EINHORN_FD_0", "3"),
            ("EINHORN_FD_1", "4"),
            ("EINHORN_FD_2", "5"),
            ("EINHORN_FD_FAMILY_0", "AF_INET"),
            ("EINHORN_FD_FAMILY_1", "AF_UNIX"),
            ("EINHORN_FD_FAMILY_2", "AF_INET"),
            ("FORKD_WORKER", &number.to_string()),
            ("FORKD_GENERATION", "1"),
        ] {
            assert_eq!(its.remove(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(its.get("OF_THE_CALLER").map(String::as_str), Some("kept"));
        let mut callers: BTreeMap<String, String> = environment(daemon.pid()).into_iter().collect();
        for name in ["LISTEN_PIDFDID", "WATCHDOG_USEC", "JOURNAL_STREAM"] {
            assert!(callers.remove(name).is_some(), "{name}");
        }
        assert_eq!(its, callers, "nothing else");
    }
}

#[test]
fn a_watchdog_is_in_the_environment_if_there_is_one() {
    let daemon = script("-w 1 --worker-watchdog 1m", "exec sleep 1000").start();
    let pid = has_workers(&daemon, 1)[0];
    assert_eq!(variable(pid, "WATCHDOG_USEC").as_deref(), Some("60000000"));
    assert_eq!(variable(pid, "WATCHDOG_PID"), Some(pid.to_string()));
}

/// Waits until a shell has become sleep(1).
#[track_caller]
fn is_asleep(pid: i32) {
    let program = format!("/proc/{pid}/exe");
    eventually("it sleeps", || fs::read_link(&program).is_ok_and(|exe| exe.ends_with("sleep")));
}

/// What the descriptors of a process are, in order: the kind of each.
fn kinds(pid: i32) -> Vec<String> {
    let mut all = fds_of(pid);
    all.sort_unstable();
    let kind = |(at, (number, target)): (usize, (i32, String))| {
        assert_eq!(at as i32, number, "a gap before {target}");
        target.split(':').next().unwrap().to_owned()
    };
    all.into_iter().enumerate().map(kind).collect()
}

#[test]
fn descriptors_are_the_sockets_alone() {
    let options = "-w 2 tcp://127.0.0.1:0 udp://127.0.0.1:0";
    let daemon = script(options, "exec sleep 1000").start();
    for pid in has_workers(&daemon, 2) {
        is_asleep(pid);
        assert_eq!(kinds(pid), ["/dev/null", "pipe", "pipe", "socket", "socket"]);
        let shares = |fd: i32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(shares(1), shares(2));
    }
    let inherit =
        script(&format!("--worker-log inherit {options}"), "echo said >&2; exec sleep 1000").start();
    inherit.wait_for_lines(2, "said");
    assert!(inherit.log().iter().any(|line| line == "said"), "untouched");
    for pid in has_workers(&inherit, 2) {
        let output = |pid: i32, fd: i32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!((output(pid, 1), output(pid, 2)), (output(inherit.pid(), 1), output(inherit.pid(), 2)));
    }
}

#[test]
fn signals_limits_and_directory_are_the_caller_s_and_the_group_its_own() {
    let caller = "trap '' USR1; umask 027; cd {dir}; ulimit -Sn 300; exec \"$0\" \"$@\"";
    let daemon = script("-w 1", "exec sleep 1000").within(&["sh", "-c", caller]).start();
    let pid = has_workers(&daemon, 1)[0];
    let bits = |field: &str| u64::from_str_radix(&proc_status(pid, field), 16).unwrap();
    let bit = |signal: Signal| 1 << (signal as i32 - 1);
    // that is what this process is started with but for SIGPIPE, which Rust ignores for itself
    let own = u64::from_str_radix(&proc_status(std::process::id() as i32, "SigIgn"), 16).unwrap();
    let ignored = own & !bit(Signal::SIGPIPE) | bit(Signal::SIGUSR1);
    assert_eq!((bits("SigIgn"), bits("SigBlk"), bits("SigCgt")), (ignored, 0, 0));
    assert_eq!(proc_status(pid, "Umask"), "0027");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max open files            300 ")), "{limits}");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        fs::canonicalize(daemon.path("")).unwrap()
    );
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(group.as_raw(), pid);
}

#[test]
fn a_line_is_logged_with_its_worker() {
    let daemon =
        script("-w 1", "echo to output; printf '\\033[31mto error\\033[0m' >&2; exec sleep 1000").start();
    let pid = has_workers(&daemon, 1)[0];
    let line = daemon.wait_for_line("to output");
    assert!(line.contains("worker=0") && line.contains(&format!("pid={pid}")), "{line}");
    // what has no end is logged when nothing more can come
    is_asleep(pid);
    signal(pid, Signal::SIGKILL);
    let line = daemon.wait_for_line("to error");
    assert!(!line.contains('\x1b'), "{line}");
}

#[test]
fn all_sockets_are_served_by_each_worker() {
    if !need_tool("python3") {
        return;
    }
    let daemon = echo("-w 2 tcp://127.0.0.1:0 unix://{dir}/s udp://127.0.0.1:0").start();
    for _ in 0..10 {
        echoes(&mut daemon.connect(), b"by tcp");
        echoes(&mut UnixStream::connect(daemon.path("s")).unwrap(), b"by a path");
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.set_read_timeout(Some(LIMIT)).unwrap();
        datagrams.send_to(b"a datagram", daemon.address("udp")).unwrap();
        assert_eq!(datagrams.recv(&mut [0; 64]).unwrap(), 10);
    }
    assert_eq!(stops(&daemon), Some(0));
}

/// Where a worker says how it is.
fn notify_socket(pid: i32) -> PathBuf {
    let mut socket = None;
    // a process that executes a program just now has no environment for a moment
    eventually("the worker has a socket", || {
        socket = variable(pid, "NOTIFY_SOCKET");
        socket.is_some()
    });
    socket.unwrap().into()
}

#[test]
fn where_programs_say_how_they_are_is_private_and_goes_with_them() {
    for variable in ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"] {
        let daemon = script("-w 2", "exec sleep 1000");
        let base = daemon.dir.path().join("run");
        fs::create_dir(&base).unwrap();
        let value = base.to_str().unwrap().to_owned();
        let value = if variable == "RUNTIME_DIRECTORY" { format!("{value}:/other") } else { value };
        let daemon = daemon.env(variable, &value).start();
        let pids = has_workers(&daemon, 2);
        let directory = base.join(format!("forkd-notify.{}", daemon.pid()));
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(pids.iter().all(|&pid| notify_socket(pid).parent() == Some(&directory)));
        // a worker that is replaced leaves nothing, whatever it dies of
        signal(pids[0], Signal::SIGKILL);
        eventually("another takes its place", || {
            workers(&daemon).iter().filter(|pid| **pid != pids[0]).count() == 2
        });
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        assert_eq!(stops(&daemon), Some(0));
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0, "{variable}");
    }
}

#[test]
fn where_no_file_can_be_had_it_is_an_abstract_name() {
    if !need_tool("systemd-notify") {
        return;
    }
    let daemon = script("-w 1", "systemd-notify --ready --status=up; exec sleep 1000");
    // too long for an address of a socket
    let long = daemon.dir.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let daemon = daemon.env("TMPDIR", long.to_str().unwrap()).start();
    assert!(notify_socket(has_workers(&daemon, 1)[0]).to_str().unwrap().starts_with('@'));
    assert_eq!(stops(&daemon), Some(0));
    let nowhere = script("-w 1", "exec sleep 1000").env("TMPDIR", "/nowhere").start();
    assert!(notify_socket(has_workers(&nowhere, 1)[0]).to_str().unwrap().starts_with('@'));
}

#[test]
fn a_killed_master_takes_its_workers_with_it_and_leaves_what_harms_nobody() {
    let daemon = script("-w 2", "exec sleep 1000").start();
    let pids = has_workers(&daemon, 2);
    let sockets: Vec<PathBuf> = pids.iter().map(|&pid| notify_socket(pid)).collect();
    signal(daemon.pid(), Signal::SIGKILL);
    eventually("they are gone", || pids.iter().all(|&pid| !is_running(pid)));
    assert!(sockets.iter().all(|socket| socket.exists()), "and were not removed");
    // another has a directory of its own
    assert_eq!(
        stops(&script("-w 2", "exec sleep 1000").env("TMPDIR", daemon.path("").to_str().unwrap()).start()),
        Some(0)
    );
    assert!(sockets.iter().all(|socket| socket.exists()));
}

#[test]
fn other_users_and_roots_have_programs_too() {
    if !need_root() {
        return;
    }
    let user = own_user();
    let daemon = script(&format!("-w 1 --user {user} --group {user}"), "exec sleep 1000");
    let daemon = daemon.env("TMPDIR", "/tmp").start();
    let pid = has_workers(&daemon, 1)[0];
    assert_eq!(proc_status(pid, "Uid").split_whitespace().next(), Some(&*user.to_string()));
    assert!(notify_socket(pid).is_absolute());
    assert_eq!(stops(&daemon), Some(0));

    // below another root there is this program alone, which has no other files
    let forkd =
        Forkd::new("-w 1 --chroot {dir}/root tcp://127.0.0.1:0 --worker-exec /forkd serve unix:///inner");
    let root = forkd.dir.path().join("root");
    fs::create_dir(&root).unwrap();
    public_binary(&root);
    let daemon = forkd.start();
    let pid = has_workers(&daemon, 1)[0];
    assert_eq!(fs::read_link(format!("/proc/{pid}/root")).unwrap(), fs::canonicalize(&root).unwrap());
    assert!(notify_socket(pid).to_str().unwrap().starts_with('@'));
    let mut client = None;
    eventually("it serves there", || {
        client = UnixStream::connect(root.join("inner")).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    assert_eq!(stops(&daemon), Some(0));
}

#[test]
fn a_daemon_in_the_background_has_programs() {
    let forkd = script("-w 1 --daemon --pidfile {dir}/pid", "exec sleep 1000");
    let (control, directory) = (forkd.control(), forkd.dir.path().to_owned());
    let ended = forkd_within(&mut forkd.command(), LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let pid: i32 = fs::read_to_string(directory.join("pid")).unwrap().trim().parse().unwrap();
    let worker = children_of(pid)[0];
    let base = notify_socket(worker).parent().unwrap().to_owned();
    assert!(base.ends_with(format!("forkd-notify.{pid}")), "{}", base.display());
    assert_eq!(run(&["reload", "--control", control.to_str().unwrap()]).code, Some(0));
    signal(pid, Signal::SIGTERM);
    eventually("all are gone", || !is_running(pid) && !is_running(worker) && !base.exists());
}
