//! `forkd load --merge`: one report of what several generators have written.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::super::args::LoadArgs;
use super::{create, show};
use crate::failed::Failed;
use crate::{Error, foreign};
use forkd_load::Report;
use forkd_load::text::thousands;

/// No report is larger: 10,000 losses of each of 64 threads are less.
const LARGEST: u64 = 64 << 20;

/// Reads the reports, and prints the one of all.
///
/// # Errors
///
/// [`Error`] for a file that can't be read or written, exit code 65 for one that is no report, or that has no part in the others'.
pub(super) fn run(args: &LoadArgs) -> Result<(), Failed> {
    let named = |path: &std::path::PathBuf| Ok((path.display().to_string(), read(path)?));
    let reports = args.merge.iter().map(named).collect::<Result<Vec<_>, Failed>>()?;
    let report = Report::merged(&reports).map_err(|why| Failed::data(format!("cannot merge: {why}")))?;
    let extent = match report.settings.operations {
        Some(operations) => format!("{} operations per phase", thousands(operations as f64)),
        None => {
            let longest = Duration::try_from_secs_f64(report.settings.duration_s).unwrap_or_default();
            format!("{} per phase", humantime::format_duration(longest))
        }
    };
    // not before they are read: it may be one of them
    let file = create(args)?;
    Ok(show(args, &report, &extent, file)?)
}

/// Reads what a generator has written, or printed.
fn read(path: &Path) -> Result<Report, Failed> {
    let name = path.display();
    let bytes = File::open(path)
        .and_then(|file| foreign::read(file, LARGEST))
        .map_err(|cause| Error::from_io(format!("cannot read {name}"), cause))?;
    foreign::from_json(report(&bytes)).map_err(|error| {
        Failed::data(format!("{name} is not what forkd load --json has written, or not all of it: {error}"))
    })
}

/// The report in what was printed: the log of a container has what goes on meanwhile and errors, too.
fn report(printed: &[u8]) -> &[u8] {
    let line = |edge: &[u8]| printed.windows(edge.len()).position(|bytes| bytes == edge);
    let begin = if printed.starts_with(b"{") { 0 } else { line(b"\n{").map_or(0, |at| at + 1) };
    let last = printed.windows(2).rposition(|bytes| bytes == b"\n}");
    let end = last.map_or(printed.len(), |at| at + 2);
    printed.get(begin..end).unwrap_or(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_among_other_lines() {
        for printed in [
            "{\n  \"a\": {}\n}",
            "{\n  \"a\": {}\n}\n",
            "churn: 5.0 s, {1} conn\n{\n  \"a\": {}\n}\nforkd: error: {lost}\n",
        ] {
            assert_eq!(report(printed.as_bytes()), b"{\n  \"a\": {}\n}", "{printed}");
        }
        for other in ["", "{}", "}\n}\n{", "no report\n", "\n}", "{\"a\":1}\n"] {
            let _ = report(other.as_bytes());
        }
        assert_eq!(report(b"{\"a\":1}\n"), b"{\"a\":1}\n");
    }
}
