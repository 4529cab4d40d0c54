//! A running forkd.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::start::set_limit;
use super::{Client, Forkd, LIMIT, becomes_true, children_of, signal};

/// What a daemon has said so far. A test that asks sees every line that was written before, since it reads the pipe itself.
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

struct LogState {
    /// It does not block.
    pipe: ChildStderr,
    /// A line that is not complete.
    rest: Vec<u8>,
    lines: Vec<String>,
    has_ended: bool,
}

impl Log {
    /// Of a pipe, which a thread reads as well: a daemon must not wait for a test.
    fn of(pipe: ChildStderr) -> Arc<Self> {
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let readable = pipe.as_fd().try_clone_to_owned().unwrap();
        let state = LogState { pipe, rest: Vec::new(), lines: Vec::new(), has_ended: false };
        let log = Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() });
        let reader = Arc::clone(&log);
        std::thread::spawn(move || {
            while !reader.read().has_ended {
                let mut pipe = [PollFd::new(readable.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut pipe, PollTimeout::NONE);
            }
        });
        log
    }

    fn read(&self) -> MutexGuard<'_, LogState> {
        let mut state = self.state.lock().unwrap();
        state.read();
        self.changed.notify_all();
        state
    }
}

impl LogState {
    fn read(&mut self) {
        let mut chunk = [0; 4096];
        while !self.has_ended {
            match self.pipe.read(&mut chunk) {
                Ok(0) => self.has_ended = true,
                Ok(length) => self.rest.extend(&chunk[..length]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if self.has_ended && !self.rest.is_empty() {
            self.lines.push(String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned());
        }
    }
}

/// A running forkd; killed with all its children when dropped.
pub struct Daemon {
    pid: i32,
    child: Mutex<Child>,
    log: Arc<Log>,
    control: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Daemon {
    pub(super) fn new(mut child: Child, control: PathBuf, dir: tempfile::TempDir) -> Self {
        let log = Log::of(child.stderr.take().unwrap());
        Self { pid: child.id() as i32, child: Mutex::new(child), log, control, dir }
    }

    #[track_caller]
    pub fn start(args: &str) -> Self {
        Forkd::new(args).start()
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn control(&self) -> &Path {
        &self.control
    }

    /// What it listens on, as its log says, such as `tcp://127.0.0.1:40123`; the nth one.
    pub fn endpoint(&self, n: usize) -> String {
        self.endpoints().get(n).expect("so many endpoints").clone()
    }

    pub fn endpoints(&self) -> Vec<String> {
        let of = |line: &String| Some(line.split_once("listening on ")?.1.split(' ').next()?.to_owned());
        self.log().iter().filter_map(of).collect()
    }

    /// The socket address of the first endpoint of this scheme (`tcp` or `udp`).
    #[track_caller]
    pub fn address(&self, scheme: &str) -> SocketAddr {
        let endpoints = self.endpoints();
        let found = endpoints.iter().find_map(|e| e.strip_prefix(scheme)?.strip_prefix("://"));
        found.expect("an endpoint of that scheme").parse().unwrap()
    }

    /// The address of the first TCP endpoint.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        self.address("tcp")
    }

    /// Connects to the first TCP endpoint; reads and writes have time-outs.
    #[track_caller]
    pub fn connect(&self) -> Client {
        super::net::connect(self.addr()).expect("connect")
    }

    /// Connects and asks; the answer may come later (`is_answered`).
    #[track_caller]
    pub fn asks(&self) -> Client {
        let mut client = self.connect();
        client.write_all(b"?").expect("send");
        client
    }

    /// Connects, and echoes once, so that a child or worker serves it.
    #[track_caller]
    pub fn served(&self) -> Client {
        let mut client = self.connect();
        super::echoes(&mut client, b"are you there?");
        client
    }

    /// The pids of the master's living (or zombie) children.
    pub fn children(&self) -> Vec<i32> {
        children_of(self.pid)
    }

    /// The pid of the process that serves this client.
    #[track_caller]
    pub fn server_of(&self, client: &Client) -> i32 {
        let peer = client.local_addr().unwrap().to_string();
        let status = self.status();
        let mut children = status["children"].as_array().expect("children").iter();
        let child =
            children.find(|child| child["peer"] == peer.as_str() && child["serving"].as_u64() > Some(0));
        child.unwrap_or_else(|| panic!("no child serves {peer}: {status}"))["pid"].as_i64().unwrap() as i32
    }

    /// Waits until the master has exactly `count` children.
    #[track_caller]
    pub fn settles_at(&self, count: usize) {
        let mut children = Vec::new();
        let reached = becomes_true(LIMIT, || {
            children = self.children();
            children.len() == count
        });
        assert!(reached, "{} children instead of {count}: {children:?}", children.len());
    }

    pub fn log(&self) -> Vec<String> {
        self.log.read().lines.clone()
    }

    pub fn count_lines(&self, pattern: &str) -> usize {
        self.log().iter().filter(|line| line.contains(pattern)).count()
    }

    /// Of limited lines: how many there are, and how many they say were left out before them.
    fn limited(lines: &[String]) -> (usize, usize) {
        let left_out = |line: &String| {
            let (_, after) = line.rsplit_once(" suppressed=").expect("a limited line");
            after.split(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a number")
        };
        (lines.len(), lines.iter().map(left_out).sum())
    }

    /// Asserts that of so many lines that clients have been worth since `start`, few were written, and that
    /// a later one counts the others; `again` is one more such client, and returns its address.
    #[track_caller]
    pub fn has_left_out(
        &self,
        pattern: &str,
        all: usize,
        start: Instant,
        mut again: impl FnMut() -> SocketAddr,
    ) {
        let lines = || self.log().into_iter().filter(|line| line.contains(pattern)).collect::<Vec<_>>();
        let before = lines();
        let written = before.len();
        assert!(written <= 5 + start.elapsed().as_secs() as usize, "{written} of {all} lines");
        let (mut clients, mut last) = (Vec::new(), (0, None));
        let reached = becomes_true(LIMIT, || {
            clients.push(format!(" peer={} ", again()));
            // read once: there may be another line by the time that this one is seen
            let lines = lines();
            // a client may have the port of one before it
            let about = |line: &String| clients.iter().rposition(|client| line.contains(client));
            let (written, left_out) = Self::limited(&lines);
            let new = lines.get(before.len()..).and_then(<[String]>::last);
            last = (written + left_out, new.and_then(about).map(|others| all + others + 1));
            // what a process takes note of after its client has seen the end may come later than the next client's; one
            // that is not counted at all is missing for good
            last.1 == Some(last.0)
        });
        assert!(reached, "{last:?}, with {clients:?}");
    }

    /// Waits for a line that contains `pattern`, and returns the first one.
    #[track_caller]
    pub fn wait_for_line(&self, pattern: &str) -> String {
        self.wait_for_lines(1, pattern).remove(0)
    }

    /// Waits until `count` lines contain `pattern`.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize, pattern: &str) -> Vec<String> {
        let until = Instant::now() + LIMIT;
        let mut state = self.log.read();
        loop {
            let found: Vec<String> =
                state.lines.iter().filter(|line| line.contains(pattern)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.has_ended || left.is_zero() {
                let (log, how) =
                    (state.lines.join("\n"), if state.has_ended { "the log ended" } else { "time is up" });
                drop(state); // or the lock is poisoned
                panic!("{how} before {count} lines with {pattern:?}; the log:\n{log}");
            }
            state = self.log.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// What `forkd status --json` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        let control = self.control.to_str().unwrap();
        let answer = super::run(&["status", "--json", "--control", control]);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        serde_json::from_str(&answer.stdout).unwrap()
    }

    /// The status of the nth listener.
    #[track_caller]
    pub fn listener(&self, n: usize) -> Value {
        self.status()["listeners"][n].clone()
    }

    /// Waits until the first listener has refused so many clients for these causes, and none for others.
    #[track_caller]
    pub fn has_refused(&self, causes: &[(&str, u64)]) {
        self.comes_to_count(0, "refused", causes);
    }

    /// Waits until these limits of time have ended so many connections of the nth listener, and no other limit any.
    #[track_caller]
    pub fn has_timed_out(&self, n: usize, limits: &[(&str, u64)]) {
        self.comes_to_count(n, "timed_out", limits);
    }

    #[track_caller]
    fn comes_to_count(&self, n: usize, what: &str, counts: &[(&str, u64)]) {
        let expected: Value = counts.iter().map(|&(name, count)| (name, Value::from(count))).collect();
        let mut last = Value::Null;
        let is_so = becomes_true(LIMIT, || {
            last = self.listener(n)[what].clone();
            last == expected
        });
        assert!(is_so, "not {expected} but {last}");
    }

    /// How many children of the nth listener have died for this cause, or for any (`""`).
    #[track_caller]
    pub fn deaths(&self, n: usize, cause: &str) -> u64 {
        let deaths = &self.listener(n)["deaths"];
        let all = deaths.as_object().expect("deaths").iter();
        all.filter(|(name, _)| cause.is_empty() || *name == cause).filter_map(|(_, n)| n.as_u64()).sum()
    }

    /// Signals the master.
    pub fn signal(&self, which: Signal) {
        signal(self.pid, which);
    }

    /// Signals the whole process group, as a Ctrl-C at a terminal does.
    pub fn signal_group(&self, which: Signal) {
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.pid), which).unwrap();
    }

    /// Sets a soft limit of the running master; `resource` is of libc, such as `RLIMIT_NOFILE`.
    #[track_caller]
    pub fn set_limit(&self, resource: libc::__rlimit_resource_t, soft: u64) {
        set_limit(self.pid, resource, soft).unwrap();
    }

    /// Whether the master has ended, and how.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for the master's end.
    #[track_caller]
    pub fn wait(&self) -> ExitStatus {
        self.wait_for(LIMIT)
    }

    #[track_caller]
    pub fn wait_for(&self, limit: Duration) -> ExitStatus {
        let mut status = None;
        becomes_true(limit, || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("no end within {limit:?}; the log:\n{}", self.log().join("\n")))
    }

    /// Whether any process of the daemon's process group is left.
    pub fn is_gone(&self) -> bool {
        self.ended().is_some() && super::proc::group_of(self.pid).is_empty()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- last lines of the daemon:\n{}", log[log.len().saturating_sub(40)..].join("\n"));
        }
        // Before the master is waited for: while it is not, the group's number is not given to another.
        let group = nix::unistd::Pid::from_raw(self.pid);
        let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        if let Ok(mut child) = self.child.lock() {
            let _ = child.wait();
        }
        becomes_true(Duration::from_secs(2), || {
            let left = super::proc::group_of(self.pid);
            left.iter().for_each(|&pid| {
                _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)
            });
            left.is_empty()
        });
    }
}
