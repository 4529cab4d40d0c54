//! The command that measures the same again.

use std::net::IpAddr;
use std::time::Duration;

use crate::MODELS;
use crate::record::{Entry, Record};
use forkd_net::Endpoint;
use humantime::format_duration;

/// Makes the command line.
pub(super) fn command(record: &Record) -> String {
    let settings = &record.settings;
    let (models, others): (Vec<&Entry>, Vec<&Entry>) = record.models.iter().partition(|it| is_ours(it));
    let mut words = vec!["forkd".to_owned(), "compare".to_owned()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), quoted(&value)]);
    let mut owns_host = false;
    option("models", joined(models.iter().map(|entry| entry.name.clone())));
    for entry in others {
        match &entry.command {
            Some(command) => option("against", format!("{}={command}", entry.name)),
            // one that ran already is called what it listens on
            None => {
                option("target", entry.name.clone());
                // started anew it has another number
                if entry.idle.as_ref().is_some_and(|idle| idle.median.processes.is_some()) {
                    option("pid", "PID".into());
                }
                owns_host |= is_far(&entry.name);
            }
        }
    }
    let seeks = !settings.slo.is_empty();
    match seeks {
        true => option("slo", joined(settings.slo.iter().map(ToString::to_string))),
        false => option("phases", joined(settings.phases.iter().map(|phase| phase.name().to_owned()))),
    }
    option("clients", joined(settings.clients.iter().map(ToString::to_string)));
    let duration = Duration::try_from_secs_f64(settings.duration_s).unwrap_or_default();
    let written = |duration: Duration| format_duration(duration).to_string().replace(' ', "");
    option("duration", written(duration));
    if !seeks {
        option("rounds", settings.rounds.to_string());
    }
    if let Some(stay) = settings.stay_s.and_then(|stay| Duration::try_from_secs_f64(stay).ok()) {
        option("stay", written(stay));
    }
    // by default each model has its own number
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
    if owns_host {
        words.push("--i-own-this-host".to_owned());
    }
    words.join(" ")
}

/// Whether an endpoint was loaded that is not on the machine itself. What a name stood for is not asked
/// again: only `localhost` is sure to be near.
fn is_far(endpoint: &str) -> bool {
    match endpoint.parse() {
        Ok(Endpoint::Tcp { host, .. } | Endpoint::Udp { host, .. }) => match host.parse::<IpAddr>() {
            Ok(address) => !address.to_canonical().is_loopback() && !address.is_unspecified(),
            Err(_) => host != "localhost",
        },
        _ => false,
    }
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
    use crate::report::sample;

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

    #[test]
    fn a_target_is_reached_again() {
        let mut record = sample::record();
        record.models.truncate(1);
        record.settings.duration_s = 0.000_5;
        let mut of = |name: &str| {
            record.models[0].name = name.into();
            command(&record)
        };
        let far = of("tcp://192.0.2.1:7");
        assert!(far.contains("--models '' --target tcp://192.0.2.1:7 --pid PID --phases"), "{far}");
        assert!(far.contains(" --duration 500us ") && far.ends_with(" --i-own-this-host"), "{far}");
        for near in ["tcp://127.0.0.1:7", "tcp://[::1]:7", "udp://localhost:7", "unix:/run/echo"] {
            assert!(!of(near).contains("--i-own"), "{near}");
        }
        record.models[0].idle = None;
        record.settings.duration_s = 1.5;
        let command = command(&record);
        assert!(!command.contains("--pid") && command.contains(" --duration 1s500ms "), "{command}");
    }
}
