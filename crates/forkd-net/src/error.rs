//! The top-level error: one sentence for a person, one sysexits(3) code for a script.
//!
//! The lower layers return `io::Error` or an enum of their own; where the object is known (which
//! endpoint, which file), the failure becomes an [`Error`] that names it. `Display` prints
//! what failed without the cause; [`Error::source`](std::error::Error::source) has the cause, and
//! [`Error::sentence`] is both, as the binary prints them.

use std::error::Error as _;
use std::fmt;
use std::io;

use forkd_sys as sys;

/// Why forkd could not start, or had to end.
///
/// Each variant is one sysexits(3) code; see [`Error::exit_code`].
///
/// ```
/// use forkd_net::{Endpoint, Error};
///
/// fn port(text: &str) -> Result<Option<u16>, Error> {
///     let endpoint: Endpoint = text.parse().map_err(|error| Error::Usage(format!("{error}")))?;
///     Ok(endpoint.port())
/// }
///
/// assert_eq!(port("tcp://localhost:7")?, Some(7));
/// assert_eq!(port("localhost").unwrap_err().exit_code(), 64);
/// # Ok::<(), Error>(())
/// ```
///
/// `Debug` shows the whole [`sentence`](Self::sentence), so that a `main` that returns it ends with one:
///
/// ```
/// use std::io;
/// use forkd_net::Error;
///
/// let error = Error::os("cannot sail", io::Error::other("no wind"));
/// assert_eq!(format!("{error:?}"), "cannot sail: no wind");
/// ```
#[non_exhaustive]
pub enum Error {
    /// The command line makes no sense (64, `EX_USAGE`).
    Usage(String),
    /// Something needed is not there or is taken, such as an address in use (69, `EX_UNAVAILABLE`).
    Unavailable(Failure),
    /// forkd, or the code it runs, is at fault (70, `EX_SOFTWARE`).
    Internal(String),
    /// The operating system refused something that ought to work (71, `EX_OSERR`).
    Os(Failure),
    /// A file or a socket file can't be created (73, `EX_CANTCREAT`).
    CannotCreate(Failure),
    /// A right is missing (77, `EX_NOPERM`).
    Permission(Failure),
    /// The configuration is wrong (78, `EX_CONFIG`).
    Config(String),
}

/// A sentence that names what failed, and the cause.
///
/// ```
/// use std::io;
/// use forkd_net::{Error, Failure};
///
/// let failure = Failure::new("cannot open the gate", io::Error::other("it is stuck"));
/// assert_eq!(Error::Os(failure).sentence(), "cannot open the gate: it is stuck");
/// // where there is nothing more to say
/// assert_eq!(Error::Unavailable("the port is closed".into()).sentence(), "the port is closed");
/// ```
#[derive(Debug)]
pub struct Failure {
    what: String,
    cause: Option<io::Error>,
    /// What to do about it.
    advice: Option<String>,
}

impl Failure {
    /// Makes a failure from a sentence such as "cannot bind tcp://127.0.0.1:7" and its cause.
    #[must_use]
    pub fn new(what: impl Into<String>, cause: io::Error) -> Self {
        Self { what: what.into(), cause: Some(cause), advice: None }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { what, cause: None, advice: None }
    }
}

impl From<&str> for Failure {
    fn from(what: &str) -> Self {
        what.to_owned().into()
    }
}

