//! The command that measures the same again.

use crate::compare::MODELS;
use crate::compare::record::{Entry, Record};

/// Makes the command line.
pub(super) fn command(record: &Record) -> String {
    let settings = &record.settings;
    let (models, others): (Vec<&Entry>, Vec<&Entry>) = record.models.iter().partition(|it| is_ours(it));
    let mut words = vec!["forkd".to_owned(), "compare".to_owned()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), quoted(&value)]);
    option("models", joined(models.iter().map(|entry| entry.name.clone())));
    for entry in others {
        match &entry.command {
            Some(command) => option("against", format!("{}={command}", entry.name)),
            // one that ran already is called what it listens on
            None => option("target", entry.name.clone()),
        }
    }
    option("phases", joined(settings.phases.iter().map(|phase| phase.name().to_owned())));
    option("clients", joined(settings.clients.iter().map(ToString::to_string)));
    option("duration", format!("{:.0}ms", settings.duration_s * 1000.0));
    option("rounds", settings.rounds.to_string());
    // where nobody said how many, each model has its own number
    if let Some(asked) = settings.workers
        && models.iter().filter_map(|entry| entry.workers).all(|workers| workers == asked)
    {
        option("workers", asked.to_string());
    }
    option("service", settings.service.clone());
    option("size", settings.size.to_string());
    option("transport", settings.transport.clone());
    if let Some(rate) = settings.rate {
        option("rate", rate.to_string());
    }
    option("seed", settings.seed.to_string());
    words.join(" ")
}

fn is_ours(entry: &Entry) -> bool {
    entry.command.is_some() && MODELS.contains(&&*entry.name)
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(",")
}

/// For a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ",./:=-_".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::sample;

    #[test]
    fn the_same_again() {
        let mut record = sample::record();
        record.models.truncate(2);
        record.models[0].command = Some("forkd serve".into());
        record.models[1].name = "mine".into();
        record.models[1].command = Some("it's {port}".into());
        assert_eq!(
            command(&record),
            r"forkd compare --models iterative --against 'mine=it'\''s {port}' --phases hold,churn,pingpong,bulk \
              --clients 100 --duration 300ms --rounds 3 --workers 8 --service echo --size 64 --transport tcp --seed 1"
                .replace("\\\n              ", "")
        );
        record.models.clear();
        assert!(command(&record).starts_with("forkd compare --models '' --phases"));
    }
}
