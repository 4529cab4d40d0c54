//! Log lines for the local syslog daemon, in the form of RFC 3164.
//!
//! Two invariants. A call never waits: the socket doesn't block, and after a failed attempt to
//! reach the daemon again there is a pause that doubles. And no loss is silent: lines that were
//! dropped are counted, and the count is the first thing said when the daemon is back.
//!
//! The `syslog` crate formats the lines; its own loggers are not used, because they block on a full
//! socket, never recover from a restart of the daemon, and keep the parent's pid after a fork. Its
//! time stamps are UTC; daemons that matter (rsyslog, journald) go by their own clock.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ::log::{Level, Log, Metadata, Record};
use ::syslog::{Facility, Formatter3164, LogFormat as _};

use super::{count_lost, format};
use crate::config::values::LogFormat;
use crate::sys::shared::{Arena, bytes_for};
use crate::{Error, Failure};

/// Where syslog daemons listen: Linux and OpenBSD, macOS, the other BSDs.
const PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// The longest message that every daemon takes, in bytes; RFC 3164, section 4.1.
const MAX_LINE: usize = 1024;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The logger that writes to syslog.
///
/// # Fork safety
///
/// The lock is never held across a fork, for the reason given in [`super`].
pub(super) struct Syslog {
    link: Mutex<Link>,
    format: LogFormat,
}

impl Syslog {
    /// Connects to the syslog daemon at one of the usual places.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if none listens.
    pub(super) fn open(format: LogFormat) -> Result<Self, Error> {
        Self::open_first(&PATHS, format)
    }

    fn open_first(paths: &[&str], format: LogFormat) -> Result<Self, Error> {
        let mut failures = Vec::new();
        for path in paths {
            match Link::open(Path::new(path)) {
                Ok(link) => return Ok(Self { link: Mutex::new(link), format }),
                Err(error) => failures.push(format!("{path}: {error}")),
            }
        }
        let what = "no syslog daemon listens here; start one, or log to standard error";
        Err(Error::Unavailable(Failure::new(what, io::Error::other(failures.join(", ")))))
    }
}

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = render(self.format, record);
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.write(self.format, record.level(), &message, Instant::now());
    }

    fn flush(&self) {}
}

fn render(format: LogFormat, record: &Record<'_>) -> String {
    match format {
        LogFormat::Text => format::text(record),
        LogFormat::Json => format::json(record, SystemTime::now(), std::process::id()),
    }
}

/// What is said once lines can be sent again.
fn loss_report(format: LogFormat, count: u64) -> String {
    let pairs = [("count", count)];
    let args = format_args!("log lines were lost");
    render(format, &Record::builder().level(Level::Warn).args(args).key_values(&pairs).build())
}

/// A datagram socket that finds its way back after the daemon has been restarted.
struct Link {
    socket: UnixDatagram,
    path: PathBuf,
    formatter: Formatter3164,
    /// Lines that no process of the daemon could send, and that have not been reported yet.
    lost: &'static AtomicU64,
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Link {
    fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        let formatter = Formatter3164 {
            facility: Facility::LOG_DAEMON,
            hostname: None,
            process: "forkd".into(),
            pid: std::process::id(),
        };
        // Shared with children, most of which end before they could report anything.
        let lost = &Arena::new(bytes_for::<AtomicU64>(1))?.take(1)?[0];
        Ok(Self { socket, path: path.into(), formatter, lost, retry_at: None, pause: FIRST_PAUSE })
    }

    fn write(&mut self, format: LogFormat, level: Level, message: &str, now: Instant) {
        // another one in a forked child
        self.formatter.pid = std::process::id();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.send(Level::Warn, &loss_report(format, lost), now) {
            self.count_lost(lost);
        }
        // not without the report: lines would seem to be complete
        if self.lost.load(Ordering::Relaxed) > 0 || !self.send(level, message, now) {
            self.count_lost(1);
            count_lost();
        }
    }

