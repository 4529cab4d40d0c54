//! The sinks behind the `log` facade: standard error, which may be the journal, and syslog(3).
//!
//! A daemon of many processes writes one log, and parts of what it says come from strangers. So
//! every line leaves in a single system call, without a buffer that a fork could copy; what can't
//! be sent at once is dropped and counted, because a server must not wait for its log; and no value
//! can end a line or pose as another field.
//!
//! # Fork safety
//!
//! The sinks may be used on both sides of a fork. Nothing is buffered, the process id is asked for
//! with each line, and the one lock (in the syslog sink) is held only inside a log call: the
//! process that forks has a single thread, so that thread isn't inside a log call while it forks.

mod format;
mod stderr;
mod syslog;

use std::sync::atomic::{AtomicU64, Ordering};

use ::log::{LevelFilter, Log};

pub use stderr::{caution, complain, complain_about_usage};
pub(crate) use stderr::{go_on_in, is_file};

use crate::Error;
use crate::config::values::{LogFormat, LogLevel, LogSink};

/// Installs the logger of this process and its descendants.
///
/// May be called once. The sink is opened here, so call it before a chroot(2) hides the syslog
/// socket. A program that embeds forkd brings its own logger instead.
///
/// # Errors
///
/// [`Error::Unavailable`] if no syslog daemon listens, [`Error::Internal`] if there is a logger
/// already.
pub fn init(sink: LogSink, level: LogLevel, format: LogFormat) -> Result<(), Error> {
    let logger: Box<dyn Log> = match sink {
        LogSink::Stderr => Box::new(stderr::Stderr::new(format)),
        LogSink::Syslog => Box::new(syslog::Syslog::open(format)?),
    };
    ::log::set_boxed_logger(logger)
        .map_err(|_| Error::Internal("cannot install the logger: there is one already".into()))?;
    set_level(level);
    Ok(())
}

/// Changes the least important level that is written, such as when the configuration is read again.
pub fn set_level(level: LogLevel) {
    ::log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    });
}

static LOST: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines could not be written, such as to a full pipe or a dead syslog daemon.
///
/// # Fork safety
///
/// Counts for this process; a child goes on from the number its parent had at the fork.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn count_lost() {
    LOST.fetch_add(1, Ordering::Relaxed);
}
