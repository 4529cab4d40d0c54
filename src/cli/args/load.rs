//! The grammar of `forkd load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::choice::one_of;
use crate::config::values::Span;
use forkd_load::{Phase, Plan, ProxyVersion, Reach};
use forkd_server::Endpoint;

pub(super) const EXAMPLES: &str = "\
Examples:
  forkd load tcp://127.0.0.1:7007
  forkd load --phases hold,churn -c 100 unix:///run/echo.sock
  forkd load --phases pingpong --rate 2000/s -z 30s tcp://127.0.0.1:7007
  forkd load -n 10000 --json load.json udp://127.0.0.1:7007
  forkd load --during 'systemctl restart forkd' tcp://127.0.0.1:7
  forkd load --merge a.json b.json";

/// No command takes that long.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What says how to load a server.
const NOT_WITH_MERGE: [&str; 13] = [
    "endpoint",
    "phases",
    "during",
    "clients",
    "duration",
    "operations",
    "rate",
    "size",
    "seed",
    "timeout",
    "threads",
    "proxy",
    "i_own_this_host",
];

/// The options of `load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Server to load: tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH or unixgram:///PATH
    #[arg(value_name = "ENDPOINT", required_unless_present = "merge")]
    pub endpoint: Option<Endpoint>,

    /// What the clients do, one after the other [default: churn,pingpong, or datagrams]
    #[arg(long, value_name = "PHASE,...", value_parser = one_of::<Phase>(), value_delimiter = ',')]
    pub phases: Vec<Phase>,

    /// Run this command (by sh) in the middle of one phase, and tell each operation that came to nothing, and when. The
    /// phase has a rate and lasts as long as the command, and a while before and after it
    #[arg(long, value_name = "COMMAND", conflicts_with = "operations")]
    pub during: Option<String>,

    /// Clients at the same time [default: 8, or 64 with --during]
    #[arg(short, long, value_name = "N")]
    pub clients: Option<usize>,

    /// How long each phase is measured, after a short warm-up; with --during how long before the command and after it
    /// [default: 5s, or 1s with --during]
    #[arg(short = 'z', long, value_name = "DURATION")]
    pub duration: Option<Span>,

    /// How many operations each phase has, in place of a duration; all of them count, without a warm-up
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    pub operations: Option<u64>,

    /// Operations that come due per second, whatever the server does; each counts from when it was due
    /// [default: as many as the server can do, or 500 with --during]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<f64>,

    /// Bytes in a message [default: 64, and 65536 for bulk]
    #[arg(long, value_name = "BYTES")]
    pub size: Option<usize>,

    /// What messages are made of: the same seed, the same messages [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// How long one operation may take; a datagram has at most 250ms [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,

    /// Threads that the clients are spread over [default: 1]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Say of each client that it comes by a proxy, by this version of HAProxy's PROXY protocol, as a server with --proxy
    /// expects it
    #[arg(long, value_name = "v1|v2", value_parser = one_of::<ProxyVersion>(), hide_possible_values = true)]
    pub proxy: Option<ProxyVersion>,

    /// Write the figures to this file; - prints them in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Load a server that is not on this machine: it is yours to overload
    #[arg(long)]
    pub i_own_this_host: bool,

    /// Load nothing, and make one report of those that several generators have written with --json, or printed among other lines
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = NOT_WITH_MERGE)]
    pub merge: Vec<PathBuf>,
}

impl LoadArgs {
    /// Returns what is to be done.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let usual = Plan::default();
        let duration = self.duration.map_or(usual.duration, |span| span.0);
        // in an open loop so many operations take so much time
        let paced = self.operations.zip(self.rate).map(|(operations, rate)| operations as f64 / rate);
        let duration =
            paced.map_or(duration, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(duration));
        let timeout = self.timeout.map_or(usual.timeout, |span| span.0);
        let plan = Plan {
            clients: self.clients.unwrap_or(usual.clients),
            duration,
            operations: self.operations.filter(|_| self.rate.is_none()),
            warm_up: if self.operations.is_some() { Duration::ZERO } else { Plan::usual_warm_up(duration) },
            rate: self.rate,
            size: self.size.unwrap_or(usual.size),
            piece: self.size.unwrap_or(usual.piece),
            seed: self.seed.unwrap_or(usual.seed),
            stay: usual.stay,
            timeout,
            patience: timeout,
            places: usual.places,
            threads: self.threads.unwrap_or(usual.threads),
        };
        match self.during {
            None => plan,
            Some(_) => Plan {
                clients: self.clients.unwrap_or(64),
                // until it is told that the command has ended
                duration: A_YEAR,
                warm_up: Duration::ZERO,
                rate: plan.rate.or(Some(500.0)),
                ..plan
            },
        }
    }

    /// How long a phase lasts before a command runs, and after it has ended.
    #[must_use]
    pub fn around(&self) -> Duration {
        self.duration.map_or(Duration::from_secs(1), |span| span.0)
    }

    /// Returns how far away the server may be.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.i_own_this_host { Reach::OwnHost } else { Reach::Loopback }
    }
}

