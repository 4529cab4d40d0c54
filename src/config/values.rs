//! The values an option can have, each with one syntax for the command line and the file.
//!
//! Invariant: what parses is in range, and displays as a text that parses to the same value.

mod keep_alive;
mod program;
mod syntax;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::choice::choices;
use forkd_server::Endpoint;
pub use keep_alive::KeepAlive;
pub use program::{ReadyAfter, SignalName, Size};
pub(crate) use syntax::number;
pub use syntax::{Value, Written};
pub(super) use syntax::{read_list, read_tables};

/// The longest span; adding more to a clock could overflow.
const MAX_SPAN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a text is no value of the wanted kind, as a sentence that names the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidValue(pub(super) String);

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidValue {}

/// A length of time with its unit, such as `500ms`, `30s` or `5m`; at most 365 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidValue(format!(
                "{text} has no unit; add a unit: {text}s, {text}ms or {text}m"
            )));
        }
        let span = humantime::parse_duration(text).map_err(|error| {
            InvalidValue(format!("{text:?} is not a duration ({error}); write one like 500ms, 30s or 5m"))
        })?;
        if span > MAX_SPAN {
            return Err(InvalidValue(format!("{text} is too long; the most is 365days")));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// How long to wait from one look at a daemon to the next; at least 100 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Span(interval) = text.parse()?;
        if interval < Duration::from_millis(100) {
            return Err(InvalidValue(format!("{text} is too short; the least is 100ms")));
        }
        Ok(Self(interval))
    }
}

/// Permission bits in octal, such as `0600`; at most 0777.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777).map(Self).ok_or_else(|| {
            InvalidValue(format!("{text:?} is not an octal mode; write one from 0000 to 0777, like 0600"))
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Where metrics are served: an endpoint that clients connect to, by itself or of a known name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsEndpoint(pub Endpoint);

impl FromStr for MetricsEndpoint {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let endpoint: Endpoint = text.parse().map_err(|error| InvalidValue(format!("{error}")))?;
        let why = match &endpoint {
            Endpoint::Tcp { .. } | Endpoint::Unix(_) | Endpoint::Systemd(Some(_)) => {
                return Ok(Self(endpoint));
            }
            Endpoint::Udp { .. } | Endpoint::Unixgram(_) => "has no connections, which HTTP needs",
            Endpoint::Systemd(None) => "is all that systemd hands over",
        };
        Err(InvalidValue(format!(
            "metrics can't be served at {endpoint}, which {why}; write tcp://HOST:PORT, unix:///PATH or systemd:NAME"
        )))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

impl fmt::Display for MetricsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

choices! {
    /// Where log lines go.
    pub enum LogSink {
        /// To standard error
        Stderr = "stderr",
        /// To the system's syslog daemon
        Syslog = "syslog",
    }

    /// Whether the program of exec may gain privileges.
    pub enum ExecPrivileges {
        /// Neither it nor what it starts gains any
        Drop = "drop",
        /// As its file says
        Keep = "keep",
    }

    /// Where the output of workers goes that are programs of their own.
    pub enum WorkerLog {
        /// Each line is logged, with the worker and its process id
        Lines = "lines",
        /// To where forkd's own goes, untouched
        Inherit = "inherit",
    }

    /// The least important log lines that are still written.
    pub enum LogLevel {
        /// The operator must act
        Error = "error",
        /// Service is degraded
        Warn = "warn",
        /// Start, stop and other events in the life of the daemon
        Info = "info",
        /// Every connection
        Debug = "debug",
    }

    /// How a log line is written.
    pub enum LogFormat {
        /// Words and key=value pairs, for people
        Text = "text",
        /// One JSON object per line, for programs
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forkd_server::model::{WorkerRange, Workers};
    use proptest::prelude::*;

    fn refusal<T: FromStr<Err: fmt::Display + fmt::Debug> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn a_span_needs_a_unit() {
        assert_eq!("1m 500ms".parse(), Ok(Span(Duration::from_millis(60_500))));
        assert_eq!("0s".parse(), Ok(Span(Duration::ZERO)));
        assert!(refusal::<Span>("30").contains("add a unit: 30s"));
        assert!(refusal::<Span>("0").contains("add a unit"));
        assert!(refusal::<Span>("").contains("is not a duration"));
        assert!(refusal::<Span>("-5s").contains("is not a duration"));
        assert_eq!("100ms".parse(), Ok(Interval(Duration::from_millis(100))));
        assert!(refusal::<Interval>("99ms").contains("the least is 100ms"));
        assert!(refusal::<Interval>("2").contains("add a unit: 2s"));
        assert!(refusal::<MetricsEndpoint>("udp://a:1").contains("has no connections"));
        assert!(refusal::<MetricsEndpoint>("systemd:*").contains("all that systemd hands over"));
        assert!(refusal::<MetricsEndpoint>("tcp://a").contains("has no port"));
        assert!(refusal::<Span>("366days").contains("the most is 365days"));
    }

    #[test]
    fn a_range_of_workers() {
        assert_eq!("4..32".parse(), Ok(WorkerRange { min: 4, max: 32 }));
        assert_eq!("65536".parse(), Ok(WorkerRange { min: 65_536, max: 65_536 }));
        assert!(refusal::<Workers>("0").contains("at least 1"));
        assert!(refusal::<Workers>("5..4").contains("below the minimum"));
        assert!(refusal::<Workers>("1..65537").contains("the most is 65536"));
        for text in ["", "..", "4..", "..4", "4..=5", "four", "Auto", "-1", "99999999999"] {
            assert!(refusal::<Workers>(text).contains("write 8, 4..32 or auto"), "{text}");
        }
        for (text, json) in [("2", "2"), ("2..3", "\"2..3\""), ("auto", "\"auto\"")] {
            assert_eq!(serde_json::to_string(&Written(&text.parse::<Workers>().unwrap())).unwrap(), json);
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!("600".parse(), Ok(Mode(0o600)));
        assert_eq!("0777".parse::<Mode>().unwrap().to_string(), "0777");
        for text in ["", "1000", "8", "rw", "-1"] {
            assert!(refusal::<Mode>(text).contains("is not an octal mode"), "{text}");
        }
        let read = |text| Mode::read(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!((read("600"), read("\"600\"")), (None, Some(Mode(0o600))));
    }

    proptest! {
        #[test]
        fn values_display_what_they_parse(nanos in 0..MAX_SPAN.as_nanos() as u64, min in 1..100u32, more in 0..9u32) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let range = WorkerRange { min, max: min + more };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
            prop_assert_eq!(Mode(min).to_string().parse(), Ok(Mode(min)));
        }
    }
}
