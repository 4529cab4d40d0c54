//! HTTP/1.1 (RFC 9110, RFC 9112) for the files below a directory and for texts that are made when they
//! are asked for; GET and HEAD.
//!
//! ```text
//! bytes ──▶ request ──▶ site: target, routes, files, conditions ──▶ response ──▶ bytes, or a part of a file
//! ```
//!
//! What a client can occupy is bounded: [`request::HEAD`] bytes and what one read brings are kept of what
//! it sends, [`site::SMALL`] bytes and two answers of what it gets, and a large file is not read at
//! all. Its time is bounded by [`patience`].

mod answer;
mod conditions;
mod files;
mod kinds;
mod patience;
mod request;
mod response;
mod site;
mod target;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use answer::{Answer, Stage};
use files::Root;
use patience::{Patience, Phase};
use response::{Refusal, Status};
use site::{SMALL, Site};

use super::{Protocol, Reply, Service};
use crate::Error;
use crate::transport::{FilePart, Peer};

/// The most bytes of empty lines before a request: a client that sends nothing else would never be late.
const BLANK: usize = 16;

/// The most bytes of a request that a line of the log shows.
const SHOWN: usize = 200;

/// Serves files and texts by HTTP/1.1.
///
/// # Examples
///
/// A server of data is three lines:
///
/// ```no_run
/// use forkd::{Server, service::Http};
/// let started = std::time::Instant::now();
/// let http = Http::new().route("/uptime", move || format!("{} s\n", started.elapsed().as_secs()));
/// Server::bind("tcp://127.0.0.1:8080")?.serve_forever(http)?;
/// # Ok::<(), forkd::Error>(())
/// ```
///
/// As with any [`Protocol`], what it answers can be seen without a socket:
///
/// ```
/// use forkd::{Protocol, Reply, service::Http};
/// let mut http = Http::new().route("/data.json", || r#"{"answer":42}"#);
/// let Reply::Finish(answer) = http.received(b"GET /data.json HTTP/1.0\r\n\r\n") else { panic!() };
/// let answer = std::str::from_utf8(answer).unwrap();
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
/// assert!(answer.contains("\r\nContent-Type: application/json\r\n"));
/// assert!(answer.ends_with("\r\n\r\n{\"answer\":42}"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Http {
    site: Arc<Site>,
    patience: Patience,
    peer: Peer,
    /// What has come and was not yet looked at, from the beginning of a request on.
    input: Vec<u8>,
    /// So many bytes of the content of the last request are still to come, and to be thrown away.
    content: u64,
    /// So many bytes of empty lines have come before the request.
    blank: usize,
    /// So many requests were answered.
    answered: u32,
    /// So many bytes of the input are no whole head.
    looked_at: usize,
    output: Vec<u8>,
    /// What follows the output.
    file: Option<FilePart>,
    /// What is on its way.
    sent: Option<FilePart>,
    stage: Stage,
}

impl Http {
    /// A server of nothing yet.
    ///
    /// ```
    /// use forkd::{Protocol, Reply, service::Http};
    /// let mut http = Http::new();
    /// let Reply::Finish(answer) = http.received(b"GET /here HTTP/1.0\r\n\r\n") else { panic!() };
    /// assert!(answer.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with the files below this directory, which is opened here and now.
    ///
    /// No file is served whose path has a part that begins with a dot, and none outside of the directory:
    /// symbolic links are followed if they are relative and stay below it (by openat2(2); systems
    /// without that follow none). It is the path that was asked for which must have no dot: a link with
    /// another name to such a file or directory publishes it, as where `current` is a link to `.releases/7`.
    /// A directory is answered with its `index.html`, never with a list.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it can't be opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use forkd::{Server, service::Http};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?;
    /// let http = Http::new().root(std::env::temp_dir())?;
    /// let serving = server.ready(http)?;
    /// assert!(Http::new().root("/nowhere/to/be/found").is_err());
    /// # Ok::<(), forkd::Error>(())
    /// ```
    pub fn root(mut self, directory: impl AsRef<Path>) -> Result<Self, Error> {
        Arc::make_mut(&mut self.site).root = Some(Root::new(directory.as_ref())?);
        Ok(self)
    }

    /// The same, with a text at this path, such as `/time`; it has precedence over a file. The end of the
    /// path (`.json`) tells what kind of text. The path is what requests come to once they are decoded; a
    /// slash at its end makes no difference.
    ///
    /// `make` is called for each request, in the process that serves it.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use forkd::{Protocol, Reply, service::Http};
    ///
    /// let visits = AtomicU32::new(0);
    /// let count = move || format!("{}\n", visits.fetch_add(1, Ordering::Relaxed) + 1);
    /// let mut http = Http::new().route("/visits", count);
    /// for expected in [b"\r\n\r\n1\n", b"\r\n\r\n2\n"] {
    ///     let Reply::Send(answer) = http.received(b"GET /visits HTTP/1.1\r\nHost: here\r\n\r\n") else { panic!() };
    ///     assert!(answer.ends_with(expected));
    /// }
    /// ```
    #[must_use]
    pub fn route<Text: Into<Vec<u8>>>(
        mut self,
        path: &str,
        make: impl Fn() -> Text + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(move || make().into());
        let path = format!("/{}", path.trim_matches('/'));
        Arc::make_mut(&mut self.site).routes.insert(path.into_bytes(), make);
        self
    }

