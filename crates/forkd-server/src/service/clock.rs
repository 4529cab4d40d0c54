//! The two services that tell the time: daytime (RFC 867) for people, time (RFC 868) for machines.

use std::time::SystemTime;

use super::calendar::Date;
use super::{Protocol, Reply, Service};

/// Seconds from the beginning of 1900, where RFC 868 counts from, to that of 1970.
const FROM_1900_TO_1970: u64 = 2_208_988_800;

/// Tells the time once, and ends.
///
/// ```
/// use forkd_server::service::Clock;
/// assert_eq!(forkd_server::Service::from(Clock::daytime()).name(), "daytime");
/// ```
#[derive(Debug, Clone)]
pub struct Clock {
    name: &'static str,
    tell: fn(SystemTime) -> Vec<u8>,
    told: Vec<u8>,
}

impl Clock {
    /// Sends the date and time as a line of text, in UTC: `Mon Nov 23 05:06:07 2026`.
    ///
    /// ```
    /// use forkd_server::{Peer, Protocol, Reply, service::Clock};
    /// let mut clock = Clock::daytime();
    /// let Reply::Finish(line) = clock.connected(Peer::default()) else { panic!() };
    /// assert!(line.ends_with(b"\r\n"));
    /// ```
    #[must_use]
    pub fn daytime() -> Self {
        Self { name: "daytime", tell: line, told: Vec::new() }
    }

    /// Sends the seconds since 1900 as four bytes, the most significant first. They wrap round in 2036.
    ///
    /// ```
    /// use forkd_server::{Peer, Protocol, Reply, service::Clock};
    /// let mut clock = Clock::time();
    /// let Reply::Finish(seconds) = clock.connected(Peer::default()) else { panic!() };
    /// assert_eq!(seconds.len(), 4);
    /// ```
    #[must_use]
    pub fn time() -> Self {
        Self { name: "time", tell: seconds, told: Vec::new() }
    }

    fn tell(&mut self) -> &[u8] {
        self.told = (self.tell)(SystemTime::now());
        &self.told
    }
}

fn line(now: SystemTime) -> Vec<u8> {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let date = Date::of(since_1970 as i64);
    let (weekday, month) = (date.weekday_name(), String::from_utf8_lossy(date.month_name()));
    let Date { year, day, hour, minute, second, .. } = date;
    format!("{weekday} {month} {day:>2} {hour:02}:{minute:02}:{second:02} {year}\r\n").into_bytes()
}

fn seconds(now: SystemTime) -> Vec<u8> {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    ((since_1970 + FROM_1900_TO_1970) as u32).to_be_bytes().into()
}

impl Protocol for Clock {
    fn connected(&mut self, _: crate::transport::Peer) -> Reply<'_> {
        Reply::Finish(self.tell())
    }

    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Finish(b"")
    }

    fn datagram<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Send(self.tell())
    }
}

impl From<Clock> for Service {
    fn from(clock: Clock) -> Self {
        Self::protocol(clock.name, move || clock.clone()).amplifying()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_as_inetd_writes_it() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(line(then), b"Sun Sep  9 01:46:40 2001\r\n");
    }

    #[test]
    fn the_examples_of_rfc_868() {
        let at = |after| seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(after));
        assert_eq!(at(0), 2_208_988_800_u32.to_be_bytes());
        // 00:00 1 Jan 1976 GMT, 1 Jan 1980, 1 May 1983
        assert_eq!(at(189_302_400), 2_398_291_200_u32.to_be_bytes());
        assert_eq!(at(315_532_800), 2_524_521_600_u32.to_be_bytes());
        assert_eq!(at(420_595_200), 2_629_584_000_u32.to_be_bytes());
        // one second after the last that fits
        assert_eq!(at((1 << 32) - FROM_1900_TO_1970), [0; 4]);
    }
}
