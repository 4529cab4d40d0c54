//! `--daemon`: what the invoking command tells, and what kind of process the daemon becomes; and how
//! root is given up.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use common::*;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid, getsid};

/// A daemon in the background; it and its children are killed when dropped.
struct Background {
    pid: i32,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Background {
    /// `run` waits until the output of the invoking command is closed, so this also shows that a
    /// shell's `$(forkd serve --daemon)` does not hang.
    #[track_caller]
    fn start(args: &str) -> Self {
        Self::start_as(Forkd::new(&format!("--daemon --pidfile {{dir}}/pid {args}")))
    }

    #[track_caller]
    fn start_as(forkd: Forkd) -> Self {
        // the command may hang, or say nonsense, while there is a daemon
        let guard = Stray(forkd.dir.path().join("pid"));
        let ended = common::forkd(&mut forkd.command());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
        let after =
            |mark: &str| ended.stderr.split_once(mark).expect(mark).1.split_whitespace().next().unwrap();
        let (pid, addr) =
            (after("ready pid=").parse().unwrap(), after("listening on tcp://").parse().unwrap());
        drop(guard);
        Self { pid, addr, dir: forkd.dir }
    }

    fn pidfile(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    /// Ends it by a signal; only init can wait for it, so its absence has to do.
    #[track_caller]
    fn stop(&self) {
        signal(self.pid, Signal::SIGTERM);
        eventually("the daemon ends", || !is_running(self.pid));
    }
}

fn connect(daemon: &Background) -> std::net::TcpStream {
    let client = std::net::TcpStream::connect(daemon.addr).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client
}

/// Kills the daemon that a pidfile names, if the test fails before there is a [`Background`].
struct Stray(PathBuf);

impl Drop for Stray {
    fn drop(&mut self) {
        let pid = fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.filter(|_| std::thread::panicking()) {
            end_group_of(pid);
        }
    }
}

fn end_group_of(pid: i32) {
    let pid = Pid::from_raw(pid);
    if let Ok(group) = getpgid(Some(pid)) {
        assert_ne!(Ok(group), getpgid(None), "the daemon is in the test's own group");
        let _ = killpg(group, Signal::SIGKILL);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        end_group_of(self.pid);
    }
}

#[test]
fn it_serves_as_soon_as_the_command_returns() {
    for args in ["", "-m prefork -w 2"] {
        let daemon = Background::start(args);
        assert!(is_running(daemon.pid));
        short_connection(daemon.addr, b"hello").unwrap();
        assert_eq!(fs::read_to_string(daemon.pidfile()).unwrap(), format!("{}\n", daemon.pid));
        daemon.stop();
        assert!(!daemon.pidfile().exists());
        assert!(is_refused(daemon.addr));
    }
}

#[test]
fn it_is_a_process_of_its_own() {
    let daemon = Background::start("");
    let pid = Pid::from_raw(daemon.pid);
    assert_ne!(getsid(Some(pid)), getsid(None));
    // not the leader of its session: it can't get a terminal by accident
    assert_ne!(getsid(Some(pid)), Ok(pid));
    assert_ne!(proc_status(daemon.pid, "PPid"), std::process::id().to_string());
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for fd in 0..=2 {
        let file = fds_of(daemon.pid).into_iter().find(|x| x.0 == fd).map(|x| x.1);
        assert_eq!(file.as_deref(), Some("/dev/null"), "descriptor {fd}");
    }
    // nothing of the invoking command is left: no pipe to it, no file of it
    let pipes = || fds_of(daemon.pid).into_iter().filter(|(_, file)| file.starts_with("pipe:")).count();
    // the message goes before its pipe
    eventually("the daemon has closed the pipe to its invoker", || pipes() == 0);
}

#[test]
fn it_serves_what_was_handed_to_the_invoking_command() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let forkd = Forkd::new("--daemon --pidfile {dir}/pid systemd:a").handed("a", &listener);
    let daemon = Background::start_as(forkd);
    assert_eq!(daemon.addr, listener.local_addr().unwrap());
    short_connection(daemon.addr, b"hello").unwrap();
}

#[test]
fn its_children_hold_nothing_of_the_masters() {
    for args in ["", "-m prefork -w 1"] {
        let daemon = Background::start(args);
        let mut client = connect(&daemon);
        echoes(&mut client, b"x");
        let [child] = children_of(daemon.pid)[..] else { panic!("not one child") };
        let files: Vec<String> = fds_of(child).into_iter().map(|x| x.1).collect();
        let pidfile = daemon.pidfile().to_str().unwrap().to_owned();
        assert!(fds_of(daemon.pid).iter().any(|x| x.1 == pidfile));
        assert!(!files.contains(&pidfile), "{files:?}");
        // fork: the connection; prefork: the listener twice (it can be shut), the connection, and both ends of the
        // queue that a stop needs
        let sockets = files.iter().filter(|file| file.starts_with("socket:")).count();
        assert_eq!(sockets, if args.is_empty() { 1 } else { 5 }, "{files:?}");
        // the standard streams
        assert_eq!(files.iter().filter(|file| *file == "/dev/null").count(), 3, "{files:?}");
    }
}

#[test]
fn a_second_one_is_refused_by_the_pidfile() {
    let daemon = Background::start("");
    let (pidfile, pid) = (daemon.pidfile(), daemon.pid.to_string());
    for mode in [&["--daemon"][..], &[]] {
        let args = [&["serve", "--pidfile", pidfile.to_str().unwrap(), "tcp://127.0.0.1:0"], mode].concat();
        let ended = run(&args);
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.stderr.contains(&format!("already running with pid {pid}")), "{ended:?}");
        assert_eq!(fs::read_to_string(&pidfile).unwrap().trim(), pid);
    }
    short_connection(daemon.addr, b"hello").unwrap();
    // the lock is the daemon's, not its children's: they may outlive it
    let mut client = connect(&daemon);
    echoes(&mut client, b"x");
    signal(daemon.pid, Signal::SIGKILL);
    eventually("it is dead", || !is_running(daemon.pid));
    let next = Forkd::new(&format!("--pidfile {}", pidfile.display())).start();
    assert_eq!(fs::read_to_string(&pidfile).unwrap().trim(), next.pid().to_string());
    echoes(&mut client, b"the orphan goes on");
    client.shutdown(std::net::Shutdown::Both).unwrap();
}

