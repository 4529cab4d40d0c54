//! What is sent, so that what comes back can be verified.
//!
//! The invariant: a message follows from seed, client and number, and no two of a run are alike (from 12
//! bytes on). A server that mixes clients up, sends an old answer again, or loses a byte is found out.
//! Nothing is stored per message.

/// After how many bytes the pattern repeats itself: a prime, so no block of a power of two hides in it.
const PERIOD: usize = 16_381;

/// How many characters tell messages of a run apart, and how many of these are the number.
const STAMP: usize = 11;
const DIGITS: usize = 7;

/// The fewest bytes that hold a stamp and the line's end.
pub(super) const STAMPED: usize = STAMP + 1;

/// All messages of a run, of one size.
#[derive(Debug)]
pub(super) struct Messages {
    seed: u64,
    size: usize,
    /// Printable characters without a newline, a period and a message long.
    pattern: Vec<u8>,
}

/// One message: its stamp, a piece of the pattern, and a newline, for servers that read lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    stamp: [u8; STAMP],
    size: usize,
    body: &'a [u8],
}

impl Messages {
    /// Prepares messages of `size` bytes, at least 1.
    pub(super) fn new(seed: u64, size: usize) -> Self {
        let mut state = seed;
        let period: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            b'!' + (scramble(state) % 94) as u8
        })
        .take(PERIOD)
        .collect();
        let pattern = period.iter().copied().cycle().take(PERIOD + size).collect();
        Self { seed, size, pattern }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The message of this client with this number.
    pub(super) fn message(&self, client: usize, number: u64) -> Message<'_> {
        let whose = scramble(self.seed) ^ client as u64;
        let mut stamp = [0; STAMP];
        for (i, character) in stamp.iter_mut().enumerate() {
            let digits = if i < DIGITS { number >> (6 * i) } else { whose >> (6 * (i - DIGITS)) };
            *character = b'0' + (digits & 63) as u8;
        }
        let at = scramble(whose ^ number << 24) as usize % PERIOD;
        let length = self.size.saturating_sub(STAMPED);
        Message { stamp, size: self.size, body: &self.pattern[at..at + length] }
    }
}

/// The number that a message claims to have; of the least significant 42 bits.
pub(super) fn number_of(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.get(..DIGITS)?.iter().enumerate();
    digits.map(|(i, byte)| Some(u64::from(byte.checked_sub(b'0').filter(|d| *d < 64)?) << (6 * i))).sum()
}

impl Message<'_> {
    /// The bytes from `from` on, in three pieces.
    pub(super) fn pieces(&self, from: usize) -> [&[u8]; 3] {
        let stamp = &self.stamp[..self.size.saturating_sub(1).clamp(1, STAMP)];
        let end: &[u8] = if self.size > 1 { b"\n" } else { b"" };
        let mut skip = from;
        [stamp, self.body, end].map(|piece| {
            let here = skip.min(piece.len());
            skip -= here;
            &piece[here..]
        })
    }

    /// Copies bytes from `from` on, as many as there are and `out` takes; returns how many.
    pub(super) fn copy(&self, from: usize, out: &mut [u8]) -> usize {
        self.pieces(from).iter().fold(0, |at, piece| {
            let length = piece.len().min(out.len() - at);
            out[at..at + length].copy_from_slice(&piece[..length]);
            at + length
        })
    }

    /// Tells whether these are the bytes from `from` on, or the first of them.
    pub(super) fn matches(&self, from: usize, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for piece in self.pieces(from) {
            let (here, later) = rest.split_at(piece.len().min(rest.len()));
            if here != &piece[..here.len()] {
                return false;
            }
            rest = later;
        }
        rest.is_empty()
    }
}

/// A bijection that looks random (the finalizer of SplitMix64, by Sebastiano Vigna).
fn scramble(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(messages: &Messages, client: usize, number: u64) -> Vec<u8> {
        let mut out = vec![0; messages.size() + 5];
        let length = messages.message(client, number).copy(0, &mut out);
        out.truncate(length);
        out
    }

    #[test]
    fn another_seed_makes_other_messages() {
        let of = |seed| whole(&Messages::new(seed, 64), 3, 4);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1)[STAMP..], of(2)[STAMP..]);
        assert_ne!(of(1)[DIGITS..STAMP], of(2)[DIGITS..STAMP]);
    }

    #[test]
    fn a_byte_too_many_is_wrong() {
        let messages = Messages::new(1, 20);
        let mut bytes = whole(&messages, 0, 0);
        assert!(messages.message(0, 0).matches(0, &bytes));
        bytes.push(b'\n');
        assert!(!messages.message(0, 0).matches(0, &bytes));
    }

    proptest! {
        #[test]
        fn it_has_its_size_and_one_newline_at_its_end(size in 1..3000_usize, client in 0..100_000_usize, number: u32) {
            let bytes = whole(&Messages::new(7, size), client, number.into());
            prop_assert_eq!(bytes.len(), size);
            prop_assert_eq!(bytes.iter().position(|b| *b == b'\n'), (size > 1).then_some(size - 1));
        }

        #[test]
        fn no_two_are_alike(size in STAMPED..100, a: (u16, u32), b: (u16, u32)) {
            let messages = Messages::new(7, size);
            let of = |(client, number): (u16, u32)| whole(&messages, client.into(), number.into());
            prop_assert_eq!(of(a) == of(b), a == b);
            prop_assert_eq!(number_of(&of(a)), Some(a.1.into()));
        }

        #[test]
        fn pieces_fit_together(size in 1..500_usize, cuts in prop::collection::vec(1..90_usize, 1..40)) {
            let messages = Messages::new(7, size);
            let (message, bytes) = (messages.message(5, 6), whole(&messages, 5, 6));
            let mut at = 0;
            for cut in cuts {
                let mut out = vec![0; cut];
                let length = message.copy(at, &mut out);
                prop_assert_eq!(&out[..length], &bytes[at..(at + cut).min(size)]);
                prop_assert!(message.matches(at, &out[..length]));
                at += length;
            }
        }

        #[test]
        fn one_wrong_byte_is_found(size in 1..500_usize, at: prop::sample::Index, flip in 1..255_u8) {
            let messages = Messages::new(7, size);
            let mut bytes = whole(&messages, 5, 6);
            bytes[at.index(size)] ^= flip;
            prop_assert!(!messages.message(5, 6).matches(0, &bytes));
        }
    }
}
