//! Which sources may come in: networks, users and groups that are allowed or denied.
//!
//! The most specific rule that a source fits decides: the one with the longest prefix of its address; for the client of a
//! Unix socket that of its user before that of its group. If one rule is both allowed and denied, it is denied. What
//! fits no rule is served, unless there is a rule of its kind that allows others: networks are one kind, users and groups
//! the other. The invariant: a lookup takes a time that does not depend on the number of rules, but for the number of
//! prefix lengths in use, and a source that is not known fits no rule and is served only where no rule is of its kind.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::transport::Peer;

/// Some sources: those of a network, of a user or of a group.
///
/// ```
/// use forkd_server::supervise::Rule;
///
/// let rule: Rule = "192.0.2.0/24".parse().unwrap();
/// assert_eq!(rule.to_string(), "192.0.2.0/24");
/// assert!("eth0".parse::<Rule>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Addresses that begin like this; a network of v4-mapped addresses is one of IPv4.
    Network(IpNet),
    /// Processes of a user, over a Unix socket.
    User(u32),
    /// Processes of a group, over a Unix socket.
    Group(u32),
}

impl Rule {
    /// Whether it is about clients of Unix sockets.
    pub fn is_unix(self) -> bool {
        !matches!(self, Self::Network(_))
    }

    /// Whether some sources fit both.
    pub(crate) fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Network(one), Self::Network(other)) => one.contains(&other) || other.contains(&one),
            _ => self == other,
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |id: &str, option: &str| {
            let why = format!("{text:?} has no number; `id {option} NAME` tells that of a name");
            id.parse().map_err(|_| why)
        };
        if let Some(id) = text.strip_prefix("uid:") {
            return number(id, "-u").map(Self::User);
        }
        if let Some(id) = text.strip_prefix("gid:") {
            return number(id, "-g").map(Self::Group);
        }
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        if address.parse::<IpAddr>().is_err() {
            return Err(format!(
                "{text:?} is no network; write one like 192.0.2.0/24 or 2001:db8::/32, an address, uid:N or gid:N. \
                 Names of hosts and interfaces are not looked up: what they stand for can change, or be forged"
            ));
        }
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(|_| {
                format!("{text:?} has no length of a prefix: 0 to 32 bits of IPv4, 0 to 128 of IPv6")
            })?,
        };
        if network.trunc() != network {
            return Err(format!("{text:?} has bits beyond its prefix; write {}", network.trunc()));
        }
        Ok(Self::Network(canonical(network)))
    }
}

/// The network of IPv4 that one of v4-mapped addresses is.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let v4 = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    let v4 = v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    v4.map_or(network, IpNet::V4)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::User(id) => write!(f, "uid:{id}"),
            Self::Group(id) => write!(f, "gid:{id}"),
        }
    }
}

/// What the rules say of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is served.
    pub admits: bool,
    /// The rule that says so; `None`: none fits.
    pub rule: Option<Rule>,
}

/// Rules for sources of two kinds.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whether those are served.
    all: HashMap<Rule, bool>,
    /// The lengths of prefixes in use, the longest first.
    v4: Vec<u8>,
    v6: Vec<u8>,
    /// Whether some are allowed, so that others are not.
    is_network_closed: bool,
    is_unix_closed: bool,
}

impl Rules {
    /// Allows some and denies others.
    pub fn new(allow: impl IntoIterator<Item = Rule>, deny: impl IntoIterator<Item = Rule>) -> Self {
        let mut rules = Self::default();
        allow.into_iter().for_each(|rule| rules.add(rule, true));
        deny.into_iter().for_each(|rule| rules.add(rule, false));
        rules
    }

    /// Allows or denies some more.
    pub fn add(&mut self, rule: Rule, allowed: bool) {
        let is_closed = if rule.is_unix() { &mut self.is_unix_closed } else { &mut self.is_network_closed };
        *is_closed |= allowed;
        self.all.entry(rule).and_modify(|before| *before &= allowed).or_insert(allowed);
        if let Rule::Network(network) = rule {
            let lengths = if network.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
            if let Err(at) = lengths.binary_search_by(|length| network.prefix_len().cmp(length)) {
                lengths.insert(at, network.prefix_len());
            }
        }
    }