#[test]
fn locks_of_users_who_can_read_the_pidfile_keep_no_daemon_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let pidfile = dir.path().join("pid");
    let start = || Forkd::new(&format!("--pidfile {}", pidfile.display())).start();
    let first = start();
    let (flocked, locked) = (fs::File::open(&pidfile).unwrap(), fs::File::open(&pidfile).unwrap());
    flocked.try_lock().expect("flock(2) takes a descriptor, and no right to write");
    first.signal(Signal::SIGKILL);
    first.wait();
    // SAFETY: integers, for which zero is a value: the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as _;
    fcntl(&locked, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    let second = start();
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", second.pid()));
    // of the new file they can't have what a daemon takes
    let stranger = fs::File::open(&pidfile).unwrap();
    assert!(fcntl(&stranger, FcntlArg::F_OFD_SETLK(&lock)).is_err());
    let ended = run(&["serve", "--pidfile", pidfile.to_str().unwrap(), "tcp://127.0.0.1:0"]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains(&format!("already running with pid {}", second.pid())), "{ended:?}");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait().code(), Some(0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn of_several_daemons_that_start_at_once_one_has_the_pidfile() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pid");
        fs::write(&pidfile, "left by one that was killed").unwrap();
        let args = format!("--pidfile {}", pidfile.display());
        let daemons: Vec<Daemon> = (0..6).map(|_| Forkd::new(&args).launch()).collect();
        let serves = |daemon: &&Daemon| daemon.count_lines("ready pid=") == 1;
        let is_refused = |daemon: &&Daemon| daemon.count_lines("forkd is already running") == 1;
        eventually("each serves or is refused", || {
            daemons.iter().filter(|daemon| serves(daemon) || is_refused(daemon)).count() == daemons.len()
        });
        let one: Vec<i32> = daemons.iter().filter(serves).map(Daemon::pid).collect();
        assert_eq!(one.len(), 1, "{one:?}");
        assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", one[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_pidfile_that_a_stranger_made_is_refused_and_stays() {
    if !need_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let pidfile = dir.path().join("pid");
    fs::write(&pidfile, "1\n").unwrap();
    chown(&pidfile, Some(61_241), Some(61_241)).unwrap();
    let args = ["serve", "--pidfile", pidfile.to_str().unwrap(), "tcp://127.0.0.1:0"];
    let ended = run(&args);
    assert_eq!(ended.code, Some(73), "{ended:?}");
    assert!(ended.stderr.contains("it is another user's"), "{ended:?}");
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), "1\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // a name beside it is not in the way
    fs::remove_file(&pidfile).unwrap();
    let beside = dir.path().join("pid.new");
    fs::write(&beside, "").unwrap();
    chown(&beside, Some(61_241), Some(61_241)).unwrap();
    let daemon = Forkd::new(&format!("--pidfile {}", pidfile.display())).start();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    fs::write(&pidfile, "").unwrap();
    // where anyone may replace it, there is no use in one of one's own
    fs::remove_file(&pidfile).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let ended = run(&args);
    assert_eq!(ended.code, Some(73), "{ended:?}");
    assert!(ended.stderr.contains("anyone may replace files in "), "{ended:?}");
    // and where its owner may, unless that is the daemon
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(dir.path(), Some(61_241), Some(61_241)).unwrap();
    let ended = run(&args);
    assert_eq!(ended.code, Some(73), "{ended:?}");
    assert!(ended.stderr.contains("the user 61241, who owns it, may replace files in "), "{ended:?}");
    let own = format!("--user 61241 --group 61241 --pidfile {}", pidfile.display());
    let daemon = Forkd::new(&own).start();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!pidfile.exists());
}

