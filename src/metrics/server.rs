//! The loop that answers scrapers: one thread, which waits for none of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Metrics;
use crate::sys::fd::set_nonblocking;
use forkd_server::Reply;
use forkd_server::supervise::Dialogue;
use forkd_server::supervise::Listener;

/// How many scrapers there may be at once.
const MOST: usize = 16;
/// A scraper that has been here for so long makes room for another, if there is none: a request comes with the connection,
const REQUEST_TIMEOUT: Duration = Duration::from_millis(100);
/// and an answer may be long, and the way too.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a scraper may take for all of it.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How much is read at once.
const CHUNK: usize = 8192;
/// The pause after accept(2) has found no descriptor or no memory.
const REST: Duration = Duration::from_millis(100);

/// Answers until the shutdown descriptor becomes readable, or hangs up, and then those that are here.
pub(crate) fn serve(shutdown: BorrowedFd<'_>, listeners: &[Listener], mut metrics: Metrics) {
    let mut scrapers: Vec<Scraper> = Vec::with_capacity(MOST);
    let mut rest_until = None;
    loop {
        let is_leaving = is_ready(shutdown);
        let now = Instant::now();
        rest_until = rest_until.or_else(|| room_at(&scrapers)).filter(|&then| then > now);
        if !is_leaving && rest_until.is_none() && !accept(listeners, &mut scrapers, now) {
            rest_until = Some(now + REST);
        }
        scrapers.retain_mut(|scraper| scraper.go_on(&mut metrics) && now < scraper.since + TIME_LIMIT);
        if is_leaving && scrapers.is_empty() {
            return;
        }
        rest_until = rest_until.or_else(|| room_at(&scrapers));
        let open = if is_leaving || rest_until.is_some() { &[][..] } else { listeners };
        wait((!is_leaving).then_some(shutdown), open, &scrapers, rest_until);
    }
}

/// If there is no room for another scraper: which one makes room first, and when.
fn next_to_go(scrapers: &[Scraper]) -> Option<(usize, Instant)> {
    let goes = |(at, scraper): (usize, &Scraper)| (at, scraper.since + scraper.patience());
    let all = scrapers.iter().enumerate().filter(|_| scrapers.len() >= MOST);
    all.map(goes).min_by_key(|(_, then)| *then)
}

