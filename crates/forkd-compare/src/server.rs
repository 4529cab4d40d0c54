//! A server that takes part: started, found ready, and stopped such that nothing is left.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroup::Group;
use super::contestant::{Contestant, options};
use super::machine::processors;
use super::messages::Messages;
use super::metrics::{self, Served};
use super::orphans::{Adoption, Orphans};
use super::plan::Plan;
use super::process::Process;
use super::scratch::Scratch;
use super::tree::Tree;
use super::usage::Rest;
use super::{Ask, Counters};
use forkd_load::{Live, Phase, Reach, Target};
use forkd_net::Endpoint;
use forkd_net::resolve::resolve;
use forkd_net::{Error, Failure};
use forkd_sys::program::{Privileges, Program};

/// How long a server may take until it is ready.
const START: Duration = Duration::from_secs(10);
/// How long it has to end by itself.
const STOP: Duration = Duration::from_secs(2);
/// How often is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(5);
/// How long an attempt to connect may take.
const KNOCK: Duration = Duration::from_secs(1);

/// What a server does not inherit: where its log goes, and which manager it tells that it is ready.
const NOT_INHERITED: [&str; 6] =
    ["JOURNAL_STREAM", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "RUNTIME_DIRECTORY"];

/// The variables of this process that a forkd whose options are given does not inherit: those that tell it something else.
pub fn not_inherited() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name).filter(|name| name != "FORKD_PORTABLE");
    let said = names.filter(|name| name.as_encoded_bytes().starts_with(b"FORKD_"));
    said.chain(NOT_INHERITED.into_iter().map(OsString::from))
}

/// What the servers of a round have in common.
pub(super) struct Terms<'a> {
    pub(super) plan: &'a Plan,
    pub(super) live: &'a Arc<Live>,
    pub(super) rest: &'a Rest,
    pub(super) ask: Ask,
    /// The program that forkd's models are.
    pub(super) forkd: &'a Path,
}

/// A server that is ready for clients.
#[derive(Debug)]
pub(super) struct Server {
    // in the order in which they go: the program, those that it leaves, their group, their files
    program: Option<Program>,
    log: Arc<Messages>,
    pub(super) tree: Tree,
    stream: Option<Target>,
    datagrams: Option<Target>,
    control: Option<PathBuf>,
    /// Where it has its metrics, where that is asked for.
    metrics: Option<PathBuf>,
    _scratch: Option<Scratch>,
}

impl Server {
    /// Starts it and waits until it is ready, or finds it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if it does not become ready; it has been ended then.
    pub(super) fn start(contestant: &Contestant, terms: &Terms<'_>) -> Result<Self, Error> {
        let (plan, live) = (terms.plan, terms.live);
        match contestant {
            Contestant::Model(name) => Self::model(name, contestant, terms),
            Contestant::Command { words, .. } => Self::command(words, plan, live),
            Contestant::Running { endpoint, pid, reach } => Self::running(endpoint, *pid, *reach, live),
        }
    }

