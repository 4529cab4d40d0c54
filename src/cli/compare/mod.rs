//! `forkd compare`: measures servers side by side, or shows again what was measured.

mod measure;
mod output;
mod plan;

use super::args::CompareArgs;
use crate::Error;
use output::Output;

/// Measures, and shows what came of it.
///
/// # Errors
///
/// For wrong options, files that can't be read or written, and servers none of which can be measured.
pub fn run(args: &CompareArgs) -> Result<(), Error> {
    let output = Output::open(&args.output)?;
    let record = match &args.output.from {
        Some(path) => output::read(path)?,
        None => measure::measure(&args.run, |record| output.keep(record))?,
    };
    output.show(&record)
}
