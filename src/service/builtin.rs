//! The services that come with forkd, by name.

use serde::{Deserialize, Serialize};

use super::{Ack, Chargen, Clock, Discard, Echo, Framing, Menu, Service, Texts};

/// A service that comes with forkd, by name.
///
/// ```
/// use forkd::service::{Builtin, Settings};
/// assert_eq!(Builtin::Daytime.service(&Settings::default()).name(), "daytime");
/// assert!(!Builtin::Menu.takes_datagrams());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
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
    /// Greets, answers what is entered, until that is "exit" (--greeting, --answer, --framing)
    Menu,
}

/// What a built-in service is told.
///
/// ```
/// use forkd::service::{Builtin, Settings};
/// let settings = Settings { reply: "ok".into(), ..Settings::default() };
/// assert_eq!(Builtin::Ack.service(&settings).name(), "ack");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What ack answers.
    pub reply: String,
    /// Whether a datagram may be answered with more bytes than it has.
    pub amplify: bool,
    /// How ack and menu tell one message from the next.
    pub framing: Framing,
    /// What menu says.
    pub texts: Texts,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reply: "Receive".into(), amplify: false, framing: Framing::default(), texts: Texts::default() }
    }
}

impl Builtin {
    /// Makes the service.
    #[must_use]
    pub fn service(self, settings: &Settings) -> Service {
        match self {
            Self::Echo => Echo.into(),
            Self::Discard => Discard.into(),
            Self::Chargen => Chargen::default().into(),
            Self::Daytime => Clock::daytime().into(),
            Self::Time => Clock::time().into(),
            Self::Ack => {
                let ack = Ack::new(&settings.reply, settings.framing);
                if settings.amplify { ack.amplifying().into() } else { ack.into() }
            }
            Self::Menu => Menu::new(settings.texts.clone(), settings.framing).into(),
        }
    }

    /// Whether it answers a datagram at all: a dialogue has no place in one.
    #[must_use]
    pub fn takes_datagrams(self) -> bool {
        self != Self::Menu
    }
}
