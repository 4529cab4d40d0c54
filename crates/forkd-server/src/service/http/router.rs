//! What there is to be had, and the answer to each request: a pure matter, but for the files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread, retry_on_intr};

use super::answer::Responder;
use super::conditions::Verdict;
use super::date;
use super::files::{Absent, Found, size};
use super::kinds;
use super::ranges::Wanted;
use super::request::{Method, Request};
use super::response::{Content, Response, Status};
use super::root::Root;
use super::target::Target;
use super::version::Version;
use crate::limit::SharedLimit;
use crate::sys::plain;
use crate::sys::shared::Shared;
use crate::transport::{FilePart, Peer};

/// The largest file that is sent together with its head, in bytes; from there on sendfile(2) pays.
pub(super) const SMALL: u64 = 16 * 1024;

/// What a directory's own page is called.
const INDEX: &[u8] = b"index.html";

/// Makes the content of a route.
type Make = dyn Fn() -> Vec<u8> + Send + Sync;

/// A server, as one of its connections has it. A child of a fork copies the page of each count that it adds to: there is
/// one.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub(super) router: Arc<Router>,
    /// Another directory that has got the name of the router's root.
    successor: Option<Root>,
    pub(super) peer: Peer,
}

/// What all connections have in common.
#[derive(Clone, Default)]
pub(super) struct Router {
    pub(super) routes: BTreeMap<Vec<u8>, Arc<Make>>,
    pub(super) root: Option<Root>,
    /// Made before the first fork.
    pub(super) limits: Arc<Shared<Limits>>,
}

plain! {
    /// So that no client can fill the log, whichever processes serve it.
    #[derive(Debug, Default)]
    pub(super) struct Limits {
        /// What clients should not ask for.
        pub(super) refusals: SharedLimit,
        /// What the operator may want to mend.
        warnings: SharedLimit,
    }
}

impl Responder for Origin {
    fn respond(&mut self, request: &Request<'_>, target: &Target<'_>, now: SystemTime) -> Response {
        let router = &self.router;
        if let Some(make) = router.routes.get(&target.path) {
            return made(|| make(), kinds::of(&target.path).unwrap_or(kinds::TEXT), request, now);
        }
        match &router.root {
            _ if target.is_hidden => {
                Response::bare(Status::NOT_FOUND).because("the path leads up, or to what is hidden")
            }
            Some(root) => router.file((root, &mut self.successor), target, request, now),
            None if target.path == b"/" => Response::of(kinds::TEXT, router.contents()),
            None => Response::bare(Status::NOT_FOUND),
        }
    }

    /// What is refused is for the operator, if there is not too much of it.
    fn answered(&mut self, response: &Response, line: &[u8]) {
        let (peer, status) = (self.peer, response.status.0);
        let line = || String::from_utf8_lossy(line);
        let Some(reason) = response.refused else {
            return log::debug!(peer:%, status, request:% = line(); "request answered");
        };
        let admitted = self.router.limits.refusals.admit();
        let level = if admitted.is_some() { log::Level::Info } else { log::Level::Debug };
        let suppressed = admitted.unwrap_or(0);
        log::log!(level, peer:%, status, reason, request:% = line(), suppressed; "request refused");
    }
}

/// An answer with a text that is made for this request. It has no validators and no parts, but it is there, which
/// is what some conditions ask.
pub fn made(make: impl FnOnce() -> Vec<u8>, kind: &str, request: &Request<'_>, now: SystemTime) -> Response {
    let verdict = request.conditions.judge(&Version::default(), 0, false, date::seconds(now));
    let response = match verdict {
        Verdict::Failed => return Response::bare(Status::PRECONDITION_FAILED),
        Verdict::NotModified => Response::empty(Status::NOT_MODIFIED),
        Verdict::Send(_) => Response::of(kind, make()),
    };
    response.with("Cache-Control", "no-store")
}

impl Router {
    /// What there is, where no file is.
    fn contents(&self) -> Vec<u8> {
        let mut text = b"Here are:\n".to_vec();
        for path in self.routes.keys() {
            text.extend_from_slice(path);
            text.push(b'\n');
        }
        text
    }

