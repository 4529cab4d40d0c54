//! The grammar of `forkd doctor`.

use clap::Args;

use crate::config::options::ServeOptions;

pub(super) const EXAMPLES: &str = "\
Examples:
  forkd doctor                                    what does this machine allow?
  forkd doctor --connections 10000 --model event  can it serve so many at once?
  forkd doctor --config /etc/forkd/forkd.toml     what limits this configuration?
  forkd doctor --json | jq '.findings[] | select(.verdict == \"limits\")'";

/// The options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// What would be served and how.
    #[command(flatten)]
    pub serve: ServeOptions,

    /// Connections that are to be served at once
    #[arg(long, value_name = "N")]
    pub connections: Option<u64>,

    /// New connections that are to be served per second
    #[arg(long, value_name = "N")]
    pub arrivals: Option<u64>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
