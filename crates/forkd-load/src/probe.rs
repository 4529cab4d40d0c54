//! One client, which asks a server once for a sign of life.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, read};
use rustix::net::send;

use super::client::Client;
use super::fault::Fault;
use super::message::{Messages, STAMPED};
use super::target::{TICK, Target, Unconnected};
use forkd_sys::socket::{Mode, NO_SIGNAL};

/// What a server has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// Send back a line.
    Echo,
    /// Listen: the kernel makes the connection, also for a server that is busy.
    Connection,
    /// Answer `GET` by HTTP with a status of 200 to 299.
    Http {
        /// What the field Host says.
        host: String,
        /// What is asked for, from its `/` on.
        path: String,
    },
}

/// Why there was no such sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// No answer, or a wrong one.
    Fault(Fault),
    /// An answer by HTTP that says no, such as `503 Service Unavailable`.
    Status(String),
}

impl From<Fault> for Absent {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The most bytes of an answer that are looked through for the end of its first line.
const MOST: usize = 4096;

/// Connects to a server, and waits for its sign; a datagram is sent once.
///
/// # Errors
///
/// Says why there is none within `timeout`.
///
/// # Fork safety
///
/// Starts no thread; the socket is close-on-exec.
pub fn probe(target: &Target, sign: &Sign, timeout: Duration) -> Result<(), Absent> {
    let deadline = Instant::now() + timeout;
    let socket = connected(target, deadline)?;
    match sign {
        Sign::Echo => echoed(target, socket, deadline).map_err(Absent::from),
        // it waits until the connection is made, and sends nothing
        Sign::Connection => Ok(send_all(&socket, b"", deadline)?),
        Sign::Http { host, path } => {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            send_all(&socket, request.as_bytes(), deadline)?;
            answered(&first_line(&socket, deadline)?)
        }
    }
}

/// Of a Unix socket whose queue is full one can't wait for it.
fn connected(target: &Target, deadline: Instant) -> Result<OwnedFd, Fault> {
    loop {
        match target.connect(Mode::Blocking, 0) {
            Ok(socket) => return Ok(socket),
            Err(Unconnected::Failed(fault)) => return Err(fault),
            Err(Unconnected::Full) => std::thread::sleep(left(deadline)?.min(TICK)),
        }
    }
}

fn echoed(target: &Target, socket: OwnedFd, deadline: Instant) -> Result<(), Fault> {
    let messages = Messages::new(1, 2 * STAMPED);
    let (size, message) = (messages.size(), messages.message(0, u64::from(std::process::id())));
    // a byte more, so that a server's surplus is noticed
    let (mut input, mut output) = (vec![0; size + 1], vec![0; size]);
    target.no_delay(&socket);
    let mut client = Client::default();
    client.socket = Some(socket);
    client.begin(0, 0, false);
    loop {
        client.push(&message, size, &mut output)?;
        if client.pull(&message, size, &mut input)? {
            return Ok(());
        }
        left(deadline)?;
    }
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
    loop {
        match send(socket, bytes, NO_SIGNAL) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN | Errno::INTR) => _ = left(deadline)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn first_line(socket: &OwnedFd, deadline: Instant) -> Result<Vec<u8>, Fault> {
    let (mut answer, mut piece) = (Vec::new(), [0; 512]);
    while answer.len() < MOST {
        match read(socket, &mut piece) {
            Ok(0) => return Err(Fault::ClosedEarly),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(end) = answer.iter().position(|byte| *byte == b'\n') {
            answer.truncate(end);
            return Ok(answer.trim_ascii_end().to_vec());
        }
        left(deadline)?;
    }
    Err(Fault::WrongBytes)
}

/// Reads a status line: RFC 9112, section 4.
fn answered(line: &[u8]) -> Result<(), Absent> {
    let line = str::from_utf8(line).ok().and_then(|line| line.strip_prefix("HTTP/1.")?.split_once(' '));
    let Some((_, status)) = line else { return Err(Fault::WrongBytes.into()) };
    let code = status.split(' ').next().filter(|code| code.len() == 3);
    match code.and_then(|code| code.parse().ok()) {
        Some(200..=299u16) => Ok(()),
        Some(_) => Err(Absent::Status(status.to_owned())),
        None => Err(Fault::WrongBytes.into()),
    }
}

/// How much time is left, if there is any.
fn left(deadline: Instant) -> Result<Duration, Fault> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Fault::TimedOut) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_says_yes_or_no_or_nothing() {
        for line in ["HTTP/1.1 200 OK", "HTTP/1.0 204 ", "HTTP/1.1 299"] {
            assert_eq!(answered(line.as_bytes()), Ok(()), "{line}");
        }
        for (line, status) in
            [("HTTP/1.1 503 Service Unavailable", "503 Service Unavailable"), ("HTTP/1.1 301 ", "301 ")]
        {
            assert_eq!(answered(line.as_bytes()), Err(Absent::Status(status.into())), "{line}");
        }
        for line in ["", "hello", "HTTP/1.1", "HTTP/2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 ok", "\u{e9}"] {
            assert_eq!(answered(line.as_bytes()), Err(Fault::WrongBytes.into()), "{line}");
        }
        assert_eq!(answered(b"HTTP/1.1 200 \xff"), Err(Fault::WrongBytes.into()));
    }
}
