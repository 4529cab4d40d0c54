//! What is said of workers that are programs of their own: when they are ready, by which signal they leave, and how much
//! memory they may have.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{InvalidValue, Span};

/// After what time a worker counts as ready that doesn't say so; `notify`: it has to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyAfter(pub Option<Duration>);

impl FromStr for ReadyAfter {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "notify" {
            return Ok(Self(None));
        }
        let Span(time) = text.parse()?;
        Ok(Self(Some(time)))
    }
}

impl fmt::Display for ReadyAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => Span(time).fmt(f),
            None => f.write_str("notify"),
        }
    }
}

/// A signal by its name, such as TERM, or by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalName(pub Signal);

impl FromStr for SignalName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_uppercase();
        let by_name = || format!("SIG{}", name.strip_prefix("SIG").unwrap_or(&name)).parse().ok();
        let signal = match text.parse::<i32>() {
            Ok(number) => Signal::try_from(number).ok(),
            Err(_) => by_name(),
        };
        match signal {
            Some(Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGCONT | Signal::SIGCHLD) | None => {
                Err(InvalidValue(format!(
                    "{text:?} is no signal that ends a program; write TERM, QUIT, INT or USR1"
                )))
            }
            Some(signal) => Ok(Self(signal)),
        }
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_start_matches("SIG"))
    }
}

/// Bytes of memory, such as `512M`: K, M and G are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

impl FromStr for Size {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(*name)?, *bytes)));
        let invalid = || InvalidValue(format!("{text:?} is no size; write one like 512M or 2G"));
        let (number, bytes) = unit.ok_or_else(|| match text.parse::<u64>() {
            Ok(_) => InvalidValue(format!("{text} has no unit; add a unit: {text}M or {text}K")),
            Err(_) => invalid(),
        })?;
        let count = number.parse::<u64>().ok().filter(|count| *count > 0).ok_or_else(invalid)?;
        let size = count.checked_mul(bytes).filter(|size| *size <= i64::MAX as u64);
        size.map(Self).ok_or_else(|| InvalidValue(format!("{text} is too large")))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes));
        let (name, bytes) = whole.copied().unwrap_or(('K', 1 << 10));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_display_what_they_parse() {
        for text in ["notify", "1s", "1m 30s"] {
            assert_eq!(text.parse::<ReadyAfter>().map(|value| value.to_string()), Ok(text.to_owned()));
        }
        for (text, shown) in [("TERM", "TERM"), ("sigquit", "QUIT"), ("int", "INT"), ("10", "USR1")] {
            assert_eq!(text.parse::<SignalName>().map(|value| value.to_string()), Ok(shown.to_owned()));
        }
        for (text, shown) in [("512M", "512M"), ("1024K", "1M"), ("3G", "3G"), ("5K", "5K")] {
            assert_eq!(text.parse::<Size>().map(|value| value.to_string()), Ok(shown.to_owned()));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_way_out() {
        let signal = |text: &str| text.parse::<SignalName>().expect_err(text).to_string();
        let size = |text: &str| text.parse::<Size>().expect_err(text).to_string();
        for text in ["", "TERMINATE", "0", "99", "STOP", "CHLD", "-9"] {
            assert!(signal(text).ends_with("write TERM, QUIT, INT or USR1"), "{text}");
        }
        assert_eq!(size("512"), "512 has no unit; add a unit: 512M or 512K");
        for text in ["", "M", "0M", "1.5G", "-1M", "1T", "1m"] {
            assert!(size(text).ends_with("write one like 512M or 2G"), "{text}");
        }
        assert_eq!(size("99999999999G"), "99999999999G is too large");
        assert!("1".parse::<ReadyAfter>().expect_err("no unit").to_string().contains("add a unit: 1s"));
    }
}
