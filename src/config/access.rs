//! Which clients are served by where they come from, as options and lists say it.
//!
//! A list is a file with a network, a user or a group in each line, and comments after `#`. It is read when what is
//! served is made: at the start, at a reload, and by `forkd check`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::file::bytes_of;
use super::options::ListenOptions;
use super::values::InvalidValue;
use crate::{Error, foreign};
use forkd_net::unit::{self, Attempt};
use forkd_server::model::Overflow;
use forkd_server::supervise::{AccessSpec, Decision, EarlyDrop, Penalties, ProxySpec, Rule, Rules};
use forkd_server::{Endpoint, Peer};

const ALLOW: &str = "allow";
const DENY: &str = "deny";
const PROXY_FROM: &str = "proxy-from";
const PENALTY_EXEMPT: &str = "penalty-exempt";

/// One value of `--allow` or `--deny`: a rule, or the path of a list of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A network, a user or a group.
    Rule(Rule),
    /// A file with one in each line.
    File(PathBuf),
}

impl FromStr for Listed {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // no network begins like a path
        if text.starts_with('/') || text.starts_with('.') {
            return Ok(Self::File(text.into()));
        }
        text.parse().map(Self::Rule).map_err(|why: String| {
            InvalidValue(format!("{why}; a list is named by its path, such as /etc/forkd/allow or ./allow"))
        })
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A rule, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) rule: Rule,
    /// Where it is given.
    option: &'static str,
    /// The list, and the line there.
    list: Option<(PathBuf, usize)>,
}

impl Placed {
    fn is_allowed(&self) -> bool {
        self.option != DENY
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.option, self.rule)?;
        match &self.list {
            Some((path, line)) => write!(f, ", {}:{line}", path.display()),
            None => Ok(()),
        }
    }
}

/// A client that `forkd check --source` asks about: an address, or a process of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked(pub(crate) Peer);

impl FromStr for Asked {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no_source = || {
            InvalidValue(format!(
                "{text:?} is no source; write an address such as 192.0.2.1, or uid:N or uid:N,gid:N"
            ))
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(Peer::Ip((address.to_canonical(), 0).into())));
        }
        let (user, group) = text.split_once(',').map_or((text, None), |(user, group)| (user, Some(group)));
        let number = |part: &str, name| part.strip_prefix(name)?.parse::<u32>().ok();
        let uid = number(user, "uid:").ok_or_else(no_source)?;
        // no group has this number (chown(2))
        let gid = group.map_or(Some(u32::MAX), |group| number(group, "gid:")).ok_or_else(no_source)?;
        // of a process that the kernel has told
        Ok(Self(Peer::Unix { pid: 1, uid, gid }))
    }
}

/// The sources that `forkd pardon` is about: an address, a network, or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PardonedSource(pub(crate) Rule);

impl FromStr for PardonedSource {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse().map_err(InvalidValue)? {
            Rule::Group(_) => {
                Err(InvalidValue(format!("{text:?} is no source; write an address, a network, or uid:N")))
            }
            rule => Ok(Self(rule)),
        }
    }
}

impl ListenOptions {
    /// What limits the clients by where they come from.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a list that can't be read, or with a line that is no rule.
    pub(crate) fn access(&self) -> Result<AccessSpec, Error> {
        let mut rules = Rules::default();
        self.access_rules()?.iter().for_each(|placed| rules.add(placed.rule, placed.is_allowed()));
        let all_of = |placed: Vec<Placed>| Rules::new(placed.iter().map(|placed| placed.rule), []);
        let from = all_of(placed(&self.proxy_from, PROXY_FROM)?);
        self.refuse_listed_users_of_datagrams(&[&rules, &from])?;
        let penalties = Penalties::new(self.penalty.iter().copied(), all_of(self.exempt()?));
        Ok(AccessSpec {
            rules,
            max_per_source: self.max_per_source,
            rate_per_source: self.rate_per_source,
            rate: self.rate,
            rate_refuses: self.overflow() == Overflow::Reject,
            early_drop: self.early_drop,
            penalties,
            source_prefix: self.source_prefix(),
            proxy: self.proxy.map(|version| ProxySpec { version, from }),
        })
    }

