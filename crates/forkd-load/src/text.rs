//! Text for people: numbers that can be read, and columns that line up.

use std::fmt::Write;
use std::time::Duration;

/// Makes lines of rows: the first `left` columns start at the left, the others end at the right.
pub fn columns(rows: &[Vec<String>], left: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |k: usize| rows.iter().filter_map(|row| row.get(k)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|k| width(k).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (k, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if k > 0 { "  " } else { "" };
            let _ = if k < left {
                write!(line, "{gap}{cell:<width$}")
            } else {
                write!(line, "{gap}{cell:>width$}")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A rounded number in groups of three digits.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// A number with three digits, or more before the point, as in "1.23", "123" and "12,345".
pub fn three_digits(number: f64) -> String {
    match number.abs() {
        size if size < 9.995 => format!("{number:.2}"),
        size if size < 99.95 => format!("{number:.1}"),
        _ => thousands(number),
    }
}

/// A span with three digits, as in "1.23 ms".
pub fn span(span: Duration) -> String {
    micros(span.as_nanos() as f64 / 1e3)
}

/// The same of microseconds.
pub fn micros(micros: f64) -> String {
    let (value, unit) = match micros.abs() {
        size if size < 999.5 => (micros, "µs"),
        size if size < 999.5e3 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// Names in a row, as in "a, b and c".
pub fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Lines of at most `width` characters, broken between words.
pub fn wrapped(text: &str, width: Option<usize>) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        let length = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && width.is_some_and(|width| length > width) {
            lines.push_str(&line);
            lines.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_three_digits() {
        let of = |nanos| span(Duration::from_nanos(nanos));
        assert_eq!(of(0), "0.00 µs");
        assert_eq!(of(1_234), "1.23 µs");
        assert_eq!(of(9_999), "10.0 µs");
        assert_eq!(of(123_456), "123 µs");
        assert_eq!(of(999_600), "1.00 ms");
        assert_eq!(of(12_345_678), "12.3 ms");
        assert_eq!(of(2_000_000_000), "2.00 s");
    }

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0.4, -0.4, 12.0, 999.0, 1000.0, 1_234_567.8, -123.0, -1234.0].map(thousands);
        assert_eq!(numbers, ["0", "0", "12", "999", "1,000", "1,234,568", "-123", "-1,234"]);
        assert_eq!([0.0, 9.999, 99.96, 12_345.6].map(three_digits), ["0.00", "10.0", "100", "12,346"]);
    }

    #[test]
    fn numbers_end_where_their_column_ends() {
        let rows = [["a", "b", "1"], ["ää", "", "22"]].map(|row| row.map(ToOwned::to_owned).to_vec());
        assert_eq!(columns(&rows, 2), "a   b   1\nää     22\n");
        assert_eq!(columns(&[], 1), "");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("a bc  def g", Some(4)), "a bc\ndef\ng\n");
        assert_eq!(wrapped("muchtoolong a", Some(4)), "muchtoolong\na\n");
        assert_eq!(wrapped("a bc", None), "a bc\n");
    }

    #[test]
    fn names_in_a_row() {
        let names = ["a", "b", "c"].map(ToOwned::to_owned);
        assert_eq!([0, 1, 2, 3].map(|n| listed(&names[..n])), ["", "a", "a and b", "a, b and c"]);
    }
}
