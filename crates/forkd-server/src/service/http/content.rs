//! The content of a request: it is dropped, but where it ends the next request begins.
//!
//! Invariant: what is taken depends on the bytes alone, and not on the pieces in which they come. A line of
//! the chunked coding ends with CR LF and nothing else: where two readers disagree about that, a request can
//! be hidden from one of them.

use super::fields::{Framed, is_token};
use super::request::HEAD;
use super::response::{Refusal, Status};
use crate::transport::LEFTOVER;

/// What is still to come of the content of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
}

impl Content {
    pub(super) fn new(framed: Framed) -> Self {
        match framed {
            Framed::Length(length) => Self::Length(length),
            Framed::Chunked => Self::Chunked(Chunked::default()),
        }
    }

    /// Takes from the beginning of `input` what belongs to it, and says how many bytes those are.
    ///
    /// # Errors
    ///
    /// A refusal if the coding is broken, or the content too long.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        match self {
            Self::Length(left) => {
                let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunked) => chunked.take(input),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == State::Over,
        }
    }
}

/// A reader of the chunked transfer coding (RFC 9112, section 7.1).
///
/// How long the content will be is not said beforehand, so it is read as far as one that is not wanted would
/// be, too: [`LEFTOVER`] bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
    /// The size of the chunk, or what is left of it.
    size: u64,
    /// The sizes of all chunks.
    total: u64,
    /// Bytes of extensions and trailers.
    extra: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    FirstDigit,
    Digit,
    /// White space after the size, and then an extension.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// A trailer, or the end.
    Trailer,
    Name,
    Value,
    ValueLf,
    LastLf,
    Over,
}

impl Chunked {
    fn take(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while self.state != State::Over
            && let Some(&byte) = input.get(at)
        {
            if self.state == State::Data {
                let data = usize::try_from(self.size).unwrap_or(usize::MAX).min(input.len() - at);
                at += data;
                self.size -= data as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.next(byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Result<State, Refusal> {
        let is_text = byte == b'\t' || !byte.is_ascii_control();
        let next = match (self.state, byte) {
            (State::FirstDigit | State::Digit, byte) if byte.is_ascii_hexdigit() => self.digit(byte),
            (State::Digit | State::Extension, b'\r') => State::SizeLf,
            (State::Digit | State::Space, b' ' | b'\t') => State::Space,
            (State::Digit | State::Space, b';') => State::Extension,
            (State::Extension, _) if is_text => State::Extension,
            (State::SizeLf, b'\n') => self.begin()?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::FirstDigit,
            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer | State::Name, byte) if is_token(byte) => State::Name,
            (State::Name, b':') => State::Value,
            (State::Value, b'\r') => State::ValueLf,
            (State::Value, _) if is_text => State::Value,
            (State::ValueLf, b'\n') => State::Trailer,
            (State::LastLf, b'\n') => State::Over,
            _ => return Err(Refusal::bad("the chunked content is broken")),
        };
        if matches!(next, State::Space | State::Extension | State::Name | State::Value) {
            self.extra += 1;
        }
        if self.extra > HEAD {
            let why = "there is too much beside the chunked content";
            return Err(Refusal::new(Status::FIELDS_TOO_LARGE, why));
        }
        Ok(next)
    }

    /// Takes another digit of a size. What is too large stays so.
    fn digit(&mut self, byte: u8) -> State {
        let digit = (byte as char).to_digit(16).unwrap_or(0);
        self.size = self.size.saturating_mul(16).saturating_add(u64::from(digit));
        State::Digit
    }

    fn begin(&mut self) -> Result<State, Refusal> {
        self.total = self.total.saturating_add(self.size);
        if self.total > LEFTOVER as u64 {
            let why = "the content is too long";
            return Err(Refusal::new(Status::CONTENT_TOO_LARGE, why));
        }
        Ok(if self.size == 0 { State::Trailer } else { State::Data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes belong to it, if it is whole, or the status of the refusal.
    fn taken<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<usize>, u16> {
        let mut content = Content::new(Framed::Chunked);
        let mut all = 0;
        for piece in pieces {
            all += content.take(piece).map_err(|refusal| refusal.status.0)?;
        }
        Ok(content.is_over().then_some(all))
    }

    #[test]
    fn it_is_taken_to_its_end_and_no_further() {
        for whole in [
            "0\r\n\r\n",
            "000\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "A\r\n0\r\n\r\n45678\r\n0\r\n\r\n",
            "3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n",
            "3 ; a = b\r\nabc\r\n0\r\n\r\n",
            "1\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\nContent-Length: 7\r\nEmpty:\r\n\r\n",
        ] {
            assert_eq!(
                taken([[whole.as_bytes(), b"GET /"].concat().as_slice()]),
                Ok(Some(whole.len())),
                "{whole:?}"
            );
            assert_eq!(taken([&whole.as_bytes()[..whole.len() - 1]]), Ok(None), "{whole:?}");
            assert_eq!(taken(whole.as_bytes().chunks(1)), Ok(Some(whole.len())), "{whole:?}");
        }
    }

    #[test]
    fn what_is_broken_or_too_much_is_refused() {
        for broken in [
            "\r\n",
            "x\r\n",
            "0x1\r\n",
            "+1\r\n",
            "-1\r\n",
            " 1\r\n",
            ";a\r\n",
            "1 \r\n",
            "1\n",
            "0\n\n",
            "0\r\n\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na0\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX : y\r\n",
            "0\r\n: y\r\n",
            "0\r\nX: y\n",
            "0\r\nX: \0",
            "1;a\n\r\n",
            "1;a\rb",
            "1;\0",
            "0\r\r\n",
        ] {
            assert_eq!(taken([broken.as_bytes()]), Err(400), "{broken:?}");
        }
        assert_eq!(taken([b"ffffffffffffffffffffffff\r\n".as_slice()]), Err(413));
        assert_eq!(taken([b"1000001\r\n".as_slice()]), Err(413));
        assert_eq!(taken([b"1000000\r\n".as_slice()]), Ok(None));
        for much in [format!("1;{}", "a".repeat(HEAD)), format!("0\r\nX: {}", "a".repeat(HEAD))] {
            assert_eq!(taken([much.as_bytes()]), Err(431));
        }
    }

    #[test]
    fn a_length_is_counted() {
        let mut content = Content::new(Framed::Length(5));
        assert_eq!((content.take(b"abc"), content.is_over()), (Ok(3), false));
        assert_eq!((content.take(b"defg"), content.is_over()), (Ok(2), true));
        assert!(Content::new(Framed::Length(0)).is_over());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[0-3a;: \r\n]{0,30}", size in 1_usize..5) {
            let at_once = taken([text.as_bytes()]);
            prop_assert_eq!(taken(text.as_bytes().chunks(size)), at_once);
        }
    }
}
