//! The grammar of `forkd compare`.

use std::path::PathBuf;

use clap::Args;

use crate::config::choice::one_of;
use crate::config::values::Span;
use forkd_compare::Objective;
use forkd_load::Phase;
use forkd_server::Endpoint;

pub(super) const EXAMPLES: &str = "\
Examples:
  forkd compare
  forkd compare --models fork,prefork,event --clients 1,10,100,1000 --html report.html
  forkd compare --against 'socat=socat TCP-LISTEN:{port},fork,reuseaddr,backlog=1024 EXEC:cat'
  forkd compare --models '' --target tcp://127.0.0.1:7 --pid 4711
  forkd compare --models fork,prefork,event --slo p99=10ms --stay 2ms
  forkd compare --from old.json --html report.html
  forkd compare --baseline old.json
  forkd compare --rounds 7 --baseline old.json --fail-on 5%";

/// The options of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// What is measured, and how.
    #[command(flatten)]
    pub run: RunArgs,
    /// What becomes of it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is measured, and how.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Models of forkd to compare, with prethread (thread --threads) and spare (fork --spare); empty for none [default:
    /// all]
    #[arg(long, value_name = "MODEL,...", value_delimiter = ',')]
    pub models: Option<Vec<String>>,

    /// A server to compare with: a name, and the command that starts it on {port}; may be given again
    #[arg(long, value_name = "NAME=COMMAND")]
    pub against: Vec<String>,

    /// A server that runs already, to be compared with
    #[arg(long, value_name = "ENDPOINT")]
    pub target: Option<Endpoint>,

    /// The first process of the target, so that its processes, memory and processor time are known
    #[arg(long, value_name = "PID", requires = "target")]
    pub pid: Option<u32>,

    /// Load a target that is not on this machine: it is yours to overload
    #[arg(long, requires = "target")]
    pub i_own_this_host: bool,

    /// What the clients do, one after the other [default: hold,churn,pingpong,bulk]
    #[arg(long, value_name = "PHASE,...", value_parser = one_of::<Phase>(), value_delimiter = ',')]
    pub phases: Vec<Phase>,

    /// Clients at the same time; several numbers show how cost grows [default: 100]
    #[arg(short, long, value_name = "N,...", value_delimiter = ',')]
    pub clients: Vec<usize>,

    /// How long each phase is measured in each round [default: 180ms]
    #[arg(short = 'z', long, value_name = "DURATION")]
    pub duration: Option<Span>,

    /// How often each model has its turn; they take turns, so that drift cancels out [default: 4]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,

    /// Workers of each pool but iterative's [default: 8 of prefork, one for each processor of others]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,

    /// What servers do with the bytes: clients verify an echo
    #[arg(long, value_parser = ["echo"], default_value = "echo")]
    pub service: String,

    /// Bytes in a message [default: 64]
    #[arg(long, value_name = "BYTES")]
    pub size: Option<usize>,

    /// Where clients connect: tcp or unix; datagrams then go over udp or unixgram
    #[arg(long, value_name = "TRANSPORT", value_parser = ["tcp", "unix"], default_value = "tcp")]
    pub transport: String,

    /// Operations that come due per second, whatever the server does [default: as many as it can do]
    #[arg(long, value_name = "N/s", value_parser = super::load::rate)]
    pub rate: Option<f64>,

    /// What messages are made of: the same seed, the same messages [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// How long each client of the churn stays connected after its echo [default: it leaves at once]
    #[arg(long, value_name = "DURATION")]
    pub stay: Option<Span>,

    /// Find the highest rate of connections at which latencies keep to this, as in p99=10ms, and how many workers that takes
    #[arg(long, value_name = "PERCENTILE=TIME,...", value_delimiter = ',', conflicts_with_all = ["phases", "rate", "rounds"])]
    pub slo: Vec<Objective>,
}

/// What says how to measure, and not what to show.
const MEASURED: [&str; 16] = [
    "against",
    "target",
    "pid",
    "i_own_this_host",
    "phases",
    "clients",
    "duration",
    "rounds",
    "workers",
    "service",
    "size",
    "transport",
    "rate",
    "seed",
    "stay",
    "slo",
];

/// What becomes of it.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Measure nothing: show what this file has, which --json has written, or of it only --models
    #[arg(long, value_name = "FILE", conflicts_with_all = MEASURED)]
    pub from: Option<PathBuf>,

    /// Show what has changed since this file was written, and whether that can be chance
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// End with exit code 1 if a figure is worse than the baseline's by more than this, beyond what its rounds vary: for CI
    #[arg(long, value_name = "PERCENT%", value_parser = percent, requires = "baseline")]
    pub fail_on: Option<f64>,

    /// Write the figures to this file, after each model; - prints them in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a line for each model and figure
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Write the table and what it says in Markdown, for an issue or a README; alone or with -: print it in place of the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub markdown: Option<PathBuf>,

    /// Write a report with charts: one file, which needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write the charts into this directory, for slides
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}

