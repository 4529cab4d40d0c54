//! What the figures say, in plain sentences.
//!
//! Invariant: no sentence stands but for the figures that it names. Two servers whose rounds may differ by
//! chance are never said to differ; one that served only some of the clients is not measured against those
//! that served all, but for where there is nothing else; and of the slowest operations is spoken only where
//! others left the machine alone.

use super::figures::{self, Figure, Value, View};
use super::slo;
use super::topics::{Contrast, TOPICS, Topic};
use crate::record::{Entry, Record};
use forkd_load::Fault;
use forkd_load::text::{listed, thousands};

/// How many sentences there are at most.
const MOST: usize = 8;

/// The least ratio that is worth a sentence, where it is not chance.
const NOTABLE: f64 = 1.1;

/// From which Jain's index on clients are spread evenly: of two workers one has 1.6 times as many as the other, of many a fifth
/// has half.
const EVEN: f64 = 0.95;

/// What a thread for each client changes, where it was a process: what [`lesson`] is about.
static LESSON: [&Figure; 4] = [&figures::CPU, &figures::MEMORY, &figures::REQ_PER_S, &figures::MB_PER_S];

/// A handful of sentences; fewer, if there is less to say.
#[must_use]
pub fn findings(record: &Record) -> Vec<String> {
    if !record.settings.slo.is_empty() {
        return slo::sentences(record);
    }
    let mut sentences: Vec<String> = served(record).into_iter().chain(spread(record)).collect();
    let lesson = lesson(record);
    let is_told = |topic: &&Topic, pair: &Pair| {
        lesson.is_some() && pair.is_of("fork", "thread") && LESSON.iter().any(|it| it.key == topic.figure.key)
    };
    let topics: Vec<&Topic> = TOPICS.iter().filter(|topic| is_open(record, topic)).collect();
    let said =
        topics.iter().flat_map(|topic| contrasts(record, topic).into_iter().map(move |it| (topic, it)));
    let said: Vec<String> = said
        .filter(|(topic, (pair, _))| !is_told(topic, pair))
        .map(|(_, (_, said))| capital(&said))
        .collect();
    sentences.extend(lesson);
    sentences.extend(said);
    sentences.truncate(MOST);
    sentences
}

/// Whether there is anything to say about a topic.
fn is_open(record: &Record, topic: &Topic) -> bool {
    let is = |figures: &[&Figure]| figures.iter().any(|figure| std::ptr::eq(*figure, topic.figure));
    // part of the memory is no topic where there is all of it
    let is_part = is(&[&figures::PSS]) && figures::MEMORY.is_in(record);
    // nor how much was done where that was asked for
    let rates = [&figures::CONN_PER_S, &figures::REQ_PER_S, &figures::DATAGRAMS];
    let is_asked = record.settings.rate.is_some() && is(&rates);
    // nor the slowest few where others may have made them slow
    let is_disturbed = is(&[&figures::P99, &figures::REQ_P99]) && !record.is_calm();
    !is_part && !is_asked && !is_disturbed
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

/// Over whose workers held clients are spread evenly, and over whose they are not.
fn spread(record: &Record) -> Option<String> {
    let of = |entry: &Entry| Some((entry.title(), figures::SPREAD.of(&entry.into())?.median));
    let (even, uneven): (Vec<_>, Vec<_>) =
        sound(record).filter_map(of).partition(|(_, index)| *index >= EVEN);
    let with_index = |(title, index): (String, f64)| format!("{title} ({})", figures::SPREAD.text(index));
    let even = listed(&even.into_iter().map(|(title, _)| title).collect::<Vec<String>>());
    let uneven = listed(&uneven.into_iter().map(with_index).collect::<Vec<String>>());
    let begin = "The clients that stayed were spread";
    match (even.is_empty(), uneven.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("{begin} evenly over the workers of {even}.")),
        (true, false) => Some(format!("{begin} unevenly over the workers of {uneven}.")),
        (false, false) => {
            Some(format!("{begin} evenly over the workers of {even}, and unevenly over those of {uneven}."))
        }
    }
}

/// A server with what a topic is about.
struct Shown {
    name: String,
    title: String,
    value: Value,
    /// Whether it is memory that says nothing.
    is_too_little: bool,
}

/// The names of the servers that a sentence contrasts.
struct Pair(String, String);

impl Pair {
    fn is_of(&self, one: &str, other: &str) -> bool {
        (self.0 == one && self.1 == other) || (self.0 == other && self.1 == one)
    }
}

