//! What part of a file a client wants (RFC 9110, section 14).

use super::fields::digits;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// So many bytes from this one on; there is at least one.
    Part {
        offset: u64,
        length: u64,
    },
    NotSatisfiable,
}

/// What a value of the field Range comes to. What is no set of ranges of bytes is ignored, and so are several
/// ranges that could be satisfied: a whole is no more than they ask for, and it can't be made larger by asking
/// for the same bytes many times.
pub(super) fn wanted(value: &[u8], size: u64) -> Wanted {
    ranges(value, size).unwrap_or(Wanted::Whole)
}

/// `None` if the value is malformed or of another unit.
fn ranges(value: &[u8], size: u64) -> Option<Wanted> {
    let at = value.iter().position(|&byte| byte == b'=')?;
    let (unit, set) = (&value[..at], &value[at + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") || set.first().is_some_and(u8::is_ascii_whitespace) {
        return None;
    }
    let mut specs = super::fields::tokens(set).map(|spec| range(spec, size)).peekable();
    specs.peek()?;
    specs.try_fold(Wanted::NotSatisfiable, |before, next| {
        Some(match (before, next?) {
            (found, Wanted::NotSatisfiable) | (Wanted::NotSatisfiable, found) => found,
            _ => Wanted::Whole,
        })
    })
}

/// `None` if it is malformed.
fn range(spec: &[u8], size: u64) -> Option<Wanted> {
    let at = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&spec[..at], &spec[at + 1..]);
    let (offset, end) = match (digits(first), digits(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(0)) if first.is_empty() => return Some(Wanted::NotSatisfiable),
        // the last bytes, of an empty file too, but a part without a byte can't be named
        (None, Some(_)) if first.is_empty() && size == 0 => return Some(Wanted::Whole),
        (None, Some(count)) if first.is_empty() => (size.saturating_sub(count), size),
        _ => return None,
    };
    let is_there = offset < size;
    Some(if is_there { Wanted::Part { offset, length: end - offset } } else { Wanted::NotSatisfiable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wanted_of_ten_bytes() {
        let part = |offset, length| Wanted::Part { offset, length };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-", part(2, 8)),
            ("bytes=2-99", part(2, 8)),
            ("bytes=2-18446744073709551615", part(2, 8)),
            ("bytes=2-99999999999999999999999", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=9-9", part(9, 1)),
            ("Bytes=9-9", part(9, 1)),
            ("bytes=1-2,", part(1, 2)),
            ("bytes=,\t1-2 , 10-", part(1, 2)),
            ("bytes=10-", Wanted::NotSatisfiable),
            ("bytes=99999999999999999999999-", Wanted::NotSatisfiable),
            ("bytes=-0", Wanted::NotSatisfiable),
            ("bytes=10-11,-0", Wanted::NotSatisfiable),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=0-1,3-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
            ("bytes= 1-2", Wanted::Whole),
            ("bytes =1-2", Wanted::Whole),
            ("bytes=1 -2", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1--2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(range.as_bytes(), 10), expected, "{range}");
        }
    }

    #[test]
    fn an_empty_file_has_an_end_but_no_beginning() {
        for (range, expected) in [
            ("bytes=-5", Wanted::Whole),
            ("bytes=0-", Wanted::NotSatisfiable),
            ("bytes=0-0", Wanted::NotSatisfiable),
            ("bytes=-0", Wanted::NotSatisfiable),
            ("bytes=0-,-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(range.as_bytes(), 0), expected, "{range}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_within_the_file(value in "bytes=([0-9]{0,20}-[0-9]{0,20},?){1,3}", size in 0_u64..50) {
            if let Wanted::Part { offset, length } = wanted(value.as_bytes(), size) {
                prop_assert!(length > 0 && offset + length <= size);
            }
        }
    }
}
