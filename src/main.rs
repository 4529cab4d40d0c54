//! The `forkd` program: parse, run, turn an error into a sentence and an exit code.

use std::process::ExitCode;

use forkd::cli::{self, HeldSignals, args::Cli};

/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // Before anything else: one that comes early is kept for the daemon, which obeys it as soon as it can.
    let signals = HeldSignals::new();
    let cli = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(message) => {
            // help and version are asked for; anything else is a mistake. A closed pipe is neither.
            let is_mistake = message.use_stderr();
            if is_mistake {
                forkd::log::complain_about_usage(&message.to_string());
            } else {
                let _ = message.print();
            }
            return ExitCode::from(if is_mistake { USAGE } else { 0 });
        }
    };
    match cli::run(cli, signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            forkd::log::complain(&error.sentence());
            ExitCode::from(error.exit_code())
        }
    }
}
