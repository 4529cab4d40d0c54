//! What there is to be had, and the answer to each request: a pure matter, but for the files.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::io::Errno;

use super::conditions::{Verdict, Version};
use super::files::Root;
use super::kinds;
use super::request::{Body, Method, Request};
use super::response::{Content, Refusal, Response, Status};
use super::target::Target;
use crate::log::SharedLimit;
use crate::sys::shared::{Shared, plain};
use crate::transport::FilePart;

/// The longest content of a request that is read, and thrown away, to keep the connection, in bytes.
const BODY: u64 = 64 * 1024;

/// The largest file that is sent together with its head, in bytes; from there on sendfile(2) pays.
pub(super) const SMALL: u64 = 16 * 1024;

/// What a directory's own page is called.
const INDEX: &[u8] = b"index.html";

/// Makes the content of a route.
type Make = dyn Fn() -> Vec<u8> + Send + Sync;

/// What is to be had from a server.
#[derive(Clone, Default)]
pub(super) struct Site {
    pub(super) root: Option<Root>,
    pub(super) routes: BTreeMap<Vec<u8>, Arc<Make>>,
    /// Made before anybody is forked.
    pub(super) limits: Arc<Shared<Limits>>,
}

/// So that nobody can fill the log, whichever processes he is served by.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Limits {
    /// What clients should not ask for.
    pub(super) refusals: SharedLimit,
    /// What the operator may want to mend.
    warnings: SharedLimit,
}

plain!(Limits);

impl Site {
    /// The answer to a request.
    pub(super) fn answer(&self, request: &Request<'_>, now: SystemTime) -> Response {
        match self.find(request, now) {
            Ok(response) => response,
            Err(refusal) if refusal.status == Status::METHOD_NOT_ALLOWED => {
                Response::from(refusal).with("Allow", "GET, HEAD")
            }
            Err(refusal) => refusal.into(),
        }
    }

    fn find(&self, request: &Request<'_>, now: SystemTime) -> Result<Response, Refusal> {
        match request.method {
            Method::Get | Method::Head => {}
            Method::NotAllowed => {
                return Err(Refusal::new(Status::METHOD_NOT_ALLOWED, "there are GET and HEAD"));
            }
            Method::Unknown => return Err(Refusal::new(Status::NOT_IMPLEMENTED, "there are GET and HEAD")),
        }
        if request.body == Body::Coded {
            let why = "content with a transfer coding is not taken";
            return Err(Refusal::new(Status::NOT_IMPLEMENTED, why));
        }
        if !is_short(request.body) {
            return Err(Refusal::new(Status::CONTENT_TOO_LARGE, "there is no use for so much content"));
        }
        let target = Target::parse(request.target)?;
        if let Some(make) = self.routes.get(&target.path) {
            let kind = kinds::of(&target.path).unwrap_or(kinds::TEXT);
            return Ok(Response::of(kind, make()).with("Cache-Control", "no-store"));
        }
        match &self.root {
            _ if target.is_hidden => {
                Ok(Response::bare(Status::NOT_FOUND).because("the path leads up, or to what is hidden"))
            }
            Some(root) => Ok(self.file(root, &target, request, now)),
            None if target.path == b"/" => Ok(self.contents()),
            None => Ok(Response::bare(Status::NOT_FOUND)),
        }
    }

    /// What there is, where no file is.
    fn contents(&self) -> Response {
        let mut text = b"Here are:\n".to_vec();
        for path in self.routes.keys() {
            text.extend_from_slice(path);
            text.push(b'\n');
        }
        Response::of(kinds::TEXT, text)
    }

    fn file(&self, root: &Root, target: &Target<'_>, request: &Request<'_>, now: SystemTime) -> Response {
        let mut path = target.path[1..].to_vec();
        if target.is_directory {
            path.extend_from_slice(if path.is_empty() { b"" } else { b"/" });
            path.extend_from_slice(INDEX);
        }
        let file = match root.open(&path) {
            Ok(file) => file,
            Err(errno) => return self.absent(&path, errno),
        };
        let metadata = match file.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(metadata) if metadata.is_dir() && !target.is_directory => {
                return Response::bare(Status::MOVED).with("Location", target.as_directory());
            }
            // a device, or a directory that is called index.html
            Ok(_) => return Response::bare(Status::NOT_FOUND),
            Err(error) => return self.broken(&path, &error),
        };
        let version = Version::of(&metadata, now);
        let is_get = request.method == Method::Get;
        let whole = FilePart { file: Arc::new(file), offset: 0, length: metadata.len() };
        let response = match request.conditions.judge(&version, whole.length, is_get) {
            Verdict::Whole => self.content(Status::OK, whole, is_get, &path),
            Verdict::Part { offset, length } => {
                let range = format!("bytes {offset}-{}/{}", offset + length - 1, whole.length);
                let part = FilePart { offset, length, ..whole };
                self.content(Status::PARTIAL, part, is_get, &path).with("Content-Range", range)
            }
            Verdict::NotModified => Response::new(Status::NOT_MODIFIED, Content::None),
            Verdict::Failed => return Response::bare(Status::PRECONDITION_FAILED),
            Verdict::NotSatisfiable => {
                let size = format!("bytes */{}", whole.length);
                return Response::bare(Status::RANGE_NOT_SATISFIABLE).with("Content-Range", size);
            }
        };
        if response.status.is_error() {
            return response;
        }
        let response = response.with("Accept-Ranges", "bytes").with("ETag", version.tag);
        match version.modified {
            Some(date) => response.with("Last-Modified", httpdate::HttpDate::from(date)),
            None => response,
        }
    }

    /// Reads a small part, so that it goes out with its head; a large one stays in the kernel.
    fn content(&self, status: Status, part: FilePart, is_get: bool, path: &[u8]) -> Response {
        let content = if is_get && part.length <= SMALL {
            let mut bytes = vec![0; part.length as usize];
            match part.file.read_exact_at(&mut bytes, part.offset) {
                Ok(()) => Content::Bytes(bytes),
                Err(error) => return self.broken(path, &error),
            }
        } else {
            Content::File(part)
        };
        Response::new(status, content).with("Content-Type", kinds::of(path).unwrap_or(kinds::BYTES))
    }

    /// Why a file can't be opened: most reasons are the client's.
    fn absent(&self, path: &[u8], errno: Errno) -> Response {
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

/// Whether the content of a request can be read without regret.
pub(super) fn is_short(body: Body) -> bool {
    matches!(body, Body::Length(0..=BODY))
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<_> = self.routes.keys().map(|path| path.escape_ascii().to_string()).collect();
        f.debug_struct("Site").field("root", &self.root).field("routes", &routes).finish_non_exhaustive()
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
        let part = FilePart { file: Arc::new(file), offset: 0, length: 10 };
        assert_eq!(Site::default().content(Status::OK, part, true, b"x").status, Status::INTERNAL);
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
            assert_eq!(Site::default().absent(b"x", errno).status.0, status, "{errno}");
        }
    }
}
