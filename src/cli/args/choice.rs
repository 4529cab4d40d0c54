//! Values of a library's type on the command line: the library knows their names, this program says what they mean.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use forkd_load::Phase;

/// One of a few values.
pub(super) trait Choice: Copy + Send + Sync + 'static {
    /// All of them, in the order of the help.
    const ALL: &'static [Self];

    /// How it is written.
    fn name(self) -> &'static str;

    /// What it means.
    fn help(self) -> &'static str;
}

/// Reads one by its name.
pub(super) fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|value| PossibleValue::new(value.name()).help(value.help()));
    PossibleValuesParser::new(values)
        .try_map(|name| T::ALL.iter().copied().find(|value| value.name() == name).ok_or("no such value"))
}

impl Choice for Phase {
    const ALL: &'static [Self] = &Phase::ALL;

    fn name(self) -> &'static str {
        self.name()
    }

    fn help(self) -> &'static str {
        match self {
            Self::Hold => "All connect, echo once, and stay",
            Self::Churn => "Each connects, echoes once, closes, and does it again",
            Self::PingPong => "All are connected, and each sends a message when it has the last one's echo",
            Self::Bulk => "One connection sends and receives as much as it can",
            Self::Datagrams => "Each sends a datagram when it has the last one's answer, or has given it up",
        }
    }
}