    /// Whether there are none, so that each source is served.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many allow, and how many deny, sources of Unix sockets or others.
    pub fn count(&self, unix: bool) -> (usize, usize) {
        let (allow, deny): (Vec<bool>, Vec<bool>) = self
            .all
            .iter()
            .filter(|(rule, _)| rule.is_unix() == unix)
            .map(|(_, &allowed)| allowed)
            .partition(|&x| x);
        (allow.len(), deny.len())
    }

    /// Whether any is about sources of Unix sockets, or others.
    pub fn has_any(&self, unix: bool) -> bool {
        self.count(unix) != (0, 0)
    }

    /// What they say of a client.
    pub fn decide(&self, peer: Peer) -> Decision {
        match peer {
            Peer::Ip(address) => self.of_address(address.ip().to_canonical()),
            // the kernel has not told who it is
            Peer::Unix { pid: 0, .. } => self.of_unknown(true),
            Peer::Unix { uid, gid, .. } => {
                self.first([Rule::User(uid), Rule::Group(gid)].into_iter(), self.is_unix_closed)
            }
            Peer::None => self.of_unknown(false),
        }
    }

    fn of_address(&self, address: IpAddr) -> Decision {
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let networks = lengths
            .iter()
            .filter_map(|&length| Some(Rule::Network(IpNet::new(address, length).ok()?.trunc())));
        self.first(networks, self.is_network_closed)
    }

    fn first(&self, mut rules: impl Iterator<Item = Rule>, is_closed: bool) -> Decision {
        let found = rules.find_map(|rule| Some((rule, *self.all.get(&rule)?)));
        found.map_or(Decision { admits: !is_closed, rule: None }, |(rule, admits)| Decision {
            admits,
            rule: Some(rule),
        })
    }