/// What it changes that each client has a thread and no process, where both were measured.
fn lesson(record: &Record) -> Option<String> {
    let find = |name: &str| sound(record).find(|entry| entry.name == name && entry.command.is_some());
    let (fork, thread) = (find("fork")?, find("thread")?);
    let (mut differ, mut alike, mut is_single) = (Vec::new(), Vec::new(), false);
    for topic in LESSON.iter().filter_map(|figure| TOPICS.iter().find(|topic| topic.figure.key == figure.key))
    {
        if !is_open(record, topic) {
            continue;
        }
        let (Some(before), Some(now)) = (shown(fork, topic.figure), shown(thread, topic.figure)) else {
            continue;
        };
        let (was, is) = (before.value.median, now.value.median);
        is_single = before.value.rounds.len() < 2 || now.value.rounds.len() < 2;
        let ratio = is / was;
        let is_notable = !(1.0 / NOTABLE..NOTABLE).contains(&ratio);
        match is_notable && (is_single || before.value.differs(&now.value)) && ratio.is_finite() {
            true => differ.push(format!(
                "{} is {ratio:.2} × ({} against {})",
                topic.what,
                topic.figure.text(is),
                topic.figure.text(was)
            )),
            false => alike.push(topic.what.to_owned()),
        }
    }
    let first = if is_single { "In the one round, with" } else { "With" };
    let begin = format!(
        "{first} a thread for each client in place of a process ({} against {})",
        thread.title(),
        fork.title()
    );
    match (differ.is_empty(), alike.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("{begin} there is no difference to speak of in {}.", listed(&alike))),
        (false, true) => Some(format!("{begin} {}.", listed(&differ))),
        (false, false) => {
            Some(format!("{begin} {}; in {} they can hardly be told apart.", listed(&differ), listed(&alike)))
        }
    }
}

/// Sentences on the servers that differ most, of those that are alike in how many clients they serve at once: those that
/// serve all, and pools that serve as many as each other. Where there are none, all are
/// contrasted, and it is said what they serve.
fn contrasts(record: &Record, topic: &Topic) -> Vec<(Pair, String)> {
    let of = |is_in: &dyn Fn(&Entry) -> bool| -> Vec<Shown> {
        sound(record).filter(|entry| is_in(entry)).filter_map(|entry| shown(entry, topic.figure)).collect()
    };
    let served = |entry: &Entry| entry.served_at_once().filter(|_| !entry.serves_all());
    let mut pools: Vec<f64> = sound(record).filter_map(served).collect();
    pools.sort_by(f64::total_cmp);
    pools.dedup();
    let mut said: Vec<(Pair, String)> = contrast(topic, of(&Entry::serves_all)).into_iter().collect();
    for places in pools.iter().filter(|_| topic.is_of_pools) {
        let among = format!("among those that serve {} at once, ", figures::SERVED.text(*places));
        let pools = contrast(topic, of(&|entry| served(entry) == Some(*places)));
        said.extend(pools.map(|(pair, sentence)| (pair, among + &sentence)));
    }
    if said.is_empty() && of(&Entry::serves_all).len() < 2 {
        let unlike = sound(record).filter_map(|entry| Some((entry.title(), served(entry)?)));
        let unlike: Vec<String> = unlike
            .map(|(title, places)| format!("{title} serves {}", figures::SERVED.text(places)))
            .collect();
        let note =
            if unlike.is_empty() { String::new() } else { format!(" But {} at once.", listed(&unlike)) };
        said.extend(contrast(topic, of(&|_| true)).map(|(pair, sentence)| (pair, sentence + &note)));
    }
    said
}

