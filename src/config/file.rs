//! The configuration file: a `[daemon]` table and `[[listen]]` tables, in TOML.
//!
//! Invariant: whatever is wrong in a file is reported with file, line and column and an excerpt, also
//! where only two keys together are wrong.

use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::options::{DaemonOptions, ListenOptions};
use super::values::read_tables;
use crate::{Error, foreign};
use forkd_net::unit::{self, Attempt};

/// In bytes: many times what thousands of `[[listen]]` tables take.
const LARGEST: u64 = 16 << 20;

/// What a file says.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tables {
    /// The `[daemon]` table.
    pub(super) daemon: DaemonOptions,
    /// The `[[listen]]` tables, in order.
    #[serde(deserialize_with = "read_tables")]
    pub(super) listen: Vec<ListenOptions>,
}

/// A file that was read; it keeps the text so that an error can point into it.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    text: String,
    /// What it says.
    pub(super) tables: Tables,
}

impl File {
    /// Reads and parses the file.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it can't be read, and as for [`parse`](Self::parse).
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = bytes_of(path).map_err(|error| {
            let hint = unit::hint(Attempt::Read(path), &error);
            Error::Config(format!("cannot read the configuration file {}: {error}", path.display()))
                .advising(hint)
        })?;
        Self::parse(path, bytes)
    }

    /// Parses what stands in the file; errors name its path.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is no TOML, or has an unknown key or an impossible value.
    pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let start = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            Error::Config(point(path, &text, start..start, "this is not UTF-8, as TOML has to be"))
        })?;
        let tables = toml::from_str(&text).map_err(|error| {
            Error::Config(point(path, &text, error.span().unwrap_or_default(), error.message()))
        })?;
        Ok(Self { path: path.to_owned(), text, tables })
    }

    /// Makes an error that points at the value of `key` in the `[[listen]]` table with index `group`, or at
    /// the table if it has no such key.
    pub(super) fn error(&self, group: usize, key: &str, why: &str) -> Error {
        let span = find(&self.text, group, key).unwrap_or_default();
        Error::Config(point(&self.path, &self.text, span, &format!("{key} {why}")))
    }
}

/// Reads a regular file. Of anything else, such as a FIFO without a writer, a master might wait for the end,
/// and it serves no client meanwhile.
pub(super) fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    // or it would wait for a writer here already
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    foreign::read(file, LARGEST)
}

/// Finds a key's value in bytes of `text`, which has been parsed before.
fn find(text: &str, group: usize, key: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?.into_inner();
    let table = document.get("listen")?.get_ref().get(group)?;
    Some(table.get_ref().get(key).unwrap_or(table).span())
}

