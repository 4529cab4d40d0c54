//! `--service list`: what each service does.

use clap::ValueEnum;

use super::terminal::write;
use crate::Error;
use crate::config::service::Builtin;

/// Prints a line for each service.
///
/// # Errors
///
/// [`Error::Os`] if the output can't be written.
pub fn run() -> Result<(), Error> {
    let mut lines = String::new();
    for service in Builtin::value_variants().iter().filter_map(ValueEnum::to_possible_value) {
        let help = service.get_help().map(ToString::to_string).unwrap_or_default();
        lines += &format!("{:9}{help}\n", service.get_name());
    }
    write(&lines).map(|_| ())
}
