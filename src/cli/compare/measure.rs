//! Measures, tells meanwhile how it goes, and lets nothing be lost.

use crate::Error;
use crate::cli::args::RunArgs;
use crate::compare::record::Record;

/// Measures; `keep` gets what there is after each model.
pub(super) fn measure(_: &RunArgs, _keep: impl FnMut(&Record) -> Result<(), Error>) -> Result<Record, Error> {
    Err(Error::Internal("not there yet".into()))
}
