//! What the figures say, in plain sentences.
//!
//! Invariant: no sentence stands but for the figures that it names. Two servers whose rounds may differ by
//! chance are never said to differ, and one that served only some of the clients is not measured against
//! those that served all.

use super::figures::{self, Figure, Value, View};
use super::topics::{Contrast, TOPICS, Topic};
use crate::record::{Entry, Record};
use forkd_load::Fault;
use forkd_load::text::{listed, thousands};

/// How many sentences there are at most.
const MOST: usize = 3;

/// The least ratio that is worth a sentence, where it is not chance.
const NOTABLE: f64 = 1.1;

/// A ratio that is much.
const MUCH: f64 = 2.0;

/// Two or three sentences; fewer, if there is less to say.
#[must_use]
pub fn findings(record: &Record) -> Vec<String> {
    let mut sentences: Vec<String> = served(record).into_iter().collect();
    // part of the memory is no topic where there is all of it
    let is_part = |topic: &&Topic| topic.figure.key == figures::PSS.key && figures::MEMORY.is_in(record);
    // nor how much was done where that was asked for
    let rates = [&figures::CONN_PER_S, &figures::REQ_PER_S, &figures::DATAGRAMS].map(|figure| figure.key);
    let is_asked = |topic: &&Topic| record.settings.rate.is_some() && rates.contains(&topic.figure.key);
    let topics = TOPICS.iter().filter(|topic| !is_part(topic) && !is_asked(topic));
    let mut said: Vec<(f64, String)> = topics.filter_map(|topic| contrast(record, topic)).collect();
    // what differs much comes first; beyond that the order of the topics counts
    said.sort_by(|one, other| other.0.min(MUCH).total_cmp(&one.0.min(MUCH)));
    sentences.extend(said.into_iter().map(|(_, sentence)| capital(&sentence)));
    sentences.truncate(MOST);
    sentences
}

/// Those whose figures are whole.
fn sound(record: &Record) -> impl Iterator<Item = &Entry> {
    record.models.iter().filter(|entry| entry.failure.is_none())
}

/// Which server serves how many clients at once.
fn served(record: &Record) -> Option<String> {
    let of = |entry: &Entry| {
        let hold = &entry.hold.as_ref()?.median;
        let clients = hold.clients.filter(|clients| *clients > 0.0)?;
        // an unserved client has not failed
        let has_failed = |kind: &String| *kind != Fault::TimedOut.key();
        let errors = hold.errors.filter(|_| entry.faults.keys().any(has_failed)).unwrap_or(0.0);
        Some((entry.title(), hold.served?, clients, errors))
    };
    let all: Vec<_> = sound(record).filter_map(of).collect();
    let clients = thousands(all.first()?.2);
    let (every, some): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, served, of, _)| served >= of);
    let names: Vec<String> = every.into_iter().map(|(title, ..)| title).collect();
    let fewer: Vec<String> = some
        .iter()
        .map(|(title, served, ..)| format!("{title}: {}", figures::SERVED.text(*served)))
        .collect();
    // a client that waits may be served later; one that was refused or got something else is not
    let failed = some.iter().any(|(.., errors)| *errors > 0.0);
    let waited = some.iter().any(|(_, served, clients, errors)| served + errors < *clients);
    let rest = match (waited, failed) {
        (true, true) => "waited or failed",
        (false, true) => "failed",
        _ => "waited",
    };
    let fewer = format!("({}): the rest {rest}", fewer.join(", "));
    Some(match names.as_slice() {
        [] => format!("No server served all {clients} clients at once {fewer}."),
        names if some.is_empty() => {
            format!("All {clients} clients were served at once by {}.", listed(names))
        }
        names => {
            let names = listed(names);
            format!("All {clients} clients were served at once by {names}; others served fewer {fewer}.")
        }
    })
}

/// A server with what a topic is about.
struct Shown {
    title: String,
    value: Value,
    /// Whether it is memory that says nothing.
    is_too_little: bool,
}

