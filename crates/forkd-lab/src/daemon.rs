//! A forkd that is looked at: started, found ready, asked for its children, and gone when it is dropped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forkd_compare::{Scratch, not_inherited};
use forkd_net::{Error, Failure};
use forkd_sys::program::{Privileges, Program};
use serde::Deserialize;

use crate::lab::cannot;

/// How long one may take until it is ready, and to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(5);

/// A forkd with one endpoint.
#[derive(Debug)]
pub(crate) struct Daemon {
    // it goes before its files
    _program: Program,
    pub(crate) address: SocketAddr,
    control: PathBuf,
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
    pub(crate) fn start(forkd: &Path, options: &[&str], endpoint: &str) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        let (control, log) = (scratch.path("control"), scratch.path("log"));
        let output = File::create(&log).map_err(cannot("create the log of a forkd"))?;
        let mut command = command(forkd);
        command.arg("serve").args(options).arg("--control").arg(&control);
        command.args(["--log", "stderr", "--log-level", "info", "--grace", "1s", endpoint]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let program = Program::start(&mut command, Privileges::Keep).map_err(cannot("start a forkd"))?;
        let until = Instant::now() + LIMIT;
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("ready pid=")
                && let Some(address) = listens_at(&text)
            {
                return Ok(Self { _program: program, address, control, _scratch: scratch });
            }
            if program.ended().is_some() || Instant::now() > until {
                let last = text.lines().last().unwrap_or("it said nothing");
                return Err(Error::Unavailable(Failure::from(format!("forkd did not become ready: {last}"))));
            }
            std::thread::sleep(LOOK);
        }
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
        Ok(Client { stream })
    }
}

/// The address in a line of a log.
fn listens_at(log: &str) -> Option<SocketAddr> {
    let endpoint = log.split_once("listening on ")?.1.split_whitespace().next()?;
    endpoint.split_once("://")?.1.parse().ok()
}

/// A client of an echo server.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// Sends a line and waits for it; tells how long that took, or `None` if it did not come within `limit`.
    pub(crate) fn echo(&mut self, limit: Duration) -> Option<Duration> {
        let began = Instant::now();
        let mut answer = [0; 6];
        self.stream.set_read_timeout(Some(limit)).ok()?;
        self.stream.write_all(b"hello\n").ok()?;
        self.stream.read_exact(&mut answer).ok()?;
        (answer == *b"hello\n").then(|| began.elapsed())
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
    }
}