    /// Whether there may be a head now, or one that is too long, where there was none before: whoever sends a
    /// byte at a time shall not have all of it parsed each time.
    fn is_worth_a_look(&self) -> bool {
        let (before, now) = (self.looked_at, self.input.len());
        let passes = |limit: usize| before <= limit && now > limit;
        before == 0
            || passes(request::LINE)
            || passes(request::HEAD)
            || self.input.get(before..).is_none_or(|new| new.contains(&b'\n'))
    }

    /// Answers what has come, one request after the other, until there is enough to be sent.
    fn answer(&mut self) -> Reply<'_> {
        self.output.clear();
        while self.stage == Stage::Open && self.file.is_none() && !self.is_full() {
            self.skip();
            if !self.is_worth_a_look() {
                break;
            }
            match request::parse(&self.input) {
                Ok(None) => {
                    self.looked_at = self.input.len();
                    break;
                }
                Ok(Some((request, length))) => {
                    let is_last = self.answered + 1 >= self.patience.limits.requests;
                    let answer = Answer::to(&request, &self.site, is_last);
                    self.log(&answer);
                    self.input.drain(..length);
                    self.looked_at = 0;
                    self.say(answer);
                }
                Err(refusal) => self.refuse(refusal),
            }
        }
        match self.stage {
            Stage::Last if self.file.is_none() => Reply::Finish(&self.output),
            _ if self.output.is_empty() => Reply::Wait,
            _ if self.file.is_some() => Reply::More(&self.output),
            Stage::Open if self.is_full() => Reply::More(&self.output),
            _ => Reply::Send(&self.output),
        }
    }

    fn is_full(&self) -> bool {
        self.output.len() >= SMALL as usize
    }

    /// Throws away what nobody wants: content of the request before, and the empty lines that some clients
    /// send after it (RFC 9112, section 2.2).
    fn skip(&mut self) {
        let content = self.content.min(self.input.len() as u64) as usize;
        self.content -= content as u64;
        let blank = self.input[content..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        // what is beyond measure is left, and is no request
        let blank = blank.min(BLANK - self.blank);
        self.blank += blank;
        self.input.drain(..content + blank);
    }

    fn refuse(&mut self, refusal: Refusal) {
        let answer = Answer::refusing(refusal);
        self.log(&answer);
        self.say(answer);
    }

    /// Says how the request in hand is answered. What is refused is for the operator, if there is not too much
    /// of it.
    fn log(&self, answer: &Answer) {
        let (peer, status) = (self.peer, answer.status());
        let Some(reason) = answer.response.refused else {
            return log::debug!(peer:%, status, request:% = self.line(); "request answered");
        };
        let admitted = self.site.limits.refusals.admit();
        let level = if admitted.is_some() { log::Level::Info } else { log::Level::Debug };
        let suppressed = admitted.unwrap_or(0);
        log::log!(level, peer:%, status, reason, request:% = self.line(), suppressed; "request refused");
    }

    /// The first line of the request in hand, or the beginning of that.
    fn line(&self) -> Cow<'_, str> {
        let line = self.input.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        String::from_utf8_lossy(line.get(..SHOWN).unwrap_or(line))
    }

    fn say(&mut self, answer: Answer) {
        let connection = match answer.stage {
            Stage::Open if answer.is_old => Some("keep-alive"),
            Stage::Open => None,
            Stage::Last => Some("close"),
        };
        if answer.continues {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.file = answer.response.write(&mut self.output, answer.is_head, connection, answer.now);
        self.stage = answer.stage;
        self.content = answer.content;
        self.blank = 0;
        self.answered += 1;
        if self.stage != Stage::Open {
            self.input = Vec::new();
        }
    }

    fn phase(&self) -> Phase {
        match self.answered {
            _ if self.content > 0 => Phase::Content(self.answered),
            _ if !self.input.is_empty() => Phase::Head(self.answered),
            0 => Phase::First,
            _ => Phase::Next(self.answered),
        }
    }
}

impl Protocol for Http {
    fn connected(&mut self, peer: Peer) -> Reply<'_> {
        self.peer = peer;
        Reply::Wait
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.input.extend_from_slice(input);
        self.answer()
    }

    fn resume(&mut self) -> Reply<'_> {
        self.sent = None;
        match self.file.take() {
            Some(part) => Reply::File(self.sent.insert(part)),
            None if self.stage == Stage::Last => Reply::Finish(b""),
            None => self.answer(),
        }
    }

    fn ended(&mut self) -> Reply<'_> {
        self.output.clear();
        if let Phase::Head(_) = self.phase() {
            self.refuse(Refusal::bad("it ends in the middle"));
        }
        Reply::Finish(&self.output)
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        Some(self.patience.until(self.phase(), now))
    }

    /// Whoever has begun a request is told.
    fn timed_out(&mut self) -> Reply<'_> {
        self.output.clear();
        if let Phase::Head(_) = self.phase() {
            self.refuse(Refusal::new(Status::REQUEST_TIMEOUT, "the request takes too long"));
        }
        Reply::Finish(&self.output)
    }

    /// A datagram is no connection.
    fn datagram<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
    }
}

impl From<Http> for Service {
    fn from(http: Http) -> Self {
        Self::protocol("http", move || http.clone()).patient_for(patience::SILENCE)
    }
}
