//! The `forkd` program: parse, run, turn an error into a sentence and an exit code.

use std::process::ExitCode;

use forkd::cli::{self, HeldSignals, args::Cli};

/// Children of the fork model have memory of their own for what they allocate.
#[global_allocator]
static ALLOCATOR: forkd_sys::arena::Allocator = forkd_sys::arena::Allocator;

/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // Before anything else: one that comes early is kept for the daemon, which obeys it as soon as it can.
    let signals = HeldSignals::new();
    let result = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli::run(cli, signals),
        Err(mistake) if mistake.use_stderr() => {
            forkd::log::complain_about_usage(&mistake.to_string());
            return ExitCode::from(USAGE);
        }
        Err(help) => cli::print_help(&help).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            failed.tell();
            failed.pause();
            ExitCode::from(failed.exit_code)
        }
    }
}