    /// All rules, those of lists too.
    ///
    /// # Errors
    ///
    /// As [`access`](Self::access).
    pub(crate) fn access_rules(&self) -> Result<Vec<Placed>, Error> {
        Ok([placed(&self.allow, ALLOW)?, placed(&self.deny, DENY)?].concat())
    }

    /// The sources that are never penalised.
    fn exempt(&self) -> Result<Vec<Placed>, Error> {
        placed(&self.penalty_exempt, PENALTY_EXEMPT)
    }

    /// Whether one source may have so many clients, or so often one.
    pub(super) fn limits_sources(&self) -> bool {
        self.max_per_source.is_some() || self.rate_per_source.is_some()
    }

    /// What would happen to a client at each endpoint, by which rule.
    ///
    /// # Errors
    ///
    /// As [`access`](Self::access).
    pub(crate) fn answer(&self, Asked(peer): Asked) -> Result<String, Error> {
        let (access, rules) = (self.access()?, self.access_rules()?);
        let Decision { admits, rule } = access.rules.decide(peer);
        let is_unix = matches!(peer, Peer::Unix { .. });
        let exempt = self.exempt()?;
        let exempt_by =
            by(Rules::new(exempt.iter().map(|placed| placed.rule), []).decide(peer).rule, &exempt, true);
        let exempt = exempt_by
            .filter(|_| admits)
            .map(|by| format!(", and never penalised ({by})"))
            .unwrap_or_default();
        let served = match (by(rule, &rules, admits), admits) {
            (Some(by), true) => format!("served ({by})"),
            (None, true) => "served (no rule denies it)".to_owned(),
            (Some(by), false) => format!("refused ({by})"),
            (None, false) => "refused (no rule allows it)".to_owned(),
        } + &exempt;
        let proxies = placed(&self.proxy_from, PROXY_FROM)?;
        let believed = access.proxy.as_ref().map(|proxy| {
            let by = by(proxy.from.decide(peer).rule, &proxies, true);
            by.map_or_else(|| "refused (no proxy-from names it)".to_owned(), |by| format!("believed ({by})"))
        });
        let of = |endpoint: &Endpoint| {
            let has_users = endpoint.path().is_some();
            match &believed {
                Some(believed) if endpoint.is_inherited() || has_users == is_unix => {
                    format!("as a proxy {believed}; as a client of one {served}")
                }
                // those that a proxy names have addresses, whatever socket they come by
                Some(_) if has_users => {
                    format!("no proxy, of which it has users (uid:N); as a client of one {served}")
                }
                None if endpoint.is_inherited() || has_users == is_unix => served.clone(),
                None if has_users => "has no such clients, but users (uid:N)".to_owned(),
                _ => "has no such clients, but addresses".to_owned(),
            }
        };
        Ok(self.endpoints.iter().map(|endpoint| format!("{endpoint}: {}\n", of(endpoint))).collect())
    }

