//! The control socket, the asking side.
//!
//! Invariant: whatever is at the other end, and whatever it sends or leaves undone, it takes no more time and
//! memory than this. A daemon that is stopped lets clients queue until the kernel lets no more connect.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, sendmsg,
};

use crate::foreign;
use crate::sys::socket::{Mode, socket};

/// More than a status has of as many children as there can be.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A connection to a daemon, which answers once.
#[derive(Debug)]
pub(crate) struct Question {
    stream: UnixStream,
    patience: Duration,
    until: Instant,
}

impl Question {
    /// Connects to a control socket; from here on all of it takes as long as `patience` lets it.
    ///
    /// # Errors
    ///
    /// Those of connect(2); `TimedOut` if as many as it lets in are there already.
    pub(crate) fn at(path: &Path, patience: Duration) -> io::Result<Self> {
        let until = Instant::now() + patience;
        // by hand, as connect(2) waits where the queue is full, and std's can't be told how long
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, Mode::Blocking)?;
        let address = SocketAddrUnix::new(path)?;
        loop {
            set_socket_timeout(&socket, Timeout::Send, Some(left(until).map_err(|e| late(e, patience))?))?;
            match rustix::net::connect(&socket, &address) {
                // with a time-out, no call is begun again after a signal: signal(7)
                Err(Errno::INTR) => {}
                result => {
                    result.map_err(|error| late(error.into(), patience))?;
                    return Ok(Self { stream: socket.into(), patience, until });
                }
            }
        }
    }

    /// Sends a request, with a descriptor if one is given, and reads the whole answer.
    ///
    /// # Errors
    ///
    /// Those of reading and writing; `TimedOut` if it is not there in time, `FileTooLarge` if it is longer than
    /// any, `InvalidData` if it is not UTF-8.
    pub(crate) fn ask(self, request: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<String> {
        let patience = self.patience;
        let asked = self.send(format!("{request}\n").as_bytes(), descriptor);
        let answer =
            asked.and_then(|()| foreign::read(self, LONGEST_ANSWER)).map_err(|e| late(e, patience))?;
        String::from_utf8(answer).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
    }

    fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        // the descriptor goes with the first byte
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?;
        (&self.stream).write_all(&bytes[sent..])
    }
}

/// Reads what is there before the time is up.
impl Read for Question {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(buffer)
    }
}

/// How long there is until then; what the kernel says of a time-out if that is over.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::WouldBlock.into()) } else { Ok(left) }
}

/// What the kernel says when a time-out is over ("resource temporarily unavailable") is no help.
fn late(error: io::Error, patience: Duration) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => {
            let patience = humantime::format_duration(patience);
            io::Error::new(ErrorKind::TimedOut, format!("no whole answer within {patience}"))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const SHORT: Duration = Duration::from_millis(200);

    fn ask(path: &Path) -> io::Result<String> {
        Question::at(path, SHORT)?.ask("status", None)
    }

    #[test]
    fn a_daemon_that_never_answers_or_never_ends_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let why = ask(&path).unwrap_err();
        assert_eq!((why.kind(), &*why.to_string()), (ErrorKind::TimedOut, "no whole answer within 200ms"));
        // the one before is queued still
        let _ = listener.accept().unwrap();
        // a byte now and then
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().unwrap();
                while client.write_all(b" ").is_ok() {
                    std::thread::sleep(SHORT / 10);
                }
            });
            assert_eq!(ask(&path).unwrap_err().kind(), ErrorKind::TimedOut);
        });
        // more than any daemon has to say
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().unwrap();
                while client.write_all(&[b' '; 1 << 16]).is_ok() {}
            });
            let why = Question::at(&path, SHORT * 100).unwrap().ask("status", None).unwrap_err();
            assert_eq!(why.kind(), ErrorKind::FileTooLarge);
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().unwrap();
                client.read_exact(&mut [0; 7]).unwrap();
                client.write_all(b"\xff").unwrap();
            });
            assert_eq!(ask(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        });
    }

    #[test]
    fn a_queue_that_is_full_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        // Linux lets one more in than that
        let tries: Vec<_> = (0..3).map(|_| Question::at(&path, SHORT)).collect();
        let why = tries.into_iter().find_map(Result::err).unwrap();
        assert!(matches!(why.kind(), ErrorKind::TimedOut | ErrorKind::ConnectionRefused), "{why}");
    }
}
