//! The control socket, the answering side: `forkd status`, `reload`, `upgrade` and `pardon` ask, the master answers.
//!
//! A request is one line, the answer one JSON text and the end of file. Clients are served inside
//! the master's loop and never waited for: what can't be written at once is kept, and a client
//! that dawdles is dropped. A reload or an upgrade takes a while, and the client that asked for one gets the answer when it
//! is over; after an upgrade the new program has that client, and answers. Only the owner can connect (mode 0600).

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lines;
use super::status::{SourcesStatus, Status};
use crate::sys::socket::receive_with_descriptor;
use crate::{Error, Failure, log};
use forkd_net::unit;
use forkd_server::Endpoint;
use forkd_server::supervise::tell_of_seclusion;
use forkd_server::supervise::{BindOptions, bind_all};
use forkd_server::supervise::{Companion, Notice};
use forkd_server::supervise::{Inherited, Listener};
use forkd_server::supervise::{Rule, View};
use forkd_server::supervise::{SavedPart, SavedSocket, UpgradeRequest};

/// How long to take no client after accept(2) found no descriptor or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);
const MAX_CLIENTS: usize = 16;
const TIME_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: usize = 256;

/// By what names the next program finds the socket and its clients.
pub(crate) const CONTROL: &str = "control";
pub(crate) const UPGRADE_CLIENT: &str = "control client that waits for the upgrade";
pub(crate) const NEW_CLIENT: &str = "control client that has not asked yet";

/// The control socket and its clients.
#[derive(Debug)]
pub(crate) struct Control {
    listener: Listener,
    clients: Vec<Client>,
    rest_until: Option<Instant>,
    /// Why there are no metrics, though the configuration asks for them.
    metrics_error: Option<String>,
    /// The upgrade that goes on.
    upgrade: Option<Asked>,
}

/// Which upgrade a client asks for: when children of older programs are to end, and by which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Asked {
    finish_within: Option<Duration>,
    /// `None`: whatever is where the daemon's was; or it is not known.
    program: Option<[i128; 2]>,
}

impl Asked {
    /// The upgrade whose next program this one is. How long older children have is in force already, so it is not said again: a
    /// client that names a time asks for another upgrade.
    fn by_this_program() -> Self {
        // not opened: its user need not be allowed to read it
        let own = rustix::fs::stat("/proc/self/exe").ok();
        Self { finish_within: None, program: own.as_ref().map(identity) }
    }
}

/// Which file it is, in numbers that are wide enough on each system.
fn identity(file: &rustix::fs::Stat) -> [i128; 2] {
    [file.st_dev.into(), file.st_ino.into()]
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    /// What came with the request: the log file of the client that asks for a reload, or the program for an upgrade.
    file: Option<OwnedFd>,
    state: Talk,
    until: Instant,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Status,
    /// What is known of sources.
    Sources,
    /// To forget what those have done that fit a rule.
    Pardon(Rule),
    /// By a process of this run of a unit, as it says.
    Reload(Option<String>),
    /// After which children of older programs are ended, if after any time.
    Upgrade(Option<Duration>),
    /// Something else, and the answer to that.
    Unknown(String),
}

/// The answer to a request for a reload or an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The new configuration is in force.
    Reloaded,
    /// This program has replaced the one that was asked.
    Upgraded { version: String },
    /// The old one goes on.
    Refused {
        exit_code: u8,
        why: String,
        /// The [`unit::invocation`] of the daemon, which has logged why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        invocation: Option<String>,
    },
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Self {
        Self::Refused { exit_code: error.exit_code(), why: error.sentence(), invocation: unit::invocation() }
    }
}

impl Request {
    pub(crate) fn parse(line: &[u8]) -> Self {
        match String::from_utf8_lossy(line).trim() {
            "status" => Self::Status,
            "sources" => Self::Sources,
            "reload" => Self::Reload(None),
            "upgrade" => Self::Upgrade(None),
            other if other.starts_with("reload ") => Self::Reload(Some(other["reload ".len()..].to_owned())),
            other => Self::with_argument(other).unwrap_or_else(|| {
                Self::Unknown(refusal(&format!(
                    "unknown request {other:?}; known: status, sources, pardon SOURCE, reload, upgrade [MILLISECONDS]"
                )))
            }),
        }
    }
}

