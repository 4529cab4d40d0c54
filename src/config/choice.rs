//! Options whose value is one of a library's few: the library knows their names, this program says what they mean.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use forkd_load::Phase;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

use forkd_server::model::{Model, Overflow};
use forkd_server::service::Framing;

/// A type of a few values.
pub(crate) trait Choice: Copy + Send + Sync + 'static {
    /// All of them, in the order of the help.
    const ALL: &'static [Self];

    /// How it is written.
    fn name(self) -> &'static str;

    /// What it means.
    fn help(self) -> &'static str;
}

fn named<T: Choice>(name: &str) -> Option<T> {
    T::ALL.iter().copied().find(|choice| choice.name() == name)
}

/// Reads one by its name on the command line.
pub(crate) fn one_of<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|choice| PossibleValue::new(choice.name()).help(choice.help()));
    // the first parser lets no other name through
    PossibleValuesParser::new(values).try_map(|name| named(&name).ok_or("no such value"))
}

/// Writes it to a file.
pub(super) fn serialize<T: Choice, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(choice) => to.serialize_some(choice.name()),
        None => to.serialize_none(),
    }
}

/// Reads it from a file.
pub(super) fn deserialize<'de, T: Choice, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
    named(&name).map(Some).ok_or_else(|| {
        let names: Vec<_> = T::ALL.iter().map(|choice| format!("`{}`", choice.name())).collect();
        D::Error::custom(format!("unknown variant `{name}`, expected one of {}", names.join(", ")))
    })
}

impl Choice for Phase {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
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

impl Choice for Model {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
    }

    fn help(self) -> &'static str {
        self.summary()
    }
}

impl Choice for Overflow {
    const ALL: &'static [Self] = &[Self::Wait, Self::Reject];

    fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Reject => "reject",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Wait => "It waits in the listener's backlog",
            Self::Reject => "It is closed at once",
        }
    }
}

impl Choice for Framing {
    const ALL: &'static [Self] = &[Self::Read, Self::Line];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Line => "line",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Read => "What one read brings",
            Self::Line => "A line, however it comes in",
        }
    }
}