/// Writes `FILE:LINE:COLUMN: MESSAGE` (counted from 1, columns in characters) and the line with a caret.
fn point(path: &Path, text: &str, span: Range<usize>, message: &str) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    // as it is shown, so that the caret stands below what it means
    let shown = |part: &str| foreign::line(&part.replace('\t', " ")).into_owned();
    let content = shown(text[start..].lines().next().unwrap_or_default());
    let indent = shown(&before[start..]).chars().count();
    // a value that spans several lines is marked to the end of its first
    let marked =
        text.get(span).and_then(|value| value.lines().next()).map_or(0, |value| shown(value).chars().count());

    let gutter = " ".repeat(line.to_string().len());
    let caret = " ".repeat(indent) + &"^".repeat(marked.max(1));
    let path = path.display().to_string();
    let (path, message) = (foreign::line(&path), foreign::line(message));
    let column = before[start..].chars().count() + 1;
    format!("{path}:{line}:{column}: {message}\n{gutter} |\n{line} | {content}\n{gutter} | {caret}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<File, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}/", dir.path().display());
        File::read(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn reads_both_tables() {
        let file = read(concat!(
            "[daemon]\ngrace = '5s'\nlog-level = 'debug'\numask = '027'\n",
            "[[listen]]\nendpoints = ['tcp://a:1', 'unix:///x']\nworkers = 8\n[[listen]]\nworkers = '4..32'\n",
        ));
        let Tables { daemon, listen } = file.unwrap().tables;
        assert_eq!(daemon.grace.unwrap().to_string(), "5s");
        assert_eq!(daemon.umask.unwrap().0, 0o27);
        assert_eq!(listen[0].endpoints.len(), 2);
        assert_eq!(listen[1].workers.unwrap().to_string(), "4..32");
    }

    #[test]
    fn an_error_shows_the_place() {
        assert_eq!(
            read("# hello\n[[listen]]\nmodel = \"fibres\"\n").unwrap_err(),
            "f.toml:3:9: unknown variant `fibres`, expected one of `fork`, `prefork`, `iterative`, `thread`, `event`, `coroutine`\n  |\n3 | model = \"fibres\"\n  |         ^^^^^^^^"
        );
    }

    #[test]
    fn each_kind_of_error_has_its_position() {
        for (text, expected) in [
            ("grace = '1s'", "f.toml:1:1: unknown field `grace`, expected `daemon` or `listen`"),
            (
                "[daemon]\n pidfle = ''",
                "f.toml:2:2: unknown field `pidfle`, expected one of `grace`, `drain-delay`,",
            ),
            (
                "[daemon]\nlog-level = 'loud'",
                "f.toml:2:13: unknown variant `loud`, expected one of `error`, `warn`",
            ),
            ("[daemon]\ngrace = 10", "f.toml:2:9: 10 has no unit; add a unit"),
            ("[daemon]\ngrace = true", "f.toml:2:9: invalid type: boolean `true`, expected a duration"),
            (
                "[daemon]\numask = 27",
                "f.toml:2:9: invalid type: integer `27`, expected an octal mode in quotes, such as \"0600\"",
            ),
            ("[daemon]\numask = '9'", "f.toml:2:9: \"9\" is not an octal mode"),
            ("[[listen]]\nworkers = 0", "f.toml:2:11: 0 is not a possible number of workers"),
            ("[[listen]]\nworkers = '4..2'", "f.toml:2:11: 4..2 is not a possible number of workers"),
            ("[[listen]]\nbacklog = -1", "f.toml:2:11: invalid value: integer `-1`"),
            (
                "[[listen]]\nendpoints = ['udp://é:1']",
                "f.toml:2:14: endpoint \"udp://é:1\" has a host that is neither",
            ),
            (
                "[listen]\nworkers = 3",
                "f.toml:1:1: invalid type: map, expected a table for each group of endpoints: write [[listen]], with",
            ),
            (
                "[[listen]]\nendpoints = 'tcp://a:1'",
                "f.toml:2:13: invalid type: string \"tcp://a:1\", expected a list in brackets",
            ),
            (
                "[[listen]]\nexec = 'cat'",
                "f.toml:2:8: invalid type: string \"cat\", expected a list in brackets",
            ),
            ("[[listen]]\nendpoints = []", "f.toml:2:13: the list is empty; fill it, or leave it out"),
            ("[[listen]]\nroute = [\n]", "f.toml:2:9: the list is empty"),
            ("listen = []", "f.toml:1:10: the list is empty"),
            ("\n\n[daemon", "f.toml:3:8: unclosed table"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown() {
        assert_eq!(
            read(b"[daemon]\nuser = '\xc3\xa9\xff'\n").unwrap_err(),
            "f.toml:2:10: this is not UTF-8, as TOML has to be\n  |\n2 | user = 'é\u{fffd}'\n  |          ^"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_the_caret_stands_below_it() {
        assert_eq!(
            read("\t'\u{9b}2J\u{202e}' = \"\u{7f}\"\n").unwrap_err().lines().collect::<Vec<_>>(),
            [
                r"f.toml:1:12: invalid basic string, expected non-double-quote visible characters, `\`",
                "  |",
                r#"1 |  '\u{9b}2J\u{202e}' = "\u{7f}""#,
                "  |                        ^^^^^^",
            ]
        );
        let error = read("[daemon]\n\"\\u001b[2J\\n\" = 1\n").unwrap_err();
        assert!(error.starts_with(r"f.toml:2:1: unknown field `\u{1b}[2J\n`, expected"), "{error}");
        assert!(error.ends_with("\n  | ^^^^^^^^^^^^^"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_configuration_is_not_read_into_memory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let error = File::read(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("it has more than 16 MiB"), "{error}");
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = File::read(Path::new("/nowhere/f.toml")).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("/nowhere/f.toml: No such file"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, dir.path(), Path::new("/dev/zero")] {
            let error = File::read(path).unwrap_err();
            assert_eq!(error.exit_code(), 78);
            let expected = format!("{}: it is no regular file", path.display());
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn points_at_a_value_or_its_table() {
        let file = read("[[listen]]\n[[listen]]\nworkers = 4\n").unwrap();
        let place = |group, key| {
            let error = file.error(group, key, "is odd").to_string();
            error.rsplit_once("f.toml:").unwrap().1.lines().next().unwrap().to_owned()
        };
        assert_eq!(place(1, "workers"), "3:11: workers is odd");
        assert_eq!(place(0, "endpoints"), "1:1: endpoints is odd");
    }

    #[test]
    fn points_at_any_place_without_panic() {
        for (text, span) in [("", 0..0), ("", 7..9), ("é", 1..2), ("a\n", 2..2), ("a\r\nb", 1..3)] {
            point(Path::new("f"), text, span, "x");
        }
    }
}
