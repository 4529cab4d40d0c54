//! A command line taken apart: words, quotes, and no shell.
//!
//! A shell would be a process that isn't the server's, and would be counted with it. A command that
//! needs one is `sh -c '...'`.

/// Splits at spaces, except within quotes or after a backslash, as a shell does; nothing else has a meaning.
///
/// # Errors
///
/// A sentence, if a quote is not closed.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            // within single quotes a backslash is one, and within double quotes before most characters
            (None, '\\') => word.get_or_insert_default().extend(chars.next().filter(|next| *next != '\n')),
            (Some('"'), '\\') => {
                let next = chars.next();
                let has_meaning = next.is_some_and(|next| "$`\"\\\n".contains(next));
                let word = word.get_or_insert_default();
                let next = next.filter(|next| *next != '\n');
                word.extend((!has_meaning).then_some('\\').into_iter().chain(next));
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(format!("{text:?} has a {open} that is not closed")),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (text, expected) in [
            ("  socat  TCP-LISTEN:7,fork EXEC:cat ", vec!["socat", "TCP-LISTEN:7,fork", "EXEC:cat"]),
            ("sh -c 'exec x \"$1\"'", vec!["sh", "-c", "exec x \"$1\""]),
            (r#"a "b \" 'c'" d\ e"#, vec!["a", "b \" 'c'", "d e"]),
            ("a''b '' \"\"", vec!["ab", "", ""]),
            (r"'a\b'", vec![r"a\b"]),
            (r#""a\b \$c \` \\ \n" \n"#, vec![r"a\b $c ` \ \n", "n"]),
            ("a\\\nb \"c\\\nd\"", vec!["ab", "cd"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        assert_eq!(split("a 'b").unwrap_err(), "\"a 'b\" has a ' that is not closed");
    }
}