/// A sentence on the servers that differ most, with how much that is.
fn contrast(record: &Record, topic: &Topic) -> Option<(f64, String)> {
    let mut all: Vec<Shown> = sound(record).filter_map(|entry| shown(entry, topic.figure)).collect();
    // where a comparison was stopped, some have but one round, and others more
    let is_single = all.iter().all(|one| one.value.rounds.len() < 2);
    all.retain(|one| is_single || one.value.rounds.len() > 1);
    all.sort_by(|one, other| other.value.median.total_cmp(&one.value.median));
    let (little, all): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.is_too_little);
    let little: Vec<String> = little.into_iter().map(|one| one.title).collect();
    let whole = |sentence: String| if is_single { format!("in the one round, {sentence}") } else { sentence };
    let (first, last) = match all.as_slice() {
        [first, .., last] => (first, last),
        [one] if !little.is_empty() => return Some((MUCH, whole(beside_little(topic, one, &little)))),
        _ => return None,
    };
    let (most, least) = (first.value.median, last.value.median);
    let both = format!("{} against {}", topic.figure.text(most), topic.figure.text(least));
    if !is_single && !first.value.differs(&last.value) {
        let sentence = format!("in {} no server can be told from another: {both} may be chance.", topic.what);
        return Some((1.0, sentence));
    }
    let ratio = most / least.max(most / 1000.0);
    if ratio < NOTABLE {
        return None;
    }
    let times = match ratio {
        _ if ratio > 999.0 => "more than 999 times".into(),
        _ if ratio >= 10.0 => format!("{ratio:.0} times"),
        _ => format!("{ratio:.1} times"),
    };
    let contrast = Contrast { most: &first.title, least: &last.title, times, both };
    let mut sentence = whole((topic.say)(&contrast));
    if !is_single {
        sentence.push_str(&alike(&all, topic.more_is_better));
    }
    if !little.is_empty() {
        sentence.push_str(&format!(" With {} it took too little to measure.", listed(&little)));
    }
    Some((ratio, sentence))
}

/// Says of memory that a ratio would be one of noise.
fn beside_little(topic: &Topic, one: &Shown, little: &[String]) -> String {
    format!(
        "a client that only stays connected took {} with {}, and too little to measure with {}.",
        topic.figure.text(one.value.median),
        one.title,
        listed(little)
    )
}

/// Says which servers can't be told from the best; `all` begins with the greatest.
fn alike(all: &[Shown], more_is_better: bool) -> String {
    let best = if more_is_better { all.first() } else { all.last() };
    let Some(best) = best else { return String::new() };
    let others = all.iter().filter(|one| one.title != best.title && !one.value.differs(&best.value));
    let others: Vec<String> = others.map(|one| one.title.clone()).collect();
    if others.is_empty() {
        return String::new();
    }
    let others = capital(&listed(&others));
    format!(" {others} can't be told from {} there: the difference may be chance.", best.title)
}

