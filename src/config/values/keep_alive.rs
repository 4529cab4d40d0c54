//! How patient the kernel is with a TCP client that does not answer: a time, or `off`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{InvalidValue, Span};
use forkd_server::supervise::KEEP_ALIVE_RANGE;

/// How long a TCP client may leave the kernel without an answer, from 2 s to 12 h; `off`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive(pub Option<Duration>);

impl FromStr for KeepAlive {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let Span(limit) = text.parse()?;
        if !KEEP_ALIVE_RANGE.contains(&limit) {
            return Err(InvalidValue(format!("{text} is out of range; choose 2s to 12h, or off")));
        }
        Ok(Self(Some(limit)))
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => Span(limit).fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_range_or_off() {
        assert_eq!("off".parse(), Ok(KeepAlive(None)));
        assert_eq!("2s".parse(), Ok(KeepAlive(Some(Duration::from_secs(2)))));
        for text in ["off", "12h", "1m 30s"] {
            assert_eq!(text.parse::<KeepAlive>().map(|value| value.to_string()), Ok(text.to_owned()));
        }
        for (text, why) in
            [("1999ms", "choose 2s to 12h, or off"), ("13h", "choose 2s"), ("5", "add a unit: 5s")]
        {
            let refusal = text.parse::<KeepAlive>().expect_err(text).to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
    }
}