/// A sentence on those of some servers that differ most.
fn contrast(topic: &Topic, mut all: Vec<Shown>) -> Option<(Pair, String)> {
    // where a comparison was stopped, some have but one round, and others more
    let is_single = all.iter().all(|one| one.value.rounds.len() < 2);
    all.retain(|one| is_single || one.value.rounds.len() > 1);
    all.sort_by(|one, other| other.value.median.total_cmp(&one.value.median));
    let (little, all): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.is_too_little);
    let little: Vec<String> = little.into_iter().map(|one| one.title).collect();
    let whole = |sentence: String| if is_single { format!("in the one round, {sentence}") } else { sentence };
    let (first, last) = match all.as_slice() {
        [first, .., last] => (first, last),
        [one] if !little.is_empty() => {
            let pair = Pair(one.name.clone(), String::new());
            return Some((pair, whole(beside_little(topic, one, &little))));
        }
        _ => return None,
    };
    let pair = Pair(first.name.clone(), last.name.clone());
    let (most, least) = (first.value.median, last.value.median);
    let both = format!("{} against {}", topic.figure.text(most), topic.figure.text(least));
    if !is_single && !first.value.differs(&last.value) {
        return Some((
            pair,
            format!("in {} no server can be told from another: {both} may be chance.", topic.what),
        ));
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
    Some((pair, sentence))
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
    let (name, title) = (entry.name.clone(), entry.title());
    (is_fair && is_something).then_some(Shown { name, title, value, is_too_little })
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
        assert_eq!(
            findings(&sample::record()),
            [
                "All 100 clients were served at once by fork and event; others served fewer (iterative: 1, prefork ×8: 8): \
                 the rest waited.",
                "A connection cost fork 3.7 times the processor time that it cost event: 110 µs against 30.0 µs.",
                "A client that only stays connected took 86 times the memory with fork that it took with event: 172 KiB \
                 against 2.00 KiB.",
                "On standing connections event answered 4.0 times the requests per second of fork: 100,000 against 25,000.",
                "In the speed of one stream no server can be told from another: 1,500 against 1,500 may be chance.",
                "Event had 4.0 times the connections per second of fork: 20,000 against 5,000.",
            ]
        );
    }

    #[test]
    fn what_a_thread_changes_is_told_of_all_that_was_measured() {
        let mut record = sample::record();
        record.models = vec![
            Entry { command: Some("forkd".into()), ..entry("fork", 101.0, 100.0, 5_000.0, 110.0, 12.0) },
            Entry {
                command: Some("forkd".into()),
                workers: Some(2),
                ..entry("thread", 3.0, 100.0, 5_050.0, 46.0, 18.0)
            },
        ];
        assert_eq!(
            findings(&record),
            [
                "All 100 clients were served at once by fork and thread ×2.",
                "With a thread for each client in place of a process (thread ×2 against fork) the processor time for a \
                 connection is 0.42 × (46.0 µs against 110 µs) and the memory for a held connection is 0.25 × (18.0 KiB \
                 against 72.0 KiB); in the number of requests per second and the speed of one stream they can hardly be \
                 told apart.",
                "In the number of connections per second no server can be told from another: 5,050 against 5,000 may be \
                 chance.",
            ]
        );
        // one that is called so is not forkd's
        record.models[0].command = None;
        assert!(!findings(&record).concat().contains("in place of"));
    }

    #[test]
    fn how_clients_are_spread_is_told_of_workers_that_have_many() {
        let said = |pools: &[(&str, f64)]| {
            let mut record = sample::record();
            record.models.extend(pools.iter().map(|(name, spread)| sample::pool(name, *spread)));
            findings(&record).remove(1)
        };
        assert_eq!(
            said(&[("thread", 1.0), ("coroutine", 0.97)]),
            "The clients that stayed were spread evenly over the workers of thread ×2 and coroutine ×2."
        );
        assert_eq!(
            said(&[("thread", 0.5), ("event", 0.98), ("coroutine", 0.64)]),
            "The clients that stayed were spread evenly over the workers of event ×2, and unevenly over those of thread \
             ×2 (0.50) and coroutine ×2 (0.64)."
        );
        assert_eq!(
            said(&[("event", 0.5)]),
            "The clients that stayed were spread unevenly over the workers of event ×2 (0.50)."
        );
        assert!(said(&[]).starts_with("A connection cost"));
    }

    #[test]
    fn the_slowest_are_spoken_of_where_nothing_else_made_them_slow() {
        let slowest = |record: &Record| findings(record).iter().any(|said| said.contains("slowest percent"));
        let mut record = sample::record();
        assert!(!slowest(&record), "whether others disturbed isn't known");
        record.disturbed = Some(0.3);
        assert!(!slowest(&record));
        record.disturbed = Some(0.05);
        assert!(slowest(&record), "{:#?}", findings(&record));
        // fewer than ten took longer
        record.models.retain(|entry| entry.serves_all());
        record.models[1].churn.as_mut().unwrap().median.p99_us = None;
        assert!(!slowest(&record), "{:#?}", findings(&record));
    }

    #[test]
    fn pools_are_held_against_pools() {
        let mut record = sample::record();
        record.models.push(entry("prethread", 2.0, 8.0, 12_000.0, 20.0, 0.9));
        let said = findings(&record);
        assert_eq!(
            said[2],
            "Among those that serve 8 at once, a connection cost prefork ×8 2.3 times the processor time that it cost \
             prethread: 46.0 µs against 20.0 µs."
        );
        record.models.truncate(2);
        let said = findings(&record);
        assert_eq!(
            said[1],
            "A connection cost fork 2.5 times the processor time that it cost iterative: 110 µs against 44.0 µs. But \
             iterative serves 1 at once."
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
        assert!(!said[1].contains("chance"), "{said:#?}");
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
