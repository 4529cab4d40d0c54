//! The services that come with forkd, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Error;
use forkd_server::service::{Ack, Chargen, Clock, Discard, Echo, Exec, Framing, Http, Service};

/// A service that comes with forkd, by name.
///
/// ```
/// use forkd::config::service::{Builtin, Settings};
/// assert_eq!(Builtin::Daytime.service(&Settings::default())?.name(), "daytime");
/// assert!(!Builtin::Http.takes_datagrams());
/// # Ok::<(), forkd::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Builtin {
    /// Sends back what it gets (RFC 862)
    #[default]
    Echo,
    /// Throws away what it gets (RFC 863)
    Discard,
    /// Sends lines of characters without end (RFC 864)
    Chargen,
    /// Sends the date and time as a line of text, in UTC (RFC 867)
    Daytime,
    /// Sends the time as four bytes (RFC 868)
    Time,
    /// Answers each message with a fixed reply (--reply, --framing)
    Ack,
    /// Serves files and texts by HTTP/1.1 (--root, --route)
    Http,
    /// Runs a program, whose standard input and output is the connection (--exec)
    Exec,
}

/// What a built-in service is told.
///
/// ```
/// use forkd::config::service::{Builtin, Settings};
/// let settings = Settings { reply: "ok".into(), ..Settings::default() };
/// assert_eq!(Builtin::Ack.service(&settings)?.name(), "ack");
/// # Ok::<(), forkd::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What ack answers.
    pub reply: String,
    /// Whether a datagram may be answered with more bytes than it has.
    pub amplify: bool,
    /// How ack tells one message from the next.
    pub framing: Framing,
    /// The directory whose files http serves.
    pub root: Option<PathBuf>,
    /// What will be the root directory of the process when requests come (chroot(2)), if another: `root` is looked
    /// up again below it.
    pub chroot: Option<PathBuf>,
    /// What http answers at these paths.
    pub routes: BTreeMap<String, String>,
    /// What exec runs: a program and its arguments.
    pub exec: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reply: "OK".into(),
            amplify: false,
            framing: Framing::default(),
            root: None,
            chroot: None,
            routes: BTreeMap::new(),
            exec: Vec::new(),
        }
    }
}

impl std::fmt::Display for Builtin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

impl Builtin {
    /// Makes the service.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it needs something that can't be opened.
    pub fn service(self, settings: &Settings) -> Result<Service, Error> {
        Ok(match self {
            Self::Echo => Echo.into(),
            Self::Discard => Discard.into(),
            Self::Chargen => Chargen::default().into(),
            Self::Daytime => Clock::daytime().into(),
            Self::Time => Clock::time().into(),
            Self::Ack => {
                let ack = Ack::new(&settings.reply, settings.framing);
                if settings.amplify { ack.amplifying().into() } else { ack.into() }
            }
            Self::Http => http(settings)?.into(),
            Self::Exec => Exec::new(&settings.exec).into(),
        })
    }

    /// Whether it answers a datagram at all: what needs a connection has no place in one.
    #[must_use]
    pub fn takes_datagrams(self) -> bool {
        !matches!(self, Self::Http | Self::Exec)
    }
}

/// The time is always to be had.
fn http(settings: &Settings) -> Result<Http, Error> {
    // it panics before 1970, which a board without a battery may believe it is
    let now = || SystemTime::now().max(SystemTime::UNIX_EPOCH);
    let mut http =
        Http::new().route("/time", move || format!("{}\n", humantime::format_rfc3339_seconds(now())));
    for (path, text) in &settings.routes {
        let text = text.clone();
        http = http.route(path, move || text.clone());
    }
    match &settings.root {
        Some(root) => http.root_below(root, settings.chroot.as_deref()),
        None => Ok(http),
    }
}