    fn of_unknown(&self, unix: bool) -> Decision {
        Decision { admits: !self.all.keys().any(|rule| rule.is_unix() == unix), rule: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let parse =
            |texts: &[&str]| -> Vec<Rule> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        Rules::new(parse(allow), parse(deny))
    }

    fn ip(text: &str) -> Peer {
        Peer::Ip((text.parse::<IpAddr>().unwrap(), 1).into())
    }

    fn unix(uid: u32, gid: u32) -> Peer {
        Peer::Unix { pid: 1, uid, gid }
    }

    #[track_caller]
    fn decides(rules: &Rules, peer: Peer, admits: bool, rule: &str) {
        let decision = rules.decide(peer);
        let by = decision.rule.map_or_else(String::new, |rule| rule.to_string());
        assert_eq!((decision.admits, by.as_str()), (admits, rule), "{peer}");
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = rules(&["10.0.0.0/8", "10.1.2.0/24", "10.1.2.9"], &["10.1.0.0/16", "10.1.2.8/29"]);
        for (address, admits, rule) in [
            ("10.9.9.9", true, "10.0.0.0/8"),
            ("10.1.9.9", false, "10.1.0.0/16"),
            ("10.1.2.1", true, "10.1.2.0/24"),
            ("10.1.2.10", false, "10.1.2.8/29"),
            ("10.1.2.9", true, "10.1.2.9"),
            ("11.0.0.1", false, ""),
            ("::1", false, ""),
        ] {
            decides(&rules, ip(address), admits, rule);
        }
    }

    #[test]
    fn without_an_allowed_network_all_others_are_served() {
        let rules = rules(&[], &["192.0.2.0/24", "2001:db8::/32"]);
        decides(&rules, ip("192.0.2.1"), false, "192.0.2.0/24");
        decides(&rules, ip("2001:db8::1"), false, "2001:db8::/32");
        decides(&rules, ip("192.0.3.1"), true, "");
        decides(&Rules::default(), ip("192.0.3.1"), true, "");
    }

    #[test]
    fn what_is_allowed_and_denied_is_denied() {
        decides(&rules(&["10.0.0.0/8"], &["10.0.0.0/8"]), ip("10.0.0.1"), false, "10.0.0.0/8");
        decides(&rules(&["0.0.0.0/0"], &[]), ip("10.0.0.1"), true, "0.0.0.0/0");
    }

    #[test]
    fn v4_mapped_addresses_are_ipv4() {
        let rules = rules(&["::ffff:10.0.0.0/104"], &["::/0"]);
        decides(&rules, ip("::ffff:10.0.0.1"), true, "10.0.0.0/8");
        decides(&rules, ip("10.0.0.1"), true, "10.0.0.0/8");
        decides(&rules, ip("::ffff:11.0.0.1"), false, "");
        decides(&rules, ip("::1"), false, "::/0");
    }

    #[test]
    fn users_come_before_groups_and_networks_are_another_kind() {
        let rules = rules(&["gid:100", "uid:1000"], &["uid:7", "gid:9", "10.0.0.0/8"]);
        decides(&rules, unix(1000, 9), true, "uid:1000");
        decides(&rules, unix(7, 100), false, "uid:7");
        decides(&rules, unix(8, 100), true, "gid:100");
        decides(&rules, unix(8, 8), false, "");
        decides(&rules, ip("11.0.0.1"), true, "");
        assert_eq!((rules.count(true), rules.count(false)), ((2, 2), (0, 1)));
    }

    #[test]
    fn a_source_that_is_not_known_is_served_where_no_rule_is_of_its_kind() {
        let unknown = Peer::Unix { pid: 0, uid: 0, gid: 0 };
        decides(&rules(&["uid:0"], &[]), unknown, false, "");
        decides(&rules(&[], &["uid:7"]), unknown, false, "");
        decides(&rules(&["10.0.0.0/8"], &[]), unknown, true, "");
        decides(&rules(&[], &["10.0.0.0/8"]), Peer::None, false, "");
        decides(&rules(&["uid:0"], &[]), Peer::None, true, "");
    }

    #[test]
    fn rules_meet_where_a_source_fits_both() {
        let meets = |one: &str, other: &str| one.parse::<Rule>().unwrap().meets(other.parse().unwrap());
        assert!(meets("10.0.0.0/8", "10.1.2.3") && meets("10.1.2.3", "10.0.0.0/8"));
        assert!(!meets("10.0.0.0/8", "11.0.0.0/8") && !meets("0.0.0.0/0", "::1"));
        assert!(meets("uid:7", "uid:7") && !meets("uid:7", "gid:7") && !meets("uid:7", "0.0.0.7"));
    }

    #[test]
    fn a_mistake_says_what_to_write() {
        for (text, why) in [
            ("eth0", "Names of hosts and interfaces are not looked up"),
            ("example.org", "is no network; write one like 192.0.2.0/24"),
            ("192.0.2", "is no network"),
            ("", "is no network"),
            ("192.0.2.0/33", "has no length of a prefix"),
            ("2001:db8::/x", "has no length of a prefix"),
            ("192.0.2.7/24", "has bits beyond its prefix; write 192.0.2.0/24"),
            ("uid:alice", "`id -u NAME` tells that of a name"),
            ("gid:", "`id -g NAME`"),
            ("fe80::1%eth0", "is no network"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_displays_what_it_parses(bits: u128, length in 0..=128_u8, v4: bool) {
            let address: IpAddr = if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) };
            let network = IpNet::new(address, if v4 { length / 4 } else { length }).unwrap().trunc();
            let rule = Rule::Network(canonical(network));
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        /// As a list that is looked through from its longest prefix on.
        #[test]
        fn decides_as_a_list_would(
            listed in prop::collection::vec((0_u32..64, 26..=32_u8, any::<bool>()), 0..20),
            asked in 0_u32..64,
        ) {
            let net = |(bits, length, allowed): (u32, u8, bool)| {
                (IpNet::new(IpAddr::V4(bits.into()), length).unwrap().trunc(), allowed)
            };
            let listed: Vec<(IpNet, bool)> = listed.into_iter().map(net).collect();
            let mut rules = Rules::default();
            listed.iter().for_each(|&(net, allowed)| rules.add(Rule::Network(net), allowed));
            let address = IpAddr::V4(asked.into());
            let fits = listed.iter().filter(|(net, _)| net.contains(&address));
            let best = fits.max_by_key(|(net, allowed)| (net.prefix_len(), !allowed));
            let expected = best.map_or(!listed.iter().any(|&(_, allowed)| allowed), |&(_, allowed)| allowed);
            prop_assert_eq!(rules.decide(Peer::Ip((address, 1).into())).admits, expected);
        }
    }
}
