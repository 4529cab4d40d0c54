//! `--log syslog`, with a socket of the test and with rsyslogd at its other end; and lines as JSON.
//!
//! forkd runs in a mount namespace of its own, where /dev/log leads to `log` in the directory of the
//! test, and where the other places of a syslog socket are empty. The host has its own as ever.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A shell script that puts the directory `$1` in place, and becomes the command that follows.
const ENTER: &str = r#"set -e
cd "$1"; shift
mkdir dev dev/shm run; : > dev/null
ln -s "$PWD/log" dev/log
mount --bind /dev/null dev/null
mount --rbind /dev/shm dev/shm
mount --rbind dev /dev; mount --bind run /var/run
exec "$@""#;

fn can_mount() -> bool {
    let is_allowed = || Command::new("unshare").args(["-m", "true"]).status().unwrap().success();
    need_root() && need_tool("unshare") && need_tool("mount") && need(is_allowed(), "unshare -m fails here")
}

fn with_syslog(args: &str) -> Forkd {
    let words = ["unshare", "-m", "--propagation", "private", "sh", "-c", ENTER, "sh", "{dir}"];
    Forkd::new(&format!("--log syslog --log-level debug {args}")).within(&words)
}

/// The address in the line of the TCP endpoint.
#[track_caller]
fn address_in(lines: &str) -> SocketAddr {
    let (_, rest) = lines.split_once("listening on tcp://").expect("a TCP endpoint");
    rest.split([' ', '"']).next().unwrap().parse().unwrap()
}

/// A syslog daemon for one forkd; lines without their time, such as `<30>forkd[123]: ready`.
struct Syslogd {
    socket: UnixDatagram,
    lines: Vec<String>,
}

impl Syslogd {
    fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, lines: Vec::new() }
    }

    /// Takes what has arrived, and finds a line in all that ever did.
    fn find(&mut self, pattern: &str) -> Option<String> {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let line = std::str::from_utf8(&bytes[..length]).unwrap();
            // RFC 3164, section 4.1
            let (priority, rest) = line.split_once('>').expect(line);
            let (_, rest) = rest.split_at_checked("Mmm dd hh:mm:ss ".len()).expect(line);
            self.lines.push(format!("{priority}>{rest}"));
        }
        self.lines.iter().find(|line| line.contains(pattern)).cloned()
    }

    #[track_caller]
    fn wait_for(&mut self, pattern: &str) -> String {
        let found = becomes_true(LIMIT, || self.find(pattern).is_some());
        assert!(found, "no {pattern:?} in {:#?}", self.lines);
        self.find(pattern).unwrap()
    }
}

/// The report of lost lines comes with the next line that there is.
#[track_caller]
fn wait_for_loss(address: SocketAddr, mut find: impl FnMut(&str) -> Option<String>) -> String {
    let mut found = || find("]: warning: log lines were lost count=");
    eventually("the loss is reported", || {
        short_connection(address, b"x").unwrap();
        found().is_some()
    });
    found().unwrap()
}

#[track_caller]
fn start(forkd: Forkd) -> (Daemon, Syslogd, SocketAddr) {
    let mut syslogd = Syslogd::bind(&forkd.dir.path().join("log"));
    let daemon = forkd.launch();
    syslogd.wait_for("ready pid=");
    let address = address_in(&syslogd.wait_for("listening on "));
    (daemon, syslogd, address)
}

