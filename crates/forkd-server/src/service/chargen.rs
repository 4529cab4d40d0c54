//! The character generator (RFC 864): lines of 72 printable characters, each begun one further on.

use std::sync::Arc;

use super::{Protocol, Reply, Service};

/// The printable characters of ASCII, in order.
const FIRST: u8 = b' ';
const COUNT: usize = 95;

/// Characters in a line, without its end.
const WIDTH: usize = 72;

/// The most characters in the answer to a datagram.
const MOST: usize = 512;

/// Sends characters for as long as the client takes them; what the client sends is thrown away. A
/// datagram is answered with 0 to 512 characters, which follow from the time.
///
/// ```
/// use forkd_server::{Protocol, Reply, service::Chargen};
/// let mut chargen = Chargen::default();
/// let Reply::More(lines) = chargen.resume() else { panic!() };
/// assert!(lines.starts_with(b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n!\"#"));
/// ```
#[derive(Debug, Clone)]
pub struct Chargen {
    /// All lines that there are, one after the other: after them it begins again.
    lines: Arc<[u8]>,
}

impl Default for Chargen {
    fn default() -> Self {
        let line = |start: usize| {
            let characters = (start..start + WIDTH).map(|i| FIRST + (i % COUNT) as u8);
            characters.chain(*b"\r\n")
        };
        Self { lines: (0..COUNT).flat_map(line).collect() }
    }
}

impl Protocol for Chargen {
    fn connected(&mut self, _: crate::transport::Peer) -> Reply<'_> {
        self.resume()
    }

    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
    }

    fn resume(&mut self) -> Reply<'_> {
        Reply::More(&self.lines)
    }

    /// What comes is thrown away (RFC 864), and a client that sends much must not wait for that.
    fn listens(&self) -> bool {
        true
    }

    fn datagram<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let length = now.subsec_nanos() as usize / 1000 % (MOST + 1);
        Reply::Send(&self.lines[..length])
    }
}

impl From<Chargen> for Service {
    fn from(chargen: Chargen) -> Self {
        Self::protocol("chargen", move || chargen.clone()).amplifying()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: usize = WIDTH + 2;

    #[test]
    fn each_line_begins_one_character_further_on() {
        let Chargen { lines } = Chargen::default();
        assert_eq!(lines.len(), COUNT * LINE);
        for (n, line) in lines.chunks(LINE).enumerate() {
            assert!(line.ends_with(b"\r\n"));
            assert_eq!(usize::from(line[0] - FIRST), n);
            assert!(line[..WIDTH].windows(2).all(|pair| pair[1] == pair[0] + 1 || pair == b"~ "));
        }
    }

    #[test]
    fn a_datagram_gets_at_most_512_characters() {
        let mut chargen = Chargen::default();
        for _ in 0..100 {
            let Reply::Send(answer) = chargen.datagram(b"") else { panic!("no answer") };
            assert!(answer.len() <= MOST);
        }
    }
}
