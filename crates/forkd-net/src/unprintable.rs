//! What no line that is printed may have.

/// Whether a terminal may obey a character, or not show it: C0 and C1 controls, DEL, marks of direction and
/// whatever else has no glyph of its own.
///
/// ```
/// use forkd_net::is_unprintable;
/// assert!(['\x1b', '\n', '\u{9b}', '\u{202e}'].into_iter().all(is_unprintable));
/// assert!(!['a', ' ', 'é', '"', '\\'].into_iter().any(is_unprintable));
/// ```
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    // what Rust escapes beside these are the two quotes and the backslash
    !matches!(c, '"' | '\'' | '\\') && (!c.is_ascii_graphic() && c != ' ') && c.escape_debug().len() > 1
}