    fn file(
        &self,
        (root, successor): (&Root, &mut Option<Root>),
        target: &Target<'_>,
        request: &Request<'_>,
        now: SystemTime,
    ) -> Response {
        let path = match (&target.path[1..], target.is_directory) {
            (path, false) => Cow::Borrowed(path),
            (b"", true) => INDEX.into(),
            (path, true) => [path, b"/", INDEX].concat().into(),
        };
        let (file, stat, led_there) = match root.find(successor, &path) {
            Ok(Found::File { file, stat, led_there }) => (file, stat, led_there),
            Ok(Found::Directory) if !target.is_directory => {
                return Response::bare(Status::MOVED).with("Location", target.as_directory());
            }
            Ok(Found::Directory | Found::Special) => return Response::bare(Status::NOT_FOUND),
            Err(absent) => return self.absent(&path, absent),
        };
        let way = || successor.as_ref().unwrap_or(root).changed_on_the_way(&path);
        let version = Version::of(&stat, led_there, way, now);
        let is_get = request.method == Method::Get;
        let length = size(&stat);
        let verdict = request.conditions.judge(&version, length, is_get, date::seconds(now));
        let response = match verdict {
            Verdict::Send(Wanted::Whole) => self.content(Status::OK, file, (0, length), is_get, &path),
            Verdict::Send(Wanted::Part { offset, length: part }) => {
                let range = format!("bytes {offset}-{}/{length}", offset + part - 1);
                self.content(Status::PARTIAL, file, (offset, part), is_get, &path)
                    .with("Content-Range", range)
            }
            Verdict::Send(Wanted::NotSatisfiable) => {
                let size = format!("bytes */{length}");
                return Response::bare(Status::RANGE_NOT_SATISFIABLE).with("Content-Range", size);
            }
            Verdict::Failed => return Response::bare(Status::PRECONDITION_FAILED),
            // RFC 9110, section 15.4.5: what else there is of the file the client knows
            Verdict::NotModified => {
                return Response::empty(Status::NOT_MODIFIED).with_some("ETag", version.tag);
            }
        };
        if response.status.is_error() {
            return response;
        }
        let date = version.last_modified(now);
        response
            .with("Accept-Ranges", "bytes")
            .with_some("ETag", version.tag)
            .with_some("Last-Modified", date)
    }

    /// Reads a small part, so that it goes out with its head; a large one stays in the kernel.
    fn content(
        &self,
        status: Status,
        file: File,
        (offset, length): (u64, u64),
        is_get: bool,
        path: &[u8],
    ) -> Response {
        let content = if is_get && length <= SMALL {
            match read(&file, offset, length as usize) {
                Ok(bytes) => Content::Bytes(bytes),
                Err(error) => return self.broken(path, &error),
            }
        } else {
            Content::File(FilePart { file: Arc::new(file), offset, length })
        };
        Response::new(status, content).with("Content-Type", kinds::of(path).unwrap_or(kinds::BYTES))
    }

    /// Why a file can't be opened: most reasons are the client's.
    fn absent(&self, path: &[u8], absent: Absent) -> Response {
        let Absent::Os(errno) = absent else {
            return Response::bare(Status::NOT_FOUND).because("the path has a link to what is hidden");
        };
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::NXIO | Errno::NODEV => {
                Response::bare(Status::NOT_FOUND)
            }
            Errno::LOOP | Errno::MLINK => {
                Response::bare(Status::NOT_FOUND).because("the path has a link that is not followed")
            }
            Errno::XDEV => Response::bare(Status::NOT_FOUND).because("the path leads out of the root"),
            Errno::ACCESS => Response::bare(Status::FORBIDDEN).because("this user may not read the file"),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                self.warn(path, &errno);
                Response::bare(Status::UNAVAILABLE)
            }
            errno => self.broken(path, &errno),
        }
    }

    fn broken(&self, path: &[u8], error: &dyn fmt::Display) -> Response {
        self.warn(path, error);
        Response::bare(Status::INTERNAL)
    }

    /// The operator may want to know.
    fn warn(&self, path: &[u8], error: &dyn fmt::Display) {
        if let Some(suppressed) = self.limits.warnings.admit() {
            log::warn!(path:% = String::from_utf8_lossy(path), error:%, suppressed; "a file was not served");
        }
    }
}

/// Reads a part of a file, which must be as long as it was.
fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        // no more than there is room for, and that was made for the length
        if retry_on_intr(|| pread(file, spare_capacity(&mut bytes), at))? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"));
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<_> = self.routes.keys().map(|path| path.escape_ascii().to_string()).collect();
        f.debug_struct("Router").field("routes", &routes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_shrinks_meanwhile_is_no_answer() {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(b"short").expect("write");
        // as if it had been longer when it was looked at
        assert_eq!(Router::default().content(Status::OK, file, (0, 10), true, b"x").status, Status::INTERNAL);
    }

    #[test]
    fn why_a_file_can_not_be_opened() {
        for (errno, status) in [
            (Errno::NOENT, 404),
            (Errno::NAMETOOLONG, 404),
            (Errno::XDEV, 404),
            (Errno::ACCESS, 403),
            (Errno::MFILE, 503),
            (Errno::IO, 500),
        ] {
            assert_eq!(Router::default().absent(b"x", errno.into()).status.0, status, "{errno}");
        }
    }
}
