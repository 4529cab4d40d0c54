//! `--service list`: what each service does.

use super::terminal::write;
use crate::Error;
use crate::config::choice::Choice;
use crate::config::service::Builtin;

/// Prints a line for each service.
///
/// # Errors
///
/// [`Error::Os`] if the output can't be written.
pub fn run() -> Result<(), Error> {
    let line = |service: &Builtin| format!("{:9}{}\n", service.name(), service.help());
    let lines: String = Builtin::ALL.iter().map(line).collect();
    write(&lines).map(|_| ())
}
