//! What standard output can show.

use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::{Error, foreign};

/// What stands for a character where there is ASCII alone; each is as wide as what it stands for.
const ASCII: [(&str, char); 7] =
    [("µ", 'u'), ("×", 'x'), ("–−", '-'), ("█▉▊▋▌", '#'), ("▍▎▏", ' '), ("·", '.'), ("…", '~')];

/// What standard output can show, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    has_colours: bool,
    is_unicode: bool,
    /// How many columns there are; `None` if lines may have any length.
    pub(super) width: Option<usize>,
}

impl Terminal {
    /// Asks the environment and standard output.
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(text_of).unwrap_or_default();
        let asked = text_of("COLUMNS").and_then(|columns| columns.parse().ok());
        let seen = || rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col.into());
        Self {
            has_colours: has_colours(&out),
            is_unicode: is_utf8(&locale),
            width: asked.or_else(seen).filter(|width| *width > 0),
        }
    }

    /// Prints lines; those that begin with "error" are red, and warnings yellow.
    pub(super) fn print(&self, text: &str) -> Result<(), Error> {
        write(&painted(&self.shown(text), self.has_colours)).map(|_| ())
    }

    /// In characters that it has, none of which steers it.
    pub(super) fn shown(&self, text: &str) -> String {
        let has = |c: char| self.is_unicode || c.is_ascii();
        let like = |c| ASCII.iter().find(|(from, _)| from.contains(c)).map_or('?', |(_, to)| *to);
        foreign::lines(text).chars().map(|c| if has(c) { c } else { like(c) }).collect()
    }
}

fn text_of(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// See <https://no-color.org>.
fn has_colours(out: &impl IsTerminal) -> bool {
    text_of("NO_COLOR").is_none() && obeys(out)
}

/// Whether it is a terminal that moves its cursor where it is told to: one that says what it is, and is not dumb
/// (terminfo(5)).
pub(super) fn obeys(out: &impl IsTerminal) -> bool {
    out.is_terminal() && text_of("TERM").is_some_and(|term| !["dumb", "unknown"].contains(&&*term))
}

/// Puts errors in red and warnings in yellow.
fn painted(text: &str, has_colours: bool) -> String {
    let paint = |line: &str| match line.split([' ', ':']).next() {
        Some("errors" | "error") if has_colours => format!("\x1b[31m{line}\x1b[0m\n"),
        Some("warning") if has_colours => format!("\x1b[33m{line}\x1b[0m\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(paint).collect()
}

/// Prints JSON.
pub(super) fn print_json(text: &str) -> Result<(), Error> {
    write(&foreign::json(text)).map(|_| ())
}

/// Writes to standard output what may go to a terminal as it is; tells whether there is still a reader.
pub(super) fn write(text: &str) -> Result<bool, Error> {
    written(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    })
}

/// What came of writing to standard output: whether there is still a reader.
fn written(write: impl FnOnce() -> io::Result<()>) -> Result<bool, Error> {
    match write() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::os("cannot write to standard output", error)),
    }
}

/// Prints what clap has to say on request: the help, or the version.
///
/// # Errors
///
/// [`Error::Os`] if it can't be written; a reader that has gone is no error.
pub fn print_help(help: &clap::Error) -> Result<(), Error> {
    // clap leaves out colours where there is no terminal
    written(|| help.print().and_then(|()| io::stdout().flush())).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let of = |kind: ErrorKind| written(|| Err(kind.into()));
        assert!(written(|| Ok(())).unwrap());
        assert!(!of(ErrorKind::BrokenPipe).unwrap());
        assert_eq!(of(ErrorKind::StorageFull).unwrap_err().exit_code(), 71);
    }

    #[test]
    fn only_what_is_to_be_noticed_has_a_colour() {
        let text = "churn 1\nerrors in churn: 1\nwarning about churn: x\nwarning: y\n";
        assert_eq!(painted(text, false), text);
        let expected = "churn 1\n\x1b[31merrors in churn: 1\x1b[0m\n\x1b[33mwarning about churn: x\x1b[0m\n\
            \x1b[33mwarning: y\x1b[0m\n";
        assert_eq!(painted(text, true), expected);
    }

    #[test]
    fn ascii_stands_for_what_a_terminal_lacks_and_nothing_steers_it() {
        let shown = |is_unicode, text| Terminal { has_colours: false, is_unicode, width: None }.shown(text);
        assert_eq!(shown(true, "5 µs ×8 ██▎ \x1b[2J\n"), "5 µs ×8 ██▎ \\u{1b}[2J\n");
        assert_eq!(shown(false, "5 µs ×8 ██▎ 1–2 é"), "5 us x8 ##  1-2 ?");
        assert!(is_utf8("de_DE.UTF-8") && is_utf8("C.utf8") && !is_utf8("POSIX") && !is_utf8(""));
    }
}
