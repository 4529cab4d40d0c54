//! HTTP/1.1 (RFC 9110, RFC 9112) for the files below a directory and for texts that are made when they
//! are asked for; GET, HEAD and OPTIONS. docs/HTTP.md says how the RFCs are followed, section by section.
//!
//! ```text
//! bytes ──▶ dialogue: request, content ──▶ router: routes, files, conditions ──▶ response ──▶ bytes, or a part of a file
//! ```
//!
//! What a client can occupy is bounded: [`request::HEAD`] bytes and what one read brings are kept of what
//! it sends, [`router::SMALL`] bytes and two answers of what it gets, and a large file is not read at
//! all. Its time is bounded by [`timeouts`].

mod answer;
mod conditions;
mod content;
mod date;
mod dialogue;
mod fields;
mod files;
mod kinds;

mod ranges;
mod request;
mod response;
mod root;
mod router;
mod target;
#[cfg(test)]
mod tests;
mod timeouts;
mod version;
mod walk;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub use answer::Responder;
pub use dialogue::Dialogue;
pub use fields::parts;
pub use request::Request;
pub use response::{Refusal, Response, Status};
use root::Root;
use router::Origin;
pub use router::made;
pub use target::Target;

use super::{Protocol, Reply, Service};
use crate::Error;
use crate::transport::{Offence, Peer};

/// Serves files and texts by HTTP/1.1.
///
/// # Examples
///
/// A server of data is three lines:
///
/// ```no_run
/// use forkd_server::{Server, service::Http};
/// let started = std::time::Instant::now();
/// let http = Http::new().route("/uptime", move || format!("{} s\n", started.elapsed().as_secs()));
/// Server::bind("tcp://127.0.0.1:8080")?.serve_forever(http)?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
///
/// As with any [`Protocol`], what it answers can be seen without a socket:
///
/// ```
/// use forkd_server::{Protocol, Reply, service::Http};
/// let mut http = Http::new().route("/data.json", || r#"{"answer":42}"#);
/// let Reply::Finish(answer) = http.received(b"GET /data.json HTTP/1.0\r\n\r\n") else { panic!() };
/// let answer = std::str::from_utf8(answer).unwrap();
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
/// assert!(answer.contains("\r\nContent-Type: application/json\r\n"));
/// assert!(answer.ends_with("\r\n\r\n{\"answer\":42}"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Http {
    origin: Origin,
    dialogue: Dialogue,
}

impl Http {
    /// A server of nothing yet.
    ///
    /// ```
    /// use forkd_server::{Protocol, Reply, service::Http};
    /// let mut http = Http::new();
    /// let Reply::Finish(answer) = http.received(b"GET /here HTTP/1.0\r\n\r\n") else { panic!() };
    /// assert!(answer.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with the files below this directory. It must be there now. Each request looks the name up again,
    /// so a directory that takes its place is served from then on; if the process can't look it up any more (after
    /// chroot(2), or as another user), the directory that was opened first is served.
    ///
    /// No file is served whose path has a part that begins with a dot, but below `/.well-known/` (RFC 8615), and
    /// none outside of the directory. Symbolic links are followed if they are relative, stay below it, and lead
    /// through no such part either. Only regular files are opened. A directory is answered with its
    /// `index.html`, never with a list.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it can't be opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use forkd_server::{Server, service::Http};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?;
    /// let http = Http::new().root(std::env::temp_dir())?;
    /// let serving = server.ready(http)?;
    /// assert!(Http::new().root("/nowhere/to/be/found").is_err());
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn root(self, directory: impl AsRef<Path>) -> Result<Self, Error> {
        self.root_below(directory.as_ref(), None)
    }

    /// The same for a process that will have another root directory when requests come.
    pub fn root_below(mut self, directory: &Path, chroot: Option<&Path>) -> Result<Self, Error> {
        Arc::make_mut(&mut self.origin.router).root = Some(Root::new(directory, chroot)?);
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
    /// use forkd_server::{Protocol, Reply, service::Http};
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
        Arc::make_mut(&mut self.origin.router).routes.insert(path.into_bytes(), make);
        self
    }
}

impl Protocol for Http {
    fn connected(&mut self, peer: Peer) -> Reply<'_> {
        self.origin.peer = peer;
        Reply::Wait
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.dialogue.received(&mut self.origin, input)
    }

    fn resume(&mut self) -> Reply<'_> {
        self.dialogue.resume(&mut self.origin)
    }

    fn client_is_done(&self) -> bool {
        self.dialogue.client_is_done
    }

    fn ended(&mut self) -> Reply<'_> {
        self.dialogue.ended(&mut self.origin)
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        Some(self.dialogue.deadline(now))
    }

    fn timed_out(&mut self) -> Reply<'_> {
        self.dialogue.timed_out(&mut self.origin)
    }

    fn offence(&self) -> Option<Offence> {
        self.dialogue.offence
    }

    /// A datagram is no connection.
    fn datagram<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
    }
}

impl From<Http> for Service {
    fn from(http: Http) -> Self {
        // What the parser finds out about the processor it keeps, in a page that each child would copy.
        let _ = request::parse(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n");
        let router = Arc::clone(&http.origin.router);
        let service = Self::protocol("http", move || http.clone());
        // the connection, and the file that is sent
        let service = service.patient_for(timeouts::WRITE_TIMEOUT).taking(2).begun_by_clients();
        service.reading(move |as_few| {
            router.root.as_ref().map(|root| root.directories(as_few)).unwrap_or_default()
        })
    }
}
