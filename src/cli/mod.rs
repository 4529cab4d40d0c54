//! The command line: its grammar in [`args`], and one module for each subcommand.
//!
//! Invariant: parsing touches nothing; only a subcommand's `run` asks the system.

pub mod args;
mod ask;
pub mod check;
pub mod compare;
pub mod completions;
pub mod doctor;
mod in_unit;
pub mod inetd;
mod interrupt;
pub mod lab;
pub mod load;
pub mod man;
pub mod pardon;
pub mod probe;
mod progress;
pub mod reload;
pub mod serve;
pub mod services;
pub mod status;
mod succeed;
mod terminal;
#[cfg(feature = "top")]
pub mod top;
pub mod upgrade;

use std::path::{Path, PathBuf};

use crate::Error;
use crate::config::options::ServeOptions;
use crate::config::{Config, Sources};
pub use crate::failed::Failed;
use crate::sys::signal::{Blocked, ignore_file_size_limit};
use args::{Cli, Command};
use forkd_server::Endpoint;
pub use terminal::print_help;

/// Signals that are kept back from the first instruction of the program on, until it is known whether it is a
/// daemon. A file that has grown to its limit (SIGXFSZ) never ends the program.
#[derive(Debug)]
pub struct HeldSignals(Blocked);

impl HeldSignals {
    /// Blocks all but those of a process that has gone wrong.
    #[must_use]
    pub fn new() -> Self {
        let signals = Self(Blocked::all());
        // it fails only for a signal that can't be ignored
        let _ = ignore_file_size_limit();
        signals
    }
}

impl Default for HeldSignals {
    fn default() -> Self {
        Self::new()
    }
}

/// Does what the command line asks for, to the end.
///
/// `signals` come as they come to any program, unless this one becomes a daemon: that has its own ways with them.
///
/// # Errors
///
/// Whatever stops the subcommand; [`Error::exit_code`](crate::Error::exit_code) is the code to exit with.
pub fn run(cli: Cli, signals: HeldSignals) -> Result<(), Failed> {
    match cli.command {
        Command::Serve { inetd: false, .. } => signals.0.for_good(),
        _ => drop(signals),
    }
    match cli.command {
        Command::Serve { args, inetd: true, .. } => inetd::run(args).map_err(Failed::from),
        Command::Serve { args, trial: true, .. } => succeed::try_out(args),
        Command::Serve { args, .. } => serve::run(args),
        Command::Check { unit: Some(unit), .. } => in_unit::run(&unit),
        Command::Check { args, source, unit: None } => check::run(args, source).map_err(Failed::from),
        Command::Compare(options) => compare::run(&options),
        Command::Lab(options) => lab::run(&options),
        Command::Completions(options) => completions::run(&options).map_err(Failed::from),
        Command::Doctor(options) => doctor::run(options),
        Command::Load(options) => load::run(&options),
        Command::Man(options) => man::run(&options).map_err(Failed::from),
        Command::NullServer => forkd_compare::serve_nothing().map_err(Failed::from),
        Command::Pardon(options) => pardon::run(options),
        Command::Probe(options) => probe::run(&options),
        Command::Reload(options) => reload::run(options),
        Command::Services => services::run().map_err(Failed::from),
        Command::Status(options) => status::run(options),
        #[cfg(feature = "top")]
        Command::Top(options) => top::run(options),
        Command::Upgrade(options) => upgrade::run(options),
    }
}

/// Lays the command line over the environment, and warns of variables that have no effect.
fn sources(options: ServeOptions) -> Result<Sources, Error> {
    let (sources, unknown) = Sources::new(options, std::env::vars_os())?;
    unknown.iter().for_each(|why| crate::log::caution(why));
    Ok(sources)
}

/// Reads the file, and makes the configuration. `here` is the current directory.
fn resolve(sources: &Sources, here: &Path, default_endpoints: &[Endpoint]) -> Result<Config, Error> {
    Config::resolve(sources, here, |name| std::env::var_os(name), default_endpoints)
}

/// The current directory; where there is none, relative paths start at the root.
fn here() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}