impl Request {
    fn with_argument(request: &str) -> Option<Self> {
        match request.split_once(' ')? {
            ("pardon", rule) => rule.parse().ok().map(Self::Pardon),
            ("upgrade", ms) => Some(Self::Upgrade(Some(Duration::from_millis(ms.parse().ok()?)))),
            _ => None,
        }
    }
}

fn refusal(why: &str) -> String {
    json!({ "error": why }).to_string()
}

/// How far the talk with a client has come.
#[derive(Debug, PartialEq, Eq)]
enum Talk {
    /// Its request is not complete.
    Asking,
    /// It has asked for a reload, which has not begun.
    WantsReload,
    /// The reload that it has asked for goes on.
    AwaitsReload,
    /// It has asked for an upgrade, which has not begun.
    WantsUpgrade(Option<Duration>),
    /// The upgrade that it has asked for goes on.
    AwaitsUpgrade,
    /// What is still to be written.
    Answering(Vec<u8>),
}

impl Talk {
    fn answering(answer: &impl Serialize) -> Self {
        Self::Answering(serde_json::to_vec(answer).unwrap_or_default())
    }
}

impl Control {
    /// Binds the socket, mode 0600.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let options = BindOptions { backlog: 64, socket_mode: Some(0o600), ..BindOptions::default() };
        let cannot =
            |why: &str| Error::CannotCreate(Failure::from(format!("cannot make the control socket: {why}")));
        let path = std::path::absolute(path).map_err(|e| cannot(&e.to_string()))?;
        let listener = bind_all(&Endpoint::Unix(path), options, &[], &Inherited::default())?
            .pop()
            .ok_or_else(|| cannot("nothing was bound"))?;
        listener.set_nonblocking(true).map_err(|e| cannot(&e.to_string()))?;
        tell_of_seclusion(listener.endpoint());
        Ok(Self { listener, clients: Vec::new(), rest_until: None, metrics_error: None, upgrade: None })
    }

    /// Goes on with what the program before this one has left: its socket, the clients that wait for the upgrade, and those
    /// that have asked for nothing yet.
    pub(crate) fn restore(listener: Listener, waiting: Vec<OwnedFd>, new: Vec<OwnedFd>) -> Self {
        let until = Instant::now() + TIME_LIMIT;
        let client = |stream: OwnedFd, state| Client {
            stream: stream.into(),
            request: Vec::new(),
            file: None,
            state,
            until,
        };
        let waiting = waiting.into_iter().map(|stream| client(stream, Talk::AwaitsUpgrade));
        let new = new.into_iter().map(|stream| client(stream, Talk::Asking));
        let clients = waiting.chain(new).collect();
        Self {
            listener,
            clients,
            rest_until: None,
            metrics_error: None,
            upgrade: Some(Asked::by_this_program()),
        }
    }

    /// Has the status say why there are no metrics.
    pub(crate) fn without_metrics(self, why: Option<String>) -> Self {
        Self { metrics_error: why, ..self }
    }

    /// Whether there is room for another client.
    fn wants_clients(&self, now: Instant) -> bool {
        self.talks() < MAX_CLIENTS && self.rest_until.is_none_or(|then| then <= now)
    }

    /// How many clients there are, without those that wait for us.
    fn talks(&self) -> usize {
        self.clients.iter().filter(|client| !client.waits()).count()
    }

    /// Takes new clients.
    fn accept(&mut self, view: View<'_>) {
        while self.talks() < MAX_CLIENTS {
            let socket = match self.listener.accept_now(&self.listener) {
                Ok((socket, _)) => socket,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(error) => {
                    lines::control_failed(&error);
                    self.rest_until = Some(view.now() + ACCEPT_REST);
                    return;
                }
            };
            let stream = UnixStream::from(socket);
            if stream.set_nonblocking(true).is_ok() {
                view.keep_from_children(stream.as_raw_fd());
                self.clients.push(Client {
                    stream,
                    request: Vec::new(),
                    file: None,
                    state: Talk::Asking,
                    until: view.now() + TIME_LIMIT,
                });
            }
        }
    }

    /// An upgrade goes on: those that ask for the same wait with it, the others have to ask again.
    fn share(&mut self, upgrade: Asked) {
        for client in &mut self.clients {
            match client.asked_upgrade() {
                Some(asked) if asked == upgrade => client.state = Talk::AwaitsUpgrade,
                Some(_) => {
                    client.state = Talk::answering(&Answer::Refused {
                        exit_code: 69,
                        why: "another upgrade goes on; ask again when it is over".into(),
                        invocation: unit::invocation(),
                    });
                }
                None => {}
            }
        }
    }

    /// Reads and writes as far as that goes.
    fn serve(&mut self, view: View<'_>) {
        if self.clients.is_empty() {
            return;
        }
        let mut waiting = self.clients.len() - self.talks();
        for client in &mut self.clients {
            if client.state == Talk::Asking && client.read_request() {
                client.file.iter().for_each(|file| view.keep_from_children(file.as_raw_fd()));
                client.state = match Request::parse(&client.request) {
                    Request::Status => Talk::answering(&Status::of(view, self.metrics_error.clone())),
                    Request::Sources => Talk::answering(&SourcesStatus::of(view)),
                    Request::Pardon(rule) => {
                        let pardoned = SourcesStatus::pardoned(rule, view);
                        if !pardoned.is_empty() {
                            lines::pardoned(rule);
                        }
                        Talk::answering(&pardoned)
                    }
                    Request::Reload(invocation) if waiting < MAX_CLIENTS => {
                        if let Some(file) = &client.file
                            && invocation.is_some()
                            && invocation == unit::invocation()
                        {
                            log::go_on_in(file);
                        }
                        waiting += 1;
                        Talk::WantsReload
                    }
                    Request::Upgrade(finish_within) if waiting < MAX_CLIENTS => {
                        waiting += 1;
                        Talk::WantsUpgrade(finish_within)
                    }
                    Request::Reload(_) | Request::Upgrade(_) => Talk::Answering(
                        refusal("too many wait for a reload or an upgrade already").into_bytes(),
                    ),
                    Request::Unknown(answer) => Talk::Answering(answer.into_bytes()),
                };
            }
        }
        self.upgrade.into_iter().for_each(|upgrade| self.share(upgrade));
        self.clients.iter_mut().for_each(Client::write_answer);
        let now = view.now();
        let gone = |client: &mut Client| {
            let is_late = !client.waits() && now >= client.until;
            client.state == Talk::Answering(Vec::new()) || is_late || client.has_hung_up()
        };
        for client in self.clients.extract_if(.., gone) {
            let file = client.file.as_ref().map(AsRawFd::as_raw_fd);
            file.into_iter().chain([client.stream.as_raw_fd()]).for_each(|fd| view.forget(fd));
        }
    }
}

