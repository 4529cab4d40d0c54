//! Where the figures go: files, and the terminal.

use std::path::Path;

use crate::Error;
use crate::cli::args::OutputArgs;
use crate::compare::record::Record;

/// What was asked for.
pub(super) struct Output(Option<std::path::PathBuf>);

impl Output {
    /// Opens what is to be written, and reads what is to be compared with: before anything is measured.
    pub(super) fn open(args: &OutputArgs) -> Result<Self, Error> {
        Ok(Self(args.json.clone()))
    }

    /// Writes the files anew: little is lost if that was the last time.
    pub(super) fn keep(&self, record: &Record) -> Result<(), Error> {
        let Some(path) = &self.0 else { return Ok(()) };
        let json =
            serde_json::to_string_pretty(record).map_err(|error| Error::Internal(error.to_string()))?;
        std::fs::write(path, json).map_err(|cause| Error::os(path.display().to_string(), cause))
    }

    /// Shows the whole, on standard output.
    pub(super) fn show(&self, record: &Record) -> Result<(), Error> {
        self.keep(record)
    }
}

pub(super) fn read(path: &Path) -> Result<Record, Error> {
    Err(Error::Internal(path.display().to_string()))
}
