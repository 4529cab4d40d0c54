//! A forkd that is looked at: started, found ready, asked for its children, and gone when it is dropped.

use std::fs::{self, File};
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkd_compare::{Scratch, not_inherited};
use forkd_load::Live;
use forkd_net::Error;
use forkd_sys::program::{Privileges, Program};
use serde::Deserialize;

use crate::lab::{Experiment, cannot, missing};

/// How long one may take to accept, and to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether the experiment has been ended.
const LOOK: Duration = Duration::from_millis(50);

/// A forkd with one endpoint.
#[derive(Debug)]
pub(crate) struct Daemon {
    // it goes before its files
    _program: Program,
    pub(crate) address: SocketAddr,
    control: PathBuf,
    live: Arc<Live>,
    _scratch: Scratch,
}

/// What is known of a child.
#[derive(Debug, Deserialize)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    /// How many clients it serves.
    #[serde(default)]
    pub(crate) serving: u32,
}

#[derive(Debug, Deserialize)]
struct Status {
    children: Vec<Child>,
}

/// The command for a forkd, whatever the environment says.
pub(crate) fn command(forkd: &Path) -> Command {
    let mut command = Command::new(forkd);
    not_inherited().for_each(|name| _ = command.env_remove(name));
    command
}

impl Daemon {
    /// Starts one at a free port of this machine, with such options.
    pub(crate) fn start(
        experiment: &Experiment<'_>,
        options: &[&str],
        endpoint: &str,
    ) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        let (control, log) = (scratch.path("control"), scratch.path("log"));
        let mut output = File::create(&log).map_err(cannot("create the log of a forkd"))?;
        // where there is no room, what it says would be lost
        output.write_all(b"\n").map_err(cannot("write the log of a forkd"))?;
        let mut command = command(experiment.forkd);
        command.arg("serve").args(options).arg("--control").arg(&control);
        command.args(["--log", "stderr", "--log-level", "info", "--grace", "1s", endpoint]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let program = Program::start(&mut command, Privileges::Keep).map_err(cannot("start a forkd"))?;
        let mut found = None;
        experiment.until("a forkd is ready", || {
            // it may end as soon as it has been looked at
            let has_ended = program.ended().is_some();
            let text = fs::read_to_string(&log).unwrap_or_default();
            found = listens_at(&text).filter(|_| text.contains("ready pid="));
            match found {
                None if has_ended => Err(missing(format!("a forkd could not start: {}", last_words(&text)))),
                found => Ok(found.is_some()),
            }
        })?;
        let address = found.ok_or_else(|| Error::Internal("a forkd is ready and listens nowhere".into()))?;
        let live = Arc::clone(&experiment.live);
        Ok(Self { _program: program, address, control, live, _scratch: scratch })
    }

    /// Its children, as it says.
    pub(crate) fn children(&self) -> Result<Vec<Child>, Error> {
        let ask = || -> std::io::Result<Vec<u8>> {
            let mut stream = UnixStream::connect(&self.control)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(b"status\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(cannot("ask a forkd how it is"))?;
        let status: Status = serde_json::from_slice(&answer)
            .map_err(|error| Error::Internal(format!("a forkd has answered what makes no sense: {error}")))?;
        Ok(status.children)
    }

    /// A client that has connected.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        let stream =
            TcpStream::connect_timeout(&self.address, LIMIT).map_err(cannot("connect to a forkd"))?;
        stream.set_nodelay(true).map_err(cannot("set an option of a socket"))?;
        Ok(Client { stream, live: Arc::clone(&self.live) })
    }
}

/// The last line of a log, without the name of who wrote it.
pub(crate) fn last_words(log: &str) -> &str {
    let last = log.lines().rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
    ["forkd: ", "error: "].iter().fold(last, |text, name| text.strip_prefix(name).unwrap_or(text))
}

/// The address in a line of a log.
fn listens_at(log: &str) -> Option<SocketAddr> {
    let endpoint = log.split_once("listening on ")?.1.split_whitespace().next()?;
    endpoint.split_once("://")?.1.parse().ok()
}

/// What came of a line that a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// It has come back, after this time.
    After(Duration),
    /// Nothing has come yet.
    None,
    /// The connection has ended.
    Lost,
}

impl Echo {
    /// How long it took.
    pub(crate) fn time(self) -> Option<Duration> {
        if let Self::After(time) = self { Some(time) } else { None }
    }
}

/// What clients send.
const LINE: &[u8; 6] = b"hello\n";

/// A client of an echo server.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    live: Arc<Live>,
}

impl Client {
    /// Sends a line and waits for it.
    pub(crate) fn echo(&mut self, limit: Duration) -> Echo {
        let began = Instant::now();
        match self.stream.write_all(LINE) {
            Ok(()) => self.wait_since(began, limit),
            Err(_) => Echo::Lost,
        }
    }

    /// Waits for a line that has been sent.
    pub(crate) fn wait(&mut self, limit: Duration) -> Echo {
        self.wait_since(Instant::now(), limit)
    }

    fn wait_since(&mut self, began: Instant, limit: Duration) -> Echo {
        let (mut answer, mut length) = ([0; LINE.len()], 0);
        if self.stream.set_read_timeout(Some(LOOK)).is_err() {
            return Echo::Lost;
        }
        while length < LINE.len() {
            match self.stream.read(&mut answer[length..]) {
                Ok(0) => return Echo::Lost,
                Ok(n) => length += n,
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {
                    if began.elapsed() > limit || self.live.is_stopped() {
                        return Echo::None;
                    }
                }
                Err(_) => return Echo::Lost,
            }
        }
        if answer == *LINE { Echo::After(began.elapsed()) } else { Echo::Lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_log() {
        let log = "forkd: a\nforkd: listening on tcp://127.0.0.1:4711 service=echo\nforkd: ready pid=1\n";
        assert_eq!(listens_at(log), "127.0.0.1:4711".parse().ok());
        assert_eq!(listens_at("forkd: listening on unix:///run/x"), None);
        assert_eq!(listens_at(""), None);
        assert_eq!(last_words("\nforkd: error: cannot fork\n\n"), "cannot fork");
        assert_eq!(last_words("\n"), "it said nothing");
    }
}
