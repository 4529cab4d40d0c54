//! The sources that have clients, or are refused, as `forkd status --sources` and `forkd pardon` show them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{row, table};
use forkd_server::supervise::{KnownSource, Listing, Offence, Rule, View};

/// How many are named in one answer.
const MOST: usize = 1000;

/// What `forkd status --sources --json` prints; its field names are a contract with scripts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourcesStatus {
    /// Those that are refused come first, the longest before others.
    pub sources: Vec<SourceStatus>,
    /// How many there are beside them.
    pub left_out: usize,
}

/// A source at a listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// An address, a network, or `uid:N`.
    pub source: String,
    /// The listening socket.
    pub endpoint: String,
    /// How many clients it has, as far as they are counted.
    pub clients: u16,
    /// Why its next client would be refused, as refusals are counted; else `null`.
    pub refused: Option<String>,
    /// What it is penalised for; else `null`.
    pub offence: Option<String>,
    /// For how many seconds it is refused; `null` if it is not, or until one of its clients leaves.
    pub left_s: Option<f64>,
}

impl SourcesStatus {
    /// What is known of sources.
    pub(crate) fn of(view: View<'_>) -> Self {
        Self::shown(view.sources(MOST), view)
    }

    /// Forgives the sources that fit a rule; shows those that were refused.
    pub(crate) fn pardoned(rule: Rule, view: View<'_>) -> Self {
        Self::shown(view.pardon(rule, MOST), view)
    }

    /// Whether it is about none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    fn shown(Listing { sources, left_out }: Listing, view: View<'_>) -> Self {
        let endpoints = view.endpoints();
        let shown = |known: KnownSource| {
            let KnownSource { socket, source, clients, refused } = known;
            Some(SourceStatus {
                source: source.to_string(),
                endpoint: endpoints.get(&socket)?.clone(),
                clients,
                refused: refused.map(|refused| refused.why.to_string()),
                offence: refused.and_then(|refused| refused.offence).as_ref().map(Offence::to_string),
                left_s: refused.and_then(|refused| refused.left).map(|left| left.as_millis() as f64 / 1000.0),
            })
        };
        Self { sources: sources.into_iter().filter_map(shown).collect(), left_out }
    }
}

impl SourceStatus {
    /// Why it is refused.
    fn why(&self) -> String {
        match (&self.refused, &self.offence) {
            (None, _) => "-".to_owned(),
            (Some(refused), None) => refused.clone(),
            (Some(refused), Some(offence)) => format!("{refused} ({offence})"),
        }
    }

    /// For how long, in whole seconds, of which the last one has not begun.
    fn left(&self) -> Option<String> {
        let left = self.left_s.and_then(|left| Duration::try_from_secs_f64(left.ceil()).ok())?;
        Some(humantime::format_duration(left).to_string())
    }
}

/// The table of `forkd status --sources`.
impl fmt::Display for SourcesStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sources.is_empty() {
            return f.write_str("no source has clients that are counted, and none is refused\n");
        }
        let heads = ["SOURCE", "CLIENTS", "REFUSED", "FOR", "LISTENER"];
        let mut rows = vec![row(heads)];
        for source in &self.sources {
            let left = source.left().unwrap_or_else(|| "-".to_owned());
            let cells = [&source.source, &source.clients.to_string(), &source.why(), &left, &source.endpoint];
            rows.push(cells.map(Clone::clone).to_vec());
        }
        table(f, &rows, &heads, None)?;
        write_left_out(f, self.left_out)
    }
}

/// What `forkd pardon` prints: those that were forgiven.
#[derive(Debug)]
pub struct Pardoned<'a> {
    /// What was asked for.
    pub rule: Rule,
    /// The answer.
    pub answer: &'a SourcesStatus,
}

impl fmt::Display for Pardoned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourcesStatus { sources, left_out } = self.answer;
        if sources.is_empty() {
            return writeln!(f, "{} was not refused, so there was nothing to pardon", self.rule);
        }
        for source in sources {
            let (why, left) = (source.why(), source.left().unwrap_or_default());
            let SourceStatus { source, endpoint, .. } = source;
            writeln!(f, "pardoned {source} at {endpoint}, which refused it for another {left}: {why}")?;
        }
        write_left_out(f, *left_out)
    }
}

fn write_left_out(f: &mut fmt::Formatter<'_>, left_out: usize) -> fmt::Result {
    if left_out > 0 { writeln!(f, "and {left_out} more") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> SourcesStatus {
        let source = |source: &str, refused: Option<&str>, offence: Option<&str>, left_s| SourceStatus {
            source: source.to_owned(),
            endpoint: "tcp://[::]:7".to_owned(),
            clients: 2,
            refused: refused.map(str::to_owned),
            offence: offence.map(str::to_owned),
            left_s,
        };
        let sources = vec![
            source("2001:db8::/64", Some("penalty"), Some("timeout"), Some(89.2)),
            source("192.0.2.1", Some("source-limit"), None, None),
            source("uid:7", None, None, None),
        ];
        SourcesStatus { sources, left_out: 3 }
    }

    #[test]
    fn the_table_says_why_and_for_how_long() {
        let expected = "\
SOURCE         CLIENTS  REFUSED            FOR     LISTENER
2001:db8::/64  2        penalty (timeout)  1m 30s  tcp://[::]:7
192.0.2.1      2        source-limit       -       tcp://[::]:7
uid:7          2        -                  -       tcp://[::]:7
and 3 more
";
        assert_eq!(answer().to_string(), expected);
        let none = SourcesStatus { sources: Vec::new(), left_out: 0 };
        assert!(none.to_string().starts_with("no source has clients"));
    }

    #[test]
    fn a_pardon_says_what_it_has_changed() {
        let (rule, all) = ("2001:db8::1".parse().unwrap(), answer());
        let answer = SourcesStatus { sources: all.sources[..1].to_vec(), left_out: 0 };
        assert_eq!(
            Pardoned { rule, answer: &answer }.to_string(),
            "pardoned 2001:db8::/64 at tcp://[::]:7, which refused it for another 1m 30s: penalty (timeout)\n"
        );
        let answer = SourcesStatus { sources: Vec::new(), left_out: 0 };
        let none = Pardoned { rule, answer: &answer }.to_string();
        assert_eq!(none, "2001:db8::1 was not refused, so there was nothing to pardon\n");
    }

    #[test]
    fn an_answer_of_any_numbers_is_shown() {
        for left_s in [f64::NAN, f64::MAX, -1.0] {
            let mut answer = answer();
            answer.sources[0].left_s = Some(left_s);
            assert!(answer.to_string().contains("penalty (timeout)"));
        }
    }
}
