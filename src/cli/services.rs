//! `--service list`: what each service does.

use std::io::Write;

use clap::ValueEnum;

use crate::Error;
use crate::service::Builtin;

/// Prints a line for each service.
///
/// # Errors
///
/// [`Error::Os`] if the output can't be written.
pub fn run() -> Result<(), Error> {
    let mut lines = String::new();
    for service in Builtin::value_variants() {
        let help = service.to_possible_value().and_then(|value| Some(value.get_help()?.to_string()));
        lines += &format!("{:9}{}\n", service.name(), help.unwrap_or_default());
    }
    let written = std::io::stdout().write_all(lines.as_bytes());
    written.map_err(|cause| Error::os("cannot write to standard output", cause))
}