    /// The policy in words, as a comment of TOML; nothing where all are served.
    ///
    /// # Errors
    ///
    /// As [`access`](Self::access).
    pub(crate) fn access_in_words(&self) -> Result<String, Error> {
        let AccessSpec {
            rules,
            max_per_source,
            rate_per_source,
            rate,
            rate_refuses,
            early_drop,
            source_prefix,
            proxy,
            penalties: _,
        } = self.access()?;
        let penalties: Vec<String> = self.penalty.iter().map(ToString::to_string).collect();
        let exempt = self.exempt()?.len();
        let sentence = |(allow, deny): (usize, usize), kind: &str| match (allow, deny) {
            (0, 0) => None,
            (0, deny) => Some(format!("all {kind} are served, but for those that {deny} rules deny")),
            (allow, deny) => {
                Some(format!("only {kind} that {allow} rules allow are served, and {deny} rules deny some"))
            }
        };
        let source = format!("one source (a prefix of {source_prefix} bits, or a user)");
        let beyond = if rate_refuses { "are refused" } else { "wait in the backlog" };
        let all = [
            sentence(rules.count(false), "addresses"),
            sentence(rules.count(true), "users"),
            max_per_source.map(|most| format!("of {source} {most} clients at once are served")),
            rate_per_source.map(|rate| format!("of {source} {rate} clients may come, and more are refused")),
            rate.map(|rate| format!("{rate} clients may come, and more {beyond}")),
            early_drop.map(EarlyDrop::in_words),
            (!penalties.is_empty()).then(|| {
                let all = penalties.join(", ");
                format!("{source} is refused for a while after {all}, and up to 16 times as long when that goes on")
            }),
            (exempt > 0).then(|| format!("never penalised is what fits one of the rules of penalty-exempt ({exempt})")),
        ];
        let by_proxy = proxy.map(|proxy| {
            let all = proxy.from.count(false).0 + proxy.from.count(true).0;
            format!("clients come by proxies, for which there are {all} rules, and are those that these name")
        });
        let endpoints: Vec<_> = self.endpoints.iter().map(ToString::to_string).collect();
        let line = |sentence: String| format!("# {}: {sentence}\n", endpoints.join(", "));
        Ok(by_proxy.into_iter().chain(all.into_iter().flatten()).map(line).collect())
    }

    /// Why a rule of this option can have no effect here, as far as the options tell.
    pub(super) fn why_not_listed(&self, listed: &[Listed]) -> Option<String> {
        let endpoint = self.endpoints.first()?;
        let is_idle = |listed: &Listed| match listed {
            Listed::Rule(rule) => !self
                .has_any(|endpoint| endpoint.is_inherited() || endpoint.path().is_some() == rule.is_unix()),
            Listed::File(_) => false,
        };
        listed.iter().all(is_idle).then(|| {
            let (has, needs) = match endpoint.path() {
                Some(_) => ("users, not networks", "uid:N or gid:N"),
                None => ("networks, not users", "a network"),
            };
            format!("has no effect on {endpoint}, whose clients have {has}; write {needs}, or leave this out")
        })
    }

    /// Refuses rules about users where the kernel does not tell the user of a client.
    pub(super) fn refuse_users_of_datagrams(&self) -> Result<(), (&'static str, String)> {
        let is_user = |listed: &Listed| matches!(listed, Listed::Rule(rule) if rule.is_unix());
        let Some(endpoint) = self.unixgram() else { return Ok(()) };
        for (id, listed) in [("allow", &self.allow), ("deny", &self.deny), ("proxy_from", &self.proxy_from)] {
            if let Some(rule) = listed.iter().find(|listed| is_user(listed)) {
                let why = format!(
                    "has {rule}, but a datagram to {endpoint} does not tell its user; leave one of them out, and give \
                     the socket's file permissions by `socket-mode`"
                );
                return Err((id, why));
            }
        }
        Ok(())
    }

    /// The same for rules in lists.
    fn refuse_listed_users_of_datagrams(&self, rules: &[&Rules]) -> Result<(), Error> {
        match self.unixgram() {
            Some(endpoint) if rules.iter().any(|rules| rules.has_any(true)) => Err(Error::Config(format!(
                "a list has users (uid:N, gid:N), but a datagram to {endpoint} does not tell its user; leave the list or the \
                 endpoint out, and give the socket's file permissions by socket-mode"
            ))),
            _ => Ok(()),
        }
    }

    fn unixgram(&self) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.path().is_some() && endpoint.is_datagram())
    }
}

/// What has decided, if it was a rule.
fn by(rule: Option<Rule>, all: &[Placed], allowed: bool) -> Option<String> {
    let found = all.iter().find(|placed| Some(placed.rule) == rule && placed.is_allowed() == allowed);
    found.map(ToString::to_string)
}

/// What is written for an option, and what the lists that are named there have.
fn placed(listed: &[Listed], option: &'static str) -> Result<Vec<Placed>, Error> {
    let mut all = Vec::new();
    for listed in listed {
        match listed {
            Listed::Rule(rule) => all.push(Placed { rule: *rule, option, list: None }),
            Listed::File(path) => {
                let rules = read(path, option)?;
                if matches!(option, ALLOW | PROXY_FROM) && rules.is_empty() {
                    let name = path.display();
                    return Err(Error::Config(format!(
                        "the list {name} names no source, and without one all would be let in; write one into it, or leave \
                         the list out"
                    )));
                }
                all.extend(rules);
            }
        }
    }
    Ok(all)
}

