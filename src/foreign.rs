//! What other programs, files and clients say: it is read with a bound, and shown as text that no terminal obeys.
//!
//! Invariant: whatever forkd prints passes one of [`line`], [`lines`] and [`json`] first, so that no socket path,
//! peer, key of a file or answer of a server reaches a terminal as a control sequence (ECMA-48), or poses as
//! another line. Control and invisible characters are escaped as in Rust's literals, in JSON as in JSON's.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::{self, ErrorKind, Read};

use forkd_net::is_unprintable;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A text as a part of one line.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unprintable(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// A text of several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\n' && is_unprintable(c)) {
        return Cow::Borrowed(text);
    }
    let shown: Vec<Cow<'_, str>> = text.split('\n').map(line).collect();
    Cow::Owned(shown.join("\n"))
}

/// JSON, which means the same afterwards. A control character can stand in a string of valid JSON only above
/// U+001F; between strings it is white space.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\n' && is_unprintable(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            '\0'..' ' => shown.push(' '),
            _ if is_unprintable(c) => {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                // writing to a String does not fail
                units.iter().for_each(|unit| _ = write!(shown, "\\u{unit:04x}"));
            }
            _ => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Reads JSON that another program has written; each of its strings is a part of one line.
///
/// # Errors
///
/// If it is no JSON or not the JSON of a `T`, with the place.
pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut value = serde_json::from_slice(text)?;
    escape(&mut value);
    // of the text, an error says where it is
    T::deserialize(value).or_else(|_| serde_json::from_slice(text))
}

fn escape(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = line(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(escape),
        Value::Object(members) => {
            let escaped = std::mem::take(members).into_iter().map(|(key, mut value)| {
                escape(&mut value);
                (line(&key).into_owned(), value)
            });
            *members = escaped.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads to the end, which must come within so many bytes.
///
/// # Errors
///
/// Those of reading; [`ErrorKind::FileTooLarge`] if there is more.
pub(crate) fn read(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_long(most)) } else { Ok(bytes) }
}

/// Why something is not read to its end.
pub(crate) fn too_long(most: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {} MiB", most >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence each of C0, DEL, C1 and the marks of direction; an accent alone; what is shown as it is.
    const ALL: &str = "a\x1b[2J\r\x07\x7f\u{9b}31m\u{202e}\u{2066}\u{200b}\u{ad} é ü \"'\\ 漢 🦀";

    #[test]
    fn nothing_that_is_printed_steers_a_terminal() {
        let shown = line(ALL);
        assert_eq!(shown, r#"a\u{1b}[2J\r\u{7}\u{7f}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{ad} é ü "'\ 漢 🦀"#);
        assert!(matches!(line("tcp://[::1]:7 é"), Cow::Borrowed(_)));
        assert_eq!(
            (line("a\nb\tc"), lines("a\nb\tc\n\x1b")),
            (r"a\nb\tc".into(), "a\nb\\tc\n\\u{1b}".into())
        );
        // of one character each, whichever it is
        let steers =
            |c: &char| c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
        for c in ('\0'..=char::MAX).filter(steers) {
            assert!(line(&c.to_string()).is_ascii(), "{c:?}");
        }
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ ALL: [ALL, 1, null, "\u{e0001}"] });
        let text = serde_json::to_string_pretty(&value).unwrap().replace("  ", "\t\r");
        let shown = json(&text);
        assert!(!shown.contains(|c| c != '\n' && is_unprintable(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }

    #[test]
    fn strings_of_others_are_read_as_parts_of_a_line() {
        type Map = std::collections::BTreeMap<String, Vec<String>>;
        let map: Map = from_json(br#"{"\u001b[2J": ["a\nb", "\u009b31m", "fine"]}"#).unwrap();
        assert_eq!(
            map,
            [(r"\u{1b}[2J".to_owned(), [r"a\nb", r"\u{9b}31m", "fine"].map(Into::into).into())].into()
        );
        let why = from_json::<Map>(b"{\"a\":\n 7}").unwrap_err().to_string();
        assert!(why.contains("line 2 column"), "{why}");
        assert!(from_json::<Map>(b"{").is_err());
    }

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        assert_eq!(read(&b"abc"[..], 3).unwrap(), b"abc");
        assert_eq!(read(&b"abcd"[..], 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let why = read(std::io::repeat(0), 1 << 20).unwrap_err().to_string();
        assert_eq!(why, "it has more than 1 MiB");
    }
}
