//! The two services that tell the time: daytime (RFC 867) for people, time (RFC 868) for machines.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::macros::format_description;

use super::{Protocol, Reply, Service};

/// Seconds from the beginning of 1900, where RFC 868 counts from, to that of 1970.
const FROM_1900_TO_1970: u64 = 2_208_988_800;

/// Sends the date and time as a line of text, in UTC, and ends: `Mon Nov 23 05:06:07 2026`.
#[derive(Debug, Clone, Default)]
pub struct Daytime {
    line: Vec<u8>,
}

impl Daytime {
    fn line(&mut self, now: SystemTime) -> &[u8] {
        let form = format_description!(
            "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]\r\n"
        );
        // it fails for no form that is right
        self.line = OffsetDateTime::from(now).format(form).unwrap_or_default().into_bytes();
        &self.line
    }
}

impl Protocol for Daytime {
    fn connected(&mut self, _: crate::transport::Peer) -> Reply<'_> {
        Reply::Finish(self.line(SystemTime::now()))
    }

    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Finish(b"")
    }

    fn datagram<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Send(self.line(SystemTime::now()))
    }
}

impl From<Daytime> for Service {
    fn from(_: Daytime) -> Self {
        Self::protocol("daytime", Daytime::default).amplifying()
    }
}

/// Sends the seconds since 1900 as four bytes, the most significant first, and ends. They wrap round
/// in 2036.
#[derive(Debug, Clone, Default)]
pub struct Time {
    bytes: [u8; 4],
}

impl Time {
    fn bytes(&mut self, now: SystemTime) -> &[u8] {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.bytes = ((since_1970 + FROM_1900_TO_1970) as u32).to_be_bytes();
        &self.bytes
    }
}

impl Protocol for Time {
    fn connected(&mut self, _: crate::transport::Peer) -> Reply<'_> {
        Reply::Finish(self.bytes(SystemTime::now()))
    }

    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Finish(b"")
    }

    fn datagram<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Send(self.bytes(SystemTime::now()))
    }
}

impl From<Time> for Service {
    fn from(_: Time) -> Self {
        Self::protocol("time", Time::default).amplifying()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_as_inetd_writes_it() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(Daytime::default().line(then), b"Sun Sep  9 01:46:40 2001\r\n");
    }

    #[test]
    fn the_examples_of_rfc_868() {
        let at =
            |seconds| Time::default().bytes(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_vec();
        assert_eq!(at(0), 2_208_988_800_u32.to_be_bytes());
        // 00:00 1 Jan 1976 GMT, 1 Jan 1980, 1 May 1983
        assert_eq!(at(189_302_400), 2_398_291_200_u32.to_be_bytes());
        assert_eq!(at(315_532_800), 2_524_521_600_u32.to_be_bytes());
        assert_eq!(at(420_595_200), 2_629_584_000_u32.to_be_bytes());
        // one second after the last that fits
        assert_eq!(at((1 << 32) - FROM_1900_TO_1970), [0; 4]);
    }
}