/// Reads `500` or `500/s`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "write a number of operations per second, such as 500 or 500/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parse(line: &str) -> Result<LoadArgs, String> {
        let words = format!("forkd load {line}");
        match Cli::from_args(words.split_whitespace().map(Into::into)) {
            Ok(Cli { command: Command::Load(args) }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let args = parse("tcp://a:1").unwrap();
        assert_eq!((args.plan(), args.reach()), (Plan::default(), Reach::Loopback));
        assert!(args.phases.is_empty() && args.json.is_none());
    }

    #[test]
    fn reads_every_option() {
        let args = parse(
            "--phases hold,churn --phases bulk --clients 2 --duration 20s --rate 0.5/s --size 4 --seed 6 --timeout 7s \
             --threads 8 --json f --i-own-this-host udp://a:1",
        )
        .unwrap();
        let seconds = Duration::from_secs;
        let expected = Plan {
            clients: 2,
            duration: seconds(20),
            operations: None,
            warm_up: Duration::from_millis(500),
            rate: Some(0.5),
            size: 4,
            piece: 4,
            seed: 6,
            stay: Duration::ZERO,
            timeout: seconds(7),
            patience: seconds(7),
            places: None,
            threads: 8,
        };
        assert_eq!((args.plan(), args.reach()), (expected, Reach::OwnHost));
        assert_eq!(args.phases, [Phase::Hold, Phase::Churn, Phase::Bulk]);
        assert_eq!(args.json, Some("f".into()));
    }

    #[test]
    fn reports_take_the_place_of_a_server() {
        let args = parse("--merge a b --json -").unwrap();
        assert_eq!(
            (args.endpoint, args.merge, args.json),
            (None, vec!["a".into(), "b".into()], Some("-".into()))
        );
    }

    #[test]
    fn with_a_command_there_is_a_rate_and_no_end() {
        let args = parse("--during reboot tcp://a:1").unwrap();
        let plan = args.plan();
        assert_eq!((plan.clients, plan.rate, plan.warm_up), (64, Some(500.0), Duration::ZERO));
        assert_eq!((args.around(), plan.duration), (Duration::from_secs(1), A_YEAR));
        let args = parse("--during reboot -z 3s --rate 50 -c 2 tcp://a:1").unwrap();
        assert_eq!((args.plan().clients, args.plan().rate, args.around().as_secs()), (2, Some(50.0), 3));
    }

    #[test]
    fn short_options_are_those_of_oha() {
        let plan = parse("-c 3 -z 20s tcp://a:1").unwrap().plan();
        assert_eq!((plan.clients, plan.duration, plan.operations), (3, Duration::from_secs(20), None));
        let plan = parse("-n 100 tcp://a:1").unwrap().plan();
        assert_eq!((plan.operations, plan.warm_up), (Some(100), Duration::ZERO));
        let plan = parse("-n 100 --rate 50 tcp://a:1").unwrap().plan();
        assert_eq!((plan.operations, plan.duration), (None, Duration::from_secs(2)));
    }

    #[test]
    fn refuses_nonsense_with_a_reason() {
        for (line, expected) in [
            ("", "<ENDPOINT>"),
            ("--json tcp://a:1", "<ENDPOINT>"),
            ("-n 5 -z 5s tcp://a:1", "cannot be used with"),
            ("-n 5 --during reboot tcp://a:1", "cannot be used with"),
            ("--merge a -c 5", "cannot be used with"),
            ("tcp://a:1 --merge a", "cannot be used with"),
            ("--merge", "a value is required"),
            ("--phases bulky tcp://a:1", "a similar value exists: 'bulk'"),
            ("--rate fast tcp://a:1", "such as 500 or 500/s"),
            ("--duration 5 tcp://a:1", "add a unit: 5s"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
