//! The grammar of those that ask a running daemon: `forkd status`, `top`, `reload`, `upgrade` and `pardon`.

use std::path::PathBuf;

use clap::Args;

use crate::config::PardonedSource;
use crate::config::values::{Interval, Span};

const CONTROL: &str = "Socket to ask [default: $FORKD_CONTROL or $RUNTIME_DIRECTORY/control.sock, if set, or the first that \
    answers of $XDG_RUNTIME_DIR/forkd.sock and /run/forkd/control.sock, the installed service's]";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  forkd status
  forkd status --watch
  forkd status --watch 500ms --json | jq --unbuffered .listeners[0].alive
  forkd status --sources           which clients are refused, why, and for how long?
  forkd status --control /run/forkd-lab/control.sock --json";

#[cfg(feature = "top")]
pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  forkd top                press ? for the keys
  forkd top --interval 250ms --control /run/forkd-lab/control.sock";

pub(super) const RELOAD_EXAMPLES: &str = "\
Examples:
  forkd reload
  forkd check --config /etc/forkd/forkd.toml && forkd reload
  forkd reload --control /run/forkd-lab/control.sock";

/// The options of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", help = CONTROL)]
    pub control: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Show the sources that have clients, or are refused: why, and for how long
    #[arg(long, conflicts_with = "watch")]
    pub sources: bool,

    /// Ask again and again, and say what happens per second; ends at Ctrl-C [default interval: 2s]
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s")]
    pub watch: Option<Interval>,
}

/// The options of `top`.
#[cfg(feature = "top")]
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", help = CONTROL)]
    pub control: Option<PathBuf>,

    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub interval: Interval,
}

pub(super) const PARDON_EXAMPLES: &str = "\
Examples:
  forkd pardon 192.0.2.1
  forkd pardon 2001:db8::/32";

/// The options of `pardon`.
#[derive(Debug, Clone, Args)]
pub struct PardonArgs {
    /// An address, a network, or uid:N
    #[arg(value_name = "SOURCE")]
    pub source: PardonedSource,

    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", help = CONTROL)]
    pub control: Option<PathBuf>,
}

/// The options of `reload`.
#[derive(Debug, Clone, Args)]
pub struct ReloadArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", help = CONTROL)]
    pub control: Option<PathBuf>,
}

pub(super) const UPGRADE_EXAMPLES: &str = "\
Examples:
  forkd upgrade                       by this program, which has been installed over the running one
  /opt/forkd-2/bin/forkd upgrade      by that one
  forkd upgrade --finish-within 10m   end what older programs still serve by then
  forkd upgrade --control /run/forkd-lab/control.sock";

/// The options of `upgrade`.
#[derive(Debug, Clone, Args)]
pub struct UpgradeArgs {
    /// End connections of the programs before the new one after so long; otherwise they may go on for ever
    #[arg(long, value_name = "DURATION")]
    pub finish_within: Option<Span>,

    /// The new program [default: the one that this is]
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,

    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", help = CONTROL)]
    pub control: Option<PathBuf>,
}
