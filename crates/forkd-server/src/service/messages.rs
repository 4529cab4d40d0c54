//! Where one message of a stream ends and the next begins.

/// The longest line that is waited for; what is longer is taken in pieces of this size.
const LONGEST: usize = 4096;

/// What a stream's bytes are cut into.
///
/// ```
/// use forkd_server::{Protocol, Reply, service::{Ack, Framing}};
/// let [mut by_read, mut by_line] = [Framing::Read, Framing::Line].map(|framing| Ack::new("ok", framing));
/// assert_eq!((by_read.received(b"he"), by_line.received(b"he")), (Reply::Send(b"ok"), Reply::Wait));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// What one read brings, as in the textbook: right while a person types, or a client waits for each
    /// answer. Several lines in one read are several messages.
    #[default]
    Read,
    /// A line, however it comes in.
    Line,
}

/// Cuts a stream into messages, which have no line ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Messages {
    framing: Framing,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Messages {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, begun: Vec::new() }
    }

    /// Calls `on` with each message that `input` completes, until it returns false.
    pub(super) fn feed(&mut self, input: &[u8], mut on: impl FnMut(&[u8]) -> bool) {
        for piece in input.split_inclusive(|&byte| byte == b'\n') {
            let is_whole = piece.ends_with(b"\n") || self.framing == Framing::Read;
            let line = match self.begun.is_empty() && is_whole {
                true => piece,
                false => {
                    self.begun.extend_from_slice(piece);
                    &self.begun
                }
            };
            if is_whole || line.len() >= LONGEST {
                let goes_on = on(line.trim_ascii_end());
                self.begun.clear();
                if !goes_on {
                    return;
                }
            }
        }
    }

    /// The line that was begun when the client ended.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.begun);
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(framing: Framing, reads: &[&str]) -> Vec<String> {
        let (mut messages, mut all) = (Messages::new(framing), Vec::new());
        for read in reads {
            messages.feed(read.as_bytes(), |message| {
                all.push(String::from_utf8_lossy(message).into_owned());
                true
            });
        }
        all.extend(messages.rest().map(|rest| String::from_utf8_lossy(&rest).into_owned()));
        all
    }

    #[test]
    fn a_read_is_a_message_or_several_lines() {
        assert_eq!(cut(Framing::Read, &["0", "exit\r\n", "a\nb\n", "\n"]), ["0", "exit", "a", "b", ""]);
    }

    #[test]
    fn a_line_is_a_message_however_it_comes() {
        assert_eq!(cut(Framing::Line, &["ex", "it", "\r\n0\nres", "t"]), ["exit", "0", "rest"]);
    }

    #[test]
    fn no_client_makes_us_remember_without_end() {
        let long = "x".repeat(3 * LONGEST);
        let mut messages = Messages::new(Framing::Line);
        let mut count = 0;
        for byte in long.as_bytes().chunks(100) {
            messages.feed(byte, |_| {
                count += 1;
                true
            });
            assert!(messages.begun.len() < LONGEST);
        }
        assert_eq!(count, 2);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_reads(text in "[a-c\n]{0,60}", size in 1_usize..9) {
            let bytes: Vec<&str> = text.as_bytes().chunks(size).map(|c| std::str::from_utf8(c).unwrap()).collect();
            prop_assert_eq!(cut(Framing::Line, &bytes), cut(Framing::Line, &[text.as_str()]));
        }
    }
}