    fn count_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    fn send(&mut self, level: Level, message: &str, now: Instant) -> bool {
        let Ok(line) = self.line(level, message) else { return false };
        match self.socket.send(&line) {
            Ok(_) => {
                // perhaps thanks to another process that shares the socket
                self.retry_at = None;
                self.pause = FIRST_PAUSE;
                true
            }
            // the daemon is there and behind: unix(7), and ENOBUFS on the BSDs
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => false,
            // ECONNREFUSED once after a restart of the daemon, then ENOTCONN for ever
            Err(_) => self.reconnect(now) && self.socket.send(&line).is_ok(),
        }
    }

    /// Connects the same socket again, which connect(2) allows for datagrams. The descriptor stays,
    /// and processes that share it by fork are connected again along with this one. After a
    /// chroot(2) it works only if the new root has the socket.
    fn reconnect(&mut self, now: Instant) -> bool {
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        let is_connected = self.socket.connect(&self.path).is_ok();
        if is_connected {
            self.retry_at = None;
            self.pause = FIRST_PAUSE;
        } else {
            self.retry_at = now.checked_add(self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        is_connected
    }

    fn line(&mut self, level: Level, message: &str) -> ::syslog::Result<Vec<u8>> {
        let mut line = Vec::with_capacity(MAX_LINE);
        match level {
            Level::Error => self.formatter.err(&mut line, message),
            Level::Warn => self.formatter.warning(&mut line, message),
            Level::Info => self.formatter.info(&mut line, message),
            Level::Debug | Level::Trace => self.formatter.debug(&mut line, message),
        }?;
        // not in the middle of a character: UTF-8 continues with 10xxxxxx
        let is_start = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
        let end = (0..=MAX_LINE).rev().find(is_start).unwrap_or_default();
        line.truncate(end);
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 2 * MAX_LINE];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_line_has_priority_tag_and_pid() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut link = Link::open(&path).unwrap();
        link.write(LogFormat::Text, Level::Error, "error: x", Instant::now());
        let line = received(&daemon);
        assert!(line.starts_with("<27>"), "{line}");
        assert!(line.ends_with(&format!(" forkd[{}]: error: x", std::process::id())), "{line}");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut link = Link::open(&path).unwrap();
        for padding in ["", "x", "xx"] {
            link.write(
                LogFormat::Text,
                Level::Info,
                &(padding.to_owned() + &"€".repeat(MAX_LINE)),
                Instant::now(),
            );
            let length = received(&daemon).len();
            assert!((MAX_LINE - 2..=MAX_LINE).contains(&length), "{length}");
        }
    }

    #[test]
    fn a_restart_of_the_daemon_is_survived_and_the_loss_reported() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("log");
        let now = Instant::now();
        let first = UnixDatagram::bind(&path).unwrap();
        let mut link = Link::open(&path).unwrap();
        drop(first);
        std::fs::remove_file(&path).unwrap();
        link.write(LogFormat::Text, Level::Info, "one", now);
        let second = UnixDatagram::bind(&path).unwrap();
        link.write(LogFormat::Text, Level::Info, "two, within the pause", now);
        link.write(LogFormat::Text, Level::Info, "three", now + FIRST_PAUSE);
        assert!(received(&second).ends_with("warning: log lines were lost count=2"));
        assert!(received(&second).ends_with("three"));
        assert_eq!((link.lost.load(Ordering::Relaxed), link.pause), (0, FIRST_PAUSE));
    }

    #[test]
    fn a_full_socket_does_not_block() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut link = Link::open(&path).unwrap();
        let now = Instant::now();
        let mut sent = 0;
        while link.lost.load(Ordering::Relaxed) == 0 {
            link.write(LogFormat::Text, Level::Info, "x", now);
            sent += 1;
        }
        for _ in 1..sent {
            received(&daemon);
        }
        link.write(LogFormat::Text, Level::Info, "y", now);
        assert!(received(&daemon).ends_with("warning: log lines were lost count=1"));
        assert!(received(&daemon).ends_with(": y"));
    }

    #[test]
    fn an_absent_daemon_is_named_at_start() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("log");
        let error = Syslog::open_first(&[path.to_str().unwrap()], LogFormat::Text).err().unwrap();
        assert_eq!(error.exit_code(), 69);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(path.to_str().unwrap()), "{cause}");
    }
}
