//! Socket files: made, replaced, protected and removed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;

use common::*;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn it_is_there_while_it_is_served_and_removed_at_exit() {
    for args in ["unix://{dir}/s unixgram://{dir}/g", "-m prefork -w 2 unix://{dir}/s unixgram://{dir}/g"] {
        let daemon = Daemon::start(args);
        let files = [daemon.path("s"), daemon.path("g"), daemon.control().to_owned()];
        assert!(files.iter().all(|file| fs::symlink_metadata(file).unwrap().file_type().is_socket()));
        echoes(&mut connect(&files[0]), b"hello");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(!files.iter().any(|file| file.exists()), "{files:?}");
    }
}

#[test]
fn a_stale_one_is_replaced() {
    let forkd = Forkd::new("unix://{dir}/s unixgram://{dir}/g");
    // what a killed daemon leaves: bound, and closed without a removal
    drop(UnixListener::bind(forkd.dir.path().join("s")).unwrap());
    drop(UnixDatagram::bind(forkd.dir.path().join("g")).unwrap());
    drop(UnixListener::bind(forkd.control()).unwrap());
    let daemon = forkd.start();
    echoes(&mut connect(&daemon.path("s")), b"hello");
    daemon.status();
}

#[test]
fn a_directory_is_neither_replaced_nor_told_to_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let ended = run(&["serve", &format!("unix://{path}")]);
    assert!(ended.code == Some(73) && ended.stderr.contains("it is a directory; name a file"), "{ended:?}");
    let ended = run(&["serve", "unix:///"]);
    assert!(ended.code == Some(64) && ended.stderr.contains("names a directory"), "{ended:?}");
}

#[test]
fn a_killed_daemon_leaves_one_that_the_next_replaces() {
    let daemon = Daemon::start("unix://{dir}/s");
    let path = daemon.path("s");
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(path.exists());
    let next = Daemon::start(&format!("unix://{}", path.display()));
    echoes(&mut connect(&path), b"hello");
    next.signal(Signal::SIGTERM);
    next.wait();
    assert!(!path.exists());
}

#[test]
fn a_live_one_is_an_error_and_stays() {
    let daemon = Daemon::start("unix://{dir}/s unixgram://{dir}/g");
    for (scheme, name) in [("unix", "s"), ("unixgram", "g"), ("unix", "g")] {
        let endpoint = format!("{scheme}://{}", daemon.path(name).display());
        let ended = run(&["serve", &endpoint]);
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.stderr.contains(&endpoint), "{ended:?}");
    }
    // the control socket of a running daemon, too; and its own endpoint is not left behind
    let other = daemon.path("other");
    let control = daemon.control().to_str().unwrap();
    let ended = run(&["serve", "--control", control, &format!("unix://{}", other.display())]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(!other.exists());
    echoes(&mut connect(&daemon.path("s")), b"still here");
    daemon.status();
}

#[test]
fn one_that_does_not_listen_yet_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let bound = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(bound.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    for scheme in ["unix", "unixgram"] {
        let ended = run(&["serve", &format!("{scheme}://{}", path.display())]);
        assert_eq!(ended.code, Some(69), "{ended:?}");
    }
    // a control socket, too
    let ended = run(&["serve", "--control", path.to_str().unwrap(), "tcp://127.0.0.1:0"]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    listen(&bound, Backlog::new(5).unwrap()).unwrap();
    let listener = UnixListener::from(bound);
    let _client = connect(&path);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_ok());
    // one that starts asks whether the socket is bound, which is no connection
    assert_eq!(run(&["serve", &format!("unix://{}", path.display())]).code, Some(69));
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn of_several_that_replace_a_stale_one_at_once_one_serves() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let endpoint = format!("unix://{}", path.display());
        let daemons: Vec<Daemon> = (0..6).map(|_| Forkd::new(&endpoint).launch()).collect();
        let serves = |daemon: &&Daemon| daemon.count_lines("ready pid=") == 1;
        let is_refused = |daemon: &&Daemon| daemon.count_lines("listens there") == 1;
        eventually("each serves or is refused", || {
            daemons.iter().filter(|daemon| serves(daemon) || is_refused(daemon)).count() == daemons.len()
        });
        let one: Vec<&Daemon> = daemons.iter().filter(serves).collect();
        assert_eq!(one.len(), 1, "{:?}", one.iter().map(|daemon| daemon.pid()).collect::<Vec<_>>());
        echoes(&mut connect(&path), b"hello");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        one[0].signal(Signal::SIGTERM);
        assert_eq!(one[0].wait().code(), Some(0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "data").unwrap();
    let ended = run(&["serve", &format!("unix://{}", path.display())]);
    assert_eq!(ended.code, Some(73), "{ended:?}");
    assert!(ended.stderr.contains("precious"), "{ended:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn its_mode_is_what_was_asked_for() {
    for bits in ["0600", "0660", "0666", "0777"] {
        let args = format!("--umask 022 --socket-mode {bits} unix://{{dir}}/s unixgram://{{dir}}/g");
        let daemon = Daemon::start(&args);
        let wanted = u32::from_str_radix(bits, 8).unwrap();
        assert_eq!((mode(&daemon.path("s")), mode(&daemon.path("g"))), (wanted, wanted));
    }
    for (umask, wanted) in [("022", 0o755), ("077", 0o700), ("000", 0o777)] {
        let daemon = Daemon::start(&format!("--umask {umask} unix://{{dir}}/s"));
        assert_eq!(mode(&daemon.path("s")), wanted);
        assert_eq!(mode(daemon.control()), 0o600, "umask {umask}");
    }
}

#[test]
fn the_control_socket_is_the_owners_alone() {
    if !need_root() {
        return;
    }
    let daemon = Daemon::start("--umask 000 --socket-mode 0666 unix://{dir}/s");
    assert_eq!(mode(daemon.control()), 0o600);
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let stranger = Forkd::new("").uid(61_240);
    let program = public_binary(stranger.dir.path());
    let mut command = std::process::Command::new(program);
    command.uid(61_240).gid(61_240).args(["status", "--control"]).arg(daemon.control());
    let ended = forkd(&mut command);
    assert_eq!(ended.code, Some(77), "{ended:?}");
    assert!(ended.stderr.contains(daemon.control().to_str().unwrap()), "{ended:?}");
}

#[test]
fn it_is_not_removed_if_it_belongs_to_another_by_then() {
    let daemon = Daemon::start("unix://{dir}/s");
    let path = daemon.path("s");
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(path.exists(), "it was another's");
    assert!(UnixStream::connect(&path).is_ok());
    drop(other);
}