impl Error {
    /// Returns the sysexits(3) code that the process ends with.
    ///
    /// ```
    /// assert_eq!(forkd_net::Error::Usage("no".into()).exit_code(), 64);
    /// ```
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Unavailable(_) => 69,
            Self::Internal(_) => 70,
            Self::Os(_) => 71,
            Self::CannotCreate(_) => 73,
            Self::Permission(_) => 77,
            Self::Config(_) => 78,
        }
    }

    /// Returns what `Display` shows, followed by all causes.
    ///
    /// ```
    /// let cause = std::io::Error::other("no wind");
    /// assert_eq!(forkd_net::Error::os("cannot sail", cause).sentence(), "cannot sail: no wind");
    /// ```
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        match self.failure().and_then(|failure| failure.advice.as_deref()) {
            Some(advice) => text + "; " + advice,
            None => text + &self.advice(),
        }
    }

    /// The same, with what to do about it, if that is known; the end of its [`sentence`](Self::sentence).
    pub fn advising(mut self, known: Option<String>) -> Self {
        match &mut self {
            Self::Unavailable(f) | Self::Os(f) | Self::CannotCreate(f) | Self::Permission(f) => {
                f.advice = known
            }
            Self::Config(text) => text.extend(known.map(|advice| format!("; {advice}"))),
            Self::Usage(_) | Self::Internal(_) => {}
        }
        self
    }

    /// What to do about the cause, where that is the same whatever has failed.
    fn advice(&self) -> String {
        let errno = self.failure().and_then(|failure| failure.cause.as_ref()?.raw_os_error());
        match (errno, sys::limits::open_files()) {
            (Some(libc::EMFILE), Some(limit)) => format!(
                "; this process may have {limit} descriptors: raise that by ulimit -n, or by LimitNOFILE= in its unit"
            ),
            _ => String::new(),
        }
    }

    /// Makes the variant that fits an I/O error: a missing right is [`Error::Permission`], an
    /// address that is taken or absent is [`Error::Unavailable`], anything else [`Error::Os`].
    ///
    /// ```
    /// use std::io::{Error as IoError, ErrorKind};
    /// use forkd_net::Error;
    ///
    /// let error = Error::from_io("cannot bind tcp://127.0.0.1:7", IoError::from(ErrorKind::PermissionDenied));
    /// assert!(matches!(error, Error::Permission(_)));
    /// assert_eq!(error.exit_code(), 77);
    /// ```
    #[must_use]
    pub fn from_io(what: impl Into<String>, cause: io::Error) -> Self {
        let kind = cause.kind();
        let failure = Failure::new(what, cause);
        match kind {
            io::ErrorKind::PermissionDenied => Self::Permission(failure),
            io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotFound => Self::Unavailable(failure),
            _ => Self::Os(failure),
        }
    }

    /// Makes [`Error::Os`]; for system calls with no better explanation.
    ///
    /// ```
    /// let error = forkd_net::Error::os("cannot fork", std::io::Error::from_raw_os_error(libc::EAGAIN));
    /// assert_eq!((error.exit_code(), error.to_string().as_str()), (71, "cannot fork"));
    /// ```
    #[must_use]
    pub fn os(what: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self::Os(Failure::new(what, cause.into()))
    }

    /// A system call is forbidden that this can't do without, such as "cannot serve"; `or` is another way out.
    pub fn forbidden(cannot: impl std::fmt::Display, call: &str, or: &str, cause: io::Error) -> Self {
        let what = format!(
            "{cannot}: the system call {call} is forbidden here, by a seccomp filter or an old kernel; allow it in the \
             container's seccomp profile or the unit's SystemCallFilter={or}"
        );
        Self::os(what, cause)
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Unavailable(f) | Self::Os(f) | Self::CannotCreate(f) | Self::Permission(f) => Some(f),
            Self::Usage(_) | Self::Internal(_) | Self::Config(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Internal(text) | Self::Config(text) => f.write_str(text),
            Self::Unavailable(x) | Self::Os(x) | Self::CannotCreate(x) | Self::Permission(x) => {
                f.write_str(&x.what)
            }
        }
    }
}

/// For functions that return what the standard library's do; the sentence stays whole.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error.sentence())
    }
}

/// `main` shows by it what it returns.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure()?.cause.as_ref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_finds_its_exit_code() {
        let code = |errno| Error::from_io("x", io::Error::from_raw_os_error(errno)).exit_code();
        assert_eq!(code(libc::EADDRINUSE), 69);
        assert_eq!(code(libc::EACCES), 77);
        assert_eq!(code(libc::EPERM), 77);
        assert_eq!(code(libc::ENOMEM), 71);
    }

    #[test]
    fn display_leaves_the_cause_to_source() {
        let error = Error::os("cannot fork", io::Error::from_raw_os_error(libc::ENOMEM));
        assert_eq!(error.to_string(), "cannot fork");
        assert!(std::error::Error::source(&error).is_some());
    }
}