/// The number of its own socket among those that it waits for; clients have others.
const LISTENER: usize = 0;

impl Companion for Control {
    fn descriptors(&self) -> Vec<RawFd> {
        let clients = self.clients.iter().map(|client| client.stream.as_raw_fd());
        clients.chain([self.listener.as_raw_fd()]).collect()
    }

    fn may_be_left(&self) -> bool {
        let has_begun = |client: &Client| match &client.state {
            Talk::Asking => !client.request.is_empty(),
            Talk::Answering(rest) => !rest.is_empty(),
            _ => false,
        };
        !self.clients.iter().any(has_begun)
    }

    fn save(&self) -> Vec<SavedPart> {
        let name = |client: &Client| match client.state {
            Talk::AwaitsUpgrade => Some(UPGRADE_CLIENT),
            Talk::Asking if client.request.is_empty() => Some(NEW_CLIENT),
            _ => None,
        };
        let part = |client: &Client| Some(SavedPart::of(name(client)?, SavedSocket::open(&client.stream)));
        self.clients.iter().filter_map(part).chain([SavedPart::of(CONTROL, self.listener.save())]).collect()
    }

    fn watch<'a>(&'a self, now: Instant, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, usize)) {
        if self.wants_clients(now) {
            add(self.listener.as_fd(), PollFlags::POLLIN, LISTENER);
        }
        for client in &self.clients {
            add(client.stream.as_fd(), client.flags(), LISTENER + 1);
        }
    }

    fn deadline(&self, view: View<'_>) -> Option<Instant> {
        let rest = self.rest_until.filter(|&then| then > view.now());
        let slow = self.clients.iter().filter(|client| !client.waits());
        slow.map(|client| client.until).chain(rest).min()
    }

    fn on_ready(&mut self, number: usize, view: View<'_>) {
        // all clients are served when the loop has turned
        if number == LISTENER {
            self.accept(view);
        }
    }

    fn turn(&mut self, view: View<'_>) {
        self.serve(view);
    }

    fn takes_reload(&mut self) -> bool {
        let mut wanted = false;
        for client in self.clients.iter_mut().filter(|client| client.state == Talk::WantsReload) {
            client.state = Talk::AwaitsReload;
            wanted = true;
        }
        wanted
    }

    fn takes_upgrade(&mut self) -> Option<UpgradeRequest> {
        let (client, asked) =
            self.clients.iter_mut().find_map(|client| client.asked_upgrade().map(|asked| (client, asked)))?;
        client.state = Talk::AwaitsUpgrade;
        // its owner hides it from children
        let program = client.file.take();
        self.upgrade = Some(asked);
        self.share(asked);
        Some(UpgradeRequest { finish_within: asked.finish_within, program })
    }

    fn told(&mut self, notice: Notice<'_>, view: View<'_>) {
        let (answer, awaited) = match notice {
            Notice::ReloadEnded(result) => {
                (result.map_or_else(Answer::from, |()| Answer::Reloaded), Talk::AwaitsReload)
            }
            Notice::Upgrading => {
                let upgrade = *self.upgrade.get_or_insert_default();
                return self.share(upgrade);
            }
            Notice::UpgradeEnded(result) => {
                self.upgrade = None;
                let upgraded = |()| Answer::Upgraded { version: env!("CARGO_PKG_VERSION").to_owned() };
                (result.map_or_else(Answer::from, upgraded), Talk::AwaitsUpgrade)
            }
            _ => return,
        };
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        for client in self.clients.iter_mut().filter(|client| client.state == awaited) {
            client.state = Talk::Answering(answer.clone());
            client.until = view.now() + TIME_LIMIT;
            client.write_answer();
        }
    }
}