#[test]
fn a_failure_is_told_by_the_invoking_command() {
    let first = Background::start("");
    let dir = tempfile::tempdir().unwrap();
    let pidfile = dir.path().join("pid");
    let taken = format!("tcp://{}", first.addr);
    for (args, code, part) in [
        (&[taken.as_str()][..], 69, taken.as_str()),
        (&["unix:///nonexistent-directory/s"], 73, "/nonexistent-directory/s"),
        (&["--user", "no-such-user-here", "tcp://127.0.0.1:0"], 78, "no-such-user-here"),
        (&["--chroot", "/nonexistent", "tcp://127.0.0.1:0"], 78, "/nonexistent"),
    ] {
        let args = [&["serve", "--daemon", "--pidfile", pidfile.to_str().unwrap()], args].concat();
        let ended = run(&args);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let sentences: Vec<&str> =
            ended.stderr.lines().filter(|line| line.contains("forkd: error: ")).collect();
        assert!(sentences.len() == 1 && sentences[0].contains(part), "{ended:?}");
    }
}

#[test]
fn a_relative_path_is_one_of_the_invoking_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = forkd_command();
    command.current_dir(dir.path()).args(["serve", "--daemon", "--pidfile", "pid", "--control", "control"]);
    let ended = forkd(command.arg("tcp://127.0.0.1:0"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let pid: i32 = fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    let addr = ended.stderr.split_once("tcp://").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let daemon = Background { pid, addr, dir };
    assert!(daemon.dir.path().join("control").exists());
    daemon.stop();
    assert_eq!(fs::read_dir(daemon.dir.path()).unwrap().count(), 0, "files are left");
}

/// The ids of a process: real, effective, saved, file system; and the supplementary groups.
fn ids(pid: i32) -> [Vec<u32>; 3] {
    ["Uid", "Gid", "Groups"]
        .map(|field| proc_status(pid, field).split_whitespace().map(|id| id.parse().unwrap()).collect())
}

#[test]
fn root_is_given_up_for_good() {
    if !need_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    for args in ["--grace 1s", "--grace 1s -m prefork -w 2"] {
        let daemon = Daemon::start(&format!("--user nobody {args}"));
        let mut client = daemon.served();
        let children = daemon.children();
        for pid in [daemon.pid()].into_iter().chain(children.iter().copied()) {
            let [uids, gids, groups] = ids(pid);
            assert_eq!((uids, gids), (vec![uid; 4], vec![gid; 4]));
            assert!(groups.iter().all(|&group| group != 0), "{groups:?}");
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(u64::from_str_radix(&proc_status(pid, set), 16), Ok(0), "{set}");
            }
        }
        daemon.status();
        // the children still hear of the master's death
        signal(daemon.pid(), Signal::SIGKILL);
        daemon.wait();
        echoes(&mut client, b"going on");
        assert!(is_cut(&mut client));
        eventually("all are gone", || !children.iter().any(|&pid| is_running(pid)));
    }
    let daemon = Daemon::start("--user nobody --group 61299");
    let [uids, gids, groups] = ids(daemon.pid());
    assert_eq!((uids, gids), (vec![uid; 4], vec![61_299; 4]));
    assert!(groups.contains(&61_299) && !groups.contains(&0), "{groups:?}");
}

#[test]
fn a_new_root_is_all_it_sees() {
    if !need_root() {
        return;
    }
    // an empty directory: without /dev/null, or anything else
    let root = tempfile::tempdir().unwrap();
    let option = format!("--user nobody --chroot {}", root.path().display());
    for args in ["", "-m prefork -w 2"] {
        let daemon = Daemon::start(&format!("{option} {args}"));
        let mut client = daemon.served();
        sees_only(root.path(), daemon.pid());
        daemon.status();
        echoes(&mut client, b"all well");
        drop(client);
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
    }
    let daemon = Background::start(&option);
    let mut client = connect(&daemon);
    echoes(&mut client, b"all well");
    sees_only(root.path(), daemon.pid);
    drop(client);
    daemon.stop();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// Whether the master, and its children, have this root and work in it.
fn sees_only(root: &Path, pid: i32) {
    let children = children_of(pid);
    assert!(!children.is_empty());
    for pid in children.into_iter().chain([pid]) {
        for link in ["root", "cwd"] {
            assert_eq!(fs::read_link(format!("/proc/{pid}/{link}")).unwrap(), root, "{link} of {pid}");
        }
    }
}

#[test]
fn the_background_is_refused_where_a_manager_waits_for_this_process() {
    for command in ["serve", "check"] {
        let mut forkd = forkd_command();
        forkd.args([command, "--daemon", "tcp://127.0.0.1:0"]).env("NOTIFY_SOCKET", "/nowhere/notify");
        let ended = common::forkd(&mut forkd);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        for part in ["cannot go into the background", "NOTIFY_SOCKET", "leave `daemon` out", "Type=forking"] {
            assert!(ended.stderr.contains(part), "{ended:?}");
        }
    }
}
