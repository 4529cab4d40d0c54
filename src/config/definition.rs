//! One definition for an option, and all that follows from it.
//!
//! `options!` declares a table of options: name, help, type, default, and the properties of a [`Definition`].
//! From that come the argument of the command line with its help, the key of the file, the variable of the
//! environment, the rule on where the option has an effect, and the pages that `forkd man` prints.
//!
//! Invariant: an option that was not given is absent; a default is never mistaken for a value that was given, so
//! that one source can lie over another.

use std::ops::RangeInclusive;

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};
use serde::{Deserializer, Serialize, Serializer};

use super::options::ListenOptions;
use super::values::{Value, Written, read_list};

/// What is known of an option.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its name in the source: `max_children`.
    pub id: &'static str,
    /// What it does, in the lines of its comment.
    pub help: &'static str,
    /// The group that it belongs to in the help; an argument without a name has none.
    pub heading: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// What its value is called; one that is only there or not has none.
    pub value: &'static str,
    /// Its default, as it is written.
    pub default: Option<fn() -> String>,
    /// What holds where it isn't given, if its default does not say it.
    pub otherwise: &'static str,
    /// Where it has an effect; `None`: everywhere.
    pub needs: Option<&'static Need>,
    /// The setting of a socket unit that decides it for sockets that systemd hands over.
    pub directive: &'static str,
    /// The numbers that it can have.
    pub range: Option<RangeInclusive<u64>>,
    /// Whether a reload puts a new value in force; if not, a restart does.
    pub reload: bool,
    /// Whether it means something to a process that serves its standard input.
    pub inetd: bool,
    /// Tells clap of the type.
    pub declare: fn(Arg) -> Arg,
}

/// What an option needs to have an effect.
#[derive(Debug)]
pub struct Need {
    /// What there must be.
    pub what: &'static str,
    /// What to give for it; other options stand in backquotes.
    pub give: &'static str,
    /// Whether there is such a thing.
    pub is_met: fn(&ListenOptions) -> bool,
    /// The rest of a sentence that starts with the option, where its place can't be had.
    pub refusal: Option<&'static str>,
}

impl Need {
    pub(super) const fn new(
        what: &'static str,
        give: &'static str,
        is_met: fn(&ListenOptions) -> bool,
    ) -> Self {
        Self { what, give, is_met, refusal: None }
    }
}

impl Definition {
    /// What a definition doesn't say.
    pub(super) const NONE: Self = Self {
        id: "",
        help: "",
        heading: "",
        short: None,
        value: "",
        default: None,
        otherwise: "",
        needs: None,
        directive: "",
        range: None,
        reload: false,
        inetd: false,
        declare: |arg| arg,
    };

    /// The key in the file, which is the name on the command line: `max-children`.
    #[must_use]
    pub fn key(&self) -> String {
        Origin::File.name(self.id)
    }

    /// The variable of the environment: `FORKD_MAX_CHILDREN`.
    #[must_use]
    pub fn variable(&self) -> String {
        Origin::Environment.name(self.id)
    }

    /// Whether it is about clients that forkd accepts.
    pub(super) fn is_for_clients(&self) -> bool {
        let others = [
            "idle_timeout",
            "max_lifetime",
            "max_connections_per_child",
            "overflow",
            "keepalive",
            "allow_amplification",
        ];
        self.heading == "Access" || others.contains(&self.id)
    }

    /// Whether it has an effect on such a group.
    #[must_use]
    pub fn has_effect_on(&self, group: &ListenOptions) -> bool {
        let sees_clients = !group.service().accepts_by_itself();
        self.needs.is_none_or(|need| (need.is_met)(group)) && (sees_clients || !self.is_for_clients())
    }

    /// The argument of the command line.
    pub(super) fn arg(&self) -> Arg {
        let help = self.help.trim();
        let help = match (self.otherwise, self.default) {
            ("", Some(text)) if !self.value.is_empty() => format!("{help} [default: {}]", text()),
            ("", _) => help.to_owned(),
            (otherwise, _) => format!("{help} [default: {otherwise}]"),
        };
        let mut arg = (self.declare)(Arg::new(self.id)).help(help);
        if !self.value.is_empty() {
            // the others name their values, or explain them
            arg = arg.value_names(self.value.split(' ')).hide_possible_values(self.id != "service");
        }
        if self.heading.is_empty() {
            return arg.num_args(1..);
        }
        if self.value.contains(' ') {
            arg = arg.num_args(1..).allow_hyphen_values(true);
        }
        arg.short(self.short).long(self.key()).help_heading(self.heading)
    }
}

/// Where an option is given, which says how it is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    CommandLine,
    Environment,
    File,
}

impl Origin {
    /// The name of an option.
    pub(super) fn name(self, id: &str) -> String {
        match self {
            Self::CommandLine => format!("--{}", id.replace('_', "-")),
            Self::Environment => format!("FORKD_{}", id.replace('-', "_").to_uppercase()),
            Self::File => id.replace('_', "-"),
        }
    }

    /// Writes the options in a text, which stand in backquotes, as they are given here.
    pub(super) fn spell(self, text: &str) -> String {
        let parts = text.split('`').enumerate();
        parts.map(|(n, part)| if n % 2 == 1 { self.name(part) } else { part.to_owned() }).collect()
    }
}

