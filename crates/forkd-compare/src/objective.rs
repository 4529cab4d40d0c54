//! What latencies shall keep to, and whether a run has kept to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an objective can be about, and the share that may take longer, of one.
const KNOWN: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// So many operations must be beyond a percentile, or chance makes it.
const BEYOND: f64 = 10.0;

/// A limit of time that a percentile of the latencies shall keep to, written as in `p99=10ms`.
///
/// ```
/// use forkd_compare::Objective;
/// let objective: Objective = "p99=10ms".parse()?;
/// assert_eq!((objective.percent(), objective.limit().as_millis()), (99.0, 10));
/// assert_eq!(objective.to_string(), "p99=10ms");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Objective {
    known: usize,
    limit: Duration,
}

impl Objective {
    /// Returns what it is about, as in "p99".
    #[must_use]
    pub fn name(&self) -> &'static str {
        KNOWN[self.known].0
    }

    /// Returns the percentile; of the longest latency it is 100.
    #[must_use]
    pub fn percent(&self) -> f64 {
        KNOWN[self.known].1
    }

    /// Returns how long that may be.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// How many operations a run needs so that it can tell.
    pub(crate) fn operations(&self) -> f64 {
        if self.percent() >= 100.0 { BEYOND } else { (BEYOND / (1.0 - self.percent() / 100.0)).round() }
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || KNOWN.map(|(name, _)| name).join(", ");
        let (name, limit) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} has no limit: write what may last how long, as in p99=10ms"))?;
        let known = KNOWN.iter().position(|(known, _)| *known == name.trim()).ok_or_else(|| {
            format!("{name:?} is no latency that an objective can be about: take one of {}", names())
        })?;
        let limit =
            humantime::parse_duration(limit.trim()).ok().filter(|limit| !limit.is_zero()).ok_or_else(
                || format!("{limit:?} is no time that anything can last: add a unit, as in {name}=10ms"),
            )?;
        Ok(Self { known, limit })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = humantime::format_duration(self.limit).to_string().replace(' ', "");
        write!(f, "{}={limit}", self.name())
    }
}

impl TryFrom<String> for Objective {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> Self {
        objective.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["p50=1ms", "p90=250us", "p95=2s", "p99=10ms", "p99.9=1s500ms", "max=1m"] {
            let objective: Objective = text.parse().unwrap();
            assert_eq!(objective.to_string(), text);
            let json = serde_json::to_string(&objective).unwrap();
            assert_eq!(serde_json::from_str::<Objective>(&json).unwrap(), objective);
        }
        assert!(serde_json::from_str::<Objective>("\"p7=1ms\"").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (text, why) in [
            ("p99", "as in p99=10ms"),
            ("p98=1ms", "take one of p50, p90, p95, p99, p99.9, max"),
            ("p99=10", "add a unit, as in p99=10ms"),
            ("p99=0ms", "no time that anything can last"),
        ] {
            let error = text.parse::<Objective>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn rare_latencies_need_many_operations() {
        let operations = |text: &str| text.parse::<Objective>().unwrap().operations();
        assert_eq!(
            ["p50=1s", "p99=1s", "p99.9=1s", "max=1s"].map(operations),
            [20.0, 1000.0, 10_000.0, 10.0]
        );
    }
}