impl Client {
    /// Whether it is us that it waits for.
    fn waits(&self) -> bool {
        matches!(
            self.state,
            Talk::WantsReload | Talk::AwaitsReload | Talk::WantsUpgrade(_) | Talk::AwaitsUpgrade
        )
    }

    fn flags(&self) -> PollFlags {
        match self.state {
            Talk::Asking => PollFlags::POLLIN,
            Talk::Answering(_) => PollFlags::POLLOUT,
            // only the end is reported, unasked
            Talk::WantsReload | Talk::AwaitsReload | Talk::WantsUpgrade(_) | Talk::AwaitsUpgrade => {
                PollFlags::empty()
            }
        }
    }

    /// Whether it waits for us no more.
    fn has_hung_up(&self) -> bool {
        self.waits()
            && poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::empty())], PollTimeout::ZERO) == Ok(1)
    }

    /// The upgrade that it has asked for, and that has not begun.
    fn asked_upgrade(&self) -> Option<Asked> {
        let Talk::WantsUpgrade(finish_within) = self.state else { return None };
        let program = self.file.as_ref().and_then(|file| rustix::fs::fstat(file).ok());
        Some(Asked { finish_within, program: program.as_ref().map(identity) })
    }

    /// Tells whether the request is complete.
    fn read_request(&mut self) -> bool {
        let mut chunk = [0; LONGEST_REQUEST];
        match self.receive(&mut chunk) {
            Ok(n) => {
                self.request.extend_from_slice(&chunk[..n]);
                n == 0 || chunk[..n].contains(&b'\n') || self.request.len() >= LONGEST_REQUEST
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                lines::control_failed(&error);
                true
            }
        }
    }

    /// Reads, and keeps a descriptor that comes with it.
    fn receive(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let (length, file) = receive_with_descriptor(&self.stream, chunk, RecvFlags::empty())?;
        self.file = file.or(self.file.take());
        Ok(length)
    }

    fn write_answer(&mut self) {
        let Talk::Answering(answer) = &mut self.state else { return };
        match self.stream.write(answer) {
            Ok(n) => _ = answer.drain(..n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                lines::control_failed(&error);
                answer.clear();
            }
        }
    }
}
