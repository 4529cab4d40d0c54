//! Log lines on standard error: for a terminal, a supervisor's pipe, or the journal.
//!
//! The invariant: one write(2) per line, straight to the descriptor. Processes that share it never
//! mix their lines, and a fork has no buffer to copy.

use std::io::{self, Stderr as Handle};
use std::os::fd::AsFd;
use std::time::SystemTime;

use ::log::{Level, Log, Metadata, Record};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{dup2_stderr, write};

use super::{count_lost, format};
use crate::config::values::LogFormat;
use crate::foreign;

/// The logger that writes to standard error.
pub(super) struct Stderr {
    handle: Handle,
    format: LogFormat,
    is_journal: bool,
}

impl Stderr {
    /// Makes the logger, and finds out whether the journal reads it.
    pub(super) fn new(format: LogFormat) -> Self {
        let handle = io::stderr();
        let is_journal = is_journal(&handle);
        Self { handle, format, is_journal }
    }

    fn line(&self, record: &Record<'_>) -> String {
        let json = || format::json(record, SystemTime::now(), std::process::id());
        match self.format {
            // the journal takes the priority from <N>, off the line, and adds the name itself: sd-daemon(3)
            LogFormat::Json if self.is_journal => for_journal(record.level(), &json()),
            LogFormat::Text if self.is_journal => for_journal(record.level(), &format::text(record)),
            LogFormat::Json => json() + "\n",
            LogFormat::Text => format!("forkd: {}\n", format::text(record)),
        }
    }
}

fn for_journal(level: Level, line: &str) -> String {
    format!("<{}>{line}\n", format::severity(level))
}

/// Says on standard error why the program ends; for the journal, as an error.
pub fn complain(sentence: &str) {
    say(Level::Error, "forkd: ", &format!("error: {sentence}\n"));
}

/// Says on standard error what is unusual about the way in which the program ends; for the journal, as a warning.
pub fn caution(sentence: &str) {
    say(Level::Warn, "forkd: ", &format!("warning: {sentence}\n"));
}

/// Says on standard error what is wrong with the command line, in a text of several lines; for the journal, as
/// errors.
pub fn complain_about_usage(text: &str) {
    say(Level::Error, "", text);
}

fn say(level: Level, name: &str, text: &str) {
    let (handle, text) = (io::stderr(), foreign::lines(text));
    let text = if is_journal(&handle) { each_line(level, &text) } else { format!("{name}{text}") };
    // if it fails, there is no other place to report it
    let _ = write(&handle, text.as_bytes());
}

/// Each line is a message of its own in the journal, and an empty one is none.
fn each_line(level: Level, text: &str) -> String {
    text.lines().filter(|line| !line.is_empty()).map(|line| for_journal(level, line)).collect()
}

/// Whether this is a file, and not a terminal, a pipe or the journal.
pub(crate) fn is_file(fd: impl AsFd) -> bool {
    fstat(fd)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG)
}

/// Makes another file standard error, where that is a file: logrotate(8) may have moved it away. Processes that are
/// there already go on in the old one.
pub(crate) fn go_on_in(file: impl AsFd) {
    if is_file(io::stderr()) && is_file(&file) {
        // if it fails, the old one is as good as before
        let _ = dup2_stderr(file);
    }
}

fn is_journal(handle: &Handle) -> bool {
    is_same_file(handle, &std::env::var("JOURNAL_STREAM").unwrap_or_default())
}

/// Whether a descriptor is the stream that JOURNAL_STREAM ("device:inode") speaks of. The variable
/// alone proves nothing: it's inherited by programs whose standard error has been redirected. See
/// systemd.exec(5).
fn is_same_file(fd: impl AsFd, journal_stream: &str) -> bool {
    fstat(fd).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == journal_stream)
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = self.line(record);
        // A reader that is behind must not hold the daemon: a pipe that polls writable takes a line of
        // up to PIPE_BUF (pipe(7)) at once. O_NONBLOCK would be the invoker's, too.
        let mut fds = [PollFd::new(self.handle.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO) == Ok(0) {
            count_lost();
            return;
        }
        // past `std::io::Stderr`, which would split a line that the kernel takes in parts, and lock
        let result = loop {
            match write(&self.handle, line.as_bytes()) {
                Err(Errno::EINTR) => {}
                result => break result,
            }
        };
        // there is no place to report it: EPIPE means the reader is gone, EAGAIN that it is behind
        if result != Ok(line.len()) {
            count_lost();
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn line(format: LogFormat, is_journal: bool) -> String {
        let record = Record::builder().level(::log::Level::Warn).args(format_args!("x")).build();
        Stderr { handle: io::stderr(), format, is_journal }.line(&record)
    }

    #[test]
    fn the_last_words_are_an_error_in_each_line_of_the_journal() {
        let text = "error: x\n  |\n\nUsage: y\n";
        assert_eq!(each_line(Level::Error, text), "<3>error: x\n<3>  |\n<3>Usage: y\n");
    }

    #[test]
    fn the_journal_gets_a_priority_and_others_a_name() {
        assert_eq!(line(LogFormat::Text, false), "forkd: warning: x\n");
        assert_eq!(line(LogFormat::Text, true), "<4>warning: x\n");
        for (is_journal, start) in [(false, "{\"ts\":"), (true, "<4>{\"ts\":")] {
            let line = line(LogFormat::Json, is_journal);
            assert!(line.starts_with(start) && line.ends_with("\"msg\":\"x\"}\n"), "{line}");
        }
    }

    #[test]
    fn the_journal_is_known_by_its_inode() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        assert!(is_same_file(&file, &format!("{}:{}", metadata.dev(), metadata.ino())));
        assert!(!is_same_file(&file, "1:1"));
        assert!(!is_same_file(&file, ""));
    }
}
