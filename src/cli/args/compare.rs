//! The grammar of `forkd compare`.

use std::path::PathBuf;

use clap::Args;

use crate::config::values::Span;
use crate::load::Phase;
use crate::service::Builtin;
use crate::transport::Endpoint;

pub(super) const EXAMPLES: &str = "\
Examples:
  forkd compare
  forkd compare --models fork,prefork,event --clients 1,10,100,1000 --html report.html
  forkd compare --against 'socat=socat TCP-LISTEN:{port},fork,reuseaddr,backlog=1024 EXEC:cat'
  forkd compare --models '' --target tcp://127.0.0.1:7 --pid 4711
  forkd compare --from old.json --html report.html
  forkd compare --baseline old.json";

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
    /// Models of forkd to compare, prethread (thread --threads) among them; empty for none [default: all]
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
    #[arg(long, value_name = "PHASE,...", value_enum, value_delimiter = ',')]
    pub phases: Vec<Phase>,

    /// Clients at the same time; several numbers show how cost grows [default: 100]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub clients: Vec<usize>,

    /// How long each phase is measured in each round [default: 300ms]
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<Span>,

    /// How often each model has its turn; they take turns, so that drift cancels out [default: 3]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,

    /// Workers of each pool but iterative's [default: 8 of prefork, one for each processor of others]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,

    /// What forkd does with the bytes; clients verify an echo
    #[arg(long, value_enum, default_value_t = Builtin::Echo)]
    pub service: Builtin,

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
}

/// What becomes of it.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Measure nothing: show what this file has, which --json has written
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Show what has changed since this file was written, and whether that can be chance
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Write the figures to this file, after each model; - prints them in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a line for each model and figure
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Write a report with charts: one file, which needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write the charts into this directory, for slides
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}
