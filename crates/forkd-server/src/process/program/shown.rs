//! Bytes of another program as a part of one line.

use std::borrow::Cow;

use forkd_net::is_unprintable;

/// Shows the beginning of a text, in so many bytes at most. What is no UTF-8 becomes U+FFFD, and a tab a space.
///
/// Sequences that move the cursor or change colours are left out (ECMA-48, `CSI`). Other characters that a terminal may obey,
/// or not show, are escaped as in Rust's literals, as in all that forkd prints.
pub(super) fn shown(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.as_ref();
    let mut shown = String::with_capacity(rest.len().min(most));
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\x1b[").and_then(after_sequence) {
            rest = after;
            continue;
        }
        let piece: Cow<'_, str> = match c {
            '\t' => " ".into(),
            _ if is_unprintable(c) => c.escape_debug().to_string().into(),
            _ => rest[..c.len_utf8()].into(),
        };
        if shown.len() + piece.len() > most {
            break;
        }
        shown.push_str(&piece);
        rest = &rest[c.len_utf8()..];
    }
    shown
}

/// What follows a control sequence, of which this is all but the introducer: parameters, intermediate bytes, and a final one.
fn after_sequence(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches(|c| matches!(c, '0'..='?'));
    let rest = rest.trim_start_matches(|c| matches!(c, ' '..='/'));
    rest.strip_prefix(|c| matches!(c, '@'..='~'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> String {
        shown(text.as_bytes(), usize::MAX)
    }

    #[test]
    fn colours_are_left_out_and_the_rest_is_escaped() {
        assert_eq!(all("\x1b[1;31mred\x1b[0m \x1b[?25l\x1b[2J\x1b[ qplain"), "red plain");
        // no whole sequence, and one of another kind
        assert_eq!(all("\x1b[1;3"), r"\u{1b}[1;3");
        assert_eq!(all("\x1b[1\x1b[0mx\x1b"), r"\u{1b}[1x\u{1b}");
        assert_eq!(all("\x1b]0;title\x07"), r"\u{1b}]0;title\u{7}");
        assert_eq!(all("a\tb\r\nc\0"), r"a b\r\nc\0");
        assert_eq!(all("\u{9b}31m\u{202e} é 漢 🦀 \"'\\"), r#"\u{9b}31m\u{202e} é 漢 🦀 "'\"#);
        assert_eq!(shown(b"a\xff\xc3\xa9\xe2\x82", 99), "a\u{fffd}é\u{fffd}");
    }

    #[test]
    fn it_is_cut_between_characters() {
        assert_eq!(shown("aé漢".as_bytes(), 3), "aé");
        assert_eq!(shown("aé漢".as_bytes(), 2), "a");
        assert_eq!(shown(b"a\x07b", 4), "a");
        // what is left out takes no room
        assert_eq!(shown(b"\x1b[31m\x1b[1mab", 2), "ab");
    }

    proptest! {
        #[test]
        fn no_terminal_obeys_it(bytes: Vec<u8>, most in 0_usize..99) {
            let shown = shown(&bytes, most);
            prop_assert!(shown.len() <= most);
            prop_assert!(!shown.contains(is_unprintable) && !shown.contains(char::is_control), "{shown:?}");
        }
    }
}
