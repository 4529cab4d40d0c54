//! How values stand in a file: as the texts that they are on the command line.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{KeepAlive, MetricsEndpoint, Mode, Span};
use forkd_server::model::WorkerRange;

macro_rules! written_as_text {
    ($($value:ty),*) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

macro_rules! read_from_text {
    ($($value:ty),*) => {$(
        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

written_as_text!(KeepAlive, MetricsEndpoint, Mode, Span);
read_from_text!(MetricsEndpoint);

/// Reads a value from a string, or from an integer as if it stood in quotes: then it is the value's own
/// parser that accepts `8` workers and explains why `30` is no duration.
struct Text<T> {
    expecting: &'static str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text { expecting: "a duration such as \"30s\"", value: PhantomData })
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "a duration such as \"2m\", or \"off\"";
        deserializer.deserialize_any(Text { expecting, value: PhantomData })
    }
}

/// A pool's size, which is a number in a file unless it is a range.
pub(crate) mod workers {
    use super::{Deserialize, Deserializer, PhantomData, Serializer, Text, WorkerRange};

    struct Workers(WorkerRange);

    impl<'de> Deserialize<'de> for Workers {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let expecting = "a number such as 8, or \"4..32\"";
            from.deserialize_any(Text { expecting, value: PhantomData }).map(Self)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WorkerRange>, D::Error> {
        Ok(Option::<Workers>::deserialize(from)?.map(|workers| workers.0))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<WorkerRange>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(workers) if workers.is_elastic() => to.collect_str(workers),
            Some(workers) => to.serialize_u32(workers.min),
            None => to.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Mode {
    /// Takes a string only: in TOML the integer 600 is decimal, and 0600 is no integer at all.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuotedMode)
    }
}

struct QuotedMode;

impl Visitor<'_> for QuotedMode {
    type Value = Mode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an octal mode in quotes, such as \"0600\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
        text.parse().map_err(E::custom)
    }
}