/// What a server has, if that can be held against what others have.
fn shown(entry: &Entry, figure: &Figure) -> Option<Shown> {
    let view = View::from(entry);
    let value = figure.of(&view)?;
    let is_memory = figure.unit == figures::Unit::Kib;
    let is_too_little = figure.is_too_little(&value, &view);
    let is_fair = match value.fewer {
        // the share of one or two clients is lost in the noise of the whole
        Some(fewer) if is_memory => fewer.served * 2.0 >= fewer.clients,
        Some(_) => false,
        None => true,
    };
    let is_something = value.median > 0.0 || is_too_little;
    (is_fair && is_something).then(|| Shown { title: entry.title(), value, is_too_little })
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
    use crate::report::sample::{self, entry};

    #[test]
    fn sentences_follow_from_the_figures() {
        let said = findings(&sample::record());
        assert_eq!(said.len(), 3, "{said:#?}");
        assert_eq!(
            said[0],
            "All 100 clients were served at once by fork and event; others served fewer (iterative: 1, prefork ×8: 8): \
             the rest waited."
        );
        assert_eq!(
            said[1],
            "A connection cost fork 3.7 times the processor time that it cost event: 110 µs against 30.0 µs."
        );
        assert_eq!(
            said[2],
            "A client that only stays connected took 86 times the memory with fork that it took with event: 172 KiB \
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
             be told from two there: the difference may be chance."
        );
        assert!(
            said[2].starts_with("In the memory for a held connection no server can be told from another")
        );
    }

    #[test]
    fn how_much_was_asked_for_is_no_finding() {
        let mut record = sample::record();
        record.models = vec![
            entry("one", 2.0, 100.0, 10_000.0, 46.0, 3.0),
            entry("two", 2.0, 100.0, 30_000.0, 46.0, 3.0),
        ];
        let is_said =
            |record: &Record| findings(record).iter().any(|said| said.contains("connections per second"));
        assert!(is_said(&record));
        record.settings.rate = Some(2000.0);
        assert!(!is_said(&record), "{:#?}", findings(&record));
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
    fn one_round_is_said_to_be_one() {
        let mut record = sample::record();
        for churn in record.models.iter_mut().filter_map(|entry| entry.churn.as_mut()) {
            churn.rounds.truncate(1);
        }
        let said = findings(&record);
        assert!(said[1].starts_with("In the one round, a connection cost fork 3.7 times"), "{said:#?}");
        assert!(!said.concat().contains("chance"), "{said:#?}");
        // fork was measured once, and the others were more often
        for (k, entry) in sample::record().models.into_iter().enumerate().filter(|(k, _)| *k != 1) {
            record.models[k] = entry;
        }
        let said = findings(&record).concat();
        assert!(!said.contains("cost fork") && !said.contains("one round"), "{said}");
    }

    #[test]
    fn who_served_few_is_not_measured_against_all() {
        let mut record = sample::record();
        for (entry, served) in record.models.iter_mut().zip([1.0, 100.0, 8.0, 100.0]) {
            let pingpong = entry.pingpong.as_mut().unwrap();
            (pingpong.median.served, pingpong.median.p99_us) = (Some(served), Some(20.0 * served));
            (entry.churn, entry.bulk) = (None, None);
        }
        let said = findings(&record);
        assert_eq!(
            said[2],
            "On standing connections event answered 4.0 times the requests per second of fork: 100,000 against 25,000."
        );
        record.models.truncate(2);
        let said = findings(&record).concat();
        assert!(!said.contains("requests") && !said.contains("slowest"), "{said}");
    }

    #[test]
    fn next_to_nothing_has_no_ratio() {
        let mut record = sample::record();
        for entry in &mut record.models {
            (entry.churn, entry.bulk, entry.pingpong) = (None, None, None);
        }
        let mut thread = entry("thread", 2.0, 100.0, 1.0, 1.0, 19.0);
        thread.churn = None;
        (thread.pingpong, thread.bulk) = (None, None);
        record.models[3].hold = entry("event", 2.0, 100.0, 1.0, 1.0, 0.12).hold;
        assert_eq!(
            findings(&record)[1],
            "A client that only stays connected took 172 KiB with fork, and too little to measure with event."
        );
        record.models.push(thread);
        assert_eq!(
            findings(&record)[1],
            "A client that only stays connected took 9.1 times the memory with fork that it took with thread: 172 KiB \
             against 19.0 KiB. With event it took too little to measure."
        );
        record.models.retain(|entry| entry.name == "event" || entry.name == "prefork");
        assert_eq!(findings(&record).len(), 1);
    }

    #[test]
    fn what_failed_is_no_contrast() {
        let mut record = sample::record();
        record.models[1].failure = Some("it ended".into());
        let none = record.models[0].churn.as_mut().unwrap();
        (none.median.conn_per_s, none.median.cpu_us_per_conn) = (Some(0.0), Some(0.0));
        let said = findings(&record).concat();
        assert!(!said.contains(" fork ") && !said.contains("Fork ") && !said.contains("999"), "{said}");
        let hold = record.models[2].hold.as_mut().unwrap();
        hold.median.errors = Some(92.0);
        record.models[2].faults.insert("refused".into(), 92);
        assert_eq!(
            findings(&record)[0],
            "All 100 clients were served at once by event; others served fewer (iterative: 1, prefork ×8: 8): the rest \
             waited or failed."
        );
        record.models.retain(|entry| entry.name == "prefork");
        assert_eq!(
            findings(&record),
            ["No server served all 100 clients at once (prefork ×8: 8): the rest failed."]
        );
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