    fn model(name: &str, contestant: &Contestant, terms: &Terms<'_>) -> Result<Self, Error> {
        let (plan, live) = (terms.plan, terms.live);
        let scratch = Scratch::new()?;
        let control = scratch.path("control");
        let mut command = Command::new(terms.forkd);
        // what variables tell a daemon is not in the plan
        not_inherited().for_each(|name| _ = command.env_remove(name));
        let workers = contestant.workers(plan.workers, processors());
        command.arg("serve").args(options(name, workers, plan.most_clients()));
        command.arg("--control").arg(&control).args([
            "--log",
            "stderr",
            "--log-level",
            "info",
            "--grace",
            "1s",
        ]);
        if !rustix::process::geteuid().is_root() {
            // the memory of a confined daemon can't be looked at by its user
            command.args(["--sandbox", "off"]);
        }
        let metrics = (!plan.slo.is_empty()).then(|| scratch.path("metrics"));
        if let Some(path) = &metrics {
            // without, it reads no clock for its connections
            command.arg("--metrics").arg(format!("unix://{}", path.display()));
        }
        for kind in [false, true] {
            let is_wanted = plan.phases.iter().any(|phase| (*phase == Phase::Datagrams) == kind);
            let endpoint = match (plan.is_unix, kind) {
                (false, false) => "tcp://127.0.0.1:0".to_owned(),
                (false, true) => "udp://127.0.0.1:0".to_owned(),
                (true, false) => format!("unix://{}", scratch.path("stream").display()),
                (true, true) => format!("unixgram://{}", scratch.path("datagrams").display()),
            };
            command.args(is_wanted.then_some(endpoint));
        }
        let mut server = Self::launch(command, Some(scratch))?;
        (server.control, server.metrics) = (Some(control), metrics);
        server.wait(live, |server| server.log.is_ready())?;
        let endpoints = server.log.endpoints();
        for endpoint in endpoints {
            let target = Target::new(&endpoint, Reach::Loopback)?;
            match endpoint.is_datagram() {
                true => server.datagrams = Some(target),
                false => server.stream = Some(target),
            }
        }
        server.settle(live);
        Ok(server)
    }

