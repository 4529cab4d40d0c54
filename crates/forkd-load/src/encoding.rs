//! A histogram as text that other programs read: the encoding V2 of HDR histograms, deflated, in base64. It begins with
//! `HISTFAAA`, and is what their logs have.
//!
//! Invariant: what comes from outside takes memory within bounds, and is refused unless it has the range and the precision that it is
//! wanted for, as another histogram could not be added without loss.

use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// The first four bytes of what is deflated, and of what it holds.
const DEFLATED: u32 = 0x1c84_9314;
const PLAIN: u32 = 0x1c84_9313;

/// How long what is inflated is before its counts.
const HEAD: usize = 40;

/// The longest text: more than that of a histogram in which each span has been counted.
const LONGEST_TEXT: usize = 1 << 20;

/// The most bytes that are inflated of it: 31,000 counts of nine bytes each, and more than it has, are fewer.
const MOST_INFLATED: u64 = 1 << 19;

/// What is only with counts above 2 to the 63rd: hdrhistogram 7.6 would negate the smallest number of 64 bits.
const OVERFLOW: [u8; 9] = [0xff; 9];

/// Writes it down.
pub(super) fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => BASE64_STANDARD.encode(bytes),
        // a write to memory does not fail, and no count is above 2 to the 63rd
        Err(_) => String::new(),
    }
}

/// Reads what [`encode`] has written of one `like` this.
pub(super) fn decode(text: &str, like: &Histogram<u64>) -> Result<Histogram<u64>, String> {
    const BROKEN: &str = "its histogram is broken";
    if text.len() > LONGEST_TEXT {
        return Err("its histogram is longer than one can be".to_owned());
    }
    let broken = |why: &dyn std::fmt::Display| format!("{BROKEN}: {why}");
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| broken(&error))?;
    let (head, deflated) = bytes.split_at_checked(8).ok_or_else(|| broken(&"it is too short"))?;
    if number(head, 0) != DEFLATED {
        return Err("its histogram has another encoding than V2, deflated".to_owned());
    }
    if number(head, 4) as usize != deflated.len() {
        return Err(broken(&"it is cut"));
    }
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(MOST_INFLATED + 1)
        .read_to_end(&mut plain)
        .map_err(|error| broken(&error))?;
    let (head, counts) = plain.split_at_checked(HEAD).ok_or_else(|| broken(&"it is too short"))?;
    if number(head, 0) != PLAIN || number(head, 4) as usize != counts.len() {
        return Err(broken(&"its length is another one"));
    }
    let bounds = [number(head, 12).into(), wide(head, 16), wide(head, 24)];
    if bounds != [like.sigfig().into(), like.low(), like.high()] {
        return Err(
            "its histogram has another range, or another precision, than those of this forkd".to_owned()
        );
    }
    if counts.windows(OVERFLOW.len()).any(|bytes| bytes == OVERFLOW) {
        return Err(broken(&"a count is out of range"));
    }
    Deserializer::new().deserialize(&mut &plain[..]).map_err(|error| broken(&error))
}

/// The number at a place where there is one, most significant byte first.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