both_ways! {
    fn a_line_has_its_priority_and_the_pid_of_its_writer(way: Way) {
        if !can_mount() {
            return;
        }
        let (daemon, mut syslogd, address) = start(with_syslog("").way(way));
        let master = daemon.pid();
        // the facility `daemon` is 3, and `info` is 6: 3 * 8 + 6
        syslogd.wait_for(&format!("<30>forkd[{master}]: ready pid={master} "));
        short_connection(address, b"x").unwrap();
        let accepted = syslogd.wait_for(&format!("<31>forkd[{master}]: debug: connection accepted pid="));
        let child = accepted.split("pid=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        syslogd.wait_for(&format!("<31>forkd[{child}]: debug: connection closed peer="));
    }
}

#[test]
fn a_restarted_syslog_daemon_is_found_again_and_told_of_the_loss() {
    if !can_mount() {
        return;
    }
    let (daemon, syslogd, address) = start(with_syslog(""));
    drop(syslogd);
    fs::remove_file(daemon.path("log")).unwrap();
    // when the second is served, the line about the first is lost
    (0..2).for_each(|_| short_connection(address, b"x").unwrap());
    let mut syslogd = Syslogd::bind(&daemon.path("log"));
    let report = wait_for_loss(address, |pattern| syslogd.find(pattern));
    assert!(report.starts_with("<28>forkd[") && !report.ends_with("=0"), "{report}");
    syslogd.wait_for(&format!("<31>forkd[{}]: debug: ", daemon.pid()));
}

/// Fills the socket of a syslog daemon, so that it takes nothing more.
fn fill(path: &Path) {
    // each socket also has a limit of its own
    loop {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(path).unwrap();
        if (0..).take_while(|_| socket.send(b"<30>Jan  1 00:00:00 test: full").is_ok()).count() == 0 {
            return;
        }
    }
}

#[test]
fn a_syslog_daemon_that_hangs_holds_up_no_client() {
    if !can_mount() {
        return;
    }
    let (daemon, mut syslogd, address) = start(with_syslog(""));
    fill(&daemon.path("log"));
    (0..20).for_each(|_| short_connection(address, b"still there?").unwrap());
    wait_for_loss(address, |pattern| syslogd.find(pattern));
    fill(&daemon.path("log"));
    short_connection(address, b"still there?").unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
}

#[test]
fn without_a_syslog_daemon_there_is_no_start() {
    if !can_mount() {
        return;
    }
    // a socket there is impossible, and would be the complaint if it were tried first
    let forkd = with_syslog("--pidfile {dir}/pid unix://{dir}/absent/s");
    let ended = common::forkd(&mut forkd.command());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    for part in ["error: no syslog daemon listens", "/dev/log: ", "/var/run/syslog: ", "/var/run/log: "] {
        assert!(ended.stderr.contains(part), "{part:?} is not in {ended:?}");
    }
    assert!(!forkd.control().exists() && !forkd.dir.path().join("pid").exists());
}

const CONFIG: &str = r#"
global(workDirectory="{dir}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{dir}/log")
template(name="line" type="string" string="<%pri%>%syslogtag%%msg%\n")
action(type="omfile" file="{dir}/messages" template="line")
"#;

/// A real syslog daemon, which writes to `messages` in its directory; ended when dropped.
struct Rsyslogd(Child);

impl Rsyslogd {
    #[track_caller]
    fn start(dir: &Path) -> Self {
        fs::write(dir.join("conf"), CONFIG.replace("{dir}", dir.to_str().unwrap())).unwrap();
        let mut command = Command::new("setpriv"); // also of util-linux
        command.args("--pdeathsig KILL rsyslogd -n -iNONE -f conf".split(' ')).current_dir(dir);
        let daemon = Self(command.stdin(Stdio::null()).spawn().unwrap());
        eventually("rsyslogd listens", || UnixDatagram::unbound().unwrap().connect(dir.join("log")).is_ok());
        daemon
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        signal(self.0.id() as i32, Signal::SIGTERM);
        becomes_true(LIMIT, || self.0.try_wait().unwrap().is_some());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rsyslogd_writes_the_lines_and_may_be_restarted() {
    if !can_mount() || !need_tool("rsyslogd") || !need_tool("setpriv") {
        return;
    }
    let forkd = with_syslog("");
    let rsyslogd = Rsyslogd::start(forkd.dir.path());
    let daemon = forkd.launch();
    let find = |pattern: &str| {
        let lines = fs::read_to_string(daemon.path("messages")).ok()?;
        lines.lines().find(|line| line.contains(pattern)).map(str::to_owned)
    };
    let pid = daemon.pid();
    let ready = format!("<30>forkd[{pid}]: ready pid={pid} ");
    eventually("rsyslogd writes the lines", || find(&ready).is_some());
    let address = address_in(&find("listening on ").unwrap());
    drop(rsyslogd);
    (0..2).for_each(|_| short_connection(address, b"x").unwrap());
    let _rsyslogd = Rsyslogd::start(daemon.dir.path());
    let report = wait_for_loss(address, find);
    assert!(report.starts_with("<28>forkd["), "{report}");
}

#[test]
fn each_line_may_be_an_object() {
    let options = "--log-level debug --log-format json tcp://127.0.0.1:0";
    let daemon = Forkd::new(options).start();
    short_connection(address_in(&daemon.log().join("\n")), b"x").unwrap();
    daemon.wait_for_line("connection closed");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    daemon.wait_for_line("stopped");
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let objects: Vec<Value> = daemon.log().iter().map(parse).collect();
    for object in &objects {
        assert!(["error", "warn", "info", "debug"].iter().any(|level| object["level"] == *level), "{object}");
        assert!(object["msg"].is_string() && object["ts"].is_string() && object["pid"].is_u64(), "{object}");
    }
    let with = |msg: &str| objects.iter().find(|object| object["msg"] == msg).expect(msg);
    assert_eq!(with("stopped")["pid"], daemon.pid());
    assert_eq!(with("connection accepted")["pid_"], with("connection closed")["pid"]);
    let listening = objects.iter().find(|object| object["service"] == "echo").unwrap();
    assert!(listening["endpoint"].as_str().unwrap().starts_with("tcp://127.0.0.1:"), "{listening}");
    assert_eq!(listening["model"], "fork");

    for (workers, expected) in [("3", Value::from(3)), ("2..3", Value::from("2..3"))] {
        let daemon = Forkd::new(&format!("-m prefork -w {workers} {options}")).start();
        let objects: Vec<Value> = daemon.log().iter().map(parse).collect();
        let listening = objects.iter().find(|object| object["service"] == "echo").unwrap();
        assert_eq!((&listening["model"], &listening["workers"]), (&Value::from("prefork"), &expected));
    }
}
