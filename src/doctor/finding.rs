//! What was found out about one limit.

use serde::Serialize;

use super::facts::Fact;
use super::need::Need;

/// One limit: what it is, what it allows, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it compares with what is asked.
    pub verdict: Verdict,
    /// What it is called by the system.
    pub limit: &'static str,
    /// What it is now.
    pub value: String,
    /// What that means to forkd.
    pub meaning: String,
    /// How to change it; absent where that is not needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<Mend>,
}

/// How a limit compares with what is asked; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It allows less.
    Limits,
    /// It allows little more, or less than the defaults would use at most.
    Tight,
    /// It isn't known.
    Unknown,
    /// It allows enough.
    Ok,
}

/// How to change a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// The command that does it now.
    pub now: String,
    /// What has it done again after a restart.
    pub lasting: String,
}

impl Finding {
    /// A limit that leaves enough.
    pub fn ok(limit: &'static str, value: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, limit, value: value.into(), meaning: meaning.into(), mend: None }
    }

    /// What `found` makes of a fact; or that the fact is not known.
    pub fn of<T>(limit: &'static str, fact: &Fact<T>, found: impl FnOnce(&T) -> Self) -> Self {
        match fact {
            Ok(fact) => found(fact),
            Err(why) => Self {
                verdict: Verdict::Unknown,
                limit,
                value: "unknown".into(),
                meaning: format!("Because {why}."),
                mend: None,
            },
        }
    }

    /// The same where so much is wanted and so much can be had; `mend` says how to get it.
    #[must_use]
    pub fn judged(self, need: &Need, wanted: u64, room: u64, mend: impl FnOnce() -> Mend) -> Self {
        match Verdict::of(need, wanted, room) {
            Verdict::Ok => self,
            verdict => self.but(verdict, mend()),
        }
    }

    /// The same with this verdict.
    #[must_use]
    pub fn but(self, verdict: Verdict, mend: Mend) -> Self {
        Self { verdict, mend: Some(mend), ..self }
    }
}

impl Verdict {
    /// Of a limit that leaves `room` where so much is wanted.
    pub fn of(need: &Need, wanted: u64, room: u64) -> Self {
        match wanted {
            // what is only possible by default is no failure
            _ if wanted > room => {
                if need.is_asked {
                    Self::Limits
                } else {
                    Self::Tight
                }
            }
            // an eighth is left for what else there is
            _ if need.is_asked && wanted > room - room / 8 => Self::Tight,
            _ => Self::Ok,
        }
    }

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limits => "LIMITS",
            Self::Tight => "tight",
            Self::Unknown => "unknown",
            Self::Ok => "ok",
        }
    }
}

impl Mend {
    /// By sysctl(8).
    pub fn sysctl(setting: &str, value: impl std::fmt::Display) -> Self {
        Self {
            now: format!("sysctl -w {setting}=\"{value}\""),
            lasting: format!("{setting} = {value} in /etc/sysctl.d/60-forkd.conf"),
        }
    }

    /// By ulimit of the shell that starts forkd, or in the unit of systemd that does.
    pub fn ulimit(option: char, directive: &str, item: &str, value: u64, service: Option<&str>) -> Self {
        let lasting = match service {
            Some(unit) => format!("{directive}={value} below [Service]: systemctl edit {unit}"),
            None => format!(
                "{directive}={value} in forkd's unit, or \"* - {item} {value}\" in /etc/security/limits.d/forkd.conf"
            ),
        };
        Self { now: format!("ulimit -{option} {value}"), lasting }
    }

    /// By an option of forkd.
    pub fn option(option: impl Into<String>, key: impl Into<String>) -> Self {
        Self { now: option.into(), lasting: key.into() }
    }
}