/// A table of options: each of them given, or absent.
pub trait Table: Default + Clone {
    /// Its options, in the order of the help.
    const DEFINITIONS: &'static [Definition];

    /// Fills what is absent here from `lower`.
    #[must_use]
    fn over(self, lower: Self) -> Self;

    /// Fills what is absent here from the defaults.
    #[must_use]
    fn filled(&self) -> Self;

    /// Takes an option back.
    fn forget(&mut self, id: &str);

    /// Whether an option was given.
    fn has(&self, id: &str) -> bool;

    /// The value of an option that is a number.
    fn number(&self, id: &str) -> Option<u64>;

    /// Whether an option has the same value in both.
    fn agrees(&self, other: &Self, id: &str) -> bool;
}

/// The place of an option in its table: an [`Option`] of a value, or a [`Vec`] of values.
pub trait Field: Sized {
    /// Tells clap of the type.
    fn declare(arg: Arg) -> Arg;
    /// Takes it from the command line.
    fn of(matches: &ArgMatches, id: &str) -> Self;
    /// Reads it in the file.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
    /// Writes it to a file.
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
    /// Whether it was not given, or says no more than if it was not.
    fn is_absent(&self) -> bool;
}

impl<V: Value> Field for Option<V> {
    fn declare(arg: Arg) -> Arg {
        V::declare(arg)
    }

    fn of(matches: &ArgMatches, id: &str) -> Self {
        // a flag has a default of clap's own
        let is_given = matches.value_source(id) != Some(ValueSource::DefaultValue);
        matches.get_one(id).filter(|_| is_given).cloned()
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        V::read(from).map(Some)
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Written).serialize(to)
    }

    fn is_absent(&self) -> bool {
        self.as_ref().is_none_or(V::is_off)
    }
}

impl<V: Value> Field for Vec<V> {
    fn declare(arg: Arg) -> Arg {
        V::declare(arg).action(ArgAction::Append)
    }

    fn of(matches: &ArgMatches, id: &str) -> Self {
        matches.get_many(id).unwrap_or_default().cloned().collect()
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_list(from)
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Written))
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Declares a table of options. A default makes a method that returns the value or else the default, which may depend
/// on the other options, here called by the name that stands after the table's; `..` is what the definitions don't say.
macro_rules! options {
    ($(#[$meta:meta])* pub struct $Table:ident, $given:ident, ..$base:expr; $(
        $(#[doc = $help:literal])+
        $name:ident: $kind:ident<$type:ty> $(= $default:expr)?, { $($property:ident: $value:expr),* $(,)? }
    )*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct $Table {$(
            $(#[doc = $help])+
            #[serde(deserialize_with = "Field::read", serialize_with = "Field::write")]
            #[serde(skip_serializing_if = "Field::is_absent")]
            pub $name: $kind<$type>,
        )*}

        impl Table for $Table {
            const DEFINITIONS: &'static [Definition] = &[$(Definition {
                id: stringify!($name),
                help: concat!($($help),+),
                declare: <$kind<$type> as Field>::declare,
                $(default: Some(|| {
                    let $given = &Self::default();
                    let _ = $given;
                    Written::<$type>(&$default).to_string()
                }),)?
                $($property: $value,)*
                ..$base
            }),*];

            fn over(self, lower: Self) -> Self {
                let absent = Self::default();
                Self { $($name: if self.$name == absent.$name { lower.$name } else { self.$name }),* }
            }

            fn filled(&self) -> Self {
                let ($given, mut filled) = (self, self.clone());
                let _ = $given;
                $($(filled.$name.get_or_insert_with(|| $default);)?)*
                filled
            }

            fn forget(&mut self, id: &str) {
                match id {
                    $(stringify!($name) => self.$name = Default::default(),)*
                    _ => {}
                }
            }

            fn has(&self, id: &str) -> bool {
                match id {
                    $(stringify!($name) => !Field::is_absent(&self.$name),)*
                    _ => false,
                }
            }

            fn number(&self, id: &str) -> Option<u64> {
                match id {
                    $(stringify!($name) => self.$name.iter().find_map(Value::number),)*
                    _ => None,
                }
            }

            fn agrees(&self, other: &Self, id: &str) -> bool {
                match id {
                    $(stringify!($name) => self.$name == other.$name,)*
                    _ => true,
                }
            }
        }

        impl $Table {$($(
            #[doc = concat!("What `", stringify!($name), "` is, given or by default.")]
            #[must_use]
            pub fn $name(&self) -> $type {
                let $given = self;
                $given.$name.clone().unwrap_or_else(|| $default)
            }
        )?)*}

        impl clap::FromArgMatches for $Table {
            fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self { $($name: Field::of(matches, stringify!($name))),* })
            }

            fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?.over(std::mem::take(self));
                Ok(())
            }
        }

        impl clap::Args for $Table {
            fn augment_args(command: clap::Command) -> clap::Command {
                command.args(Self::DEFINITIONS.iter().map(Definition::arg))
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                Self::augment_args(command)
            }
        }
    };
}

pub(super) use options;
