//! How the value of an option is written: as one text on the command line, in the environment and in the file,
//! where numbers need no quotes.

use std::fmt;
use std::marker::PhantomData;
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, value_parser};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{KeepAlive, MetricsEndpoint, Mode, ReadyAfter, SignalName, Size, Span};
use crate::config::Listed;
use crate::config::choice::{Choice, one_of};
use crate::config::route::RouteText;
use forkd_server::Endpoint;
use forkd_server::model::Workers;
use forkd_server::supervise::{EarlyDrop, Penalty, Prefixes, Rate};

/// A value that an option can have.
pub trait Value: Clone + PartialEq + Send + Sync + 'static {
    /// Reads it on the command line, and in the environment.
    fn parser() -> ValueParser;

    /// Reads it in the file.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;

    /// Writes it to a file.
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;

    /// Tells clap of it.
    fn declare(arg: Arg) -> Arg {
        arg.value_parser(Self::parser())
    }

    /// Whether it says the same as if nothing was said.
    fn is_off(&self) -> bool {
        false
    }

    /// The number that it is.
    fn number(&self) -> Option<u64> {
        None
    }
}

/// A value as it is written; displayed without quotes.
#[derive(Debug)]
pub struct Written<'a, V>(pub &'a V);

impl<V: Value> Serialize for Written<'_, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write(to)
    }
}

impl<V: Value> fmt::Display for Written<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(text.trim_matches('"'))
    }
}

/// What reads itself from a text and displays as one; the file can have it as an integer, too, if so said: then it is
/// its own parser that accepts `8` workers and explains why `30` is no duration.
macro_rules! texts {
    ($($value:ty: $expecting:literal, integers: $integers:literal;)*) => {$(
        impl Value for $value {
            fn parser() -> ValueParser {
                value_parser!($value).into()
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Text { expecting: $expecting, integers: $integers, value: PhantomData })
            }

            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let text = self.to_string();
                match text.parse() {
                    Ok(number) if $integers => to.serialize_u32(number),
                    _ => to.serialize_str(&text),
                }
            }
        }
    )*};
}

texts! {
    Span: "a duration such as \"30s\"", integers: true;
    KeepAlive: "a duration such as \"2m\", or \"off\"", integers: true;
    ReadyAfter: "a duration such as \"5s\", or \"notify\"", integers: true;
    SignalName: "a signal such as \"TERM\"", integers: true;
    Size: "a size such as \"512M\"", integers: true;
    Workers: "a number such as 8, \"4..32\" or \"auto\"", integers: true;
    // in TOML the integer 600 is decimal, and 0600 is no integer at all
    Mode: "an octal mode in quotes, such as \"0600\"", integers: false;
    Endpoint: "an endpoint such as \"tcp://127.0.0.1:7007\"", integers: true;
    MetricsEndpoint: "an endpoint such as \"tcp://127.0.0.1:9707\"", integers: true;
    Rate: "a rate such as \"10/s\"", integers: false;
    EarlyDrop: "a rule such as \"10:30:100\"", integers: false;
    Penalty: "a cause and a duration such as \"timeout=1m\"", integers: false;
    Prefixes: "two lengths such as \"32/64\"", integers: false;
    Listed: "a network such as \"192.0.2.0/24\"", integers: false;
    RouteText: "a path and a text such as \"/hello=Hello\"", integers: false;
}

struct Text<T> {
    expecting: &'static str,
    integers: bool,
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
        match self.integers {
            true => self.visit_str(&number.to_string()),
            false => Err(E::invalid_type(serde::de::Unexpected::Signed(number), &self)),
        }
    }
}

/// What serde reads and writes.
macro_rules! plain {
    ($($value:ty: $parser:expr $(, $number:expr)?;)*) => {$(
        impl Value for $value {
            fn parser() -> ValueParser {
                $parser.into()
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize(from)
            }

            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.serialize(to)
            }

            $(fn number(&self) -> Option<u64> {
                Some($number(*self))
            })?
        }
    )*};
}

plain! {
    u16: ValueParser::new(number::<u16>), u64::from;
    u32: ValueParser::new(number::<u32>), u64::from;
    u64: ValueParser::new(number::<u64>), u64::from;
    String: ValueParser::string();
    PathBuf: ValueParser::path_buf();
}

/// Parses a whole number.
pub(crate) fn number<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => format!("{text} is too large"),
        _ => format!("{text:?} is not a whole number; write one like 8"),
    })
}

/// Is only there or not on the command line.
impl Value for bool {
    fn parser() -> ValueParser {
        ValueParser::new(|text: &str| match text {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    fn declare(arg: Arg) -> Arg {
        arg.action(ArgAction::SetTrue)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.serialize(to)
    }

    fn is_off(&self) -> bool {
        !self
    }
}

impl<T: Choice> Value for T {
    fn parser() -> ValueParser {
        ValueParser::new(one_of::<T>())
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        T::named(&name).ok_or_else(|| {
            let names: Vec<_> = T::ALL.iter().map(|choice| format!("`{}`", choice.name())).collect();
            D::Error::custom(format!("unknown variant `{name}`, expected one of {}", names.join(", ")))
        })
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// Reads a list. An empty one would mean the default, which is not what its author has meant.
pub(in crate::config) fn read_list<'de, D: Deserializer<'de>, V: Value>(from: D) -> Result<Vec<V>, D::Error> {
    let expecting = "a list in brackets, such as [\"…\"]";
    let items: Vec<Read<V>> = from.deserialize_any(List { expecting, items: PhantomData })?;
    Ok(items.into_iter().map(|Read(value)| value).collect())
}

/// Reads an array of tables.
pub(in crate::config) fn read_tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let expecting = "a table for each group of endpoints: write [[listen]], with two brackets";
    from.deserialize_any(List { expecting, items: PhantomData })
}

struct Read<V>(V);

impl<'de, V: Value> Deserialize<'de> for Read<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        V::read(from).map(Self)
    }
}

struct List<T> {
    expecting: &'static str,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        if items.is_empty() {
            return Err(A::Error::custom("the list is empty; fill it, or leave it out for the default"));
        }
        Ok(items)
    }
}
