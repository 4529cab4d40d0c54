//! `forkd doctor`: says what on this system limits forkd.

use super::args::DoctorArgs;
use super::terminal::{Terminal, print_json};
use super::{here, resolve, sources};
use crate::Error;
use crate::config::Sources;
use crate::doctor::diagnose;
use crate::doctor::facts::Facts;
use crate::doctor::need::Need;
use crate::failed::Failed;

/// What the exit code is where something limits what is asked.
const LIMITED: u8 = 1;

/// Prints what limits the configuration, or forkd by default.
///
/// # Errors
///
/// Exit code 1, without a word, if something allows less than is asked; those of
/// [`Config::resolve`](crate::config::Config::resolve); [`Error::Os`] if the output can't be written.
pub fn run(args: DoctorArgs) -> Result<(), Failed> {
    let DoctorArgs { serve, connections, arrivals, json } = args;
    let sources = sources(serve)?;
    let is_asked = sources != Sources::default();
    let config = resolve(&sources, &here(), &[])?;
    let diagnosis = diagnose(&Facts::here(), &Need::of(&config, is_asked, connections, arrivals));
    if json {
        let text =
            serde_json::to_string_pretty(&diagnosis).map_err(|error| Error::Internal(error.to_string()))?;
        print_json(&(text + "\n"))?;
    } else {
        Terminal::new().print(&diagnosis.text())?;
    }
    match diagnosis.limiting {
        0 => Ok(()),
        // the output says it
        n => Err(Failed {
            is_told: true,
            ..Failed::new(LIMITED, format!("{n} limits allow less than is asked"))
        }),
    }
}
