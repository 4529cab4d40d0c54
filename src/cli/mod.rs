//! The command line: its grammar in [`args`], and one module for each subcommand.
//!
//! Invariant: parsing touches nothing; only a subcommand's `run` asks the system.

pub mod args;
mod ask;
pub mod check;
pub mod compare;
pub mod inetd;
mod interrupt;
pub mod load;
mod progress;
pub mod reload;
pub mod serve;
pub mod services;
pub mod status;
mod terminal;
#[cfg(feature = "top")]
pub mod top;

use crate::Error;
use args::{Cli, Command};

/// Does what the command line asks for, to the end.
///
/// # Errors
///
/// Whatever stops the subcommand; [`Error::exit_code`] is the code to exit with.
pub fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Serve { args, inetd: true } => inetd::run(&args),
        Command::Serve { args, inetd: false } => serve::run(args),
        Command::Check(options) => check::run(options),
        Command::Compare(options) => compare::run(&options),
        Command::Load(options) => load::run(&options),
        Command::NullServer => crate::compare::serve_nothing(),
        Command::Reload(options) => reload::run(options),
        Command::Services => services::run(),
        Command::Status(options) => status::run(options),
        #[cfg(feature = "top")]
        Command::Top(options) => top::run(options),
    }
}

/// The current directory; where there is none, relative paths start at the root.
fn here() -> std::path::PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}