/// Reads a share of a hundred, as in "5%".
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("a share from 0% to below 100% it must be, such as 5%".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::args::{Cli, Command};

    /// Words are split at spaces; `_` stands for one within a word.
    fn parse(line: &str) -> Result<CompareArgs, String> {
        let words = ["forkd", "compare"].into_iter().chain(line.split_whitespace());
        match Cli::from_args(words.map(|word| word.replace('_', " ").into())) {
            Ok(Cli { command: Command::Compare(args) }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn nothing_need_be_said() {
        let args = parse("").unwrap();
        assert!(args.run.models.is_none() && args.run.phases.is_empty() && args.run.clients.is_empty());
        assert_eq!((args.run.service.as_str(), args.run.transport.as_str()), ("echo", "tcp"));
        assert!(args.output.json.is_none() && args.output.from.is_none());
    }

    #[test]
    fn reads_every_option() {
        let line = "--models fork,event --against a=b_{port} --against c=d_{port} --target tcp://a:1 --pid 5 \
            --i-own-this-host --phases hold,datagrams --clients 1,10 --duration 2s --rounds 4 --workers 3 \
            --service echo --size 6 --transport unix --rate 0.5/s --seed 7 --baseline b --json - \
            --csv c --markdown m --html h --svg s";
        let CompareArgs { run, output } = parse(line).unwrap();
        assert_eq!(run.models, Some(vec!["fork".into(), "event".into()]));
        assert_eq!(run.against, ["a=b {port}", "c=d {port}"]);
        assert_eq!((run.target, run.pid), ("tcp://a:1".parse().ok(), Some(5)));
        assert!(run.i_own_this_host);
        assert_eq!((run.phases, run.clients), (vec![Phase::Hold, Phase::Datagrams], vec![1, 10]));
        assert_eq!(run.duration.map(|span| span.0), Some(Duration::from_secs(2)));
        assert_eq!((run.rounds, run.workers, run.size), (Some(4), Some(3), Some(6)));
        assert_eq!((run.transport.as_str(), run.rate, run.seed), ("unix", Some(0.5), Some(7)));
        let files = [output.baseline, output.json, output.csv, output.markdown, output.html, output.svg];
        let names: Vec<String> = files.iter().flatten().map(|path| path.display().to_string()).collect();
        assert_eq!(names, ["b", "-", "c", "m", "h", "s"]);
        assert_eq!(parse("--markdown").unwrap().output.markdown, Some("-".into()));
    }

    #[test]
    fn what_was_measured_is_not_measured_otherwise() {
        let CompareArgs { run, output } = parse("--from f --models fork --baseline b").unwrap();
        assert_eq!((run.models, output.from), (Some(vec!["fork".into()]), Some("f".into())));
        for option in [
            "--against a=b",
            "--target tcp://a:1",
            "--target tcp://a:1 --pid 5",
            "--phases hold",
            "--clients 1",
            "--duration 1s",
            "--rounds 1",
            "--workers 1",
            "--service echo",
            "--size 1",
            "--transport tcp",
            "--rate 1",
            "--seed 1",
            "--stay 1ms",
            "--slo p99=1ms",
        ] {
            let error = parse(&format!("--from f {option}")).unwrap_err();
            assert!(error.contains("cannot be used with"), "{option}: {error}");
        }
    }

    #[test]
    fn no_models_are_an_empty_list() {
        for line in ["--models= --target tcp://a:1", "--target tcp://a:1 --models="] {
            assert_eq!(parse(line).unwrap().run.models, Some(vec![String::new()]), "{line}");
        }
    }

    #[test]
    fn refuses_nonsense_with_a_reason() {
        for (line, expected) in [
            ("--phases bulky", "a similar value exists: 'bulk'"),
            ("--rate fast", "such as 500 or 500/s"),
            ("--duration 5", "add a unit: 5s"),
            ("--pid 5", "--target <ENDPOINT>"),
            ("--i-own-this-host", "--target <ENDPOINT>"),
            ("--clients many", "invalid value 'many'"),
            ("--service ecko", "a similar value exists: 'echo'"),
            ("--service chargen", "[possible values: echo]"),
            ("--transport udp", "[possible values: tcp, unix]"),
            ("--fail-on 5%", "--baseline <FILE>"),
            ("--baseline b --fail-on much", "such as 5%"),
            ("--baseline b --fail-on 100%", "below 100%"),
            ("--slo p99", "as in p99=10ms"),
            ("--slo p99=10ms --rate 5", "cannot be used with"),
            ("--slo p99=10ms --phases churn", "cannot be used with"),
            ("--jsn f", "a similar argument exists: '--json'"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
