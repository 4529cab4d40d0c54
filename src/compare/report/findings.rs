//! What the figures say, in plain sentences.
//!
//! Invariant: no sentence stands but for the figures that it names. Two servers whose rounds overlap are
//! never said to differ.

use super::figures::{self, Figure, Value, View};
use crate::compare::record::{Entry, Record};
use crate::text::{listed, thousands};

/// How many sentences there are at most.
const MOST: usize = 3;

/// The least ratio that is worth a sentence, where it is not chance.
const NOTABLE: f64 = 1.1;

/// A ratio that is much.
const MUCH: f64 = 2.0;

/// What a figure can say of two servers, with the greater value first.
struct Topic {
    figure: &'static Figure,
    /// Whether the greater value is the better one.
    more_is_better: bool,
    /// What is counted, as in "the processor time of a connection".
    what: &'static str,
    say: fn(&Contrast) -> String,
}

/// The server with the greatest value, and the one with the least.
struct Contrast<'a> {
    most: &'a str,
    least: &'a str,
    /// As in "2.4 times"; "more than 100 times" if there is next to nothing to compare with.
    times: String,
    /// As in "110 µs against 46 µs".
    both: String,
}

static TOPICS: [Topic; 7] = [
    Topic {
        figure: &figures::CPU,
        more_is_better: false,
        what: "the processor time for a connection",
        say: |it| {
            format!(
                "A connection cost {} {} the processor time that it cost {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::PSS,
        more_is_better: false,
        what: "the memory for a held connection",
        say: |it| {
            format!(
                "A client that only stays connected took {} the memory with {} that it took with {}: {}.",
                it.times, it.most, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::CONN_PER_S,
        more_is_better: true,
        what: "the number of connections per second",
        say: |it| {
            format!("{} had {} the connections per second of {}: {}.", it.most, it.times, it.least, it.both)
        },
    },
    Topic {
        figure: &figures::REQ_PER_S,
        more_is_better: true,
        what: "the number of requests per second",
        say: |it| {
            format!(
                "On standing connections {} answered {} the requests per second of {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::P99,
        more_is_better: false,
        what: "what the slowest percent of the clients waited",
        say: |it| {
            format!(
                "The slowest percent of the clients waited {} as long for {} as for {}: at least {}.",
                it.times, it.most, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::MB_PER_S,
        more_is_better: true,
        what: "the speed of one stream",
        say: |it| {
            format!("One stream was {} as fast with {} as with {}: {}.", it.times, it.most, it.least, it.both)
        },
    },
    Topic {
        figure: &figures::DATAGRAMS,
        more_is_better: true,
        what: "the number of answered datagrams per second",
        say: |it| format!("{} answered {} the datagrams of {}: {}.", it.most, it.times, it.least, it.both),
    },
];

/// Two or three sentences; fewer, if there is less to say.
#[must_use]
pub fn findings(record: &Record) -> Vec<String> {
    let mut sentences: Vec<String> = served(record).into_iter().collect();
    let mut said: Vec<(f64, String)> = TOPICS.iter().filter_map(|topic| contrast(record, topic)).collect();
    // what differs much comes first; beyond that the order of the topics counts
    said.sort_by(|one, other| other.0.min(MUCH).total_cmp(&one.0.min(MUCH)));
    sentences.extend(said.into_iter().map(|(_, sentence)| capital(&sentence)));
    sentences.truncate(MOST);
    sentences
}

/// Who serves how many clients at once.
fn served(record: &Record) -> Option<String> {
    let of = |entry: &Entry| {
        let hold = &entry.hold.as_ref()?.median;
        Some((entry.title(), hold.served?, hold.clients.filter(|clients| *clients > 0.0)?))
    };
    let all: Vec<_> = record.models.iter().filter_map(of).collect();
    let clients = all.first()?.2;
    let (every, some): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, served, clients)| served >= clients);
    let names: Vec<String> = every.into_iter().map(|(title, ..)| title).collect();
    let fewer: Vec<String> =
        some.iter().map(|(title, served, _)| format!("{title}: {}", figures::SERVED.text(*served))).collect();
    let (clients, fewer) = (thousands(clients), fewer.join(", "));
    Some(match names.as_slice() {
        [] => format!("No server served all {clients} clients at once ({fewer}): the rest waited."),
        names if fewer.is_empty() => {
            format!("All {clients} clients were served at once by {}.", listed(names))
        }
        names => format!(
            "All {clients} clients were served at once by {}; others let some wait ({fewer} at once).",
            listed(names)
        ),
    })
}

/// A sentence on the servers that differ most, with how much that is.
fn contrast(record: &Record, topic: &Topic) -> Option<(f64, String)> {
    let figure = topic.figure;
    let mut all: Vec<(String, Value)> =
        record.models.iter().filter_map(|entry| Some((entry.title(), value(entry, figure)?))).collect();
    all.sort_by(|one, other| other.1.median.total_cmp(&one.1.median));
    let [first, .., last] = all.as_slice() else { return None };
    let (most, least) = (&first.1, &last.1);
    if most.median <= 0.0 {
        return None;
    }
    let both = format!("{} against {}", figure.text(most.median), figure.text(least.median));
    if most.rounds.len() > 1 && most.overlaps(least) {
        let sentence =
            format!("In {} no server can be told from another: {both}, and the rounds overlap.", topic.what);
        return Some((1.0, sentence));
    }
    let ratio = most.median / least.median.max(most.median / 1000.0);
    if ratio < NOTABLE {
        return None;
    }
    let times = match ratio {
        _ if ratio > 999.0 => "more than 999 times".into(),
        _ if ratio >= 10.0 => format!("{ratio:.0} times"),
        _ => format!("{ratio:.1} times"),
    };
    let mut sentence = (topic.say)(&Contrast { most: &first.0, least: &last.0, times, both });
    sentence.push_str(&alike(&all, topic.more_is_better));
    Some((ratio, sentence))
}

/// Says who can't be told from the best; `all` begins with the greatest.
fn alike(all: &[(String, Value)], more_is_better: bool) -> String {
    let best = if more_is_better { all.first() } else { all.last() };
    let Some((best, value)) = best.filter(|(_, value)| value.rounds.len() > 1) else { return String::new() };
    let others = all.iter().filter(|(title, other)| title != best && other.overlaps(value));
    let others: Vec<String> = others.map(|(title, _)| title.clone()).collect();
    if others.is_empty() {
        return String::new();
    }
    format!(" {} can't be told from {best} there: the rounds overlap.", capital(&listed(&others)))
}

/// What a server has; for memory, if it served those whose memory that is.
fn value(entry: &Entry, figure: &Figure) -> Option<Value> {
    let is_memory = std::ptr::eq(figure, &figures::PSS);
    let hold = entry.hold.as_ref().map(|hold| &hold.median);
    // the share of one or two clients is lost in the noise of the whole
    if is_memory && hold.is_none_or(|hold| hold.served.unwrap_or(0.0) * 2.0 < hold.clients.unwrap_or(0.0)) {
        return None;
    }
    figure.of(&View::from(entry))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// What must be known besides: what is missing, and why.
#[must_use]
pub fn warnings(record: &Record) -> Vec<String> {
    let mut warnings = Vec::new();
    if record.interrupted {
        warnings.push("it was stopped before its end: rounds or servers may be missing".to_owned());
    }
    for entry in &record.models {
        if let Some(why) = &entry.failure {
            warnings.push(format!("{} could not be measured: {why}", entry.title()));
        }
    }
    warnings.extend(record.warnings.iter().cloned());
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::sample::{self, entry};

    #[test]
    fn sentences_follow_from_the_figures() {
        let said = findings(&sample::record());
        assert_eq!(said.len(), 3, "{said:#?}");
        assert_eq!(
            said[0],
            "All 100 clients were served at once by fork and event; others let some wait (iterative: 1, prefork ×8: 8 at \
             once)."
        );
        assert_eq!(
            said[1],
            "A connection cost fork 3.7 times the processor time that it cost event: 110 µs against 30.0 µs."
        );
        assert_eq!(
            said[2],
            "A client that only stays connected took 56 times the memory with fork that it took with event: 112 KiB \
             against 2.00 KiB."
        );
    }

    #[test]
    fn with_other_figures_they_are_others() {
        let mut record = sample::record();
        record.models = vec![
            entry("one", 2.0, 100.0, 10_000.0, 110.0, 3.0),
            entry("two", 2.0, 100.0, 10_200.0, 46.0, 3.1),
            entry("three", 2.0, 100.0, 10_100.0, 47.0, 3.1),
        ];
        let said = findings(&record);
        assert_eq!(said[0], "All 100 clients were served at once by one, two and three.");
        assert_eq!(
            said[1],
            "A connection cost one 2.4 times the processor time that it cost two: 110 µs against 46.0 µs. Three can't \
             be told from two there: the rounds overlap."
        );
        assert!(
            said[2].starts_with("In the memory for a held connection no server can be told from another")
        );
    }

    #[test]
    fn one_server_or_none_is_no_contrast() {
        let mut record = sample::record();
        record.models.truncate(1);
        assert_eq!(
            findings(&record),
            ["No server served all 100 clients at once (iterative: 1): the rest waited."]
        );
        assert_eq!(findings(&sample::empty()), Vec::<String>::new());
    }

    #[test]
    fn a_single_round_has_no_overlap() {
        let mut record = sample::record();
        for churn in record.models.iter_mut().filter_map(|entry| entry.churn.as_mut()) {
            churn.rounds.truncate(1);
        }
        assert!(!findings(&record).concat().contains("overlap"));
    }

    #[test]
    fn what_is_missing_is_told() {
        let mut record = sample::record();
        record.models[0].failure = Some("it did not listen".into());
        record.interrupted = true;
        record.warnings.push("the machine was busy".into());
        let warnings = warnings(&record);
        assert!(warnings[0].contains("stopped before its end"));
        assert_eq!(
            warnings[1..],
            ["iterative could not be measured: it did not listen", "the machine was busy"]
        );
    }
}
