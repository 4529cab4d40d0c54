//! `forkd completions`: what completes forkd's command lines in a shell, for a program that no package has installed.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::{Cli, CompletionsArgs};
use super::terminal::write;
use crate::Error;

/// Prints the script.
///
/// # Errors
///
/// [`Error::Os`] if the output can't be written.
pub fn run(args: &CompletionsArgs) -> Result<(), Error> {
    write(&script(args.shell)).map(|_| ())
}

/// Makes the script that the shell reads.
#[must_use]
pub fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "forkd", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
