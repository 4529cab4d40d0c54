//! What a program prints becomes lines of the log.
//!
//! Invariant: what is kept is bounded, whatever is printed, and the lines do not depend on how the kernel cuts the output.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shown::shown;
use crate::limit::RateLimit;

/// A line of more bytes is cut into pieces, each a line of its own: a message of this length is what each receiver of syslog
/// should take (RFC 5424, section 6.1).
const LONGEST: usize = 2048;
/// So many lines pass at once: a traceback, or the report of a start.
const AT_ONCE: u32 = 200;
/// And then one in each of these: 100 lines a second are more than anybody reads, and a day of them is about 1 GB.
const PER: Duration = Duration::from_millis(10);
/// How many lines are kept to tell why a program has ended.
const LAST_WORDS: usize = 3;

/// The output of one program.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The beginning of a line, whose end has not been printed yet.
    begun: Vec<u8>,
    limit: RateLimit,
    last: VecDeque<String>,
}

impl Default for Lines {
    fn default() -> Self {
        let limit = RateLimit::new(AT_ONCE, PER);
        Self { begun: Vec::new(), limit, last: VecDeque::with_capacity(LAST_WORDS) }
    }
}

impl Lines {
    /// Takes what was printed next, and tells each line that is at its end, with the number of lines that were left out
    /// before it, since there were too many. Blank lines are passed over.
    pub(crate) fn feed(&mut self, mut output: &[u8], now: Instant, mut tell: impl FnMut(&str, u64)) {
        while !output.is_empty() {
            // one byte more than a line may have: the end of the longest one
            let (next, _) = output.split_at(output.len().min(LONGEST + 1 - self.begun.len()));
            if let Some(end) = next.iter().position(|&byte| byte == b'\n') {
                self.begun.extend_from_slice(&next[..end]);
                output = &output[end + 1..];
                self.end_line(now, &mut tell);
            } else {
                self.begun.extend_from_slice(next);
                output = &output[next.len()..];
                if self.begun.len() > LONGEST {
                    self.cut_line(now, &mut tell);
                }
            }
        }
    }

    /// The program prints nothing more: tells what it has begun, and returns how many lines were left out at the end.
    pub(crate) fn finish(&mut self, now: Instant, mut tell: impl FnMut(&str, u64)) -> u64 {
        self.end_line(now, &mut tell);
        self.limit.take_suppressed()
    }

    /// Its last lines, also those that were left out of the log.
    pub(crate) fn last_words(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    fn end_line(&mut self, now: Instant, tell: &mut impl FnMut(&str, u64)) {
        let line = self.begun.strip_suffix(b"\r").unwrap_or(&self.begun);
        let line = shown(line, usize::MAX);
        self.begun.clear();
        self.tell_line(line, now, tell);
    }

    /// Cuts it between two characters.
    fn cut_line(&mut self, now: Instant, tell: &mut impl FnMut(&str, u64)) {
        let goes_on = |at: &usize| self.begun[*at] & 0b1100_0000 == 0b1000_0000;
        // no character has more than four bytes
        let at = (LONGEST - 3..=LONGEST).rev().find(|at| !goes_on(at)).unwrap_or(LONGEST);
        let piece = shown(&self.begun[..at], usize::MAX);
        self.begun.drain(..at);
        self.tell_line(piece, now, tell);
    }

    fn tell_line(&mut self, mut line: String, now: Instant, tell: &mut impl FnMut(&str, u64)) {
        line.truncate(line.trim_end().len());
        if line.is_empty() {
            return;
        }
        if let Some(suppressed) = self.limit.admit(now) {
            tell(&line, suppressed);
        }
        if self.last.len() == LAST_WORDS {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of an output that is printed in these pieces.
    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut lines, mut told, mut now) = (Lines::default(), Vec::new(), Instant::now());
        let mut tell = |line: &str, suppressed| {
            assert_eq!(suppressed, 0);
            told.push(line.to_owned());
        };
        for piece in pieces {
            lines.feed(piece, now, &mut tell);
            assert!(lines.begun.len() <= LONGEST);
            now += Duration::from_secs(60);
        }
        assert_eq!(lines.finish(now, &mut tell), 0);
        told
    }

    #[test]
    fn lines_end_where_they_do_and_blank_ones_are_passed_over() {
        let output = b"one\r\ntwo  \n\n \t\n\x1b[0m\n  \x1b[1mthree\x1b[0m\n\xff\nfour";
        assert_eq!(lines([&output[..]]), ["one", "two", "  three", "\u{fffd}", "four"]);
        assert_eq!(lines([&b"\n\n"[..]]), [""; 0]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let longest = "x".repeat(LONGEST);
        for end in ["", "\n", "\r\n"] {
            assert_eq!(lines([format!("{longest}{end}").as_bytes()]), [&*longest], "{end:?}");
        }
        assert_eq!(lines([format!("{longest}yz\n").as_bytes()]), [&*longest, "yz"]);
        for before in 0..4 {
            let text = format!("{}{}", "x".repeat(before), "漢🦀é".repeat(1000));
            let pieces = lines([text.as_bytes()]);
            assert_eq!(pieces.concat(), text);
            assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() > LONGEST - 4), "{before}");
        }
        // what is no text is cut somewhere
        assert_eq!(lines([&[0x80; 5000][..]]).concat(), "\u{fffd}".repeat(5000));
    }

    #[test]
    fn too_many_lines_are_counted_and_the_last_ones_kept() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let told = std::cell::RefCell::new(Vec::new());
        let mut tell = |line: &str, suppressed: u64| told.borrow_mut().push((line.to_owned(), suppressed));
        let flood = |from: u32, to: u32| (from..to).map(|n| format!("{n}\n")).collect::<String>();
        lines.feed(flood(0, 1000).as_bytes(), start, &mut tell);
        assert_eq!(told.borrow().len(), AT_ONCE as usize);
        assert!(lines.last_words().eq(["997", "998", "999"]));
        told.borrow_mut().clear();
        // of a second, a hundred
        lines.feed(flood(1000, 2000).as_bytes(), start + Duration::from_secs(1), &mut tell);
        assert_eq!(told.borrow().len(), 100);
        assert_eq!(told.borrow()[..2], [("1000".to_owned(), 800), ("1001".to_owned(), 0)]);
        lines.feed(b"begun", start + Duration::from_secs(1), &mut tell);
        assert_eq!(lines.finish(start + Duration::from_secs(1), &mut tell), 901);
        assert!(lines.last_words().eq(["1998", "1999", "begun"]));
    }

    /// Pieces of lines, of colours and of characters, some of them as long as a line may be.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\x1b[31m".to_vec()),
            "\\PC{0,9}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..9),
            (LONGEST - 5..LONGEST + 5).prop_map(|length| vec![b'x'; length]),
            (600..700_usize).prop_map(|length| "漢".repeat(length).into_bytes()),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_lines_do_not_depend_on_the_pieces(output in output(), sizes in prop::collection::vec(1_usize..3000, 1..9)) {
            let mut rest = &output[..];
            let pieces = sizes.iter().cycle().map_while(|&size| {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                rest = after;
                (!piece.is_empty()).then_some(piece)
            });
            let in_pieces = lines(pieces);
            prop_assert_eq!(&in_pieces, &lines([&output[..]]));
            prop_assert_eq!(&in_pieces, &lines(output.chunks(1)));
            prop_assert!(in_pieces.iter().all(|line| !line.contains(char::is_control)));
        }
    }
}