    fn command(words: &[String], plan: &Plan, live: &Live) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        let (endpoint, place, value) = if plan.is_unix {
            let path = scratch.path("stream");
            (Endpoint::Unix(path.clone()), "{path}", path.display().to_string())
        } else {
            let port = free_port().map_err(|cause| Error::os("cannot find a free port", cause))?;
            (Endpoint::Tcp { host: "127.0.0.1".into(), port }, "{port}", port.to_string())
        };
        let words: Vec<String> = words.iter().map(|word| word.replace(place, &value)).collect();
        let [program, args @ ..] = &words[..] else {
            return Err(Error::Usage("a command needs a program".into()));
        };
        let mut command = Command::new(program);
        command.args(args);
        let mut server = Self::launch(command, Some(scratch))?;
        server.wait(live, |_| accepts(&endpoint))?;
        server.stream = Some(Target::new(&endpoint, Reach::Loopback)?);
        server.settle(live);
        Ok(server)
    }

    fn running(endpoint: &Endpoint, pid: Option<u32>, reach: Reach, live: &Live) -> Result<Self, Error> {
        let target = Target::new(endpoint, reach)?;
        let tree = pid.map_or_else(Tree::unknown, |pid| Tree::new(pid, None, None));
        if let Some(pid) = pid.filter(|_| cfg!(target_os = "linux") && tree.count().is_none()) {
            return Err(Error::Unavailable(Failure::from(format!("there is no process {pid}"))));
        }
        if !endpoint.is_datagram() && !accepts(endpoint) {
            return Err(Error::Unavailable(Failure::from(format!(
                "no server accepts connections at {endpoint}"
            ))));
        }
        let (stream, datagrams) = match endpoint.is_datagram() {
            true => (None, Some(target)),
            false => (Some(target), None),
        };
        let log = Arc::new(Messages::default());
        let server = Self {
            program: None,
            log,
            tree,
            stream,
            datagrams,
            control: None,
            metrics: None,
            _scratch: None,
        };
        server.settle(live);
        Ok(server)
    }

    fn launch(mut command: Command, scratch: Option<Scratch>) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |cause| Error::from_io(format!("cannot start {name}"), cause);
        NOT_INHERITED.iter().for_each(|name| _ = command.env_remove(name));
        let (reader, writer) = forkd_sys::fd::pipe().map_err(failed)?;
        let output = writer.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(output).stderr(writer);
        let group = Group::new().ok();
        let doors = group.as_ref().map(Group::doors).transpose().map_err(failed)?;
        let adoption = if group.is_none() { Adoption::begin() } else { None };
        let program =
            Program::start_in(&mut command, Privileges::Keep, doors.unwrap_or_default()).map_err(failed)?;
        // with it go our copies of the pipe's end
        drop(command);
        let log = Arc::new(Messages::default());
        let book = Arc::clone(&log);
        std::thread::Builder::new().spawn(move || book.keep(File::from(reader))).map_err(failed)?;
        // dead or alive it is there, until it is waited for
        let orphans = adoption.and_then(|begun| Some(Orphans::of(Process::of(program.id())?, begun)));
        let tree = Tree::new(program.id(), group, orphans);
        let (stream, datagrams, control, metrics) = (None, None, None, None);
        Ok(Self { program: Some(program), log, tree, stream, datagrams, control, metrics, _scratch: scratch })
    }

    fn wait(&self, live: &Live, is_ready: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let until = Instant::now() + START;
        let why = loop {
            if let Some(why) = self.failure() {
                break why;
            }
            if is_ready(self) {
                return Ok(());
            }
            match () {
                () if live.is_stopped() => break "it was stopped before it was ready".into(),
                () if Instant::now() > until => {
                    let last = self.log.last_words();
                    break format!("it was not ready after {} s{last}", START.as_secs());
                }
                () => std::thread::sleep(LOOK),
            }
        };
        Err(Error::Unavailable(Failure::from(why)))
    }

    /// Waits until processes come and go no more: workers that start, and the child that served our first connection.
    fn settle(&self, live: &Live) {
        let until = Instant::now() + Duration::from_millis(500);
        let (mut before, mut alike) = (None, 0);
        while alike < 3 && Instant::now() < until && !live.is_stopped() {
            let now = self.tree.count();
            alike = if now == before { alike + 1 } else { 0 };
            before = now;
            std::thread::sleep(LOOK * 2);
        }
    }

    /// Returns where a phase finds it.
    pub(super) fn target(&self, phase: Phase) -> Option<&Target> {
        if phase == Phase::Datagrams { self.datagrams.as_ref() } else { self.stream.as_ref() }
    }

    /// Returns what it has counted itself, if it is a forkd of ours.
    pub(super) fn counters(&self, ask: Ask) -> Option<Counters> {
        ask(self.control.as_deref()?)
    }

    /// Returns how many connections it has served to their end, and how long these kept a child or worker, if it is asked
    /// to count that.
    pub(super) fn served(&self) -> Option<Served> {
        metrics::read(self.metrics.as_deref()?)
    }

    /// Tells how it ended, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        let status = self.program.as_ref()?.ended()?;
        let how = match (status.code(), status.signal()) {
            (Some(0), _) => "with status 0: it has to stay in the foreground".to_owned(),
            (Some(code), _) => format!("with status {code}"),
            (None, Some(signal)) => format!("by signal {signal}"),
            (None, None) => "somehow".to_owned(),
        };
        // its last lines may be on their way
        self.log.wait_for_the_end();
        Some(format!("it has ended {how}{}", self.log.last_words()))
    }

    /// Ends it, and whatever it has started.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(program) = self.program.take() else { return };
        let members = self.tree.members();
        program.signal(Signal::TERM);
        forkd_sys::fd::wait_readable(&program, STOP);
        // kills its process group
        drop(program);
        members.iter().filter_map(Process::alive).for_each(super::kill);
        // kills what is left in the control group, or has become our child
        self.tree = Tree::unknown();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// One that is free for TCP and UDP, at least until we have let it go.
fn free_port() -> std::io::Result<u16> {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

fn accepts(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(path) => accepts_unix(path),
        Endpoint::Tcp { host, port } => {
            let addresses = resolve(host, *port).unwrap_or_default();
            addresses.iter().any(|address| TcpStream::connect_timeout(address, KNOCK).is_ok())
        }
        Endpoint::Udp { .. } | Endpoint::Unixgram(_) | Endpoint::Systemd(_) => false,
    }
}

fn accepts_unix(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}