/// If there is no room for another scraper: when there will be.
fn room_at(scrapers: &[Scraper]) -> Option<Instant> {
    next_to_go(scrapers).map(|(_, then)| then)
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

/// Waits until a scraper comes, or goes on, or it is time to do something about them.
fn wait(
    shutdown: Option<BorrowedFd<'_>>,
    open: &[Listener],
    scrapers: &[Scraper],
    rest_until: Option<Instant>,
) {
    let come = shutdown.into_iter().chain(open.iter().map(AsFd::as_fd));
    let mut fds: Vec<PollFd<'_>> = come.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    fds.extend(scrapers.iter().map(|scraper| PollFd::new(scraper.stream.as_fd(), scraper.flags())));
    let next = scrapers.iter().map(|scraper| scraper.since + TIME_LIMIT).chain(rest_until).min();
    let limit = next.map_or(PollTimeout::NONE, |then| {
        // rounded up, or the last millisecond would be spent in turning round
        let left = then.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    // what a signal has interrupted is looked at again
    let _ = poll(&mut fds, limit);
}

/// Takes those that wait, as far as there is room; tells whether this process can have more.
fn accept(listeners: &[Listener], scrapers: &mut Vec<Scraper>, now: Instant) -> bool {
    use rustix::io::Errno;
    for listener in listeners {
        while room_at(scrapers).is_none_or(|then| then <= now) {
            match listener.accept_now(listener) {
                Ok((socket, _)) => {
                    if let Some((at, _)) = next_to_go(scrapers) {
                        scrapers.swap_remove(at);
                    }
                    // a socket is a socket: nothing here is of Unix or of TCP
                    let stream = UnixStream::from(socket);
                    if set_nonblocking(&stream, true).is_ok() {
                        let dialogue = Dialogue::of_one_request();
                        scrapers.push(Scraper { stream, dialogue, talk: Talk::Asking, since: now });
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return false,
                // it listens no more: the daemon ends
                Err(Errno::INVAL) => return false,
                Err(_) => {}
            }
        }
    }
    true
}

/// A client that asks for metrics.
#[derive(Debug)]
struct Scraper {
    stream: UnixStream,
    dialogue: Dialogue,
    talk: Talk,
    since: Instant,
}

/// How far the talk with a scraper has come.
#[derive(Debug)]
enum Talk {
    /// Its request is not complete.
    Asking,
    /// What is still to be written, from `at` on, and whether that is the end.
    Answering { bytes: Vec<u8>, at: usize, is_last: bool },
    /// It has the answer; what it still sends is thrown away, for a close with bytes unread is a reset
    /// that may overtake the answer.
    Ending,
}

impl Scraper {
    /// For how long others wait for it.
    fn patience(&self) -> Duration {
        match self.talk {
            Talk::Asking | Talk::Ending => REQUEST_TIMEOUT,
            Talk::Answering { .. } => ANSWER_TIMEOUT,
        }
    }

    fn flags(&self) -> PollFlags {
        match self.talk {
            Talk::Answering { .. } => PollFlags::POLLOUT,
            Talk::Asking | Talk::Ending => PollFlags::POLLIN,
        }
    }

    /// Reads and writes as far as that goes; tells whether there is more to come.
    fn go_on(&mut self, metrics: &mut Metrics) -> bool {
        loop {
            match self.step(metrics) {
                // what it sends then may go on for as long as it likes: once in a turn
                Ok(true) if !matches!(self.talk, Talk::Ending) => {}
                Ok(goes_on) => return goes_on,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // anything else says that it has gone
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn step(&mut self, metrics: &mut Metrics) -> io::Result<bool> {
        match &mut self.talk {
            Talk::Asking => {
                let mut chunk = [0; CHUNK];
                let n = self.stream.read(&mut chunk)?;
                let reply = match &chunk[..n] {
                    [] => self.dialogue.ended(metrics),
                    chunk => self.dialogue.received(metrics, chunk),
                };
                let (bytes, is_last) = match reply {
                    Reply::Send(bytes) | Reply::More(bytes) => (bytes.to_vec(), false),
                    Reply::Finish(bytes) => (bytes.to_vec(), true),
                    Reply::Wait | Reply::File(_) => return Ok(true),
                };
                self.talk = Talk::Answering { bytes, at: 0, is_last };
            }
            Talk::Answering { bytes, at, is_last } => {
                if *at < bytes.len() {
                    *at += self.stream.write(&bytes[*at..])?;
                } else if *is_last {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.talk = Talk::Ending;
                } else {
                    self.talk = Talk::Asking;
                }
            }
            Talk::Ending => return Ok(self.stream.read(&mut [0; 1024])? > 0),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_asked_goes_before_who_is_being_answered() {
        let now = Instant::now();
        let scraper = |talk: Talk, millis: u64| {
            let (stream, _) = UnixStream::pair().unwrap();
            let dialogue = Dialogue::of_one_request();
            Scraper { stream, dialogue, talk, since: now + Duration::from_millis(millis) }
        };
        let answering = || Talk::Answering { bytes: Vec::new(), at: 0, is_last: true };
        let mut scrapers = vec![scraper(answering(), 0)];
        scrapers.extend((1..MOST as u64 - 1).map(|at| scraper(Talk::Asking, 100 - at)));
        assert_eq!(next_to_go(&scrapers), None, "there is room");
        scrapers.push(scraper(Talk::Ending, 900));
        // the one that has been there for the longest time, of those
        let next = next_to_go(&scrapers).unwrap();
        assert_eq!(next, (MOST - 2, now + Duration::from_millis(100 - (MOST as u64 - 2)) + REQUEST_TIMEOUT));
        assert!(REQUEST_TIMEOUT * 5 < ANSWER_TIMEOUT);
        scrapers.iter_mut().skip(1).for_each(|scraper| scraper.talk = answering());
        assert_eq!(next_to_go(&scrapers), Some((0, now + ANSWER_TIMEOUT)));
    }
}