/// Reads a list.
fn read(path: &Path, option: &'static str) -> Result<Vec<Placed>, Error> {
    let name = path.display();
    let bytes = bytes_of(path).map_err(|error| {
        let hint = unit::hint(Attempt::Read(path), &error);
        Error::Config(format!("cannot read the list {name}: {error}")).advising(hint)
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::Config(format!("the list {name} is not UTF-8; write networks, a line for each"))
    })?;
    let rule_of = |(line, text): (usize, &str)| {
        let text = text.split_once('#').map_or(text, |(text, _)| text).trim();
        let rule = (!text.is_empty()).then(|| text.parse())?;
        Some(
            rule.map(|rule| Placed { rule, option, list: Some((path.to_owned(), line)) })
                .map_err(|why: String| Error::Config(format!("{name}:{line}: {}", foreign::line(&why)))),
        )
    };
    (1..).zip(text.lines()).filter_map(rule_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(toml: &str) -> ListenOptions {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_list_has_a_rule_in_each_line_and_comments() {
        let list = tempfile::NamedTempFile::new().unwrap();
        let path = list.path().display();
        std::fs::write(list.path(), "# ours\n10.0.0.0/8\n\n 2001:db8::/32  # and these\nuid:7\n").unwrap();
        let rules = group(&format!("allow = ['192.0.2.1', '{path}']\ndeny = ['10.1.0.0/16']")).access_rules();
        let shown: Vec<String> = rules.unwrap().iter().map(ToString::to_string).collect();
        let line = |rule: &str, line: usize| format!("allow {rule}, {path}:{line}");
        assert_eq!(
            shown,
            [
                "allow 192.0.2.1".to_owned(),
                line("10.0.0.0/8", 2),
                line("2001:db8::/32", 4),
                line("uid:7", 5),
                "deny 10.1.0.0/16".to_owned()
            ]
        );
    }

    #[test]
    fn a_source_is_an_address_or_a_user() {
        let asked = |text: &str| text.parse::<Asked>().unwrap().0.to_string();
        assert_eq!(asked("::ffff:192.0.2.1"), "192.0.2.1:0");
        assert_eq!(asked("uid:7,gid:8"), "unix:pid=1,uid=7");
        for text in ["eth0", "uid:a", "gid:7", "uid:7,8", "10.0.0.0/8"] {
            assert!(text.parse::<Asked>().unwrap_err().to_string().contains("is no source"), "{text}");
        }
        let pardoned = |text: &str| text.parse().map(|PardonedSource(rule)| rule.to_string());
        assert_eq!(pardoned("::ffff:192.0.2.1").unwrap(), "192.0.2.1");
        assert!(pardoned("eth0").unwrap_err().to_string().contains("is no network"));
        assert!(pardoned("gid:7").unwrap_err().to_string().contains("is no source"));
    }

    #[test]
    fn a_mistake_in_a_list_has_its_line() {
        let list = tempfile::NamedTempFile::new().unwrap();
        let path = list.path().display();
        for (text, why) in [
            ("10.0.0.0/8\neth0\n", ":2: \"eth0\" is no network"),
            ("/etc/other\n", ":1: \"/etc/other\" is no network"),
        ] {
            std::fs::write(list.path(), text).unwrap();
            let error = group(&format!("deny = ['{path}']")).access().unwrap_err();
            assert_eq!(error.exit_code(), 78);
            assert!(error.to_string().contains(why), "{error}");
        }
        std::fs::write(list.path(), b"\xff").unwrap();
        let error = group(&format!("deny = ['{path}']")).access().unwrap_err();
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
        let error = group("deny = ['/nowhere/list']").access().unwrap_err();
        assert!(error.to_string().contains("cannot read the list /nowhere/list: No such file"), "{error}");
    }
}
