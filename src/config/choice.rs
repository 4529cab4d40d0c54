//! Options whose value is one of a library's few: the library knows their names, this program says what they mean.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use forkd_load::{Phase, ProxyVersion as SentVersion};

use forkd_server::model::{Model, Overflow};
use forkd_server::sandbox::Level;
use forkd_server::service::Framing;
use forkd_server::transport::ProxyVersion;

/// A type of a few values.
pub trait Choice: Copy + PartialEq + Send + Sync + 'static {
    /// All of them, in the order of the help.
    const ALL: &'static [Self];

    /// How it is written.
    fn name(self) -> &'static str;

    /// What it means.
    fn help(self) -> &'static str;

    /// The one with this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|choice| choice.name() == name)
    }
}

/// Reads one by its name on the command line.
pub(crate) fn one_of<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|choice| PossibleValue::new(choice.name()).help(choice.help()));
    // the first parser lets no other name through
    PossibleValuesParser::new(values).try_map(|name| T::named(&name).ok_or("no such value"))
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

/// Names the values of a type, and says what each means; declares the type, if it is the program's own.
macro_rules! choices {
    ($($(#[doc = $about:literal])+ pub enum $type:ident {
        $($(#[doc = $help:literal])+ $variant:ident = $name:literal,)*
    })*) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {$(
            $(#[doc = $help])+
            $variant,
        )*}

        $crate::config::choice::choices! {
            $type { $($variant = $name, concat!($($help),+).trim();)* }
        }
    )*};
    ($($type:ty { $($variant:ident = $name:literal, $help:expr;)* })*) => {$(
        impl $crate::config::choice::Choice for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)*
                }
            }
        }
    )*};
}
pub(crate) use choices;

choices! {
    Overflow {
        Wait = "wait", "It waits in the listener's backlog";
        Reject = "reject", "It is closed at once";
    }
    Level {
        Off = "off", "They may do what their user may";
        On = "on", "They are confined as far as the kernel can";
        Strict = "strict", "As much as can be had, each child under fork too; where the kernel can't do all of it, nothing is served";
    }
    Framing {
        Read = "read", "What one read brings";
        Line = "line", "A line, however it comes in";
    }
    ProxyVersion {
        V1 = "v1", "A line of text; tcp and unix only";
        V2 = "v2", "Bytes, before a connection or in each datagram";
        Any = "any", "Either";
    }
    SentVersion {
        V1 = "v1", "A line of text; connections only";
        V2 = "v2", "Bytes, before a connection or in each datagram";
    }
}
